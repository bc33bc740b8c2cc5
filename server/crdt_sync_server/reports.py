"""What a relay can say about its spaces and devices: from the log, the books, and who is connected now.

It knows ids, roles, sizes and times; names and contents are encrypted. All of this is read on the thread that
the storage belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from crdt_sync.errors import UnknownSpace
from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync.membership.log import MembershipLog
from crdt_sync_server.storage.port import Revocation, SpaceKey, Storage


class LivePeer(NamedTuple):
    """A connection, as it is now. `device` is None for the holder of an invite."""

    space: SpaceId
    device: DeviceId | None
    cursor: int
    caught_up: bool
    agent: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class SpaceFigures:
    """A space as the relay knows it."""

    space: SpaceId
    key: SpaceKey
    head: int
    size_bytes: int
    members: int
    connections: int


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """A member. Times are Unix milliseconds, None for never; `lag` is in rows of the log."""

    device: DeviceId
    role: str
    label: str
    agent: str
    connected: bool
    first_seen_ms: int | None
    last_seen_ms: int | None
    last_sync_ms: int | None
    cursor: int
    lag: int
    revoked: Revocation | None
    """Why it is shut out, if it is."""

    @property
    def app(self) -> str:
        """The program's own name and version, if it says so."""
        return self._part("app/")

    @property
    def os(self) -> str:
        """The operating system, if it says so."""
        return self._part("os/")

    def _part(self, prefix: str) -> str:
        parts = self.agent.split()
        return next((part.removeprefix(prefix) for part in parts if part.startswith(prefix)), "")


def space_key(storage: Storage, space: SpaceId) -> SpaceKey:
    """Raises UnknownSpace."""
    key = storage.find_space(space)
    if key is None:
        raise UnknownSpace("this relay does not hold the space", hint="`crdt-sync relay spaces` lists them")
    return key


def members_of(storage: Storage, space: SpaceId) -> MembershipLog:
    """From the log, as it was checked when it was written. Raises UnknownSpace."""
    return MembershipLog.restore(space, storage.membership(space_key(storage, space)))


def space_figures(
    storage: Storage, space: SpaceId, members: MembershipLog, live: Iterable[LivePeer]
) -> SpaceFigures:
    """One space. Raises UnknownSpace."""
    key = space_key(storage, space)
    return SpaceFigures(
        space=space,
        key=key,
        head=storage.head(key),
        size_bytes=storage.size_bytes(key),
        members=len(members.members),
        connections=sum(peer.space == space for peer in live),
    )


def device_figures(
    storage: Storage, space: SpaceId, members: MembershipLog, live: Iterable[LivePeer], now_ms: int
) -> list[DeviceFigures]:
    """All members of a space, whether they were ever here or not. Raises UnknownSpace."""
    key = space_key(storage, space)
    head = storage.head(key)
    seen = {row.device: row for row in storage.books.devices(key)}
    concerning = [each for each in storage.revocations.all() if each.space in (None, space)]
    shut_out = {each.device: each for each in sorted(concerning, key=lambda each: each.space is None)}
    here: dict[DeviceId, LivePeer] = {}
    for one in live:
        if one.space == space and one.device is not None:
            here[one.device] = one
    figures: list[DeviceFigures] = []
    for device, member in members.members.items():
        row, peer = seen.get(device), here.get(device)
        cursor = peer.cursor if peer is not None else row.cursor if row is not None else 0
        synced_ms = row.last_sync_ms if row is not None else None
        figures.append(
            DeviceFigures(
                device=device,
                role=member.role.text,
                label=row.label if row is not None else "",
                agent=peer.agent if peer is not None else row.agent if row is not None else "",
                connected=peer is not None,
                first_seen_ms=row.first_seen_ms if row is not None else None,
                last_seen_ms=now_ms if peer is not None else row.last_seen_ms if row is not None else None,
                last_sync_ms=now_ms if peer is not None and peer.caught_up else synced_ms,
                cursor=min(cursor, head),
                lag=max(head - cursor, 0),
                revoked=shut_out.get(device),
            )
        )
    return figures
