"""The relay cannot be reached, or said no."""

from __future__ import annotations

from crdt_sync.errors.base import CrdtSyncError


class ConnectionFailed(CrdtSyncError):
    """The relay cannot be used now. Local work goes on; nothing was lost."""

    code = "connection"
    retryable = True


class RelayUnreachable(ConnectionFailed):
    code = "relay_unreachable"


class RelayBusy(RelayUnreachable):
    """The relay, or this device at it, has as many connections as it may; the device comes back by itself."""

    code = "too_many_connections"


class RelayRefused(ConnectionFailed):
    """The relay said no. `close_code` is the WebSocket close code, see `protocol.codes`."""

    code = "relay_refused"
    retryable = False

    def __init__(self, message: str, *, close_code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.close_code = close_code


class ShutOut(RelayRefused):
    """The relay's operator has shut this device out. It keeps everything and works on without the relay."""

    code = "revoked"


class SyncTimeout(ConnectionFailed):
    code = "sync_timeout"


class PortTaken(ConnectionFailed):
    code = "port_taken"
    retryable = False
