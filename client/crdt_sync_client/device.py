"""The device: an encrypted local store that syncs, as an asynchronous library.

    device = await Device.create("tablet7.db", name="Tablet 7", passphrase="…")
    async with device:
        await device.join("crdt-sync://relay.example.org:8787/join/…#…")
        await device.connect()
        order = await device.create("work_order", {"title": "Swap bucket teeth"})
        async for change in device.watch("work_order"):
            print(change.record)

Reads and writes touch the local store only and work without a network, for ever. A write returns when it
is durable on this device. `connect` keeps the device in sync in the background; `sync` brings it up to
date once. All methods belong to the event loop in which the device was opened.

Errors are those of `crdt_sync.errors`: LocalError for what cannot be done as asked, StoreError for the
store, ConnectionFailed and RemoteError for the relay, which never touch what is stored here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from crdt_sync.errors import (
    ConnectionFailed,
    CrdtSyncError,
    RelayUnreachable,
    SyncTimeout,
    UnknownType,
)
from crdt_sync.ids import DeviceId, RecordId, SpaceId
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema

from . import joining
from .checkout_methods import CheckoutMethods
from .conflict_methods import ConflictMethods
from .conflict_watching import ConflictHub
from .create_method import Changes, CreateMethod
from .database_thread import DatabaseThread
from .engine import Engine, model
from .engine.model import Quarantined
from .importing import ImportReport, ImportRow, RowImport
from .live import LiveHub
from .locking import IdleTimer, read_setting, unused
from .logout import LogoutMethods
from .outbox_methods import OutboxMethods
from .query_methods import QueryMethods
from .records import Member, Record, SpaceInfo, WriteResult, write_result
from .scope_methods import ScopeMethods
from .settings import read_settings
from .space_methods import SpaceMethods
from .space_status import space_status
from .status import Status, SyncReport
from .status_watching import Bell
from .store_opening import StorePath, create_store, open_store, secret_of
from .sync_loop import SpaceSync
from .transactions import Transaction
from .trigger_methods import TriggerMethods
from .upkeep import Upkeep
from .watching import Change, WatchHub
from .write_queue import WriteQueue

T = TypeVar("T")


class Device(
    CheckoutMethods,
    ConflictMethods,
    LogoutMethods,
    OutboxMethods,
    QueryMethods,
    ScopeMethods,
    SpaceMethods,
    TriggerMethods,
):
    """One device with its store. Make one with `create` or `open`; end it with `close` or `async with`."""

    def __init__(self, path: StorePath, thread: DatabaseThread, spaces: Sequence[model.SpaceState]) -> None:
        """For `create` and `open` only."""
        self._path = path
        engine = thread.store.engine
        self.device_id: DeviceId = engine.device_id
        self.name: str = engine.name
        # What a watch reads because others wrote is no use of the device: it would never lock by itself.
        self._hub = WatchHub(unused(self.get))
        self._conflict_hub = ConflictHub(unused(self.conflict))
        self._live_hub = LiveHub(unused(self._live_answer))
        self._bell = Bell()
        self._connected = False
        self._closed = False
        self._idle = IdleTimer(self._begin_lock)
        self._unlocking = asyncio.Lock()
        self._attach(thread, engine, spaces)

    @classmethod
    async def _create_device(
        cls, path: StorePath, *, name: str, passphrase: str | None = None, key: bytes | None = None
    ) -> Device:
        """Make a new store with a new device in it. `key` is 32 bytes, a passphrase any text.

        Raises StoreExists when there is something at `path`.
        """
        return cls(path, await create_store(path, secret_of(passphrase, key), name=name, now_ms=_now_ms), [])

    @classmethod
    async def open(
        cls, path: StorePath, *, passphrase: str | None = None, key: bytes | None = None
    ) -> Device:
        """Open a store. Raises StoreMissing, NotAStore, WrongPassphrase, StoreInUse, StoreTooNew."""
        thread = await open_store(path, secret_of(passphrase, key), now_ms=_now_ms)
        engine = thread.store.engine
        spaces, lock_after_s, settings = await thread.run(
            lambda: (engine.spaces(), read_setting(thread), read_settings(thread.store.db))
        )
        device = cls(path, thread, spaces)
        device._take_settings(settings)
        device._idle.start(lock_after_s)
        return device

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect, finish the writes on their way, close the store. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        self._idle.stop()
        if self._leaving is not None:
            await asyncio.shield(self._leaving)
        await self.disconnect()
        await self._writes.drained()
        await self._upkeep.stop()
        self._end_watches()
        await self._thread.close()

    def _end_watches(self) -> None:
        self._hub.close()
        self._conflict_hub.close()
        self._live_hub.close()
        self._bell.close()

    # Spaces -----------------------------------------------------------------------------------------

    async def create_space(
        self, name: str, *, relay: str, token: str, schemas: Sequence[RecordSchema] = ()
    ) -> SpaceInfo:
        """Found a space at a relay; this device is its admin. `token` is the relay's setup token.

        Raises RelayUnreachable or RelayRefused, and then nothing has changed.
        """
        space = await joining.create_space(self._thread, name, relay=relay, token=token, schemas=schemas)
        info = await self._entered(space)
        with suppress(ConnectionFailed):
            # So that who joins next has the record types, even if this device does not sync for a while.
            await self._syncs[space].sync(patient=False)
        return info

    async def invite(
        self, space: str | None = None, *, role: str = "field", expires_s: float = 7 * 86_400
    ) -> str:
        """A link that lets one device in, with that role, until it expires. Admins only; needs the relay."""
        engine = self._engine
        wanted = Role.parse(role)
        state = await self._run(lambda: engine.space(space))

        def make(relay_now_ms: int) -> tuple[bytes, str]:
            return engine.make_invite(state.id, wanted, relay_now_ms + int(expires_s * 1000))

        return await self._syncs[state.id].append(make)

    async def join(self, link: str) -> SpaceInfo:
        """Enter a space with an invite. `sync` or `connect` then brings its records.

        Raises InviteGarbled, InviteUsed, InviteExpired, InviteWithdrawn, RelayUnreachable, RelayRefused,
        BadMembership; nothing has changed then.
        """
        return await self._entered(await joining.join(self._thread, link))

    async def spaces(self) -> list[SpaceInfo]:
        """The spaces this device is in."""
        engine = self._engine
        return [SpaceInfo.of(state) for state in await self._run(lambda: engine.spaces())]

    async def members(self, space: str | None = None) -> list[Member]:
        """The devices of a space."""
        engine = self._engine
        found = await self._run(lambda: engine.members(engine.space(space).id))
        return [Member.of(member) for member in found]

    async def schemas(self, space: str | None = None) -> list[RecordSchema]:
        """The record types there are, in the order of their names."""
        engine = self._engine

        def work() -> list[RecordSchema]:
            found = engine.schemas(None if space is None else engine.space(space).id)
            return [found[name] for name in sorted(found)]

        return await self._run(work)

    async def schema(self, type: str, space: str | None = None) -> RecordSchema:
        """One record type. Raises UnknownType naming those there are."""
        engine = self._engine

        def work() -> RecordSchema:
            return _schema(engine, type, None if space is None else engine.space(space).id)

        return await self._run(work)

    async def add_schema(
        self, schema: RecordSchema, space: str | None = None, *, force: bool = False
    ) -> bool:
        """Carry a record type, or a newer version of one, in the space; whether that changed anything.

        Admins only. Raises SchemaRefused for a version that is not newer, and for one with changes that are
        unsafe (`crdt-sync schema diff` says which) unless `force`.
        """
        engine = self._engine

        def work() -> model.WriteResult:
            return engine.add_schema(engine.space(space).id, schema, force=force)

        result = await self._run(work)
        self._publish(model.changes_of([result]))
        self._syncs[result.space].push_soon()
        return result.changed

    # Records ----------------------------------------------------------------------------------------

    async def _create_record(
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
        chosen = None if id is None else RecordId(id)
        op = model.CreateOp(type, values, chosen, await self._space_id(space), priority)
        return await self._write(op)

    create = CreateMethod()

    def transaction(self, *, space: str | None = None, priority: int | None = None) -> Transaction:
        """Write several records together: `async with device.transaction() as t: await t.update(…)`.

        All of it is done at the end of the block or, when the block raises, nothing. Other devices see all of
        it or nothing. `space`: where its records are, unless a call says so; they are all in one.
        `priority`: of those that have none of their own.
        """

        async def commit(transaction: model.Transaction) -> model.TransactionResult:
            return await self._writes.write(transaction)

        return Transaction(lambda: self._engine, self._run, self._space_id, commit, space, priority, self)

    async def import_rows(
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
        engine = self._engine
        state = await self._run(lambda: engine.space(space))
        schema = await self._run(lambda: _schema(engine, type, state.id))
        return await RowImport(state.id, schema, self._writes.write, key).run(rows, progress)

    # Syncing ----------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Stay connected to the relays of all spaces, in the background, until `disconnect`."""
        self._use()
        self._connected = True
        for sync in self._syncs.values():
            if self._policy.connect:
                sync.resume()
            sync.connect()

    async def disconnect(self) -> None:
        """Close the connections. Local work goes on."""
        self._connected = False
        if self._triggers is not None:
            await self._triggers.stop()
        await asyncio.gather(*(sync.disconnect() for sync in self._syncs.values()))

    async def sync(self, *, timeout_s: float | None = None) -> SyncReport:
        """Send everything that waits and receive everything there is, in all spaces; then return.

        Without a time limit one failed attempt raises RelayUnreachable; with one it is tried again until
        SyncTimeout. A refusal raises RelayRefused at once. Nothing is lost by any of them.
        """
        self._use()
        await self._writes.drained()
        started_s = time.monotonic()
        syncs = [sync for sync in self._syncs.values() if not sync.off]
        before = [sync.traffic() for sync in syncs]
        patient = timeout_s is not None
        try:
            async with asyncio.timeout(timeout_s):
                # One space that cannot be reached does not keep the others from being synced.
                ends = await asyncio.gather(*(s.sync(patient=patient) for s in syncs), return_exceptions=True)
        except TimeoutError:
            raise self._timed_out(timeout_s or 0.0) from None
        for end in ends:
            if end is not None:
                raise end
        await self._upkeep.done()
        after = [sync.traffic() for sync in syncs]
        sent, received, bytes_sent, bytes_received = (
            sum(new[i] - old[i] for old, new in zip(before, after, strict=True)) for i in range(4)
        )
        return SyncReport(sent, received, bytes_sent, bytes_received, time.monotonic() - started_s)

    async def status(self) -> Status:
        """Whether everything is in sync, and if not, what waits and why."""
        engine, db = self._engine, self._thread.store.db

        def work() -> list[tuple[model.SpaceState, model.StatusCounts, int | None]]:
            known = dict(db.rows("SELECT name, value FROM meta WHERE name LIKE 'synced_at:%'"))
            return [
                (state, engine.status_counts(state.id), known.get(f"synced_at:{state.id.hex()}"))
                for state in engine.spaces()
            ]

        parts = await self._run(work)
        return Status.of(
            device_id=self.device_id.hex(),
            name=self.name,
            spaces=tuple(space_status(*part, self._syncs.get(part[0].id), _now_ms()) for part in parts),
        )

    async def quarantined(self, space: str | None = None) -> list[Quarantined]:
        """Received updates that were put aside, oldest first: by whom and why. None of them is lost."""
        engine = self._engine
        return await self._run(lambda: engine.quarantined(engine.space(space).id))

    async def content_hash(self, type: str, id: str) -> bytes:
        """32 bytes that are equal on every device with the same content of this record."""
        engine = self._engine
        return await self._run(lambda: engine.content_hash(type, id))

    # Inside -----------------------------------------------------------------------------------------

    def _attach(self, thread: DatabaseThread, engine: Engine, spaces: Sequence[model.SpaceState]) -> None:
        self._thread = thread
        self._engine = engine
        self._syncs: dict[SpaceId, SpaceSync] = {}
        self._writes = WriteQueue(thread, lambda: self._syncs, self._publish)
        self._upkeep = Upkeep(thread, self._publish, self._fetch_soon)
        self._upkeep.look()
        for space in spaces:
            self._add_sync(space.id).off = space.off

    def _fetch_soon(self) -> None:
        for sync in self._syncs.values():
            sync.fetch_soon()

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        self._idle.check()
        self._idle.use()
        return self._thread.run(work)

    async def _space_id(self, space: str | None) -> SpaceId | None:
        if space is None:
            return None
        engine = self._engine
        return (await self._run(lambda: engine.space(space))).id

    async def _write(self, op: model.Operation) -> WriteResult:
        self._use()
        result = write_result(await self._writes.write(op), self)
        await self._after_write()
        return result

    def _use(self) -> None:
        """The app uses the device. Raises StoreLocked, StoreClosed."""
        self._idle.check()
        self._idle.use()
        _ = self._thread.store

    async def _entered(self, space: SpaceId) -> SpaceInfo:
        engine = self._engine
        state = await self._run(lambda: engine.space(space))
        sync = self._add_sync(space)
        if self._connected:
            sync.connect()
        return SpaceInfo.of(state)

    def _add_sync(self, space: SpaceId) -> SpaceSync:
        sync = self._syncs.get(space)
        if sync is None:
            sync = SpaceSync(
                self._thread, space, publish=self._publish, now_ms=_now_ms, on_gone=self._drop_sync
            )
            sync.follow(self._policy)
            sync.signal = self._bell
            self._syncs[space] = sync
        return sync

    def _drop_sync(self, space: SpaceId) -> None:
        self._syncs.pop(space, None)

    def _publish(self, changes: Sequence[model.RecordChange]) -> None:
        self._upkeep.look()
        self._conflict_hub.publish(changes)
        self._bell.notify()
        self._live_hub.publish(changes)
        if not changes or not self._hub.has_watchers:
            return
        self._hub.publish(
            [
                Change(
                    change.type,
                    change.id,
                    None if change.record.deleted else Record.own(change.record),
                    change.origin,
                    change.fields,
                    change.left,
                )
                for change in changes
            ]
        )

    def _timed_out(self, timeout_s: float) -> CrdtSyncError:
        for sync in self._syncs.values():
            if isinstance(sync.problem, RelayUnreachable) and sync.session is None:
                return sync.problem
        return SyncTimeout(
            f"not everything was in sync after {timeout_s:g} s",
            hint="try again: what was sent and received so far is kept",
        )


def _schema(engine: Engine, type: str, space: SpaceId | None) -> RecordSchema:
    schemas = engine.schemas(space)
    if type not in schemas:
        known = ", ".join(sorted(schemas)) or "none yet; sync brings them"
        raise UnknownType(f"this device knows no record type {type!r}", hint=f"the types are: {known}")
    return schemas[type]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
