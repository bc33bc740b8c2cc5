"""The life of a write, from this device to all others, put together from what the store knows of it.

A write is known by its record and its times, which it keeps however it is sent. What carries it is one of the
record's updates in the outbox, of its sealed envelopes, or of those that left the outbox lately
(`outbox_past`): the last that began at the write's time or before. What became of its values is read in the
record's document, as `explaining` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from crdt_sync.errors import RecordNotFound, UnknownType, WorkRefused
from crdt_sync.hlc import MAX_HLC, Hlc, hlc_to_ms
from crdt_sync.ids import DeviceId, OpaqueId, RecordId, SpaceId
from crdt_sync.records import explaining
from crdt_sync.records.explaining import Part
from crdt_sync.records.writes import Path
from crdt_sync_client.engine import holding_back, outbox_past
from crdt_sync_client.engine.holders import Checkout
from crdt_sync_client.engine.older_copy import OLDER_COPY
from crdt_sync_client.engine.space import Space
from crdt_sync_client.refusals import TREATMENTS, work_refused

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica

Stage = Literal["pending", "sending", "waiting", "failed", "discarded", "relayed", "delivered"]
"""The first four as in the outbox; then given up, at the relay, on the devices of all other members."""


@dataclass(frozen=True, slots=True)
class WrittenValue:
    """A value of the write that stands in the record.

    `part` says whether it is what the field shows (see `crdt_sync.records.explaining.Part`), `conflict` is
    the id of the one that stands about it.
    """

    field: str
    part: Part
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class WriteLife:
    """What became of a write so far. Times are Unix ms by this device's clock; None: not yet, or not known.

    `envelope` is its place in this device's chain, "incarnation/sequence"; what is written to a record while
    it waits shares one. `attempts` counts sendings after the first. `refusal` is why the relay did not take
    it last, `error` the same in words, or what else holds it up; it is tried again at `retry_at_ms`.
    `waits_for` is the checkout of another device until whose end it stays here.
    `relay_row`: where the relay's log ended when it had it. `delivered_to` of `others`, the space's other
    devices, have it, as far as the relay has told.

    `values` are those of its values that stand in the record, also where another one is shown; `overwritten`
    says that none does any more. Both None: it cannot be told which they were, or the record is not here.
    """

    type: str
    id: RecordId
    space: SpaceId
    stage: Stage
    written_ms: int
    priority: int | None = None
    sealed_ms: int | None = None
    envelope: str | None = None
    attempts: int = 0
    refusal: WorkRefused | None = None
    error: str | None = None
    retry_at_ms: int | None = None
    discarded_ms: int | None = None
    relayed_ms: int | None = None
    relay_row: int | None = None
    delivered_ms: int | None = None
    delivered_to: int | None = None
    others: int | None = None
    values: tuple[WrittenValue, ...] | None = None
    overwritten: bool | None = None
    waits_for: Checkout | None = None


class _Step(NamedTuple):
    """One update or envelope that carried something of a record. `clock`: of its first write."""

    clock: int
    stage: Stage
    incarnation: int
    sequence: int | None
    priority: int | None
    attempts: int
    error: str | None
    sealed_ms: int | None
    ended_ms: int | None = None
    row: int | None = None
    delivered_ms: int | None = None


_OUTBOX: Final = (
    "SELECT coalesce(clock, 0), error, incarnation, NULL, no >> 48, 0, error, NULL FROM outbox"
    " WHERE record = ? ORDER BY no & ((1 << 48) - 1)"
)
_SEALED: Final = (
    "SELECT coalesce(clock, 0), error, incarnation, sequence, priority, attempts,"
    " coalesce(error, last_error), at_ms FROM sealed WHERE record = ? ORDER BY no"
)


def life(
    replica: Replica, space: Space, record_type: str, id: RecordId, first: int | None, clock: int
) -> WriteLife:
    """Of the write with these times (`first` None: not known). Raises RecordNotFound."""
    opaque = space.keys.opaque_id(record_type, id)
    steps = _steps(replica, space, opaque)
    if not steps and not _is_known(replica, space, opaque):
        raise RecordNotFound(
            f"this device knows nothing of a write to {record_type} {id}",
            hint="it was given up, or is not of this device",
        )
    step = _carrier(steps, clock)
    found = _of_step(replica, space, record_type, id, opaque, step, clock)
    if first is None:
        return found
    return _with_values(found, _own_values(replica, space, record_type, id), first, clock + 1)


def lives(replica: Replica, space: Space, record_type: str, id: RecordId, limit: int = 50) -> list[WriteLife]:
    """Of what this device wrote to a record, as far as that is known: one per envelope, the newest first."""
    opaque = space.keys.opaque_id(record_type, id)
    steps = [step for step in _steps(replica, space, opaque) if step.clock]
    ends = [*(step.clock for step in steps), MAX_HLC + 1][1:]
    values = _own_values(replica, space, record_type, id)
    return [
        _with_values(
            _of_step(replica, space, record_type, id, opaque, step, step.clock), values, step.clock, end
        )
        for step, end in [*zip(steps, ends, strict=True)][::-1][:limit]
    ]


class RecordLives:
    """The lives of the writes that stand in one record, for who explains it."""

    def __init__(self, replica: Replica, space: Space, record_type: str, id: RecordId) -> None:
        self._replica, self._space, self._name = replica, space, (record_type, id)
        self._opaque = space.keys.opaque_id(record_type, id)
        self._steps = _steps(replica, space, self._opaque)

    def of(self, device: DeviceId, hlc: int) -> WriteLife | None:
        """Of a write of that device and time; None for those of others, and where nothing is known."""
        if device != self._replica.device_id or not self._steps or hlc < self._steps[0].clock:
            return None
        step = _carrier(self._steps, hlc)
        return _of_step(self._replica, self._space, *self._name, self._opaque, step, hlc)


def _steps(replica: Replica, space: Space, opaque: OpaqueId) -> list[_Step]:
    """All that is known of a record's way, in the order of their first writes."""
    steps = []
    for clock, *sent, ended_ms, discarded, row, delivered_ms in outbox_past.rows_of(replica, space, opaque):
        stage: Stage = "discarded" if discarded else "relayed" if delivered_ms is None else "delivered"
        ended = _Step(clock, stage, *sent)
        steps.append(ended._replace(ended_ms=ended_ms, row=row, delivered_ms=delivered_ms))
    no = replica.db.value("SELECT no FROM records WHERE space = ? AND opaque = ?", (space.no, opaque))
    if no is not None and replica.unsent.get(no):
        waiting: tuple[tuple[str, Stage], ...] = ((_SEALED, "sending"), (_OUTBOX, "pending"))
        for statement, otherwise in waiting:
            for clock, error, *step in replica.db.rows(statement, (no,)):
                steps.append(_Step(clock, otherwise if error is None else _stopped(replica, no), *step))
    return sorted(steps, key=lambda step: step.clock)


