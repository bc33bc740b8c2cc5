"""The documents against an independent model of causality, in plain Python.

The model knows operations and which of them their author had seen, nothing else: no arrays, no contexts,
no marks that come and go. A write stands unless another write of the same path, or the making anew of
the row or record around it, had seen it. A row or record is gone when everything that stands under it
has been seen by some removal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sync.records.changes import Increment
from tests.core.record_replicas import DELETE_WINS, EDIT_WINS, Replica

Path = tuple[str, ...]
SUPERVISOR_FIRST = {"supervisor": 2, "office": 1}


@dataclass(eq=False)
class Op:
    """One operation. `anew` is the prefix whose old content it did away with, if any."""

    number: int
    replica: Replica
    path: Path
    value: Any
    time: int
    seen: frozenset[Op]
    anew: list[Path] = field(default_factory=list)
    removes: bool = False


class Model:
    """What a device that has seen some operations should show."""

    def __init__(self, delete_wins: bool) -> None:
        self.delete_wins = delete_wins

    def stands(self, op: Op, seen: frozenset[Op]) -> bool:
        return not any(
            op in later.seen
            and (later.path == op.path or any(op.path[: len(prefix)] == prefix for prefix in later.anew))
            for later in seen
        )

    def standing(self, seen: frozenset[Op], prefix: Path = ()) -> list[Op]:
        mark = (*prefix, "gone")
        return [
            op
            for op in seen
            if op.path[: len(prefix)] == prefix and op.path != mark and self.stands(op, seen)
        ]

    def gone(self, seen: frozenset[Op], prefix: Path) -> bool:
        removals = [op for op in seen if op.removes and op.path == (*prefix, "gone")]
        under = self.standing(seen, prefix)
        if not under:
            return True
        if self.delete_wins and not prefix:
            return any(self.stands(op, seen) for op in removals)
        # A removal that somebody made anew after has done its work.
        return bool(removals) and all(any(op in removal.seen for removal in removals) for op in under)

    def values(self, seen: frozenset[Op]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        by_path: dict[Path, list[Op]] = {}
        for op in self.standing(seen):
            if not op.removes:
                by_path.setdefault(op.path, []).append(op)
        for path, ops in by_path.items():
            if path[0] == "hours":
                continue
            if path[0] == "parts":
                if not self.gone(seen, path[:2]):
                    row = shown.setdefault("parts", {}).setdefault(path[1], {})
                    row[path[2]] = choose(path[2], ops)
            elif path[0] != "exists":
                shown[path[0]] = choose(path[0], ops)
        return shown


def choose(name: str, ops: list[Op]) -> Any:
    """Each rule once more, written as a sentence about a list."""

    def clock(op: Op) -> Any:
        return (op.time, op.replica.author.device)

    if name == "owner":
        best = max(SUPERVISOR_FIRST.get(op.replica.role.text, 0) for op in ops)
        ops = [op for op in ops if SUPERVISOR_FIRST.get(op.replica.role.text, 0) == best]
    elif name == "phase":
        rank = {"draft": 1, "done": 2}
        best = max(rank.get(op.value, 0) for op in ops)
        ops = [op for op in ops if rank.get(op.value, 0) == best]
    elif name in ("actual", "qty"):
        ops = [op for op in ops if op.replica.role.text == "field"] or ops
    elif name == "planned":
        office = [op for op in ops if op.replica.role.text in ("office", "supervisor")]
        ops = office or [op for op in ops if op.replica.role.text == "admin"] or ops
    return sorted(ops, key=clock)[-1].value


FIELDS = st.sampled_from(["status", "phase", "owner", "actual", "planned", "cause"])
VALUES = st.sampled_from(["draft", "done", "other"])
ACTIONS = st.one_of(
    st.tuples(st.just("set"), FIELDS.map(lambda name: (name,)), VALUES),
    st.tuples(
        st.just("set"), st.tuples(st.just("parts"), st.sampled_from("AB"), st.just("qty")), st.integers(0, 3)
    ),
    st.tuples(st.just("set"), st.tuples(st.just("parts"), st.sampled_from("AB"), st.just("note")), VALUES),
    st.tuples(st.just("remove"), st.tuples(st.just("parts"), st.sampled_from("AB")), st.none()),
    st.tuples(st.sampled_from(["delete", "restore", "create"]), st.just(()), st.none()),
    st.tuples(st.just("meet"), st.integers(0, 4), st.none()),
    st.tuples(st.just("meet"), st.integers(0, 4), st.none()),
)


class World:
    """Replicas and, beside each, the operations the model says it has seen."""

    def __init__(self, count: int, delete_wins: bool) -> None:
        self.model = Model(delete_wins)
        schema = DELETE_WINS if delete_wins else EDIT_WINS
        self.replicas = [Replica(number, schema) for number in range(count)]
        self.seen: list[frozenset[Op]] = [frozenset()] * count
        self.updates: dict[Op, list[bytes]] = {}

    def note(
        self, place: int, path: Path, value: Any, *, anew: list[Path] | None = None, removes: bool = False
    ) -> Op:
        seen = self.seen[place]
        replica = self.replicas[place]
        op = Op(len(self.updates), replica, path, value, replica.clock.last, seen, anew or [], removes)
        self.seen[place] = seen | {op}
        self.updates[op] = []
        return op

    def act(self, place: int, action: str, path: Any, value: Any) -> None:
        replica, seen, model = self.replicas[place], self.seen[place], self.model
        before = len(replica.updates)
        gone = model.gone(seen, ())
        if action == "meet":
            self.meet(place, path % len(self.replicas))
        elif action == "set" and not gone:
            edit = replica.set({path: value})
            if edit:
                row = path[:2]
                anew = [row] if len(path) == 3 and model.gone(seen, row) else []
                self.note(place, path, value, anew=anew)
        elif action == "remove" and not gone:
            if not model.gone(seen, path):
                replica.set({path: None})
                self.note(place, (*path, "gone"), None, removes=True)
            else:
                assert not replica.set({path: None})
        elif action == "delete" and not gone:
            replica.delete()
            self.note(place, ("gone",), None, removes=True)
        elif action == "restore" and gone and model.standing(seen):
            replica.restore()
            self.note(place, ("exists",), None)
            self.lift(place)
        elif action == "create" and gone:
            replica.create({"status": "draft"})
            self.note(place, ("status",), "draft", anew=[()])
        made = replica.updates[before:]
        if made:
            newest = max(self.seen[place], key=lambda op: op.number)
            self.updates[newest] += made

    def lift(self, place: int) -> None:
        """A restoration undoes the deletions it has seen: under `delete_wins` their marks go."""
        restored = max(self.seen[place], key=lambda op: op.number)
        restored.anew = [("gone",)]

    def meet(self, place: int, other: int) -> None:
        """Everything the other has seen, whoever made it: so that what is seen is closed under causes."""
        for op in sorted(self.seen[other] - self.seen[place], key=lambda op: op.number):
            self.replicas[place].take(self.updates[op])
        self.seen[place] |= self.seen[other]

    def check(self, place: int) -> None:
        replica, seen = self.replicas[place], self.seen[place]
        seen_view = replica.view()
        gone = self.model.gone(seen, ())
        assert (seen_view.deleted or not seen_view.exists) == gone
        if not gone:
            shown = {name: value for name, value in seen_view.values.items() if value not in ([], {}, 0)}
            for row in shown.get("parts", {}).values():
                del row["labels"], row["used"]  # the model's rows have no sets and counters
            assert shown == self.model.values(seen)


@pytest.mark.parametrize("delete_wins", [False, True], ids=["edit_wins", "delete_wins"])
@pytest.mark.parametrize("count", [2, 3, 5])
@settings(max_examples=120, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 4), st.integers(-(10**8), 10**8), ACTIONS), max_size=30))
def test_documents_agree_with_the_model(count: int, delete_wins: bool, steps: list[Any]) -> None:
    world = World(count, delete_wins)
    world.act(0, "create", (), None)
    for place in range(1, count):
        world.meet(place, 0)
    for step, drift, (action, path, value) in steps:
        place = step % count
        world.replicas[place].now_ms += drift
        world.act(place, action, path, value)
        world.check(place)
    for place in range(1, count):
        world.meet(0, place)
    for place in range(1, count):
        world.meet(place, 0)
    for place in range(count):
        world.check(place)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 5), st.booleans()), max_size=30))
def test_counters_add_up_to_every_increment(steps: list[tuple[int, int, bool]]) -> None:
    replicas = [Replica(number) for number in range(3)]
    replicas[0].create({"status": "draft"})
    for replica in replicas[1:]:
        replica.take(replicas[0].updates)
    for place, amount, meets in steps:
        if meets:
            replicas[place].take(replicas[(place + 1) % 3].updates)
        replicas[place].set({"hours": Increment(amount)})
    for replica in replicas:
        for other in replicas:
            if other is not replica:
                replica.take(other.updates)
        total = replica.view().values["hours"]
        assert total == sum(amount for _, amount, _ in steps)
        assert type(total) is int
