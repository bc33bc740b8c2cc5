"""A device that the operator has shut out: at once, on a running relay and a stopped one, until undone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from crdt_sync.errors import ShutOut
from crdt_sync.ids import DeviceId, SpaceId
from crdt_sync.protocol.codes import CloseCode
from crdt_sync.protocol.frames import (
    Ack,
    Bye,
    CheckOut,
    CheckoutAnswer,
    Frame,
    Push,
    Revive,
    Welcome,
    revive_message,
)
from crdt_sync_server.effects import Close, Peer
from crdt_sync_server.revocations import NotRevoked, Revocations, UnknownDevice
from tests.server.engine_kit import NONCE, Relay
from tests.server.http_kit import ApiClient, b64
from tests.server.operator_kit import fill, plain, relay_command
from tests.server.relay_kit import RelayProcess, TestDevice, TestSpace, raw_client, record

R1 = record(1)


class Team:
    """An office and a tablet, both connected, and what the operator does about the tablet."""

    def __init__(self, relay: Relay) -> None:
        self.relay, self.space = relay, TestSpace(41)
        self.office, self.tablet = self.space.founder, self.space.member()
        relay.create(self.space)
        self.peer = relay.connect(self.tablet)
        self.device = self.tablet.author.device

    def revoke(self, space: SpaceId | None = None, reason: str = "lost at Pit 4") -> list[Close]:
        return self.relay.engine.revocations.revoke(self.device, space, reason, 2_000)

    def admit(self, space: SpaceId | None = None) -> None:
        self.relay.engine.revocations.admit(self.device, space, 3_000)

    def greet(self, device: TestDevice) -> Frame:
        (answer,) = self.relay.answers(Peer(NONCE), device.hello(NONCE, self.relay.engine.relay_id))
        return answer

    def is_shut_out(self) -> bool:
        answer = self.greet(self.tablet)
        if isinstance(answer, Welcome):
            return False
        assert isinstance(answer, Bye)
        assert (answer.code, answer.error) == (CloseCode.FORBIDDEN, "revoked")
        return True


@pytest.fixture
def team(engine: Relay) -> Team:
    return Team(engine)


def test_its_connections_are_closed_with_the_reason_and_the_others_are_not(team: Team) -> None:
    office = team.relay.connect(team.office)
    (close,) = team.revoke()
    assert close.peer is team.peer
    assert (close.bye.code, close.bye.error) == (CloseCode.FORBIDDEN, "revoked")
    assert close.bye.reason == "the relay's operator has shut this device out: lost at Pit 4"
    assert isinstance(team.relay.push(office, team.office.update(R1))[0], Ack)


def test_nothing_more_of_it_is_taken_or_answered(team: Team) -> None:
    """What was on its way when the operator said so, or comes over another way."""
    team.revoke()
    before = team.relay.dump()
    for frame in (Push([team.tablet.update(R1)]), CheckOut([R1], 0, 0)):
        (answer,) = team.relay.answers(team.peer, frame)
        assert isinstance(answer, Bye)
        assert answer.error == "revoked"
    assert team.is_shut_out()
    message = revive_message(
        nonce=NONCE, relay_id=team.relay.engine.relay_id, space=team.space.id, party=team.device,
        entries=team.space.entries,
    )  # fmt: skip
    signature = team.tablet.keys.sign(message)
    revive = Revive(1, team.space.id, team.device, team.space.entries, "test", signature)
    assert isinstance(team.relay.answers(Peer(NONCE), revive)[0], Bye)
    assert team.relay.dump() == before


def test_who_is_not_the_device_does_not_learn_that_it_is_shut_out(team: Team) -> None:
    team.revoke()
    hello = team.tablet.hello(bytes(31) + b"x", team.relay.engine.relay_id)
    (answer,) = team.relay.answers(Peer(NONCE), hello)
    assert isinstance(answer, Bye)
    assert (answer.code, answer.error) == (CloseCode.UNAUTHENTICATED, "bad_signature")


def test_it_lasts_over_restarts_and_ends_when_it_is_undone(team: Team) -> None:
    raw = team.tablet.update(R1)
    team.revoke()
    team.relay.restart()
    assert team.is_shut_out()
    team.admit()
    assert not team.is_shut_out()
    team.relay.restart()
    assert not team.is_shut_out()
    assert isinstance(team.relay.push(team.relay.connect(team.tablet), raw)[0], Ack)


def test_out_of_one_space_or_out_of_all(team: Team) -> None:
    revocations, other = team.relay.engine.revocations, SpaceId(b"o" * 16)
    team.revoke(team.space.id)
    assert team.is_shut_out()
    revocations.check(other, team.device)
    team.revoke()
    with pytest.raises(ShutOut):
        revocations.check(other, team.device)
    team.admit(team.space.id)
    assert team.is_shut_out(), "out of all it still is"
    with pytest.raises(NotRevoked, match="all spaces"):
        team.admit(team.space.id)
    team.revoke(team.space.id)
    team.admit()
    assert not team.is_shut_out(), "without a space all of it is undone"
    with pytest.raises(NotRevoked):
        team.admit()


def test_a_reason_is_one_line_and_fits(team: Team) -> None:
    (close,) = team.revoke(reason="lost\n\x1b[31m at   Pit 4 " + "x" * 5000)
    assert "lost [31m at Pit 4 xxx" in close.bye.reason
    assert close.bye.reason.isprintable()


def test_a_device_that_is_nowhere_is_refused_and_a_failed_commit_changes_nothing(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    revocations = team.relay.engine.revocations
    with pytest.raises(UnknownDevice):
        revocations.revoke(DeviceId(bytes(16)), None, "", 1)

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(team.relay.storage.books, "note", full)
    with pytest.raises(OSError, match="full"):
        team.revoke()
    monkeypatch.undo()
    assert not team.is_shut_out()
    team.revoke()
    monkeypatch.setattr(team.relay.storage.books, "note", full)
    with pytest.raises(OSError, match="full"):
        team.admit()
    monkeypatch.undo()
    assert team.is_shut_out()
    team.relay.restart()
    assert team.is_shut_out()


def test_a_relay_that_forgets_to_ask_is_found(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug that these tests are to find."""
    monkeypatch.setattr(Revocations, "check", lambda *_: None)
    team.revoke()
    assert not team.is_shut_out()
    assert isinstance(team.relay.push(team.peer, team.tablet.update(R1))[0], Ack)


