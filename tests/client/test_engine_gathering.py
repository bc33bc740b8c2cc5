"""What others wrote together shows together, whatever arrives when and whoever dies in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crdt_sync.crypto.envelope import Kind
from crdt_sync.crypto.groups import GroupPlace
from crdt_sync.crypto.payload import Payload
from crdt_sync.errors import BadUpdate
from crdt_sync.ids import RecordId
from crdt_sync_client import Device
from crdt_sync_client.cli.output import Output
from crdt_sync_client.cli.syncing import _note_unfinished
from crdt_sync_client.engine import sealing
from crdt_sync_client.engine.model import UpdateOp
from crdt_sync_client.engine.waiting import AT_HEAD, BEHIND
from tests.client.engine_world import Peer, World
from tests.client.group_kit import deliver, opened, set_all, shown, together, waiting

ALL = ["together"] * 3
NONE = [None] * 3


@pytest.fixture
def ben(world: World) -> Peer:
    return world.join("ben")


@pytest.fixture
def ids(world: World, anna: Peer, ben: Peer) -> list[RecordId]:
    made = [world.office.create({"title": f"Job {n}"}) for n in range(4)]
    world.settle()
    anna.connect()
    ben.connect()
    return made


def push_part(peer: Peer, count: int) -> list[bytes]:
    """Send that many envelopes of all there are, and die with the rest; returns the rest."""
    sent = peer.engine.next_push(peer.space, max_count=99, max_bytes=10**7)
    for raw in sent[:count]:
        assert peer.world.relay.push(raw)
    return sent[count:]


def write_group(peer: Peer, ids: list[RecordId], **changes: Any) -> None:
    set_all(peer, ids[:3], **(changes or {"notes": "together"}))


def one_by_one(peer: Peer) -> None:
    """Deliver row by row, all there are."""
    while peer.engine.space(peer.space).cursor < peer.world.relay.head:
        deliver(peer, 1)


# The plain case


@pytest.mark.parametrize("dies", [False, True])
def test_nothing_shows_before_the_last_part_is_there_and_then_all_at_once(
    anna: Peer, ben: Peer, ids: list[RecordId], dies: bool
) -> None:
    write_group(anna, ids)
    rest = push_part(anna, 1)
    for raw in rest:
        assert deliver(ben).changes == ()
        assert shown(ben, ids[:3]) == NONE
        if dies:
            ben.crash()
            ben.connect()
        assert ben.world.relay.push(raw)
    received = deliver(ben)
    assert {change.id for change in received.changes} == set(ids[:3])
    assert shown(ben, ids[:3]) == ALL
    assert waiting(ben) == 0
    assert ben.engine._replica.space(ben.space).unmerged == {}
    anna.sync()
    ben.world.settle()
    ben.world.assert_converged()


def test_one_batch_with_all_of_it_keeps_nothing_on_the_disk(
    anna: Peer, ben: Peer, ids: list[RecordId]
) -> None:
    write_group(anna, ids)
    anna.set(ids[0], notes="and then alone")
    anna.push()
    received = deliver(ben)
    assert len(received.changes) == 3
    assert shown(ben, ids[:3]) == ["and then alone", "together", "together"]
    assert waiting(ben) == 0


def test_records_made_together_are_there_together(anna: Peer, ben: Peer, ids: list[RecordId]) -> None:
    from crdt_sync_client.engine.model import CreateOp

    outcome = together(anna, *(CreateOp("job", {"title": f"Step {n}"}) for n in range(3)))
    made = [result.id for result in outcome.results]
    rest = push_part(anna, 2)
    deliver(ben)
    assert shown(ben, made, "title") == NONE
    anna.world.relay.push(rest[0])
    deliver(ben)
    assert shown(ben, made, "title") == ["Step 0", "Step 1", "Step 2"]


def test_what_comes_twice_while_it_waits_is_taken_once(anna: Peer, ben: Peer, ids: list[RecordId]) -> None:
    write_group(anna, ids)
    rest = push_part(anna, 2)
    deliver(ben)
    space = ben.engine._replica.space(ben.space)
    space.cursor = 0  # as after a relay that was put back
    received = deliver(ben)
    assert received.duplicates >= 2
    assert waiting(ben) == 2
    anna.world.relay.push(rest[0])
    deliver(ben)
    assert shown(ben, ids[:3]) == ALL
    space.cursor = 0
    assert deliver(ben).changes == ()
    assert waiting(ben) == 0


def test_a_snapshot_that_comes_twice_while_it_waits_is_taken_once(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId]
) -> None:
    write_group(anna, ids)
    anna.push()
    world.office.sync()
    world.office.compact(ids[0])
    space = ben.engine._replica.space(ben.space)
    before = space.cursor
    rows = world.relay.after(before, ben.greeted)
    (snapshot,) = [row for row in rows if row[1] == Kind.SNAPSHOT]
    for _ in range(2):  # the relay was put back in between, and delivers from the beginning
        received = ben.engine.receive(ben.space, [snapshot], snapshot[0], caught_up=False)
        space.cursor = before
    assert received.duplicates == 1
    assert waiting(ben) == 1
    assert shown(ben, ids[:3]) == NONE
    deliver(ben)
    assert shown(ben, ids[:3]) == ALL
    assert waiting(ben) == 0


# An author who does not come back


def test_others_go_on_with_records_of_a_group_whose_author_died(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId]
) -> None:
    write_group(anna, ids, notes="together", count=1)
    rest = push_part(anna, 2)
    world.office.sync()
    ben.sync()
    for n in range(3):
        ben.set(ids[0], title=f"ben was here {n}", status="busy")
        ben.sync()
        world.office.sync()
    assert world.office.values(ids[0])["title"] == "ben was here 2"
    assert shown(world.office, ids[:3]) == NONE
    assert waiting(world.office) == 2
    late = world.join("late")
    assert shown(late, ids[:3]) == NONE
    assert late.values(ids[0])["title"] == "ben was here 2"
    # What waits is named in snapshots as not merged, so the relay keeps it, and the rest is compacted.
    (snapshot,) = world.office.compact(ids[0])
    cover = opened(world.office, snapshot)[0].cover()
    assert {author.device for author, _ in cover.unmerged} == {anna.engine.device_id}
    later = world.join("later")
    assert later.values(ids[0])["title"] == "ben was here 2"
    assert later.engine.status_counts().quarantined == 0
    for raw in rest:
        world.relay.push(raw)
    everyone = [world.office, ben, late, later]
    for peer in everyone:
        peer.sync()
        assert shown(peer, ids[:3]) == ALL
        assert waiting(peer) == 0
        assert peer.engine.status_counts().quarantined == 0
    world.settle()
    world.assert_converged()


# Pruned parts


def test_a_part_that_was_pruned_counts_as_arrived_at_the_end_of_the_log(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId]
) -> None:
    """The snapshot of one record stands far behind the other parts; nothing shows before it."""
    write_group(anna, ids)
    anna.push()
    anna.set(ids[3], count=3)
    anna.push()
    world.office.sync()
    world.office.set(ids[1], title="later")
    world.office.sync()
    assert len(world.office.compact(ids[1])) == 1
    rows = world.relay.after(ben.engine._replica.space(ben.space).cursor, ben.greeted)
    assert [kind for _, kind, _ in rows] == [Kind.UPDATE] * 3 + [Kind.SNAPSHOT]
    for _ in rows[:-1]:
        deliver(ben, 1)
        assert shown(ben, ids[:3]) == NONE
        ben.crash()
        ben.connect()
    assert ben.values(ids[3])["count"] == 3  # what stands alone does not wait
    assert ben.engine._replica.space(ben.space).catching_up == BEHIND
    deliver(ben)
    assert shown(ben, ids[:3]) == ALL
    assert ben.values(ids[1])["title"] == "later"
    assert waiting(ben) == 0
    assert ben.engine._replica.space(ben.space).catching_up == AT_HEAD
    world.settle()
    world.assert_converged()


def test_a_snapshot_that_comes_before_the_other_parts_waits_for_them(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId]
) -> None:
    write_group(anna, ids)
    anna.push()
    world.office.sync()
    world.office.compact(ids[0])
    rows = world.relay.after(ben.engine._replica.space(ben.space).cursor, ben.greeted)
    cursor = rows[0][0] - 1
    rows.insert(0, rows.pop())  # the relay puts it where the update stood that it covers
    for place, (_, kind, raw) in enumerate(rows):
        assert shown(ben, ids[:3]) == NONE
        ben.engine.receive(
            ben.space, [(cursor + 1 + place, kind, raw)], cursor + 1 + place, caught_up=place == 2
        )
        ben.crash()
    assert shown(ben, ids[:3]) == ALL
    assert waiting(ben) == 0


@pytest.mark.parametrize("apart", [False, True])
def test_a_part_that_cannot_show_without_rows_that_were_pruned_counts_as_missing(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId], apart: bool
) -> None:
    """A relay still has rows in memory that a snapshot covers; what they build on is gone from its disk."""
    anna.set(ids[0], title="first")
    anna.push()
    write_group(anna, ids)
    anna.push()
    rows = world.relay.after(ben.engine._replica.space(ben.space).cursor, ben.greeted)
    world.office.sync()
    world.office.set(ids[0], title="later")
    world.office.sync()
    world.office.compact(ids[0])
    in_memory = rows[1:]
    for part in [in_memory[:1], in_memory[1:]] if apart else [in_memory]:
        assert ben.engine.receive(ben.space, part, part[-1][0], caught_up=False).changes == ()
        assert shown(ben, ids[:3]) == NONE
        ben.crash()
        ben.connect()
    assert waiting(ben) == 3
    deliver(ben)
    assert shown(ben, ids[:3]) == ALL
    assert ben.values(ids[0])["title"] == "later"
    assert waiting(ben) == 0
    world.settle()
    world.assert_converged()


@pytest.mark.parametrize("by_snapshot", [False, True])
def test_a_group_whose_parts_build_on_what_is_here_shows_before_the_end_of_the_log(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId], by_snapshot: bool
) -> None:
    for n in range(3):
        anna.set(ids[0], title=f"the {n + 1}. time")
        anna.push()
    if by_snapshot:
        world.office.sync()
        world.office.compact(ids[0])
    write_group(anna, ids)
    anna.push()
    anna.set(ids[3], count=3)
    anna.push()
    rows = world.relay.after(ben.engine._replica.space(ben.space).cursor, ben.greeted)
    deliver(ben, len(rows) - 1)
    assert ben.engine._replica.space(ben.space).catching_up == BEHIND
    assert shown(ben, ids[:3]) == ALL
    assert waiting(ben) == 0


def test_whoever_is_new_gets_records_as_they_come_and_groups_whole_from_then_on(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    write_group(anna, ids)
    anna.push()
    world.office.sync()
    world.office.compact(ids[2])
    late = world.join("late", sync=False)
    late.connect()
    one_by_one(late)
    assert shown(late, ids[:3]) == ALL
    write_group(anna, ids, notes="again")
    rest = push_part(anna, 2)
    deliver(late)
    assert shown(late, ids[:3]) == ALL
    anna.world.relay.push(rest[0])
    deliver(late)
    assert shown(late, ids[:3]) == ["again"] * 3


# Hostile and broken


def lying(monkeypatch: pytest.MonkeyPatch, lie: Callable[[int, int], tuple[int, int]]) -> None:
    monkeypatch.setattr(sealing, "GroupPlace", lambda position, size: GroupPlace(*lie(position, size)))


def test_a_part_that_cannot_be_merged_takes_the_others_with_it(
    anna: Peer, ben: Peer, ids: list[RecordId], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_group(anna, ids)

    def broken(type: str, id: RecordId, version: int, change: bytes, group: bytes | None) -> Payload:
        return Payload(type, id, version, b"no update" if id == ids[1] else change, group)

    monkeypatch.setattr(sealing, "Payload", broken)
    anna.push()
    monkeypatch.undo()
    anna.set(ids[3], count=9)
    anna.push()
    one_by_one(ben)
    assert shown(ben, ids[:3]) == NONE
    assert ben.values(ids[3])["count"] == 9
    assert waiting(ben) == 0
    assert ben.engine.status_counts().quarantined == 3
    # Who put it aside says so, and a snapshot of who could merge it brings it.
    assert len(anna.compact(*ids[:3])) == 3
    ben.engine._replica.space(ben.space).cursor = 0  # as at another relay
    deliver(ben)
    assert shown(ben, ids[:3]) == ALL
    assert ben.engine.status_counts().quarantined == 0


@pytest.mark.parametrize("lie", [
    lambda position, size: (position, size + position),
    lambda position, size: (0, 2),
    lambda position, size: (min(position + 1, 2), 3),
])  # fmt: skip
def test_who_contradicts_himself_about_a_group_is_put_aside(
    anna: Peer,
    ben: Peer,
    ids: list[RecordId],
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[int, int], tuple[int, int]],
) -> None:
    write_group(anna, ids)
    lying(monkeypatch, lie)
    anna.push()
    monkeypatch.undo()
    for id in ids:
        anna.set(id, count=9)
    anna.push()
    one_by_one(ben)
    assert ben.engine.status_counts().quarantined >= 1
    assert "together" in shown(ben, ids[:3]) or shown(ben, ids[:3]) == NONE
    assert ben.values(ids[3])["count"] == 9
    assert waiting(ben) <= 3


@pytest.mark.parametrize("raw", [
    b"", b"\x92\x00\x01", b"\x92\x02\x02", b"\x92\xff\x02", b"\x92\x00\xcd\x03\xe9", b"\x92\x00\xcc\x02",
    b"\x93\x00\x02\x00", b"\x92\x00\xcb\x40\x00\x00\x00\x00\x00\x00\x00", b"\x92\xa1a\x02",
])  # fmt: skip
def test_a_place_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(BadUpdate):
        GroupPlace.decode(raw)


def test_a_group_that_begins_before_its_chain_is_put_aside(
    anna: Peer, ben: Peer, ids: list[RecordId], monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, lambda position, size: (999, 1000))
    write_group(anna, ids)
    anna.push()
    deliver(ben)
    assert ben.engine.status_counts().quarantined == 3
    assert shown(ben, ids[:3]) == NONE
    ben.write(UpdateOp("job", ids[0], {"notes": "goes on"}))
    assert ben.values(ids[0])["notes"] == "goes on"


# What people see of it


async def test_the_status_names_what_waits_for_the_rest_and_since_when(
    world: World, anna: Peer, ben: Peer, ids: list[RecordId], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ben.engine.space(ben.space).unfinished == ()
    write_group(anna, ids)
    rest = push_part(anna, 2)
    before_ms = world.now_ms
    deliver(ben)
    (group,) = ben.engine.space(ben.space).unfinished
    assert (group.device_name, group.arrived, group.size) == ("anna", 2, 3)
    assert before_ms < group.since_ms <= world.now_ms
    ben.engine.close()
    async with await Device.open(ben.path, key=ben.key) as device:
        (space,) = (await device.status()).spaces
    ben._open()
    ben.connect()
    assert space.to_json()["unfinished"] == [
        {
            "device": anna.engine.device_id.hex(), "device_name": "anna", "arrived": 2, "size": 3,
            "since_at": group.since_ms,
        }
    ]  # fmt: skip
    _note_unfinished(Output(as_json=False), space)
    assert "North rig: 2 of 3 changes that anna made together have come, since" in capsys.readouterr().err
    anna.world.relay.push(rest[0])
    deliver(ben)
    assert ben.engine.space(ben.space).unfinished == ()
