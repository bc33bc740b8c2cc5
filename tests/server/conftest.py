"""Makes `tests.server.relay_kit` importable, and starts one relay for the tests that only use it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.server.engine_kit import Relay
from tests.server.relay_kit import RelayProcess


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    with RelayProcess(tmp_path_factory.mktemp("relay") / "data") as process:
        yield process
        assert process.stop() == 0
        assert process.stderr == ""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path / "relay.sqlite3")
    yield relay
    relay.close()