# The command


async def test_a_running_relay_shuts_a_device_out_at_once_and_lets_it_in_again(tmp_path: Path) -> None:
    data, space = tmp_path / "data", TestSpace(42)
    tablet = space.member()
    name = tablet.author.device.hex()

    async def ask(*args: str, code: int = 0) -> Any:
        return await asyncio.to_thread(relay_command, *args, "--data", data, code=code)

    with RelayProcess(data) as relay:
        await fill(relay, space)
        async with (
            raw_client(relay.url) as here,
            raw_client(relay.url) as office,
            ApiClient(relay.url, tablet) as api,
            ApiClient(relay.url, space.founder) as admin,
        ):
            await here.hello(tablet)
            await office.hello(space.founder)
            await api.call("GET", "")
            done = await ask("revoke", name, "--reason", "lost at Pit 4")
            assert done == {"device": name, "space": None, "revoked": True, "closed": 1}
            bye = await here.expect(Bye)
            assert (bye.code, bye.error) == (4403, "revoked")
            assert "lost at Pit 4" in bye.reason
            assert (await here.closed())[0] == 4403
            for call in (("GET", "log"), ("GET", "devices")):
                assert (await api.call(*call, expect=403))["code"] == "revoked"
            push = {"envelopes": [b64(tablet.update(R1))]}
            assert (await api.call("POST", "envelopes", json=push, expect=403))["code"] == "revoked"
            refused = await api.client.post("/v1/tokens", json=await api.signed())
            assert (refused.status_code, refused.json()["code"]) == (403, "revoked")
            async with raw_client(relay.url) as again:
                await again.send(tablet.hello(again.challenge.nonce, again.challenge.relay_id))
                assert (await again.expect(Bye)).error == "revoked"
            await office.send(Push([space.founder.update(R1)]))
            await office.expect(Ack)
            told = (await admin.call("GET", "devices"))["devices"]
            assert {one["device"]: one["revoked_ms"] is not None for one in told}[name]
            shown = {one["device"]: one["revoked"] for one in await ask("devices")}
            assert shown[name]["reason"] == "lost at Pit 4"
            assert shown[space.founder.author.device.hex()] is None
            assert "revoked" in await asyncio.to_thread(plain, "devices", "--data", data)
            await ask("revoke", name, "--undo")
            async with raw_client(relay.url) as again:
                await again.hello(tablet)
            await api.call("GET", "log")
            events = [one["event"] for one in (await admin.call("GET", "audit"))["events"]]
            assert [one for one in events if one in ("revoked", "admitted")] == ["revoked", "admitted"]
            error = await ask("revoke", name, "--undo", code=4)
            assert error["code"] == "not_revoked"
        assert relay.stop() == 0


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, TestSpace, TestDevice]:
    data, space = tmp_path / "data", TestSpace(43)
    tablet = space.member()
    with RelayProcess(data) as relay:
        asyncio.run(fill(relay, space))
        relay.stop()
    return data, space, tablet


