"""One space in memory: its keys, its membership log, the chains it knows, its record types.

Everything here is a copy of rows in the store. It is changed together with them inside a transaction,
and read again from them when a transaction fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

from crdt_sync.crypto.chain import ChainHead, frontier_hash
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import CrdtSyncError, UnknownType
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, RelayId, SpaceId
from crdt_sync.membership.authoring import open_names
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role
from crdt_sync.schemas.model import RecordSchema
from crdt_sync_client.engine import absent
from crdt_sync_client.engine.giving import LATE, Giving
from crdt_sync_client.engine.leases import Leases
from crdt_sync_client.engine.record_types import RecordTypes
from crdt_sync_client.engine.scope import Scope
from crdt_sync_client.engine.waiting import BEHIND, FIRST, Waiting

if TYPE_CHECKING:
    from crdt_sync_client.store.connection import Database

Stage = Literal["creating", "joining", "active"]


class SessionMemory:
    """What a space's session with the relay needs to know. Not stored: the next session asks anew."""

    __slots__ = (
        "acknowledged",
        "author",
        "fresh",
        "head",
        "missed",
        "more",
        "pause_s",
        "refusals",
        "relay",
        "resend",
        "skipped",
    )

    def __init__(self) -> None:
        self.author: Author | None = None
        """Whose chain is compared with the relay's and sent; None once this session cannot go on."""
        self.acknowledged: tuple[int, Author, ChainHead] | None = None
        """What `giving_back.acknowledged` found last, after how many transactions and of whom."""
        self.relay: RelayId | None = None
        """The life of the relay that it is with."""
        self.head = 0
        """The end of the relay's log when the session began."""
        self.more = False
        """Whether something is pending that the last push did not take."""
        self.resend: list[int] = []
        """Numbers of sealed rows to hand out."""
        self.fresh: set[int] = set()
        """Those of them that were not handed out before."""
        self.skipped: frozenset[Incarnation] = frozenset()
        """Earlier lives whose work is held back, so that this session was begun without it."""
        self.pause_s: float | None = None
        """How long nothing may be sent after the last refusal."""
        self.refusals: dict[tuple[int, int], int] = {}
        """How often in a row an envelope (incarnation, sequence) was refused, over all sessions."""
        self.missed: dict[OpaqueId, int] = {}
        """The newest row that came for a wanted record and was passed over."""

    def end(self) -> None:
        """Nothing more is sent in this session."""
        self.author = None
        self.resend = []


