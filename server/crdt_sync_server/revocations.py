"""Devices that the operator has shut out: who they are, what they are told, and how that is undone.

It is the operator's word, about this relay alone: a device that is shut out gets no connection, no token and
no page, and nothing of it is taken. It stays in the membership log, its store keeps everything, and when it
is admitted again it goes on where it was. Taking a device out of a space for good is an admin's right, signed
in the membership log; no relay can do that.

The memory here mirrors a table, so that asking costs nothing for each frame. It changes after a commit only.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Final

from crdt_sync.errors import LocalError, ShutOut, UnknownSpace
from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.limits import MAX_REASON_CHARS
from crdt_sync.protocol.relay_session import bye_of
from crdt_sync_server.effects import Close, Peer
from crdt_sync_server.roster import Roster
from crdt_sync_server.storage.port import AuditEvent, Revocation, SpaceEntry, Storage

SHUT_OUT: Final = "the relay's operator has shut this device out"
MAX_WORDS: Final = MAX_REASON_CHARS - len(SHUT_OUT) - 2
"""Characters of an operator's reason."""
_LIST: Final = "`crdt-sync relay devices` lists them"


class UnknownDevice(UnknownSpace):
    """No space of this relay has that device."""

    code = "unknown_device"


class NotRevoked(LocalError):
    """There is nothing to undo."""

    code = "not_revoked"


class Revocations:
    """See the module. On the storage's thread, as the engine."""

    def __init__(self, storage: Storage, roster: Roster) -> None:
        self._storage = storage
        self._roster = roster
        self._known: dict[DeviceId, dict[SpaceId | None, Revocation]] = {}
        for each in storage.revocations.all():
            self._known.setdefault(each.device, {})[each.space] = each

    def check(self, space: SpaceId, device: DeviceId) -> None:
        """Raises ShutOut when the device is shut out of the space."""
        known = self._known.get(device)
        if known is None:
            return
        found = known.get(None) or known.get(space)
        if found is not None:
            said = f"{SHUT_OUT}: {found.reason}" if found.reason else SHUT_OUT
            raise ShutOut(said, close_code=CloseCode.FORBIDDEN, hint="ask the relay's operator")

    def check_peer(self, peer: Peer) -> None:
        """The same for a connection that was admitted, or for who came with a token."""
        if self._known and peer.author is not None and peer.space is not None:
            self.check(peer.space, peer.author.device)

    def revoke(self, device: DeviceId, space: SpaceId | None, reason: str, now_ms: int) -> list[Close]:
        """Shut a device out of one space or, with None, of all that are and will be here.

        Durable when it returns; then its connections are to be closed. Raises UnknownSpace, UnknownDevice.
        """
        concerned = _spaces_of(self._storage, device, space)
        revocation = Revocation(device, space, now_ms, _one_line(reason))
        with self._storage.transaction():
            self._storage.revocations.put(revocation)
            self._note(concerned, device, "revoked", now_ms, reason=revocation.reason)
        self._known.setdefault(device, {})[space] = revocation
        closes: list[Close] = []
        for entry in concerned:
            for peer in list(self._roster.of(entry.id)):
                try:
                    self.check_peer(peer)
                except ShutOut as exc:
                    closes.append(Close(peer, bye_of(exc)))
        return closes

    def admit(self, device: DeviceId, space: SpaceId | None, now_ms: int) -> None:
        """Let it in again: to one space, or with None whatever it was shut out of. Raises NotRevoked."""
        known = self._known.get(device, {})
        if space is not None and space not in known and None in known:
            raise NotRevoked(
                "the device is shut out of all spaces, not of this one", hint="leave out --space to admit it"
            )
        undone = list(known) if space is None else [space]
        if not undone or undone[0] not in known:
            raise NotRevoked("the device is not shut out", hint=f"check its id and the space; {_LIST}")
        with self._storage.transaction():
            for each in undone:
                self._storage.revocations.drop(device, each)
            try:
                concerned = _spaces_of(self._storage, device, space)
            except UnknownSpace:  # it was here once
                concerned = []
            self._note(concerned, device, "admitted", now_ms)
        for each in undone:
            del known[each]
        if not known:
            self._known.pop(device, None)

    def _note(
        self, spaces: Sequence[SpaceEntry], device: DeviceId, event: str, now_ms: int, **detail: str
    ) -> None:
        body = json.dumps(detail, separators=(",", ":"))
        self._storage.books.note([AuditEvent(now_ms, entry.key, device, event, body) for entry in spaces])


def _spaces_of(storage: Storage, device: DeviceId, space: SpaceId | None) -> list[SpaceEntry]:
    """Where the device is a member. Raises UnknownSpace, UnknownDevice."""
    entries = [entry for entry in storage.spaces() if space in (None, entry.id)]
    if space is not None and not entries:
        raise UnknownSpace("this relay does not hold the space", hint="`crdt-sync relay spaces` lists them")
    found = [
        entry
        for entry in entries
        if device in MembershipLog.restore(entry.id, storage.membership(entry.key)).members
    ]
    if not found:
        where = "the space" if space is not None else "any space of this relay"
        raise UnknownDevice(f"device {device.hex()} is not a member of {where}", hint=_LIST)
    return found


def _one_line(reason: str) -> str:
    shown = "".join(" " if unicodedata.category(char).startswith(("C", "Z")) else char for char in reason)
    return " ".join(shown.split())[:MAX_WORDS]
