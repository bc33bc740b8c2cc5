"""A backup put back in place of a relay's data: when it is refused, what stays, what is kept aside."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import NamedTuple

import pytest

from crdt_sync.ids import RelayId
from crdt_sync.protocol.frames import Ack, Bye, Push
from crdt_sync_server.operating.restoring import restore
from crdt_sync_server.storage.sqlite import SqliteStorage, connect_storage
from tests.server.operator_kit import fill, plain, relay_command
from tests.server.relay_kit import RelayProcess, TestDevice, TestSpace, raw_client, record
from tests.server.test_storage_versions import VERSION_1

DATABASE = "relay.sqlite3"


class Story(NamedTuple):
    """A stopped relay, a backup of it, and three rows that came after the backup."""

    data: Path
    backup: Path
    space: TestSpace
    tablet: TestDevice
    newest: RelayId


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder, space = tmp_path_factory.mktemp("told"), TestSpace(61)
    data, backup, tablet = folder / "data", folder / "backup", space.member()

    async def more(relay: RelayProcess) -> RelayId:
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.send(Push([space.founder.update(record(1)) for _ in range(3)]))
            await client.expect(Ack)
            return client.challenge.relay_id

    with RelayProcess(data) as relay:
        asyncio.run(fill(relay, space))
        relay_command("backup", "--data", data, "--to", backup)
        newest = asyncio.run(more(relay))
        relay.stop()
    return Story(data, backup, space, tablet, newest)


@pytest.fixture
def story(told: Story, tmp_path: Path) -> Story:
    """The same, for the test's own use."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    shutil.copytree(told.data, data)
    shutil.copytree(told.backup, backup)
    return told._replace(data=data, backup=backup)


def rows(data: Path) -> int:
    return int(relay_command("spaces", "--data", data)[0]["head"])


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_newer_data_is_replaced_only_when_told_and_kept_aside(story: Story) -> None:
    error = relay_command("restore", story.backup, "--data", story.data, code=5)
    assert "3 rows that the backup does not have" in error["message"]
    assert "--force" in error["hint"]
    assert rows(story.data) == rows(story.backup) + 3
    assert sorted(path.name for path in story.data.iterdir()) == [DATABASE, "setup-token.sha256"]
    done = relay_command("restore", story.backup, "--data", story.data, "--force")
    assert (done["spaces"], done["rows"], done["newer_rows"]) == (1, 23, 3)
    assert rows(story.data) == 23
    aside = Path(done["kept_aside"])
    assert aside.parent == story.data
    assert aside.name.startswith("before-restore-20")
    assert [path.name for path in aside.iterdir()] == [DATABASE]
    assert rows(aside) == 26, "it is a relay's directory of its own"
    assert (story.data / DATABASE).stat().st_mode & 0o777 == 0o600


def test_where_nothing_is_newer_or_nothing_is_at_all_no_force_is_needed(story: Story, tmp_path: Path) -> None:
    done = relay_command("restore", story.backup, "--data", tmp_path / "new" / "place")
    assert (done["kept_aside"], done["newer_rows"], done["rows"]) == (None, 0, 23)
    assert rows(tmp_path / "new" / "place") == 23
    said = plain("restore", story.backup, "--data", tmp_path / "new" / "place")
    assert "23 rows in 1 spaces put back" in said
    assert "kept in" in said
    assert "crdt-sync relay serve" in said


def test_it_is_a_new_life_that_does_not_know_what_came_after(story: Story) -> None:
    restore(story.backup, story.data, force=True)
    storage = SqliteStorage(connect_storage(story.data / DATABASE, os.urandom))
    (entry,) = storage.spaces()
    assert storage.relay_id != story.newest
    end = storage.life_end(entry.key, story.newest)
    assert end == 23, "who has seen more of that life is told that the relay is behind"
    storage.close()


def test_a_relay_that_runs_is_left_alone(story: Story) -> None:
    with RelayProcess(story.data) as relay:
        error = relay_command("restore", story.backup, "--data", story.data, "--force", code=5)
        assert "a relay runs on" in error["message"]
        assert relay.stop() == 0
    assert rows(story.data) == 26


