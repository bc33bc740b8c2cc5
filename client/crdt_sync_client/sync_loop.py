"""Keeping one space connected: connect, prove who we are, serve the connection, come back after its end.

The loop of a space runs while somebody wants it connected: the app said `connect`, or a `sync`, an invite
or the like holds it for as long as it takes. It reconnects after 0, 5, 10, 30, 60, then every 300 seconds;
the wait starts over once a connection had caught up. A refusal by the relay is asked again only after
the longest wait, or when the app asks, because only a person can change the answer.

Everything here runs in the event loop; the store is reached through its thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from crdt_sync.errors import (
    CrdtSyncError,
    LocalError,
    RelayRefused,
    RelayUnreachable,
    StoreClosed,
)
from crdt_sync.ids import SpaceId

from .agent import agent
from .appending import Make, append
from .conversing import converse
from .database_thread import DatabaseThread
from .delivery_desk import DeliveryDesk, DeliveryWait
from .endings import APPEND_TRIES, Reconnect, Reconnecting, late_handshake
from .giving import after_refusal
from .live_session import LiveSession, Publish
from .network import EVERYTHING, Policy
from .relay_connection import RelayConnection
from .session_driver import WELCOME_TIMEOUT_S, SessionDriver
from .signal import Signal
from .status import SyncState
from .unsettled import forget_what_never_was

logger = logging.getLogger("crdt_sync.client")


class SpaceSync:
    """The connection of one space, with its state for `status`."""

    def __init__(
        self,
        thread: DatabaseThread,
        space: SpaceId,
        *,
        publish: Publish,
        now_ms: Callable[[], int],
        on_gone: Callable[[SpaceId], None] = lambda _: None,
    ) -> None:
        """`on_gone` is told when the space turned out never to have been: see `_forget_unsettled`."""
        self.space = space
        self.state: SyncState = "offline"
        self.last_synced_at: int | None = None
        self.sent = 0
        self.received = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.signal = Signal()
        self.session: LiveSession | None = None
        self._thread = thread
        self._publish = publish
        self._now_ms = now_ms
        self._on_gone = on_gone
        self.deliveries = DeliveryDesk()
        self._reconnecting = Reconnecting(random.random)
        self._retry_at_s: float | None = None
        self._wanted = False
        self._suspended = False
        """There is no network: it is not worth trying."""
        self.off = False
        """Its user wants it not to be synced."""
        self._policy = EVERYTHING
        self._probing: asyncio.Task[None] | None = None
        self._holds = 0
        self._fruitful = False
        self._revives = False
        """Whether the connection is to give the relay the membership log back."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._appending = asyncio.Lock()

    @property
    def problem(self) -> CrdtSyncError | None:
        """Why the last attempt or connection failed; None since the last that caught up."""
        if self.session is not None and self.session.window.held:
            return self.session.driver.refusal
        return self._reconnecting.problem

    @property
    def failures(self) -> int:
        """Attempts and connections that failed, ever; compare before and after."""
        return self._reconnecting.failures

    # What the device asks

    def connect(self) -> None:
        """Stay connected from now on; tries at once, if there is a network."""
        self._wanted = True
        if not self._suspended:
            self._start()

    async def suspend(self) -> None:
        """There is no network: close the connection, and try none until `resume`."""
        self._suspended = True
        await self._stop()

    def resume(self) -> None:
        """There is a network, or another one: try at once if a connection is wanted."""
        self._suspended = False
        if self._wanted:
            self._start()

    def follow(self, policy: Policy) -> None:
        """What may travel from now on."""
        self._policy = policy
        session = self.session
        if session is not None:
            session.driver.follow(policy)
            session.push_soon()
            session.fetch_soon()

    def probe(self, within_s: float) -> None:
        """Try at once if a connection is wanted; end one whose relay does not answer within that time."""
        if self._wanted and not self._suspended:
            self._start()
        if self.session is not None and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(_probe(self.session, within_s))

    async def disconnect(self) -> None:
        """Close the connection and stay away; whoever still holds it is told by its end."""
        self._wanted = False
        await self._stop()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Connected, or trying, for as long as the block takes."""
        if self.off:
            raise LocalError("this space is off on this device", hint="crdt-sync space on NAME")
        self._holds += 1
        self._start()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds and not self._wanted:
                await self._stop()

    async def live(self, *, patient: bool) -> LiveSession:
        """The live session. Unless `patient`, one failed attempt from now on raises what it failed with.

        A refusal raises in any case. Call it inside `held`.
        """
        before = self.failures
        await self.signal.until(lambda: self.session is not None or self._gave_up(before, patient))
        if self.session is None:
            raise self.problem or RelayUnreachable("the connection was closed")
        return self.session

    def _gave_up(self, failures_before: int, patient: bool) -> bool:
        if not self._running():
            return True
        if self.failures == failures_before:
            return False
        return not patient or not isinstance(self.problem, RelayUnreachable)

    async def sync(self, *, patient: bool) -> None:
        """Returns when everything written here is acknowledged and everything there has been received.

        Raises RelayUnreachable, RelayRefused or a RemoteError as `live` does.
        """
        async with self.held():
            while True:
                before = self.failures
                session = await self.live(patient=patient)
                if await self._settle(session):
                    await self._note_synced()
                    return
                if session.window.held and not patient and session.driver.refusal is not None:
                    raise session.driver.refusal
                await self._ended(session)
                if self.failures > before and not patient and self.problem is not None:
                    raise self.problem

    async def _ended(self, session: LiveSession) -> None:
        await self.signal.until(lambda: self.session is not session)

    async def _settle(self, session: LiveSession) -> bool:
        """Wait until the session has nothing to send and nothing to receive; False when it ended before."""
        with suppress(CrdtSyncError), session.window.hurried():
            await session.connection.round_trip()
            session.push_soon()
            await self.signal.until(lambda: _is_over(session) or session.window.idle)
            head = session.driver.head
            await self.signal.until(
                lambda: (
                    (session.driver.cursor >= head and session.window.idle and session.driver.fetching.idle)
                    or _is_over(session)
                )
            )
        return not _is_over(session)

    async def append(self, make: Make) -> str:
        """Append the membership entry that `make` builds on the engine's thread; returns what came with it.

        `make` is given the relay's time, unix ms: the relay judges by that, and our own clock may be off.
        When another entry was appended meanwhile, the log is received first and the entry made again.
        """
        async with self.held(), self._appending:
            for tries_left in reversed(range(APPEND_TRIES)):
                session = await self.live(patient=False)
                made = await append(session, self._thread, self.signal, make, last=not tries_left)
                if made is not None:
                    return made
        raise AssertionError("unreachable")

    async def delivered(self, wait: DeliveryWait) -> None:
        """Returns when all others have confirmed what the relay has by now; `wait` tells how many have."""
        self.deliveries.add(wait)
        self._ask_now()
        try:
            await self.signal.until(lambda: wait.done)
        finally:
            self.deliveries.remove(wait)
            self._ask_now()

    def _ask_now(self) -> None:
        if self.session is not None:
            self.session.look()

    def push_soon(self) -> None:
        """Something was written that no session was given yet."""
        if self.session is not None:
            self.session.push_soon()

    def again(self) -> None:
        """Something is to be sent that takes another session."""
        if self.session is not None:
            self.session.end(Reconnect("another session has to send what is left"))

    def fetch_soon(self) -> None:
        """A record is wanted that no session was told of yet."""
        if self.session is not None:
            self.session.fetch_soon()

    @property
    def retry_in_s(self) -> float | None:
        """Seconds to the next try, while waiting for one."""
        if self.session is not None and self.session.window.held:
            return self.session.window.pause_s
        if self._retry_at_s is None:
            return None
        return max(0.0, self._retry_at_s - asyncio.get_running_loop().time())

    @property
    def progress(self) -> tuple[int, int]:
        """Rows received and to receive in this connection: `done` and `total`."""
        if self.session is None:
            return 0, 0
        driver = self.session.driver
        total = max(driver.head - driver.first_cursor, 0)
        return min(max(driver.cursor - driver.first_cursor, 0), total), total

    def current_state(self) -> SyncState:
        """`syncing` or `idle` while live, else where the loop stands."""
        session = self.session
        if session is None:
            return "off" if self.off else self.state
        if session.window.held:
            return "backoff"
        return "idle" if session.driver.idle else "syncing"

    # The loop

    def _start(self) -> None:
        self._wake.set()
        if not (self.off or self._running()):
            self._reconnecting.asked()
            self._task = asyncio.create_task(self._run(), name=f"sync {self.space.hex()[:8]}")
            self._task.add_done_callback(lambda _: self.signal.notify())  # however it ends

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        if self.session is not None:
            self.session.end()
        else:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not self._running():  # else somebody asked to connect meanwhile
            self.state = "offline"
            self._retry_at_s = None
        self.signal.notify()

    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    def _stay(self) -> bool:
        return self._wanted or self._holds > 0

    async def _run(self) -> None:
        while self._stay() and self._task is asyncio.current_task():
            self._wake.clear()
            self.state = "connecting"
            self.signal.notify()
            gone = False
            try:
                await self._connect_and_serve()
                return  # ended by us
            except StoreClosed:
                return
            except RelayRefused as exc:
                # Before anybody is told, and to its end even if they then want no connection any more.
                gone = await asyncio.shield(self._forget_unsettled(exc))
                # Of a space that is forgotten nothing can be lost.
                self._failed(exc if gone else await asyncio.shield(self._may_be_lost(exc)))
            except CrdtSyncError as exc:
                self._failed(exc)
            except Exception as exc:
                logger.exception("syncing failed")
                self._failed(exc)
            if gone:
                return
            await self._wait()

    async def _connect_and_serve(self) -> None:
        self._fruitful = False
        session = await self._open()
        self.session = session
        self.signal.notify()
        session.push_soon()
        watchers = [
            asyncio.create_task(work) for work in (self._note_caught_up(session), self._try_again(session))
        ]
        try:
            await session.run()
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            self.session = None
            self._fruitful = session.driver.fruitful
            self.sent += session.driver.acknowledged
            self.received += session.driver.received
            self._count(session.connection)
            self.signal.notify()

    async def _open(self) -> LiveSession:
        """Connect and be welcomed."""
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                return await self._handshake()
        except TimeoutError:
            raise late_handshake() from None

    async def _handshake(self) -> LiveSession:
        thread, space = self._thread, self.space
        engine = thread.store.engine
        self._revives = False
        relay_url, ready = await thread.run(lambda: engine.before_session(space))
        if not self._policy.initial and not ready:
            raise RelayUnreachable(
                "the first sync of the space waits for a network that is not metered",
                hint="or allow it: `crdt-sync settings set metered_initial=true`",
            )
        connection = await RelayConnection.open(relay_url)
        driver: SessionDriver | None = None
        try:
            # Only now: most attempts of a device that is away from its relay find nobody there.
            start = await thread.run(lambda: engine.session_start(space))
            self._revives = bool(start.revive)
            driver = SessionDriver(
                engine,
                start,
                protocol=connection.session,
                clock=asyncio.get_running_loop().time,
                agent=agent(),
                deliveries=self.deliveries,
            )
            driver.follow(self._policy)
            await converse(connection, thread, driver, until=lambda: driver.welcomed)
            if driver.error is not None:
                raise driver.error
        except BaseException:
            await connection.close(*(() if driver is None else driver.last_word))
            self._count(connection)
            raise
        return LiveSession(connection, thread, driver, publish=self._publish, signal=self.signal)

    async def _may_be_lost(self, refused: RelayRefused) -> Exception:
        """What to make of a refusal: the relay may have lost that it knew us."""
        engine, space, tried = self._thread.store.engine, self.space, self._revives
        return await self._thread.run(lambda: after_refusal(engine, space, refused, tried=tried))

    async def _forget_unsettled(self, refused: RelayRefused) -> bool:
        """Forget a space that this device began to make or join, if it turns out never to have been."""
        engine, space, now_ms = self._thread.store.engine, self.space, self._now_ms()
        gone = await self._thread.run(lambda: forget_what_never_was(engine, space, refused, now_ms))
        if gone:
            self._on_gone(space)
        return gone

    async def _note_caught_up(self, session: LiveSession) -> None:
        """The first time a session has everything, the backoff starts over and the time is kept."""
        await self.signal.until(lambda: session.driver.idle)
        self._reconnecting.caught_up()
        await self._note_synced()

    async def _try_again(self, session: LiveSession) -> None:
        """What was refused and is to be tried again needs a session that begins then."""
        engine, space = self._thread.store.engine, self.space
        wait_s = await self._thread.run(lambda: engine.retry_in_s(space))
        if wait_s is not None:
            await asyncio.sleep(wait_s)
            session.end(Reconnect("what was refused is tried again"))

    async def _note_synced(self) -> None:
        now_ms = self._now_ms()
        self.last_synced_at = now_ms
        db, name = self._thread.store.db, f"synced_at:{self.space.hex()}"

        def keep() -> None:
            with db.transaction(durable=False):
                db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, now_ms))

        await self._thread.run(keep)

    def _failed(self, error: Exception) -> None:
        delay_s = self._reconnecting.ended(error, fruitful=self._fruitful)
        if delay_s is None:
            return
        self.state = "backoff" if isinstance(self.problem, RelayUnreachable) else "error"
        self._retry_at_s = asyncio.get_running_loop().time() + delay_s
        self.signal.notify()

    async def _wait(self) -> None:
        """Until the next try is due or somebody asks for one."""
        delay_s = self.retry_in_s
        if delay_s is None:
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._retry_at_s = None

    def _count(self, connection: RelayConnection) -> None:
        self.bytes_sent += connection.bytes_sent
        self.bytes_received += connection.bytes_received

    def traffic(self) -> tuple[int, int, int, int]:
        """Envelopes acknowledged and received, bytes sent and received, since the device was opened."""
        session = self.session
        if session is None:
            return self.sent, self.received, self.bytes_sent, self.bytes_received
        return (
            self.sent + session.driver.acknowledged,
            self.received + session.driver.received,
            self.bytes_sent + session.connection.bytes_sent,
            self.bytes_received + session.connection.bytes_received,
        )


def _is_over(session: LiveSession) -> bool:
    """Whether nothing more is sent in it."""
    return not session.live or session.window.held


async def _probe(session: LiveSession, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await session.connection.round_trip()
    except TimeoutError:
        session.end(RelayUnreachable("the relay does not answer any more", hint="the device connects again"))
    except CrdtSyncError:
        return  # it has ended meanwhile
