"""One thing after the other over a connection: for handshakes and short exchanges."""

from __future__ import annotations

from collections.abc import Callable

from .connection_driver import ConnectionDriver
from .database_thread import DatabaseThread
from .relay_connection import RelayConnection


async def converse(
    connection: RelayConnection,
    thread: DatabaseThread,
    driver: ConnectionDriver,
    *,
    until: Callable[[], bool],
) -> None:
    """Move what the driver decides until `until()` holds or it has ended. Raises how the connection ended."""
    driver.arrived(connection.challenge, 0)
    while not (driver.ended or until()):
        while driver.outgoing:
            await connection.send(driver.outgoing.popleft())
        step = driver.next_step()
        if step is not None:
            await thread.run(step.run)
            driver.done(step)
        else:
            driver.arrived(await connection.next_frame(), connection.last_frame_bytes)
