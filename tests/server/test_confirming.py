"""A snapshot stands for what others wrote only after one of them has looked into it."""

from __future__ import annotations

from typing import Any

import pytest

from crdt_sync.crypto.envelope import parse
from crdt_sync.protocol.frames import (
    CompactRequest,
    ConfirmRequest,
    ConfirmSnapshot,
    DenySnapshot,
    FromDevice,
    PushSnapshot,
    RowKind,
    SnapshotResult,
)
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync_server.compaction import IDLE_MS
from crdt_sync_server.confirming import ASK_AGAIN_MS, GRACE_MS, LOOK_AGAIN_MS, SILENT_MS
from crdt_sync_server.effects import Effect, Peer, Replaced, Send
from tests.server.engine_kit import Relay
from tests.server.relay_kit import TestDevice, TestSpace, record

R1 = record(1)


class Team:
    """An office, a tablet and a reader at a relay that waits for a second device's word."""

    def __init__(self, relay: Relay) -> None:
        relay.grace_ms = GRACE_MS
        relay.restart()
        self.relay = relay
        self.space = TestSpace(4)
        self.office, self.tablet, self.third = self.space.founder, self.space.member(), self.space.member()
        relay.create(self.space)
        self.base = len(self.space.entries)
        self.peers: dict[TestDevice, Peer] = {}
        self._effects: list[Effect] = []
        process = relay.engine.process

        def noted(*arguments: Any) -> list[Effect]:
            effects = process(*arguments)
            self._effects += effects
            return effects

        object.__setattr__(relay.engine, "process", noted)  # the same, and noted

    def connect(self, *devices: TestDevice) -> None:
        for device in devices:
            self.peers[device] = self.relay.connect(device)
            self.peers[device].caught_up = True

    def push(self, device: TestDevice) -> bytes:
        raw = device.update(R1)
        self.relay.push(self.peers[device], raw)
        return raw

    def propose(self, device: TestDevice, covered: list[bytes]) -> bytes:
        raw = device.snapshot(R1, covered)
        answer = self.relay.answer(self.peers[device], PushSnapshot(raw), SnapshotResult)
        assert answer.code == "proposed"
        return raw

    def tick(self, later_ms: int = 1) -> list[Effect]:
        self.relay.now_ms += later_ms
        return self.relay.engine.tick(self.relay.now_ms)

    def asked(self, later_ms: int = 1) -> list[tuple[TestDevice, ConfirmRequest]]:
        """Who was asked since the last time, at once or by the next tick."""
        names = {peer: device for device, peer in self.peers.items()}
        effects, self._effects = [*self._effects, *self.tick(later_ms)], []
        return [
            (names[effect.peer], effect.frame)
            for effect in effects
            if isinstance(effect, Send) and isinstance(effect.frame, ConfirmRequest)
        ]

    def say(self, device: TestDevice, frame: FromDevice) -> bool:
        """Whether the snapshot took its place."""
        return any(isinstance(effect, Replaced) for effect in self.relay.do((self.peers[device], frame)))

    def kinds(self) -> list[RowKind]:
        reader = self.relay.connect(TestDevice(self.space, self.third.keys, incarnation=99))
        return [row.kind for row in self.relay.rows(reader, self.base)]


def hash_of(raw: bytes) -> bytes:
    return parse(raw, max_bytes=MAX_ENVELOPE_BYTES).hash


@pytest.fixture
def team(engine: Relay) -> Team:
    return Team(engine)


def proposed(team: Team) -> bytes:
    team.connect(team.office, team.tablet)
    return team.propose(team.office, [team.push(team.office), team.push(team.tablet)])


def test_nothing_is_pruned_before_a_second_device_has_said_so(team: Team) -> None:
    snapshot = proposed(team)
    assert team.kinds() == [RowKind.UPDATE] * 2
    assert team.asked() == [(team.tablet, ConfirmRequest(snapshot, []))]
    assert not team.say(team.office, ConfirmSnapshot(R1, hash_of(snapshot)))
    assert not team.say(team.tablet, ConfirmSnapshot(R1, bytes(32)))
    assert team.kinds() == [RowKind.UPDATE] * 2
    assert team.say(team.tablet, ConfirmSnapshot(R1, hash_of(snapshot)))
    assert team.kinds() == [RowKind.SNAPSHOT]


def test_the_second_is_shown_what_the_snapshot_does_not_cover(team: Team) -> None:
    snapshot = proposed(team)
    assert team.asked() == [(team.tablet, ConfirmRequest(snapshot, []))]
    later = team.push(team.tablet)
    team.say(team.tablet, DenySnapshot(R1, hash_of(snapshot), "unable"))
    assert team.asked(ASK_AGAIN_MS) == [(team.tablet, ConfirmRequest(snapshot, [later]))]
    assert team.say(team.tablet, ConfirmSnapshot(R1, hash_of(snapshot)))
    assert team.kinds() == [RowKind.SNAPSHOT, RowKind.UPDATE]


