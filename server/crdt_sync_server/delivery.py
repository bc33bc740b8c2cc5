"""One connection as a state machine without I/O: what comes in, and what is to be sent next.

The session decides which frames may come. What goes out is decided in `next`: first what the engine
answered, then the last word if the end is decided, then rows of the log from the connection's cursor, as far
as the window allows. Rows come from the ring in memory, or, when the cursor is behind it or the peer
holds an invite only, from the storage: then `next` asks for a page and has nothing more to say until it
is there. Anything may happen in between: the log grows, the ring moves on, the end is decided.

A shell owns the socket. It calls `next` until there is nothing, and again after each `wake`. It reads from
the socket while there is `room`: the device waits then, by TCP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from crdt_sync.errors import CrdtSyncError, MalformedFrame
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Bye,
    CheckoutAnswer,
    Deliver,
    Fetched,
    Frame,
    FromDevice,
    Got,
    Mode,
    Welcome,
    encode,
)
from crdt_sync.protocol.relay_session import RelaySession, RelayState, bye_of
from crdt_sync.rare import rare
from crdt_sync_server.effects import Peer
from crdt_sync_server.live import FIRST_FRAME_BYTES, FRAME_BYTES, FRAME_ROWS, LiveLog
from crdt_sync_server.storage.port import Page

BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""What one connection may have waiting for a commit before it is not read from any more."""
MAX_ANSWERS: Final = 256
"""Answers waiting to be sent; a device that pushes without reading is not read from either."""
SILENT_ROWS: Final = 512
"""While a device is busy pushing, so many of its own rows pass before it is told that its cursor moved.

At rest it is told at once: only then can it know that it has everything and say so to its user.
"""


class ReadPage(NamedTuple):
    """Read rows behind `after` from the storage and hand them to `page_read`."""

    after: int
    max_rows: int
    max_bytes: int


