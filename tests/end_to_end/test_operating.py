"""What an operator does to a relay, and what devices make of it: one is shut out, a backup is put back."""

from __future__ import annotations

import asyncio
import json
import platform
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdt_sync.errors import ShutOut
from crdt_sync_client import Device, agent, find_schema, name_app
from crdt_sync_client.cli.main import cli
from tests.end_to_end.office import KEY, TYPE, Enter
from tests.end_to_end.relay_process import RestartableRelay

PATIENCE_S = 20.0


async def operate(*args: str | Path, code: int = 0) -> Any:
    """`crdt-sync relay … --json`: its answer, or its error."""

    def run() -> Any:
        result = CliRunner().invoke(cli, ["relay", *map(str, args), "--json"], prog_name="crdt-sync")
        assert result.exit_code == code, result.output
        if code:
            return json.loads(result.stderr.splitlines()[-1])["error"]
        return json.loads(result.stdout.splitlines()[-1])

    return await asyncio.to_thread(run)


@pytest.fixture
def relay(own_relay: RestartableRelay) -> RestartableRelay:
    return own_relay


async def titles(device: Device) -> list[str]:
    return sorted(str(record["title"]) for record in await device.query(TYPE))


async def until(device: Device, state: str) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        async for status in device.watch_status():
            if status.state == state:
                return status
    raise AssertionError("the watch ended")


async def test_a_device_that_is_shut_out_keeps_its_work_and_goes_on_when_it_is_let_in(
    relay: RestartableRelay, office: Device, enter: Enter
) -> None:
    tablet, other = await enter("tablet"), await enter("other")
    for device in (office, tablet, other):
        await device.connect()
    await office.create(TYPE, {"title": "before"})
    await until(tablet, "idle")
    done = await operate("revoke", tablet.device_id.hex(), "--reason", "lost at Pit 4", "--data", relay.data)
    assert done["closed"] == 1
    status = await until(tablet, "revoked")
    (space,) = status.spaces
    assert "operator" in space.problem
    assert "lost at Pit 4" in space.problem
    assert space.retry_in_s > 3000, "it does not insist"
    await tablet.create(TYPE, {"title": "written while shut out"})
    await office.create(TYPE, {"title": "meanwhile"})
    with pytest.raises(ShutOut) as refused:
        await tablet.sync(timeout_s=PATIENCE_S)
    assert refused.value.code == "revoked"
    assert (await tablet.status()).pending == 1
    assert await titles(tablet) == ["before", "written while shut out"]
    await other.sync(timeout_s=PATIENCE_S)
    assert await titles(other) == ["before", "meanwhile"]
    await operate("revoke", tablet.device_id.hex(), "--undo", "--data", relay.data)
    await tablet.sync(timeout_s=PATIENCE_S)
    await office.sync(timeout_s=PATIENCE_S)
    assert (await until(tablet, "idle")).pending == 0
    assert await titles(office) == await titles(tablet) == ["before", "meanwhile", "written while shut out"]


async def test_a_backup_that_is_put_back_loses_nothing_that_a_device_has(
    relay: RestartableRelay, office: Device, enter: Enter, tmp_path: Path
) -> None:
    tablet = await enter("tablet")
    first = await office.create(TYPE, {"title": "before the backup"})
    for device in (office, tablet):
        await device.sync(timeout_s=PATIENCE_S)
    await operate("backup", "--data", relay.data, "--to", tmp_path / "backup")
    await office.update(TYPE, first.id, {"title": "changed since"})
    await tablet.create(TYPE, {"title": "made since"})
    late = await enter("late")  # a member that the backup does not know
    second_pit = await office.create_space(
        "Pit 5", relay=relay.url, token=relay.setup_token, schemas=[find_schema(TYPE)]
    )
    await office.create(TYPE, {"title": "in a space of its own"}, space=second_pit.name)
    await late.sync(timeout_s=PATIENCE_S)
    await late.create(TYPE, {"title": "by who came since"})
    for device in (office, tablet, late, office):
        await device.sync(timeout_s=PATIENCE_S)
        assert (await device.status()).pending == 0
    relay.stop()
    error = await operate("restore", tmp_path / "backup", "--data", relay.data, code=5)
    assert "--force" in error["hint"]
    done = await operate("restore", tmp_path / "backup", "--data", relay.data, "--force")
    assert done["newer_rows"] > 0
    assert done["missing_spaces"] == 1
    await operate("take-back", "--data", relay.data)
    relay.start()
    for device in (office, tablet, late, office):
        await device.sync(timeout_s=PATIENCE_S)
    expected = ["by who came since", "changed since", "made since"]
    link = await office.invite(role="field", space="Pit 4")
    async with await Device.create(tmp_path / "fresh.db", name="Fresh", key=KEY) as fresh:
        await fresh.join(link)
        await fresh.sync(timeout_s=PATIENCE_S)
        assert await titles(fresh) == expected
        link = await office.invite(role="field", space="Pit 5")
        await fresh.join(link)
        await fresh.sync(timeout_s=PATIENCE_S)
        records = await fresh.query(TYPE, space="Pit 5")
        assert [record["title"] for record in records] == ["in a space of its own"]
    assert (await operate("check", "--data", relay.data))["findings"] == []


async def test_an_operator_sees_how_far_a_device_is_and_with_which_app_and_system(
    relay: RestartableRelay, office: Device, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "_app", "")
    name_app("Rigs", "2.3")
    tablet = await enter("Tablet")
    await tablet.sync(timeout_s=PATIENCE_S)
    await tablet.create(TYPE, {"title": "Swap bucket"})
    await tablet.sync(timeout_s=PATIENCE_S)
    seen = {one["device"]: one for one in await operate("devices", "--data", relay.data)}
    here, behind = seen[tablet.device_id.hex()], seen[office.device_id.hex()]
    assert (here["app"], here["lag"], here["role"]) == ("Rigs-2.3", 0, "field")
    assert here["os"].startswith(platform.system())
    assert here["last_sync_ms"] is not None
    assert behind["lag"] > 0, "the office has not been here since"
