"""What the relay promised of checkouts, seen from outside: who has which record, and the tokens it gave.

A relay that loses what it knew may lend a record that a device believes to have: then the greater token is
right, so only tokens are compared across such a loss, and holders within one memory of the relay.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sync.ids import DeviceId, OpaqueId
from crdt_sync.protocol.frames import CheckoutAnswer, CheckoutResult
from crdt_sync.protocol.leases import Lease
from crdt_sync_server.effects import Effect, Send


class LeaseLedger:
    """See the module. `saw` is told everything that the relay has committed."""

    def __init__(self) -> None:
        self.granted = 0
        self.refused = 0
        self.broken: list[str] = []
        """What must not be, in words."""
        self._holders: dict[OpaqueId, Lease] = {}
        self._newest_token = 0

    def saw(self, effects: Sequence[Effect], now_ms: int) -> None:
        """`now_ms` is the relay's clock when it decided."""
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.frame, CheckoutAnswer):
                assert effect.peer.author is not None
                for result in effect.frame.results:
                    self._result(result, effect.peer.author.device, now_ms)

    def relay_lost_memory(self) -> None:
        """It begins with nothing, or with an older copy of its memory."""
        self._holders.clear()

    def _result(self, result: CheckoutResult, device: DeviceId, now_ms: int) -> None:
        lease, holder = result.lease, self._holders.get(result.record)
        name = result.record.hex()[:8]
        if result.code in ("granted", "renewed"):
            assert lease is not None
            self.granted += 1
            if holder is not None and holder.device != device and holder.held(now_ms):
                self.broken.append(f"record {name} was lent to a second device while a first had it")
            if result.code == "granted" and lease.token <= self._newest_token:
                self.broken.append(f"token {lease.token} came after token {self._newest_token}")
            if result.code == "renewed" and holder is not None and lease.token != holder.token:
                self.broken.append(f"renewing record {name} changed its token")
            self._newest_token = max(self._newest_token, lease.token)
            self._holders[result.record] = lease
        elif result.code in ("returned", "broken"):
            self._holders.pop(result.record, None)
        else:
            self.refused += 1
