"""Making a space and entering one: the two moments when a device is not a member yet.

Both hand the relay one entry of the membership log over a connection of their own. The store keeps the
space as unsettled (`creating`, `joining`) from before the entry leaves until the relay's answer. How a device
joins is decided by `join_driver`. When a space is made:

- the relay took the entry: the space is confirmed;
- the relay refused: everything of it is forgotten, as if it had not been tried;
- the answer was lost: the device asks, by connecting as a member. If even that is not possible now, the
  space stays unsettled and the next connection settles it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from crdt_sync.errors import (
    ConnectionFailed,
    CrdtSyncError,
    RelayRefused,
    RelayUnreachable,
    RemoteError,
    ValidationError,
)
from crdt_sync.ids import SpaceId
from crdt_sync.protocol.device_session import DeviceSession
from crdt_sync.protocol.frames import AppendRefused
from crdt_sync.schemas.model import RecordSchema

from .agent import agent
from .conversing import converse
from .database_thread import DatabaseThread
from .endings import append_refusal
from .join_driver import ANSWER_TIMEOUT_S, Joining
from .relay_connection import RelayConnection, check_relay_url
from .session_driver import SessionDriver
from .unsettled import forget

logger = logging.getLogger("crdt_sync.client")


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
                    connection.session.create_space(genesis=genesis, setup_token=token, agent=agent())
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
    joining = await thread.run(lambda: Joining(engine, link))
    while not joining.decided:
        await _try_to_join(thread, joining)
    if joining.error is not None:
        raise joining.error
    return joining.space


async def _try_to_join(thread: DatabaseThread, joining: Joining) -> None:
    """One connection on the way in."""
    protocol, clock = DeviceSession(), asyncio.get_running_loop().time
    driver = await thread.run(lambda: joining.next_driver(protocol=protocol, clock=clock, agent=agent()))
    try:
        async with asyncio.timeout(driver.timeout_s):
            connection = await RelayConnection.open(driver.url, protocol)
            try:
                await converse(
                    connection,
                    thread,
                    driver,
                    until=lambda: isinstance(driver, SessionDriver) and driver.welcomed,
                )
            except CrdtSyncError as exc:
                driver.end(exc)
            finally:
                await connection.close(*driver.last_word)
    except TimeoutError:
        driver.late()
    except CrdtSyncError as exc:
        driver.end(exc)
    await thread.run(lambda: joining.ended(driver))


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

    await thread.run(lambda: forget(engine, space))
    return False


def _as_error(exc: BaseException, relay: str) -> BaseException:
    if isinstance(exc, TimeoutError):
        return RelayUnreachable(
            f"the relay at {relay} did not answer in time",
            hint="try again; `crdt-sync space ls` shows whether it worked after all",
        )
    return exc
