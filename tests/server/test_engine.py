"""The engine: what it takes, what it refuses, and that a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.ids import Incarnation, RelayId
from crdt_sync.membership.entries import parse_entry
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Ack,
    Append,
    Appended,
    AppendRefused,
    Bye,
    Create,
    Frame,
    FromDevice,
    Push,
    Refuse,
    RowKind,
    Welcome,
)
from crdt_sync.roles import Role
from crdt_sync_server.effects import Close, Grown, Peer
from crdt_sync_server.storage.port import NewUpdate, SpaceKey
from tests.server.engine_kit import NONCE, TOKEN, Relay, acknowledged, kinds
from tests.server.relay_kit import TestDevice, TestSpace, invite_hello, record

R1, R2 = record(1), record(2)


@pytest.fixture
def space(engine: Relay) -> TestSpace:
    made = TestSpace(1)
    engine.create(made)
    return made


def join(engine: Relay, space: TestSpace, role: Role = Role.FIELD) -> TestDevice:
    """A new member, known to the relay."""
    before = len(space.entries)
    device = space.member(role)
    admin = engine.connect(space.founder)
    for entry in space.entries[before:]:
        engine.answer(admin, Append(entry), Appended)
    return device


def refused(frames: list[Frame]) -> str:
    (frame,) = frames
    assert isinstance(frame, Refuse), frame
    return frame.code


def said_bye(frames: list[Frame]) -> tuple[int, str]:
    (frame,) = frames
    assert isinstance(frame, Bye), frame
    return frame.code, frame.error


# Updates


def test_an_update_is_acknowledged_and_grows_the_log(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    first, second = space.founder.update(R1), space.founder.update(R2)
    effects = engine.do((peer, Push([first, second])))
    (grown,) = [effect for effect in effects if isinstance(effect, Grown)]
    assert [(live.row.sequence, live.row.payload) for live in grown.rows] == [(2, first), (3, second)]
    other = engine.connect(join(engine, space))
    assert engine.payloads(other)[1:3] == [first, second]


def test_one_acknowledgement_for_everything_of_a_commit(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    frames = [Push([space.founder.update(R1)]) for _ in range(3)]
    effects = engine.do(*[(peer, frame) for frame in frames])
    acks = [effect.frame for effect in effects if hasattr(effect, "frame")]
    assert acks == [Ack(space.founder.author.incarnation, 3, 4)]


def test_own_updates_are_not_read_back_but_the_cursor_moves(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    engine.push(peer, space.founder.update(R1))
    page = engine.engine.read(peer, 1, max_rows=10, max_bytes=10_000)
    assert (page.rows, page.cursor, page.at_end) == ([], 2, True)


def test_a_replayed_push_gets_the_same_answer_and_no_new_row(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    envelopes = [space.founder.update(R1) for _ in range(3)]
    first = engine.push(peer, *envelopes)
    before = engine.dump()
    assert engine.push(peer, *envelopes) == first
    assert engine.push(peer, envelopes[1]) == first
    assert engine.dump() == before
    engine.restart()
    assert engine.push(engine.connect(space.founder), *envelopes) == first
    assert engine.dump() == before


def test_a_gap_in_the_chain_is_refused(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    missing, later = space.founder.update(R1), space.founder.update(R1)
    before = engine.dump()
    assert refused(engine.push(peer, later)) == "chain_broken"
    assert engine.dump() == before
    assert kinds(engine.push(peer, missing, later)) == ["Ack"]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_two_updates_for_one_place_in_a_chain_are_equivocation(
    engine: Relay, space: TestSpace, old: bool, restarted: bool
) -> None:
    twin = TestDevice(space, space.founder.keys)
    peer = engine.connect(space.founder)
    engine.push(peer, space.founder.update(R1), *([space.founder.update(R1)] if old else []))
    if restarted:
        engine.restart()
        peer = engine.connect(space.founder)
    before = engine.dump()
    frames = engine.push(peer, twin.update(R2, b"something else"))
    assert kinds(frames) == ["Refuse", "Bye"]
    refuse, bye = frames
    assert isinstance(refuse, Refuse)
    assert isinstance(bye, Bye)
    assert (refuse.code, bye.code) == ("equivocation", CloseCode.CONFLICT)
    assert engine.dump() == before


def test_a_push_is_taken_up_to_the_first_bad_envelope(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    good, bad, after = (space.founder.update(R1) for _ in range(3))
    tampered = bad[:-1] + bytes([bad[-1] ^ 1])
    frames = engine.push(peer, good, tampered, after)
    assert kinds(frames) == ["Ack", "Refuse"]
    assert frames[0] == Ack(space.founder.author.incarnation, 1, 2)
    assert kinds(engine.push(peer, bad, after)) == ["Ack"]


def test_a_bad_signature_is_refused(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    raw = space.founder.update(R1)
    before = engine.dump()
    assert refused(engine.push(peer, raw[:-1] + bytes([raw[-1] ^ 1]))) == "bad_signature"
    flipped = raw[:140] + bytes([raw[140] ^ 1]) + raw[141:]
    assert refused(engine.push(peer, flipped)) == "bad_signature"
    assert engine.dump() == before


def test_nobody_pushes_for_another_device(engine: Relay, space: TestSpace) -> None:
    other = join(engine, space)
    assert refused(engine.push(engine.connect(space.founder), other.update(R1))) == "permission"


def test_readers_may_not_push(engine: Relay, space: TestSpace) -> None:
    reader = join(engine, space, Role.READER)
    peer = engine.connect(reader)
    before = engine.dump()
    assert refused(engine.push(peer, reader.update(R1))) == "permission"
    assert engine.snapshot(peer, reader.snapshot(R1, [])) == "permission"
    assert engine.dump() == before


def test_an_epoch_that_the_space_does_not_have_is_refused(engine: Relay, space: TestSpace) -> None:
    peer = engine.connect(space.founder)
    assert refused(engine.push(peer, space.founder.update(R1, epoch=2))) == "unknown_epoch"


def test_a_malformed_envelope_closes_and_nothing_of_the_frame_is_kept(
    engine: Relay, space: TestSpace
) -> None:
    good = space.founder.update(R1)
    before = engine.dump()
    snapshot, elsewhere = space.founder.snapshot(R1, []), TestSpace(2).founder.update(R1)
    for bad in (b"x", good[:-1], good + b"x", snapshot, elsewhere):
        peer = engine.connect(space.founder)
        assert said_bye(engine.push(peer, good, bad)) == (CloseCode.MALFORMED, "malformed_envelope")
    assert engine.dump() == before


def test_what_one_connection_does_wrong_is_no_other_ones_business(engine: Relay, space: TestSpace) -> None:
    device = join(engine, space)
    good, bad = engine.connect(space.founder), engine.connect(device)
    effects = engine.do((bad, Push([b"x"])), (good, Push([space.founder.update(R1)])))
    assert [effect.peer for effect in effects if isinstance(effect, Close)] == [bad]
    assert acknowledged(effects) == [good]


def test_a_commit_that_fails_takes_down_only_its_cause(
    engine: Relay, space: TestSpace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = join(engine, space)
    good, bad = engine.connect(space.founder), engine.connect(device)
    poison = device.update(R2)
    append = engine.storage.append_updates

    def failing(key: SpaceKey, sequence: int, updates: Sequence[NewUpdate]) -> None:
        append(key, sequence, updates)
        if any(update.envelope == poison for update in updates):
            raise OSError("the disk is full of secrets")

    monkeypatch.setattr(engine.storage, "append_updates", failing)
    effects = engine.do((good, Push([space.founder.update(R1)])), (bad, Push([poison])))
    closes = [effect for effect in effects if isinstance(effect, Close)]
    assert [(close.peer, close.bye.code) for close in closes] == [(bad, CloseCode.INTERNAL)]
    assert acknowledged(effects) == [good]
    assert "secrets" not in caplog.text
    monkeypatch.undo()
    assert kinds(engine.push(bad, poison)) == ["Ack"]


def test_what_follows_a_frame_that_was_not_kept_is_not_refused(
    engine: Relay, space: TestSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It builds on what was not kept. A device that is refused so often enough gives the work up."""
    peer = engine.connect(space.founder)
    poison, next_one = space.founder.update(R1), space.founder.update(R1)
    append = engine.storage.append_updates

    def failing(key: SpaceKey, sequence: int, updates: Sequence[NewUpdate]) -> None:
        append(key, sequence, updates)
        if any(update.envelope == poison for update in updates):
            raise OSError("the disk is full")

    monkeypatch.setattr(engine.storage, "append_updates", failing)
    effects = engine.do((peer, Push([poison])), (peer, Push([next_one])), (peer, None))
    assert [type(effect).__name__ for effect in effects] == ["Close"]
    monkeypatch.undo()
    # The same of a frame that is wrong in itself.
    peer = engine.connect(space.founder)
    effects = engine.do((peer, Push([b"x"])), (peer, Push([next_one])))
    assert [type(effect).__name__ for effect in effects] == ["Close"]
    assert kinds(engine.push(engine.connect(space.founder), poison, next_one)) == ["Ack"]


