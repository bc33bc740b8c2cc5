"""A conflict for people and for programs. Versions are numbered from 1, the oldest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from crdt_sync.errors import ConflictNotFound

from .failures import UsageProblem
from .output import iso_time, local_time, new_table, print_rich, show, to_json

if TYPE_CHECKING:
    from rich.text import Text

    from crdt_sync_client import Alternative, ConflictEntry, Device, ExplainedVersion

_SHORTEST: Final = 4
"""Fewest characters of a conflict's id that stand for the whole of it."""


async def find_conflict(device: Device, wanted: str) -> ConflictEntry:
    """The conflict of that id, or the only one whose id starts so; raises ConflictNotFound."""
    if len(wanted) >= _SHORTEST:
        return await device.conflict(wanted)
    raise ConflictNotFound(
        f"{wanted!r} is too short for the id of a conflict",
        hint=f"give at least {_SHORTEST} characters; `crdt-sync conflicts ls --all` lists them",
    )


def versions(conflict: ConflictEntry) -> list[tuple[int, Alternative]]:
    """The versions in the order of their numbers, with each its index in `alternatives`."""
    from crdt_sync_client.conflict_export import versions

    return versions(conflict)


def version_of(conflict: ConflictEntry, index: int) -> int:
    """The number of an alternative."""
    return [each for each, _ in versions(conflict)].index(index) + 1


def index_of(conflict: ConflictEntry, number: int) -> int:
    """The index of version `number`; UsageProblem when there is none."""
    numbered = versions(conflict)
    if not 0 < number <= len(numbered):
        raise UsageProblem(
            f"there is no version {number}",
            hint=f"this conflict has {len(numbered)}; `conflicts show` numbers them",
        )
    return numbered[number - 1][0]


def value_of(version: Alternative) -> str:
    """What a version says, for people."""
    return "deleted" if version.removes else show(version.value)


def writer_of(version: Alternative | ExplainedVersion) -> str:
    """Whose write it is, for people."""
    return f"{version.device_name} (this device)" if version.mine else version.device_name


def written_by(version: Alternative | ExplainedVersion) -> dict[str, Any]:
    """In which field it was written, by whom, in which role and when, for programs."""
    return {
        "field": version.field,
        "device": version.device_name,
        "device_id": version.device.hex(),
        "role": version.role.text,
        "at": iso_time(version.at_ms),
        "mine": version.mine,
    }


def conflict_json(conflict: ConflictEntry) -> dict[str, Any]:
    """A conflict for programs. Times are ISO 8601 in UTC; `chosen` marks the version that the rule shows."""
    closed = conflict.state == "closed"
    suggested = conflict.suggestion
    return {
        "id": conflict.id,
        "type": conflict.type,
        "record": conflict.record,
        "field": conflict.field,
        "rule": conflict.rule,
        "kind": conflict.kind,
        "state": conflict.state,
        "since": iso_time(conflict.seen_at_ms),
        "alternatives": [
            {
                "version": number,
                "value": None if version.removes else to_json(version.value),
                "deletes": version.deletes,
                **written_by(version),
                "chosen": index == conflict.winner,
            }
            for number, (index, version) in enumerate(versions(conflict), start=1)
        ],
        "suggestion": suggested
        and {
            "version": version_of(conflict, suggested.alternative),
            "keep": suggested.keep,
            "why": suggested.why,
        },
        "resolved_at": iso_time(conflict.closed_at_ms),
        "resolved_by": conflict.resolver_name,
        "resolution": to_json(conflict.resolution) if closed else None,
        "resolved_version": None if conflict.kept is None else version_of(conflict, conflict.kept),
        "superseded_by": conflict.superseded_by,
        "supersedes": list(conflict.supersedes),
    }


def print_conflict(conflict: ConflictEntry) -> None:
    """Versions as columns: a person compares by looking across."""
    from rich.text import Text

    table = new_table(show_lines=False)
    table.add_column("", style="bold")
    for number, (_, version) in enumerate(versions(conflict), start=1):
        who = writer_of(version)
        table.add_column(Text(f"{number}. {show(who)}"), overflow="fold")
    for label, cells in _rows(conflict):
        table.add_row(label, *cells)
    print_rich(Text(f"{conflict.field} of {conflict.type} {conflict.record}", style="bold"))
    print_rich(Text(_explanation(conflict), style="dim"))
    print_rich(table)
    for earlier in conflict.supersedes:
        print_rich(Text(f"Goes on from conflict {earlier}"))
    if conflict.state == "closed":
        print_rich(Text(_ending(conflict), style="green"))
    elif conflict.state == "open":
        if conflict.suggestion is not None:
            number = version_of(conflict, conflict.suggestion.alternative)
            print_rich(Text(f"Suggested: version {number} ({conflict.suggestion.why})", style="green"))
        choice = _choice(conflict)
        print_rich(Text(f"crdt-sync conflicts resolve {conflict.id[:8]} --field {conflict.field} {choice}"))
    if conflict.superseded_by is not None:
        print_rich(Text(f"Goes on as conflict {conflict.superseded_by}", style="yellow"))


def _choice(conflict: ConflictEntry) -> str:
    if conflict.about_deletion:
        return "--keep deleted|record"
    sides = [version.mine for version in conflict.alternatives]
    if sides.count(True) == sides.count(False) == 1:
        return "--keep mine|theirs"
    return "--keep-version " + "|".join(str(number) for number in range(1, len(sides) + 1))


def _rows(conflict: ConflictEntry) -> Iterable[tuple[str, list[Text]]]:
    from rich.text import Text

    in_use = "provisional" if conflict.state == "open" else "chosen"
    shown = [(version, index == conflict.winner) for index, version in versions(conflict)]
    if conflict.about_deletion:
        yield "field", [Text("" if version.deletes else show(version.field)) for version, _ in shown]
    yield "value", [Text(value_of(version), style="bold" if wins else "") for version, wins in shown]
    yield "role", [Text(version.role.text) for version, _ in shown]
    yield "written", [Text(local_time(version.at_ms)) for version, _ in shown]
    if conflict.state != "closed":
        yield "", [Text(in_use if wins else "", style="green") for _, wins in shown]


def _explanation(conflict: ConflictEntry) -> str:
    if conflict.state == "closed":
        return f"conflict {conflict.id}, closed"
    if conflict.state == "auto":
        return f"conflict {conflict.id}, settled by the rule {conflict.rule}"
    return f"conflict {conflict.id}, waits for a decision (rule {conflict.rule})"


def _ending(conflict: ConflictEntry) -> str:
    if conflict.resolver_name is None:
        return "Closed: none of these versions stands any more."
    kept = "" if conflict.kept is None else f" (version {version_of(conflict, conflict.kept)})"
    return f"Resolved by {show(conflict.resolver_name)}: {resolution_of(conflict)}{kept}"


def resolution_of(conflict: ConflictEntry) -> str:
    """How a closed conflict ended, for people."""
    if conflict.about_deletion:
        return "deleted" if conflict.resolution == "deleted" else "kept"
    return show(conflict.resolution)
