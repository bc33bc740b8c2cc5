"""Why a record is as it is, with the names of devices and what the store knows around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crdt_sync.hlc import Hlc, hlc_to_ms
from crdt_sync.ids import DeviceId, RecordId, SpaceId
from crdt_sync.records import explaining
from crdt_sync.records.explaining import FieldExplanation, Part
from crdt_sync.records.writes import DocWrites, Path
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import absent
from crdt_sync_client.engine.holders import Checkout, shown
from crdt_sync_client.engine.presenting import Orphans
from crdt_sync_client.engine.write_life import RecordLives, WriteLife

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica
    from crdt_sync_client.engine.space import Space


@dataclass(frozen=True, slots=True)
class ExplainedVersion:
    """One visible write and what became of it (see `crdt_sync.records.explaining.Part`).

    `field` is where it was written: of a set or a deletion, that is below or beside the field explained.
    `life` is how far it has come, of a write of this device, as far as that is kept.
    """

    value: Any
    device: DeviceId
    device_name: str
    role: Role
    at_ms: int
    mine: bool
    part: Part
    field: str
    life: WriteLife | None = None


@dataclass(frozen=True, slots=True)
class ExplainedField:
    """Why a field has its value. `conflict` is the id of the one that stands there."""

    path: Path
    value: Any
    rule: str
    reason: str
    versions: tuple[ExplainedVersion, ...]
    conflict: str | None = None
    conflict_kind: Literal["open", "auto"] | None = None

    @property
    def field(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A record explained. `parent` is the (type, id) it belongs to, `orphaned`: that is not there.

    `checkout` is the newest of the record that is known here, also when it has ended; its `late` is the work
    that came after the checkout of whoever wrote it had ended.
    """

    space: SpaceId
    type: str
    id: RecordId
    deleted: bool
    fields: tuple[ExplainedField, ...]
    parent: tuple[str, str] | None = None
    orphaned: bool = False
    checkout: Checkout | None = None


def explain(
    replica: Replica, space: Space, record_type: str, id: str, field: str | Path | None
) -> Explanation:
    """Raises UnknownType, RecordNotFound, and ValidationError for a field that is not there."""
    schema = space.schema(record_type)
    record = replica.records.find(space, space.keys.opaque_id(record_type, id), replica.author)
    if record is None:
        raise absent.missing(replica, space, record_type, id)
    path = tuple(field.split(".")) if isinstance(field, str) else field
    writes = record.doc.writes()
    found = explaining.explain(schema, record_type, record.id, writes, path)
    parent = _parent(schema, writes)
    lives = RecordLives(replica, space, record_type, record.id)
    return Explanation(
        space=space.id,
        type=record_type,
        id=record.id,
        deleted=found.deleted,
        fields=tuple(_named(replica, space, lives, each) for each in found.fields),
        parent=parent,
        orphaned=parent is not None and Orphans(replica, space).lacks(schema, parent[1]),
        checkout=shown(replica, space, record.opaque, name=(record_type, record.id)),
    )


def _parent(schema: RecordSchema, writes: DocWrites) -> tuple[str, str] | None:
    if schema.parent is None:
        return None
    id = explaining.value_at(schema, writes, schema.parent.field)
    return (schema.parent.type, id) if isinstance(id, str) and id else None


def _named(replica: Replica, space: Space, lives: RecordLives, explained: FieldExplanation) -> ExplainedField:
    conflict = explained.conflict
    return ExplainedField(
        path=explained.path,
        value=explained.value,
        rule=explained.rule,
        reason=explained.reason,
        versions=tuple(
            ExplainedVersion(
                value=each.value,
                device=each.write.author.device,
                device_name=space.device_name(each.write.author.device),
                role=each.write.role,
                at_ms=hlc_to_ms(Hlc(each.write.hlc)),
                mine=each.write.author.device == replica.device_id,
                part=each.part,
                field=".".join(each.write.path),
                life=lives.of(each.write.author.device, each.write.hlc),
            )
            for each in explained.writes
        ),
        conflict=None if conflict is None else conflict.id,
        conflict_kind=None if conflict is None else conflict.kind,
    )
