"""Client of aNode: publish to any node, and read from any node.

`connect` returns a `Client`. It keeps its connections by itself: after a loss it goes on at another node of the
cluster. What it promises is written in docs/clients.md.
"""

from .client import Client, connect
from .errors import AnodeError
from .reads import Pages
from .records import Ack, Record
from .subscription import Subscription

__all__ = ["Ack", "AnodeError", "Client", "Pages", "Record", "Subscription", "connect"]
