"""A device as a node: the real engine on its own storage, the app that uses it, and its sync.

The app's side is `write`: it does one operation and notes for the oracle what it saw before and what it left
afterwards. What happened inside a crash is looked up in the store when the device starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import CrdtSyncError
from crdt_sync.ids import Author, Incarnation, RecordId, SpaceId, keyed_record_id
from crdt_sync.protocol.frames import Deliver, FromRelay
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES, PROTOCOL_VERSION
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import check_write
from crdt_sync.schemas.builtin import SCHEMA_TYPE
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.checkout_desk import Question
from crdt_sync_client.engine import Engine
from crdt_sync_client.engine.checkouts import CheckoutOutcome
from crdt_sync_client.engine.model import (
    CreateOp,
    Operation,
    Outcome,
    ResolveOp,
    ResolveRecordOp,
    RestoreVersionOp,
    Transaction,
    TransactionResult,
    UpdateOp,
    WriteResult,
)
from crdt_sync_client.engine.verifying import verify_one_by_one
from crdt_sync_client.incoming_batch import IncomingBatch
from crdt_sync_client.session_steps import FetchedStep
from crdt_sync_client.store.connection import Database
from crdt_sync_client.write_queue import write_and_seal
from crdt_sync_sim.device_line import device_is_sound
from crdt_sync_sim.device_sync import DeviceSync
from crdt_sync_sim.network import Network
from crdt_sync_sim.node import Node
from crdt_sync_sim.oracle import Oracle, RecordName, Visible, WriteId, write_id
from crdt_sync_sim.storage import Storage
from crdt_sync_sim.urgency import Urgency
from crdt_sync_sim.world import World, seconds

T = TypeVar("T")
RETRY_START_US = seconds(5)
UPKEEP_US = seconds(0.025)
"""What one step takes on a phone."""
KEPT_BATCHES = 40
"""Received batches kept per device, to be replayed at the end."""
_UNSENT = (
    "SELECT type, id, min(at_ms) FROM records JOIN (SELECT record, at_ms FROM outbox UNION ALL"
    " SELECT record, at_ms FROM sealed) ON record = no GROUP BY type, id"
)
_TO_SEND = (
    "SELECT EXISTS (SELECT 1 FROM"
    " (SELECT record, error FROM outbox UNION ALL SELECT record, error FROM sealed)"
    " GROUP BY record HAVING max(error IS NOT NULL) = 0)"
)
"""Whether a record waits to be sent; one that has failed does not."""
_WAITING = "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM sealed)"

Received = tuple[list[tuple[int, int, bytes]], int]
"""Rows (sequence, kind, payload) as they came in one frame, and the cursor after them."""


@dataclass(slots=True)
class DeviceTally:
    """What one device did in a run."""

    acknowledged: int = 0
    refused: int = 0
    failed: int = 0
    resolved: int = 0
    quarantined: int = 0
    conflicts_opened: set[str] = field(default_factory=set)
    peak_outbox: int = 0
    """Changes and envelopes that no relay had acknowledged, at most, after a write."""
    converged_us: int | None = None

    def copy(self) -> DeviceTally:
        """One that can go on by itself."""
        return replace(self, conflicts_opened=set(self.conflicts_opened), converged_us=None)


class DeviceNode(Node):
    """See the module. `space` is the one space of the world, once it is founded."""

    def __init__(self, name: str, world: World, network: Network, storage: Storage, oracle: Oracle) -> None:
        super().__init__(name, world, network, storage)
        self.engine: Engine
        self.space: SpaceId
        self.oracle = oracle
        self.tally = DeviceTally()
        self.batches: list[Received] = []
        self.speaks = PROTOCOL_VERSION
        """The version of the protocol in the app that is installed."""
        self.joining = False
        """Whether its owner wants it to join the space."""
        self.opened: set[RecordName] = set()
        """Records that somebody opened though the device may not keep them: they may stay."""
        self.changes = 0
        """Grows with everything that may change what the store holds."""
        self.urgency = Urgency()
        self.sync = DeviceSync(self)
        self._seen: dict[RecordName, Visible] = {}
        """Per record, what its document showed when it was last looked at."""
        self._database: Database | None = None
        self._keeping_up = False
        self._created = False
        self._entropy = world.streams.entropy(f"crypto/{name}")

    def belongs_to(self, space: SpaceId) -> None:
        """Its storage holds a store that is in that space."""
        self.space = space
        self._created = True

    @property
    def member(self) -> bool:
        """Whether it is in the space."""
        return hasattr(self, "space")

    @property
    def in_use(self) -> bool:
        return self.member or self.joining

    # Lives

    def on_start(self) -> None:
        try:
            self._open()
        except Exception as exc:
            if not device_is_sound(exc):
                raise
            self.world.note("start_failed", self.name, type(exc).__name__)
            self._database = None
            self.storage.crash()
            self.later(RETRY_START_US, self.on_start)
            return
        self.world.note("start", self.name, f"{self.engine.author.incarnation}")
        self.look_after()
        if self.member:
            self.oracle.groups.look(self)
            self.sync.connect()

    def _open(self) -> None:
        database = self._database = Database(self.storage.connect())
        if self._created:
            self.engine = Engine.open(database, clock=self.clock.now_ms, entropy=self._entropy)
        else:
            self.engine = Engine.create(
                database, name=self.name, clock=self.clock.now_ms, entropy=self._entropy
            )
            self._created = True
        self.engine._replica.verify_many = verify_one_by_one

    def on_stop(self) -> None:
        self._keeping_up = False
        self._seen.clear()
        if self._database is not None and self.member:
            self.oracle.died(self.name, self._unsent_since(self._database))
        # The connection belongs to a dead process; its storage lets go of it.
        self._database = None
        self.sync.gone()
        self.sync = DeviceSync(self)

    def wipe(self) -> None:
        """Its owner clears the app's data: the store is gone. It comes back as a new device."""
        if not self.member:
            return
        self.oracle.wiped(self.unsent_writes())
        self.crash()
        self.world.note("wipe", self.name)
        self.storage.restore({})
        self.backup = None
        self.batches.clear()
        self._created = False
        del self.space

    def entered(self, space: SpaceId) -> None:
        """It has joined. It fetches what there is and stays connected."""
        self.space = space
        self.joining = False
        self.tally.converged_us = None
        self.world.note("joined", self.name)
        self.sync = DeviceSync(self)
        self.sync.connect()

    def upgrade(self, speaks: int) -> None:
        """Its owner installs an app that speaks that version of the protocol; the app starts anew."""
        if speaks != self.speaks:
            self.speaks = speaks
            self.world.note("upgrade", self.name, f"{speaks}")
            if self.up:
                self.crash()
                self.start()

    @property
    def database(self) -> Database:
        assert self._database is not None
        return self._database

    @property
    def open(self) -> bool:
        """Up, not paused, and its store open."""
        return self.up and self._database is not None and not self.paused

    @property
    def ready(self) -> bool:
        """Open, and in the space."""
        return self.open and self.member

    # The app

    def write(self, work: Sequence[Operation | Transaction]) -> Sequence[Outcome] | None:
        """Do it; None when the device cannot now, or its disk would not."""
        if not self.ready:
            return None
        self.changes += 1
        operations = [op for each in work for op in (each.ops if isinstance(each, Transaction) else (each,))]
        names = [name for name in map(self._record_of, operations) if name is not None]
        if not all(isinstance(op, CreateOp | UpdateOp) for op in operations):  # these reach nothing else
            names += self._below(names)
        before = {name: self.visible(name).writes for name in names}
        pushes = self.sync.ready_to_push()
        try:
            outcomes, sealed, again = write_and_seal(self.engine, work, pushes)
        except Exception as exc:
            if not device_is_sound(exc):
                raise
            if pushes:
                self.sync.pushed(None)
            self.tally.failed += 1
            self.world.note("write_failed", self.name, type(exc).__name__)
            return None
        self.urgency.wrote(self, work, outcomes)
        self.urgency.sealed(self, sealed.get(self.space, ()))
        results = list(_each_result(work, outcomes))
        for operation, result in results:
            self._note_result(operation, result)
            if isinstance(result, WriteResult):
                names.append((result.type, result.id))
        self.tally.peak_outbox = max(self.tally.peak_outbox, self.database.value(_WAITING))
        added: dict[RecordName, frozenset[WriteId]] = {}
        for name in dict.fromkeys(names):
            was, now = before.get(name, frozenset()), self.visible(name).writes
            self.oracle.wrote(self, name, was, now)
            added[name] = frozenset(write_id(write) for write in now - was)
        if any(isinstance(each, TransactionResult) for each in outcomes) or any(
            isinstance(result, WriteResult) and result.below for _, result in results
        ):
            self.oracle.groups.wrote(self, added)
        if pushes:
            self.sync.pushed(sealed.get(self.space), more=self.space in again)
        changed = any(isinstance(result, WriteResult) and result.changed for _, result in results)
        if changed and not sealed:
            self.sync.push_soon()
        self.look_after()
        return outcomes

    def ask_checkout(
        self, names: Sequence[RecordName], *, ttl_s: float = 0.0, back: bool = False, breaks: bool = False
    ) -> None:
        """Ask the relay for these records, or give them back; without a connection nothing comes of it."""
        if not self.ready:
            return
        engine = self.engine
        chosen = [engine.chosen_record(*name, space=self.space) for name in names]
        token = engine.newest_token(self.space)

        def told(outcomes: list[CheckoutOutcome] | None) -> None:
            codes = "lost" if outcomes is None else " ".join(outcome.code for outcome in outcomes)
            self.world.note("checkout", self.name, codes)
            if back and not breaks and outcomes is not None:
                self.engine.forget_checkouts(self.space, [each.opaque for each in chosen])

        self.changes += 1
        self.sync.ask_checkouts(Question(chosen, told, int(ttl_s * 1000), token, back, breaks))

    def publish(self, schema: RecordSchema) -> WriteResult | CrdtSyncError | None:
        """As an admin, carry a version of a record type in the space; None as with `write`."""
        if not self.ready:
            return None
        self.changes += 1
        name = (SCHEMA_TYPE, keyed_record_id(self.space, SCHEMA_TYPE, schema.type))
        before = self.visible(name).writes
        try:
            result = self.engine.add_schema(self.space, schema, force=True)
        except CrdtSyncError as refused:
            self.world.note("publish_refused", self.name, f"{schema.type} {schema.version} {refused.code}")
            return refused
        except Exception as exc:
            if not device_is_sound(exc):
                raise
            self.tally.failed += 1
            self.world.note("write_failed", self.name, type(exc).__name__)
            return None
        self.world.note("publish", self.name, f"{schema.type} {schema.version} {result.changed}")
        self.oracle.wrote(self, name, before, self.visible(name).writes)
        self.sync.push_soon()
        self.look_after()
        return result

    def clear_cache(self) -> None:
        """Its owner wants fresh copies of all there is."""
        if not self.ready:
            return
        self.changes += 1
        try:
            left = self.engine.clear(self.space)
        except Exception as exc:
            if not device_is_sound(exc):
                raise
            self.world.note("clear_failed", self.name, type(exc).__name__)
            return
        self.world.note("clear", self.name, f"{len(left)} records")
        self.sync.fetch_soon()

    def absent_names(self) -> dict[RecordName, str]:
        """The records that are known and not on the device, and why."""
        rows = self.database.rows("SELECT type, id, absent FROM records WHERE absent IS NOT NULL ORDER BY no")
        return {(record_type, RecordId(id)): why for record_type, id, why in rows}

    def is_absent(self, name: RecordName) -> bool:
        """Whether the record is known, and not on the device now."""
        return self.engine.is_absent(*name, space=self.space)

    def _below(self, names: Sequence[RecordName]) -> list[RecordName]:
        """The records that belong to these, and to those, which an operation on them may reach."""
        found: dict[str, RecordName] = {}
        above = [id for _, id in names]
        while above:
            marks = ", ".join("?" * len(above))
            rows = self.database.rows(f"SELECT type, id FROM records WHERE parent IN ({marks})", above)
            new = {id: (record_type, RecordId(id)) for record_type, id in rows if id not in found}
            found |= new
            above = [RecordId(id) for id in new]
        return [name for name in found.values() if name not in names]

    def look_after(self) -> None:
        """Something may wait for upkeep."""
        if self.engine.upkeep_due and not self._keeping_up:
            self._keeping_up = True
            self.later(UPKEEP_US, self._keep_up)

    def _keep_up(self) -> None:
        """A bit of what new versions of schemas ask for, as the app's background task does it."""
        self._keeping_up = False
        self.changes += 1
        try:
            done = self.engine.keep_up()
        except Exception as exc:
            if not device_is_sound(exc):
                raise
            self.world.note("upkeep_failed", self.name, type(exc).__name__)
            self._keeping_up = True
            self.later(RETRY_START_US, self._keep_up)
            return
        if done is not None:
            self.tally.conflicts_opened.update(done.conflicts_opened)
            self.oracle.groups.look(self, sorted({(change.type, change.id) for change in done.changes}))
            self.world.note("upkeep", self.name, f"{len(done.changes)} records")
            self.sync.fetch_soon()
        self.look_after()

    def _record_of(self, operation: Operation) -> RecordName | None:
        """The record an operation is about, None when it will only be known afterwards."""
        if isinstance(operation, ResolveRecordOp):
            operation = operation.decisions[0]
        if isinstance(operation, (ResolveOp, RestoreVersionOp)):
            try:
                conflict = self.engine.conflict(operation.conflict)
            except CrdtSyncError:
                return None
            return conflict.type, conflict.record
        return None if operation.id is None else (operation.type, operation.id)

    def _note_result(self, operation: Operation, result: WriteResult | CrdtSyncError) -> None:
        kind = type(operation).__name__
        if isinstance(result, WriteResult):
            self.tally.acknowledged += 1
            self.tally.resolved += len(result.resolved)
            self.world.note("write", self.name, f"{kind} {result.type} {result.id} {result.changed}")
        else:
            self.tally.refused += 1
            result.__traceback__ = None  # which knows the engine
            self.world.note("write_refused", self.name, f"{kind} {result.code}")

    def visible(self, name: RecordName) -> Visible:
        """The record's visible writes, as the store has them."""
        replica = self.engine._replica
        space = replica.space(self.space)
        record = replica.records.find(space, space.keys.opaque_id(*name), replica.author)
        writes = {} if record is None else record.doc.writes()
        seen = self._seen.get(name)
        if seen is None or seen.given is not writes:
            seen = self._seen[name] = Visible(writes)
        return seen

    def record_names(self) -> list[RecordName]:
        rows = self.database.rows("SELECT type, id FROM records ORDER BY type, id")
        return [(record_type, RecordId(id)) for record_type, id in rows]

    @property
    def has_to_send(self) -> bool:
        """Whether work waits to be sent, or was refused and will be sent again by itself."""
        if self.engine.retry_in_s(self.space) is not None:
            return True
        return bool(self.database.value(_TO_SEND))

    def unsent(self) -> list[RecordName]:
        """Records with work that no relay has acknowledged, as the disk has it; the process may be down."""
        return [name for name, _ in self.stored(self._unsent_since)]

    def stored(self, read: Callable[[Database], T]) -> T:
        """What `read` finds on the disk; the process may be down."""
        found = read(self._database or Database(self.storage.connect()))
        if self._database is None:
            self.storage.crash()
        return found

    def _unsent_since(self, database: Database) -> list[tuple[RecordName, int]]:
        """Records with unacknowledged work, and the device's time of the oldest of it."""
        return [((record_type, RecordId(id)), at_ms) for record_type, id, at_ms in database.rows(_UNSENT)]

    def unsent_writes(self) -> Iterator[WriteId]:
        """The writes that no relay has acknowledged, as the disk has them; the process may be down."""
        database = self._database or Database(self.storage.connect())
        device, keys = self.engine.author.device, self.engine._replica.space(self.space).keys
        waiting = database.rows("SELECT incarnation, change FROM outbox")
        for incarnation, raw in database.rows("SELECT incarnation, envelope FROM sealed"):
            envelope = parse(raw, max_bytes=MAX_ENVELOPE_BYTES)
            opened = Payload.decode(envelope.open(keys.envelope_key(envelope.header.epoch)))
            waiting.append((incarnation, opened.update))
        if self._database is None:
            self.storage.crash()
        for incarnation, update in waiting:
            author = Author(device, Incarnation(incarnation))
            for blocks in parse_update(update).blocks:
                yield from (write_id(check_write(item, author)) for _, item in blocks.items)

    def trail(self) -> list[tuple[str, str, str, int]]:
        """Every conflict this device has seen: id, kind, state, and whether someone's write ended it."""
        if not self.ready:
            return []
        return self.database.rows("SELECT id, kind, state, resolver IS NOT NULL FROM conflicts")

    # What sync tells

    def fetched(self, step: FetchedStep) -> None:
        """Records were made anew."""
        self.changes += 1
        if step.received is not None:
            changed = sorted({(change.type, change.id) for change in step.received.changes})
            self.oracle.groups.look(self, changed)
            self.tally.conflicts_opened.update(step.received.conflicts_opened)
            self.world.note("fetch", self.name, f"{len(step.records)} records")
        self.look_after()

    def took(self, frames: Sequence[FromRelay], batch: IncomingBatch) -> None:
        """A batch was given to the store; `batch.error` says whether all of it was taken."""
        self.changes += 1
        changed = {(change.type, change.id) for received in batch.received for change in received.changes}
        self.oracle.groups.look(self, sorted(changed))
        for received in batch.received:
            self.tally.conflicts_opened.update(received.conflicts_opened)
            self.tally.quarantined += len(received.quarantined)
            for bad in received.quarantined:
                self.world.note("quarantine", self.name, f"{bad.seq} {bad.code}")
            if received.envelopes:
                self.world.note("merge", self.name, f"{received.envelopes} to {batch.cursor}")
            for conflict in received.conflicts_opened:
                self.world.note("conflict", self.name, conflict[:8])
        for frame in frames:
            if isinstance(frame, Deliver) and frame.rows and len(self.batches) < KEPT_BATCHES:
                rows = [(row.sequence, int(row.kind), row.payload) for row in frame.rows]
                self.batches.append((rows, frame.cursor))
        self.look_after()


def _each_result(
    work: Sequence[Operation | Transaction], outcomes: Sequence[Outcome]
) -> Iterator[tuple[Operation, WriteResult | CrdtSyncError]]:
    """Every operation with what came of it; of a transaction that failed, the first."""
    for each, outcome in zip(work, outcomes, strict=True):
        operations = each.ops if isinstance(each, Transaction) else (each,)
        if isinstance(outcome, TransactionResult):
            yield from zip(operations, outcome.results, strict=True)
        else:
            yield operations[0], outcome
