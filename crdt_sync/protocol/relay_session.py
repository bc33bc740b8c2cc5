"""The relay's side of one connection, as a state machine without I/O.

Bytes of whole WebSocket messages go in through `receive`, which returns the frame they hold or raises. What
may come in which state is the table `_TRANSITIONS`; everything else is a ProtocolViolation. A frame that
raises has changed nothing but the state, which is CLOSED then: the caller sends `Bye` and closes.

    WAITING      the challenge is out, nobody has said who they are
    CHECKING     a hello or a genesis is being checked; the device has to wait
    DEVICE       a member of the space
    INVITE       the holder of an invite
    CREATED      a space was made; nothing more to do on this connection
    CLOSED       nothing more may come

The machine does not know keys, members or the log: `admitted` and `created` tell it what the relay's engine
found. It keeps the delivery window, since only it sees both what went out and what was confirmed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import IntEnum, auto
from typing import Final

from crdt_sync.errors import (
    BadMembership,
    BadSignature,
    CrdtSyncError,
    DamagedFrame,
    FrameTooLarge,
    InviteError,
    MalformedEnvelope,
    MalformedFrame,
    ProtocolViolation,
    ShutOut,
    UnknownMember,
    UnknownSpace,
    VersionMismatch,
)
from crdt_sync.ids import RelayId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.deliveries import AwaitDelivery, in_growing_order
from crdt_sync.protocol.frames import (
    Append,
    Bye,
    Challenge,
    CheckIn,
    CheckOut,
    CompactDecline,
    ConfirmSnapshot,
    Create,
    DenySnapshot,
    FetchRecords,
    Frame,
    FromDevice,
    GiveBack,
    Got,
    Hello,
    Mode,
    Push,
    PushSnapshot,
    Revive,
    decode_from_device,
)
from crdt_sync.protocol.limits import DEFAULT_LIMITS, MAX_REASON_CHARS, PROTOCOL_VERSION, Limits


class RelayState(IntEnum):
    WAITING = auto()
    CHECKING = auto()
    DEVICE = auto()
    INVITE = auto()
    CREATED = auto()
    CLOSED = auto()


_TRANSITIONS: Final[Mapping[RelayState, Mapping[type[Frame], RelayState]]] = {
    RelayState.WAITING: {
        Hello: RelayState.CHECKING,
        Create: RelayState.CHECKING,
        Revive: RelayState.CHECKING,
        Bye: RelayState.CLOSED,
    },
    RelayState.CHECKING: {Bye: RelayState.CLOSED},
    RelayState.DEVICE: {
        Got: RelayState.DEVICE,
        Push: RelayState.DEVICE,
        Append: RelayState.DEVICE,
        PushSnapshot: RelayState.DEVICE,
        CompactDecline: RelayState.DEVICE,
        GiveBack: RelayState.DEVICE,
        ConfirmSnapshot: RelayState.DEVICE,
        DenySnapshot: RelayState.DEVICE,
        FetchRecords: RelayState.DEVICE,
        CheckOut: RelayState.DEVICE,
        CheckIn: RelayState.DEVICE,
        AwaitDelivery: RelayState.DEVICE,
        Bye: RelayState.CLOSED,
    },
    RelayState.INVITE: {
        Got: RelayState.INVITE,
        Append: RelayState.INVITE,
        Bye: RelayState.CLOSED,
    },
    RelayState.CREATED: {Bye: RelayState.CLOSED},
    RelayState.CLOSED: {},
}


class RelaySession:
    """One connection as the relay sees it. `nonce` is 32 fresh random bytes."""

    __slots__ = (
        "_checking", "_confirmed", "_delivered", "_fetching", "_unconfirmed", "_unconfirmed_bytes",
        "limits", "nonce", "state",
    )  # fmt: skip

    def __init__(self, nonce: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
        self.state = RelayState.WAITING
        self.nonce = nonce
        self.limits = limits
        self._confirmed = 0
        self._delivered = 0
        self._unconfirmed: deque[tuple[int, int]] = deque()
        self._unconfirmed_bytes = 0
        self._fetching = False
        self._checking = False
        """A question about checkouts is open."""

    def challenge(self, relay_id: RelayId, now_ms: int) -> Challenge:
        """The frame that opens the connection."""
        return Challenge((PROTOCOL_VERSION,), relay_id, self.nonce, now_ms, self.limits)

    def receive(self, data: bytes) -> FromDevice:
        """The frame in one message. Raises MalformedFrame, FrameTooLarge or ProtocolViolation."""
        try:
            frame = decode_from_device(data, max_bytes=self.limits.max_frame_bytes)
            after = _TRANSITIONS[self.state].get(type(frame))
            if after is None:
                raise ProtocolViolation(
                    f"a {type(frame).__name__} frame may not be sent in state {self.state.name.lower()}",
                    hint="see the table of states in docs/protocol.md",
                )
            self._check(frame)
        except CrdtSyncError:
            self.state = RelayState.CLOSED
            raise
        match frame:
            case Got():
                self._confirm(frame.cursor)
            case FetchRecords():
                self._fetching = True
            case CheckOut() | CheckIn():
                self._checking = True
            case _:
                pass
        self.state = after
        return frame

    def _check(self, frame: FromDevice) -> None:
        """Raises before anything is taken over."""
        match frame:
            case Push():
                most = self.limits.max_push_envelopes
                if len(frame.envelopes) > most:
                    raise FrameTooLarge(f"{len(frame.envelopes)} envelopes in one push, the limit is {most}")
            case Got():
                least, most = self._confirmed, self._delivered
                if not least <= frame.cursor <= most:
                    raise ProtocolViolation(
                        f"row {frame.cursor} was confirmed; only {least} to {most} can be"
                    )
            case Hello() | Create() | Revive():
                _check_version(frame.version)
                if isinstance(frame, Hello) and (frame.incarnation > 0) != (frame.mode is Mode.DEVICE):
                    raise ProtocolViolation("a device has an incarnation from 1 on, an invite has 0")
            case FetchRecords() if self._fetching:
                raise ProtocolViolation("records were asked for before the answer to the last such question")
            case CheckOut() | CheckIn() if self._checking:
                raise ProtocolViolation(
                    "records were checked out or in before the answer to the last of that"
                )
            case AwaitDelivery() if not in_growing_order(frame.rows):
                raise ProtocolViolation("rows are asked about in growing order, each once")
            case _:
                pass

    def admitted(self, mode: Mode, cursor: int) -> None:
        """The hello was good; delivery starts after `cursor`."""
        self._expect(RelayState.CHECKING)
        self.state = RelayState.DEVICE if mode is Mode.DEVICE else RelayState.INVITE
        self._confirmed = self._delivered = cursor

    def created(self) -> None:
        """The genesis was stored."""
        self._expect(RelayState.CHECKING)
        self.state = RelayState.CREATED

    def close(self) -> None:
        """Nothing more may come."""
        self.state = RelayState.CLOSED

    def _expect(self, state: RelayState) -> None:
        if self.state is not state:
            raise RuntimeError(f"the session is {self.state.name.lower()}, not {state.name.lower()}")

    @property
    def open(self) -> bool:
        """Whether rows may be delivered."""
        return self.state is RelayState.DEVICE or self.state is RelayState.INVITE

    @property
    def confirmed(self) -> int:
        """Everything up to here is durable on the device."""
        return self._confirmed

    @property
    def window_open(self) -> bool:
        """Whether less is unconfirmed than the window holds."""
        return self._unconfirmed_bytes < self.limits.window_bytes

    def delivered(self, cursor: int, size_bytes: int) -> None:
        """A `Deliver` up to `cursor` goes out."""
        self._delivered = cursor
        self._unconfirmed_bytes += size_bytes
        last = self._unconfirmed[-1] if self._unconfirmed else None
        # Many small live frames share an entry, so that what is kept here is bounded by the window, not by
        # the number of frames in it.
        if last is not None and last[1] + size_bytes <= self.limits.window_bytes // 64:
            self._unconfirmed[-1] = (cursor, last[1] + size_bytes)
        else:
            self._unconfirmed.append((cursor, size_bytes))

    def fetch_answered(self) -> None:
        """A `Fetched` goes out: the next may be asked for."""
        self._fetching = False

    def checkout_answered(self) -> None:
        """A `CheckoutAnswer` goes out: the next question may come."""
        self._checking = False

    def _confirm(self, cursor: int) -> None:
        self._confirmed = cursor
        while self._unconfirmed and self._unconfirmed[0][0] <= cursor:
            self._unconfirmed_bytes -= self._unconfirmed.popleft()[1]


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise VersionMismatch(
            f"this relay speaks version {PROTOCOL_VERSION} of the protocol, not {version}",
            hint="update crdt-sync on the older of the two machines",
        )


_CLOSE_CODES: Final[tuple[tuple[type[CrdtSyncError], CloseCode], ...]] = (
    (VersionMismatch, CloseCode.VERSION),
    (FrameTooLarge, CloseCode.TOO_LARGE),
    (DamagedFrame, CloseCode.DAMAGED),
    (MalformedFrame, CloseCode.MALFORMED),
    (MalformedEnvelope, CloseCode.MALFORMED),
    (ProtocolViolation, CloseCode.MALFORMED),
    (BadMembership, CloseCode.MALFORMED),
    (BadSignature, CloseCode.UNAUTHENTICATED),
    (UnknownMember, CloseCode.UNAUTHENTICATED),
    (UnknownSpace, CloseCode.UNKNOWN_SPACE),
    (InviteError, CloseCode.FORBIDDEN),
    (ShutOut, CloseCode.FORBIDDEN),
)


def close_code_of(error: CrdtSyncError) -> CloseCode:
    """With which code a connection is closed that failed with `error`."""
    for family, code in _CLOSE_CODES:
        if isinstance(error, family):
            return code
    return CloseCode.INTERNAL


def bye_of(error: CrdtSyncError) -> Bye:
    """The last word to a device whose connection failed with `error`."""
    return Bye(close_code_of(error), error.code, error.message[:MAX_REASON_CHARS])
