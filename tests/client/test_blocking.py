"""The device without asyncio: what an app of buttons and threads does with it, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crdt_sync_client
from crdt_sync.errors import LocalError, RecordNotFound, StoreClosed, StoreExists, ValidationError
from crdt_sync_client import Query, blocking, blocking_generator, field
from crdt_sync_client.blocking import Device, Watch
from crdt_sync_client.importing import ImportRow
from tests.client.alone import found_space

KEY = bytes(range(32))
TYPE = "work_order"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tablet.db"


@pytest.fixture
def device(path: Path) -> Iterator[Device]:
    """A device with a space of work orders that no relay knows of."""
    with Device.create(path, name="Tablet 7", key=KEY) as device:
        device._run(lambda: found_space(device._inner))
        yield device


def test_the_generated_classes_are_what_the_generator_makes() -> None:
    made = {path.name: path.read_text(encoding="utf-8") for path in blocking_generator.OUT.glob("*.py")}
    assert made == blocking_generator.generate(), "run: python -m crdt_sync_client.blocking_generator"


@pytest.mark.parametrize("name", blocking.__all__)
def test_nothing_of_a_class_is_missing_and_nothing_awaits(name: str) -> None:
    made = getattr(blocking, name)
    known = vars(sys.modules[made.__module__])[f"Async{name}"]
    inner = {
        name for name in dir(known) if (getattr(known, name).__doc__ or "").startswith("Called by the hub")
    }
    assert {name for name in dir(known) if not name.startswith("_")} - inner <= set(dir(made))
    assert not [name for name in dir(made) if inspect.iscoroutinefunction(getattr(made, name))]
    assert hasattr(made, "__enter__") == hasattr(known, "__aenter__")
    assert hasattr(made, "__next__") == hasattr(known, "__anext__")


def test_arguments_and_documentation_are_those_of_the_asynchronous_device() -> None:
    known, made = crdt_sync_client.Device.query, Device.query
    assert inspect.signature(made).parameters.keys() == inspect.signature(known).parameters.keys()
    assert made.__doc__ == known.__doc__
    assert "await" not in "".join(part.__doc__ or "" for part in vars(Device).values())


def test_an_app_writes_reads_finds_and_counts(device: Device) -> None:
    order = device.create(TYPE, {"title": "Swap bucket", "cost": 120.0})
    assert device.update(TYPE, order.id, {"status": "assigned"}).changed
    record = device.get(TYPE, order.id)
    assert record is not None
    assert record["status"] == "assigned"
    assert [found.id for found in device.query(TYPE, field("cost") > 100)] == [order.id]
    assert device.count(TYPE, {"status": "assigned"}) == 1
    assert device.page(Query(TYPE, limit=5)).next is None
    assert device.status().state == "offline"
    assert [space.name for space in device.spaces()] == ["Pit 4"]
    with pytest.raises(RecordNotFound):
        device.update(TYPE, "nobody", {"title": "x"})
    with pytest.raises(ValidationError):
        device.create(TYPE, {"cost": "dear"})
    report = device.import_rows(TYPE, [{"title": "A"}, ImportRow(2, {"titel": "B"}), {"title": "C"}])
    assert (report.imported, len(report.failed)) == (2, 1)


def test_several_records_are_written_together_or_not_at_all(device: Device) -> None:
    with device.transaction() as t:
        first = t.create(TYPE, {"title": "First"})
        t.create(TYPE, {"title": f"After {first.id}"})
    assert [result.changed for result in t.results] == [True, True]
    with pytest.raises(ZeroDivisionError), device.transaction() as t:
        t.update(t.create(TYPE, {"title": "Never"}).type, first.id, {"cost": 1 / len(t.results)})
    assert device.count(TYPE) == 2


def test_changes_are_iterated_waited_for_and_end_with_the_device(device: Device) -> None:
    with device.watch(TYPE) as watch:
        order = device.create(TYPE, {"title": "Swap bucket"})
        assert next(watch).id == order.id
        with pytest.raises(TimeoutError):
            watch.next(timeout_s=0.01)
        device.update(TYPE, order.id, {"title": "Swap two"})
        assert watch.next(timeout_s=5).fields == ("title",)
    assert list(watch) == []
    live = iter(device.live(Query(TYPE, field("status") == "assigned")))
    assert next(live).records == []
    device.update(TYPE, order.id, {"status": "assigned"})
    assert [record.id for record in next(live).records] == [order.id]
    changes: list[str] = []
    rest = device.watch()
    thread = threading.Thread(target=lambda: changes.extend(change.id for change in rest))
    thread.start()
    device.update(TYPE, order.id, {"title": "Last"})
    while not changes:
        time.sleep(0.001)
    device.close()
    thread.join()
    assert changes == [order.id]
    assert list(rest) == list(device_watch_after(rest)) == []


def device_watch_after(watch: Watch) -> list[object]:
    """Closing a watch, and reading what it knows, is harmless after the device was closed."""
    watch.close()
    assert watch.waiting == 0
    return list(watch)


def test_several_threads_share_a_device_and_a_watch(device: Device) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: device.create(TYPE, {"title": f"Order {n}"}), range(40)))
    assert device.count(TYPE) == len({result.id for result in results}) == 40
    watch = device.watch()
    seen: list[str] = []
    readers = [threading.Thread(target=lambda: seen.extend(c.id for c in watch)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for result in results:
        device.update(TYPE, result.id, {"cost": 1.0})
    while len(seen) < 40:
        time.sleep(0.001)
    watch.close()
    for reader in readers:
        reader.join()
    assert sorted(seen) == sorted(result.id for result in results)


def test_the_trail_is_an_iterator_and_an_export(device: Device) -> None:
    assert list(device.conflict_trail()) == []
    out = io.StringIO()
    assert device.export_conflicts(out) == 0
    assert device.preferences.set(TYPE, "root_cause", keep="mine").keep == "mine"
    assert [one.field for one in device.preferences.ls()] == ["root_cause"]


def test_functions_that_are_handed_in_are_called_and_may_not_ask_the_device(device: Device) -> None:
    seen: list[int] = []
    device.import_rows(TYPE, [{"title": "A"}], progress=seen.append)
    assert seen[-1] == 1

    def rows() -> Iterator[dict[str, str]]:
        device.count(TYPE)
        yield {"title": "never"}

    with pytest.raises(LocalError, match="a blocking call would stop the event loop"):
        device.import_rows(TYPE, rows())
    assert device.count(TYPE) == 1


async def test_in_a_running_loop_it_says_what_to_use(path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(LocalError) as refused:
        Device.create(path, name="Tablet 7", key=KEY)
    assert refused.value.hint == (
        "use crdt_sync_client.Device with await, or call it in a thread: await asyncio.to_thread(…)"
    )
    assert threading.active_count() == before
    device = await asyncio.to_thread(lambda: Device.create(path, name="Tablet 7", key=KEY))
    for call in (device.status, device.close, lambda: device.watch(), lambda: next(device.watch())):
        with pytest.raises(LocalError):
            call()
    await asyncio.to_thread(device.close)


def test_a_closed_device_says_so_and_leaves_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    with Device.create(path, name="Tablet 7", key=KEY) as device:
        own = set(threading.enumerate()) - before
        assert own
        with pytest.raises(StoreExists):
            Device.create(path, name="Another", key=KEY)
    for thread in own:  # the store's own ends in its own time
        thread.join(5)
        assert not thread.is_alive()
    device.close()
    assert (device.name, device.locked) == ("Tablet 7", False)
    for call in (device.status, device.watch, device.touch, device.transaction):
        with pytest.raises(StoreClosed):
            call()
    with Device.open(path, key=KEY) as again:
        assert again.device_id == device.device_id


def test_a_device_that_is_dropped_is_closed_and_a_watch_keeps_it(path: Path) -> None:
    device = Device.create(path, name="Tablet 7", key=KEY)
    background = device._background
    watch = device.watch()
    del device
    gc.collect()
    assert not background.ending
    owned = [watch]
    del watch
    with pytest.warns(ResourceWarning, match="the device 'Tablet 7' was not closed"):
        owned.clear()
    background.join()
    Device.open(path, key=KEY).close()


def test_ctrl_c_ends_the_call_and_the_device_goes_on(path: Path) -> None:
    """In a process of its own, as a signal is for the main thread of one."""
    program = textwrap.dedent(f"""
        import os, signal, threading
        from crdt_sync_client.blocking import Device
        device = Device.create({str(path)!r}, name="Tablet 7", key={KEY!r})
        watch = device.watch()
        for _ in range(2):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                next(watch)
            except KeyboardInterrupt:
                print("interrupted", device.status().name, flush=True)
        print(device.lock_after(60), "not closed", flush=True)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["interrupted Tablet 7"] * 2 + ["None not closed"]
    Device.open(path, key=KEY).close()


def test_a_program_that_is_ended_by_ctrl_c_ends(path: Path) -> None:
    program = textwrap.dedent(f"""
        from crdt_sync_client.blocking import Device
        with Device.create({str(path)!r}, name="Tablet 7", key={KEY!r}) as device:
            print("waiting", flush=True)
            for change in device.watch():
                pass
    """)
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    Device.open(path, key=KEY).close()
