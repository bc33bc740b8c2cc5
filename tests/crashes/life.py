"""A device as a process of its own, to be killed: a launcher that forks one life after the other.

Run as a program. It reads one life a line from standard input, as JSON, forks a process that lives it, and
says on standard output, a JSON object a line, what happened: `{"began": pid}`, then what the life says,
then `{"ended": status}`, negative for a signal. Forking costs a tenth of starting Python, so that a test
can afford scores of lives.

A life says `{"tried": what}` before a write and `{"acknowledged": what}` after the library has returned
from it. `die_at` kills it by `kill -9` in front of its SQL statement of that number, in whichever thread.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from crdt_sync.errors import ConnectionFailed
from crdt_sync_client import Device, Increment  # before the first fork, so that no life has to
from crdt_sync_client.store import connection

TYPE = "job"


def say(**what: Any) -> None:
    """One line, out at once: what was said before a kill is known."""
    os.write(1, json.dumps(what).encode() + b"\n")


class Counted:
    """A connection whose process dies in front of a certain statement."""

    def __init__(self, inner: Any, numbers: Iterator[int], die_at: int) -> None:
        self._inner = inner
        self._numbers = numbers
        self._die_at = die_at

    def execute(self, *args: Any) -> Any:
        self._count()
        return self._inner.execute(*args)

    def executemany(self, *args: Any) -> Any:
        self._count()
        return self._inner.executemany(*args)

    def _count(self) -> None:
        if next(self._numbers) == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def die_at_statement(number: int) -> None:
    real, numbers = connection._connect, itertools.count(1)
    # The module's own function, in this process only: there is no setting for dying.
    connection._connect = lambda *args: Counted(real(*args), numbers, number)


async def live(plan: dict[str, Any]) -> None:
    async with await Device.open(plan["store"], key=bytes.fromhex(plan["key"])) as device:
        if plan["connect"]:
            await device.connect()
        for step in plan["steps"]:
            await STEPS[step["do"]](device, step)


async def import_rows(device: Device, step: dict[str, Any]) -> None:
    rows = step["rows"]
    for start in range(0, len(rows), 10):
        part = rows[start : start + 10]
        numbers = [row["number"] for row in part]
        say(tried=numbers)
        report = await device.import_rows(TYPE, part, key="number")
        assert not report.failed, report.failed
        say(acknowledged=numbers)


async def count_up(device: Device, step: dict[str, Any]) -> None:
    for record in await there(device, step):
        say(tried=[record])
        await device.update(TYPE, record, {"visits": Increment(1), "notes": step["note"]})
        say(acknowledged=[record])


async def count_up_together(device: Device, step: dict[str, Any]) -> None:
    records = await there(device, step)
    say(tried=records)
    async with device.transaction() as together:
        for record in records:
            await together.update(TYPE, record, {"visits": Increment(1)})
    say(acknowledged=records)


async def there(device: Device, step: dict[str, Any]) -> list[str]:
    """Those of the step's records that this device has: another one may have died before it sent them."""
    return [record for record in step["records"] if await device.get(TYPE, record) is not None]


async def sync(device: Device, step: dict[str, Any]) -> None:
    with suppress(ConnectionFailed):
        await device.sync(timeout_s=20)
        say(synced=True)


STEPS = {
    "import": import_rows,
    "count_up": count_up,
    "count_up_together": count_up_together,
    "sync": sync,
}


def main() -> None:
    for line in sys.stdin:
        plan = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                if plan.get("die_at"):
                    die_at_statement(plan["die_at"])
                asyncio.run(live(plan))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        say(began=child)
        _, status = os.waitpid(child, 0)
        say(ended=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
