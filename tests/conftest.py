"""The order of the tests: what takes long begins early, so that no process waits for it at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

LONG = (Path(__file__).parent / "test_readme.py", Path(__file__).parent / "model" / "test_merge_machine.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path not in LONG)
