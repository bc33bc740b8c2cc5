"""A space to try membership entries on: its founder, its keys, its log, and entries of any content."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.errors import BadMembership, CrdtSyncError
from crdt_sync.ids import Entropy
from crdt_sync.membership.authoring import make_genesis, make_invite, make_join
from crdt_sync.membership.entries import EntryPayload, make_entry
from crdt_sync.membership.invites import InviteContents, InviteSecret
from crdt_sync.membership.log import MembershipLog
from crdt_sync.roles import Role

EXPIRES_MS = 1_000_000
NOW_MS = 5_000


def seeded(seed: int) -> Entropy:
    return random.Random(seed).randbytes


@dataclass
class Site:
    """A space with its founder, and what a test needs to let others in."""

    founder: DeviceKeys
    keys: SpaceKeys
    log: MembershipLog
    entropy: Entropy

    def invite(self, role: Role = Role.FIELD, by: DeviceKeys | None = None) -> tuple[bytes, InviteSecret]:
        return make_invite(
            self.log,
            by or self.founder,
            self.keys,
            space_name="Rig 4",
            role=role,
            expires_at_ms=EXPIRES_MS,
            at_ms=NOW_MS,
            entropy=self.entropy,
        )

    def invited(self, role: Role = Role.FIELD) -> InviteSecret:
        raw, secret = self.invite(role)
        self.log.apply(raw)
        return secret

    def join(self, device: DeviceKeys, secret: InviteSecret, name: str = "Tablet") -> bytes:
        contents = InviteContents(self.keys, "Rig 4", Role.FIELD, self.log.genesis_hash, self.log.head)
        return make_join(
            self.log, device, secret, contents, device_name=name, at_ms=NOW_MS, entropy=self.entropy
        )

    def joined(self, device: DeviceKeys, role: Role = Role.FIELD) -> None:
        secret = self.invited(role)
        self.log.apply(self.join(device, secret))

    def entry(self, payload: EntryPayload, by: DeviceKeys, **changed: Any) -> bytes:
        """An entry of any content, with the right place in the log unless `changed`."""
        place: dict[str, Any] = {
            "space": self.log.space_id,
            "index": self.log.index + 1,
            "prev": self.log.head,
            "at_ms": NOW_MS,
            "keys": by,
        }
        return make_entry(payload, **(place | changed))


def make_site(seed: int = 1) -> Site:
    entropy = seeded(seed)
    founder, keys = DeviceKeys.generate(entropy), SpaceKeys.generate(entropy)
    genesis, space = make_genesis(
        founder, keys, space_name="Rig 4", device_name="Office", at_ms=NOW_MS, entropy=entropy
    )
    log = MembershipLog(space)
    log.apply(genesis)
    return Site(founder, keys, log, entropy)


TABLET = DeviceKeys.generate(seeded(50))
PHONE = DeviceKeys.generate(seeded(51))


def refused(
    log: MembershipLog,
    raw: bytes,
    message: str,
    error: type[CrdtSyncError] = BadMembership,
    now_ms: int | None = None,
) -> None:
    """The entry is refused with that error, and the log is as it was."""
    before = (log.head, log.index, dict(log.members), dict(log.invites), dict(log.epochs), log.entries)
    with pytest.raises(error, match=message):
        log.apply(raw, now_ms=now_ms)
    assert before == (
        log.head,
        log.index,
        dict(log.members),
        dict(log.invites),
        dict(log.epochs),
        log.entries,
    )
