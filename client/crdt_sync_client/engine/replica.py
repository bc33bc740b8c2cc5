"""What the parts of the engine share: the database, who this device is, its spaces and open records.

Memory follows the store. `transaction` is the only way to change either: when it fails, everything in
memory is read again, so that the two agree whatever happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.errors import UnknownSpace
from crdt_sync.hlc import Hlc, HybridClock
from crdt_sync.ids import Author, Entropy, Incarnation, SpaceId, new_incarnation
from crdt_sync.schemas.priorities import LAST
from crdt_sync_client.engine import indexes
from crdt_sync_client.engine.model import StatusCounts
from crdt_sync_client.engine.open_records import OpenRecords
from crdt_sync_client.engine.outbox_order import OutboxOrder
from crdt_sync_client.engine.outbox_past import OutboxPast
from crdt_sync_client.engine.refused import Refused, load_refused
from crdt_sync_client.engine.space import Space
from crdt_sync_client.engine.verifying import VerifyMany, verify_one_by_one
from crdt_sync_client.store.connection import Database
from crdt_sync_client.store.tables import check_tables, create_tables, upgrade_tables

CLEAN: Final = 1
IN_USE: Final = 0
_FEW: Final = 1_000
"""Records with unsent work; of more it is not asked whose work all of it is."""

_COUNT_WORK: Final = (
    "SELECT record, count(*), count(error) FROM outbox GROUP BY record"
    " UNION ALL SELECT record, count(*), count(error) FROM sealed GROUP BY record"
)
"""Of the outbox, from its index alone: with 100,000 records unsent it is the largest table."""
_SPACE_COLUMNS: Final = (
    "no, id, name, relay_url, stage, keys, pending_entry, cursor, relay_seen, catching_up,"
    " promised, gives_back"
)


class Replica:
    """See the module."""

    def __init__(
        self,
        db: Database,
        *,
        clock: Callable[[], int],
        entropy: Entropy,
        verify_many: VerifyMany = verify_one_by_one,
    ) -> None:
        self.db = db
        self.now_ms = clock
        self.entropy = entropy
        self.verify_many = verify_many
        self.closed = False
        self.in_transaction = False
        self.require_ready = False
        """Whether a space that was never received whole may not be read."""
        self.least_priority = LAST
        """What is less urgent than that is not sent for now."""
        meta = dict(db.rows("SELECT name, value FROM meta"))
        self.name: str = meta["name"]
        self.keys = DeviceKeys.from_bytes(meta["keys"])
        self.device_id = self.keys.device_id
        clean = meta["clean"] == CLEAN
        self.author = Author(self.device_id, Incarnation(meta["incarnation"]))
        self.hlc = HybridClock(Hlc(meta["hlc"]))
        self.opened = self.hlc.last
        """What was written here up to this time may stand in a copy of the store too."""
        self._saved: Hlc | None = None
        """What the store has of the clock; None where that is not known."""
        self.spaces: dict[SpaceId, Space] = {}
        self.unsent: Counter[int] = Counter()
        """Per record number, the outbox rows and sealed envelopes that the relay has not acknowledged."""
        self.failed: Counter[int] = Counter()
        self.refused: dict[int, Refused] = {}
        """Records (by number) of which the relay refused something, see `refusing`."""
        self.transactions = 0
        """How many there were. As long as it stays, nothing in the store has changed."""
        self._earlier: bool | None = None
        """See `has_earlier_work`; None as long as nobody has looked."""
        self.status: dict[int | None, StatusCounts] = {}
        """Counts by space number (None: of all) since the last transaction, see `reading.status_counts`."""
        self.past = OutboxPast(db)
        self.records = OpenRecords(db)
        with db.transaction(durable=True):
            upgrade_tables(db)
            self.set_meta("clean", IN_USE)
            if not clean:
                self.set_meta("incarnation", new_incarnation(entropy))
        self.reload()
        if not indexes.settled(self):  # a program of another version made them
            with db.transaction(durable=False):
                indexes.settle(self)
        self._read_schemas_anew()

    def _read_schemas_anew(self) -> None:
        """Records that an earlier program showed by another version of their schema are made anew."""
        for space in self.spaces.values():
            changes = space.record_types.read_anew
            if changes:
                with self.db.transaction(durable=False):
                    for change in changes:
                        space.record_types.note(self.db, change)

    @staticmethod
    def initialise(db: Database, *, name: str, entropy: Entropy) -> None:
        """Make the tables and the identity of a new store."""
        keys = DeviceKeys.generate(entropy)
        with db.transaction(durable=True):
            create_tables(db)
            db.many(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    ("name", name),
                    ("keys", keys.to_bytes()),
                    ("incarnation", new_incarnation(entropy)),
                    ("hlc", 0),
                    ("clean", CLEAN),
                ],
            )

    @staticmethod
    def check(db: Database) -> None:
        """Raises NotAStore or StoreTooNew; reads only."""
        check_tables(db)

    def set_meta(self, name: str, value: Any) -> None:
        self.db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))

    def begin_incarnation(self) -> None:
        """New writes get a new author from here on. Inside a transaction."""
        incarnation = new_incarnation(self.entropy)
        self.set_meta("incarnation", incarnation)
        self.author = Author(self.device_id, incarnation)
        self._earlier = None
        self.outbox = OutboxOrder(self.db, incarnation)
        self.records.clear()  # open documents write under the author they were opened for
        for space in self.spaces.values():
            space.new_life()

    def transaction(self, *, durable: bool) -> ReplicaTransaction:
        """A database transaction that takes memory back too when it fails.

        Inside another one it is a part of that: it is durable if the outer one is, and undone with it.
        """
        return ReplicaTransaction(self, durable)

    def reload(self) -> None:
        """Read everything kept in memory from the store again."""
        db = self.db
        self.transactions += 1
        self._earlier = self._saved = None
        self.records.clear()
        self.author = Author(
            self.device_id, Incarnation(db.value("SELECT value FROM meta WHERE name = 'incarnation'"))
        )
        self.outbox = OutboxOrder(db, self.author.incarnation)
        sessions = {id: space.session for id, space in self.spaces.items()}
        self.spaces = {}
        for row in db.rows(f"SELECT {_SPACE_COLUMNS} FROM spaces ORDER BY no"):
            space = Space.load(db, row, self.device_id)
            space.session = sessions.get(space.id, space.session)
            self.spaces[space.id] = space
        self.unsent = Counter()
        self.failed = Counter()
        for record, count, failed in db.execute(_COUNT_WORK):
            self.unsent[record] += count
            if failed:
                self.failed[record] += failed
        self.refused = load_refused(db)
        for record, refused in self.refused.items():
            if refused.retry_ms is not None:
                self.failed.pop(record, None)

    def has_earlier_work(self) -> bool:
        """Whether some of the unsent work may be of an earlier life, and so of another author than now's."""
        if not self.unsent:
            return False
        if len(self.unsent) > _FEW:
            return True
        if self._earlier is None:
            found = self.db.value(
                "SELECT EXISTS (SELECT 1 FROM sealed WHERE incarnation != ?1)"
                " OR EXISTS (SELECT 1 FROM outbox WHERE incarnation != ?1)",
                (self.author.incarnation,),
            )
            self._earlier = bool(found)
        return self._earlier

    def look_for_earlier_work(self) -> None:
        """Some of it has gone; look again."""
        self._earlier = None

    def count_unsent(self, record: int) -> None:
        """Count a record's unsent and failed work again. Inside a transaction."""
        unsent, failed = self.db.execute(
            "SELECT count(*), count(error) FROM"
            " (SELECT error FROM outbox WHERE record = ?1"
            " UNION ALL SELECT error FROM sealed WHERE record = ?1)",
            (record,),
        ).fetchone()
        if failed and record in self.refused and self.refused[record].retry_ms is not None:
            failed = 0
        for counter, count in ((self.unsent, unsent), (self.failed, failed)):
            if count:
                counter[record] = count
            else:
                counter.pop(record, None)

    def space(self, id: SpaceId | None) -> Space:
        """The space of that id; None is the only one there is. Raises UnknownSpace."""
        if id is not None:
            found = self.spaces.get(id)
            if found is None:
                raise UnknownSpace(f"this device is in no space {id.hex()}", hint="join it with an invite")
            return found
        if len(self.spaces) == 1:
            return next(iter(self.spaces.values()))
        if not self.spaces:
            raise UnknownSpace(
                "this device is in no space yet", hint="create one, or join one with an invite link"
            )
        names = ", ".join(sorted(space.name for space in self.spaces.values()))
        raise UnknownSpace("this device is in several spaces", hint=f"name one of: {names}")

    def tick(self) -> Hlc:
        return self.hlc.tick(self.now_ms())

    def save_clock(self) -> None:
        """Keep the clock with the writes it timed. Inside their transaction."""
        if self._saved != self.hlc.last:
            self._saved = self.hlc.last
            self.set_meta("hlc", self._saved)

    def close(self) -> None:
        """Mark the store cleanly closed and close it; again is harmless."""
        if self.closed:
            return
        self.closed = True
        self.records.clear()
        try:
            with self.db.transaction(durable=True):
                self.save_clock()
                self.set_meta("clean", CLEAN)
        finally:
            self.db.close()


class ReplicaTransaction:
    """See `Replica.transaction`; for one `with` block."""

    __slots__ = ("_durable", "_nested", "_replica")

    def __init__(self, replica: Replica, durable: bool) -> None:
        self._replica = replica
        self._durable = durable
        self._nested = replica.in_transaction

    def __enter__(self) -> None:
        if self._nested:
            return
        replica = self._replica
        try:
            replica.db.begin(durable=self._durable)
        except BaseException:
            replica.reload()
            raise
        replica.in_transaction = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None = None, *_: object
    ) -> None:
        if self._nested:
            return
        replica = self._replica
        replica.in_transaction = False
        replica.transactions += 1
        replica.status.clear()
        try:
            if kind is None:
                replica.db.commit()
            else:
                replica.db.roll_back(error)
        except BaseException:
            replica.reload()
            raise
        if kind is not None:
            replica.reload()