# Who is who


def hello_answer(engine: Relay, frame: FromDevice) -> Frame:
    (answer,) = engine.answers(Peer(NONCE), frame)
    return answer


def test_a_welcome_names_the_end_of_the_chain(engine: Relay, space: TestSpace) -> None:
    engine.push(engine.connect(space.founder), space.founder.update(R1), space.founder.update(R1))
    for _ in range(2):
        answer = hello_answer(engine, space.founder.hello(NONCE, engine.engine.relay_id))
        assert isinstance(answer, Welcome)
        assert (answer.own_sequence, answer.own_hash) == space.founder.head
        assert (answer.head, answer.members_head) == (3, space.log.head)
        engine.restart()


def test_a_stranger_is_not_let_in(engine: Relay, space: TestSpace) -> None:
    stranger = TestDevice(space, DeviceKeys.generate(space.entropy))
    answer = hello_answer(engine, stranger.hello(NONCE, engine.engine.relay_id))
    assert said_bye([answer]) == (CloseCode.UNAUTHENTICATED, "unknown_member")


def test_a_hello_holds_for_one_connection_to_one_relay(engine: Relay, space: TestSpace) -> None:
    hello = space.founder.hello(bytes(31) + b"x", engine.engine.relay_id)
    assert said_bye([hello_answer(engine, hello)]) == (CloseCode.UNAUTHENTICATED, "bad_signature")
    hello = space.founder.hello(NONCE, RelayId(bytes(16)))
    assert said_bye([hello_answer(engine, hello)]) == (CloseCode.UNAUTHENTICATED, "bad_signature")