def test_a_snapshot_that_lies_prunes_nothing_and_is_told_of(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = proposed(team)
    team.asked()
    assert not team.say(team.tablet, DenySnapshot(R1, hash_of(snapshot), "differs"))
    assert team.kinds() == [RowKind.UPDATE] * 2
    assert "holds something else than it covers" in caplog.text
    key = team.relay.storage.find_space(team.space.id)
    assert key is not None
    assert "snapshot_denied" in [row.event.event for row in team.relay.storage.books.audit(key, 0, 99)]
    assert not team.say(team.tablet, ConfirmSnapshot(R1, hash_of(snapshot)))


def test_who_cannot_tell_is_asked_again_and_then_another(team: Team) -> None:
    snapshot = proposed(team)
    assert [device for device, _ in team.asked()] == [team.tablet]
    team.say(team.tablet, DenySnapshot(R1, hash_of(snapshot), "unable"))
    assert team.asked() == []
    assert [device for device, _ in team.asked(ASK_AGAIN_MS)] == [team.tablet]
    assert team.asked(ASK_AGAIN_MS) == []
    team.connect(team.third)
    assert [device for device, _ in team.asked(SILENT_MS)] == [team.third]
    assert team.say(team.third, ConfirmSnapshot(R1, hash_of(snapshot)))


def test_one_that_dies_before_it_answers_holds_nothing_up(team: Team) -> None:
    proposed(team)
    team.asked()
    team.relay.do((team.peers.pop(team.tablet), None))
    team.connect(team.third)
    assert [device for device, _ in team.asked(LOOK_AGAIN_MS)] == [team.third]


def test_when_nobody_can_tell_it_is_taken_after_the_grace(team: Team) -> None:
    proposed(team)
    team.relay.do((team.peers.pop(team.tablet), None))
    team.tick(GRACE_MS - LOOK_AGAIN_MS)
    assert team.kinds() == [RowKind.UPDATE] * 2
    assert any(isinstance(effect, Replaced) for effect in team.tick(LOOK_AGAIN_MS))
    assert team.kinds() == [RowKind.SNAPSHOT]
    team.relay.restart()
    assert team.kinds() == [RowKind.SNAPSHOT]


def test_what_one_device_wrote_alone_it_compacts_alone(team: Team) -> None:
    team.connect(team.office, team.tablet)
    raw = team.office.snapshot(R1, [team.push(team.office), team.push(team.office)])
    assert team.relay.snapshot(team.peers[team.office], raw) == "stored"


def test_of_two_at_once_one_counts_and_nothing_is_missing(team: Team) -> None:
    team.connect(team.office, team.tablet, team.third)
    updates = [team.push(team.office), team.push(team.tablet)]
    first = team.propose(team.office, updates)
    second = team.propose(team.tablet, updates)
    assert not team.say(team.third, ConfirmSnapshot(R1, hash_of(first)))
    assert team.say(team.third, ConfirmSnapshot(R1, hash_of(second)))
    assert team.relay.snapshot(team.peers[team.office], first) == "stale"
    assert team.kinds() == [RowKind.SNAPSHOT]


def test_a_restart_forgets_what_waited_and_the_log_is_whole(team: Team) -> None:
    snapshot = proposed(team)
    team.relay.restart()
    team.connect(team.office, team.tablet)
    assert not team.say(team.tablet, ConfirmSnapshot(R1, hash_of(snapshot)))
    assert team.kinds() == [RowKind.UPDATE] * 2


def test_nobody_else_is_asked_to_compact_what_waits(team: Team) -> None:
    team.connect(team.office, team.tablet)
    updates = [team.push(team.office) for _ in range(3)] + [team.push(team.tablet)]
    requests = [e for e in team.tick(IDLE_MS + 1) if isinstance(e, Send)]
    assert len(requests) == 1
    team.propose(team.office, updates)
    after = [effect.frame for effect in team.tick(IDLE_MS + 1) if isinstance(effect, Send)]
    assert not any(isinstance(frame, CompactRequest) for frame in after)


def test_who_can_never_tell_is_asked_ever_more_seldom(team: Team) -> None:
    """It is sent the snapshot each time."""
    snapshot = proposed(team)
    asked = 0
    for _ in range(1_200):  # a minute
        for device, _ in team.asked(50):
            asked += 1
            team.say(device, DenySnapshot(R1, hash_of(snapshot), "unable"))
    assert 5 <= asked <= 12
