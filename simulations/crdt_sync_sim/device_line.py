"""One connection of a device: what the product's driver decides, moved by events of virtual time.

The driver's bytes go over the simulated network, its steps are run when the store has time, and its end
closes the connection. `DeviceSync` and `DeviceJoin` say what comes before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import apsw

from crdt_sync.errors import InviteError, RelayUnreachable, RemoteError
from crdt_sync_client.connection_driver import ConnectionDriver
from crdt_sync_client.endings import late_handshake
from crdt_sync_client.session_steps import Step
from crdt_sync_sim.network import Endpoint
from crdt_sync_sim.scenario import RELAY
from crdt_sync_sim.world import seconds

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode

AGENT: Final = "crdt-sync-sim"
DISK_FAULTS: Final = (apsw.FullError, apsw.IOError, apsw.ConnectionClosedError)
"""What a disk does to a healthy program, and what one hears that goes on after its power was cut."""
STORE_US: Final = (100, 2_000)
"""How long a step waits while the store's thread is busy."""


class Dialling:
    """The wish for a connection to the relay, until there is one or will be none. Costs nothing but time."""

    def __init__(
        self,
        device: DeviceNode,
        timeout_s: float,
        *,
        opened: Callable[[Endpoint, int], object],
        failed: Callable[[RelayUnreachable], object],
    ) -> None:
        """Exactly one of them is called, unless the process dies.

        `opened` gets the moment, in microseconds, at which `timeout_s` have passed since the wish.
        """
        self._device = device
        self._opened, self._failed = opened, failed
        self._life = device.life
        self._over = False
        # The network does not know about lives: whoever connects again in another one is somebody else.
        self._opening = device.network.connect(
            device.name,
            RELAY,
            partial(device.now, self._connected),
            partial(device.now, self._unreachable),
        )
        self._late_us = device.world.now_us + seconds(timeout_s)
        self._timeout = device.later(seconds(timeout_s), self._fail, late_handshake())

    def _connected(self, end: Endpoint) -> None:
        device = self._device
        if self._over or self._life != device.life:
            end.close()
            return
        self._over = True
        self._timeout.cancel()
        device.adopt(end)
        self._opened(end, self._late_us)

    def _unreachable(self, why: str) -> None:
        if self._life == self._device.life:
            self._fail(RelayUnreachable(f"the relay cannot be reached: {why}"))

    def _fail(self, error: RelayUnreachable) -> None:
        if not self._over:
            self._over = True
            self._opening.cancel()
            self._timeout.cancel()
            self._failed(error)


class DeviceLine:
    """See the module. Serves a connection from the moment that it is open."""

    def __init__(
        self,
        device: DeviceNode,
        driver: ConnectionDriver,
        end: Endpoint,
        late_us: int,
        *,
        ran: Callable[[Step], object],
        looked: Callable[[], object],
        over: Callable[[], object],
    ) -> None:
        """`end` and `late_us` are what `Dialling` gave.

        `ran` is told of each step that was run, before the driver is; `looked` after each event in the
        connection's life; `over` once it has ended and is closed. None of them when the process dies.
        """
        self._device = device
        self._driver = driver
        self._end = end
        self._ran, self._looked, self._over = ran, looked, over
        self._storage = device.world.streams["storage"]
        self._storing = False
        self._closed = False
        end.on_message = partial(device.now, self._received)
        end.on_close = partial(device.now, self._lost)
        self._timeout = device.later(late_us - device.world.now_us, self._late)

    def look(self) -> None:
        """Something happened: do what the driver wants now."""
        driver = self._driver
        if self._closed:
            return
        while driver.outgoing:
            self._end.send(driver.outgoing.popleft())
        if driver.ended:
            self._close()
            return
        if driver.has_work and not self._storing:
            self._storing = True
            self._device.later(self._storage.between(STORE_US), self._store)
        self._looked()

    def do(self, step: Step) -> None:
        """Run a step, in no time."""
        if step.needs_store:
            step.run()
            demand_sound(step.error)
            self._ran(step)
        self._driver.done(step)
        self.look()

    def _store(self) -> None:
        self._storing = False
        step = None if self._closed else self._driver.next_step()
        if step is not None:
            self.do(step)

    # The connection

    def _received(self, data: bytes) -> None:
        if not self._closed:
            self._driver.received_bytes(data)
            self.look()

    def _lost(self, code: int) -> None:
        self._driver.closed(code)
        self.look()

    def _late(self) -> None:
        if not self._closed:
            self._driver.late()
            self.look()

    def _close(self) -> None:
        self._closed = True
        driver, end = self._driver, self._end
        code, error, message = driver.last_word
        if isinstance(driver.error, RemoteError):
            end.send(driver.protocol.bye(code, error, message))
        end.close(code)
        self._device.release(end)
        self._timeout.cancel()
        over = self._over
        # Whoever waits for these has this line too: together they would stay until the collector came by.
        del self._ran, self._looked, self._over
        over()


def demand_sound(error: Exception | None) -> None:
    """Raise what only a faulty program meets; pass over a peer's, an invite's or a disk's fault."""
    if error is not None and not isinstance(error, RemoteError | InviteError) and not device_is_sound(error):
        raise error


def device_is_sound(error: Exception) -> bool:
    """Whether an error is one that a healthy program meets: the disk's own, and none of ours."""
    return isinstance(error, DISK_FAULTS) or "Full" in type(error).__name__
