"""The sums a status makes, the pace of reconnecting, and what may be on its way at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crdt_sync.crypto.envelope import Header
from crdt_sync.ids import Author, DeviceId, Incarnation, OpaqueId, SpaceId
from crdt_sync_client.backoff import Backoff
from crdt_sync_client.push_window import FLIGHTS, PushWindow
from crdt_sync_client.status import SpaceStatus, Status, SyncState

SPACE = SpaceStatus("00", "Pit 4", "field", "ws://relay")


def summed(*spaces: SpaceStatus) -> Status:
    return Status.of(device_id="d", name="Tablet", spaces=spaces)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "offline"),
        (["offline"], "offline"),
        (["idle", "offline"], "idle"),
        (["idle", "syncing"], "syncing"),
        (["idle", "backoff", "connecting"], "backoff"),
        (["error", "backoff"], "error"),
    ],
)
def test_the_device_shows_its_most_telling_space(states: list[SyncState], expected: str) -> None:
    assert summed(*(replace(SPACE, state=state) for state in states)).state == expected


def test_counts_add_up_and_the_device_is_as_old_as_its_oldest_space() -> None:
    status = summed(
        replace(SPACE, pending=2, failed=1, conflicts=3, last_synced_at=500),
        replace(SPACE, pending=5, last_synced_at=400),
    )
    assert (status.pending, status.failed, status.conflicts, status.last_synced_at) == (7, 1, 3, 400)
    assert summed(replace(SPACE, last_synced_at=1), SPACE).last_synced_at is None
    assert status.to_json()["spaces"][1]["pending"] == 5


def test_reconnecting_waits_longer_each_time_and_starts_over_after_success() -> None:
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next_s() for _ in range(8)] == [0, 5, 10, 30, 60, 300, 300, 300]
    backoff.reset()
    assert backoff.next_s() == 0
    assert backoff.longest_s() == 300


def test_devices_do_not_come_back_in_step() -> None:
    late = Backoff(lambda: 0.999)
    waits = [late.next_s() for _ in range(6)]
    assert 0 < waits[0] <= 0.25
    assert waits[1:] == pytest.approx([6.25, 12.5, 37.5, 75, 375], rel=0.01)


def envelope(sequence: int, incarnation: int = 1) -> bytes:
    """The start of an update envelope, which is all the window reads."""
    header = Header.for_update(
        space=SpaceId(bytes(16)),
        record=OpaqueId(bytes(16)),
        author=Author(DeviceId(bytes(16)), Incarnation(incarnation)),
        epoch=1,
        sequence=sequence,
        prev=bytes(32),
        members_head=bytes(16),
        frontier=bytes(16),
    )
    return header.pack()


class Clock:
    """Every look is a second later, so no pause is felt."""

    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def test_at_most_two_pushes_are_on_their_way_and_each_acknowledgement_makes_room() -> None:
    window = PushWindow(1_000, 10_000_000, Clock())
    for sequence in range(1, FLIGHTS + 1):
        assert window.begin()
        window.finish([envelope(sequence)])
    assert not window.begin()
    window.acked(1, 1)
    assert window.wants
    assert window.begin()
    window.finish([])
    window.acked(1, FLIGHTS)
    assert window.idle
    assert (window.sent, window.acknowledged) == (FLIGHTS, FLIGHTS)


def test_a_push_that_holds_two_lives_of_the_device_needs_both_acknowledged() -> None:
    window = PushWindow(1_000, 10_000_000, Clock())
    assert window.begin()
    window.finish([envelope(8, incarnation=1), envelope(1, incarnation=2)])
    assert window.begin()
    window.finish([])
    window.acked(2, 1)
    assert window.acknowledged == 0
    window.acked(1, 8)
    assert window.idle


def test_what_comes_while_the_engine_is_asked_is_asked_for_again() -> None:
    window = PushWindow(1_000, 10_000_000, Clock())
    assert window.begin()
    assert not window.begin()
    window.finish([])
    assert window.wants


def test_a_large_push_is_followed_by_a_pause_that_ends_early_when_somebody_waits() -> None:
    now_s = 10.0
    window = PushWindow(1_000, 10_000_000, lambda: now_s)
    assert window.begin()
    window.finish([envelope(sequence) for sequence in range(1, 51)], more=True)
    assert window.pause_s == pytest.approx(0.05)
    assert window.wants
    assert not window.begin()
    with window.hurried():
        assert window.pause_s == 0
        assert window.begin()
        window.finish([])
    window.mark()
    assert not window.begin()
    now_s += 0.05
    assert window.begin()
    window.finish([envelope(sequence) for sequence in range(51, 500)])
    assert window.pause_s == pytest.approx(0.1)
