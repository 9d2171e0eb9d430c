"""The tokens, rights and certificates of the closed cluster."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import time
from pathlib import Path

_JWT_SECRET = b"a secret of the tests, of more than 32 bytes"
#: How long a JWT of the tests lives, in seconds.
_JWT_LIFE_S = 10


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def jwt() -> str:
    """Returns a token that ends soon."""
    header = _base64url(b'{"alg":"HS256","typ":"JWT"}')
    rights = {"publish": ["*/open/**"], "subscribe": ["*/open/**"]}
    claims = {"sub": "short", "exp": int(time.time()) + _JWT_LIFE_S, "anode": rights}
    message = f"{header}.{_base64url(json.dumps(claims).encode())}"
    return f"{message}.{_base64url(hmac.new(_JWT_SECRET, message.encode(), hashlib.sha256).digest())}"


def replace(path: Path, text: str) -> None:
    """Writes a file in one step."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


class Secrets:
    """A folder with all of them."""

    def __init__(self, root: Path, folder: Path) -> None:
        subprocess.run([str(root / "deploy/secrets"), str(folder)], check=True, stderr=subprocess.DEVNULL)
        self.folder = folder
        (folder / "jwt.secret").write_bytes(_JWT_SECRET)
        (folder / "writer.token").write_text("writer-secret\n")
        self._auth = (folder / "auth.toml").read_text() + "\n" + "\n".join(
            f'[[token]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{rights}\n'
            for name, secret, rights in [
                ("reader", "reader-secret", 'subscribe = ["*/open/**"]'),
                ("writer", "writer-secret", 'publish = ["*/open/**"]'),
            ]
        )
        self._auth += '\n[jwt]\nhmac_secret_file = "jwt.secret"\n'
        self._renewing: asyncio.Task[None] | None = None
        replace(folder / "jwt.token", jwt())
        (folder / "rotated.token").write_text("first-secret")
        self._write_rights("first-secret")

    def flags(self) -> list[str]:
        """Returns the flags of nodes."""
        path = self.folder
        return [
            "--tls-cert", str(path / "tls.crt"), "--tls-key", str(path / "tls.key"),
            "--auth", str(path / "auth.toml"), "--cluster-key", str(path / "cluster.key"),
        ]

    def values(self) -> dict[str, str]:
        """Returns what scenarios name by `$NAME`."""
        return {
            "ca": str(self.folder / "ca.crt"),
            "admin": (self.folder / "admin.token").read_text().strip(),
            "reader": "reader-secret",
            "rotated": "first-secret",
            "writer_file": str(self.folder / "writer.token"),
            "jwt_file": str(self.folder / "jwt.token"),
            "rotated_file": str(self.folder / "rotated.token"),
        }

    def rotate(self) -> None:
        """Takes one token out of force, after its holders can have the new one."""
        (self.folder / "rotated.token").write_text("second-secret")
        self._write_rights("second-secret")

    async def renew(self) -> None:
        """Issues a fresh JWT every half second."""
        while True:
            replace(self.folder / "jwt.token", jwt())
            await asyncio.sleep(0.5)

    def _write_rights(self, secret: str) -> None:
        hash = hashlib.sha256(secret.encode()).hexdigest()
        rights = 'publish = ["*/open/**"]\nsubscribe = ["*/open/**"]'
        entry = f'[[token]]\nname = "rotated"\nsha256 = "{hash}"\n{rights}\n'
        replace(self.folder / "auth.toml", entry + self._auth)
