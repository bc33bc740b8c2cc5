"""What every connection of a device has in common, without I/O: frames in, bytes out, one end.

A shell (asyncio, or virtual time in the simulator) only moves things about:

- a frame that came goes into `arrived`;
- what waits in `outgoing` is sent, oldest first;
- while `next_step` gives a step, its `run` is called where the store lives, and the step is handed back to
  `done`; one may be at work at a time;
- once `ended`, the connection is closed with `last_word`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from crdt_sync.errors import RemoteError
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.device_session import DeviceSession, State, close_code_for
from crdt_sync.protocol.frames import FromRelay

from .endings import refusal
from .session_steps import Step


class ConnectionDriver(ABC):
    """See the module. Lives in one thread; only the steps' `run` belongs to the engine's."""

    timeout_s: float
    """From the wish to connect until `late` is to be called."""

    def __init__(self, *, protocol: DeviceSession, url: str) -> None:
        self.protocol = protocol
        self.url = url
        self.outgoing: deque[bytes] = deque()
        self.parting: bytes | None = None
        """To be sent before the last word, once `ended`."""
        self.ended = False
        self.error: Exception | None = None
        """Why the connection ended; None when it did not, or it was ours to end."""
        self.last_word: tuple[CloseCode, str, str] = (CloseCode.NORMAL, "", "")
        """With what to close: a code, the code of an error, its message."""

    @property
    def can_send(self) -> bool:
        """After the relay's last word nothing can be sent, though the session has not ended quite yet."""
        return not self.ended and self.protocol.state is State.LIVE

    @property
    @abstractmethod
    def has_work(self) -> bool:
        """Whether `next_step` has something, now or when the step at work is done."""

    @abstractmethod
    def arrived(self, frame: FromRelay, size_bytes: int) -> None:
        """The protocol let this frame through; its message had that many bytes."""

    @abstractmethod
    def next_step(self) -> Step | None:
        """The next thing for the store to do; None when there is nothing, or one is at work."""

    @abstractmethod
    def done(self, step: Step) -> None:
        """A step was run; also when the connection has ended meanwhile."""

    @abstractmethod
    def late(self) -> None:
        """`timeout_s` have passed since the wish to connect."""

    def received_bytes(self, data: bytes) -> None:
        """`arrived`, for a shell that has the message and not yet the frame."""
        try:
            frame = self.protocol.receive(data)
        except RemoteError as exc:
            self.end(exc)
        else:
            self.arrived(frame, len(data))

    def closed(self, code: int, reason: str = "") -> None:
        """The connection is gone, with this close code (1006 for none)."""
        self.end(refusal(code, "", reason, self.url))

    def end(self, error: Exception | None = None) -> None:
        """It is over. The first reason given is the one that counts."""
        if self.ended:
            return
        self.ended = True
        self.error = error
        if isinstance(error, RemoteError):
            self.last_word = close_code_for(error), error.code, error.message
