"""A part of a transaction waits behind what was refused, and its record had other unsent work before."""

from __future__ import annotations

import pytest

from crdt_sync.ids import RecordId
from crdt_sync.records.changes import Increment
from crdt_sync_client.engine.model import UpdateOp
from tests.client.engine_world import Peer, World
from tests.client.group_kit import set_all, shown, together
from tests.client.test_engine_lives import refuse
from tests.client.test_engine_refusals import assert_whole, push, refuse_record


@pytest.mark.parametrize("sealed", [False, True])
def test_a_part_that_waits_does_not_go_with_earlier_work_of_its_record(
    world: World, anna: Peer, ids: list[RecordId], sealed: bool
) -> None:
    a, b, c, d = ids
    anna.set(a, count=1)
    refuse_record(anna, a)
    anna.set(c, title="refused for now")
    anna.set(b, title="before it", hours=Increment(2))
    sent = push(anna) if sealed else []
    together(
        anna,
        UpdateOp("job", a, {"notes": "together"}),
        UpdateOp("job", b, {"notes": "together", "hours": Increment(5)}),
    )
    anna.set(d, title="goes on")
    first, *_ = sent or push(anna)
    refuse(anna, first, "checked_out", times=3)
    world.settle()
    assert shown(world.office, [a, b]) == [None, None]
    assert anna.values(b)["title"] == "before it"
    assert world.office.values(d)["title"] == "goes on"
    world.now_ms += 600_000
    world.settle()
    assert world.office.values(c)["title"] == "refused for now"
    assert [anna.get(id).sync_state for id in ids] == ["failed", "failed", "synced", "synced"]
    assert shown(world.office, [a, b]) == [None, None]
    anna.engine.retry(type="job", id=a)
    world.settle()
    world.assert_converged()
    assert shown(world.office, [a, b]) == ["together", "together"]
    assert (world.office.values(b)["title"], world.office.values(b)["hours"]) == ("before it", 7)
    assert anna.engine.outbox() == []
    assert_whole(world.office, b)


def test_what_the_part_wrote_over_is_not_torn_from_its_own_transaction(
    world: World, anna: Peer, ids: list[RecordId]
) -> None:
    a, b, c, d = ids
    anna.set(a, count=1)
    refuse_record(anna, a)
    anna.set(c, title="refused for now")
    set_all(anna, [b, d], title="first")
    set_all(anna, [a, b], title="second")
    refuse(anna, push(anna)[0], "checked_out", times=3)
    world.settle()
    assert shown(world.office, [b, d], "title") in (["Job 1", "Job 3"], ["first", "first"])
    anna.reopen()
    anna.engine.retry()
    world.settle()
    world.assert_converged()
    assert shown(world.office, ids, "title") == ["second", "second", "refused for now", "first"]
    assert anna.engine.outbox() == []
