"""A second device in a process of its own, for workloads where sharing an interpreter would distort figures.

Started by `peer_process`; opens a store that has joined already, connects, and prints one JSON line per
thing seen, with `time.monotonic()` stamps, which on Linux all processes of a machine share:

    {"ready": …}                              connected and up to date
    {"seen": value, "at": seconds}            latency: a change of the watched field was handed to a watcher
    {"all": true, "at": seconds}              throughput: every record has the expected value
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from crdt_sync_client import Device

KEY_VARIABLE = "CRDT_SYNC_BENCH_KEY"


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


async def watch_latency(device: Device, field: str) -> None:
    """Say every new value of one field until standard input closes."""
    async with device.watch("work_order") as changes:
        await device.sync()
        await device.connect()
        say(ready=True)
        async for change in changes:
            at = time.monotonic()
            if change.record is not None and field in change.fields:
                say(seen=change.record[field], at=at)


async def wait_for_all(device: Device, field: str, records: int, expected: int) -> None:
    """Say when `records` records have the expected value of the field."""
    have: set[str] = set()
    async with device.watch("work_order") as changes:
        await device.sync()
        await device.connect()
        say(ready=True)
        async for change in changes:
            if change.record is not None and change.record.values.get(field) == expected:
                have.add(change.id)
                if len(have) == records:
                    say(all=True, at=time.monotonic())
                    break


async def main(mode: str, store: str, *arguments: str) -> None:
    async with await Device.open(store, key=bytes.fromhex(os.environ[KEY_VARIABLE])) as device:
        if mode == "latency":
            task = asyncio.ensure_future(watch_latency(device, arguments[0]))
        else:
            task = asyncio.ensure_future(
                wait_for_all(device, arguments[0], int(arguments[1]), int(arguments[2]))
            )
        closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await asyncio.wait({task, asyncio.ensure_future(closed)}, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()


@asynccontextmanager
async def peer_process(
    store: Path, key: bytes, mode: str, *arguments: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The peer as a subprocess, ready; it ends when its standard input is closed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__)), mode, str(store), *map(str, arguments)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, KEY_VARIABLE: key.hex()},
    )
    try:
        await read_line(process)
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)


async def read_line(process: asyncio.subprocess.Process, timeout_s: float = 60) -> dict[str, Any]:
    """The next JSON line of a peer."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
    assert line, "the peer process ended early"
    answer: dict[str, Any] = json.loads(line)
    return answer


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
