"""One live connection of one space in asyncio: tasks that move what `SessionDriver` decides.

Four tasks share a connection. The *reader* takes frames off the socket into the driver's bounded inbox. The
*storer* takes everything that waits there to the engine in one hop, and while it is at work the reader
receives what comes next. The *sender* writes what there is to write. The *pusher* has sealed what neither a
write nor a batch took along.

A session ends once: by the relay, by a frame or envelope it should not have sent, or by us. Whatever the
engine has taken by then is published to watchers, also if the connection is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from crdt_sync.errors import ConnectionFailed, RelayUnreachable
from crdt_sync.protocol.deliveries import Delivered
from crdt_sync.protocol.frames import Appended, AppendRefused

from .checkout_desk import CheckoutStep, Question, Told
from .database_thread import DatabaseThread
from .engine.checkouts import CheckoutOutcome
from .engine.model import RecordChange
from .giving import GiveBackStep
from .push_window import PushWindow
from .relay_connection import RelayConnection
from .session_driver import SessionDriver
from .session_steps import BatchStep, FetchedStep, PushBounds, Step
from .signal import Signal

Publish = Callable[[Sequence[RecordChange]], None]


class LiveSession:
    """See the module. `run` serves the connection until it ends."""

    def __init__(
        self,
        connection: RelayConnection,
        thread: DatabaseThread,
        driver: SessionDriver,
        *,
        publish: Publish,
        signal: Signal,
    ) -> None:
        """`driver` was welcomed."""
        self.connection = connection
        self.driver = driver
        self._thread = thread
        self._publish = publish
        self._signal = signal
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._to_send = asyncio.Event()
        self._to_push = asyncio.Event()
        self._ended = asyncio.Event()

    # For the rest of the device

    @property
    def live(self) -> bool:
        return not self.driver.ended

    @property
    def window(self) -> PushWindow:
        return self.driver.window

    @property
    def bounds(self) -> PushBounds:
        """For whoever asks the engine for a push, after `window.begin`."""
        return self.driver.bounds

    def push_soon(self) -> None:
        """There may be something to send."""
        self.driver.push_soon()
        self._to_push.set()

    def fetch_soon(self) -> None:
        """There may be a record to fetch."""
        self.driver.fetch_soon()
        self._arrived.set()

    def pushed(self, envelopes: Sequence[bytes] | None, *, more: bool = False) -> None:
        """The engine sealed these, after `window.begin`, and may have `more`; None if it was not asked."""
        self.driver.pushed(envelopes, more=more)
        self.look()

    async def append(self, entry: bytes) -> Appended | AppendRefused:
        """Append a membership entry; it is applied to the store before this returns `Appended`."""
        if not self.driver.can_send:
            raise self._why()
        answer: asyncio.Future[Appended | AppendRefused | None] = asyncio.get_running_loop().create_future()
        self.driver.append(entry, lambda frame: None if answer.done() else answer.set_result(frame))
        self.look()
        frame = await answer
        if frame is None:
            raise self._why()
        return frame

    async def ask_checkouts(self, ask: Callable[[Told], Question]) -> list[CheckoutOutcome]:
        """Ask the relay about records; what it answers is in the store before this returns.

        `ask` makes the question, given who is to be told.
        """
        answer: asyncio.Future[list[CheckoutOutcome] | None] = asyncio.get_running_loop().create_future()
        question = ask(lambda outcomes: None if answer.done() else answer.set_result(outcomes))
        self.driver.checkouts.ask(question)
        self.look()
        outcomes = await answer
        if outcomes is None:
            raise self._why()
        return outcomes

    def _why(self) -> Exception:
        return self.driver.error or RelayUnreachable("the connection was closed")

    def end(self, error: Exception | None = None) -> None:
        """Stop serving. The first reason given is the one that counts."""
        self.driver.end(error)
        self.look()

    async def run(self) -> None:
        """Serve until the end; then close the connection and raise the reason, if there is one."""
        storer = asyncio.create_task(self._guard(self._store_all()))
        others = [
            asyncio.create_task(self._guard(work))
            for work in (self._read_all(), self._send_all(), self._push_all())
        ]
        try:
            await self._ended.wait()
        finally:
            self.end()
            if self.driver.parting is not None:
                with suppress(ConnectionFailed):
                    await self.connection.send(self.driver.parting)
            await self.connection.close(*self.driver.last_word)
            for task in others:
                task.cancel()
            # The storer is not cancelled: what the engine has taken must reach the watchers.
            await asyncio.gather(storer, *others, return_exceptions=True)
            last = self.driver.last_step()
            if last is not None:
                await self._thread.run(last.run)
        if self.driver.error is not None:
            raise self.driver.error

    # Tasks

    def look(self) -> None:
        """Something happened: wake whoever has to act on it."""
        driver = self.driver
        if driver.outgoing:
            self._to_send.set()
        if driver.window.wants:
            self._to_push.set()  # at once, or when the pause is over
        if driver.ended:
            for event in (self._ended, self._arrived, self._room, self._to_send, self._to_push):
                event.set()
        self._signal.notify()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:  # whatever it is, it ends the session, not the device
            self.end(exc)

    async def _read_all(self) -> None:
        driver = self.driver
        while not driver.ended:
            frame = await self.connection.next_frame()
            driver.arrived(frame, self.connection.last_frame_bytes)
            self._arrived.set()
            if isinstance(frame, Delivered):
                self.look()  # it is no work for the store
            while driver.full and not driver.ended:
                self._room.clear()
                await self._room.wait()

    async def _send_all(self) -> None:
        outgoing = self.driver.outgoing
        while not self.driver.ended:
            while outgoing:
                try:
                    await self.connection.send(outgoing.popleft())
                except ConnectionFailed:
                    return  # the reader knows better why: the relay's last word may still be in its queue
            self._to_send.clear()
            await self._to_send.wait()

    async def _push_all(self) -> None:
        driver = self.driver
        while not driver.ended:
            while (step := driver.next_push()) is not None:
                await self._do(step)
            self._to_push.clear()
            pause_s = driver.window.pause_s if driver.window.wants else driver.checkouts.rest_s
            if not driver.ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._to_push.wait()
            if driver.checkouts.rest_over():
                driver.push_soon()
        self.look()  # the driver may have ended the session because its pause was over

    async def _store_all(self) -> None:
        driver = self.driver
        while not driver.ended:
            step = driver.next_step()
            if step is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._room.set()
            await self._do(step)

    async def _do(self, step: Step) -> None:
        if step.needs_store:
            await self._thread.run(step.run)
        self.driver.done(step)
        if isinstance(step, CheckoutStep):
            self._publish(step.changes)
        if isinstance(step, GiveBackStep) and not (step.snapshots or step.looks_on):
            self._publish(())  # what had to stay to be given back may leave now
        if isinstance(step, FetchedStep) and step.received is not None:
            self._publish(step.received.changes)
        if isinstance(step, BatchStep):
            for received in step.batch.received:
                self._publish(received.changes)
            if step.batch.settles_work:
                self._publish(())  # no record changed, but what of them is unsent
        self.look()
