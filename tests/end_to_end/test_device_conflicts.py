"""What an app does with conflicts: decide, merge, restore, remember, watch; over a real relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crdt_sync.errors import (
    ConflictClosed,
    ConflictNotFound,
    MergeFailed,
    UnknownType,
    ValidationError,
)
from crdt_sync_client import Alternative, Device, OwnValue
from tests.end_to_end.office import KEY, TYPE, office_and_tablet

PATIENCE_S = 20.0


class Pair(NamedTuple):
    """Two devices and an order in which both have written apart."""

    office: Device
    tablet: Device
    order: str

    async def settle(self) -> None:
        for device in (self.office, self.tablet, self.office):
            await device.sync(timeout_s=PATIENCE_S)

    async def apart(self, office: dict[str, Any], tablet: dict[str, Any]) -> None:
        await self.office.update(TYPE, self.order, office)
        await self.tablet.update(TYPE, self.order, tablet)
        await self.settle()

    async def value(self, field: str) -> Any:
        """What both show."""
        shown = []
        for device in (self.office, self.tablet):
            record = await device.get(TYPE, self.order)
            assert record is not None
            shown.append(record.values.get(field))
        assert shown[0] == shown[1]
        return shown[0]


@pytest.fixture
async def pair(tmp_path: Path, relay: Any) -> AsyncIterator[Pair]:
    async with office_and_tablet(tmp_path, relay, space="Pit") as (office, tablet):
        order = await office.create(TYPE, {"title": "Swap bucket"})
        pair = Pair(office, tablet, order.id)
        await pair.settle()
        yield pair


async def disagree(pair: Pair) -> str:
    """About the root cause; returns the conflict's id, which both have."""
    await pair.apart({"root_cause": "Worn pins"}, {"root_cause": "Cracked lip"})
    (ours,) = await pair.office.conflicts()
    (theirs,) = await pair.tablet.conflicts()
    assert ours.id == theirs.id
    return ours.id


def both(alternatives: tuple[Alternative, ...]) -> str:
    return "; ".join(sorted(each.value for each in alternatives))


async def later(alternatives: tuple[Alternative, ...]) -> str:
    await asyncio.sleep(0)
    return both(alternatives)


@pytest.mark.parametrize("merge", [both, later])
async def test_a_merge_function_sees_all_versions_and_decides(pair: Pair, merge: Any) -> None:
    conflict = await disagree(pair)
    written = await pair.office.resolve(conflict, merge=merge)
    assert written.resolved == (conflict,)
    await pair.settle()
    assert await pair.value("root_cause") == "Cracked lip; Worn pins"
    assert (await pair.tablet.conflict(conflict)).resolver_name == "Office"


async def test_a_merge_function_that_fails_changes_nothing_and_is_named(pair: Pair) -> None:
    conflict = await disagree(pair)

    def broken(_: tuple[Alternative, ...]) -> str:
        raise KeyError("secret value")

    with pytest.raises(MergeFailed, match="the merge function raised KeyError") as raised:
        await pair.office.resolve(conflict, merge=broken)
    assert isinstance(raised.value.__cause__, KeyError)
    assert "secret" not in str(raised.value)
    with pytest.raises(MergeFailed, match="merge function returned takes text"):
        await pair.office.resolve(conflict, merge=lambda _: 7)
    with pytest.raises(ValidationError, match="merge is one already"):
        await pair.office.resolve(conflict, merge=both, keep="mine")
    assert (await pair.office.conflict(conflict)).state == "open"
    await pair.office.resolve(conflict, merge=both)
    with pytest.raises(ConflictClosed, match="closed by Office"):
        await pair.office.resolve(conflict, merge=broken)


async def test_all_conflicts_of_a_record_are_decided_in_one_call(pair: Pair) -> None:
    await pair.apart(
        {"root_cause": "a", "completion_notes": "b", "description": "c"},
        {"root_cause": "x", "completion_notes": "y", "description": "z"},
    )
    assert {entry.field for entry in await pair.office.conflicts()} == {"root_cause", "completion_notes"}
    with pytest.raises(ConflictNotFound, match="about title") as unknown:
        await pair.office.resolve_record(TYPE, pair.order, {"title": "mine"}, keep="mine")
    assert "completion_notes, description, root_cause" in unknown.value.hint
    for bad in (OwnValue(7), 2, lambda _: 1 / 0, True):
        with pytest.raises(ValidationError):
            await pair.office.resolve_record(TYPE, pair.order, {"root_cause": bad}, keep="mine")
    assert await pair.office.count_conflicts() == 2
    await pair.office.resolve_record(
        TYPE, pair.order, {"root_cause": both, "description": OwnValue("own")}, keep="theirs"
    )
    await pair.settle()
    assert await pair.office.count_conflicts() == 0 == await pair.tablet.count_conflicts()
    assert [await pair.value(name) for name in ("root_cause", "completion_notes", "description")] == [
        "a; x",
        "y",
        "own",
    ]
    with pytest.raises(ConflictNotFound, match="has no open conflict"):
        await pair.office.resolve_record(TYPE, pair.order, keep="mine")


