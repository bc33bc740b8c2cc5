"""The audit trail as a file: JSON lines or CSV, one conflict each, as it is read.

The names are those of a maintenance system's conflict log, so that what reads such a log reads this:

    conflictId            the id, the same on every device
    entityType, entityId  the record
    spaceId               the space it is in
    detectedAt            when this device first saw it
    deviceId, deviceName  the device whose trail this is
    conflictingFields     dotted fields; where a deletion met edits, what was edited, and `$deleted`
    resolutionStrategy    the rule: register, client_wins, manual, …; of a deletion edit_wins, …
    state                 open (waits for a person), auto (settled by the rule), closed (by a later write)
    versions              what was written apart, oldest first: version (from 1), value, deviceId, deviceName,
                          role, writtenAt, field, deletes, shown (chosen by the rule)
    resolution            per field, whose version stands: client-wins (role field), server-wins (any other),
                          merged (another value), deleted or kept; empty while nobody has decided
    resolvedAt            when: of `auto` ones when they were seen
    resolvedBy            the device that ended it; empty where the rule did, or where nobody in particular
    resolvedVersion       the number of the version that stands, where it is one
    resolvedValue         the value that stands
    supersededBy          the conflict that went on from it
    supersedes            those that it went on from

Times are ISO 8601 in UTC, bytes base64 text. Names stay; new ones may be added at the end. In CSV lists and
mappings are JSON text, and a text that a spreadsheet would run as a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterable, Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from crdt_sync.ids import DeviceId
from crdt_sync.roles import Role
from crdt_sync.schemas.values import to_json

from .engine.model import Alternative, ConflictEntry

ExportFormat = Literal["jsonl", "csv"]
FORMATS: Final[tuple[ExportFormat, ...]] = ("jsonl", "csv")

COLUMNS: Final = (
    "conflictId", "entityType", "entityId", "spaceId", "detectedAt", "deviceId", "deviceName",
    "conflictingFields", "resolutionStrategy", "state", "versions", "resolution", "resolvedAt", "resolvedBy",
    "resolvedVersion", "resolvedValue", "supersededBy", "supersedes",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets run: OWASP, "CSV Injection"."""


class Writable(Protocol):
    """Takes text; a file, for one."""

    def write(self, text: str, /) -> object: ...


async def write_trail(
    entries: AsyncIterable[ConflictEntry],
    out: Writable,
    format: ExportFormat,
    *,
    device: DeviceId,
    device_name: str,
) -> int:
    """Write every entry as it comes; returns how many there were."""
    write = _csv_writer(out) if format == "csv" else _jsonl_writer(out)
    count = 0
    async for entry in entries:
        write(exported(entry, device, device_name))
        count += 1
    return count


def versions(entry: ConflictEntry) -> list[tuple[int, Alternative]]:
    """The versions as people number them, from 1: oldest first. With each its index in `alternatives`."""
    return sorted(enumerate(entry.alternatives), key=lambda each: (each[1].at_ms, each[0]))


def version_number(entry: ConflictEntry, index: int | None) -> int | None:
    """The number people know an alternative by."""
    places = [each for each, _ in versions(entry)]
    return None if index is None else places.index(index) + 1


def exported(entry: ConflictEntry, device: DeviceId, device_name: str) -> dict[str, Any]:
    """One entry, in the order of `COLUMNS`."""
    stands = entry.winner if entry.state == "auto" else entry.kept
    closed_at_ms = entry.seen_at_ms if entry.state == "auto" else entry.closed_at_ms
    return {
        "conflictId": entry.id,
        "entityType": entry.type,
        "entityId": entry.record,
        "spaceId": entry.space.hex(),
        "detectedAt": _moment(entry.seen_at_ms),
        "deviceId": device.hex(),
        "deviceName": device_name,
        "conflictingFields": sorted({each.field for each in entry.alternatives}),
        "resolutionStrategy": entry.rule,
        "state": entry.state,
        "versions": [
            {
                "version": number,
                "value": None if each.removes else to_json(each.value),
                "deviceId": each.device.hex(),
                "deviceName": each.device_name,
                "role": each.role.text,
                "writtenAt": _moment(each.at_ms),
                "field": each.field,
                "deletes": each.deletes,
                "shown": index == entry.winner,
            }
            for number, (index, each) in enumerate(versions(entry), start=1)
        ],
        "resolution": {} if (how := _side(entry, stands)) is None else {entry.field: how},
        "resolvedAt": _moment(closed_at_ms),
        "resolvedBy": entry.resolver_name,
        "resolvedVersion": version_number(entry, stands),
        "resolvedValue": _resolved_value(entry, stands),
        "supersededBy": entry.superseded_by,
        "supersedes": list(entry.supersedes),
    }


def _side(entry: ConflictEntry, stands: int | None) -> str | None:
    if stands is not None:
        kept = entry.alternatives[stands]
        if entry.about_deletion:
            return "deleted" if kept.deletes else "kept"
        return "client-wins" if kept.role is Role.FIELD else "server-wins"
    return "merged" if entry.resolver is not None else None


def _resolved_value(entry: ConflictEntry, stands: int | None) -> Any:
    if entry.about_deletion:
        return None
    if entry.resolver is not None:
        return to_json(entry.resolution)
    return None if stands is None else to_json(entry.alternatives[stands].value)


def _moment(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _jsonl_writer(out: Writable) -> Callable[[dict[str, Any]], None]:
    def write(entry: dict[str, Any]) -> None:
        out.write(json.dumps(entry, ensure_ascii=False) + "\n")

    return write


def _csv_writer(out: Writable) -> Callable[[dict[str, Any]], None]:
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    return lambda entry: rows.writerow([_cell(entry[name]) for name in COLUMNS])


def _cell(value: Any) -> Any:
    """A cell that says what it says and does nothing."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text
