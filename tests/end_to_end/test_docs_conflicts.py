"""Runs the Python of `docs/conflicts.md`, from top to bottom."""

from __future__ import annotations

import re
import textwrap
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync_client import Device, find_schema

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "conflicts.md"
PATIENCE_S = 20.0


async def test_the_page_does_what_it_says(
    tmp_path: Path, relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    monkeypatch.chdir(tmp_path)
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(
            await Device.create(tmp_path / "o.db", name="Office", key=bytes(32))
        )
        await office.create_space(
            "Pit", relay=relay.url, token=relay.setup_token, schemas=[find_schema("work_order")]
        )
        tablet = await stack.enter_async_context(
            await Device.create(tmp_path / "t.db", name="Tablet", key=bytes(32))
        )
        await tablet.join(await office.invite(role="field"))
        made = await office.create("work_order", {"title": "Swap bucket"})
        for device in (office, tablet):
            await device.sync(timeout_s=PATIENCE_S)
        fields = ("root_cause", "completion_notes", "description")
        for device in (office, tablet):
            await device.update("work_order", made.id, {name: f"{name} {device.name}" for name in fields})
        for device in (office, tablet, office):
            await device.sync(timeout_s=PATIENCE_S)
        names: dict[str, Any] = {"office": office, "tablet": tablet, "order": made.id}
        program = "async def page():\n" + textwrap.indent("\n".join(blocks), "    ")
        exec(compile(program, str(PAGE), "exec"), names)
        await names["page"]()
    assert (tmp_path / "conflicts.csv").read_text(encoding="utf-8").startswith("conflictId,entityType,")
