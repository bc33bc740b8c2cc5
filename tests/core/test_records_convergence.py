"""Any number of devices, any interleaving, any delivery: the same content, conflicts and values."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.records.changes import AddElement, Increment, RemoveElement
from crdt_sync.records.document import RecordDocument, merge_updates
from crdt_sync.records.view import view
from crdt_sync.roles import Role
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema
from tests.core.record_replicas import DELETE_WINS, EDIT_WINS, MANUAL, RECORD_ID, Replica, check_state, meet

VALUES = st.sampled_from(["a", "b", "draft", "done"])
KEYS = st.sampled_from(["A", "B"])
PIECES = st.tuples(st.just("boxes"), KEYS, st.just("pieces"), KEYS)
TEXTS = st.sampled_from(["", "a", "a b", "b a", "a b c", "a x c", "\U0001f600 b", None])
CHANGES: st.SearchStrategy[tuple[Any, Any]] = st.one_of(
    st.tuples(st.sampled_from(["status", "phase", "owner"]), VALUES),
    st.tuples(st.sampled_from(["actual"]), VALUES | st.none()),
    st.tuples(st.sampled_from(["planned", "cause"]), VALUES | st.sampled_from([1, True, 1.0, None])),
    st.tuples(st.sampled_from(["tags", "banned"]), st.builds(AddElement, VALUES)),
    st.tuples(st.sampled_from(["tags", "banned"]), st.builds(RemoveElement, VALUES)),
    st.tuples(st.just("tags"), st.lists(VALUES, max_size=2)),
    st.tuples(st.just("hours"), st.builds(Increment, st.sampled_from([1, 2, -1, 0.5]))),
    st.tuples(st.tuples(st.just("parts"), KEYS, st.just("qty")), st.integers(0, 3)),
    st.tuples(st.tuples(st.just("parts"), KEYS, st.just("note")), VALUES),
    st.tuples(st.tuples(st.just("parts"), KEYS, st.just("labels")), st.builds(AddElement, VALUES)),
    st.tuples(st.tuples(st.just("parts"), KEYS, st.just("used")), st.builds(Increment, st.integers(1, 2))),
    st.tuples(st.tuples(st.just("parts"), KEYS), st.none() | st.just({})),
    st.tuples(st.tuples(st.just("crew"), KEYS, st.just("task")), VALUES),
    st.tuples(st.tuples(st.just("crew"), KEYS), st.none()),
    st.tuples(st.just("reading"), st.sampled_from([1, 2.5, 2, None])),
    st.tuples(st.just("since"), st.sampled_from(["2026-11-05", "2026-11-05T00:30:00+01:00", None])),
    st.tuples(st.just("ticket"), st.sampled_from(["T1", "T2", None])),
    st.tuples(st.just("story"), TEXTS),
    st.tuples(st.tuples(st.just("boxes"), KEYS, st.just("story")), TEXTS),
    st.tuples(st.tuples(st.just("boxes"), KEYS), st.none() | st.just({"label": "x"})),
    st.tuples(PIECES, st.none() | st.just({})),
    st.tuples(PIECES.map(lambda path: (*path, "serial")), VALUES),
    st.tuples(PIECES.map(lambda path: (*path, "reading")), st.integers(0, 3)),
    st.tuples(PIECES.map(lambda path: (*path, "used")), st.builds(Increment, st.integers(1, 2))),
    st.tuples(PIECES.map(lambda path: (*path, "marks")), st.builds(AddElement, VALUES)),
)
STEPS = st.one_of(
    st.tuples(st.just("set"), CHANGES),
    st.tuples(st.just("set"), CHANGES),
    st.tuples(st.sampled_from(["delete", "restore", "create"]), st.none()),
    st.tuples(st.just("meet"), st.integers(0, 4)),
)


def play(schema: RecordSchema, count: int, steps: list[Any], shuffle: random.Random) -> list[Replica]:
    """Devices act in turn and now and then take some of another's updates, in any order, some twice."""
    replicas = [Replica(number, schema) for number in range(count)]
    replicas[0].create({"status": "draft"})
    for replica in replicas[1:]:
        replica.take(replicas[0].updates)
    for place, drift, (action, argument) in steps:
        replica = replicas[place % count]
        replica.now_ms += drift
        if action == "meet":
            other = replicas[argument % count]
            if other is not replica:
                some = shuffle.sample(other.updates, shuffle.randint(0, len(other.updates)))
                replica.take(some + some[:1])
        elif action == "set":
            replica.attempt("set", dict([argument]))
        else:
            replica.attempt(action)
    return replicas


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(
    "schema", [EDIT_WINS, DELETE_WINS, MANUAL], ids=["edit_wins", "delete_wins", "manual"]
)
@settings(max_examples=120, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(-(10**9), 10**9), STEPS), max_size=30),
    seed=st.integers(0, 2**32),
)
def test_replicas_converge(schema: RecordSchema, count: int, steps: list[Any], seed: int) -> None:
    shuffle = random.Random(seed)
    replicas = play(schema, count, steps, shuffle)
    everything = [update for replica in replicas for update in replica.updates]
    for replica in replicas:
        replica.take(shuffle.sample(everything, len(everything)))
        replica.take(shuffle.choices(everything, k=3))
    first = replicas[0]
    for replica in replicas[1:]:
        assert replica.doc.content_hash() == first.doc.content_hash()
        assert replica.view() == first.view()
        assert list(replica.view().values) == list(first.view().values)
    assert not any(replica.doc.pending for replica in replicas)
    check_state(first)

    # Somebody who gets it all as one merged update, and somebody who closes and opens between pieces.
    mixed = shuffle.sample(everything, len(everything))
    at_once = RecordDocument(merge_updates(mixed))
    assert at_once.content_hash() == first.doc.content_hash()
    state = None
    for start in range(0, len(mixed), 3):
        doc = RecordDocument(state)
        doc.apply(merge_updates(mixed[start : start + 3]))
        state = doc.state()
    doc = RecordDocument(state)
    assert doc.content_hash() == first.doc.content_hash()
    assert view(schema, schema.type, RECORD_ID, doc.writes()) == first.view()


