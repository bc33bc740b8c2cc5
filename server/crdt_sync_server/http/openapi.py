"""The OpenAPI 3.1 document, made of the same table that the routes are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from crdt_sync_server.http.problems import MEDIA_TYPE, Problem
from crdt_sync_server.http.routing import FRAMES, JSON, Operation

_DESCRIPTION: Final = """\
Beside the WebSocket at `/v1/sync`, for networks that let none pass and for programs that look at a relay.

A device gets an access token by signing a challenge with its key: `POST /v1/tokens/challenge`, then
`POST /v1/tokens`. A token is for one device in one space and good for some minutes; the device gets the
next one the same way, at any time. What is pushed and pulled is encrypted; the relay can read none of it.

Errors are problem details (RFC 9457) with a stable `code`. After 429, 503 and 507 the same may be asked
again, later.
"""
_MEANING: Final = {
    400: "not JSON, or the body ended early", 401: "no token, one that is over, or a wrong signature",
    403: "not a member, or not with this role", 404: "no such space, device or path",
    409: "asked twice at once",
    410: "the tunnel is over", 413: "too large", 415: "another media type is wanted",
    422: "not as the schema says", 429: "too much at once; later", 503: "the relay is stopping; later",
    507: "over quota; later",
}  # fmt: skip
_SECURITY: Final = {
    "device": "An access token from `POST /v1/tokens`.",
    "tunnel": "The token from `POST /v1/tunnel`.",
    "metrics": "The relay's `metrics_token`, when it has one.",
}


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """As a JSON value."""
    kinds = [kind for one in operations for kind in (one.body, one.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(
        [*dict.fromkeys(kinds), Problem], ref_template="#/components/schemas/{name}"
    )
    of_kind: dict[Any, Any] = dict(zip([*dict.fromkeys(kinds), Problem], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        path = re.sub(r":\w+}", "}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, of_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "crdt-sync relay",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer", "description": text}
                for name, text in _SECURITY.items()
            },
        },
    }


def _operation(one: Operation, of_kind: dict[Any, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": one.summary}
    if one.answer is not None:
        done["content"] = {one.media: {"schema": of_kind[one.answer]}}
    elif one.media != JSON:
        done["content"] = {one.media: {"schema": {"type": "string"}}}
    problem = {MEDIA_TYPE: {"schema": of_kind[Problem]}}
    result: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "parameters": [*_path_parameters(one), *_query_parameters(one)],
        "responses": {
            str(one.status): done,
            **{
                str(status): {"description": _MEANING[status], "content": problem}
                for status in sorted({*one.problems, *_usual(one)})
            },
        },
    }
    if one.auth:
        result["security"] = [{one.auth: []}]
    if one.frames:
        result["requestBody"] = {
            "required": True,
            "content": {FRAMES: {"schema": {"type": "string", "format": "binary"}}},
        }
    elif one.body is not None:
        result["requestBody"] = {"required": True, "content": {JSON: {"schema": of_kind[one.body]}}}
    return result


def _usual(one: Operation) -> set[int]:
    """What any operation of that kind may answer."""
    usual = {422}
    if one.auth:
        usual.add(401)
    if one.auth == "device":
        usual.add(403)
    if "{" in one.path:
        usual |= {403, 404}
    if one.body is not None or one.frames:
        usual |= {400, 413, 415}
    return usual


def _path_parameters(one: Operation) -> list[dict[str, Any]]:
    schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name in re.findall(r"{(\w+)", one.path)
    ]


def _query_parameters(one: Operation) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    _, components = msgspec.json.schema_components([one.query])
    properties: dict[str, dict[str, Any]] = components[one.query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]
