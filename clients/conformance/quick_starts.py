"""Runs the quick starts of docs/clients/python.md, docs/clients/typescript.md and docs/clients/rust.md as they stand there,
against a node at the address that they name. README.md has the same ones.

Run it in a network namespace of its own (`unshare --net`), where nobody else uses that port.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import re
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster import Node

ROOT = Path(__file__).resolve().parent.parent.parent
#: The port that the quick starts name.
PORT = 7070
#: Lines that a quick start may have.
LINES_MAX = 10
#: By language: the mark of the code, the page that has it first, and the README of the package, which has the same code,
#: as the README of the project does.
QUICK_STARTS = {
    "Python": ("python", "docs/clients/python.md", "clients/python/README.md"),
    "TypeScript": ("js", "docs/clients/typescript.md", "clients/typescript/README.md"),
    "Rust": ("rust,no_run", "docs/clients/rust.md", "clients/rust/README.md"),
}
#: Request and flag of Linux that bring a network interface up.
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def code_of(text: str, mark: str) -> str:
    """Returns the first code with this mark."""
    found = re.search(rf"```{re.escape(mark)}\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"no code marked {mark}"
    return found.group(1)


def loopback_up() -> None:
    """Brings the loopback interface of a new network namespace up. It is up already in others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        except PermissionError:
            pass


def checked(language: str) -> str:
    """Returns a quick start, after it was compared with its copies."""
    mark, page, readme = QUICK_STARTS[language]
    code = code_of((ROOT / page).read_text(), mark)
    lines = code.count("\n")
    assert lines <= LINES_MAX, f"the quick start for {language} has {lines} lines; at most {LINES_MAX}"
    for copy in (readme, "README.md"):
        assert code_of((ROOT / copy).read_text(), mark) == code, f"{copy} has another quick start than {page}"
    if language == "Rust":
        example = (ROOT / "clients/rust/examples/quick_start.rs").read_text()
        assert example.endswith(f"\n\n{code}"), "examples/quick_start.rs differs from the README"
    return code


def run(language: str, command: list[str], folder: Path) -> None:
    """Runs a quick start, and checks what it prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    told = done.stdout
    assert done.returncode == 0, f"{language}: {done.stderr}"
    right = re.fullmatch(r"applied at \d{16}\nsensors/7/temp = 21.5\n", told)
    assert right, f"{language}: {told!r}"
    print(f"ok quick start: {language}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the program of the node")
    parser.add_argument("--rust", type=Path, required=True, help="the quick start for Rust, compiled")
    parser.add_argument("--node-modules", type=Path, required=True, help="where anode-client and ws are installed")
    arguments = parser.parse_args()
    loopback_up()
    with tempfile.TemporaryDirectory(prefix="anode-quick-") as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(arguments.node_modules.resolve())
        (folder / "quick.py").write_text(checked("Python"))
        (folder / "quick.mjs").write_text(checked("TypeScript"))
        checked("Rust")
        node = Node(arguments.binary, folder, "quick", [], http=PORT)
        await node.start([])
        try:
            for language, command in {
                "Python": [sys.executable, "quick.py"],
                "TypeScript": ["node", "quick.mjs"],
                "Rust": [str(arguments.rust.resolve())],
            }.items():
                run(language, command, folder)
        finally:
            await node.kill()


if __name__ == "__main__":
    asyncio.run(main())
