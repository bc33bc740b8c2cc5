"""The load itself, in a process of its own: `fleet.py WORKLOAD URL`, the setup token on standard input.

It prints JSON lines: `{"phase": …}` as one begins, and at the end `{"figures": {…}}`. Started by `run.py`,
which watches the relay meanwhile. Every workload is bounded in devices, envelopes and time, and talks to
loopback.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.load.members import Member, make_space

LIMIT_S = 300.0
"""After which a phase gives up, with an error."""
AT_ONCE = 64
"""Connections being made at the same time, where it is not the point that all come at once."""
PER_SPACE = 50
"""Members of one space: a site or a large crew."""


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


async def make_spaces(url: str, token: str, devices: int, per_space: int) -> list[list[Member]]:
    """So many devices in spaces of `per_space` members."""
    say(phase=f"{devices} devices join")
    counts = [per_space] * (devices // per_space) + ([devices % per_space] if devices % per_space else [])
    gate = asyncio.Semaphore(4)

    async def one(count: int) -> list[Member]:
        async with gate:
            return await make_space(url, token, count)

    return list(await asyncio.gather(*[one(count) for count in counts]))


async def connect_all(members: Iterable[Member], at_once: int = AT_ONCE) -> None:
    gate = asyncio.Semaphore(at_once)

    async def one(member: Member) -> None:
        async with gate:
            await member.connect()

    await asyncio.gather(*[one(member) for member in members])


async def until(reached: Callable[[], bool], members: Sequence[Member], every_s: float = 0.02) -> None:
    """Wait; raises RuntimeError when a member was refused, TimeoutError after `LIMIT_S`."""
    async with asyncio.timeout(LIMIT_S):
        while not reached():
            refused = next((member.error for member in members if member.error), None)
            if refused is not None:
                raise RuntimeError(f"the relay refused a device: {refused}")
            await asyncio.sleep(every_s)


async def idle(url: str, token: str, devices: int) -> dict[str, Any]:
    """All connected and current, then 20 s (2 of few devices) in which nothing happens."""
    members = [member for space in await make_spaces(url, token, devices, PER_SPACE) for member in space]
    say(phase=f"{devices} devices connect")
    started = time.monotonic()
    await connect_all(members)
    await until(lambda: all(member.live for member in members), members)
    connected_s = time.monotonic() - started
    say(phase="idle")
    await asyncio.sleep(20 if devices >= 500 else 2)
    say(phase="end")
    return {"devices": devices, "connect_s": round(connected_s, 2)}


async def storm(url: str, token: str, devices: int, *, edits: int = 5, per_space: int) -> dict[str, Any]:
    """All come back in the same moment, each with edits of its own, until each has those of all others."""
    spaces = await make_spaces(url, token, devices, per_space)
    members = [member for space in spaces for member in space]
    say(phase="devices seal their edits")
    sealed = {id(member): member.seal(edits, records=500) for member in members}
    gc.collect()
    gc.freeze()
    say(phase=f"{devices} devices come back at once")
    started = time.monotonic()

    async def come_back(member: Member) -> None:
        await member.connect()
        await member.push(sealed[id(member)])

    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*[come_back(member) for member in members])
    connected_s = time.monotonic() - started
    await until(lambda: all(member.acked == edits for member in members), members)
    acked_s = time.monotonic() - started
    heads = [max(member.cursor for member in space) for space in spaces]

    def current() -> bool:
        for number, space in enumerate(spaces):
            heads[number] = max(heads[number], *(member.cursor for member in space))
            if any(m.cursor < heads[number] or m.delivered < edits * (len(space) - 1) for m in space):
                return False
        return True

    await until(current, members)
    current_s = time.monotonic() - started
    say(phase="end")
    return {
        "devices": devices,
        "spaces": len(spaces),
        "edits": devices * edits,
        "deliveries": sum(member.delivered for member in members),
        "connected_s": round(connected_s, 2),
        "acknowledged_s": round(acked_s, 2),
        "current_s": round(current_s, 2),
    }


async def ingest(
    url: str, token: str, envelopes: int, *, connections: int = 8, batch: int = 64
) -> dict[str, Any]:
    """Eight devices of one space push as fast as they are acknowledged, two frames ahead each.

    Each also receives what the other seven push, as devices do.
    """
    (members,) = await make_spaces(url, token, connections, connections)
    each = envelopes // connections
    say(phase="devices seal their edits")
    sealed = [member.seal(each, records=500) for member in members]
    await connect_all(members)
    await until(lambda: all(member.live for member in members), members)
    gc.collect()
    gc.freeze()
    say(phase=f"{connections} devices push")
    started = time.monotonic()

    async def push(member: Member, raws: list[bytes]) -> None:
        moved = asyncio.Event()
        member.on_frame = moved.set
        for start in range(0, len(raws), batch):
            await member.push(raws[start : start + batch])
            while member.acked < start - batch:
                moved.clear()
                await moved.wait()
        while member.acked < len(raws):
            moved.clear()
            await moved.wait()

    await asyncio.wait_for(asyncio.gather(*map(push, members, sealed)), LIMIT_S)
    acked_s = time.monotonic() - started
    others = each * (connections - 1)
    await until(lambda: all(member.delivered >= others for member in members), members)
    current_s = time.monotonic() - started
    say(phase="end")
    return {
        "connections": connections,
        "envelopes": each * connections,
        "per_second": round(each * connections / acked_s),
        "acknowledged_s": round(acked_s, 2),
        "current_s": round(current_s, 2),
    }


async def main(workload: str, url: str, size: int) -> None:
    token = sys.stdin.readline().strip()
    match workload:
        case "idle":
            figures = await idle(url, token, size)
        case "storm":
            figures = await storm(url, token, size, per_space=PER_SPACE)
        case "storm_one_space":
            figures = await storm(url, token, size, per_space=size)
        case _:
            figures = await ingest(url, token, size)
    say(figures=figures)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