def test_a_damaged_backup_is_not_put_in_place(story: Story) -> None:
    before = listing(story.data)
    with sqlite3.connect(story.backup / DATABASE) as database:
        database.execute("UPDATE log SET payload = zeroblob(length(payload)) WHERE kind = 1 AND sequence = 7")
    database.close()
    error = relay_command("restore", story.backup, "--data", story.data, "--force", code=5)
    assert "the backup is damaged" in error["message"]
    (story.backup / DATABASE).write_bytes(b"no database" * 1000)
    assert relay_command("restore", story.backup, "--data", story.data, "--force", code=5)
    after = listing(story.data)
    assert after.keys() == before.keys()
    assert rows(story.data) == 26


def test_a_damaged_directory_is_replaced_and_kept(story: Story) -> None:
    (story.data / DATABASE).write_bytes(b"ruined" * 5000)
    done = relay_command("restore", story.backup, "--data", story.data)
    assert done["damaged"]
    assert (Path(done["kept_aside"]) / DATABASE).read_bytes() == b"ruined" * 5000
    assert rows(story.data) == 23


def test_what_was_decided_since_the_backup_stays(story: Story) -> None:
    name = story.tablet.author.device.hex()
    token = relay_command("token", "--data", story.data)["setup_token"]
    fingerprint = (story.data / "setup-token.sha256").read_bytes()
    relay_command("revoke", name, "--reason", "stolen", "--data", story.data)
    done = relay_command("restore", story.backup, "--data", story.data, "--force")
    assert done["revoked"] == 1
    assert token
    assert (story.data / "setup-token.sha256").read_bytes() == fingerprint

    async def greet(relay: RelayProcess) -> Bye:
        async with raw_client(relay.url) as client:
            await client.send(story.tablet.hello(client.challenge.nonce, client.challenge.relay_id))
            return await client.expect(Bye)

    with RelayProcess(story.data) as relay:
        assert asyncio.run(greet(relay)).error == "revoked"
        assert relay.stop() == 0


def test_a_space_that_is_not_in_the_backup_is_named(story: Story, tmp_path: Path) -> None:
    with RelayProcess(tmp_path / "empty") as relay:
        relay.stop()
    done = relay_command("restore", tmp_path / "empty", "--data", story.data, "--force")
    assert (done["missing_spaces"], done["newer_rows"]) == (1, 26)
    said = plain("restore", story.backup, "--data", story.data)
    assert "take-back" not in said


def test_a_backup_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    with sqlite3.connect(backup / DATABASE) as old:
        old.executescript(VERSION_1)
        old.executescript("DELETE FROM log; DELETE FROM superseded; DELETE FROM spaces")
    old.close()
    before = (backup / DATABASE).read_bytes()
    shutil.copytree(backup, tmp_path / "data")
    done = relay_command("restore", backup, "--data", tmp_path / "data")
    assert (done["rows"], done["damaged"]) == (0, False)
    assert (backup / DATABASE).read_bytes() == before
    assert relay_command("spaces", "--data", tmp_path / "data") == []


def test_what_cannot_be_restored_is_told(story: Story, tmp_path: Path) -> None:
    for source in (tmp_path / "nowhere", tmp_path):
        error = relay_command("restore", source, "--data", story.data, code=5)
        assert "is no backup" in error["message"]
    error = relay_command("restore", story.data, "--data", story.data, code=5)
    assert "the relay's own directory" in error["message"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    error = relay_command("restore", story.backup, "--data", tmp_path / "photos", code=5)
    assert "other files" in error["message"]
    assert rows(story.data) == 26


def test_a_restore_that_was_cut_off_can_be_run_again(story: Story) -> None:
    (story.data / "restoring").mkdir()
    (story.data / "restoring" / DATABASE).write_bytes(b"half")
    assert relay_command("restore", story.backup, "--data", story.data, "--force")["rows"] == 23
    assert not (story.data / "restoring").exists()


@pytest.mark.parametrize(("where", "name"), [("shutil", "copyfile"), ("os", "link"), ("os", "replace")])
def test_a_disk_that_gets_full_leaves_the_relay_as_it_was(
    story: Story, monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"{where}.{name}", full)
    error = relay_command("restore", story.backup, "--data", story.data, "--force", code=5)
    monkeypatch.undo()
    assert "No space left on device" in error["message"]
    assert rows(story.data) == 26
    assert not (story.data / "restoring").exists()
    assert relay_command("restore", story.backup, "--data", story.data, "--force")["rows"] == 23
