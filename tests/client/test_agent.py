"""What a device says of itself to the relay's operator."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from crdt_sync.errors import ValidationError
from crdt_sync_client import agent, name_app


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    agent._app = ""


def test_it_names_software_and_system_and_the_app_when_there_is_one() -> None:
    assert re.fullmatch(r"crdt-sync(/\S+)? python/3\.\S+ os/\w+-\S+", agent.agent())
    name_app("Rigs", "2.3")
    assert agent.agent().endswith(" app/Rigs-2.3")
    assert len(agent.agent()) <= agent.MAX_AGENT_CHARS


@pytest.mark.parametrize("name", ["", "two words", "a/b", "ü", "x" * 99, "line\n"])
def test_an_odd_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="app: "):
        name_app(name, "1")
