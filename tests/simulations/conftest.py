"""Every test of the simulator begins with nothing kept from another, which may have planted a bug."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crdt_sync_sim import founding


@pytest.fixture(autouse=True)
def nothing_founded() -> Iterator[None]:
    founding.forget_all()
    yield
    founding.forget_all()
