"""What is written together shows together: the rule bites, and what people see around it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from crdt_sync.hlc import Hlc
from crdt_sync.ids import Author, DeviceId, Incarnation, RecordId
from crdt_sync.records.writes import Write
from crdt_sync.roles import Role
from crdt_sync_client.engine.arrivals import Opened
from crdt_sync_client.engine.gathering import Gathering
from crdt_sync_client.engine.model import Transaction
from crdt_sync_client.engine.sealing import _Choice, _Row
from crdt_sync_client.engine.waiting import AT_HEAD
from crdt_sync_sim.oracle import Oracle, Visible, write_id
from crdt_sync_sim.run import Simulation, run_out, simulate
from crdt_sync_sim.scenario_file import ScenarioError, read_scenario
from tests.simulations.shipped import named

Patch = pytest.MonkeyPatch


@pytest.fixture
def merged_at_once(monkeypatch: Patch) -> None:
    """Devices do not wait for the rest of a group."""

    def at_once(gathering: Gathering, opened: Opened) -> tuple[Opened, ...]:
        return (opened,)

    monkeypatch.setattr(Gathering, "take", at_once)


@pytest.mark.parametrize("name", ["group_relay_killed", "group_tablet_dies"])
@pytest.mark.usefixtures("merged_at_once")
def test_a_device_that_does_not_wait_for_the_rest_is_found(name: str) -> None:
    outcome = simulate(named(name), 1)
    assert outcome.verdict == "safety"
    broken = [violation for violation in outcome.violations if violation.rule == 8]
    assert broken
    assert "showed it in work_order" in str(broken[0])


@pytest.mark.usefixtures("merged_at_once")
def test_random_work_finds_it_too() -> None:
    found = 0
    for seed in range(1, 12):
        outcome = simulate(named("rare_timing"), seed)
        found += any(violation.rule == 8 for violation in outcome.violations)
    assert found


def test_a_device_that_does_not_say_what_belongs_together_is_found(monkeypatch: Patch) -> None:
    together = _Choice._take_together

    def apart(choice: _Choice, rows: list[_Row]) -> bool:
        return all(together(choice, [row]) for row in rows)

    monkeypatch.setattr(_Choice, "_take_together", apart)
    outcome = simulate(named("group_relay_killed"), 1)
    assert 8 in {violation.rule for violation in outcome.violations}


def test_random_work_writes_together(monkeypatch: Patch) -> None:
    sim = Simulation(named("small"), 1)
    wrote: list[int] = []
    for device in sim.devices.values():
        write = device.write

        def counted(work: list[Any], write: Callable[..., Any] = write) -> Any:
            wrote.extend(len(each.ops) for each in work if isinstance(each, Transaction))
            return write(work)

        monkeypatch.setattr(device, "write", counted)
    outcome = run_out(sim)
    assert not outcome.failed
    assert max(wrote) > 2
    assert sim.oracle.groups.count


@pytest.mark.parametrize("replaced", [True, False])
def test_a_write_with_the_time_of_one_that_is_gone_shows_no_part_of_its_group(*, replaced: bool) -> None:
    order, kit = ("work_order", RecordId("a")), ("work_order", RecordId("b"))
    lives = [Author(DeviceId(bytes(16)), Incarnation(each)) for each in (1, 2)]
    first, again = (Write(("title",), str(life), Hlc(7), Role.FIELD, life) for life in lives)
    oracle, shown = Oracle(), {order: Visible({("title",): (again,)}), kit: Visible({})}
    device: Any = SimpleNamespace(
        name="tablet", ready=True, space=b"", oracle=oracle, visible=shown.__getitem__,
        world=SimpleNamespace(now_us=1), clock=SimpleNamespace(now_ms=lambda: 1),
        engine=SimpleNamespace(
            _replica=SimpleNamespace(space=lambda _: SimpleNamespace(catching_up=AT_HEAD))
        ),
        is_absent=lambda _: False,
    )  # fmt: skip
    for record in (order, kit):
        oracle.wrote(device, record, frozenset(), frozenset({first}))
    oracle.groups.wrote(device, {record: frozenset({write_id(first)}) for record in (order, kit)})
    if replaced:
        oracle.restored("tablet", (order, kit), since_us=0)
    oracle.wrote(device, order, frozenset(), frozenset({again}))
    oracle.groups.look(device)
    assert bool(oracle.groups.parts) is not replaced


@pytest.mark.parametrize(("records", "message"), [
    ('["a"]', "records are two or more records"),
    ('"a"', "records are two or more records"),
    ('["a", "x"]', "there is no record 'x'"),
])  # fmt: skip
def test_what_is_wrong_with_records_written_together_is_said_with_its_line(
    records: str, message: str
) -> None:
    text = f"""\
schemas = ["work_order"]
[devices]
office = "admin"
[records.a]
type = "work_order"
values = {{title = "Pump"}}
[[at]]
s = 1
do = "together"
device = "office"
records = {records}
set = {{title = "Motor"}}
"""
    with pytest.raises(ScenarioError, match=message):
        read_scenario(text, source="test.toml")
