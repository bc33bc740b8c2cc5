"""The device's side of one connection, as a state machine without I/O.

One connection serves one space. Bytes of whole WebSocket messages go in through `receive`, which returns
the frame they hold; the `send_*` and other methods return the bytes of one message to send. Between two
frames the machine is in one of these states:

    HEARING      connected, the relay's challenge has not come yet
    CHALLENGED   our turn: say hello, or create a space
    PROVING      hello was said, welcome has not come yet
    CREATING     a genesis was handed over, the answer has not come yet
    LIVE         both sides may send
    DONE         nothing more may be sent or received

What the relay may send in which state is a table: `device_states`. Beyond it the machine holds the
relay to its own words, so that a frame that is replayed, reordered or made up is refused before anything
of it is stored:

- delivery starts from the cursor of the hello or from 0;
- each delivery follows the one before: none is left out, swapped or doubled on the way;
- rows are delivered in strictly growing order, after the cursor and not beyond the new one;
- a cursor never goes back;
- acknowledgements of one chain never go back;
- an answer to an append, a snapshot, a fetch or a checkout comes only when one is open;
- an answer about checkouts is about the records that were asked for, in that order;
- what was fetched is of the records that were asked for, as far as it can be told without opening it.

A frame that breaks a rule raises MalformedFrame, FrameTooLarge or ProtocolViolation, the machine is then
DONE and nothing of the frame has been taken over. `close_code_for` says with which code to close.

The machine does not know what is inside envelopes, keeps no envelope, and does not decide what to send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.errors import CrdtSyncError, DamagedFrame, FrameTooLarge, ProtocolViolation, VersionMismatch
from crdt_sync.ids import DeviceId, Incarnation, InviteId, OpaqueId, RelayId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.deliveries import AwaitDelivery, Delivered, can_be
from crdt_sync.protocol.device_states import TRANSITIONS
from crdt_sync.protocol.device_states import State as State
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    CheckIn,
    CheckOut,
    CheckoutAnswer,
    CompactDecline,
    ConfirmSnapshot,
    Create,
    Deliver,
    DenySnapshot,
    Fetched,
    FetchRecords,
    Frame,
    FromRelay,
    GiveBack,
    Got,
    Hello,
    Mode,
    Push,
    PushSnapshot,
    Revive,
    SnapshotResult,
    Welcome,
    auth_message,
    decode_from_relay,
    encode,
    revive_message,
)
from crdt_sync.protocol.leases import Promised
from crdt_sync.protocol.limits import (
    DEFAULT_LIMITS,
    MAX_FRAME_BYTES,
    MAX_REASON_CHARS,
    PROTOCOL_VERSION,
    Limits,
)

NO_RELAY: Final = RelayId(bytes(16))
"""What `Hello.relay_id_seen` holds when this device has never met a relay for the space."""

NOTHING_ACKED: Final = ChainHead(0, bytes(32))
"""What `Hello` says of a chain of which no relay has acknowledged anything."""

ENVELOPE_OVERHEAD_BYTES: Final = 8
"""More than msgpack puts in front of one envelope (5 bytes)."""
FRAME_OVERHEAD_BYTES: Final = 64
"""More than the tag and the array lengths of a frame take."""


class DeviceSession:
    """One connection of a device to a relay. See the module for the rules."""

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES, version: int = PROTOCOL_VERSION) -> None:
        """`version` is the one this device speaks; tests and simulations pass another."""
        self.state = State.HEARING
        self.limits: Limits = DEFAULT_LIMITS
        self.relay_id: RelayId = NO_RELAY
        self.relay_now_ms = 0
        self.head = 0
        """The end of the relay's log as far as we were told."""
        self.cursor = 0
        """Everything up to here was delivered."""
        self._max_frame_bytes = max_frame_bytes
        self._version = version
        self._nonce = b""
        self._incarnation = 0
        self._asked = 0
        self._acked = 0
        self._appends = 0
        self._snapshots = 0
        self._fetching = 0
        """How many records were asked for."""
        self._checking: list[OpaqueId] = []
        """Records of the open question about checkouts."""
        self._awaited: list[list[int]] = []
        """Rows that were asked about, for each question that may still be answered."""

    # Receiving

    def receive(self, data: bytes) -> FromRelay:
        """The frame in one message. Raises MalformedFrame, FrameTooLarge or ProtocolViolation."""
        try:
            frame = decode_from_relay(data, max_bytes=self._max_frame_bytes)
            after = TRANSITIONS[self.state].get(type(frame))
            if after is None:
                raise ProtocolViolation(
                    f"the relay sent {type(frame).__name__} in state {self.state.name}, where it may not",
                    hint="the relay runs another version or is faulty; see docs/protocol.md",
                )
            self._check(frame)
        except CrdtSyncError:
            self.state = State.DONE
            raise
        self._take(frame)
        self.state = after
        return frame

    def _check(self, frame: FromRelay) -> None:
        """Raises ProtocolViolation when the frame contradicts what the relay said before."""
        match frame:
            case Challenge():
                _check_challenge(frame, self._version)
            case Deliver():
                self._check_rows(frame)
            case Welcome():
                if frame.cursor > frame.head:
                    raise ProtocolViolation("the relay wants to start delivery after the end of its log")
                if frame.cursor not in (0, self._asked):
                    raise ProtocolViolation(
                        f"the relay wants to start delivery from row {frame.cursor}, not {self._asked}"
                    )
            case Ack():
                if frame.incarnation == self._incarnation and frame.sequence < self._acked:
                    raise ProtocolViolation(
                        f"the relay acknowledged update {frame.sequence} after update {self._acked}"
                    )
            case Appended() | AppendRefused():
                if self._appends == 0:
                    raise ProtocolViolation("the relay answered an append that was not made")
            case SnapshotResult():
                if self._snapshots == 0:
                    raise ProtocolViolation("the relay answered a snapshot that was not sent")
            case Fetched():
                if not self._fetching or frame.whole > self._fetching:
                    raise ProtocolViolation("the relay sent records that were not asked for")
                if not frame.rows and not frame.whole:
                    raise ProtocolViolation("the relay answered a question about records with nothing")
            case CheckoutAnswer():
                if [result.record for result in frame.results] != self._checking or not self._checking:
                    raise ProtocolViolation("the relay answered about checkouts that were not asked for")
            case Delivered():
                if frame.rows not in self._awaited or not can_be(frame):
                    raise ProtocolViolation("the relay told how far others are, of rows not asked about")
            case _:
                pass

    def _check_rows(self, frame: Deliver) -> None:
        if frame.after != self.cursor:
            raise ProtocolViolation(
                f"the relay delivered what follows row {frame.after}; this device stands at {self.cursor}",
                hint="frames were lost or swapped on the way; the device connects again",
            )
        last = self.cursor
        for row in frame.rows:
            if row.sequence <= last:
                raise ProtocolViolation(f"the relay delivered row {row.sequence} after row {last}")
            last = row.sequence
        if frame.cursor < last:
            raise ProtocolViolation(f"the relay moved the cursor back from {last} to {frame.cursor}")

    def _take(self, frame: FromRelay) -> None:
        match frame:
            case Challenge():
                self._nonce = frame.nonce
                self.relay_id = frame.relay_id
                self.relay_now_ms = frame.now_ms
                self.limits = frame.limits
            case Welcome():
                self.head, self.cursor = frame.head, frame.cursor
                self._acked = frame.own_sequence
            case Deliver():
                self.cursor = frame.cursor
                self.head = max(self.head, frame.cursor)
            case Ack():
                if frame.incarnation == self._incarnation:
                    self._acked = frame.sequence
                self.head = max(self.head, frame.head)
            case Appended() | AppendRefused():
                self._appends -= 1
            case SnapshotResult():
                self._snapshots -= 1
            case Fetched():
                self._fetching = 0
            case CheckoutAnswer():
                self._checking = []
            case Delivered():
                del self._awaited[: self._awaited.index(frame.rows)]
            case _:
                pass

    # Sending

    def hello(
        self,
        *,
        space: SpaceId,
        device: DeviceId,
        incarnation: Incarnation,
        cursor: int,
        relay_seen: RelayId | None,
        sign: Callable[[bytes], bytes],
        agent: str,
        promised: int = 0,
        acked: ChainHead = NOTHING_ACKED,
    ) -> bytes:
        """Answer the challenge as a member; `sign` uses the device's key, `cursor` is of `relay_seen`.

        `promised` and `acked` are as in `Hello`.
        """
        self._incarnation = incarnation
        self._asked = cursor
        return self._hello(
            Mode.DEVICE, space, device, incarnation, cursor, relay_seen, sign, agent, promised, acked
        )

    def revive(
        self,
        *,
        space: SpaceId,
        device: DeviceId,
        entries: Sequence[bytes],
        sign: Callable[[bytes], bytes],
        agent: str,
    ) -> bytes:
        """Give the relay the membership log that it lost; answered by `Appended`, or it closes."""
        self._demand(State.CHALLENGED)
        self.state = State.CREATING
        self._appends = 1
        message = revive_message(
            nonce=self._nonce, relay_id=self.relay_id, space=space, party=device, entries=entries
        )
        return encode(
            Revive(
                version=self._version,
                space=space,
                party=device,
                entries=list(entries),
                agent=agent[:100],
                signature=sign(message),
            )
        )

    def hello_with_invite(
        self, *, space: SpaceId, invite: InviteId, sign: Callable[[bytes], bytes], agent: str
    ) -> bytes:
        """Answer the challenge as the bearer of an invite; `sign` uses the invite's key."""
        return self._hello(Mode.INVITE, space, invite, 0, 0, None, sign, agent)

    def _hello(
        self,
        mode: Mode,
        space: SpaceId,
        party: bytes,
        incarnation: int,
        cursor: int,
        relay_seen: RelayId | None,
        sign: Callable[[bytes], bytes],
        agent: str,
        promised: int = 0,
        acked: ChainHead = NOTHING_ACKED,
    ) -> bytes:
        self._demand(State.CHALLENGED)
        message = auth_message(
            nonce=self._nonce,
            relay_id=self.relay_id,
            space=space,
            party=party,
            incarnation=incarnation,
            mode=mode,
        )
        self.state = State.PROVING
        return encode(
            Hello(
                version=self._version,
                mode=mode,
                space=space,
                party=party,
                incarnation=Incarnation(incarnation),
                cursor=cursor,
                relay_id_seen=relay_seen or NO_RELAY,
                agent=agent[:100],
                signature=sign(message),
                promised=promised,
                acked_sequence=acked.sequence,
                acked_hash=acked.hash,
            )
        )

    def create_space(self, *, genesis: bytes, setup_token: str, agent: str) -> bytes:
        """Hand over the genesis entry of a new space; answered by `Appended`, or the connection is closed."""
        self._demand(State.CHALLENGED)
        self.state = State.CREATING
        self._appends = 1
        return encode(
            Create(version=self._version, genesis=genesis, setup_token=setup_token, agent=agent[:100])
        )

    def push(self, envelopes: Sequence[bytes]) -> bytes:
        """Updates in the order of their chain. They must fit `push_budget`."""
        return self._live(Push(list(envelopes)))

    @property
    def push_budget(self) -> tuple[int, int]:
        """How many envelopes and how many bytes of envelopes fit one `Push`, by the relay's limits."""
        count = self.limits.max_push_envelopes
        room = self.limits.max_frame_bytes - FRAME_OVERHEAD_BYTES - count * ENVELOPE_OVERHEAD_BYTES
        return count, max(room, 0)

    def got(self, cursor: int) -> bytes:
        """Everything up to `cursor` is durable here."""
        return self._live(Got(cursor))

    def append(self, entry: bytes) -> bytes:
        """An entry for the membership log; `Appended` or `AppendRefused` answers it."""
        message = self._live(Append(entry))
        self._appends += 1
        return message

    def push_snapshot(self, envelope: bytes) -> bytes:
        """A snapshot the relay asked for; `SnapshotResult` answers it."""
        message = self._live(PushSnapshot(envelope))
        self._snapshots += 1
        return message

    def give_back(self, envelope: bytes) -> bytes:
        """A snapshot of a record of which the relay lost something; `SnapshotResult` answers it."""
        message = self._live(GiveBack(envelope))
        self._snapshots += 1
        return message

    def judged(self, record: OpaqueId, snapshot: bytes, answer: str) -> bytes:
        """Whether the snapshot with that hash holds what it covers: `same`, `differs` or `unable`."""
        if answer == "same":
            return self._live(ConfirmSnapshot(record, snapshot))
        return self._live(DenySnapshot(record, snapshot, answer))

    def decline(self, records: Sequence[OpaqueId]) -> bytes:
        """These records cannot be compacted now."""
        return self._live(CompactDecline(list(records)))

    def fetch(self, records: Sequence[OpaqueId], after: int = 0) -> bytes:
        """Ask for all rows of these records, behind `after` of the first; `Fetched` answers it.

        One question at a time.
        """
        if self._fetching:
            raise RuntimeError("the answer to the last such question has not come yet")
        message = self._live(FetchRecords(list(records), after))
        self._fetching = len(records)
        return message

    @property
    def may_ask_checkouts(self) -> bool:
        """Whether `check_out` or `check_in` may be sent: one question at a time."""
        return not self._checking

    def check_out(
        self, records: Sequence[OpaqueId], ttl_ms: int, newest_token: int, held: Sequence[Promised] = ()
    ) -> bytes:
        """Ask to lend these records, or to lend them for longer; `CheckoutAnswer` answers it."""
        return self._ask_checkouts(CheckOut(list(records), ttl_ms, newest_token, list(held)))

    def check_in(self, records: Sequence[OpaqueId], *, breaks: bool = False) -> bytes:
        """Give these records back, or as an admin free them whoever has them; `CheckoutAnswer` answers it."""
        return self._ask_checkouts(CheckIn(list(records), breaks))

    def _ask_checkouts(self, frame: CheckOut | CheckIn) -> bytes:
        if self._checking:
            raise RuntimeError("the answer to the last question about checkouts has not come yet")
        message = self._live(frame)
        self._checking = list(frame.records)
        return message

    def await_delivery(self, rows: Sequence[int]) -> bytes:
        """Ask how many others have everything up to each of these rows, in growing order; at most 16."""
        message = self._live(AwaitDelivery(list(rows)))
        self._awaited.append(list(rows))
        return message

    def bye(self, code: CloseCode, error: str, reason: str) -> bytes:
        """Our last word; allowed in every state."""
        self.state = State.DONE
        return encode(Bye(code=int(code), error=error[:40], reason=reason[:MAX_REASON_CHARS]))

    def _live(self, frame: Frame) -> bytes:
        self._demand(State.LIVE)
        return encode(frame)

    def _demand(self, state: State) -> None:
        if self.state is not state:
            raise RuntimeError(f"this may be sent only when {state.name}, the session is {self.state.name}")


def close_code_for(error: CrdtSyncError) -> CloseCode:
    """The code with which a device closes after a frame or envelope it refuses."""
    if isinstance(error, FrameTooLarge):
        return CloseCode.TOO_LARGE
    if isinstance(error, VersionMismatch):
        return CloseCode.VERSION
    if isinstance(error, DamagedFrame):
        return CloseCode.DAMAGED
    return CloseCode.MALFORMED


def _check_challenge(frame: Challenge, version: int) -> None:
    if version not in frame.versions:
        spoken = ", ".join(str(version) for version in frame.versions)
        raise VersionMismatch(
            f"the relay speaks protocol version {spoken}, this device {version}",
            hint="update the older of the two; work on this device goes on and is sent afterwards",
        )
    limits = frame.limits
    smallest = min(
        limits.max_frame_bytes, limits.max_envelope_bytes, limits.max_push_envelopes, limits.window_bytes
    )
    if smallest < 1:
        raise ProtocolViolation("the relay names a limit below 1")
