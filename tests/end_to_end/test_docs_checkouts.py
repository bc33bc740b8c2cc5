"""Runs the Python and the commands of `docs/checkouts.md`, from top to bottom."""

from __future__ import annotations

import asyncio
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from crdt_sync_client import Device, find_schema
from tests.end_to_end.conftest import PASSPHRASE, RelayProcess, crdt_sync
from tests.test_readme import Block, console_steps, shape

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "checkouts.md"
PRINTED: Final = """\
daily_work_record is with Office
daily_work_record returned - 1 sent, 0 conflicts
time_record returned - 0 sent, 0 conflicts
Rig 7 has it: held True
Rig 7 | late: False
checked out by Rig 7 until <time>: this is saved here, and sent when that ends
pending for Rig 7
"""


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def run(code: str, **names: Any) -> None:
    program = "async def page():\n" + textwrap.indent(code, "    ")
    exec(compile(program, str(PAGE), "exec"), names)
    await names["page"]()


async def make_crew(relay: RelayProcess, folder: Path) -> str:
    """`office.db` and `tablet.db`, on which the page's Python ran; the id of a day of work with hours."""
    first, second = blocks("python")
    office = await Device.create(folder / "office.db", name="Office", passphrase=PASSPHRASE)
    tablet = await Device.create(folder / "tablet.db", name="Rig 7", passphrase=PASSPHRASE)
    async with office, tablet:
        schemas = [find_schema("daily_work_record"), find_schema("time_record")]
        await office.create_space("Pit 4", relay=relay.url, token=relay.setup_token, schemas=schemas)
        await tablet.join(await office.invite(role="supervisor"))
        days = [
            await office.create("daily_work_record", {"subproject_id": str(uuid4()), "date": date})
            for date in ("2026-03-05", "2026-03-06")
        ]
        await office.create("time_record", {"daily_work_record_id": days[0].id, "employee_id": 7})
        await office.check_out("daily_work_record", [days[1].id])
        await run(first, device=tablet)
        await office.check_in()
        await tablet.check_out("daily_work_record", [days[0].id])
        await office.sync()
        await run(second, office=office, day=days[0].id)
        await tablet.check_in()
        await office.sync()
        await tablet.sync()
    return str(days[0].id)


def test_the_page_does_what_it_says(
    tmp_path: Path, relay: RelayProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    day = asyncio.run(make_crew(relay, tmp_path))
    said = re.sub(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2} UTC", "<time>", capsys.readouterr().out)
    assert said == PRINTED
    (commands,) = blocks("console")
    for command, expected in console_steps(Block("console", commands, 0)):
        _, *words = shlex.split(command.replace("$DAY", day))
        refused = "0 of 1" in expected
        answer = crdt_sync(*words, code=8 if refused else 0, CRDT_SYNC_PASSPHRASE=PASSPHRASE)
        assert shape(answer.out + answer.err) == shape(expected), command
