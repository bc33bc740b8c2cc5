"""What the library hands out: records, results of writes, spaces and members, as plain values.

The engine's own values speak in bytes ids and roles as numbers; these speak the words that people and JSON
use. Making one costs about a microsecond.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from crdt_sync.errors import LocalError
from crdt_sync.ids import RecordId, SpaceId
from crdt_sync.schemas.values import to_json

from .checkout_values import Checkout, write_notice
from .engine import model
from .engine.write_life import WriteLife

Durable = Literal["local", "relayed", "delivered"]
"""On this device; at the relay; on the devices of all other members."""
RecordState = Literal["synced", "pending", "conflict", "failed"]


class HasRef(Protocol):
    """A write that was done."""

    @property
    def ref(self) -> str: ...


class FollowsWrites(Protocol):
    """Who knows what becomes of writes: a device."""

    async def wait(
        self, write: HasRef | str, until: Durable = "relayed", *, timeout_s: float | None = None
    ) -> None: ...
    async def life(self, write: HasRef | str, *, timeout_s: float = ...) -> WriteLife: ...


class CannotWait(LocalError):
    """There is nothing to wait for."""

    code = "cannot_wait"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as this device sees it now.

    `values` holds the fields by name: rows as dicts by row key, sets as sorted lists. `conflicts` are the
    ids of its open conflicts, `provisional` the dotted paths whose value is shown until one is resolved.
    `sync_state`: "conflict" while one is open, else "failed", "pending" or "synced". `orphaned`: it names a
    parent that is deleted, or that this device does not have. `checkout`: who has it to itself, at the time
    it was read: this device (`checkout.own`) or another; None: nobody, as far as is known here.
    """

    id: RecordId
    type: str
    space: str
    values: dict[str, Any]
    sync_state: RecordState
    conflicts: tuple[str, ...] = ()
    provisional: tuple[str, ...] = ()
    deleted: bool = False
    orphaned: bool = False
    checkout: Checkout | None = None

    def __getitem__(self, field: str) -> Any:
        return self.values[field]

    @classmethod
    def of(cls, record: model.Record) -> Record:
        return cls(
            id=record.id,
            type=record.type,
            space=record.space.hex(),
            values=record.values,
            sync_state=record.sync_state,
            conflicts=record.conflicts,
            provisional=record.provisional,
            deleted=record.deleted,
            orphaned=record.orphaned,
            checkout=record.checkout,
        )

    @classmethod
    def own(cls, record: model.Record) -> Record:
        """As `of`, with values of its own: an app may change them without changing the engine's."""
        return replace(cls.of(record), values=_copied(record.values))

    def to_json(self) -> dict[str, Any]:
        """`id`, `type`, the fields by name with bytes as base64 text, and `_sync`.

        A field called `type` stands in place of the record's type, one called `id` does not replace the id.
        """
        return {
            "id": self.id,
            "type": self.type,
            **{name: to_json(value) for name, value in self.values.items() if name != "id"},
            "_sync": {
                "state": self.sync_state,
                "conflicts": list(self.conflicts),
                "provisional": list(self.provisional),
                "orphaned": self.orphaned,
                "checkout": None if self.checkout is None else self.checkout.to_json(),
            },
        }


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What one write did. `resolved` are the ids of conflicts that it settled by having seen all versions.

    `changed` is False when everything already was as asked. `below` are the types and ids of records that
    were deleted or restored together with this one, because they belong to it.

    `waits_for` is another device's checkout of what was written, if one is known of: the write is saved here
    and seen on this device, and sent when that ends. `late`: this device had checked the record out, and that
    ended before it was checked in: the write merges like any other, and is marked. `notice` says it in words.
    """

    id: RecordId
    type: str
    resolved: tuple[str, ...]
    state: RecordState
    changed: bool
    below: tuple[tuple[str, RecordId], ...] = ()
    space: str = ""
    """The id of its space, hex."""
    waits_for: Checkout | None = None
    late: bool = False
    _first: int = field(default=0, repr=False, compare=False)
    """This device's clock at its first write, and just after the last: by that it is known."""
    _clock: int = field(default=0, repr=False, compare=False)
    _device: FollowsWrites | None = field(default=None, repr=False, compare=False)

    @property
    def notice(self) -> str:
        """What a person should know of checkouts that stand against this write; empty if there is nothing."""
        return write_notice(self.waits_for, late=self.late)

    @property
    def ref(self) -> str:
        """The write as text: `Device.wait` and `Device.life` take it, also after a restart of the app.

        Raises CannotWait for what a transaction will only do at its end.
        """
        if not self._clock:
            raise _no_write()
        return f"{self.space}:{self._first}-{self._clock}:{self.type}:{self.id}"

    async def wait(self, until: Durable = "relayed", *, timeout_s: float | None = None) -> None:
        """Returns when the write is durable: `await write.wait("delivered")`, see `Device.wait`."""
        if self._device is None:
            raise _no_write()
        await self._device.wait(self.ref, until, timeout_s=timeout_s)

    async def life(self) -> WriteLife:
        """What became of the write so far, see `Device.life`."""
        if self._device is None:
            raise _no_write()
        return await self._device.life(self.ref)


