"""Making a space and entering one: the two moments when a device is not a member yet.

Both hand the relay one entry of the membership log over a connection of their own. The store keeps the
space as unsettled (`creating`, `joining`) from before the entry leaves until the relay's answer:

- the relay took it: the space is confirmed;
- the relay refused: everything of it is forgotten, as if it had not been tried;
- the answer was lost: the device asks, by connecting as a member. If even that is not possible now, the
  space stays unsettled and the next connection settles it.

What a relay says about a space is believed only as far as the signed membership log proves it; the engine
checks the log before a byte of ours goes out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from crdt_sync.errors import (
    ConnectionFailed,
    CrdtSyncError,
    RelayRefused,
    RelayUnreachable,
    RemoteError,
    ValidationError,
)
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.frames import Appended, AppendRefused, Deliver, FromRelay, RowKind, Welcome
from crdt_sync.protocol.limits import HANDSHAKE_TIMEOUT_S
from crdt_sync.schemas.model import RecordSchema

from .database_thread import DatabaseThread
from .endings import append_refusal
from .relay_connection import AGENT, RelayConnection, check_relay_url
from .sync_loop import APPEND_TRIES, STALE_HEAD

logger = logging.getLogger("crdt_sync.client")

MAX_LOG_BYTES: Final = 64 * 1024 * 1024
"""A membership log larger than that is not read: some 20,000 members, and more than a phone should hold."""
ANSWER_TIMEOUT_S: Final = 4 * HANDSHAKE_TIMEOUT_S
"""For the whole exchange, which is at most four short ones."""


async def create_space(
    thread: DatabaseThread, name: str, *, relay: str, token: str, schemas: Sequence[RecordSchema]
) -> SpaceId:
    """Found a space and register it at the relay. Raises RelayUnreachable or RelayRefused.

    Raises ValidationError when the device has a space of that name: people tell spaces apart by their names.
    """
    check_relay_url(relay)
    engine = thread.store.engine
    if any(state.name == name for state in await thread.run(lambda: engine.spaces())):
        raise ValidationError(
            "space name",
            f"this device is in a space called {name} already",
            hint="choose another name; `crdt-sync space ls` lists the spaces there are",
        )
    connection = await RelayConnection.open(relay)
    try:
        space, genesis = await thread.run(lambda: engine.begin_space(name, relay, schemas))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await connection.send(
                    connection.session.create_space(genesis=genesis, setup_token=token, agent=AGENT)
                )
                answer = await connection.next_frame()
            if isinstance(answer, AppendRefused):
                raise append_refusal(answer, relay)
        except (CrdtSyncError, TimeoutError, asyncio.CancelledError) as exc:
            if await _settled(thread, space, exc):
                return space
            raise _as_error(exc, relay) from None
        await thread.run(lambda: engine.confirm_space(space))
    finally:
        await connection.close()
    return space


async def join(thread: DatabaseThread, link: str) -> SpaceId:
    """Enter a space with an invite. Raises an InviteError, RelayUnreachable, RelayRefused or RemoteError."""
    engine = thread.store.engine
    start = await thread.run(lambda: engine.begin_join(link))
    connection = await RelayConnection.open(start.relay_url)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await connection.send(
                connection.session.hello_with_invite(
                    space=start.space, invite=start.invite, sign=start.sign, agent=AGENT
                )
            )
            welcome = await connection.next_frame()
            assert isinstance(welcome, Welcome)  # the session lets nothing else through
            await _append_join(thread, connection, link, start.space)
    except RemoteError as exc:
        await connection.refuse(exc)
        raise
    except TimeoutError:
        raise _as_error(TimeoutError(), start.relay_url) from None
    finally:
        await connection.close()
    return start.space


async def _append_join(
    thread: DatabaseThread, connection: RelayConnection, link: str, space: SpaceId
) -> None:
    """Read the log, append our entry; again when another entry came first."""
    engine = thread.store.engine
    entries: list[bytes] = []
    now_ms = connection.session.relay_now_ms
    tries = 0
    while True:
        await _read_log(connection, entries)
        log = list(entries)
        # mypy does not infer the type of a lambda with a default argument.
        entry = await thread.run(lambda log=log: engine.join_from_log(link, log, now_ms))  # type: ignore[misc]
        try:
            await connection.send(connection.session.append(entry))
            answer = await _answer(connection, entries)
        except (CrdtSyncError, TimeoutError, asyncio.CancelledError) as exc:
            if await _settled(thread, space, exc):
                return
            raise
        if isinstance(answer, Appended):
            await thread.run(lambda: engine.confirm_join(space))
            return
        await thread.run(lambda: engine.abandon_space(space))
        tries += 1
        if answer.code != STALE_HEAD or tries == APPEND_TRIES:
            raise append_refusal(answer, connection.url)
        while len(entries) == len(log):
            _take(await connection.next_frame(), entries)


async def _read_log(connection: RelayConnection, entries: list[bytes]) -> None:
    """Receive the membership log to its end. The connection as an invite's bearer carries nothing else."""
    while connection.session.cursor < connection.session.head:
        _take(await connection.next_frame(), entries)


async def _answer(connection: RelayConnection, entries: list[bytes]) -> Appended | AppendRefused:
    while True:
        frame = await connection.next_frame()
        if isinstance(frame, Appended | AppendRefused):
            return frame
        _take(frame, entries)


def _take(frame: FromRelay, entries: list[bytes]) -> None:
    if not isinstance(frame, Deliver):
        return
    entries.extend(row.payload for row in frame.rows if row.kind is RowKind.MEMBERSHIP)
    if sum(map(len, entries)) > MAX_LOG_BYTES:
        raise RelayRefused("the membership log is larger than this device takes", close_code=4413)


async def _settled(thread: DatabaseThread, space: SpaceId, error: BaseException) -> bool:
    """After a failed exchange: did the relay take the entry? Forgets the space when it surely did not.

    True: it did, and the space is confirmed. False: it did not, or nobody knows yet.
    """
    from .sync_loop import SpaceSync

    engine = thread.store.engine
    if isinstance(error, RelayUnreachable | TimeoutError):
        probe = SpaceSync(thread, space, publish=lambda _: None, now_ms=lambda: 0)
        try:
            async with probe.held():
                await probe.live(patient=False)
            return True  # the welcome confirmed it
        except RelayRefused:
            pass  # the loop may have forgotten the space already
        except (ConnectionFailed, RemoteError):
            return False
    elif isinstance(error, asyncio.CancelledError):
        return False

    def forget() -> None:
        if any(state.id == space for state in engine.spaces()):
            engine.abandon_space(space)

    await thread.run(forget)
    return False


def _as_error(exc: BaseException, relay: str) -> BaseException:
    if isinstance(exc, TimeoutError):
        return RelayUnreachable(
            f"the relay at {relay} did not answer in time",
            hint="try again; `crdt-sync space ls` shows whether it worked after all",
        )
    return exc