class Space:
    """See the module. `no` is its number in the store's tables."""

    def __init__(
        self,
        *,
        no: int,
        id: SpaceId,
        name: str,
        relay_url: str,
        stage: Stage,
        keys: SpaceKeys,
        pending_entry: bytes | None = None,
        cursor: int = 0,
        relay_seen: RelayId | None = None,
    ) -> None:
        self.no = no
        self.id = id
        self.name = name
        self.relay_url = relay_url
        self.stage: Stage = stage
        self.keys = keys
        self.pending_entry = pending_entry
        self.cursor = cursor
        self.relay_seen = relay_seen
        self.log = MembershipLog(id)
        self.chains: dict[Author, ChainHead] = {}
        self.acked: dict[Author, int] = {}
        self.unmerged: dict[OpaqueId, set[tuple[Author, int]]] = {}
        self.record_types = RecordTypes(id, no)
        self.waiting = Waiting()
        """What has arrived and shows only together with something that has not."""
        self.catching_up = FIRST
        """AT_HEAD, BEHIND or FIRST: whether this device had everything at the end of the last batch."""
        self.settled: Mapping[Author, int] = {}
        """While BEHIND: per author the sequence number up to which this device had everything before."""
        self.held: dict[OpaqueId, dict[Author, int]] = {}
        """Per record with held work (see `older_copy`), how much of each author's array has come."""
        self.scope = Scope()
        self.absent = 0
        """How many records of the space are not on this device."""
        self.wanted: dict[OpaqueId, None] = {}
        """Those of them that are to be fetched, in that order."""
        self.giving = Giving()
        """What a relay that has lost something is given back."""
        self.leases = Leases(no, id)
        self.session = SessionMemory()
        self.off_name = f"off:{id.hex()}"
        """In the store's table `meta`, while it is off on this device."""
        self.off = False
        self._frontier: bytes | None = None
        self._names: dict[DeviceId, str] = {}

    @classmethod
    def load(cls, db: Database, row: tuple[object, ...], device_id: DeviceId) -> Space:
        """The space of a row of `spaces`, with all that belongs to it."""
        no, id, name, relay_url, stage, keys, pending, *place = row
        cursor, relay_seen, catching_up, promised, gives_back = place
        space = cls(
            no=cast(int, no),
            id=SpaceId(cast(bytes, id)),
            name=cast(str, name),
            relay_url=cast(str, relay_url),
            stage=cast(Stage, stage),
            keys=SpaceKeys.from_bytes(cast(bytes, keys)),
            pending_entry=cast("bytes | None", pending),
            cursor=cast(int, cursor),
            relay_seen=None if relay_seen is None else RelayId(cast(bytes, relay_seen)),
        )
        entries = db.rows("SELECT entry FROM membership WHERE space = ? ORDER BY position", (no,))
        space.log = MembershipLog.restore(space.id, (entry for (entry,) in entries))
        space.catching_up = cast(int, catching_up)
        settled: dict[Author, int] = {}
        for device, incarnation, sequence, link, acked, before in db.rows(
            "SELECT device, incarnation, sequence, hash, acked, settled FROM chains WHERE space = ?", (no,)
        ):
            author = Author(device, incarnation)
            space.chains[author] = ChainHead(sequence, link)
            space.acked[author] = acked
            settled[author] = before
        if space.catching_up == BEHIND:
            space.settled = settled
        space.waiting = Waiting.load(db, space.no)
        for opaque, device, incarnation, sequence in db.rows(
            "SELECT opaque, device, incarnation, sequence FROM quarantine"
            " WHERE space = ?1 AND sequence > 0"
            " UNION ALL SELECT opaque, device, incarnation, sequence FROM waiting"
            " WHERE space = ?1 AND sequence > 0",
            (no,),
        ):
            space.unmerged.setdefault(opaque, set()).add((Author(device, incarnation), sequence))
        for opaque, incarnation, arrived in db.rows(
            "SELECT opaque, incarnation, arrived FROM held JOIN records ON no = record WHERE held.space = ?",
            (no,),
        ):
            space.held.setdefault(OpaqueId(opaque), {})[Author(device_id, Incarnation(incarnation))] = arrived
        space.record_types.load(db)
        meta = dict(db.rows("SELECT name, value FROM meta"))
        space.leases.load(db, meta)
        space.scope = Scope.load(db, space.no)
        absent.load(db, space)
        space.giving = Giving(cast(int, promised), cast(int, gives_back))
        if space.giving.stage == LATE:
            late = db.rows("SELECT opaque FROM at_relay WHERE space = ?", (no,))
            space.giving.late = {OpaqueId(opaque) for (opaque,) in late}
            space.giving.begin_again()
        space.off = space.off_name in meta
        return space

    # Members ----------------------------------------------------------------------------------------

    def role_of(self, device: DeviceId) -> Role | None:
        """The device's role; None for one that is no member."""
        return self.log.role_of(device)

    def device_name(self, device: DeviceId) -> str:
        """The name a member gave itself, from its sealed entry; the start of its id where there is none."""
        name = self._names.get(device)
        if name is None:
            try:
                name = open_names(self.log.member(device), self.keys).device
            except CrdtSyncError:
                return device.hex()[:8]
            self._names[device] = name
        return name

    # Chains -----------------------------------------------------------------------------------------

    def chain(self, author: Author) -> ChainHead:
        head = self.chains.get(author)
        return ChainHead.start(self.id, author) if head is None else head

    def advance(self, author: Author, head: ChainHead, *, own: bool) -> None:
        """`own`: the author is this device now; its chain is no part of the frontier it cites."""
        self.chains[author] = head
        if not own:
            self._frontier = None

    def frontier(self, own: Author) -> bytes:
        """16 bytes: what others had written, up to what this device has seen."""
        if self._frontier is None:
            self._frontier = frontier_hash({a: head for a, head in self.chains.items() if a != own})
        return self._frontier

    def new_life(self) -> None:
        """This device has a new author; what was its own chain is now one of the others."""
        self._frontier = None

    # Record types -----------------------------------------------------------------------------------

    @property
    def schemas(self) -> dict[str, RecordSchema]:
        """By type, `_schema` among them."""
        return self.record_types.schemas

    @property
    def types(self) -> tuple[str, ...]:
        """The types apps use, without the one that carries schemas."""
        return self.record_types.names

    def schema(self, record_type: str) -> RecordSchema:
        """The type's schema. Raises UnknownType naming the types there are."""
        found = self.schemas.get(record_type)
        if found is not None:
            return found
        unreadable = self.record_types.unreadable.get(record_type)
        if unreadable is not None:
            raise UnknownType(
                f"record type {record_type!r} of space {self.name} needs a newer program:"
                f" this one cannot read version {unreadable} of its schema",
                hint="update crdt-sync on this device; its records are kept until then",
            )
        names = ", ".join(self.types) or "none yet"
        raise UnknownType(
            f"space {self.name} has no record type {record_type!r}",
            hint=f"its types are: {names}; sync, or ask an admin to add it",
        )
