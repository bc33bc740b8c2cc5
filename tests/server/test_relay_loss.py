"""A relay that has lost something finds out by what devices say, and takes back what they give it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import structs

from crdt_sync.crypto.chain import ChainHead
from crdt_sync.crypto.envelope import parse
from crdt_sync.ids import RelayId
from crdt_sync.membership.carrying import carry_over
from crdt_sync.membership.entries import parse_entry
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    AppendRefused,
    Bye,
    Forked,
    Frame,
    GiveBack,
    Revive,
    RowKind,
    SnapshotResult,
    Welcome,
    revive_message,
)
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.roles import Role
from crdt_sync_server.effects import Peer
from tests.server.engine_kit import NONCE, Relay, kinds
from tests.server.relay_kit import NO_RELAY, TestDevice, TestSpace, invite_hello, record

R1, R2 = record(1), record(2)


class Team:
    """An office and a tablet whose relay has acknowledged: office 1, tablet 1, office 2."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.space = TestSpace(3)
        self.office, self.tablet = self.space.founder, self.space.member()
        relay.create(self.space)
        self.base = len(self.space.entries)
        self.sent = [self.push(self.office), self.push(self.tablet)]
        self.copy = relay.path.with_suffix(".backup")
        self.life = relay.engine.relay_id
        self.relay.restart()
        shutil.copy(relay.path, self.copy)
        self.relay.restart()
        self.sent.append(self.push(self.office))
        self.seen = self.relay.engine.relay_id

    def push(self, device: TestDevice) -> bytes:
        raw = device.update(R1)
        (answer,) = self.relay.push(self.relay.connect(device), raw)
        assert isinstance(answer, Ack)
        return raw

    def put_back(self) -> None:
        """The operator puts yesterday's file in place of the relay's, and tells nobody."""
        self.relay.close()
        for file in self.relay.path.parent.glob(self.relay.path.name + "*"):
            file.unlink()
        shutil.copy(self.copy, self.relay.path)
        self.relay.open()

    def wipe(self) -> None:
        self.relay.close()
        for file in self.relay.path.parent.glob(self.relay.path.name + "*"):
            file.unlink()
        self.relay.open()

    def greet(
        self, device: TestDevice, cursor: int, promised: int = 0, acked: ChainHead | None = None
    ) -> Welcome:
        return self.enter(device, cursor, promised, acked)[1]

    def enter(
        self, device: TestDevice, cursor: int, promised: int = 0, acked: ChainHead | None = None
    ) -> tuple[Peer, Welcome]:
        peer = Peer(NONCE)
        hello = device.hello(NONCE, self.relay.engine.relay_id, cursor, self.seen)
        sequence, link = acked or (0, bytes(32))
        hello = structs.replace(hello, promised=promised, acked_sequence=sequence, acked_hash=link)
        return peer, self.relay.answer(peer, hello, Welcome)

    def revive(self, device: TestDevice, entries: list[bytes] | None = None) -> Frame:
        entries = self.space.entries if entries is None else entries
        relay_id = self.relay.engine.relay_id
        message = revive_message(
            nonce=NONCE, relay_id=relay_id, space=self.space.id, party=device.author.device, entries=entries
        )
        frame = Revive(1, self.space.id, device.author.device, entries, "test", device.keys.sign(message))
        (answer,) = self.relay.answers(Peer(NONCE), frame)
        return answer


@pytest.fixture
def team(engine: Relay) -> Team:
    return Team(engine)


# Finding out


def test_a_relay_that_was_only_restarted_goes_on_where_everyone_stands(team: Team) -> None:
    head = team.base + 3
    for _ in range(2):
        team.relay.restart()
        assert team.greet(team.tablet, head, head).cursor == head
    team.seen = team.life
    assert team.greet(team.tablet, team.base + 1).cursor == team.base + 1


@pytest.mark.parametrize("grown", [0, 5])
def test_a_file_that_was_put_back_is_noticed_though_nobody_said_so(team: Team, grown: int) -> None:
    """Also when the log has grown past the place where the device stands."""
    team.put_back()
    for _ in range(grown):
        team.push(TestDevice(team.space, team.tablet.keys, incarnation=9) if not _ else team.tablet)
    assert team.greet(team.office, team.base + 3).cursor == 0
    team.seen = team.life
    assert team.greet(team.office, team.base + 2).cursor == team.base + 2
    assert team.greet(team.office, team.base + 3).cursor == 0


def test_what_was_promised_beyond_the_cursor_counts_too(team: Team) -> None:
    team.put_back()
    team.seen = team.life
    assert team.greet(team.office, team.base + 1, promised=team.base + 3).cursor == 0


def test_who_compares_gets_its_own_rows_as_well(team: Team) -> None:
    team.put_back()
    peer, welcome = team.enter(team.office, team.base + 3, team.base + 3)
    assert (welcome.cursor, peer.echo_until) == (0, team.base + 2)
    assert team.relay.payloads(peer, team.base) == team.sent[:2]
    now, _ = team.enter(team.office, 0)
    assert team.relay.payloads(now, team.base) == [team.sent[1]]


