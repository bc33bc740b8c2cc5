"""What people and programs get to read about a run.

The text is for people. The keys of the JSON are stable: `scenario`, `source`, `seed`, `verdict`, `digest`,
`figures`, `invariants`, `violations`, `first_bad`, `differences`, `error`, `events`, and `case` and `replay`
where the run failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from crdt_sync_sim.causes import Explanation, Moment
from crdt_sync_sim.checks import how_telling
from crdt_sync_sim.difference import Cell, Difference
from crdt_sync_sim.run import Outcome
from crdt_sync_sim.scenario import Scheduled

FIELDS_SHOWN: Final = 12
"""Of one record, in the text; the JSON has all."""
VIOLATIONS_SHOWN: Final = 6
DETAILS_SHOWN: Final = 3
_WIDE: Final = 70
"""Characters of a value or write in the table of differences."""


def to_json(outcome: Outcome, explanation: Explanation | None = None) -> dict[str, Any]:
    """The whole report as JSON values."""
    return {
        "scenario": outcome.scenario.title,
        "source": outcome.scenario.source,
        "seed": outcome.seed,
        "verdict": outcome.verdict,
        "digest": outcome.digest,
        "figures": _plain(asdict(outcome.figures)),
        "invariants": [asdict(invariant) for invariant in outcome.invariants],
        "violations": [
            {
                "rule": violation.rule,
                "message": violation.message,
                "details": list(violation.details),
                "devices": list(violation.devices),
                "fields": [".".join(path) for path in violation.paths],
            }
            for violation in outcome.violations
        ],
        "first_bad": None if explanation is None else _explanation_json(explanation),
        "differences": [_difference_json(difference) for difference in outcome.differences],
        "error": outcome.error,
        "events": len(outcome.events),
    }


def event_json(event: Scheduled) -> dict[str, Any]:
    """One event of a plan; `case` reads it back."""
    return {"s": event.at_s, "do": event.action, "with": dict(event.arguments), "line": event.line}


def _explanation_json(explanation: Explanation) -> dict[str, Any]:
    return {
        "event": None if explanation.event is None else event_json(explanation.event),
        "moment": None if explanation.bad is None else asdict(explanation.bad),
        "causes": [asdict(cause) for cause in explanation.causes],
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "type": difference.type,
        "id": difference.id,
        "name": difference.name,
        "fields": {
            path: {
                device: {"value": _plain(cell.value), "writes": list(cell.writes)}
                for device, cell in cells.items()
            }
            for path, cells in difference.fields.items()
        },
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it; bytes as text of their hex digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def to_text(
    outcome: Outcome, explanation: Explanation | None = None, *, replay: str = "", case: str = ""
) -> str:
    """The report for people."""
    lines = [f"{outcome.scenario.title}, seed {outcome.seed}: {outcome.verdict.upper()}"]
    lines += [f"  {line}" for line in _lines(outcome)]
    if outcome.failed:
        lines += [f"  {line}" for line in _failure(outcome, explanation)]
        if case:
            lines.append(f"  case          {case}")
        if replay:
            lines.append(f"  again         {replay}")
    return "\n".join(lines) + "\n"


def _lines(outcome: Outcome) -> Iterator[str]:
    figures = outcome.figures
    yield f"time          {duration(figures.virtual_s)} simulated in {figures.real_s:.2f} s"
    given = ", ".join(f"{count} × {name}" for name, count in figures.delivered.items())
    yield f"faults        {given or 'none'}"
    if figures.rare:
        yield f"rare points   {', '.join(f'{count} × {name}' for name, count in figures.rare.items())}"
    yield (
        f"writes        {figures.writes_acknowledged:,} acknowledged, {figures.writes_lost} lost,"
        f" {figures.writes_recovered} recovered"
        + (f", {figures.writes_excused} gone with a replaced disk" if figures.writes_excused else "")
    )
    yield (
        f"operations    {figures.acknowledged:,} acknowledged, {figures.refused} refused by rule,"
        f" {figures.failed} failed"
    )
    yield (
        f"conflicts     {figures.conflicts_opened} opened, {figures.conflicts_settled} settled by rule,"
        f" {figures.conflicts_resolved} resolved by people, {figures.conflicts_standing} open"
    )
    yield f"converged     {_converged(figures.converged_s)}"
    yield (
        f"network       {figures.messages:,} messages, {figures.bytes:,} bytes, {figures.connections}"
        f" connections, {figures.retransmitted} retransmissions, {figures.corrupted} corrupted,"
        f" {figures.replayed} replayed"
    )
    fullest = max(figures.peak_outbox, key=lambda name: figures.peak_outbox[name], default="")
    outbox = f", outbox of {figures.peak_outbox[fullest]} on {fullest}" if fullest else ""
    yield (
        f"peaks         {figures.peak_in_flight_bytes:,} bytes in flight on one connection,"
        f" {figures.peak_relay_frames} frames waiting at the relay{outbox}"
    )
    if figures.power_cuts:
        yield f"disks         {figures.power_cuts} power cuts, {figures.sectors_lost:,} unsynced sectors lost"
    for number, invariant in enumerate(outcome.invariants):
        state = "BROKEN" if invariant.state == "broken" else invariant.state
        why = f": {invariant.why}" if invariant.why else ""
        heading = "invariants" if number == 0 else ""
        yield f"{heading:<13} {invariant.number:<2} {state:<9}  {invariant.name}{why}"
    yield f"digest        {outcome.digest}"


def _converged(took_s: Mapping[str, float | None]) -> str:
    if not took_s:
        return "no device was asked"
    times = [f"{name} {'never' if at_s is None else f'{at_s:.1f} s'}" for name, at_s in took_s.items()]
    return f"{', '.join(times)} after everything healed"


def _failure(outcome: Outcome, explanation: Explanation | None) -> Iterator[str]:
    yield ""
    for violation in sorted(outcome.violations, key=how_telling)[:VIOLATIONS_SHOWN]:
        lines = str(violation).splitlines()
        yield from lines[: 1 + DETAILS_SHOWN]
        if len(lines) > 1 + DETAILS_SHOWN:
            yield f"      and {len(lines) - 1 - DETAILS_SHOWN} more"
    if len(outcome.violations) > VIOLATIONS_SHOWN:
        yield f"and {len(outcome.violations) - VIOLATIONS_SHOWN} more"
    yield from outcome.error.strip().splitlines()
    if explanation is not None:
        yield from _explained(explanation)
    for difference in outcome.differences:
        yield ""
        named = difference.id if difference.name == difference.id else f"{difference.name} ({difference.id})"
        yield f"{difference.type} {named}, field by field:"
        for path, cells in list(difference.fields.items())[:FIELDS_SHOWN]:
            yield from _row(path, cells)
        if len(difference.fields) > FIELDS_SHOWN:
            yield f"  and {len(difference.fields) - FIELDS_SHOWN} fields more; --json has all"
    yield ""


def _explained(explanation: Explanation) -> Iterator[str]:
    yield ""
    if explanation.event is not None:
        yield f"first bad event: {explanation.event}"
        yield "  up to it the story fails even if everything heals at once; without it, it ends well"
    bad = explanation.bad
    if bad is not None:
        yield f"it went wrong at {bad.at_s:.3f} s on {bad.node or 'no node'}: {bad.what}"
    if explanation.causes:
        yield "what led there:"
        yield from (f"  {_marked(cause, bad)}" for cause in explanation.causes)


def _marked(cause: Moment, bad: Moment | None) -> str:
    return f"{'>' if cause == bad else ' '}{cause}"


def _row(path: str, cells: Mapping[str, Cell]) -> Iterator[str]:
    """One field: a line for each group of devices that have the same."""
    groups: dict[str, tuple[list[str], Cell]] = {}
    for device, cell in cells.items():
        groups.setdefault(repr(cell), ([], cell))[0].append(device)
    for number, (devices, cell) in enumerate(groups.values()):
        yield f"  {path if number == 0 else '':<24} {', '.join(devices)}: {_short(repr(cell.value))}"
        yield from (f"  {'':<24}   {_short(write)}" for write in cell.writes)


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"


def duration(span_s: float) -> str:
    """A time span in the units people use for one of its size."""
    if span_s < 120:
        return f"{span_s:.3g} s"
    minutes, seconds = divmod(round(span_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