def _stopped(replica: Replica, record: int) -> Stage:
    refused = replica.refused.get(record)
    return "failed" if refused is None or refused.retry_ms is None else "waiting"


def _carrier(steps: Iterable[_Step], clock: int) -> _Step | None:
    """The last that began by then; None where what carried it is forgotten."""
    found = None
    for step in steps:
        if step.clock <= clock:
            found = step
    return found


def _of_step(
    replica: Replica,
    space: Space,
    record_type: str,
    id: RecordId,
    opaque: OpaqueId,
    step: _Step | None,
    clock: int,
) -> WriteLife:
    known = WriteLife(record_type, id, space.id, "relayed", hlc_to_ms(Hlc(clock)))
    if step is None:  # the relay had it longer ago than is remembered
        return known
    known = replace(
        known,
        stage=step.stage,
        priority=step.priority,
        sealed_ms=step.sealed_ms,
        envelope=None if step.sequence is None else f"{step.incarnation}/{step.sequence}",
        attempts=step.attempts,
        error=step.error,
        refusal=_refusal(step.error),
        relay_row=step.row,
        delivered_ms=step.delivered_ms,
    )
    if step.stage == "discarded":
        return replace(known, discarded_ms=step.ended_ms)
    if step.ended_ms is not None:
        to, others = replica.past.reached(space.no, step.row) or (None, None)
        return replace(known, relayed_ms=step.ended_ms, delivered_to=to, others=others)
    no = replica.db.value("SELECT no FROM records WHERE space = ? AND opaque = ?", (space.no, opaque))
    if step.stage == "pending":
        known = replace(known, waits_for=holding_back.waits_for(replica, space).get(no))
    refused = replica.refused.get(no)
    if refused is None:
        return known
    return replace(
        known,
        attempts=max(refused.attempts, step.attempts),
        error=step.error or refused.error,
        refusal=work_refused(refused.code, refused.reason),
        retry_at_ms=refused.retry_ms,
    )


def _refusal(error: str | None) -> WorkRefused | None:
    """The relay's, where it was its: as it stands with the work."""
    if error is None or error == OLDER_COPY:
        return None
    code, _, reason = error.partition(": ")
    return work_refused(code, reason) if code in TREATMENTS or code.isidentifier() else None


def _is_known(replica: Replica, space: Space, opaque: OpaqueId) -> bool:
    known = "SELECT 1 FROM records WHERE space = ? AND opaque = ?"
    return replica.db.value(known, (space.no, opaque)) is not None


def _own_values(
    replica: Replica, space: Space, record_type: str, id: RecordId
) -> list[tuple[int, WrittenValue]] | None:
    """The values that this device wrote and that stand in a record, with their times."""
    record = replica.records.find(space, space.keys.opaque_id(record_type, id), replica.author)
    try:
        schema = space.schema(record_type)
    except UnknownType:
        return None
    if record is None:
        return None
    found: dict[tuple[int, Path], WrittenValue] = {}
    for field in explaining.explain(schema, record_type, id, record.doc.writes()).fields:
        conflict = None if field.conflict is None else field.conflict.id
        for each in field.writes:
            write = each.write
            if write.author.device != replica.device_id:
                continue
            # Beside its own field a value stands under a deletion that had not seen it.
            place = write.hlc, write.path
            if each.part != "unseen" or place not in found:
                found[place] = WrittenValue(".".join(write.path), each.part, conflict)
    return [(hlc, value) for (hlc, _), value in found.items()]


def _with_values(
    found: WriteLife, values: list[tuple[int, WrittenValue]] | None, first: int, end: int
) -> WriteLife:
    """What stands of what this device wrote from `first` on, before `end`."""
    if values is None or found.stage == "discarded":
        return found
    standing = tuple(value for hlc, value in values if first <= hlc < end)
    return replace(found, values=standing, overwritten=not standing)
