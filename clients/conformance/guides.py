"""Runs the examples of docs/clients/python.md, docs/clients/typescript.md and docs/clients/rust.md as they stand there, one
after the other, against nodes at the address that they name: a plain one, and one with TLS and tokens. The examples of the
three pages do the same, so they must print the same. The quick starts of these pages are left to `quick_starts.py`.

Run it in a network namespace of its own (`unshare --net`), where nobody else uses that port.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from cluster import Node
from quick_starts import PORT, ROOT, loopback_up
from secrets_of import Secrets

#: What the examples of each page print, in their order.
PRINTED = [
    "stored applied\nheld by 1\nstale\n",
    "hall/1/temp 21.5 state\nthat was the state\nhall/1/temp 23.5 news\n",
    "2 values\n",
    "hall/2/temp is hot\nhall/2/temp has cooled down\n",
    "0\n1\n2\n3\n",
    "23.5\nhall/1/temp 23.5\nhall/2/temp 24.5\n3\n2\n1\n0\n",
    "5000 are stored\n12497500\n",
    "bad_source stays\n",
    "applied\n",
    "applied\n",
    "a fresh token is needed\napplied\n",
]
#: The example for Rust that is compiled, with a function for every example of the page.
RUST = ROOT / "clients/rust/examples/guide.rs"
#: How long an example may take, in seconds; the machine may be busy.
EXAMPLE_MAX_S = 120


@dataclass(frozen=True)
class Page:
    """The page of a client."""

    path: str
    #: The mark of the examples.
    mark: str
    #: How many blocks with this mark come before the examples: the quick start, where it has the same mark.
    skipped: int
    #: Returns the command that runs an example in a folder, from the number and the text of the example.
    command: Callable[[Path, int, str], list[str]]

    def examples(self) -> list[str]:
        """Returns the examples, after it was checked that nothing of the page is left out."""
        blocks = re.findall(r"```([^\n]*)\n(.*?)```", (ROOT / self.path).read_text(), re.DOTALL)
        others = [code for mark, code in blocks if mark != self.mark]
        found = [code for mark, code in blocks if mark == self.mark][self.skipped :]
        # These are how it is installed and, where it has a mark of its own, the quick start.
        assert len(others) == 2 - self.skipped, f"{self.path} has blocks that nobody runs"
        assert len(found) == len(PRINTED), f"{self.path} has {len(found)} examples, and not {len(PRINTED)}"
        return found


def connects(example: str) -> bool:
    """Returns whether an example makes a client of its own."""
    return "connect(" in example


def in_python(folder: Path, number: int, example: str) -> list[str]:
    if connects(example):
        inside = textwrap.indent(example, "    ")
    else:
        head = f'    async with await connect(["ws://127.0.0.1:{PORT}"]) as c:\n'
        inside = head + textwrap.indent(example, "        ")
    program = folder / f"example{number}.py"
    program.write_text(
        f"import asyncio\nfrom anode_client import connect\n\nasync def main():\n{inside}\nasyncio.run(main())\n"
    )
    return [sys.executable, str(program)]


def in_typescript(folder: Path, number: int, example: str) -> list[str]:
    program = folder / f"example{number}.mjs"
    head = 'import { connect } from "anode-client";\n'
    if not connects(example):
        head += f'const c = await connect(["ws://127.0.0.1:{PORT}"]);\n'
        example += "await c.close();\n"
    program.write_text(head + example)
    return ["node", str(program)]


def in_rust(program: Path, number: int, example: str) -> list[str]:
    """Returns the command for an example that is compiled already, after it was compared with what was compiled."""
    functions = re.findall(
        r"^async fn (\w+)\([^)]*\) -> Result<\(\), AnodeError> \{\n(.*?)    Ok\(\(\)\)\n\}\n",
        RUST.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert len(functions) == len(PRINTED), f"{RUST} has {len(functions)} examples"
    name, body = functions[number]
    assert textwrap.dedent(body) == example, f"{name} of {RUST} differs from the page:\n{example}"
    return [str(program.resolve()), name]


def run(page: Page, number: int, command: list[str], folder: Path) -> None:
    """Runs an example, and checks what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANODE_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=EXAMPLE_MAX_S
    )
    what = f"example {number + 1} of {page.path}"
    assert done.returncode == 0, f"{what}: {done.stderr}"
    assert done.stdout == PRINTED[number], f"{what} printed {done.stdout!r}, and not {PRINTED[number]!r}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the program of the node")
    parser.add_argument("--rust", type=Path, required=True, help="the examples for Rust, compiled")
    parser.add_argument("--node-modules", type=Path, required=True, help="where anode-client and ws are installed")
    arguments = parser.parse_args()
    loopback_up()
    pages = [
        Page("docs/clients/python.md", "python", 1, in_python),
        Page("docs/clients/typescript.md", "js", 1, in_typescript),
        Page("docs/clients/rust.md", "rust", 0, lambda _, *example: in_rust(arguments.rust, *example)),
    ]
    with tempfile.TemporaryDirectory(prefix="anode-guides-") as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(arguments.node_modules.resolve())
        closed = Secrets(ROOT, folder / "secrets").flags()
        for page in pages:
            examples = list(enumerate(page.examples()))
            for flags in ([], closed):
                kind = "closed" if flags else "plain"
                node = Node(arguments.binary, folder, f"{Path(page.path).stem}-{kind}", flags, http=PORT)
                await node.start([])
                try:
                    for number, example in examples:
                        if ("wss://" in example) == bool(flags):
                            run(page, number, page.command(folder, number, example), folder)
                finally:
                    await node.kill()
            print(f"ok examples: {page.path}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
