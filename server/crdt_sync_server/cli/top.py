"""`top`: a relay at work, every second anew."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from crdt_sync_server.cli.operating import device_row, size, span
from crdt_sync_server.cli.shape import Command, json_option, print_json
from crdt_sync_server.setting_sources import setting_options
from crdt_sync_server.setting_types import Whole
from crdt_sync_server.storage.port import DataDirError

if TYPE_CHECKING:
    from rich.console import Group

MAX_DEVICES: Final = 30
"""Shown: those furthest behind first."""


@click.command(
    cls=Command,
    examples=("crdt-sync relay top --data ./relay", "crdt-sync relay top --data ./relay --json --count 1"),
)
@setting_options("data")
@click.option(
    "--interval", type=Whole(1, 60), default=1, metavar="SECONDS", help="Between two looks.  [default: 1]"
)
@click.option("--count", type=Whole(1, 10**6), metavar="N", help="Stop after so many looks.")
@json_option
def top(data: Path, interval: int, count: int | None, as_json: bool) -> None:
    """Watch a running relay: traffic, commits, who is behind.

    Until Ctrl-C. With --json every look is one line.
    """
    from crdt_sync_server.operating.asking import relay_at

    with relay_at(data) as relay:
        before = _look(relay)
        if as_json:
            left = count
            while left is None or left > 0:
                time.sleep(interval)
                now = _look(relay)
                print_json({**now["status"], "per_second": rates(before, now)})
                before, left = now, None if left is None else left - 1
            return
        from rich.live import Live

        with Live(screen=count is None, refresh_per_second=4) as live:
            left = count
            while left is None or left > 0:
                time.sleep(interval)
                now = _look(relay)
                live.update(_drawn(before, now))
                before, left = now, None if left is None else left - 1


def _look(relay: Any) -> dict[str, Any]:
    status = relay.status()
    if not status["running"]:
        raise DataDirError("no relay runs on this directory", hint="`crdt-sync relay serve` starts one")
    return {"at_s": time.monotonic(), "status": status, "devices": relay.devices("")}


def rates(before: dict[str, Any], now: dict[str, Any]) -> dict[str, float]:
    """What happened between two looks, per second; `commit_ms` is the mean of one commit."""
    passed_s = max(now["at_s"] - before["at_s"], 0.001)
    old, new = before["status"]["counters"], now["status"]["counters"]
    grown = {name: new[name] - old[name] for name in new}
    commits = new["commits"] - old["commits"]
    return {
        "rows": grown["log_rows"] / passed_s,
        "received_bytes": grown["received_bytes"] / passed_s,
        "sent_bytes": grown["sent_bytes"] / passed_s,
        "refusals": grown["refusals"] / passed_s,
        "sessions": grown["sessions"] / passed_s,
        "commits": commits / passed_s,
        "commit_ms": 1000 * grown["commit_seconds"] / commits if commits else 0.0,
    }


def _drawn(before: dict[str, Any], now: dict[str, Any]) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    status, rate = now["status"], rates(before, now)
    lines = (
        [
            f"crdt-sync relay {status['version']}, up {span(status['uptime_s'])}",
            f"{status['connections']:,} connections",
            f"{status['spaces']:,} spaces",
            f"{size(status['log_bytes'])} of logs",
        ],
        [
            f"rows {rate['rows']:,.0f}/s",
            f"in {size(rate['received_bytes'])}/s",
            f"out {size(rate['sent_bytes'])}/s",
            f"commits {rate['commits']:,.0f}/s of {rate['commit_ms']:.1f} ms",
            f"waiting {status['frames_waiting']:,}",
            f"refused {rate['refusals']:,.0f}/s",
            f"furthest behind {status['lag_rows_max']:,} rows",
        ],
    )
    head = "\n".join("   ".join(line) for line in lines) + "\n"
    columns = ("device", "label", "role", "last seen", "last sync", "behind", "app", "system")
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    shown = sorted(now["devices"], key=lambda one: (not one["connected"], -one["lag"]))[:MAX_DEVICES]
    for one in shown:
        table.add_row(*(Text(cell) for cell in device_row(one)))
    return Group(Text(head), table)


COMMANDS: Final = (top,)
