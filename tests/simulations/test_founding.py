"""What runs begin from: made once per process, and without any influence on what a run does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import apsw
import pytest

from crdt_sync_sim import commands, founding, memory_storage
from crdt_sync_sim.memory_storage import MemoryStorage
from crdt_sync_sim.run import simulate
from crdt_sync_sim.scenario import Fault, Scenario
from crdt_sync_sim.scenario_file import load_scenario, read_scenario
from crdt_sync_sim.storage import MAIN, Connection

SEEDS = range(1, 5)
HARSH: tuple[Fault, ...] = ("crashes", "power_cuts", "disk_full", "backups", "relay_crashes")


@pytest.fixture(scope="module")
def small() -> Scenario:
    return load_scenario(commands.scenario_folder() / "small.toml")


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_a_run_is_the_same_whatever_ran_before_it(
    small: Scenario, storage: Literal["memory", "disk"]
) -> None:
    scenario = replace(small, storage=storage, swarm=False, faults=HARSH)
    after_others = [simulate(scenario, seed) for seed in [*SEEDS, *SEEDS]][len(SEEDS) :]
    alone = []
    for seed in SEEDS:
        founding.forget_all()
        alone.append(simulate(scenario, seed))
    assert [outcome.digest for outcome in after_others] == [outcome.digest for outcome in alone]
    assert all(outcome.figures.delivered for outcome in alone)


def test_a_space_is_founded_once_per_variant(small: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    founded: list[int] = []
    found = founding._found_apart

    def counted(scenario: Scenario, variant: int) -> founding.Founded:
        founded.append(variant)
        return found(scenario, variant)

    monkeypatch.setattr(founding, "_found_apart", counted)
    calm = replace(small, duration_s=30.0, workload=None, events=())
    for seed in range(2 * founding.VARIANTS):
        simulate(calm, seed)
    assert sorted(founded) == list(range(founding.VARIANTS))


def test_what_cannot_be_founded_is_a_run_that_crashed() -> None:
    text = (
        'title = "x"\nschemas = ["work_order"]\n[devices]\na = "admin"\nb = "reader"\n'
        '[records.order]\nby = "b"\nvalues = {title = "Readers do not write"}\n'
    )
    outcome = simulate(read_scenario(text, source="x.toml"), 1)
    assert outcome.verdict == "crash"
    assert "record order" in outcome.error


# Storage in memory that goes back to where it began


@pytest.fixture
def image() -> Iterator[dict[str, bytes]]:
    storage = MemoryStorage()
    connection = storage.connect()
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, body)")
    connection.execute("INSERT INTO t (body) VALUES ('from the image')")
    yield storage.image()
    storage.discard()
    memory_storage.forget_all()


def begun(image: dict[str, bytes]) -> tuple[MemoryStorage, Connection]:
    storage = MemoryStorage()
    storage.begin_from(image)
    return storage, storage.connect()


def assert_begins_from(image: dict[str, bytes]) -> None:
    """What was done before has left nothing in the storage that is used again."""
    storage, connection = begun(image)
    assert bodies(connection) == ["from the image"]
    storage.discard()


def bodies(connection: Connection) -> list[str]:
    return [body for (body,) in connection.execute("SELECT body FROM t ORDER BY n")]


def insert(connection: Connection, body: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t (body) VALUES (?)", (body,))
    connection.execute("COMMIT")


def test_the_next_run_finds_the_image_as_it_was(image: dict[str, bytes]) -> None:
    for _ in range(2):
        storage, connection = begun(image)
        assert storage.image() == image
        insert(connection, "written")
        connection.execute("DELETE FROM t WHERE n = 1")
        assert bodies(connection) == ["written"]
        storage.discard()


def test_lives_keep_what_was_committed_and_nothing_else(image: dict[str, bytes]) -> None:
    storage, connection = begun(image)
    insert(connection, "committed")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t (body) VALUES ('not committed')")
    storage.cut_power()
    with pytest.raises(apsw.ConnectionClosedError):
        connection.execute("SELECT 1")
    assert bodies(storage.connect()) == ["from the image", "committed"]
    storage.discard()


def test_a_transaction_taken_back_leaves_the_ones_before_it(image: dict[str, bytes]) -> None:
    storage, connection = begun(image)
    insert(connection, "first")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO t (body) VALUES ('second')")
    connection.execute("ROLLBACK")
    assert bodies(connection) == ["from the image", "first"]
    for wrong in ("ROLLBACK", "COMMIT"):
        with pytest.raises(apsw.SQLError, match="no transaction"):
            connection.execute(wrong)
    storage.discard()


def test_a_full_disk_loses_nothing_and_is_forgotten(image: dict[str, bytes]) -> None:
    storage, connection = begun(image)
    insert(connection, "kept")
    storage.set_capacity(storage.size_bytes)
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t (body) VALUES (?)", ("x" * 100_000,))
    assert bodies(connection) == ["from the image", "kept"]
    storage.discard()
    storage, connection = begun(image)
    insert(connection, "x" * 100_000)
    assert storage.image()[MAIN] != image[MAIN]
    storage.discard()


def test_an_old_copy_put_back_is_no_image(image: dict[str, bytes]) -> None:
    storage, connection = begun(image)
    copy = storage.image()
    insert(connection, "later")
    storage.restore(copy)
    connection = storage.connect()
    assert bodies(connection) == ["from the image"]
    insert(connection, "after the restoration")
    storage.discard()
    assert_begins_from(image)


def test_each_of_several_copies_can_be_put_back(image: dict[str, bytes]) -> None:
    storage, connection = begun(image)
    copies = []
    for body in ("first", "second"):
        insert(connection, body)
        copies.append(storage.image())
    insert(connection, "third")
    for number in (1, 1, 0, 1):  # going back to the first forgets where the second was taken
        storage.restore(copies[number])
        connection = storage.connect()
        assert bodies(connection) == ["from the image", "first", "second"][: number + 2]
        insert(connection, "on top")
    storage.discard()
    assert_begins_from(image)


def test_a_full_disk_is_as_full_after_a_restart(image: dict[str, bytes]) -> None:
    storage, _ = begun(image)
    storage.set_capacity(storage.size_bytes)
    storage.crash()
    connection = storage.connect()
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(apsw.FullError):
        connection.executemany("INSERT INTO t (body) VALUES (?)", [("x" * 100_000,)])
    assert bodies(connection) == ["from the image"]
    storage.set_capacity(None)
    insert(connection, "x" * 100_000)
    assert len(bodies(connection)) == 2
    storage.discard()