async def test_a_version_that_lost_comes_back_in_one_call(pair: Pair) -> None:
    await pair.apart({"description": "from the office"}, {"description": "from the tablet"})
    (entry,) = await pair.office.conflicts(state="auto")
    await pair.office.update(TYPE, pair.order, {"description": "more"})
    await pair.settle()
    loser = 1 - entry.winner
    written = await pair.tablet.restore_version(entry.id, loser)
    assert (written.changed, written.resolved) == (True, ())
    await pair.settle()
    assert await pair.value("description") == entry.alternatives[loser].value
    with pytest.raises(ValidationError, match="alternatives 0 to 1"):
        await pair.tablet.restore_version(entry.id, 5)


async def test_a_preference_is_remembered_suggested_and_used_when_asked(pair: Pair, tmp_path: Path) -> None:
    office = pair.office
    await office.preferences.set(TYPE, "root_cause", keep="field")
    conflict = await disagree(pair)
    entry = await office.conflict(conflict)
    assert entry.suggestion is not None
    assert entry.alternatives[entry.suggestion.alternative].value == "Cracked lip"
    assert entry.suggestion.why == "your preference for root_cause of work_order is field"
    assert entry.state == "open", "never applied by itself"
    assert (await pair.tablet.conflict(conflict)).suggestion is None, "remembered on one device only"
    await office.resolve(conflict, suggested=True)
    await pair.settle()
    assert await pair.value("root_cause") == "Cracked lip"
    await office.close()
    async with await Device.open(tmp_path / "o.db", key=KEY) as again:
        (kept,) = await again.preferences.ls()
        assert (kept.type, kept.field, kept.keep) == (TYPE, "root_cause", "field")
        assert await again.preferences.clear(TYPE, "root_cause") == 1
        assert await again.preferences.clear(TYPE) == 0


async def test_a_decision_can_be_remembered(pair: Pair) -> None:
    conflict = await disagree(pair)
    with pytest.raises(ValidationError, match="no side that could be remembered"):
        await pair.office.resolve(conflict, value="own", remember=True)
    with pytest.raises(ValidationError, match="no preference is remembered"):
        await pair.office.resolve(conflict, suggested=True)
    assert (await pair.office.conflict(conflict)).state == "open"
    await pair.office.resolve(conflict, keep="theirs", remember=True)
    await pair.settle()
    await pair.apart({"root_cause": "p"}, {"root_cause": "q"})
    (entry,) = await pair.office.conflicts()
    assert entry.suggestion is not None
    assert entry.alternatives[entry.suggestion.alternative].value == "q"


@pytest.mark.parametrize(
    ("field", "keep", "says"),
    [
        ("root_cause", "boss", "give one of mine, theirs, field, office, supervisor or admin"),
        ("root_cause", "reader", "give one of mine"),
        ("root_cause", "deleted", "give one of mine"),
        ("root_caus", "mine", "its fields are"),
        ("tags", "mine", "a field with one value"),
        ("parts_used.*.qtty", "mine", ""),
    ],
)
async def test_a_preference_for_what_there_is_not_is_refused(
    pair: Pair, field: str, keep: str, says: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        await pair.office.preferences.set(TYPE, field, keep=keep)
    assert says in refused.value.hint
    assert await pair.office.preferences.ls() == []


async def test_a_preference_for_a_row_is_for_all_rows(pair: Pair) -> None:
    made = await pair.office.preferences.set(TYPE, "parts_used.A.qty", keep="mine")
    assert made.field == "parts_used.*.qty"
    assert (await pair.office.preferences.set(TYPE, "$deleted", keep="record")).keep == "record"
    with pytest.raises(UnknownType, match="gadget"):
        await pair.office.preferences.set("gadget", "x", keep="mine")


async def test_a_watcher_wakes_when_a_conflict_opens_and_when_it_closes(pair: Pair) -> None:
    watch = pair.office.watch_conflicts(TYPE)
    elsewhere = pair.office.watch_conflicts("asset")
    everything = pair.office.watch_conflicts(id=pair.order, open_only=False)
    await pair.office.update(TYPE, pair.order, {"title": "no conflict"})
    await pair.settle()
    await pair.apart({"description": "a", "root_cause": "p"}, {"description": "b", "root_cause": "q"})
    async with asyncio.timeout(PATIENCE_S):
        opened = await anext(watch)
        assert (opened.what, opened.conflict.field, opened.conflict.state) == ("opened", "root_cause", "open")
        assert {(await anext(everything)).conflict.field for _ in range(2)} == {"root_cause", "description"}
        await pair.tablet.resolve(opened.conflict.id, keep="mine")
        await pair.settle()
        closed = await anext(watch)
        assert (closed.what, closed.conflict.resolver_name) == ("closed", "Tablet")
        assert (await anext(everything)).what == "closed"
    for each in (watch, everything, elsewhere):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(each), 0.05)
    await pair.office.close()
    assert [each async for each in elsewhere] == []


async def test_a_conflict_that_is_over_before_it_is_looked_at_is_told_once(pair: Pair) -> None:
    watch = pair.office.watch_conflicts()
    conflict = await disagree(pair)
    await pair.office.resolve(conflict, keep="mine")
    async with asyncio.timeout(PATIENCE_S):
        change = await anext(watch)
    assert (change.what, change.conflict.id) == ("closed", conflict)


async def test_the_trail_is_streamed_from_a_moment_on(pair: Pair) -> None:
    conflict = await disagree(pair)
    seen = [entry.id async for entry in pair.office.conflict_trail()]
    assert seen == [conflict]
    entry = await pair.office.conflict(conflict)
    assert [each async for each in pair.office.conflict_trail(since_ms=entry.seen_at_ms + 1)] == []
