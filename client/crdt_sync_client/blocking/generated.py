"""The blocking classes; made by `python -m crdt_sync_client.blocking.generator`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, overload

from crdt_sync.ids import DeviceId
from crdt_sync.schemas.model import RecordSchema

from ..checkout_methods import DEFAULT_TTL_S
from ..checkout_methods import CheckoutBlock as AsyncCheckoutBlock
from ..checkout_values import CheckinResult, Checkout, CheckoutResult
from ..choices import Choice, MergeFunction
from ..conflict_export import ExportFormat, Writable
from ..conflict_watching import ConflictChange
from ..conflict_watching import ConflictWatch as AsyncConflictWatch
from ..create_method import Changes
from ..device import Device as AsyncDevice
from ..engine.explaining import Explanation
from ..engine.exporting import UnsyncedOperation
from ..engine.history import HistoryEntry
from ..engine.model import UNSET, ConflictEntry, ConflictState, Keep, OutboxItem, Preference, Quarantined
from ..engine.queries import OrderBy, Query, Where
from ..engine.trail import CountBy
from ..importing import ImportReport, ImportRow
from ..live import LiveQuery as AsyncLiveQuery
from ..live import Page
from ..logout import LogoutReport
from ..network import Network
from ..preferences import Preferences as AsyncPreferences
from ..records import Durable, Member, Record, SpaceInfo, WriteResult
from ..scope_methods import FinishedRecord, Scope
from ..settings import Settings
from ..space_methods import LeaveReport
from ..status import RecordSync, Status, SyncReport
from ..status_watching import RecordStateWatch as AsyncRecordStateWatch
from ..status_watching import StatusWatch as AsyncStatusWatch
from ..store.size import StoreSize
from ..store_opening import Secret, StorePath
from ..transactions import Transaction as AsyncTransaction
from ..watching import Change
from ..watching import Watch as AsyncWatch
from .wrapping import Blocking, BlockingContext, BlockingDevice, BlockingGenerator, BlockingIterator


class Transaction(BlockingContext[AsyncTransaction]):
    """See the module. Made by `Device.transaction`, for one block.

    `create`, `update`, `delete`, `restore`, `resolve`, `resolve_record` and `restore_version` take and raise
    what the device's do, and return what the write is going to do. `results` has what was done.
    """

    @property
    def results(self) -> list[WriteResult]:
        """What each write did, in their order; empty until the block has ended."""
        return self._read(lambda: self._inner.results)

    def create(
        self,
        type: str,
        values: Changes,
        *,
        id: str | None = None,
        space: str | None = None,
        priority: int | None = None,
    ) -> WriteResult:
        """Make a record. Its id is in the result, so that what follows can name it.

        With the `id` of a record that is there, that one gets the values instead. Raises UnknownType,
        ValidationError, PermissionDenied.
        """
        return self._run(lambda: self._inner.create(type, values, id=id, space=space, priority=priority))

    def update(
        self, type: str, id: str, changes: Changes, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Change fields: by name, by dotted path (`"parts_used.A.qty"`) or by tuple; None clears a field.

        `priority`: from 1, which goes to the relay first, to 10; as the schema says without it. When the
        field had an open conflict, this write resolves it and the result names it. Raises RecordNotFound,
        RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        return self._run(lambda: self._inner.update(type, id, changes, space=space, priority=priority))

    def delete(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Delete a record for everyone. The schema says who may and what a concurrent edit does."""
        return self._run(lambda: self._inner.delete(type, id, space=space, priority=priority))

    def restore(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Bring a deleted record back with the fields it had."""
        return self._run(lambda: self._inner.restore(type, id, space=space, priority=priority))

    def resolve(
        self,
        id: str,
        *,
        field: str | None = None,
        keep: Keep | None = None,
        alternative: int | None = None,
        value: Any = UNSET,
        merge: MergeFunction | None = None,
        suggested: bool = False,
        remember: bool = False,
    ) -> WriteResult:
        """Settle a standing conflict.

        Keep "mine" or "theirs" ("deleted" or "record" where a deletion met edits), keep an alternative by
        its index, give a value, or a function that makes one of all alternatives; `suggested` does what the
        remembered preference says, `remember` remembers the side that is kept now. `field`, where given,
        must be the conflict's.

        Raises ConflictNotFound, ConflictClosed (it says by whom), ValidationError, MergeFailed when the
        function raises or returns what does not fit, PermissionDenied; nothing has changed then.
        """
        return self._run(
            lambda: self._inner.resolve(
                id,
                field=field,
                keep=keep,
                alternative=alternative,
                value=value,
                merge=merge,
                suggested=suggested,
                remember=remember,
            )
        )

    def resolve_record(
        self,
        type: str,
        id: str,
        decisions: Mapping[str, Choice] | None = None,
        *,
        keep: Keep | None = None,
        space: str | None = None,
    ) -> WriteResult:
        """Settle conflicts of one record at once: all of them or, when one cannot be, none.

        `decisions` names fields (dotted) and what shall stand there: "mine", "theirs", the index of an
        alternative, `OwnValue(value)`, or a merge function. `keep` is for the other open ones. Raises as
        `resolve` does; ConflictNotFound for a field about which none stands.
        """
        return self._run(lambda: self._inner.resolve_record(type, id, decisions, keep=keep, space=space))

    def restore_version(self, id: str, alternative: int) -> WriteResult:
        """Bring back an alternative of a conflict, by its index, also of one that is closed.

        While the conflict stands this resolves it, and the result names it in `resolved`. Afterwards it is a
        new write, made by somebody who has seen everything since: it replaces what stands now, on every
        device. Raises ConflictNotFound, RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        return self._run(lambda: self._inner.restore_version(id, alternative))

    def conflict(self, id: str) -> ConflictEntry:
        """One conflict, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        return self._run(lambda: self._inner.conflict(id))


class CheckoutBlock(BlockingContext[AsyncCheckoutBlock]):
    """What `Device.checkout` gives: `results` per record, `granted` and `refused` of them."""

    @property
    def results(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.results)

    @property
    def checked_in(self) -> list[CheckinResult]:
        """After the block."""
        return self._read(lambda: self._inner.checked_in)

    @property
    def granted(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.granted)

    @property
    def refused(self) -> list[CheckoutResult]:
        return self._read(lambda: self._inner.refused)


class ConflictWatch(
    BlockingIterator[AsyncConflictWatch, ConflictChange], BlockingContext[AsyncConflictWatch]
):
    """An iterator over changes of conflicts; made by `Device.watch_conflicts`."""

    def close(self) -> None:
        """Stop watching; a wait for the next change ends."""
        self._read(lambda: self._inner.close())


class Preferences(Blocking[AsyncPreferences]):
    """Made by `Device.preferences`."""

    def set(self, type: str, field: str, *, keep: str) -> Preference:
        """Keep "mine", "theirs" or what a role wrote ("office", …) in conflicts about the field.

        The field of a row is named for all rows: "parts_used.*.qty". For "$deleted" (or a row's
        "parts_used.*.$deleted") also "deleted" and "record". Raises UnknownType, and ValidationError that
        says what there is.
        """
        return self._run(lambda: self._inner.set(type, field, keep=keep))

    def ls(self) -> list[Preference]:
        """All of them, by type and field."""
        return self._run(lambda: self._inner.ls())

    def clear(self, type: str, field: str | None = None) -> int:
        """Forget one, or all of a type; returns how many there were."""
        return self._run(lambda: self._inner.clear(type, field))


class StatusWatch(BlockingIterator[AsyncStatusWatch, Status], BlockingContext[AsyncStatusWatch]):
    """An iterator over states; made by `Device.watch_status`."""

    def close(self) -> None:
        """Stop watching; a wait for the next status ends."""
        self._read(lambda: self._inner.close())


class RecordStateWatch(
    BlockingIterator[AsyncRecordStateWatch, RecordSync], BlockingContext[AsyncRecordStateWatch]
):
    """An iterator over the sync states of a record; made by `Device.watch_record_state`."""

    def close(self) -> None:
        """Stop watching; a wait for the next state ends."""
        self._read(lambda: self._inner.close())


class Watch(BlockingIterator[AsyncWatch, Change], BlockingContext[AsyncWatch]):
    """An iterator over changes; made by `Device.watch`."""

    def close(self) -> None:
        """Stop watching; a wait for the next change ends."""
        self._read(lambda: self._inner.close())

    @property
    def waiting(self) -> int:
        """Changes that wait to be taken."""
        return self._read(lambda: self._inner.waiting)


class LiveQuery(BlockingIterator[AsyncLiveQuery, Page], BlockingContext[AsyncLiveQuery]):
    """An iterator over results; made by `Device.live`."""

    def close(self) -> None:
        """End it; a wait for the next result ends."""
        self._read(lambda: self._inner.close())


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


class Device(BlockingDevice):
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
        return self._run(lambda: self._inner.create(type, values, id=id, space=space, priority=priority))

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

    def checkout(
        self,
        type: str,
        ids: Sequence[str] = (),
        *,
        where: Where = None,
        ttl_s: float = DEFAULT_TTL_S,
        children: bool = False,
        space: str | None = None,
    ) -> CheckoutBlock:
        """`check_out` for an `with` block, which renews it and at its end checks everything in."""
        made = self._call(
            lambda: self._inner.checkout(type, ids, where=where, ttl_s=ttl_s, children=children, space=space)
        )
        return CheckoutBlock(made, self._background, self._kept())

    def check_out(
        self,
        type: str,
        ids: Sequence[str] = (),
        *,
        where: Where = None,
        ttl_s: float = DEFAULT_TTL_S,
        children: bool = False,
        space: str | None = None,
    ) -> list[CheckoutResult]:
        """Have records for this device alone, for `ttl_s` seconds: these, or those for which `where` holds.

        With `children` also the records below them. Each is granted or refused by itself; what is granted is
        then brought up to date. Raises RelayUnreachable when the relay cannot be asked; RecordNotFound,
        UnknownType, ValidationError.
        """
        return self._run(
            lambda: self._inner.check_out(type, ids, where=where, ttl_s=ttl_s, children=children, space=space)
        )

    def renew_checkouts(
        self, *, ttl_s: float = DEFAULT_TTL_S, space: str | None = None
    ) -> list[CheckoutResult]:
        """Keep what is checked out here for `ttl_s` seconds from now. What has run out is asked for anew."""
        return self._run(lambda: self._inner.renew_checkouts(ttl_s=ttl_s, space=space))

    def check_in(
        self, type: str | None = None, ids: Sequence[str] = (), *, space: str | None = None
    ) -> list[CheckinResult]:
        """Send everything, then give records back: these, those of that type, or all checked out here.

        Says for each record what was delivered and what was not. When the relay cannot be reached, everything
        stays checked out. Raises RelayUnreachable; RecordNotFound for what this device has not checked out.
        """
        return self._run(lambda: self._inner.check_in(type, ids, space=space))

    def break_checkouts(
        self, type: str, ids: Sequence[str], *, space: str | None = None
    ) -> list[CheckoutResult]:
        """As an admin free records, whoever has them. What their holders still send is merged and marked."""
        return self._run(lambda: self._inner.break_checkouts(type, ids, space=space))

    def checkouts(self, space: str | None = None) -> list[Checkout]:
        """Who has which record, as far as this device knows, its own first; also without a network.

        What was checked out here stays in the list until it is checked in, whatever became of it.
        """
        return self._run(lambda: self._inner.checkouts(space))

    def conflicts(
        self,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> list[ConflictEntry]:
        """What waits for a person's decision; with `open_only=False` the whole audit trail, oldest first.

        `state` asks for one kind of entry instead ("open", "auto", "closed"); `type` and `id` for a
        record's, `device` (name or id) for those in which that device has an alternative. Raises
        LocalError for a device that nobody knows.
        """
        return self._run(
            lambda: self._inner.conflicts(
                open_only=open_only, state=state, type=type, id=id, device=device, space=space
            )
        )

    def count_conflicts(
        self,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> int:
        """How many `conflicts` would find."""
        return self._run(
            lambda: self._inner.count_conflicts(
                open_only=open_only, state=state, type=type, id=id, device=device, space=space
            )
        )

    def conflict_counts(
        self,
        by: CountBy,
        *,
        open_only: bool = True,
        state: ConflictState | None = None,
        type: str | None = None,
        id: str | None = None,
        device: str | None = None,
        space: str | None = None,
    ) -> dict[str, int]:
        """How many `conflicts` would find by "device", "type", "record", "field" or "state", the most first.

        By device: in how many it has an alternative.
        """
        return self._run(
            lambda: self._inner.conflict_counts(
                by, open_only=open_only, state=state, type=type, id=id, device=device, space=space
            )
        )

    def conflict_trail(self, *, since_ms: int | None = None) -> Iterator[ConflictEntry]:
        """The whole audit trail, oldest first, read page by page: `for entry in …`.

        `since_ms` (Unix milliseconds) leaves out what was seen and closed before.
        """
        made = self._call(lambda: self._inner.conflict_trail(since_ms=since_ms))
        return BlockingGenerator(made, self._background, self._kept())

    def export_conflicts(
        self, out: Writable, *, format: ExportFormat = "jsonl", since_ms: int | None = None
    ) -> int:
        """Write the trail as JSON lines or CSV, entry by entry; returns how many there were.

        What stands in it: `crdt_sync_client.conflict_export`. Open a file for CSV with `newline=""`.
        """
        return self._run(lambda: self._inner.export_conflicts(out, format=format, since_ms=since_ms))

    def watch_conflicts(
        self, type: str | None = None, id: str | None = None, *, open_only: bool = True
    ) -> ConflictWatch:
        """Conflicts that open or close from now on: `for change in device.watch_conflicts():`.

        Of one type or one record if given; with `open_only=False` also those that a rule settled. One that
        opens and closes before it is looked at is told once, as closed.
        """
        made = self._call(lambda: self._inner.watch_conflicts(type, id, open_only=open_only))
        return ConflictWatch(made, self._background, self._kept())

    def explain(
        self, type: str, id: str, field: str | None = None, *, space: str | None = None
    ) -> Explanation:
        """Why a record, or one field of it (dotted), is as it is.

        Per field the writes that stand, who made them and when, which rule chose and why, what lost and
        the conflict's id; for a record that is deleted or came back what the deletion had seen; whether its
        parent is deleted. Raises UnknownType, RecordNotFound, ValidationError.
        """
        return self._run(lambda: self._inner.explain(type, id, field, space=space))

    def history(self, type: str, id: str, *, limit: int = 50, space: str | None = None) -> list[HistoryEntry]:
        """What each transaction on this device changed in a record, the newest first.

        Only for types whose schema says how many entries to keep (`x-history: 50`); LocalError for others.
        """
        return self._run(lambda: self._inner.history(type, id, limit=limit, space=space))

    @property
    def preferences(self) -> Preferences:
        """Which side this device keeps in conflicts about a field: `set`, `ls`, `clear`."""
        return Preferences(self._read(lambda: self._inner.preferences), self._background, self._kept())

    def update(
        self, type: str, id: str, changes: Changes, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Change fields: by name, by dotted path (`"parts_used.A.qty"`) or by tuple; None clears a field.

        `priority`: from 1, which goes to the relay first, to 10; as the schema says without it. When the
        field had an open conflict, this write resolves it and the result names it. Raises RecordNotFound,
        RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        return self._run(lambda: self._inner.update(type, id, changes, space=space, priority=priority))

    def delete(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Delete a record for everyone. The schema says who may and what a concurrent edit does."""
        return self._run(lambda: self._inner.delete(type, id, space=space, priority=priority))

    def restore(
        self, type: str, id: str, *, space: str | None = None, priority: int | None = None
    ) -> WriteResult:
        """Bring a deleted record back with the fields it had."""
        return self._run(lambda: self._inner.restore(type, id, space=space, priority=priority))

    def resolve(
        self,
        id: str,
        *,
        field: str | None = None,
        keep: Keep | None = None,
        alternative: int | None = None,
        value: Any = UNSET,
        merge: MergeFunction | None = None,
        suggested: bool = False,
        remember: bool = False,
    ) -> WriteResult:
        """Settle a standing conflict.

        Keep "mine" or "theirs" ("deleted" or "record" where a deletion met edits), keep an alternative by
        its index, give a value, or a function that makes one of all alternatives; `suggested` does what the
        remembered preference says, `remember` remembers the side that is kept now. `field`, where given,
        must be the conflict's.

        Raises ConflictNotFound, ConflictClosed (it says by whom), ValidationError, MergeFailed when the
        function raises or returns what does not fit, PermissionDenied; nothing has changed then.
        """
        return self._run(
            lambda: self._inner.resolve(
                id,
                field=field,
                keep=keep,
                alternative=alternative,
                value=value,
                merge=merge,
                suggested=suggested,
                remember=remember,
            )
        )

    def resolve_record(
        self,
        type: str,
        id: str,
        decisions: Mapping[str, Choice] | None = None,
        *,
        keep: Keep | None = None,
        space: str | None = None,
    ) -> WriteResult:
        """Settle conflicts of one record at once: all of them or, when one cannot be, none.

        `decisions` names fields (dotted) and what shall stand there: "mine", "theirs", the index of an
        alternative, `OwnValue(value)`, or a merge function. `keep` is for the other open ones. Raises as
        `resolve` does; ConflictNotFound for a field about which none stands.
        """
        return self._run(lambda: self._inner.resolve_record(type, id, decisions, keep=keep, space=space))

    def restore_version(self, id: str, alternative: int) -> WriteResult:
        """Bring back an alternative of a conflict, by its index, also of one that is closed.

        While the conflict stands this resolves it, and the result names it in `resolved`. Afterwards it is a
        new write, made by somebody who has seen everything since: it replaces what stands now, on every
        device. Raises ConflictNotFound, RecordDeleted, ValidationError, TransitionError, PermissionDenied.
        """
        return self._run(lambda: self._inner.restore_version(id, alternative))

    def conflict(self, id: str) -> ConflictEntry:
        """One conflict, by its id or an unambiguous start of it. Raises ConflictNotFound."""
        return self._run(lambda: self._inner.conflict(id))

    def logout(self, *, force: bool = False, export_to: StorePath | None = None) -> LogoutReport:
        """Remove the store with everything in it, and its key from the keychain. The device is closed then.

        While there is work that no relay has, raises UnsyncedWork saying how much, and nothing has changed;
        `force` gives that work up, `export_to` writes it to a new file first: one JSON object a line, with
        the values. That file is not encrypted: whoever can read it can read them.
        The relay is not told. To keep the device's keys from being used by whoever copied them before, an
        admin removes it from its spaces.
        """
        return self._run(lambda: self._inner.logout(force=force, export_to=export_to))

    @property
    def locked(self) -> bool:
        """Whether the store is closed until `unlock`."""
        return self._read(lambda: self._inner.locked)

    def lock(self) -> None:
        """Finish the writes on their way, stop syncing, close the store and let its keys go.

        From the moment this is called every other call raises StoreLocked. Again is harmless.
        """
        self._run(lambda: self._inner.lock())

    def unlock(self, passphrase: str | None = None, *, key: bytes | None = None) -> None:
        """Open the store again; no network is needed. One that was connected connects again.

        Raises WrongPassphrase, also for a device that is not locked, and what `Device.open` raises; the
        device stays as it is then.
        """
        self._run(lambda: self._inner.unlock(passphrase, key=key))

    def lock_after(self, seconds: float | None, *, on_lock: Callable[[], None] | None = None) -> None:
        """Lock by itself once no method of the device was called for so long; None: never. Kept in the store.

        `on_lock` is called in its own thread when it happens; it is not kept. Syncing in the background is no
        use, and ends. Time that the machine was asleep counts. Raises ValidationError below one second.
        """
        self._run(lambda: self._inner.lock_after(seconds, on_lock=on_lock))

    def touch(self) -> None:
        """Somebody uses the app, though it asks nothing of the device: the idle time starts over."""
        self._call(lambda: self._inner.touch())

    def lock_if_idle(self) -> bool:
        """Lock now if the idle time is over; whether the device is locked. For an app that comes back to the
        front, and for one with timers of its own.
        """
        return self._call(lambda: self._inner.lock_if_idle())

    def change_passphrase(self, old: Secret, new: Secret) -> None:
        """Encrypt the store with another passphrase (text) or key (32 bytes).

        `old` is what opens it now. Killed at any point, one of the two opens it, never neither; afterwards
        nothing in its files is under the old one. Calls made meanwhile wait: about 1 s per 100 MB. Raises
        WrongPassphrase, NoKey for a `new` that cannot be used, and StoreError when the disk has no room or
        fails; after that error the device is locked.
        """
        self._run(lambda: self._inner.change_passphrase(old, new))

    def store_size(self) -> StoreSize:
        """How large the store is on the disk, and what takes the room."""
        return self._run(lambda: self._inner.store_size())

    def vacuum(self) -> int:
        """Give room in the store's file that nobody uses back to the disk; returns how many bytes.

        Everything else waits meanwhile. It takes as much memory, and room on the disk, as the store has.
        """
        return self._run(lambda: self._inner.vacuum())

    def outbox(self) -> list[OutboxItem]:
        """Local work that no relay has acknowledged, oldest first."""
        return self._run(lambda: self._inner.outbox())

    def retry_failed(self) -> int:
        """Send again whatever was refused; returns in how many records that was."""
        return self._run(lambda: self._inner.retry_failed())

    def retry(self, type: str, id: str, *, space: str | None = None) -> None:
        """Send again what of one record was refused. Raises RecordNotFound when nothing was."""
        self._run(lambda: self._inner.retry(type, id, space=space))

    def discard(
        self, type: str, id: str, *, export_to: StorePath | None, space: str | None = None
    ) -> list[UnsyncedOperation]:
        """Give up what is unsent of a record, and of those that transactions tie to it; returns what it was.

        `export_to`: a new file that it is written to first, one JSON object a line, not encrypted; None: it
        is lost. The record leaves this device and comes back from the relay as everybody else has it; one
        that was never sent is gone. Raises RecordNotFound when nothing waits, LocalError while some of it may
        be on its way or when the file cannot be made; then nothing has changed.
        """
        return self._run(lambda: self._inner.discard(type, id, export_to=export_to, space=space))

    def watch_status(self) -> StatusWatch:
        """The status now and whenever it differs: `for status in device.watch_status():`.

        Only the latest counts; what changed and changed back in between is not told.
        """
        made = self._call(lambda: self._inner.watch_status())
        return StatusWatch(made, self._background, self._kept())

    def watch_record_state(self, type: str, id: str) -> RecordStateWatch:
        """How one record stands (see `record_state`): now, and whenever it differs."""
        made = self._call(lambda: self._inner.watch_record_state(type, id))
        return RecordStateWatch(made, self._background, self._kept())

    def record_state(self, type: str, id: str) -> RecordSync:
        """How one record stands. Raises UnknownType; of one that is not here nothing waits."""
        return self._run(lambda: self._inner.record_state(type, id))

    def wait(
        self, write: WriteResult | str, until: Durable = "relayed", *, timeout_s: float | None = None
    ) -> None:
        """Returns when a write is durable: on this device ("local"), at the relay ("relayed"), or on the
        devices of all other members of the space ("delivered").

        `write` may be its `ref`, for after a restart of the app. "delivered" counts what each device has
        confirmed to the relay, also those that are away; one that keeps only some records counts as well.
        It waits for a connection that `connect` or `sync` makes. Raises SyncTimeout when the time is up; the
        write stays in the outbox, or goes on to the others, all the same.
        """
        self._run(lambda: self._inner.wait(write, until, timeout_s=timeout_s))

    def get(self, type: str, id: str, *, space: str | None = None) -> Record | None:
        """The record, or None when this device has none of that id."""
        return self._run(lambda: self._inner.get(type, id, space=space))

    def query(
        self,
        type: str | Query,
        where: Where = None,
        *,
        order_by: OrderBy | None = None,
        limit: int | None = None,
        offset: int = 0,
        space: str | None = None,
    ) -> list[Record]:
        """Records of a type for which `where` holds: a mapping of fields to the values they equal (dotted
        paths allowed), or a condition such as `(field("cost") > 100) & field("tags").contains("pm")`.

        `order_by` is a field, "-field" for descending, or several. A `Query` in place of the type says all of
        this itself, and more; then give nothing else. Raises UnknownType, and ValidationError naming what
        does not fit.
        """
        return self._run(
            lambda: self._inner.query(type, where, order_by=order_by, limit=limit, offset=offset, space=space)
        )

    def page(self, query: Query, after: str | None = None) -> Page:
        """The first `limit` records of a query, or with the `next` of a page those that come after it.

        Pages go on where they ended, whatever is written in between. Raises as `query`.
        """
        return self._run(lambda: self._inner.page(query, after))

    def count(self, type: str | Query, where: Where = None, *, space: str | None = None) -> int:
        """How many records `query` would find without a limit."""
        return self._run(lambda: self._inner.count(type, where, space=space))

    def watch(self, type: str | None = None, id: str | None = None) -> Watch:
        """Changes from now on, of one type or one record if given: `for change in device.watch():`.

        A watcher that falls behind skips steps in between, never the latest state.
        """
        made = self._call(lambda: self._inner.watch(type, id))
        return Watch(made, self._background, self._kept())

    def live(self, query: Query) -> LiveQuery:
        """The first page of a query now and whenever it has changed: `for page in device.live(query):`.

        What is wrong with the query is raised when the first result is asked for.
        """
        made = self._call(lambda: self._inner.live(query))
        return LiveQuery(made, self._background, self._kept())

    def scope(self, space: str | None = None) -> Scope:
        """What of a space this device keeps."""
        return self._run(lambda: self._inner.scope(space))

    def set_scope(self, type: str, where: Where, *, space: str | None = None) -> int:
        """Keep only those of a type's records for which `where` holds, None: all; how many left at once.

        It is kept in the store. Records that match are fetched when the relay can be reached; what has work
        that is not sent leaves afterwards. Conditions are as in `query`; `nothing` holds for none, so that
        only picked records are kept. Raises UnknownType, ValidationError.
        """
        return self._run(lambda: self._inner.set_scope(type, where, space=space))

    def pick(self, type: str, id: str, *, space: str | None = None) -> None:
        """Keep a record on this device, with those that belong to it, whatever `set_scope` says."""
        self._run(lambda: self._inner.pick(type, id, space=space))

    def unpick(self, type: str, id: str, *, space: str | None = None) -> int:
        """Keep it only if `set_scope` says so; how many records left at once."""
        return self._run(lambda: self._inner.unpick(type, id, space=space))

    def finished(self, space: str | None = None) -> list[FinishedRecord]:
        """What `clean_up` would take off this device now."""
        return self._run(lambda: self._inner.finished(space))

    def clean_up(self, space: str | None = None) -> int:
        """Take records off this device that have been closed or deleted for long enough; how many.

        How long is said by `x-closed` of their schema, or by the setting `keep_days.TYPE`. The space keeps
        them: `fetch` brings one back. What is picked, unsent or in conflict stays.
        """
        return self._run(lambda: self._inner.clean_up(space))

    def clear_cache(self, space: str | None = None) -> int:
        """Have fresh copies of all records fetched; how many left. What has unsent work stays as it is."""
        return self._run(lambda: self._inner.clear_cache(space))

    def fetch(self, type: str, id: str, *, space: str | None = None, timeout_s: float = 30.0) -> Record:
        """The record, from the relay if it is not on this device.

        Raises RecordNotFound when the space does not have it, RecordAbsent when the relay cannot be reached
        within the time; it is fetched then as soon as the device is connected again. Whether it stays is said
        by `set_scope` and `pick`: it may leave again when something else comes for it.
        """
        return self._run(lambda: self._inner.fetch(type, id, space=space, timeout_s=timeout_s))

    def switch_space(self, space: str, on: bool) -> None:
        """Whether this device syncs a space. Kept in the store.

        While it is off, its records can be read and written as ever, and what is written waits; the status
        says `off`. On again, it goes on where it was.
        """
        self._run(lambda: self._inner.switch_space(space, on))

    def leave(self, space: str, *, force: bool = False, export_to: StorePath | None = None) -> LeaveReport:
        """Remove a space from this device: its records, its keys and what waits to be sent.

        While there is work in it that no relay has, raises UnsyncedWork saying how much, and nothing has
        changed; `force` gives that work up, `export_to` writes it to a new file first, one JSON object a
        line, not encrypted. Watches are told that its records left, and the status has the space no
        more. The others of the space are not told: this device stays a member until an admin removes it.
        Coming back takes an invite.
        """
        return self._run(lambda: self._inner.leave(space, force=force, export_to=export_to))

    def settings(self) -> Settings:
        """What is chosen about syncing and keeping on this device."""
        return self._run(lambda: self._inner.settings())

    def set_setting(self, name: str, value: int | bool | None) -> Settings:
        """Choose one, by its name in `Settings` or `keep_days.TYPE`; None: as it is by default. Kept.

        Raises ValidationError.
        """
        return self._run(lambda: self._inner.set_setting(name, value))

    def network(self, kind: Network) -> None:
        """The app says which network there is: "wifi", "metered", "none", or "unknown".

        With "none" connections are closed and not tried; with any other, a device that is to be connected
        connects at once. What a metered network is for stands in the settings.
        """
        self._run(lambda: self._inner.network(kind))

    def auto_sync(self) -> None:
        """Sync now, every `sync_every_s` seconds, and after urgent writes, until `disconnect` or the end.

        For apps that do not stay connected with `connect`. What fails stands in the status.
        """
        self._run(lambda: self._inner.auto_sync())

    def foreground(self) -> None:
        """The app comes to the front: lock if it is time, notice dead connections, and sync.

        Returns at once; what comes is seen by watches and in the status.
        """
        self._run(lambda: self._inner.foreground())

    def ready(
        self,
        space: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Returns when this device has had everything of a space once; fetches it if need be.

        `progress` is told how many rows of how many have come. A first sync that breaks off goes on where it
        was. Raises what `sync` raises, and NotReady when the time is up.
        """
        self._run(lambda: self._inner.ready(space, progress=progress, timeout_s=timeout_s))

    def require_ready(self, required: bool = True) -> None:
        """Whether reading raises NotReady until a space was received whole once. Not kept."""
        self._run(lambda: self._inner.require_ready(required))
