"""Queries find what a walk over all records finds, in the same order, page by page; nothing breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crdt_sync.errors import ValidationError
from crdt_sync.ids import RecordId
from crdt_sync.schemas.loader import load_schema
from crdt_sync_client.engine.filters import ALWAYS, AllOf, AnyOf, Filter, field
from crdt_sync_client.engine.matching import Matcher
from crdt_sync_client.engine.model import CreateOp, DeleteOp, Record, UpdateOp
from crdt_sync_client.engine.queries import Order, Query
from tests.client.engine_world import Peer, World

ORDER = """\
x-type: order
x-version: 1
x-indexes: [status, [site, cost], [seen_at]]
properties:
  title: {type: string, x-merge: text}
  status: {type: string, enum: [open, busy, done]}
  site: {type: string}
  cost: {type: number}
  done: {type: boolean}
  due: {type: string, format: date}
  seen_at: {type: string, format: date-time}
  tags: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
  photo: {type: string, contentEncoding: base64}
  parts:
    type: object
    x-merge: rows
    additionalProperties: {type: object, properties: {qty: {type: number}}}
"""
NASTY = [
    "", "a", "A", "ab", "abc", "b", "é", "ü", "日本", "'", '"', "\\", "%", "_", "x' OR 1=1 --", "\x00",
    "a\x00b",     "퟿", "\U0010ffff", "a\U0010ffff", "null", "1", "true", "[1]",
]  # fmt: skip
TEXTS = st.sampled_from(NASTY)
NUMBERS = st.one_of(
    st.integers(-3, 3), st.sampled_from([0.5, -0.0, 1e300, -1.5, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, minutes=-30))])
MOMENTS = st.builds(
    lambda ms, zone: (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).astimezone(zone),
    st.sampled_from([0, 1, 999, 1000, 3_600_000, 86_400_000]),
    ZONES,
)
DAYS = st.builds(lambda n: date(2026, 3, 1) + timedelta(days=n), st.integers(0, 3))
KEYS = st.sampled_from(["A", "seal 1.2", "it's", 'say "x"', "a\\b", "line\nend", "日", "[0]"])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXTS,
        "status": st.sampled_from(["open", "busy", "done"]),
        "site": TEXTS,
        "cost": NUMBERS,
        "done": st.booleans(),
        "due": DAYS.map(date.isoformat),
        "seen_at": MOMENTS.map(datetime.isoformat),
        "tags": st.lists(TEXTS, max_size=3, unique=True),
        "parts": st.dictionaries(KEYS, st.fixed_dictionaries({"qty": NUMBERS}), max_size=2),
    },
)
Test = Callable[[dict[str, Any]], bool]
Both = tuple[Filter, Test]


def _get(values: dict[str, Any], name: str) -> Any:
    value = values.get(name)
    return datetime.fromisoformat(value) if name == "seen_at" and value is not None else value


def _comparison(name: str, op: str, given: Any) -> Both:
    """A condition, and the same in plain Python on the values of a record."""
    meant = given.isoformat() if name == "due" else given
    here = field(name)

    def plain(compare: Callable[[Any, Any], bool]) -> Test:
        return lambda values: (found := _get(values, name)) is not None and compare(found, meant)

    return {
        "=": (here == given, plain(lambda a, b: bool(a == b))),
        "!=": (here != given, lambda values: _get(values, name) != meant),
        "<": (here < given, plain(lambda a, b: bool(a < b))),
        "<=": (here <= given, plain(lambda a, b: bool(a <= b))),
        ">": (here > given, plain(lambda a, b: bool(a > b))),
        ">=": (here >= given, plain(lambda a, b: bool(a >= b))),
    }[op]


def _part(key: str, least: Any) -> Both:
    def holds(values: dict[str, Any]) -> bool:
        row = values.get("parts", {}).get(key)
        return row is not None and row.get("qty") is not None and row["qty"] >= least

    return field("parts", key, "qty") >= least, holds


OPS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
LEAVES: st.SearchStrategy[Both] = st.one_of(
    st.builds(_comparison, st.sampled_from(["title", "site"]), OPS, TEXTS),
    st.builds(_comparison, st.just("cost"), OPS, NUMBERS),
    st.builds(_comparison, st.just("done"), st.sampled_from(["=", "!="]), st.booleans()),
    st.builds(_comparison, st.just("due"), OPS, DAYS),
    st.builds(_comparison, st.just("seen_at"), OPS, MOMENTS),
    st.builds(_part, KEYS, NUMBERS),
    st.sampled_from(["title", "status", "cost", "seen_at", "done"]).map(
        lambda name: (field(name).is_null(), lambda values: values.get(name) is None)
    ),
    TEXTS.map(lambda text: (field("tags").contains(text), lambda values: text in values.get("tags", []))),
    st.lists(TEXTS, max_size=2, unique=True).map(
        lambda some: (field("tags") == some, lambda values: set(values.get("tags", [])) == set(some))
    ),
    st.builds(
        lambda name, text: (
            field(name).starts_with(text),
            lambda values: values.get(name) is not None and values[name].startswith(text),
        ),
        st.sampled_from(["title", "site"]),
        TEXTS,
    ),
    st.lists(TEXTS, max_size=3).map(
        lambda some: (field("site").one_of(*some), lambda values: values.get("site") in some)
    ),
    st.tuples(NUMBERS, NUMBERS).map(
        lambda ends: (
            field("cost").between(*ends),
            lambda values: values.get("cost") is not None and ends[0] <= values["cost"] <= ends[1],
        )
    ),
    st.sampled_from(["open", "busy", "done"]).map(
        lambda status: (field("status") == status, lambda values: values.get("status") == status)
    ),
)  # fmt: skip


def _join(parts: list[Both], every: bool) -> Both:
    filters = tuple(part[0] for part in parts)
    tests = [part[1] for part in parts]
    if every:
        return AllOf(filters), lambda values: all(test(values) for test in tests)
    return AnyOf(filters), lambda values: any(test(values) for test in tests)


CONDITIONS: st.SearchStrategy[Both] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(_join, st.lists(inner, max_size=3), st.booleans()),
        inner.map(lambda part: (~part[0], lambda values: not part[1](values))),
    ),
    max_leaves=6,
)
ORDERS = st.lists(
    st.builds(
        Order,
        st.sampled_from(["title", "status", "site", "cost", "done", "due", "seen_at", "parts.A.qty"]),
        st.booleans(),
        st.sampled_from([None, "first", "last"]),
    ),
    max_size=3,
)


def _sorted(records: list[Record], orders: list[Order]) -> list[Record]:
    def key(record: Record, name: str) -> Any:
        if name == "parts.A.qty":
            return record.values.get("parts", {}).get("A", {}).get("qty")
        return _get(record.values, name)

    def compare(one: Record, other: Record) -> int:
        for order in orders:
            a, b = key(one, str(order.field)), key(other, str(order.field))
            if a is None or b is None:
                if (a is None) == (b is None):
                    continue
                return -1 if (a is None) != order.nulls_last else 1
            if a != b:
                return -1 if (a < b) != order.descending else 1
        if not orders:
            return 0
        return -1 if (one.id < other.id) != orders[-1].descending else 1

    return sorted(records, key=cmp_to_key(compare))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, schemas=(ORDER,))
    yield world
    world.close()


def _ids(records: list[Record]) -> list[RecordId]:
    return [record.id for record in records]


def _fill(device: Peer, rows: list[dict[str, Any]]) -> list[Record]:
    """These records and no others, in the order in which they came."""
    old = device.engine.query("order")
    device.write(*[DeleteOp("order", record.id) for record in old])
    device.write(*[CreateOp("order", row) for row in rows])
    return device.engine.query("order")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(VALUES, max_size=12), both=CONDITIONS, orders=ORDERS, size=st.integers(1, 5))
def test_a_query_finds_what_a_walk_over_all_records_finds(
    world: World, rows: list[dict[str, Any]], both: Both, orders: list[Order], size: int
) -> None:
    engine = world.office.engine
    everything = _fill(world.office, rows)
    condition, test = both
    expected = _ids(_sorted([record for record in everything if test(record.values)], orders))
    query = Query("order", condition, tuple(orders))
    assert _ids(engine.find(query)) == expected
    assert engine.count(query) == len(expected)
    paged, token = [], None
    while True:
        found, token = engine.page(Query("order", condition, tuple(orders), limit=size), token)
        paged += found
        if token is None:
            break
    assert _ids(paged) == expected
    matcher = Matcher(engine.schemas()["order"], query)
    assert [r.id for r in everything if matcher.holds(r.values)] == [
        r.id for r in everything if r.id in expected
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.one_of(st.text(max_size=40), TEXTS),
    value=st.one_of(st.text(max_size=40), TEXTS),
    path=st.booleans(),
)
def test_hostile_names_and_values_find_nothing_and_break_nothing(
    world: World, name: str, value: str, path: bool
) -> None:
    device = world.office
    if not device.engine.count("order"):
        device.write(CreateOp("order", {"site": "here", "cost": 1}))
    before = device.engine._replica.db.value("SELECT count(*) FROM sqlite_master")
    anything: Any = name
    attempts: list[Callable[[], Any]] = [
        lambda: device.engine.query("order", {("parts", name, "qty") if path else name: 1}),
        lambda: device.engine.query("order", field(name) == value),
        lambda: device.engine.query("order", field("site").one_of(value, name)),
        lambda: device.engine.query("order", field("tags").contains(value)),
        lambda: device.engine.query("order", field("site").starts_with(value)),
        lambda: device.engine.query("order", order_by=name),
        lambda: device.engine.page(Query("order", order=("site",), limit=1), value),
        lambda: device.engine.find(Query("order", state=anything)),
        lambda: device.engine.find(Query("order", fields=(name,))),
    ]
    for attempt in attempts:
        try:
            found = attempt()
        except ValidationError:
            continue
        assert isinstance(found, list | tuple)
    assert device.engine.count("order") == 1
    assert device.engine._replica.db.value("SELECT count(*) FROM sqlite_master") == before


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (field("statsu") == "open", "statsu: a order has no field 'statsu'; did you mean 'status'?"),
        (field("status") == "opne", "status: is never 'opne'; did you mean 'open'?"),
        (field("cost") > "much", "cost: takes a number, got text ('much')"),
        (field("done") == "yes", "done: takes true or false, got text ('yes')"),
        (field("due") < "tomorrow", "due: is not a date such as 2026-03-01"),
        (field("seen_at") < "noon", "seen_at: is not a date-time such as 2026-03-01T08:00:00Z"),
        (field("seen_at") < datetime(2026, 3, 1), "seen_at: a time needs its zone"),
        (field("due") < datetime(2026, 3, 1, tzinfo=UTC), "due: is a date, got a date with a time"),
        (field("tags") > "a", "tags: is a set"),
        (field("site").contains("a"), "site: contains nothing: it is one value"),
        (field("parts") == {}, "parts: has rows"),
        (field("parts", "A") == 1, "parts.A: is not one value"),
        (field("parts", "A", "qyt") == 1, "parts.A.qyt: there is no such field; did you mean 'qty'?"),
        (field("cost") < float("nan"), "cost: can only be compared with a finite number"),
        (field("cost").starts_with("1"), "cost: takes a number, got text ('1')"),
        (field("cost") < None, "cost: null is neither less nor greater than anything"),
        (field("photo") < b"a", "photo: holds bytes, which only equal bytes, got 1 bytes"),
    ],
)
def test_what_does_not_fit_is_told_with_the_field(world: World, condition: Filter, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        world.office.engine.query("order", condition)
    assert caught.value.message == message


def test_orders_limits_and_pages_that_do_not_fit_are_told(world: World) -> None:
    engine = world.office.engine
    misspelt: Any = "faild"
    for query, message in [
        (Query("order", order="-cots"), "cots: a order has no field 'cots'; did you mean 'cost'?"),
        (Query("order", order="tags"), "tags: is not one value to order by"),
        (Query("order", limit=-1), "limit: must be 0 or more"),
        (Query("order", state=misspelt), "state: there is no state 'faild'; did you mean 'failed'?"),
        (Query("order", state="orphaned"), "state: a order has no parent, so it cannot be orphaned"),
    ]:
        with pytest.raises(ValidationError) as caught:
            engine.find(query)
        assert caught.value.message == message
    world.office.write(*[CreateOp("order", {"cost": n}) for n in range(3)])
    _, token = engine.page(Query("order", order="cost", limit=1))
    assert token is not None
    with pytest.raises(ValidationError, match="page: is no page of this query"):
        engine.page(Query("order", order="-cost", limit=1), token)


def test_pages_go_on_where_they_ended_whatever_is_written_in_between(world: World) -> None:
    device = world.office
    device.write(*[CreateOp("order", {"cost": n * 10}) for n in range(10)])
    query = Query("order", order="cost", limit=4)
    first, token = device.engine.page(query)
    device.write(CreateOp("order", {"cost": -5}), CreateOp("order", {"cost": 35}), CreateOp("order", {}))
    device.write(DeleteOp("order", first[-1].id))
    rest = []
    while token is not None:
        found, token = device.engine.page(query, token)
        rest += found
    assert [r.values.get("cost") for r in first] == [0, 10, 20, 30]
    assert [r.values.get("cost") for r in rest] == [35, 40, 50, 60, 70, 80, 90]


def test_states_deleted_and_chosen_fields(world: World) -> None:
    office, tablet = world.office, world.join("tablet")
    a, b = office.create({"site": "a", "cost": 1}, "order"), office.create({"site": "b"}, "order")

    def sites(**asked: Any) -> list[Any]:
        return [r.values.get("site") for r in office.engine.find(Query("order", order="site", **asked))]

    assert sites(state="pending") == ["a", "b"]
    assert sites(state=("synced", "failed")) == []
    world.settle()
    assert sites(state="synced") == ["a", "b"]
    office.write(DeleteOp("order", a))
    assert (sites(), sites(deleted=True), sites(deleted="only")) == (["b"], ["a", "b"], ["a"])
    assert sites(state="pending", deleted=True) == ["a"]
    (found,) = office.engine.find(Query("order", fields=("site",)))
    assert found.values == {"site": "b"}
    assert tablet.engine.count(Query("order", field("cost") == 1)) == 1
    assert office.engine.count(Query("order", ALWAYS)) == 1
    tablet.write(UpdateOp("order", b, {"site": "c"}))


def _indexes(device: Peer) -> list[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB 'records_by_x_*' ORDER BY 1"
    return [name for (name,) in device.engine._replica.db.rows(sql)]


def test_indexes_come_change_and_go_with_the_schema(world: World) -> None:
    office, tablet = world.office, world.join("tablet")
    assert len(_indexes(office)) == 3
    assert _indexes(tablet) == _indexes(office)
    fewer = ORDER.replace("x-version: 1", "x-version: 2").replace(", [site, cost], [seen_at]]", "]")
    office.engine.add_schema(world.space, load_schema(fewer, source="order.yaml"))
    assert len(_indexes(office)) == 1
    world.settle()
    assert _indexes(tablet) == _indexes(office)
    tablet.engine._replica.db.execute(f"DROP INDEX {_indexes(tablet)[0]}")
    tablet.reopen()
    assert _indexes(tablet) == _indexes(office)


def test_an_index_is_used_for_conditions_and_orders_it_fits(world: World) -> None:
    engine = world.office.engine
    world.office.write(*[CreateOp("order", {"site": "x", "cost": n}) for n in range(5)])
    for query, used in [
        (Query("order", field("status") == "open"), "<expr>=?"),
        (Query("order", field("status").one_of("open", "done")), "<expr>=?"),
        (Query("order", (field("site") == "x") & (field("cost") > 2)), "<expr>=? AND <expr>>? AND <expr><?"),
        (Query("order", field("seen_at") > datetime.now(UTC)), "<expr>>?"),
        (Query("order", field("site") == "x", order="-cost", limit=2), "<expr>=?"),
    ]:
        plan = _plan(engine, query)
        assert "USING INDEX records_by_x_" in plan[0], plan
        assert used in plan[0], plan
        if query.order:
            assert len(plan) == 1, "no sorting is needed"
    assert "records_by_x_" not in _plan(engine, Query("order", field("title") == "x"))[0]


def _plan(engine: Any, query: Query) -> list[str]:
    from crdt_sync_client.engine.queries import Prepared

    replica = engine._replica
    space = replica.space(None)
    sql = Prepared(space.schema(query.type), query).select("no, id", space.no, limit=query.limit)
    return [row[3] for row in replica.db.rows(f"EXPLAIN QUERY PLAN {sql.text}", sql.params)]


def test_a_condition_that_nothing_can_fulfil_finds_nothing_also_by_an_index(world: World) -> None:
    engine = world.office.engine
    _fill(world.office, [{"title": "a", "status": "open"}])
    order = (Order("status"),)
    for nothing in (AnyOf(()), field("status").one_of(), field("site").one_of() & (field("cost") > 1)):
        assert engine.find(Query("order", nothing, order, limit=1)) == []
        assert engine.page(Query("order", nothing, order, limit=1), None) == ([], None)
        assert engine.count(Query("order", nothing)) == 0
