"""Which roles' writes and deletions devices take from each other, for a record type in all its versions.

`x-write` and `x-delete.roles` of the newest version say who may write and delete now. A device that arrives
with work it did under an earlier version did nothing wrong, and nobody can tell that work from what somebody
only claims to have done then. So writes of a role that any version ever let write are taken, and of one that
none did never are. Rights only ever grow: devices that know the same versions take the same writes, in
whatever order versions and writes came to them.

To take a right from a role, publish a version without it: every honest device refuses to write from then on.
To take it from a device that is not honest, revoke the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from crdt_sync.errors import NotAllowed
from crdt_sync.records.view import DELETED_PATH
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from crdt_sync.schemas.model import WRITERS, RecordSchema

_BY_NAME: Final[Mapping[str, Role]] = {role.text: role for role in WRITERS}


@dataclass(frozen=True, slots=True)
class Rights:
    """The roles whose writes, and whose deletions of whole records, are taken."""

    writers: frozenset[Role] = WRITERS
    deleters: frozenset[Role] = WRITERS

    @property
    def for_all(self) -> bool:
        """Whether there is nothing to check."""
        return self.deleters == WRITERS == self.writers

    def check(self, record_type: str, role: Role, writes: Iterable[Write]) -> None:
        """Raises NotAllowed when what somebody in that role sent is not to be taken."""
        if role not in self.writers:
            raise NotAllowed(f"a device with role {role.text} may not write records of type {record_type}")
        if role in self.deleters:
            return
        for write in writes:
            if write.path == DELETED_PATH:
                raise NotAllowed(
                    f"a device with role {role.text} may not delete records of type {record_type}"
                )


ALL: Final = Rights()


def rights_of(schema: RecordSchema) -> Rights:
    """What one version grants."""
    return Rights(schema.write_roles, schema.delete.roles)


def granted(values: Mapping[str, Any]) -> Rights | None:
    """What all versions granted, as a `_schema` record says; None for one that does not say."""
    if not values.get("writers"):
        return None
    return Rights(_roles(values["writers"]), _roles(values.get("deleters")))


def role_names(roles: Iterable[Role]) -> list[str]:
    return [role.text for role in sorted(roles)]


def _roles(names: Any) -> frozenset[Role]:
    """Names that this version does not know are roles of a later one, which no member here can have."""
    listed = names if isinstance(names, list) else []
    return frozenset(_BY_NAME[name] for name in listed if isinstance(name, str) and name in _BY_NAME)
