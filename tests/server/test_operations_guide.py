"""The operator's guide has every setting as it is. Run this file as a program to write them anew."""

from __future__ import annotations

from pathlib import Path

from crdt_sync_server.setting_types import _Measured
from crdt_sync_server.settings import SETTINGS

GUIDE = Path(__file__).parents[2] / "docs" / "relay-operations.md"
BEGIN, END = "<!-- settings: made by tests/server/test_operations_guide.py -->\n", "<!-- end -->"


def table() -> str:
    rows = ["| setting | default | what | why this default |", "|---|---|---|---|"]
    for setting in SETTINGS:
        off = ", or `off`" if isinstance(setting.type, _Measured) and setting.type.off else ""
        rows.append(
            f"| `{setting.name}` | {setting.show(setting.default)}{off} | {setting.help} | {setting.why} |"
        )
    return "\n".join(rows) + "\n"


def parts() -> tuple[str, str, str]:
    before, rest = GUIDE.read_text().split(BEGIN)
    inside, after = rest.split(END)
    return before, inside, after


def test_the_guide_has_every_setting_with_its_default_and_reason() -> None:
    assert parts()[1] == table(), "run python tests/server/test_operations_guide.py"


def test_every_limit_says_why() -> None:
    silent = {setting.name for setting in SETTINGS if not setting.why}
    assert silent <= {"data", "port", "log_level", "log_format", "metrics_token"}


if __name__ == "__main__":
    before, _, after = parts()
    GUIDE.write_text(before + BEGIN + table() + END + after)
