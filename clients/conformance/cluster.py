"""Real nodes on this machine, which are started, killed and started again."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import urllib.request
from pathlib import Path
from typing import Optional

#: How long a node may take to become ready, in seconds; the machine may be busy.
READY_MAX_S = 60
#: The ports that are tried: below those that the kernel gives to clients, and from another one in each process.
_PORTS = itertools.count(os.getpid() * 211)


def free_port() -> int:
    """Returns a port that is free for TCP and UDP, and another one at every call. The kernel may give a port twice."""
    while True:
        port = 12_000 + next(_PORTS) % 20_000
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Node:
    """One node with ports and a data directory of its own, which outlive its process."""

    def __init__(self, binary: Path, folder: Path, name: str, flags: list[str], http: Optional[int] = None) -> None:
        self.name = name
        self.http, self.gossip, self.plain = http or free_port(), free_port(), free_port()
        self._command = [
            str(binary), "serve", "--node-name", name, "--http", f"127.0.0.1:{self.http}",
            "--gossip", f"127.0.0.1:{self.gossip}", "--metrics", f"127.0.0.1:{self.plain}",
            "--data-dir", str(folder / name), "--profile", "local", *flags,
        ]
        self._log = folder / f"{name}.log"
        self._process: Optional[asyncio.subprocess.Process] = None

    async def start(self, join: list[int]) -> None:
        """Starts the process, and waits until it is ready."""
        targets = [f"127.0.0.1:{port}" for port in join if port != self.gossip]
        command = self._command + (["--join", ",".join(targets)] if targets else [])
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.DEVNULL, stderr=log, stdin=asyncio.subprocess.DEVNULL
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_MAX_S
        while loop.time() < deadline:
            if self._process.returncode is not None:
                raise RuntimeError(f"node {self.name} has ended; its log is {self._log}")
            if await asyncio.to_thread(self._is_ready):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"node {self.name} is not ready after {READY_MAX_S} s; its log is {self._log}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.plain}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    async def kill(self) -> None:
        """Kills the process at once (SIGKILL)."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """Lets the process end in good order (SIGTERM)."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


class Cluster:
    """Nodes that know each other."""

    def __init__(self, binary: Path, folder: Path, names: str, flags: list[str], tls: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.nodes = {name: Node(binary, folder, name, flags) for name in names}
        self.urls = [f"{'wss' if tls else 'ws'}://127.0.0.1:{node.http}" for node in self.nodes.values()]
        self.folder = folder

    async def start(self) -> None:
        await asyncio.gather(*(self.start_node(name) for name in self.nodes))

    async def start_node(self, name: str) -> None:
        await self.nodes[name].start([node.gossip for node in self.nodes.values()])

    async def kill(self) -> None:
        await asyncio.gather(*(node.kill() for node in self.nodes.values()))
