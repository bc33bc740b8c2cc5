"""Runs the Python of `docs/transactions.md`, from top to bottom."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest

from crdt_sync.errors import ValidationError
from crdt_sync_client import Device, find_schema

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "transactions.md"


async def test_the_page_does_what_it_says(
    tmp_path: Path, relay: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    schemas = [find_schema("work_order"), find_schema("inventory_item")]
    async with await Device.create(tmp_path / "o.db", name="Office", key=bytes(32)) as device:
        await device.create_space("Pit", relay=relay.url, token=relay.setup_token, schemas=schemas)
        names: dict[str, Any] = {"device": device, "ValidationError": ValidationError}
        program = "async def page():\n" + textwrap.indent("\n".join(blocks), "    ")
        exec(compile(program, str(PAGE), "exec"), names)
        await names["page"]()
    assert capsys.readouterr().out == "quantity_available was refused, so the order stands as it did\n"
