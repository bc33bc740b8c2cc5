"""A real relay process: what an operator and a device see of it."""

from __future__ import annotations

from crdt_sync.protocol.frames import Ack, Deliver, Push
from tests.server.relay_kit import RelayProcess, TestSpace, create, raw_client, record


async def test_what_one_pushes_another_receives(relay: RelayProcess) -> None:
    space = TestSpace(1)
    writer, reader = space.founder, space.member()
    await create(relay.url, relay.setup_token or "", space)
    async with raw_client(relay.url) as a, raw_client(relay.url) as b:
        await a.hello(writer)
        await b.hello(reader)
        rows = [row for frame in await b.caught_up() for row in frame.rows]
        assert [row.sequence for row in rows] == [1, 2, 3]
        envelope = writer.update(record(1))
        await a.send(Push([envelope]))
        ack = await a.expect(Ack)
        assert (ack.sequence, ack.head) == (1, 4)
        delivered = await b.expect(Deliver)
        assert [(row.sequence, row.payload) for row in delivered.rows] == [(4, envelope)]
        assert (delivered.cursor, delivered.caught_up) == (4, True)
