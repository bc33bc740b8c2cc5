"""People who let devices into the space in the middle of a story: an admin invites, the newcomer joins.

Invite and join go over the network, with everything that is wrong with it then. The link itself goes from
one person to the other outside of it, by telephone say. Both try again, as people do, for as long as it
takes: when no admin is connected, when the invite was not taken, when joining did not work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from crdt_sync.errors import CrdtSyncError, InviteError, RelayRefused
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import Appended, AppendRefused
from crdt_sync.roles import Role
from crdt_sync_sim.device_join import DeviceJoin
from crdt_sync_sim.device_node import DeviceNode
from crdt_sync_sim.node import Node
from crdt_sync_sim.plan import everyone
from crdt_sync_sim.world import World, seconds

if TYPE_CHECKING:
    from crdt_sync_sim.run import Simulation

ASK_AGAIN_US: Final = seconds(10)
"""When no admin could invite just now."""
TRY_AGAIN_US: Final = seconds(30)
"""When joining did not work."""
INVITE_MS: Final = 7 * 86_400_000


class Joins:
    """See the module."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._world = sim.world
        self._roles: dict[str, Role] = everyone(sim.scenario, sim.events)
        self._hosts: dict[str, DeviceNode | None] = {}
        """Who is to invite them, where that is said."""
        self._problems: dict[str, CrdtSyncError] = {}

    def problem(self, device: DeviceNode) -> CrdtSyncError | None:
        """Why its last try to join failed."""
        return self._problems.get(device.name)

    def want(self, device: DeviceNode, role: Role | None, by: DeviceNode | None = None) -> None:
        """Its owner wants to be in the space, in that role or the one it had before; `by` is to invite it."""
        if device.in_use:
            return
        self._hosts[device.name] = by
        self._roles[device.name] = role or self._roles[device.name]
        device.joining = True
        if not device.up:
            device.start()
        self._invite(device)

    def _later(self, delay_us: int, device: DeviceNode, link: str | None = None) -> None:
        """Try again, with the same link if there is one. People do not die with a process."""
        action = (lambda: self._invite(device)) if link is None else (lambda: self._join(device, link))
        self._world.after(delay_us, action)

    # The admin

    def _invite(self, device: DeviceNode) -> None:
        role, host = self._roles[device.name], self._hosts.get(device.name)
        for admin in [host] if host is not None and host.member else self._sim.members:
            if self._roles[admin.name] is Role.ADMIN and admin.ready and admin.sync.idle:
                break
        else:
            self._later(ASK_AGAIN_US, device)
            return
        entry, link = admin.engine.make_invite(admin.space, role, admin.sync.relay_now_ms + INVITE_MS)

        def invited(frame: Appended | AppendRefused | None) -> None:
            if not attempt.over():
                return
            self._world.note("invited", admin.name, f"{device.name} {type(frame).__name__}")
            if isinstance(frame, Appended):
                self._join(device, link)
            else:
                self._later(ASK_AGAIN_US, device)

        attempt = _Attempt(self._world, admin, lambda: self._invite(device))
        admin.sync.append(entry, invited)

    # The newcomer

    def _join(self, device: DeviceNode, link: str) -> None:
        if not device.open:
            self._later(TRY_AGAIN_US, device, link)
            return

        def joined(error: CrdtSyncError | None) -> None:
            if not attempt.over():
                return
            if error is None:
                self._problems.pop(device.name, None)
                return
            self._world.note("join_failed", device.name, error.code)
            self._problems[device.name] = error
            self._later(TRY_AGAIN_US, device, None if _wants_another_invite(error) else link)

        attempt = _Attempt(self._world, device, lambda: self._join(device, link))
        DeviceJoin(device, link, joined)


def _wants_another_invite(error: CrdtSyncError) -> bool:
    """What the message says: the relay may have lost the invite, and nobody be there who has it."""
    unknown = isinstance(error, RelayRefused) and error.close_code == CloseCode.UNAUTHENTICATED
    return unknown or isinstance(error, InviteError)


class _Attempt:
    """Something that a process was asked to do, and may never answer because it died."""

    def __init__(self, world: World, node: Node, again: Callable[[], object]) -> None:
        self._world = world
        self._node = node
        self._life = node.life
        self._again = again
        self._over = False
        self._watch()

    def over(self) -> bool:
        """There is an answer; False when it is too late and another attempt is made."""
        first, self._over = not self._over, True
        return first

    def _watch(self) -> None:
        self._world.after(TRY_AGAIN_US, self._look)

    def _look(self) -> None:
        if self._over:
            return
        if self._life == self._node.life:
            self._watch()
        else:
            self._over = True
            self._again()
