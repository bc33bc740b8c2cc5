"""A device at a relay's HTTP API: real keys, real requests."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from crdt_sync.ids import RelayId
from crdt_sync.protocol.tokens import token_message
from tests.server.relay_kit import TestDevice


def http_url(url: str) -> str:
    return url.replace("ws://", "http://", 1)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text)


class ApiClient:
    """Requests of one device in one space. `token` is got when it is needed."""

    def __init__(self, url: str, device: TestDevice) -> None:
        self.device = device
        self.client = httpx.AsyncClient(base_url=http_url(url), timeout=40, trust_env=False)
        self.space = f"/v1/spaces/{device.space.id.hex()}"
        self.token = ""

    async def __aenter__(self) -> ApiClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def signed(self, **changes: Any) -> dict[str, Any]:
        """A token request that is right, but for the changes."""
        challenge = (await self.client.post("/v1/tokens/challenge")).json()
        nonce = unb64(challenge["nonce"])
        message = token_message(
            nonce=nonce,
            relay_id=RelayId(bytes.fromhex(challenge["relay_id"])),
            space=self.device.space.id,
            author=self.device.author,
        )
        return {
            "space": self.device.space.id.hex(),
            "device": self.device.author.device.hex(),
            "incarnation": self.device.author.incarnation,
            "nonce": b64(nonce),
            "signature": b64(self.device.keys.sign(message)),
            "agent": "crdt-sync/1 os/TestOS-2 app/Rigs-3",
            **changes,
        }

    async def get_token(self) -> str:
        answer = await self.client.post("/v1/tokens", json=await self.signed())
        assert answer.status_code == 201, answer.text
        self.token = answer.json()["access_token"]
        return self.token

    async def call(self, method: str, path: str, *, expect: int = 200, **more: Any) -> Any:
        """The body of the answer, whose status is as expected. `path` without a slash is below the space."""
        if not self.token:
            await self.get_token()
        path = path if path.startswith("/") else f"{self.space}/{path}".rstrip("/")
        answer = await self.client.request(
            method, path, headers={"Authorization": f"Bearer {self.token}"}, **more
        )
        assert answer.status_code == expect, answer.text
        if expect >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == expect
        return answer.json() if answer.content else None

    async def push(self, *envelopes: bytes, expect: int = 200) -> Any:
        return await self.call(
            "POST", "envelopes", json={"envelopes": list(map(b64, envelopes))}, expect=expect
        )