@settings(max_examples=120, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(-(10**9), 10**9), STEPS), max_size=25),
    count=st.sampled_from([2, 3, 5]),
)
def test_sequential_edits_never_conflict_whatever_the_clocks_say(steps: list[Any], count: int) -> None:
    replicas = [Replica(number) for number in range(count)]
    replicas[0].create({"status": "draft"})
    for replica in replicas[1:]:
        replica.take(replicas[0].updates)
    for place, drift, (action, argument) in steps:
        replica = replicas[place % count]
        replica.now_ms += drift
        before = len(replica.updates)
        if action == "set":
            replica.attempt("set", dict([argument]))
        elif action != "meet":
            replica.attempt(action)
        for other in replicas:
            if other is not replica:
                other.take(replica.updates[before:])
            assert other.view().conflicts == ()
            assert all(
                len(writes) == 1
                for path, writes in other.doc.writes().items()
                if path[-1] not in ("hours", "used")
            )  # every author keeps a total of its own


@pytest.mark.parametrize(("devices", "edits", "most_bytes"), [(5, 10_000, 1_536), (50, 2_500, 4_096)])
def test_a_record_overwritten_thousands_of_times_stays_small(
    devices: int, edits: int, most_bytes: int
) -> None:
    """Twenty fields; what is overwritten leaves nothing but how much there was. Full size: benchmarks."""
    fields = [f"field_{number}" for number in range(20)]
    schema = load_schema(
        "x-type: wide\nx-version: 1\nproperties:\n" + "".join(f"  {name}: {{}}\n" for name in fields),
        source="test",
    )
    replicas = [Replica(number, schema, Role.FIELD) for number in range(devices)]
    replicas[0].create(dict.fromkeys(fields, "first"))
    chance = random.Random(devices)
    for step in range(edits):
        if step % 10 == 0:  # everybody gets what was written since: some edits are always concurrent
            made = {replica.number: replica.updates for replica in replicas if replica.updates}
            for replica in replicas:
                others = [
                    each for number, updates in made.items() if number != replica.number for each in updates
                ]
                replica.take([merge_updates(others)])
            for replica in replicas:
                replica.updates = []
        chance.choice(replicas).set({fields[step % 20]: f"value {step}"})
    meet(*replicas)
    sizes = {len(replica.doc.state()) for replica in replicas}
    assert len(sizes) == 1
    assert max(sizes) <= most_bytes
    assert len({replica.doc.content_hash() for replica in replicas}) == 1