# Chains


def test_a_chain_goes_on_from_what_was_acknowledged(team: Team) -> None:
    acked = team.office.head
    team.put_back()
    peer, welcome = team.enter(team.office, team.base + 3, team.base + 3, acked)
    assert (welcome.own_sequence, welcome.own_hash) == acked
    assert kinds(team.relay.push(peer, team.office.update(R1))) == ["Ack"]
    team.relay.restart()
    assert team.greet(team.office, 0).own_sequence == acked.sequence + 1


def test_a_relay_that_has_more_does_not_go_back(team: Team) -> None:
    assert team.greet(team.office, 0, 0, ChainHead(1, bytes(32))).own_sequence == 2


# Records


def given_back(
    team: Team, device: TestDevice, peer: Peer, covered: list[bytes], unmerged: Sequence[bytes] = ()
) -> str:
    raw = device.snapshot(R1, covered, unmerged)
    return team.relay.answer(peer, GiveBack(raw), SnapshotResult).code


def test_a_record_comes_back_with_what_the_log_never_had(team: Team) -> None:
    team.put_back()
    peer, _ = team.enter(team.tablet, team.base + 3)
    assert given_back(team, team.tablet, peer, team.sent) == "stored"
    rows = team.relay.rows(team.relay.connect(team.office), team.base)
    assert [(row.sequence, row.kind) for row in rows] == [(team.base + 3, RowKind.SNAPSHOT)]
    # From then on it is the record's snapshot like any other.
    again, _ = team.enter(team.office, 0, 0, team.office.head)
    later = team.office.update(R1)
    team.relay.push(again, later)
    assert team.relay.snapshot(again, team.office.snapshot(R1, [*team.sent, later])) == "stored"


def test_only_who_gives_back_may_name_what_the_log_never_had(team: Team) -> None:
    team.put_back()
    peer, _ = team.enter(team.tablet, team.base + 3)
    assert team.relay.snapshot(peer, team.tablet.snapshot(R1, team.sent)) == "mismatch"


def test_nothing_that_the_relay_has_is_given_up_for_it(team: Team) -> None:
    team.put_back()
    peer, _ = team.enter(team.tablet, team.base + 3)
    assert given_back(team, team.tablet, peer, [team.sent[0], team.sent[2]]) == "mismatch"
    assert given_back(team, team.tablet, peer, team.sent) == "stored"
    assert given_back(team, team.tablet, peer, team.sent[:2]) == "mismatch"
    reader = team.relay.connect(team.office)
    assert [row.kind for row in team.relay.rows(reader, team.base)] == [RowKind.SNAPSHOT]


def test_a_record_can_be_given_back_though_it_covers_nothing_new(team: Team) -> None:
    """What was lost may be a deletion between two updates that are here: the relay cannot know."""
    peer, _ = team.enter(team.tablet, 0)
    assert given_back(team, team.tablet, peer, team.sent) == "stored"
    assert given_back(team, team.tablet, peer, team.sent) == "stored"


def test_a_record_of_which_nobody_had_merged_what_was_lost_is_compacted_again(team: Team) -> None:
    *merged, lost = team.sent
    team.put_back()
    peer, _ = team.enter(team.tablet, team.base + 3)
    assert given_back(team, team.tablet, peer, merged, [lost]) == "stored"
    again, _ = team.enter(team.office, 0, 0, team.office.head)
    later = team.office.update(R1)
    team.relay.push(again, later)
    assert team.relay.snapshot(again, team.office.snapshot(R1, [*merged, later], [lost])) == "stored"


# Membership


def test_a_wiped_relay_takes_a_space_back_only_while_its_operator_allows_it(team: Team) -> None:
    team.wipe()
    answer = team.revive(team.tablet)
    assert isinstance(answer, Bye)
    assert (answer.code, answer.error) == (CloseCode.UNKNOWN_SPACE, "not_taken_back")
    assert "only while its operator allows it" in answer.reason
    team.relay.takes_back = True
    assert team.revive(team.tablet) == Appended(3, team.space.log.head)
    team.relay.takes_back = False
    assert team.revive(team.office) == Appended(3, team.space.log.head)
    peer, welcome = team.enter(team.tablet, team.base + 3, team.base + 3, team.tablet.head)
    assert welcome.cursor == 0
    assert given_back(team, team.tablet, peer, team.sent) == "stored"
    team.relay.restart()
    rows = team.relay.rows(team.relay.connect(team.office))
    assert [row.kind for row in rows] == [RowKind.MEMBERSHIP] * 3 + [RowKind.SNAPSHOT]


def test_nobody_can_bring_back_what_never_was(team: Team) -> None:
    team.wipe()
    team.relay.takes_back = True
    stranger = TestSpace(8)
    forged = [stranger.entries[0], *team.space.entries[1:]]
    for who, entries in [
        (team.tablet, forged),
        (team.tablet, [team.space.entries[0], team.space.entries[2]]),
        (team.tablet, team.space.entries[:1]),
        (stranger.founder, team.space.entries),
    ]:
        assert isinstance(team.revive(who, entries), Bye)
    assert team.relay.storage.find_space(team.space.id) is None


