"""Watchers: every change in order while they keep up, the latest state of every record when they do not."""

from __future__ import annotations

import asyncio
import gc

from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.ids import RecordId
from crdt_sync_client.records import Record
from crdt_sync_client.watching import Change, Origin, Watch, WatchHub

CAPACITY = 4


class Store:
    """Holds the latest state, as the device's store does."""

    def __init__(self) -> None:
        self.values: dict[RecordId, int] = {}
        self.hub = WatchHub(self.read)

    async def read(self, record_type: str, record_id: RecordId) -> Record | None:
        return self.record(record_type, record_id)

    def record(self, record_type: str, record_id: RecordId) -> Record:
        return Record(record_id, record_type, "s", {"n": self.values[record_id]}, "synced")

    def write(self, name: str, value: int, *, field: str = "n", origin: Origin = "local") -> None:
        record_id = RecordId(name)
        self.values[record_id] = value
        self.hub.publish([Change("t", record_id, self.record("t", record_id), origin, (field,))])


async def test_a_watcher_sees_what_happens_after_it_was_made_in_order() -> None:
    store = Store()
    store.write("a", 0)
    watch = store.hub.watch(None, None)
    store.write("a", 1)
    store.write("b", 2)
    seen = [await anext(watch), await anext(watch)]
    assert [(c.id, c.record and c.record["n"]) for c in seen] == [("a", 1), ("b", 2)]


async def test_a_watcher_of_one_record_or_type_sees_only_that() -> None:
    store = Store()
    of_record = store.hub.watch("t", RecordId("b"))
    of_other_type = store.hub.watch("u", None)
    store.write("a", 1)
    store.write("b", 2)
    assert (await anext(of_record)).id == "b"
    assert of_record.waiting == of_other_type.waiting == 0


async def test_a_waiting_watcher_wakes_up_and_ends_when_it_is_closed() -> None:
    store = Store()
    watch = store.hub.watch(None, None)
    reading = asyncio.create_task(_all(watch))
    await asyncio.sleep(0)
    store.write("a", 1)
    await asyncio.sleep(0)
    store.hub.close()
    assert [change.id for change in await reading] == ["a"]


async def test_a_watcher_that_fell_behind_skips_steps_but_not_the_latest_state() -> None:
    store = Store()
    watch = store.hub.watch(None, None, CAPACITY)
    for value in range(100):
        store.write("a", value, field=f"f{value % 3}", origin="remote" if value == 50 else "local")
        store.write("b", -value)
    watch.close()
    changes = await _all(watch)
    assert len(changes) == CAPACITY + 2
    last = {change.id: change for change in changes}
    assert last[RecordId("a")].record == store.record("t", RecordId("a"))
    assert last[RecordId("b")].record == store.record("t", RecordId("b"))
    assert set(last[RecordId("a")].fields) == {"f0", "f1", "f2"}
    assert last[RecordId("a")].origin == "remote"
    assert last[RecordId("b")].origin == "local"


async def test_a_watcher_nobody_holds_any_more_is_forgotten() -> None:
    store = Store()
    watch = store.hub.watch(None, None)
    assert store.hub.has_watchers
    del watch
    gc.collect()
    assert not store.hub.has_watchers


steps = st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 9))), max_size=80)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_whatever_the_pace_the_watcher_ends_at_the_latest_state_within_its_bound(
    steps: list[tuple[str, int] | None],
) -> None:
    async def run() -> None:
        store = Store()
        watch = store.hub.watch(None, None, CAPACITY)
        seen: dict[RecordId, int] = {}
        for step in steps:
            if step is not None:
                store.write(*step)
            elif watch.waiting:
                change = await anext(watch)
                assert change.record is not None
                seen[change.id] = change.record["n"]
            assert watch.waiting <= CAPACITY + len(store.values)
        watch.close()
        for change in await _all(watch):
            assert change.record is not None
            seen[change.id] = change.record["n"]
        assert seen == store.values

    asyncio.run(run())


async def _all(watch: Watch) -> list[Change]:
    return [change async for change in watch]
