"""The OpenAPI document is true: schemathesis calls every operation with what fits and with what does not."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from tests.server.http_kit import ApiClient, http_url
from tests.server.relay_kit import RelayProcess, TestSpace, create


@pytest.fixture(scope="session")
def caller(relay: RelayProcess) -> dict[str, str]:
    """A space of its own, and a token for it."""
    space = TestSpace(201)

    async def prepare() -> str:
        await create(relay.url, relay.setup_token or "", space)
        async with ApiClient(relay.url, space.founder) as api:
            return await api.get_token()

    return {
        "space": space.id.hex(),
        "device": space.founder.author.device.hex(),
        "token": asyncio.run(prepare()),
    }


@schemathesis.serializer("application/vnd.crdt-sync.frames")
def frames(_ctx: Any, value: Any) -> bytes:
    """Whatever it is: the relay has to say what is wrong with it."""
    return value if isinstance(value, bytes) else str(value).encode()


_SKIPPED = {"DELETE /v1/tokens/current": "would end the token of the others"}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_is_as_it_is_documented(
    mode: GenerationMode, relay: RelayProcess, caller: dict[str, str]
) -> None:
    """Without schemathesis' own pytest plugin, which does not know pytest 9."""
    schema = schemathesis.openapi.from_url(f"{http_url(relay.url)}/openapi.json")
    called = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.label in _SKIPPED:
            continue
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            _call_all(strategy, caller)
        except Unsatisfiable:
            continue  # nothing about it can be wrong
        called += 1
    assert called >= (18 if mode is GenerationMode.POSITIVE else 11)


def _call_all(strategy: Any, caller: dict[str, str]) -> None:
    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def call(case: Any) -> None:
        for name in ("space", "device"):
            value = (case.path_parameters or {}).get(name)
            if isinstance(value, str) and len(value) == 32 and value.isalnum():
                case.path_parameters[name] = caller[name]
        if "wait_s" in (case.query or {}) and case.query["wait_s"] in range(31):
            case.query["wait_s"] = 0
        for name in ("incarnation", "newest_token", "ttl_s"):
            number = case.body.get(name) if isinstance(case.body, dict) else None
            if isinstance(number, float):  # JSON Schema takes 7.0 for an integer, the relay does not
                case.body[name] = int(number)
        case.call_and_validate(headers={"Authorization": f"Bearer {caller['token']}"})

    call()


def test_the_document_is_openapi_3_1_and_names_every_operation(relay: RelayProcess) -> None:
    with urllib.request.urlopen(f"{http_url(relay.url)}/openapi.json") as answer:
        document = json.load(answer)
    assert document["openapi"] == "3.1.0"
    checkouts = "/v1/spaces/{space}/checkouts"
    named = {"/healthz", "/v1/tokens", "/v1/spaces/{space}/log", "/v1/tunnel/messages", checkouts}
    assert named | {f"{checkouts}/return", f"{checkouts}/break"} <= set(document["paths"])
    names = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(names) == len(set(names))