class Delivery:
    """See the module. `wake` is called when `next` or `room` may say something else than before."""

    __slots__ = (
        "_answers", "_backlog_bytes", "_bye", "_fetched", "_frame_bytes", "_live", "_reading", "_told",
        "_told_caught_up", "cursor", "peer", "session", "wake",
    )  # fmt: skip

    def __init__(self, session: RelaySession, peer: Peer, wake: Callable[[], None]) -> None:
        self.session = session
        self.peer = peer
        self.wake = wake
        self.cursor = 0
        self._answers: deque[bytes] = deque()
        self._fetched: bytes | None = None
        """Records that were asked for. There is one such answer at a time, so it needs no queue."""
        self._bye: Bye | None = None
        self._live: LiveLog[Delivery] | None = None
        self._backlog_bytes = 0
        self._reading = False
        self._frame_bytes = FIRST_FRAME_BYTES
        """How much the next frame of rows may hold."""
        self._told = 0
        """The cursor that the device knows of; ours is ahead of it while own rows pass in silence."""
        self._told_caught_up = False

    # What is known of it

    @property
    def closing(self) -> bool:
        """Whether the end of this connection is decided."""
        return self._bye is not None

    @property
    def synced(self) -> bool:
        """Whether the device was told at least once that it has everything."""
        return self._told_caught_up

    @property
    def lag(self) -> int:
        """Rows of the log that were not delivered yet."""
        return 0 if self._live is None else max(0, self._live.head - self.cursor)

    @property
    def room(self) -> bool:
        """Whether more may be read from this connection."""
        return self._backlog_bytes < BACKLOG_BYTES and len(self._answers) < MAX_ANSWERS

    # What comes in

    def received(self, data: bytes | None) -> FromDevice | None:
        """The frame in a message; None is a text message. What may not come closes the connection.

        Gives None when there is nothing to do about it any more.
        """
        if self._bye is not None:
            return None  # the close is on its way
        try:
            if data is None:
                raise MalformedFrame("a text message; frames are binary")
            frame = self.session.receive(data)
        except CrdtSyncError as exc:
            self.close(bye_of(exc))
            return None
        if isinstance(frame, Bye):
            self.close(Bye(CloseCode.NORMAL, "bye", ""))
            return None
        if isinstance(frame, Got):
            self.peer.confirmed = frame.cursor
            self.wake()  # it may have opened the window
        return frame

    def overdue(self, timeout_s: float) -> None:
        """The time for saying who one is has passed: close, if that has not happened."""
        if self.session.state in (RelayState.WAITING, RelayState.CHECKING):
            reason = f"nobody said who they are within {timeout_s:g} seconds"
            self.close(Bye(CloseCode.HANDSHAKE_TIMEOUT, "handshake_timeout", reason))

    # What the switchboard says, besides `wake` when the log has grown

    def answer(self, frame: Frame) -> None:
        """Send this frame soon."""
        if isinstance(frame, Fetched):
            self._fetched = encode(frame)
        else:
            if isinstance(frame, CheckoutAnswer):
                self.session.checkout_answered()
            self._answers.append(encode(frame))
        self.wake()

    def admitted(self, mode: Mode, welcome: Welcome, live: LiveLog[Delivery]) -> None:
        """The device is who it says; deliver rows to it from now on."""
        self.session.admitted(mode, welcome.cursor)
        self.cursor = self._told = welcome.cursor
        self._live = live
        live.readers[self] = None
        self.answer(welcome)

    def close(self, bye: Bye) -> None:
        """Send what is waiting, then this, then close."""
        self.session.close()
        if self._bye is None:
            self._bye = bye
        self.peer.caught_up = False
        self.wake()

    def waits(self, size_bytes: int) -> None:
        """That much of what came from here waits for a commit."""
        self._backlog_bytes += size_bytes

    def committed(self, size_bytes: int) -> None:
        """That much of it is not waiting any more."""
        had_room = self.room
        self._backlog_bytes -= size_bytes
        # At rest now, perhaps: a push that brought nothing new makes no row that would tell it.
        if not had_room or self._may_deliver():
            self.wake()

    def ended(self) -> None:
        """The connection is gone."""
        self.peer.caught_up = False
        if self._live is not None:
            self.peer.cursor, self.peer.synced = self.peer.confirmed, self._told_caught_up
        if self._live is not None:
            self._live.readers.pop(self, None)

    # What goes out

    def next(self) -> bytes | ReadPage | Bye | None:
        """What to do now: send these bytes, read a page, or send the last word and close; or nothing."""
        if self._reading:
            return None
        if self._answers:
            return self._answers.popleft()
        if self._bye is not None:
            return self._bye
        if self._fetched is not None:
            data, self._fetched = self._fetched, None
            self.session.fetch_answered()
            return data
        while self._may_deliver():
            live, author = self._live, self.peer.author
            assert live is not None
            if author is None or self.cursor < max(live.start, self.peer.echo_until):
                self._reading = True
                return ReadPage(self.cursor, FRAME_ROWS, self._frame_bytes)
            frame = live.next_frame(self.cursor, author, self._told, self._frame_bytes)
            self.cursor = frame.cursor
            self.peer.caught_up = True
            at_end = self.cursor == live.head
            if frame.data:
                return self._delivering(frame.data, at_end)
            busy = self._backlog_bytes > 0 or not at_end
            silent = self._told_caught_up and busy and self.cursor - self._told < SILENT_ROWS
            if not silent or rare("own_rows_told"):
                return self._delivering(encode(Deliver(self._told, [], self.cursor, at_end)), at_end)
        return None

    def page_read(self, page: Page) -> bytes:
        """Take the page that was asked for. Gives what to send for it, empty if there is nothing to tell."""
        self._reading = False
        live = self._live
        assert live is not None
        if self._bye is not None:
            return b""
        moved, self.cursor = page.cursor > self.cursor, page.cursor
        at_end = page.at_end and page.cursor >= live.head
        self.peer.caught_up = at_end and self.peer.author is not None
        if not page.rows and not moved and not (at_end and not self._told_caught_up):
            return b""
        return self._delivering(encode(Deliver(self._told, page.rows, page.cursor, at_end)), at_end)

    def page_failed(self, error: CrdtSyncError) -> None:
        """The page cannot be read."""
        self._reading = False
        self.close(bye_of(error))

    def _may_deliver(self) -> bool:
        if self._live is None or not self.session.window_open:
            return False
        if self.cursor > self._live.head:
            return False  # a page may be ahead of what was spread; the log will grow past it at once
        untold = self._told < self.cursor and not self._backlog_bytes
        return self.cursor < self._live.head or not self._told_caught_up or untold

    def _delivering(self, data: bytes, caught_up: bool) -> bytes:
        self._told = self.cursor
        self._told_caught_up = self._told_caught_up or caught_up
        self._frame_bytes = min(2 * self._frame_bytes, FRAME_BYTES)
        self.session.delivered(self.cursor, len(data))
        return data
