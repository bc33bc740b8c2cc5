"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, overload

from crdt_sync.ids import DeviceId
from crdt_sync.schemas.model import RecordSchema

from ...create_method import Changes
from ...device import Device as AsyncDevice
from ...engine.model import Quarantined
from ...importing import ImportReport, ImportRow
from ...records import Member, SpaceInfo
from ...status import Status, SyncReport
from ...store_opening import StorePath
from ..wrapping import BlockingDevice
from .checkout_methods import CheckoutMethods
from .conflict_methods import ConflictMethods
from .logout import LogoutMethods
from .outbox_methods import OutboxMethods
from .query_methods import QueryMethods
from .records import WriteResult
from .scope_methods import ScopeMethods
from .space_methods import SpaceMethods
from .transactions import Transaction
from .trigger_methods import TriggerMethods


class CreateDevice(Protocol):
    def __call__(
        self, path: StorePath, *, name: str, passphrase: str | None = None, key: bytes | None = None
    ) -> Device: ...


class CreateRecord(Protocol):
    def __call__(
        self,
        type: str,
        values: Changes,
        *,
        id: str | None = None,
        space: str | None = None,
        priority: int | None = None,
    ) -> WriteResult: ...


class CreateMethod:
    """`Device.create(path, name=…)` makes a device, `device.create(type, values)` a record of it."""

    @overload
    def __get__(self, device: None, kind: type[Device]) -> CreateDevice: ...
    @overload
    def __get__(self, device: Device, kind: type[Device]) -> CreateRecord: ...
    def __get__(self, device: Device | None, kind: type[Device]) -> CreateDevice | CreateRecord:
        return kind._create_device if device is None else device._create_record


