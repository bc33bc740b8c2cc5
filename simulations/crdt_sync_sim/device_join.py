"""A device enters the space with an invite, over the network.

What to send, what an answer means and what to do when a connection breaks in the middle is decided by the
product's `Joining` and the drivers it gives; here they get connections, a store that takes its time, and a
clock. When one `Joining` gives up, a person tries again with the same link: make another `DeviceJoin`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from crdt_sync.errors import CrdtSyncError, RelayUnreachable
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync_client.connection_driver import ConnectionDriver
from crdt_sync_client.join_driver import Joining
from crdt_sync_client.session_driver import SessionDriver
from crdt_sync_client.session_steps import Step
from crdt_sync_sim.device_line import AGENT, DeviceLine, Dialling, demand_sound
from crdt_sync_sim.network import Endpoint

if TYPE_CHECKING:
    from crdt_sync_sim.device_node import DeviceNode


class DeviceJoin:
    """One try. `over` hears how it ended: None when the device is in; nothing when its process dies."""

    def __init__(self, device: DeviceNode, link: str, over: Callable[[CrdtSyncError | None], object]) -> None:
        self._device = device
        self._over = over
        self._joining = Joining(device.engine, link)
        self._next()

    def _next(self) -> None:
        """The next connection."""
        device = self._device
        driver = self._joining.next_driver(
            protocol=DeviceSession(version=device.speaks), clock=lambda: device.world.now_s, agent=AGENT
        )
        Dialling(
            device,
            driver.timeout_s,
            opened=partial(self._opened, driver),
            failed=partial(self._unreachable, driver),
        )

    def _opened(self, driver: ConnectionDriver, end: Endpoint, late_us: int) -> None:
        line = DeviceLine(
            self._device,
            driver,
            end,
            late_us,
            ran=self._note,
            looked=lambda: self._looked(driver, line),
            over=partial(self._ended, driver),
        )

    def _unreachable(self, driver: ConnectionDriver, error: RelayUnreachable) -> None:
        driver.end(error)
        self._ended(driver)

    def _note(self, step: Step) -> None:
        self._device.world.note("join_step", self._device.name, type(step).__name__)

    def _looked(self, driver: ConnectionDriver, line: DeviceLine) -> None:
        if isinstance(driver, SessionDriver) and driver.welcomed:
            driver.end()  # it was only to ask whether we are in
            line.look()

    def _ended(self, driver: ConnectionDriver) -> None:
        joining = self._joining
        try:
            joining.ended(driver)
        except Exception as exc:
            demand_sound(exc)
            joining.error = exc
        if joining.joined:
            self._device.entered(joining.space)
            self._over(None)
        elif joining.error is not None:
            self._over(_as_failure(joining.error))
        else:
            self._device.world.note("join_asks", self._device.name)
            self._next()


def _as_failure(error: Exception) -> CrdtSyncError:
    if isinstance(error, CrdtSyncError):
        return error
    return RelayUnreachable(f"joining failed: {type(error).__name__}")