def test_an_unknown_space(engine: Relay) -> None:
    answer = hello_answer(engine, TestSpace(5).founder.hello(NONCE, engine.engine.relay_id))
    assert said_bye([answer]) == (CloseCode.UNKNOWN_SPACE, "unknown_space")


def test_a_cursor_of_another_relay_or_beyond_the_end_means_the_beginning(
    engine: Relay, space: TestSpace
) -> None:
    engine.push(engine.connect(space.founder), space.founder.update(R1))
    here, other = engine.engine.relay_id, RelayId(b"another relay...")
    for cursor, seen, start in [(2, here, 2), (1, here, 1), (3, here, 0), (1, other, 0)]:
        answer = hello_answer(engine, space.founder.hello(NONCE, here, cursor, seen))
        assert isinstance(answer, Welcome)
        assert answer.cursor == start


def test_a_newer_connection_of_a_device_replaces_the_older(engine: Relay, space: TestSpace) -> None:
    old = engine.connect(space.founder)
    another_life = TestDevice(space, space.founder.keys, incarnation=8)
    engine.connect(another_life)
    effects = engine.do((Peer(NONCE), space.founder.hello(NONCE, engine.engine.relay_id)))
    (close,) = [effect for effect in effects if isinstance(effect, Close)]
    assert (close.peer, close.bye.code, close.bye.error) == (old, CloseCode.CONFLICT, "replaced")


