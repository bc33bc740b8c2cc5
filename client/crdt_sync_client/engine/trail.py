"""Reading the audit trail: conflicts by what is asked for, counted, and page by page.

Device names are not stored but looked up in the membership log when an entry is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from crdt_sync.errors import ConflictClosed, ConflictNotFound, LocalError
from crdt_sync.hlc import Hlc, hlc_to_ms
from crdt_sync.ids import Author, DeviceId, Incarnation, RecordId
from crdt_sync.records.writes import DELETED, Path
from crdt_sync.roles import Role
from crdt_sync_client.engine import preferences
from crdt_sync_client.engine.audit import decode_alternatives
from crdt_sync_client.engine.model import Alternative, ConflictEntry, ConflictFilter

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space

CountBy = Literal["state", "type", "record", "device", "field"]
COUNT_BY: Final[tuple[CountBy, ...]] = ("state", "type", "record", "device", "field")

EVERYTHING: Final = ConflictFilter(state=None)
PAGE: Final = 200
"""Entries read at a time where all are wanted: some 100 KB."""

_decode = msgspec.msgpack.Decoder().decode
_read_path = msgspec.json.Decoder(tuple[str, ...]).decode

_SELECT: Final = (
    "SELECT c.no, c.id, r.space, r.type, r.id, c.path, c.rule, c.kind, c.state, c.alternatives, c.winner,"
    " c.seen_at_ms, c.closed_at_ms, c.resolver, c.resolution, c.superseded_by, (SELECT group_concat(p.id)"
    " FROM conflicts p WHERE p.record = c.record AND p.superseded_by = c.id)"
    " FROM conflicts c JOIN records r ON r.no = c.record"
)


def entries(replica: Replica, wanted: ConflictFilter) -> list[ConflictEntry]:
    """All that fit, oldest first."""
    return [found for _, found in _entries(replica, wanted, after=0, limit=-1)]


def page(
    replica: Replica, wanted: ConflictFilter, *, after: int, limit: int = PAGE
) -> tuple[list[ConflictEntry], int | None]:
    """At most `limit` that fit, oldest first, and what to give as `after` for the next; None: no more."""
    found = list(_entries(replica, wanted, after=after, limit=limit))
    return [each for _, each in found], found[-1][0] if len(found) == limit else None


def count(replica: Replica, wanted: ConflictFilter) -> int:
    condition, params = _condition(replica, wanted)
    sql = f"SELECT count(*) FROM conflicts c JOIN records r ON r.no = c.record{condition}"
    return int(replica.db.value(sql, params))


def count_by(replica: Replica, wanted: ConflictFilter, by: CountBy) -> dict[str, int]:
    """How many there are of each, the most first. By device: in how many it has an alternative."""
    counts: dict[str, int] = {}
    for _, each in _entries(replica, wanted, after=0, limit=-1):
        for name in _names(each, by):
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def entry(replica: Replica, id: str) -> ConflictEntry:
    """The conflict of that id, or whose id begins so. Raises ConflictNotFound."""
    text = id.strip().lower()
    rows: list[Any] = []
    if text and all(character in "0123456789abcdef" for character in text):
        rows = replica.db.rows(_SELECT + " WHERE c.id >= ? AND c.id < ? LIMIT 2", (text, text + "g"))
    if len(rows) > 1:
        raise ConflictNotFound(f"more than one conflict begins with {text}", hint="give more of its id")
    if not rows:
        raise ConflictNotFound(
            f"there is no conflict {text[:40]!r}", hint="list them with `crdt-sync conflicts ls --all`"
        )
    return next(_read(replica, rows))[1]


def closed_error(entry: ConflictEntry) -> ConflictClosed:
    """What to say to somebody who decides a conflict that no longer stands: who closed it, how, what now."""
    if entry.superseded_by is not None:
        return ConflictClosed(
            f"the conflict about {entry.field} is closed: another version came in, and it goes on as conflict"
            f" {entry.superseded_by}",
            hint=f"decide that one; see it with `crdt-sync conflicts show {entry.superseded_by[:8]}`",
        )
    if entry.resolver_name is None or entry.closed_at_ms is None:
        how = "is closed: none of its versions stands any more"
    else:
        how = f"was closed by {entry.resolver_name} at {_moment(entry.closed_at_ms)}, {_how(entry)}"
    return ConflictClosed(
        f"the conflict about {entry.field} {how}",
        hint=f"decide otherwise with `crdt-sync conflicts restore {entry.id[:8]} --version N`,"
        " or write the field",
    )


def _how(entry: ConflictEntry) -> str:
    if entry.about_deletion:
        return "who deleted it" if entry.resolution == "deleted" else "who kept it"
    if entry.kept is None:
        return "with another value"
    return f"with the version of {entry.alternatives[entry.kept].device_name}"


def _moment(at_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _names(entry: ConflictEntry, by: CountBy) -> Iterable[str]:
    if by == "device":
        return {each.device_name for each in entry.alternatives}
    if by == "field":
        return (f"{entry.type}.{preferences.field_of(entry.path)}",)
    return ({"state": entry.state, "type": entry.type, "record": f"{entry.type} {entry.record}"}[by],)


def _entries(
    replica: Replica, wanted: ConflictFilter, *, after: int, limit: int
) -> Iterator[tuple[int, ConflictEntry]]:
    condition, params = _condition(replica, wanted)
    condition += f"{' AND' if condition else ' WHERE'} c.no > ?"
    sql = f"{_SELECT}{condition} ORDER BY c.no LIMIT ?"
    return _read(replica, replica.db.rows(sql, [*params, after, limit]))


def _condition(replica: Replica, wanted: ConflictFilter) -> tuple[str, list[Any]]:
    """SQL made of constants only; every value is a parameter."""
    parts: list[str] = []
    params: list[Any] = []
    if wanted.state == "open":
        parts.append("c.state = 'open'")  # as the index on open ones says it
    elif wanted.state is not None:
        parts.append("c.state = ?")
        params.append(wanted.state)
    for column, value in (("r.type", wanted.type), ("r.id", wanted.record)):
        if value is not None:
            parts.append(f"{column} = ?")
            params.append(value)
    if wanted.space is not None:
        parts.append("r.space = ?")
        params.append(replica.space(wanted.space).no)
    if wanted.device is not None:
        ids = _devices(replica, wanted.device)
        # An id is the hash of a key: it stands among the alternatives only where it is an author.
        parts.append("(" + " OR ".join(["instr(c.alternatives, ?) > 0"] * len(ids)) + ")")
        params += ids
    if wanted.since_ms is not None:
        parts.append("(c.seen_at_ms >= ? OR c.closed_at_ms >= ?)")
        params += [wanted.since_ms] * 2
    return (" WHERE " + " AND ".join(parts) if parts else ""), params


def _devices(replica: Replica, wanted: str) -> list[DeviceId]:
    """The devices of that name, or whose id begins so. Raises LocalError when there is none."""
    names = {device: space.device_name(device) for space in _spaces(replica) for device in space.log.members}
    found = [device for device, name in names.items() if name == wanted]
    if not found and len(wanted) >= 4:
        found = [device for device in names if device.hex().startswith(wanted.lower())]
    if not found:
        known = ", ".join(sorted(set(names.values()))) or "none yet"
        raise LocalError(f"no member is called {wanted[:40]!r}", hint=f"the devices are: {known}")
    return found


def _spaces(replica: Replica) -> Iterable[Space]:
    return replica.spaces.values()


def _read(replica: Replica, rows: Iterable[Any]) -> Iterator[tuple[int, ConflictEntry]]:
    spaces = {space.no: space for space in _spaces(replica)}
    preferred = preferences.remembered(replica)
    for row in rows:
        no, id, space_no, record_type, record_id, raw_path, rule, kind, state, raw, winner = row[:11]
        seen_at_ms, closed_at_ms, resolver, resolution, superseded_by, earlier = row[11:]
        space = spaces[space_no]
        path = _read_path(raw_path)
        alternatives = _alternatives(replica, space, path, raw)
        yield (
            no,
            ConflictEntry(
                id=id,
                space=space.id,
                type=record_type,
                record=RecordId(record_id),
                path=path,
                rule=rule,
                kind=kind,
                state=state,
                alternatives=alternatives,
                winner=winner,
                seen_at_ms=seen_at_ms,
                closed_at_ms=closed_at_ms,
                resolver=None if resolver is None else DeviceId(resolver),
                resolver_name=None if resolver is None else space.device_name(DeviceId(resolver)),
                resolution=None if resolution is None else _decode(resolution),
                superseded_by=superseded_by,
                supersedes=() if earlier is None else tuple(earlier.split(",")),
                suggestion=preferences.suggestion(preferred, record_type, path, alternatives)
                if preferred and state == "open"
                else None,
            ),
        )


def _alternatives(replica: Replica, space: Space, path: Path, raw: bytes) -> tuple[Alternative, ...]:
    """Removing a row, or an element, is an edit to the record or row around it, and no deletion of that."""
    return tuple(
        Alternative(
            value=each.value,
            device=DeviceId(each.device),
            device_name=space.device_name(DeviceId(each.device)),
            role=Role(each.role),
            at_ms=hlc_to_ms(Hlc(each.hlc)),
            mine=each.device == replica.device_id,
            author=Author(DeviceId(each.device), Incarnation(each.incarnation)).array_name,
            path=each.path,
            deletes=each.path[-1] == DELETED and len(each.path) == len(path),
        )
        for each in decode_alternatives(raw)
    )