def write_result(result: model.WriteResult, device: FollowsWrites | None = None) -> WriteResult:
    """What the engine says of a write, for apps; `device` is where it was done, if it was."""
    return WriteResult(
        *(result.id, result.type, result.resolved, result.state, result.changed, result.below),
        space=result.space.hex(),
        waits_for=result.waits_for,
        late=result.late,
        _first=result.first,
        _clock=0 if device is None else result.clock,
        _device=device,
    )


def _no_write() -> CannotWait:
    return CannotWait(
        "this is no write yet, or not of this device",
        hint="of a transaction: `transaction.results`, after its block",
    )


class WriteRef(NamedTuple):
    """A `WriteResult.ref`, taken apart. `first` is None in those of earlier versions."""

    space: SpaceId
    first: int | None
    clock: int
    type: str
    id: RecordId

    @classmethod
    def of(cls, write: HasRef | str) -> WriteRef:
        """Raises CannotWait."""
        ref = write if isinstance(write, str) else write.ref
        found = re.fullmatch("([0-9a-f]{32}):(?:([0-9]{1,16})-)?([0-9]{1,16}):([^:]+):(.+)", ref)
        if found is None:
            raise CannotWait(f"{ref[:80]!r} is no write of this device", hint="take it from `write.ref`")
        space, first, clock, kind, id = found.groups()
        return cls(
            SpaceId(bytes.fromhex(space)),
            None if first is None else int(first),
            int(clock),
            kind,
            RecordId(id),
        )


def _copied(value: Any) -> Any:
    """Lists and dicts anew, at any depth; everything else cannot be changed."""
    if type(value) is dict:
        return {key: _copied(part) for key, part in value.items()}
    if type(value) is list:
        return [_copied(part) for part in value]
    return value


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """A space this device is in. `id` is hex, `types` the record types it carries."""

    id: str
    name: str
    role: str
    relay: str
    types: tuple[str, ...]

    @classmethod
    def of(cls, state: model.SpaceState) -> SpaceInfo:
        role = state.role.text if state.role is not None else ""
        return cls(state.id.hex(), state.name, role, state.relay_url, state.types)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role,
            "relay": self.relay,
            "types": list(self.types),
        }


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a space."""

    device_id: str
    name: str
    role: str
    is_self: bool
    is_founder: bool
    revoked: bool

    @classmethod
    def of(cls, member: model.MemberInfo) -> Member:
        return cls(
            member.device.hex(),
            member.name,
            member.role.text,
            member.is_self,
            member.is_founder,
            member.revoked,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "device_id": self.device_id,
            "name": self.name,
            "role": self.role,
            "is_self": self.is_self,
            "is_founder": self.is_founder,
            "revoked": self.revoked,
        }
