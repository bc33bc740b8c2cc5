"""Which stretches of which lanes something lay over: who was cut off, down, paused, or had a poor link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from crdt_sync_sim.run import Outcome
from crdt_sync_sim.scenario import RELAY, Scheduled
from crdt_sync_sim.world import seconds

BAND_NAMES: Final = {
    "apart": "cut off from the relay",
    "one way": "one direction cut",
    "down": "not running",
    "paused": "process stands still",
    "disk full": "disk full",
}
_KINDS: Final = {
    "partition": "apart", "offline": "apart", "cut": "one way", "pause": "paused", "disk_full": "disk full",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Band:
    """Part of a lane, in microseconds of the world's time. `what` is for people."""

    lane: str
    kind: str
    start_us: int
    end_us: int
    what: str


def bands(outcome: Outcome, healed_us: int) -> Iterator[Band]:
    """All of them, none longer than until everything healed."""
    mended_us = sorted(
        outcome.story_us + seconds(event.at_s) for event in outcome.events if event.action == "heal"
    )
    for event in outcome.events:
        kind = _KINDS.get(event.action)
        if kind is None:
            continue
        start_us, end_us = _when(event, outcome, healed_us)
        if kind in ("apart", "one way"):
            end_us = min([end_us, *(at_us for at_us in mended_us if at_us > start_us)])
        for lane in _lanes(event.action, event.arguments):
            yield Band(lane, kind, start_us, end_us, str(event))
    yield from _down(outcome, healed_us)


def poor_links(outcome: Outcome, healed_us: int) -> Iterator[Band]:
    """From where a device's link was made worse. It stays so until everything heals."""
    for event in outcome.events:
        if event.action == "link":
            start_us, _ = _when(event, outcome, healed_us)
            yield Band(str(event.arguments["device"]), "link", start_us, healed_us, str(event))


def _when(event: Scheduled, outcome: Outcome, healed_us: int) -> tuple[int, int]:
    start_us = outcome.story_us + seconds(event.at_s)
    for_s = event.arguments.get("for_s")
    return start_us, healed_us if for_s is None else min(start_us + seconds(for_s), healed_us)


def _lanes(action: str, arguments: Mapping[str, Any]) -> list[str]:
    """Who is apart from the relay, or stands still."""
    if action == "partition":
        return [name for group in arguments["groups"] if RELAY not in group for name in group]
    names = [arguments[key] for key in ("device", "node", "from", "to") if key in arguments]
    return [name for name in names if name != RELAY or action in ("pause", "disk_full")]


def _down(outcome: Outcome, healed_us: int) -> Iterator[Band]:
    """Between a crash or power cut and the next start, as it really was."""
    since: dict[str, tuple[int, str]] = {}
    for event in outcome.trace:
        if event.kind in ("crash", "power_cut"):
            since.setdefault(event.node, (event.at_us, event.kind))
        elif event.kind == "start" and event.node in since:
            start_us, why = since.pop(event.node)
            yield Band(event.node, "down", start_us, event.at_us, f"{event.node} is down after a {why}")
    for node, (start_us, why) in since.items():
        yield Band(node, "down", start_us, healed_us, f"{node} is down after a {why}")