class Device(
    CheckoutMethods[AsyncDevice],
    ConflictMethods[AsyncDevice],
    LogoutMethods[AsyncDevice],
    OutboxMethods[AsyncDevice],
    QueryMethods[AsyncDevice],
    ScopeMethods[AsyncDevice],
    SpaceMethods[AsyncDevice],
    TriggerMethods[AsyncDevice],
    BlockingDevice,
):
    """One device with its store. Make one with `create` or `open`; end it with `close` or `with`."""

    @property
    def device_id(self) -> DeviceId:
        return self._read(lambda: self._inner.device_id)

    @property
    def name(self) -> str:
        return self._read(lambda: self._inner.name)

    @classmethod
    def _create_device(
        cls, path: StorePath, *, name: str, passphrase: str | None = None, key: bytes | None = None
    ) -> Device:
        """Make a new store with a new device in it. `key` is 32 bytes, a passphrase any text.

        Raises StoreExists when there is something at `path`.
        """
        return cls._begin(lambda: AsyncDevice.create(path, name=name, passphrase=passphrase, key=key))

    @classmethod
    def open(cls, path: StorePath, *, passphrase: str | None = None, key: bytes | None = None) -> Device:
        """Open a store. Raises StoreMissing, NotAStore, WrongPassphrase, StoreInUse, StoreTooNew."""
        return cls._begin(lambda: AsyncDevice.open(path, passphrase=passphrase, key=key))

    def close(self) -> None:
        """Disconnect, finish the writes on their way, close the store. Again is harmless."""
        self._end()

    def create_space(
        self, name: str, *, relay: str, token: str, schemas: Sequence[RecordSchema] = ()
    ) -> SpaceInfo:
        """Found a space at a relay; this device is its admin. `token` is the relay's setup token.

        Raises RelayUnreachable or RelayRefused, and then nothing has changed.
        """
        return self._run(lambda: self._inner.create_space(name, relay=relay, token=token, schemas=schemas))

    def invite(self, space: str | None = None, *, role: str = "field", expires_s: float = 7 * 86400) -> str:
        """A link that lets one device in, with that role, until it expires. Admins only; needs the relay."""
        return self._run(lambda: self._inner.invite(space, role=role, expires_s=expires_s))

    def join(self, link: str) -> SpaceInfo:
        """Enter a space with an invite. `sync` or `connect` then brings its records.

        Raises InviteGarbled, InviteUsed, InviteExpired, InviteWithdrawn, RelayUnreachable, RelayRefused,
        BadMembership; nothing has changed then.
        """
        return self._run(lambda: self._inner.join(link))

    def spaces(self) -> list[SpaceInfo]:
        """The spaces this device is in."""
        return self._run(lambda: self._inner.spaces())

    def members(self, space: str | None = None) -> list[Member]:
        """The devices of a space."""
        return self._run(lambda: self._inner.members(space))

    def schemas(self, space: str | None = None) -> list[RecordSchema]:
        """The record types there are, in the order of their names."""
        return self._run(lambda: self._inner.schemas(space))

    def schema(self, type: str, space: str | None = None) -> RecordSchema:
        """One record type. Raises UnknownType naming those there are."""
        return self._run(lambda: self._inner.schema(type, space))

    def add_schema(self, schema: RecordSchema, space: str | None = None, *, force: bool = False) -> bool:
        """Carry a record type, or a newer version of one, in the space; whether that changed anything.

        Admins only. Raises SchemaRefused for a version that is not newer, and for one with changes that are
        unsafe (`crdt-sync schema diff` says which) unless `force`.
        """
        return self._run(lambda: self._inner.add_schema(schema, space, force=force))

    def _create_record(
        self,
        type: str,
        values: Changes,
        *,
        id: str | None = None,
        space: str | None = None,
        priority: int | None = None,
    ) -> WriteResult:
        """Make a record. With the `id` of a record that is there, that one gets the values instead.

        `priority`: from 1, which goes to the relay first, to 10; as the schema says without it. Raises
        UnknownType, ValidationError, PermissionDenied.
        """
        made = self._run(lambda: self._inner.create(type, values, id=id, space=space, priority=priority))
        return WriteResult(made, self._background, self._kept())

    create = CreateMethod()

    def transaction(self, *, space: str | None = None, priority: int | None = None) -> Transaction:
        """Write several records together: `with device.transaction() as t: t.update(…)`.

        All of it is done at the end of the block or, when the block raises, nothing. Other devices see all of
        it or nothing. `space`: where its records are, unless a call says so; they are all in one.
        `priority`: of those that have none of their own.
        """
        made = self._call(lambda: self._inner.transaction(space=space, priority=priority))
        return Transaction(made, self._background, self._kept())

    def import_rows(
        self,
        type: str,
        rows: Iterable[Mapping[str, Any] | ImportRow],
        *,
        key: str | None = None,
        space: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ImportReport:
        """Make a record of every row. Rows that fail are reported, the others go in.

        A row is a mapping of fields, or an `ImportRow` of `read_csv`. `key` names the entry of a row that
        identifies it, so that importing again updates instead of doubling; `progress` is called with the
        number of rows done.
        """
        return self._run(lambda: self._inner.import_rows(type, rows, key=key, space=space, progress=progress))

    def connect(self) -> None:
        """Stay connected to the relays of all spaces, in the background, until `disconnect`."""
        self._run(lambda: self._inner.connect())

    def disconnect(self) -> None:
        """Close the connections. Local work goes on."""
        self._run(lambda: self._inner.disconnect())

    def sync(self, *, timeout_s: float | None = None) -> SyncReport:
        """Send everything that waits and receive everything there is, in all spaces; then return.

        Without a time limit one failed attempt raises RelayUnreachable; with one it is tried again until
        SyncTimeout. A refusal raises RelayRefused at once. Nothing is lost by any of them.
        """
        return self._run(lambda: self._inner.sync(timeout_s=timeout_s))

    def status(self) -> Status:
        """Whether everything is in sync, and if not, what waits and why."""
        return self._run(lambda: self._inner.status())

    def quarantined(self, space: str | None = None) -> list[Quarantined]:
        """Received updates that were put aside, oldest first: by whom and why. None of them is lost."""
        return self._run(lambda: self._inner.quarantined(space))

    def content_hash(self, type: str, id: str) -> bytes:
        """32 bytes that are equal on every device with the same content of this record."""
        return self._run(lambda: self._inner.content_hash(type, id))
