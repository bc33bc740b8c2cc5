"""Checkouts over HTTP: asked, renewed, returned, broken, listed; decided as over the socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.protocol.frames import CheckedOut, CheckIn, CheckOut, CheckoutAnswer, Deliver, Push, RowKind
from crdt_sync.protocol.leases import decode_lease
from crdt_sync.roles import Role
from tests.server.http_kit import ApiClient
from tests.server.relay_kit import RelayProcess, TestDevice, TestSpace, create, raw_client, record
from tests.waiting import until

R1, R2, R3 = (record(number).hex() for number in (1, 2, 3))


@dataclass
class Site:
    """A space with an admin, two field devices and a reader, each with a token."""

    space: TestSpace
    office: ApiClient
    tablet: ApiClient
    other: ApiClient
    reader: ApiClient


@pytest.fixture
async def site(relay: RelayProcess, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    space = TestSpace(hash(request.node.name) % 10**6 + 1000)
    devices = [space.founder, space.member(), space.member(), space.member(Role.READER)]
    await create(relay.url, relay.setup_token or "", space)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(ApiClient(relay.url, device)) for device in devices]
        yield Site(space, *clients)


async def ask(api: ApiClient, how: str, *records: str, **more: Any) -> list[dict[str, Any]]:
    answer = await api.call("POST", f"checkouts{how}", json={"records": list(records), **more})
    assert [result["record"] for result in answer["results"]] == list(records)
    return list(answer["results"])


async def codes(api: ApiClient, how: str, *records: str, **more: Any) -> list[str]:
    return [result["code"] for result in await ask(api, how, *records, **more)]


def hex_id(api: ApiClient) -> str:
    return api.device.author.device.hex()


async def test_asked_refused_renewed_returned(site: Site) -> None:
    tablet, other = site.tablet, site.other
    first, _ = await ask(tablet, "", R1, R2, ttl_s=3600)
    assert first["code"] == "granted"
    lease = first["lease"]
    assert (lease["device"], lease["state"], lease["in_force"]) == (hex_id(tablet), "held", True)
    assert lease["expires_ms"] - lease["since_ms"] == 3_600_000
    refused, free = await ask(other, "", R1, R3)
    assert (refused["code"], free["code"]) == ("checked_out", "granted")
    assert refused["lease"] == lease, "who has it, and until when"
    (renewed,) = await ask(tablet, "", R1, ttl_s=7200)
    assert (renewed["code"], renewed["lease"]["token"]) == ("renewed", lease["token"])
    assert renewed["lease"]["expires_ms"] > lease["expires_ms"]
    assert await codes(other, "/return", R1, R2, record(9).hex()) == [
        "checked_out",
        "checked_out",
        "not_held",
    ]
    assert await codes(tablet, "/return", R1) == ["returned"]
    (mine,) = await ask(other, "", R1, newest_token=lease["token"])
    assert mine["code"] == "granted"
    assert mine["lease"]["token"] > lease["token"]


async def test_only_admins_break_and_readers_check_nothing_out(site: Site) -> None:
    assert await codes(site.reader, "", R1) == ["permission"]
    assert await codes(site.tablet, "", R1) == ["granted"]
    assert await codes(site.other, "/break", R1) == ["permission"]
    (broken,) = await ask(site.office, "/break", R1)
    assert (broken["code"], broken["lease"]["state"]) == ("broken", "broken")
    assert not broken["lease"]["in_force"]
    assert await codes(site.other, "", R1) == ["granted"]


async def test_the_list_is_for_every_member_and_comes_in_pages(site: Site) -> None:
    await ask(site.tablet, "", R1, R2)
    await ask(site.other, "", R3)
    await ask(site.tablet, "/return", R1)
    page = await site.reader.call("GET", "checkouts", params={"limit": 1})
    assert [lease["record"] for lease in page["checkouts"]] == [R2]
    assert not page["at_end"]
    rest = await site.reader.call("GET", "checkouts", params={"after": page["cursor"]})
    assert [(one["record"], one["device"]) for one in rest["checkouts"]] == [(R3, hex_id(site.other))]
    assert rest["at_end"]
    every = await site.reader.call("GET", "checkouts", params={"all": "true"})
    assert [(one["record"], one["state"]) for one in every["checkouts"]] == [
        (R2, "held"),
        (R3, "held"),
        (R1, "returned"),
    ]
    audit = await site.office.call("GET", "audit", params={"limit": 500})
    noted = [one["detail"] for one in audit["events"] if one["event"] == "checkout"]
    assert {"result": "granted", "records": 2} in noted
    assert {"result": "returned", "records": 1} in noted


async def test_a_push_to_a_record_of_somebody_else_is_refused_whole_and_says_so(site: Site) -> None:
    tablet, other = site.tablet, site.other
    (mine,) = await ask(tablet, "", R2)
    writer: TestDevice = other.device
    before = writer.update(record(3))
    assert (await other.push(before))["results"][0]["status"] == "stored"
    free, taken, after = writer.update(record(1)), writer.update(record(2)), writer.update(record(3))
    pushed = await other.push(before, free, taken, after)
    assert [one["status"] for one in pushed["results"]] == ["stored", "not_tried", "refused", "not_tried"]
    refused = pushed["results"][2]
    assert (refused["code"], refused["lease"]) == ("checked_out", mine["lease"])
    assert hex_id(tablet) in refused["reason"]
    await other.push(free, taken, after)
    audit = await site.office.call("GET", "audit", params={"limit": 500})
    refusals = [one["detail"] for one in audit["events"] if one["event"] == "refused"]
    assert refusals == [{"code": "checked_out", "sequence": 3}], "once for a token: insisting fills no book"
    log = await tablet.call("GET", "log", params={"limit": 500})
    assert [row["kind"] for row in log["rows"]].count("update") == 1, "nothing of that push is there"


async def test_late_work_is_marked(site: Site) -> None:
    await ask(site.tablet, "", R1)
    await ask(site.office, "/break", R1)
    await site.tablet.push(site.tablet.device.update(record(1)))
    (lease,) = (await site.office.call("GET", "checkouts", params={"all": "true"}))["checkouts"]
    (late,) = lease["late"]
    assert (late["device"], late["first"], late["last"]) == (hex_id(site.tablet), 1, 1)


async def test_the_socket_and_http_know_of_each_other(site: Site, relay: RelayProcess) -> None:
    async with raw_client(relay.url) as socket:
        await socket.hello(site.other.device)
        await socket.caught_up()
        (result,) = await ask(site.tablet, "", R1)
        (row,) = (await socket.expect(Deliver)).rows
        assert row.kind is RowKind.LEASE
        assert (row.sequence, decode_lease(row.payload).token) == (
            result["lease"]["row"],
            result["lease"]["token"],
        )
        await socket.send(Push([site.other.device.update(record(1))]))
        assert (await socket.expect(CheckedOut)).lease.device == site.tablet.device.author.device
        await socket.send(CheckOut([record(2)], 0, 0))
        (told,) = (await socket.expect(CheckoutAnswer)).results
        assert told.code == "granted"
        assert await codes(site.tablet, "", R2) == ["checked_out"]
        await socket.send(CheckIn([record(2)], False))
        await socket.expect(CheckoutAnswer)
        assert await codes(site.tablet, "", R2) == ["granted"]


async def test_a_lease_runs_out_by_itself(site: Site) -> None:
    await ask(site.tablet, "", R1, ttl_s=1)

    async def over() -> bool:
        return not (await site.other.call("GET", "checkouts"))["checkouts"]

    await until(over)
    assert await codes(site.other, "", R1) == ["granted"]


@pytest.mark.parametrize(
    "body",
    [
        {"records": []},
        {"records": [record(number).hex() for number in range(257)]},
        {"records": ["1234"]},
        {"records": [R1], "ttl_s": -1},
        {"records": [R1], "ttl_s": 8 * 24 * 3600},
        {"records": [R1], "breaks": True},
    ],
)
async def test_what_is_no_question_is_refused_and_changes_nothing(site: Site, body: dict[str, Any]) -> None:
    assert (await site.tablet.call("POST", "checkouts", json=body, expect=422))["code"] == "body"
    assert (await site.tablet.call("GET", "checkouts", params={"all": "true"}))["checkouts"] == []


async def test_a_push_keeps_to_max_push_over_http_too(tmp_path: Path) -> None:
    space = TestSpace(77)
    with RelayProcess(tmp_path / "data", "--max-push", "2") as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with ApiClient(relay.url, space.founder) as api:
            envelopes = [space.founder.update(record(1)) for _ in range(3)]
            assert (await api.push(*envelopes, expect=413))["code"] == "too_large"
            assert len((await api.push(*envelopes[:2]))["results"]) == 2


async def test_who_pushes_too_much_is_told_when_to_go_on(tmp_path: Path) -> None:
    space = TestSpace(78)
    with RelayProcess(tmp_path / "data", "--update-rate", "1", "--update-burst", "2") as relay:
        await create(relay.url, relay.setup_token or "", space)
        async with ApiClient(relay.url, space.founder) as api:
            envelopes = [space.founder.update(record(1)) for _ in range(3)]
            pushed = await api.push(*envelopes)
            assert [one["status"] for one in pushed["results"]] == ["stored", "stored", "refused"]
            assert (pushed["results"][2]["code"], pushed["retry_after_s"]) == ("rate_limited", 1)
