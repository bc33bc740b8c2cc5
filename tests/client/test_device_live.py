"""Live queries: the result whenever it has changed, and no work at all for what cannot change it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt_sync.errors import ValidationError
from crdt_sync.ids import RecordId
from crdt_sync_client.engine.filters import field
from crdt_sync_client.engine.live_matching import LiveAnswer
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Operation, RestoreOp, UpdateOp, changes_of
from crdt_sync_client.engine.queries import Query
from crdt_sync_client.live import LiveHub, LiveQuery
from tests.client.engine_world import JOB, SITE, World

ITEM = """\
x-type: item
x-version: 1
x-parent: {type: site, field: site_id}
properties:
  name: {type: string}
  site_id: {type: string}
"""


class App:
    """A store, and live queries over it whose readings are counted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.device = world.office
        self.readings = 0
        self.hub = LiveHub(self.read)

    async def read(self, query: Query) -> LiveAnswer:
        self.readings += 1
        return self.device.engine.live_answer(query)

    def write(self, *ops: Operation) -> None:
        self.hub.publish(changes_of(self.device.write(*ops)))

    def create(self, type: str = "job", **values: Any) -> RecordId:
        (result,) = self.device.write(CreateOp(type, values))
        self.hub.publish(changes_of([result]))
        return result.id

    def set(self, id: RecordId, **values: Any) -> None:
        self.write(UpdateOp("job", id, values))

    async def next(self, live: LiveQuery) -> list[str]:
        page = await asyncio.wait_for(anext(live), 5)
        return [str(record.values.get("title", record.values.get("name"))) for record in page.records]


async def _quiet(app: App, live: LiveQuery) -> bool:
    """Whether nothing was read and no result waits."""
    before = app.readings
    waiting = asyncio.ensure_future(anext(live))
    for _ in range(5):
        await asyncio.sleep(0)
    quiet = not waiting.done() and app.readings == before
    waiting.cancel()
    return quiet


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    world = World(tmp_path, schemas=(JOB, SITE, ITEM))
    yield App(world)
    world.close()


OPEN = Query("job", field("status") == "open", order="title", fields=("title",))


async def test_a_result_comes_at_first_and_when_it_has_changed(app: App) -> None:
    a, b = app.create(title="a"), app.create(title="b", status="busy")
    live = app.hub.query(OPEN)
    assert await app.next(live) == ["a"]
    app.set(b, status="open")
    assert await app.next(live) == ["a", "b"]
    app.set(a, title="z")
    assert await app.next(live) == ["b", "z"]
    app.set(b, status="done")
    assert await app.next(live) == ["z"]
    app.write(DeleteOp("job", a))
    assert await app.next(live) == []
    app.write(RestoreOp("job", a))
    app.create(title="n")
    assert await app.next(live) == ["n", "z"]


async def test_what_cannot_change_the_result_costs_no_reading(app: App) -> None:
    a, b = app.create(title="a"), app.create(title="b", status="busy")
    live = app.hub.query(OPEN)
    await app.next(live)
    app.create("site", name="of another type")
    app.set(b, title="not in it", count=2)
    app.set(a, count=5, hours=2)
    app.create(title="c", status="done")
    app.write(DeleteOp("job", b))
    assert await _quiet(app, live)
    app.set(a, title="aa")
    assert await app.next(live) == ["aa"]


async def test_steps_in_between_are_skipped_and_the_last_is_told(app: App) -> None:
    a = app.create(title="a")
    live = app.hub.query(OPEN)
    await app.next(live)
    before = app.readings
    for n in range(10):
        app.set(a, title=f"a{n}")
    assert await app.next(live) == ["a9"]
    assert app.readings == before + 1
    app.set(a, title="x")
    app.set(a, title="a9")
    assert not (await asyncio.wait([asyncio.ensure_future(anext(live))], timeout=0.05))[0]