def test_unsent_updates_of_an_earlier_incarnation_are_taken(engine: Relay, space: TestSpace) -> None:
    earlier = space.founder
    now = TestDevice(space, earlier.keys, incarnation=8)
    peer = engine.connect(now)
    frames = engine.push(peer, earlier.update(R1), now.update(R1))
    assert frames == [Ack(Incarnation(7), 1, 3), Ack(Incarnation(8), 1, 3)]


# Founding and membership


def test_founding_a_space_needs_the_token(engine: Relay) -> None:
    space = TestSpace(3)
    before = engine.dump()
    frames = engine.answers(Peer(NONCE), Create(1, space.entries[0], "wrong", "test"))
    assert said_bye(frames)[1] == "wrong_token"
    assert engine.dump() == before


def test_founding_again_is_answered_again_and_changes_nothing(engine: Relay, space: TestSpace) -> None:
    before = engine.dump()
    answer = engine.answer(Peer(NONCE), Create(1, space.entries[0], TOKEN, "test"), Appended)
    assert answer == Appended(1, space.log.head)
    assert engine.dump() == before


def test_a_space_begins_with_a_genesis(engine: Relay, space: TestSpace) -> None:
    invite, _ = space.invite(Role.FIELD)
    before = engine.dump()
    for bad in (invite, b"x", space.entries[0][:-1]):
        code, _ = said_bye(engine.answers(Peer(NONCE), Create(1, bad, TOKEN, "test")))
        assert code == CloseCode.MALFORMED
    assert engine.dump() == before


def test_joining_with_an_invite(engine: Relay, space: TestSpace) -> None:
    admin = engine.connect(space.founder)
    engine.push(admin, space.founder.update(R1))
    entry, secret = space.invite(Role.FIELD)
    engine.answer(admin, Append(entry), Appended)

    guest = Peer(NONCE)
    hello = invite_hello(space.id, secret, NONCE, engine.engine.relay_id)
    engine.answer(guest, hello, Welcome)
    rows = engine.rows(guest)
    assert [row.kind for row in rows] == [RowKind.MEMBERSHIP, RowKind.MEMBERSHIP]

    join_entry, device = space.join(secret)
    assert engine.answer(guest, Append(join_entry), Appended).members_head == space.log.head
    before = engine.dump()
    assert engine.answer(guest, Append(join_entry), Appended).members_head == space.log.head
    assert engine.dump() == before
    peer = engine.connect(device)
    assert kinds(engine.push(peer, device.update(R1))) == ["Ack"]

    code, error = said_bye(engine.answers(Peer(NONCE), hello))
    assert (code, error) == (CloseCode.FORBIDDEN, "invite_used")


def test_an_expired_invite_lets_nobody_in(engine: Relay, space: TestSpace) -> None:
    entry, secret = space.invite(Role.FIELD, expires_at_ms=2_000)
    engine.answer(engine.connect(space.founder), Append(entry), Appended)
    guest = Peer(NONCE)
    hello = invite_hello(space.id, secret, NONCE, engine.engine.relay_id)
    engine.answer(guest, hello, Welcome)
    engine.now_ms = 2_000
    code, error = said_bye(engine.answers(Peer(NONCE), hello))
    assert (code, error) == (CloseCode.FORBIDDEN, "invite_expired")
    join_entry, _ = space.join(secret)
    assert engine.answer(guest, Append(join_entry), AppendRefused).code == "invite_expired"


def test_an_invite_that_is_none(engine: Relay, space: TestSpace) -> None:
    _, secret = space.invite(Role.FIELD)  # never appended at the relay
    hello = invite_hello(space.id, secret, NONCE, engine.engine.relay_id)
    assert said_bye(engine.answers(Peer(NONCE), hello))[0] == CloseCode.UNAUTHENTICATED


