"""Carrying a record type in a space: a new one, or the next version of one that is there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from crdt_sync.errors import CrdtSyncError, PermissionDenied, SchemaRefused
from crdt_sync.ids import keyed_record_id
from crdt_sync.roles import Role
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync.schemas.compare import compare
from crdt_sync.schemas.loader import without_comments
from crdt_sync.schemas.model import RecordSchema
from crdt_sync.schemas.rights import Rights, rights_of, role_names
from crdt_sync_client.engine import upkeep
from crdt_sync_client.engine.local_writes import LocalWrites
from crdt_sync_client.engine.model import CreateOp, WriteResult
from crdt_sync_client.engine.record_types import RecordTypes
from crdt_sync_client.engine.space import Space

if TYPE_CHECKING:
    from crdt_sync_client.engine.replica import Replica


def add_schema(replica: Replica, space: Space, schema: RecordSchema, *, force: bool = False) -> WriteResult:
    """Carry a record type in the space. Raises PermissionDenied, and SchemaRefused.

    What the change asks for is begun in the same transaction; see `upkeep` for the rest.
    """
    role = space.role_of(replica.device_id)
    if role is not None and role is not Role.ADMIN:
        raise PermissionDenied(
            f"a device with role {role.text} may not add record types to space {space.name}",
            hint="ask one of its admins",
        )
    source = without_comments(schema.text)
    _check_follows(space.record_types, schema, source, force=force)
    granted = space.record_types.rights.get(schema.type, Rights(frozenset(), frozenset()))
    now = rights_of(schema)
    values = {
        "source": source,
        "writers": role_names(granted.writers | now.writers),
        "deleters": role_names(granted.deleters | now.deleters),
    }
    op = CreateOp(SCHEMA_TYPE, values, keyed_record_id(space.id, SCHEMA_TYPE, schema.type), space.id)
    with replica.transaction(durable=True):
        result = LocalWrites(replica).run([op])[0]
        if isinstance(result, CrdtSyncError):
            raise result
        assert isinstance(result, WriteResult)
        return replace(result, further=(*result.further, *upkeep.step(replica, space).changes))


def _check_follows(types: RecordTypes, schema: RecordSchema, source: str, *, force: bool) -> None:
    unreadable = types.unreadable.get(schema.type)
    if unreadable is not None:
        raise SchemaRefused(
            f"the space carries version {unreadable} of {schema.type}, which this program cannot read",
            hint="update crdt-sync on this device first",
        )
    known = types.schemas.get(schema.type)
    if known is None or known.text == source:
        return
    if schema.version <= known.version:
        raise SchemaRefused(
            f"the space carries version {known.version} of {schema.type}, this is version {schema.version}",
            hint=f"give it x-version: {known.version + 1}",
        )
    unsafe = [change for change in compare(known, schema) if change.safety == "unsafe"]
    if unsafe and not force:
        told = tuple(f"{change.path or 'record type'}: {change.why}" for change in unsafe)
        raise SchemaRefused(
            f"version {schema.version} of {schema.type} has {len(told)} unsafe"
            f" {'change' if len(told) == 1 else 'changes'}:\n" + "\n".join(told),
            hint="mend it, or carry it all the same with force (--force) once all devices are in sync",
            unsafe=told,
        )