async def test_a_change_while_the_result_is_read_is_not_lost(app: App) -> None:
    app.create(title="a")
    live = app.hub.query(OPEN)
    await app.next(live)
    real = app.hub.read

    async def slow(query: Query) -> LiveAnswer:
        answer = await real(query)
        app.hub.read = real
        app.create(title="c")
        return answer

    app.hub.read = slow
    app.create(title="b")
    assert await app.next(live) == ["a", "b"]
    assert await app.next(live) == ["a", "b", "c"]


async def test_states_wake_when_work_is_acknowledged_and_parents_are_deleted(app: App) -> None:
    site = app.create("site", name="Pit")
    app.world.settle()
    app.create("item", name="pump", site_id=site)
    unsent = app.hub.query(Query("item", state="pending"))
    orphans = app.hub.query(Query("item", state="orphaned"))
    shown = app.hub.query(Query("item"))
    assert (await app.next(unsent), await app.next(orphans)) == (["pump"], [])
    assert (await anext(shown)).records[0].sync_state == "pending"
    app.world.settle()
    app.hub.publish(())
    assert await app.next(unsent) == []
    assert (await anext(shown)).records[0].sync_state == "synced"
    app.write(DeleteOp("site", site))
    assert await app.next(orphans) == ["pump"]


async def test_it_ends_when_closed_and_tells_what_is_wrong_with_the_query(app: App) -> None:
    with pytest.raises(ValidationError, match="did you mean 'title'"):
        await anext(app.hub.query(Query("job", {"titel": "x"})))
    live = app.hub.query(OPEN)
    await app.next(live)
    waiting = asyncio.ensure_future(anext(live))
    await asyncio.sleep(0)
    app.hub.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_an_app_may_change_what_it_was_given(app: App) -> None:
    a = app.create(title="a", tags=["x"])
    live = app.hub.query(Query("job"))
    (record,) = (await anext(live)).records
    record.values["title"] = "mine"
    record.values["tags"].append("y")
    app.set(a, title="mine")
    (record,) = (await anext(live)).records
    assert (record["title"], record["tags"]) == ("mine", ["x"])


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["status", "title", "count", "delete", "restore", "tags"]),
        st.integers(0, 3),
    ),
    max_size=15,
)
QUERIES = st.sampled_from(
    [
        OPEN,
        Query("job", field("count") > 1, order=("-count", "title"), limit=2),
        Query("job", ~(field("count") > 1) & field("tags").contains("1"), fields=("status",)),
        Query("job", deleted="only", order="title"),
        Query("job", deleted=True, order="-title", limit=3),
        Query("job", field("title").starts_with("t1") | field("status").one_of("busy", "done")),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, query=QUERIES)
def test_the_last_result_told_is_what_the_query_finds(
    app: App, steps: list[tuple[int, str, int]], query: Query
) -> None:
    asyncio.run(_follow(app, steps, query))


async def _follow(app: App, steps: list[tuple[int, str, int]], query: Query) -> None:
    ids = [record.id for record in app.device.engine.query("job", deleted=True)][:4]
    ids += [app.create(title=f"t{n}") for n in range(len(ids), 4)]
    live = app.hub.query(query)
    told = (await anext(live)).records
    for which, what, value in steps:
        id = ids[which]
        deleted = app.device.engine.get("job", id) is None
        if what == "delete" and not deleted:
            app.write(DeleteOp("job", id))
        elif what == "restore":
            app.write(RestoreOp("job", id))
        elif not deleted and what not in ("delete", "restore"):
            names = ["open", "busy", "done", "open"]
            given = {"status": names[value], "title": f"t{value}", "count": value, "tags": [str(value)]}
            app.set(id, **{what: given[what]})
        now = app.device.engine.find(query)
        waiting = asyncio.ensure_future(anext(live))
        for _ in range(5):
            await asyncio.sleep(0)
        if waiting.done():
            told = waiting.result().records
        else:
            waiting.cancel()
            await asyncio.wait([waiting])
        assert [(r.id, r.values, r.deleted) for r in told] == [(r.id, r.values, r.deleted) for r in now]
    live.close()