def test_a_member_who_is_forgotten_brings_the_end_of_the_log(team: Team) -> None:
    late = team.space.member()
    team.put_back()
    answer = team.relay.answers(Peer(NONCE), late.hello(NONCE, team.relay.engine.relay_id))[0]
    assert isinstance(answer, Bye)
    assert answer.error == "unknown_member"
    assert team.revive(late) == Appended(5, team.space.log.head)
    team.relay.connect(late)


def test_a_connected_member_gives_back_entries_whose_invite_has_expired(team: Team) -> None:
    """It was used before. But who holds an old link does not get in by calling himself forgotten."""
    invite, secret = team.space.invite(Role.FIELD, expires_at_ms=2_000)
    join, late = team.space.join(secret)
    team.put_back()
    team.relay.now_ms = 3_000
    answer = team.revive(late)
    assert isinstance(answer, Bye)
    assert answer.error == "invite_expired"
    peer, _ = team.enter(team.tablet, team.base + 3)
    assert (
        kinds([*team.relay.answers(peer, Append(invite)), *team.relay.answers(peer, Append(join))])
        == ["Appended"] * 2
    )
    team.relay.connect(late)


def test_the_holder_of_an_expired_invite_stays_out(team: Team) -> None:
    invite, secret = team.space.invite(Role.FIELD, expires_at_ms=2_000)
    team.relay.answer(team.relay.connect(team.office), Append(invite), Appended)
    peer = Peer(NONCE)
    team.relay.do((peer, invite_hello(team.space.id, secret, NONCE, team.relay.engine.relay_id)))
    team.relay.now_ms = 3_000
    join, _ = team.space.join(secret)
    assert team.relay.answer(peer, Append(join), AppendRefused).code == "invite_expired"


def test_a_log_that_went_on_differently_is_said_to_have(team: Team) -> None:
    late = team.space.member()
    entries = list(team.space.entries)
    team.put_back()
    other = TestSpace(3)
    other.member()
    assert other.entries == entries[:3]
    other.entropy = lambda size: b"\7" * size
    invite, _ = other.invite(Role.READER)
    team.relay.answer(team.relay.connect(team.office), Append(invite), Appended)
    answer = team.revive(late, entries)
    assert answer == Forked(3, [parse_entry(invite).without_hpke()])
    # The device makes one log of both, and is let in with it.
    log = other.log.copy()
    made = carry_over(log, entries[3:], late.keys, at_ms=4)
    assert team.revive(late, list(log.entries)) == Appended(5, log.head)
    assert team.revive(late, list(log.entries)) == Appended(5, log.head)
    peer = team.relay.connect(late)
    assert isinstance(team.relay.push(peer, late.update(R1))[0], Ack)
    # Somebody else's carry of the same comes second, and what it brings is there already.
    office = team.relay.connect(team.office)
    assert team.relay.answer(office, Append(made.entries[0]), Appended).members_head == log.head
    assert team.relay.answer(office, Append(entries[3]), Appended)
    again = carry_over(other.log, entries[3:4], team.office.keys, at_ms=5).entries[0]
    assert team.relay.answer(office, Append(again), AppendRefused).code == "stale_head"


def test_who_carries_himself_is_held_to_the_expiry_of_his_invite(team: Team) -> None:
    invite, secret = team.space.invite(Role.FIELD, expires_at_ms=2_000)
    join, late = team.space.join(secret)
    team.put_back()
    other = TestSpace(3)
    other.member()
    other.entropy = lambda size: b"\7" * size
    taken, _ = other.invite(Role.READER)
    team.relay.answer(team.relay.connect(team.office), Append(taken), Appended)
    team.relay.now_ms = 3_000
    log = other.log.copy()
    carry_over(log, [invite, join], late.keys, at_ms=4)
    answer = team.revive(late, list(log.entries))
    assert isinstance(answer, Bye)
    assert answer.error == "invite_expired"
    # A member vouches for what was there before.
    carry = carry_over(other.log, [invite, join], team.tablet.keys, at_ms=4).entries[0]
    team.relay.answer(team.relay.connect(team.tablet), Append(carry), Appended)
    team.relay.connect(late)


def test_an_earlier_program_says_nothing_of_promises(team: Team) -> None:
    hello = team.office.hello(NONCE, team.relay.engine.relay_id, 2, team.relay.engine.relay_id)
    assert (hello.promised, hello.acked_sequence) == (0, 0)
    assert team.relay.answer(Peer(NONCE), hello, Welcome).cursor == 2
    assert parse(team.sent[0], max_bytes=MAX_ENVELOPE_BYTES).header.sequence == 1
    assert RelayId(bytes(16)) == NO_RELAY


def test_the_copy_can_be_put_back_twice(team: Team, tmp_path: Path) -> None:
    for _ in range(2):
        team.put_back()
        assert team.greet(team.office, team.base + 3).cursor == 0
