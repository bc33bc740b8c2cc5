"""The HTTP API of a real relay: tokens, the log, devices, the audit log, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from crdt_sync.protocol.frames import Deliver, Got, Push
from crdt_sync.roles import Role
from crdt_sync_server.http.routing import Operation, Router
from crdt_sync_server.http.tokens import NONCE_TTL_S, Holder, Tokens
from tests.server.http_kit import ApiClient, b64, http_url, unb64
from tests.server.relay_kit import RelayProcess, TestSpace, create, raw_client, record
from tests.waiting import until


async def space_at(relay: RelayProcess, seed: int) -> TestSpace:
    space = TestSpace(seed)
    await create(relay.url, relay.setup_token or "", space)
    return space


# Tokens


async def test_a_token_is_for_who_signed_a_fresh_challenge(relay: RelayProcess) -> None:
    space = await space_at(relay, 101)
    stranger = TestSpace(102).founder
    async with ApiClient(relay.url, space.founder) as api:
        good = await api.signed()
        answer = await api.client.post("/v1/tokens", json=good)
        assert answer.status_code == 201
        assert answer.json()["token_type"] == "Bearer"
        assert 0 < answer.json()["expires_in_s"] <= 3600
        used_again = await api.client.post("/v1/tokens", json=good)
        assert (used_again.status_code, used_again.json()["code"]) == (401, "bad_nonce")
        made_up = await api.signed(nonce=b64(bytes(40)))
        assert (await api.client.post("/v1/tokens", json=made_up)).status_code == 401
        forged = await api.client.post("/v1/tokens", json=await api.signed(signature=b64(bytes(64))))
        assert (forged.status_code, forged.json()["code"]) == (401, "bad_signature")
        assert forged.headers["www-authenticate"].startswith("Bearer")
        other = await api.client.post(
            "/v1/tokens", json=await api.signed(device=stranger.author.device.hex())
        )
        assert (other.status_code, other.json()["code"]) == (403, "unknown_member")
        nowhere = await api.client.post("/v1/tokens", json=await api.signed(space="00" * 16))
        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "unknown_space")


async def test_a_new_token_leaves_the_one_before_good_until_it_is_ended(relay: RelayProcess) -> None:
    space = await space_at(relay, 103)
    async with ApiClient(relay.url, space.founder) as api:
        first = await api.get_token()
        second = await api.get_token()
        assert first != second
        for token in (first, second):
            api.token = token
            await api.call("GET", "")
        await api.call("DELETE", "/v1/tokens/current", expect=204)
        assert (await api.call("GET", "", expect=401))["code"] == "token"
        api.token = first
        await api.call("GET", "")


async def test_a_token_is_for_one_space(relay: RelayProcess) -> None:
    space, other = await space_at(relay, 104), await space_at(relay, 105)
    async with ApiClient(relay.url, space.founder) as api:
        assert (await api.call("GET", f"/v1/spaces/{other.id.hex()}", expect=403))["code"] == "other_space"


async def test_a_token_ends_by_itself(tmp_path: Path) -> None:
    from crdt_sync.ids import Author, DeviceId, Incarnation, SpaceId

    holder = Holder(SpaceId(b"s" * 16), Author(DeviceId(b"d" * 16), Incarnation(1)), "")
    tokens = Tokens(lambda size: bytes(range(size)), ttl_s=600)
    token = tokens.issue(holder, 1_000.0)
    assert tokens.holder(token, 1_599.9) == holder
    assert tokens.holder(token, 1_600.0) is None
    assert tokens.holder(token + "x", 1_000.0) is None
    nonce = tokens.challenge(1_000.0)
    assert not tokens.redeem(nonce, 1_000.0 + NONCE_TTL_S + 1)
    assert tokens.redeem(nonce, 1_000.0 + NONCE_TTL_S - 1)
    assert not tokens.redeem(nonce, 1_000.0 + NONCE_TTL_S - 1)
    token = tokens.issue(holder, 2_000.0)
    assert tokens.revoke_author(holder.space, holder.author) >= 1
    assert tokens.holder(token, 2_000.0) is None


# The log


async def test_what_is_pushed_by_http_is_pulled_by_http_and_comes_by_the_socket(relay: RelayProcess) -> None:
    space = TestSpace(106)
    writer, reader = space.founder, space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with ApiClient(relay.url, writer) as api, ApiClient(relay.url, reader) as other:
        async with raw_client(relay.url) as socket:
            await socket.hello(reader)
            await socket.caught_up()
            envelopes = [writer.update(record(n)) for n in range(3)]
            pushed = await api.push(*envelopes)
            assert [result["status"] for result in pushed["results"]] == ["stored"] * 3
            assert pushed["head"] == 6
            delivered = await socket.expect(Deliver)
            assert [row.payload for row in delivered.rows] == envelopes
        again = await api.push(*envelopes)
        assert [result["status"] for result in again["results"]] == ["stored"] * 3, "it is there already"
        page = await other.call("GET", "log", params={"limit": 2})
        assert [row["kind"] for row in page["rows"]] == ["membership"] * 2
        assert (page["cursor"], page["at_end"], page["head"]) == (2, False, 6)
        rest = await other.call("GET", "log", params={"after": page["cursor"]})
        assert [unb64(row["payload"]) for row in rest["rows"] if row["kind"] == "update"] == envelopes
        assert (rest["cursor"], rest["at_end"]) == (6, True)
        own = await api.call("GET", "log", params={"after": 3, "own": "false"})
        assert (own["rows"], own["cursor"], own["at_end"]) == ([], 6, True)


async def test_each_envelope_of_a_push_has_its_result(relay: RelayProcess) -> None:
    space = await space_at(relay, 107)
    async with ApiClient(relay.url, space.founder) as api:
        first, second = space.founder.update(record(1)), space.founder.update(record(1))
        space.founder.update(record(1))
        gap, behind = space.founder.update(record(1)), space.founder.update(record(2))
        results = (await api.push(first, second, gap, behind))["results"]
        assert [result["status"] for result in results] == ["stored", "stored", "refused", "not_tried"]
        assert (results[2]["code"], results[2]["sequence"]) == ("chain_broken", 4)
        garbage = (await api.push(b"no envelope at all" * 20, behind))["results"]
        assert [result["status"] for result in garbage] == ["refused", "not_tried"]
        assert garbage[0]["code"] == "malformed_envelope"


async def test_a_long_poll_answers_when_something_comes_or_when_it_has_waited(relay: RelayProcess) -> None:
    space = TestSpace(108)
    writer, reader = space.founder, space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with ApiClient(relay.url, writer) as api, ApiClient(relay.url, reader) as other:
        await api.get_token()
        await other.get_token()
        waiting = asyncio.create_task(other.call("GET", "log", params={"after": 3, "wait_s": 30}))
        await asyncio.sleep(0.05)  # it waits by now, most likely; if not, the page comes at once
        envelope = writer.update(record(1))
        await api.push(envelope)
        page = await waiting
        assert [unb64(row["payload"]) for row in page["rows"]] == [envelope]
        nothing = await other.call("GET", "log", params={"after": page["cursor"], "wait_s": 1})
        assert (nothing["rows"], nothing["at_end"]) == ([], True)


async def test_a_reader_may_pull_and_not_push(relay: RelayProcess) -> None:
    space = TestSpace(109)
    reader = space.member(Role.READER)
    await create(relay.url, relay.setup_token or "", space)
    async with ApiClient(relay.url, reader) as api:
        assert len((await api.call("GET", "log"))["rows"]) == 3
        (result,) = (await api.push(reader.update(record(1))))["results"]
        assert (result["status"], result["code"]) == ("refused", "permission")


# Devices and the audit log


async def test_devices_are_told_with_what_is_known_of_them(relay: RelayProcess) -> None:
    space = TestSpace(110)
    tablet, absent = space.member(), space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with ApiClient(relay.url, space.founder) as api, ApiClient(relay.url, tablet) as other:
        async with raw_client(relay.url) as socket:
            await socket.hello(tablet)
            await socket.caught_up()
            await socket.send(Got(5))
            devices = (await api.call("GET", "devices"))["devices"]
            found = {device["device"]: device for device in devices}
            here = found[tablet.author.device.hex()]
            assert (here["connected"], here["cursor"], here["lag"], here["role"]) == (True, 5, 0, "field")
            assert here["last_sync_ms"] is not None
            me = found[space.founder.author.device.hex()]
            assert (me["app"], me["os"], me["role"]) == ("Rigs-3", "TestOS-2", "admin")
            never = found[absent.author.device.hex()]
            assert (never["last_seen_ms"], never["cursor"], never["lag"]) == (None, 0, 5)
        renamed = await other.call(
            "PATCH", f"devices/{tablet.author.device.hex()}", json={"label": "Rig 4, cab"}
        )
        assert renamed["label"] == "Rig 4, cab"
        path = f"devices/{space.founder.author.device.hex()}"
        assert (await other.call("PATCH", path, json={"label": "x"}, expect=403))["code"] == "permission"
        await api.call("PATCH", f"devices/{'ab' * 16}", json={"label": "x"}, expect=404)

        async def left() -> bool:
            devices = (await api.call("GET", "devices"))["devices"]
            return not any(device["connected"] for device in devices)

        await until(left)
        (gone,) = [
            device
            for device in (await api.call("GET", "devices"))["devices"]
            if device["device"] == tablet.author.device.hex()
        ]
        assert (gone["label"], gone["cursor"]) == ("Rig 4, cab", 5)
        assert gone["last_sync_ms"] is not None
        view = await api.call("GET", "")
        assert (view["head"], view["members"], view["connections"]) == (5, 3, 0)
        assert 0 < view["size_bytes"] < view["quota_bytes"]


async def test_the_audit_log_is_for_admins_and_comes_in_pages(relay: RelayProcess) -> None:
    space = TestSpace(111)
    tablet = space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with ApiClient(relay.url, space.founder) as api, ApiClient(relay.url, tablet) as other:
        assert (await other.call("GET", "audit", expect=403))["code"] == "permission"
        events = []
        after = 0
        while page := (await api.call("GET", "audit", params={"after": after, "limit": 2}))["events"]:
            events += page
            after = page[-1]["number"]
        names = [event["event"] for event in events]
        assert names[0] == "space_created"
        assert {"connected", "membership", "token"} <= set(names)
        kinds = [event["detail"]["kind"] for event in events if event["event"] == "membership"]
        assert kinds == ["invite", "join"]


# What is refused


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("GET", "/nothing", {}, 404, "no_such_path"),
        ("POST", "/healthz", {}, 405, "method_not_allowed"),
        ("GET", "log", {"params": {"limit": 501}}, 422, "query"),
        ("GET", "log", {"params": {"limit": "x"}}, 422, "query"),
        ("GET", "log", {"params": {"after": -1}}, 422, "query"),
        ("GET", "log", {"params": {"wait_s": 3600}}, 422, "query"),
        ("GET", "log", {"params": {"surprise": 1}}, 422, "query"),
        ("GET", "log", {"params": [("after", 1), ("after", 2)]}, 422, "query"),
        ("GET", "/v1/spaces/NOT-HEX", {}, 404, "unknown_space"),
        ("POST", "envelopes", {"json": {"envelopes": []}}, 422, "body"),
        ("POST", "envelopes", {"json": {"envelopes": ["not base64!"]}}, 422, "body"),
        ("POST", "envelopes", {"json": {"envelopes": [], "more": 1}}, 422, "body"),
        ("POST", "envelopes", {"json": {"envelopes": ["QQ=="] * 501}}, 422, "body"),
        (
            "POST",
            "envelopes",
            {"content": b"{", "headers": {"content-type": "application/json"}},
            400,
            "not_json",
        ),
        (
            "POST",
            "envelopes",
            {"content": b"[" * 9999, "headers": {"content-type": "application/json"}},
            422,
            "body",
        ),
        ("POST", "envelopes", {"content": b"{}"}, 415, "media_type"),
        ("POST", "envelopes", {"content": b"x" * 6_000_000}, 415, "media_type"),
        (
            "POST",
            "envelopes",
            {"content": b"x" * 6_000_000, "headers": {"content-type": "application/json"}},
            413,
            "too_large",
        ),
    ],
)
async def test_what_cannot_be_is_a_problem_with_a_code(
    relay: RelayProcess, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    space = TestSpace(112)
    await create(relay.url, relay.setup_token or "", space)
    async with ApiClient(relay.url, space.founder) as api:
        await api.get_token()
        path = path if path.startswith("/") else f"{api.space}/{path}"
        headers = {"Authorization": f"Bearer {api.token}", **more.pop("headers", {})}
        answer = await api.client.request(method, path, headers=headers, **more)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_without_a_token_nothing_is_told(relay: RelayProcess) -> None:
    space = await space_at(relay, 113)
    async with ApiClient(relay.url, space.founder) as api:
        for path in ("", "/devices", "/log", "/audit"):
            answer = await api.client.get(api.space + path)
            assert (answer.status_code, answer.json()["code"]) == (401, "no_token")


# Operating


async def test_health_readiness_and_metrics(relay: RelayProcess) -> None:
    space = await space_at(relay, 114)
    async with raw_client(relay.url) as socket:
        await socket.hello(space.founder)
        await socket.caught_up()
        await socket.send(Push([space.founder.update(record(1))]))
        async with httpx.AsyncClient(base_url=http_url(relay.url), trust_env=False) as client:
            assert (await client.get("/healthz")).json()["status"] == "ok"
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            text = (await client.get("/metrics")).text
    figures = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[0] != "#"
    }
    assert figures["crdt_sync_relay_connections"] >= 1
    assert figures['crdt_sync_relay_log_rows_total{kind="membership"}'] >= 1
    for name in ("received_bytes_total", "sent_bytes_total", "log_bytes", "disk_bytes", "spaces"):
        assert figures[f"crdt_sync_relay_{name}"] > 0, name
    assert figures["crdt_sync_relay_sync_seconds_count"] >= 1
    assert figures["crdt_sync_relay_commit_seconds_count"] >= 1
    assert space.id.hex() not in text


async def test_metrics_may_need_a_token_and_the_api_may_be_off(tmp_path: Path) -> None:
    extra = ("--metrics-token", "a-token-for-metrics-1", "--http-api", "false")
    with RelayProcess(tmp_path / "data", *extra) as relay:
        async with httpx.AsyncClient(base_url=http_url(relay.url), trust_env=False) as client:
            assert (await client.get("/metrics")).status_code == 401
            wrong = await client.get("/metrics", headers={"Authorization": "Bearer wrong"})
            assert wrong.status_code == 401
            right = {"Authorization": "Bearer a-token-for-metrics-1"}
            assert (await client.get("/metrics", headers=right)).status_code == 200
            assert (await client.post("/v1/tokens/challenge")).status_code == 404
            assert (await client.get("/healthz")).status_code == 200
        assert relay.stop() == 0
        assert relay.stderr == ""


async def test_an_error_of_ours_is_a_problem_and_its_text_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("something a device sent")

    def nobody(token: str) -> Holder:
        raise AssertionError("nobody needs a token here")

    operation = Operation("GET", "/it", "it", "", fail)
    app = Starlette(routes=[Router(nobody, 1000).route(operation)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as client:
        answer = await client.get("/it")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "it could not be answered (RuntimeError)" in caplog.text
    assert "device sent" not in caplog.text + answer.text
