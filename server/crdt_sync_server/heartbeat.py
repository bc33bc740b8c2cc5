"""When the relay takes a connection for dead: when nothing was heard for long, not when one answer is late.

The answer to a ping waits in line. On a slow network the relay's ping is behind megabytes of rows on their
way to the device, and by the time it is answered a connection at full speed would long have been closed. A
device sends heartbeats of its own, which come through meanwhile.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

PING_S: Final = 20.0
"""Time between the relay's pings."""
SILENCE_S: Final = 50.0
"""How long after a ping something must be heard: two heartbeats of a device, and some seconds."""


class HeartbeatProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, alive while anything comes in."""

    _heard_s = 0.0

    def data_received(self, data: bytes) -> None:
        self._heard_s = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        if self._heard_s < self.ping_sent_at or self.ping_timeout is None:
            super().keepalive_timeout()
            return
        # Its answer may still be on the way, and will be ignored: the next ping asks anew.
        self.pong_timer = None
        self.pending_ping_payload = None
        self.schedule_ping()
