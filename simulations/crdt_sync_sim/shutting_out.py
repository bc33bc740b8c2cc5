"""An operator who shuts devices out of the relay and lets them in again.

The operator works on the running relay, as `crdt-sync relay revoke` does, and tries again while it is down or
its disk is full. Whoever is let in again is told so by the operator, outside of the product, and syncs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from crdt_sync.errors import CrdtSyncError, ShutOut
from crdt_sync.ids import DeviceId
from crdt_sync_sim.world import seconds

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode
    from crdt_sync_sim.site import Site

AGAIN_S: Final = 5.0
"""Between two tries of the operator."""
TOLD_S: Final = (0.5, 30.0, 120.0)
"""After being let in the owner syncs; again, should the relay's last no have been on its way."""


class ShuttingOut:
    """See the module."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._wanted: set[DeviceId] = set()
        self._waiting = False

    def shut_out(self, device: DeviceNode, for_us: int | None) -> None:
        """Shut a device out that runs and is a member, for so long or to the end of the story."""
        if not device.ready:
            return
        party = device.engine.device_id
        self._wanted.add(party)
        self._apply()
        if for_us is not None:
            self._site.world.after(for_us, lambda: self._let_in(party))

    def _let_in(self, party: DeviceId) -> None:
        if party in self._wanted:
            self._wanted.discard(party)
            self._apply()

    def end(self) -> None:
        """The story is over: let everybody in, also whom only an old copy of the relay had shut out."""
        self._wanted.clear()
        self._apply()
        self._tell()

    def _apply(self) -> None:
        relay, done = self._site.relay, True
        if relay.up and not relay.paused:
            for party in sorted(self._wanted ^ relay.shut_out):
                try:
                    relay.set_shut_out(party, out=party in self._wanted)
                except CrdtSyncError:
                    continue  # it is not there any more, or not again yet: the relay has lost something
                except Exception as exc:  # a disk without room
                    self._site.world.note("operator_failed", relay.name, type(exc).__name__)
                    done = False
            if done:
                self._tell()
        else:
            done = False
        if not done and not self._waiting:
            self._waiting = True
            self._site.world.after(seconds(AGAIN_S), self._again)

    def _again(self) -> None:
        self._waiting = False
        self._apply()

    def _tell(self) -> None:
        for after_s in TOLD_S:
            self._site.world.after(seconds(after_s), self._owners_sync)

    def _owners_sync(self) -> None:
        for device in self._refused():
            if device.engine.device_id not in self._wanted:
                device.sync.reconnect_now()

    def _refused(self) -> Iterator[DeviceNode]:
        for device in self._site.devices.values():
            if device.ready and isinstance(device.sync.problem, ShutOut):
                yield device