async def test_a_stopped_relay_knows_when_it_starts(stopped: tuple[Path, TestSpace, TestDevice]) -> None:
    data, space, tablet = stopped
    name = tablet.author.device.hex()
    said = await asyncio.to_thread(plain, "revoke", name, "--space", space.id.hex(), "--data", data)
    assert f"shut out of space {space.id.hex()}" in said
    with RelayProcess(data) as relay:
        async with raw_client(relay.url) as client:
            await client.send(tablet.hello(client.challenge.nonce, client.challenge.relay_id))
            assert (await client.expect(Bye)).error == "revoked"
        assert relay.stop() == 0
    assert "is let into" in await asyncio.to_thread(plain, "revoke", name, "--undo", "--data", data)


def test_what_cannot_be_is_told_and_changes_nothing(stopped: tuple[Path, TestSpace, TestDevice]) -> None:
    data, _, tablet = stopped
    name = tablet.author.device.hex()
    for device in ("zz", "00" * 15, "00" * 16):
        assert relay_command("revoke", device, "--data", data, code=3)["code"] == "unknown_device"
    for of in ("zz", "00" * 16):
        error = relay_command("revoke", name, "--space", of, "--data", data, code=3)
        assert error["code"] == "unknown_space"
    assert relay_command("revoke", name, "--undo", "--data", data, code=4)["code"] == "not_revoked"
    assert relay_command("revoke", name, "--undo", "--reason", "x", "--data", data, code=2)
    assert all(one["revoked"] is None for one in relay_command("devices", "--data", data))


# Checkouts


async def test_checkouts_are_listed_running_and_stopped(tmp_path: Path) -> None:
    data, space = tmp_path / "data", TestSpace(44)
    holder = space.founder.author.device.hex()
    with RelayProcess(data) as relay:
        await fill(relay, space)
        async with raw_client(relay.url) as client:
            await client.hello(space.founder)
            await client.send(CheckOut([R1, record(2)], 3_600_000, 0))
            results = (await client.expect(CheckoutAnswer)).results
        found = await asyncio.to_thread(relay_command, "checkouts", "--data", data)
        assert [(one["record"], one["device"], one["held"]) for one in found] == [
            (R1.hex(), holder, True),
            (record(2).hex(), holder, True),
        ]
        assert {one["expires_ms"] - one["since_ms"] for one in found} == {3_600_000}
        assert all(one["token"] for one in found)
        assert len(results) == 2
        assert relay.stop() == 0
    assert relay_command("checkouts", "--space", space.id.hex(), "--data", data) == found
    assert R1.hex() in plain("checkouts", "--data", data)
    error = relay_command("checkouts", "--space", "00" * 16, "--data", data, code=3)
    assert error["code"] == "unknown_space"