def test_a_guest_may_only_join_with_the_invite_it_holds(engine: Relay, space: TestSpace) -> None:
    admin = engine.connect(space.founder)
    (mine, secret), (others, _) = space.invite(Role.FIELD), space.invite(Role.ADMIN)
    for entry in (mine, others):
        engine.answer(admin, Append(entry), Appended)
    guest = Peer(NONCE)
    engine.answer(guest, invite_hello(space.id, secret, NONCE, engine.engine.relay_id), Welcome)
    another_invite, _ = space.invite(Role.ADMIN)
    assert engine.answer(guest, Append(another_invite), AppendRefused).code == "permission"


def test_who_joined_and_was_not_told_may_ask_with_another_invite(engine: Relay, space: TestSpace) -> None:
    admin = engine.connect(space.founder)
    first, secret = space.invite(Role.FIELD)
    engine.answer(admin, Append(first), Appended)
    guest = Peer(NONCE)
    engine.answer(guest, invite_hello(space.id, secret, NONCE, engine.engine.relay_id), Welcome)
    join_entry, _ = space.join(secret)
    engine.answer(guest, Append(join_entry), Appended)

    second, other_secret = space.invite(Role.FIELD)
    engine.answer(admin, Append(second), Appended)
    again = Peer(NONCE)
    engine.answer(again, invite_hello(space.id, other_secret, NONCE, engine.engine.relay_id), Welcome)
    before = engine.dump()
    answer = engine.answer(again, Append(join_entry), Appended)
    assert answer.members_head == parse_entry(join_entry).hash
    assert engine.dump() == before
    # The invite was not used up by that.
    another, _ = space.join(other_secret)
    engine.answer(again, Append(another), Appended)


def test_only_admins_change_the_members(engine: Relay, space: TestSpace) -> None:
    device = join(engine, space)
    peer = engine.connect(device)
    entry = _entry_by(space, device)
    before = engine.dump()
    assert engine.answer(peer, Append(entry), AppendRefused).code == "bad_membership"
    assert engine.dump() == before


def _entry_by(space: TestSpace, device: TestDevice) -> bytes:
    from crdt_sync.membership.authoring import make_invite

    entry, _ = make_invite(
        space.log, device.keys, space.keys, space_name="Pit 4", role=Role.ADMIN,
        expires_at_ms=2**45, at_ms=2, entropy=space.entropy,
    )  # fmt: skip
    return entry


def test_an_entry_for_an_old_head_is_refused_with_the_new_head(engine: Relay, space: TestSpace) -> None:
    admin = engine.connect(space.founder)
    late = _entry_by(space, space.founder)
    entry, _ = space.invite(Role.FIELD)
    engine.answer(admin, Append(entry), Appended)
    refusal = engine.answer(admin, Append(late), AppendRefused)
    assert (refusal.code, refusal.members_head) == ("stale_head", space.log.head)


def test_membership_entries_travel_without_the_hpke_key(engine: Relay, space: TestSpace) -> None:
    device = join(engine, space)
    rows = engine.rows(engine.connect(device))
    assert sum(len(row.payload) for row in rows) < sum(map(len, space.entries)) - 2 * 1216 + 10
    log = type(space.log)(space.id)
    for row in rows:
        log.apply(row.payload)
    assert log.head == space.log.head


# Memory


def test_spaces_that_nobody_uses_are_forgotten_and_come_back(engine: Relay) -> None:
    from crdt_sync_server.engine import MAX_RESTING_SPACES

    spaces = [TestSpace(seed) for seed in range(MAX_RESTING_SPACES + 5)]
    for space in spaces:
        engine.create(space)
        peer = engine.connect(space.founder)
        engine.push(peer, space.founder.update(R1))
        engine.do((peer, None))
        for other in list(engine.engine._roster.of(space.id)):
            engine.do((other, None))
    assert len(engine.engine._spaces) == MAX_RESTING_SPACES
    for space in spaces:
        assert kinds(engine.push(engine.connect(space.founder), space.founder.update(R1))) == ["Ack"]
