"""A device whose members' log went on differently at a relay that had lost a part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt_sync.errors import BadMembership, ForkedLog
from crdt_sync.membership.carrying import carry_over
from crdt_sync.membership.entries import parse_entry
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.frames import RowKind
from crdt_sync.roles import Role
from tests.client.engine_world import Peer, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


class Forked:
    """An office and a tablet know of `early`; the relay knows of `late` instead, whom the boss let in."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.boss = world.join("boss", Role.ADMIN)
        self.tablet = world.join("tablet")
        world.settle()
        self.common = len(self.log(self.boss))
        kept = list(world.relay.rows), world.relay.head
        self.early = world.join("early")
        self.tablet.sync()
        self.ours = self.log(self.tablet)
        world.relay.rows, world.relay.head = kept
        world.office, office = self.boss, world.office
        self.late = world.join("late")
        world.office = office
        self.theirs = [raw for _, kind, raw, *_ in world.relay.rows if kind == RowKind.MEMBERSHIP]

    def log(self, peer: Peer) -> list[bytes]:
        return list(peer.engine._replica.space(self.world.space).log.entries)

    def names(self, peer: Peer) -> set[str]:
        return {member.name for member in peer.engine.members(self.world.space)}

    def rows(self) -> list[tuple[int, int, bytes]]:
        """As they come behind everything that the devices had."""
        new = self.theirs[self.common :]
        return [(1000 + n, int(RowKind.MEMBERSHIP), raw) for n, raw in enumerate(new)]


EVERYBODY = {"office", "boss", "tablet", "early", "late"}


def test_a_member_takes_the_relays_branch_and_carries_its_own(world: World) -> None:
    forked = Forked(world)
    tablet = forked.tablet
    received = tablet.engine.receive(world.space, forked.rows(), 1010)
    assert received.members_changed
    assert received.reconnect, "the next session gives the relay what was carried"
    assert forked.names(tablet) == EVERYBODY
    log = forked.log(tablet)
    assert log[: len(forked.theirs)] == forked.theirs
    head = parse_entry(forked.theirs[-1]).hash
    (carry,) = tablet.engine.lost_entries(world.space, head)
    assert carry == log[-1]
    # It is kept, and nothing is carried a second time.
    tablet.crash()
    assert forked.log(tablet) == log
    assert tablet.engine.lost_entries(world.space, head) == (carry,)
    again = tablet.engine.receive(world.space, [(1020, int(RowKind.MEMBERSHIP), carry)], 1020)
    assert (again.members_changed, again.reconnect) == (False, False)


def test_another_members_carry_takes_the_place_of_ones_own(world: World) -> None:
    forked = Forked(world)
    tablet = forked.tablet
    tablet.engine.receive(world.space, forked.rows(), 1010)
    log = MembershipLog.restore(world.space, forked.theirs)
    keys = world.office.engine._replica.keys
    made = carry_over(log, forked.ours[forked.common :], keys, at_ms=1)
    received = tablet.engine.receive(world.space, [(1020, int(RowKind.MEMBERSHIP), made.entries[0])], 1020)
    assert not received.reconnect, "nothing is left to carry"
    assert forked.log(tablet) == list(log.entries)
    assert forked.names(tablet) == EVERYBODY


def test_who_is_no_member_on_the_relays_branch_brings_both(world: World) -> None:
    forked = Forked(world)
    early = forked.early.engine
    early.take_branch(world.space, forked.common, forked.theirs[forked.common :])
    assert forked.names(forked.early) == EVERYBODY
    start = early.session_start(world.space)
    assert list(start.revive) == forked.log(forked.early), "the next connection gives the log back"
    assert not early.session_start(world.space).revive


def test_a_branch_that_cannot_be_changes_nothing(world: World) -> None:
    forked = Forked(world)
    early, before = forked.early, forked.log(forked.early)
    mine = early.create({"title": "by early"})
    with pytest.raises(BadMembership, match="goes on where it does not"):
        early.engine.take_branch(world.space, 0, forked.theirs)
    with pytest.raises(BadMembership):
        early.engine.take_branch(world.space, forked.common, forked.theirs[forked.common + 1 :])
    assert forked.log(early) == before
    assert early.get(mine).values["title"] == "by early"


def test_an_invite_that_was_used_by_another_lets_nobody_in(world: World) -> None:
    forked = Forked(world)
    early = forked.early
    invite, join = early.engine._replica.space(world.space).log.entries[-2:]
    assert parse_entry(join).signer == early.engine.device_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MembershipLog, "try_carried", lambda log, raw: False)
        with pytest.raises(ForkedLog, match="lets nobody in any more") as told:
            early.engine.take_branch(world.space, forked.common, forked.theirs[forked.common :])
    assert told.value.hint is not None
    assert "crdt-sync join LINK" in told.value.hint
    assert forked.log(early)[-2:] == [invite, join]
