"""Drives the three clients through real clusters, and compares all that they answer: see README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from cluster import Cluster
from drivers import Driver, drivers
from misbehaving import misbehaving
from scenario import Mismatch, Scenario
from secrets_of import Secrets

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

#: The scenarios, with the names of their nodes and the flags of these.
SCENARIOS = {
    "kills": ("abc", []),
    "closed": ("xyz", []),
    "greeted": ("abc", []),
    "words": ("abc", []),
    "reset": ("m", ["--store", "memory"]),
}


async def perform(name: str, arguments: argparse.Namespace, folder: Path) -> int:
    """Performs one scenario on a cluster of its own. Returns how many answers were compared."""
    steps = json.loads((HERE / f"scenarios/{name}.json").read_text())
    nodes, flags = SCENARIOS[name]
    secrets = Secrets(ROOT, folder / "secrets") if name == "closed" else None
    flags = flags + secrets.flags() if secrets else flags
    cluster = Cluster(arguments.binary, folder / name, nodes, flags, tls=secrets is not None)
    environment = {name: value for name, value in os.environ.items() if name != "ANODE_TOKEN"}
    if secrets:
        # Clients that are given no token bring this one, and others do not.
        environment["ANODE_TOKEN"] = secrets.values()["reader"]
    clients = drivers(HERE, arguments.rust, arguments.only, environment)
    renewing = asyncio.create_task(secrets.renew()) if secrets else None
    try:
        await cluster.start()
        await asyncio.gather(*(client.start() for client in clients))
        scenario = Scenario(clients, cluster, secrets.values() if secrets else {})
        rest = steps
        while rest:
            at = next((at for at, step in enumerate(rest) if "rotate" in step), len(rest))
            await scenario.perform(rest[:at])
            if at < len(rest) and secrets:
                secrets.rotate()
            rest = rest[at + 1 :]
        await ended(clients)
        return scenario.answers
    finally:
        if renewing:
            renewing.cancel()
        await asyncio.gather(*(client.stop() for client in clients))
        await cluster.kill()


async def ended(clients: list[Driver]) -> None:
    """Checks that the programs end by themselves when their clients are closed."""
    codes = await asyncio.gather(*(client.stop() for client in clients))
    for client, code in zip(clients, codes):
        if code != 0:
            raise Mismatch(f"{client.name}: its program ended with {code}")


async def perform_misbehaving(arguments: argparse.Namespace) -> int:
    clients = drivers(HERE, arguments.rust, arguments.only, dict(os.environ))
    try:
        await asyncio.gather(*(client.start() for client in clients))
        checks = await misbehaving(clients)
        await ended(clients)
        return checks
    finally:
        await asyncio.gather(*(client.stop() for client in clients))


async def tell(name: str, arguments: argparse.Namespace, folder: Path) -> bool:
    """Performs one scenario, and prints what came of it."""
    begun = time.monotonic()
    try:
        if name == "misbehaving":
            what = f"{await perform_misbehaving(arguments)} checks"
        else:
            what = f"{await perform(name, arguments, folder)} answers"
        print(f"ok {name}: {what}, {time.monotonic() - begun:.1f} s", flush=True)
        return True
    except (Mismatch, RuntimeError) as mismatch:
        print(f"FAILED {name} after {time.monotonic() - begun:.1f} s: {mismatch}", flush=True)
        for log in sorted(folder.glob(f"{name}/*.log")):
            print(f"--- {log.name}", *log.read_text().splitlines()[-15:], sep="\n", flush=True)
        return False


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the program of the node")
    parser.add_argument("--rust", type=Path, required=True, help="the driver of the Rust client")
    parser.add_argument("--only", default="py,ts,rs", help="the clients to test")
    parser.add_argument("--scenario", default=",".join([*SCENARIOS, "misbehaving"]), help="the scenarios to perform")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios that are performed at once")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    # Scenarios wait for most of their time, so several are performed at once.
    gate = asyncio.Semaphore(arguments.jobs)
    with tempfile.TemporaryDirectory(prefix="anode-clients-") as folder:

        async def one(name: str) -> bool:
            async with gate:
                return await tell(name, arguments, Path(folder))

        outcomes = await asyncio.gather(*(one(name) for name in arguments.scenario.split(",")))
    passed, failed = outcomes.count(True), outcomes.count(False)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
