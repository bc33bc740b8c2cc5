"""An event loop in a thread of its own, and calls into it that wait for their result."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Final, TypeVar

from crdt_sync.errors import LocalError, StoreClosed

T = TypeVar("T")

EXIT_S: Final = 5.0
"""How long a program that ends without closing its devices waits for each of them."""

_running: weakref.WeakSet[Background] = weakref.WeakSet()


class Background:
    """The loop of one device. It runs from the start until `end`, or until the program ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._ending = False
        self._lock = threading.RLock()
        """Held while work is handed in, so that none is behind the end of the loop, never to be answered."""
        self.closing: Callable[[], Awaitable[None]] | None = None
        """What is to be awaited at the end of the program."""
        self._thread = threading.Thread(target=self._serve, name="crdt-sync-device", daemon=True)
        self._thread.start()
        _running.add(self)

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    @property
    def ending(self) -> bool:
        """Whether the loop takes no more work."""
        return self._ending

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """The result of what `make`, called in the loop, returns, awaited there. Ctrl-C cancels it."""
        future = self.begin(make)
        try:
            return self.result(future)
        except BaseException:
            future.cancel()
            raise

    def call(self, work: Callable[[], T]) -> T:
        """The result of `work`, called in the loop."""

        async def called() -> T:
            return work()

        return self.run(called)

    def begin(self, make: Callable[[], Awaitable[T]]) -> Future[T]:
        """As `run`, but returns at once. Raises LocalError where an event loop runs, StoreClosed."""
        refuse_in_a_loop()

        async def work() -> T:
            return await make()

        with self._lock:
            if self._ending:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def result(self, future: Future[T], timeout_s: float | None = None) -> T:
        """What `begin` began. Raises TimeoutError; the work goes on then."""
        try:
            return future.result(timeout_s)
        except CancelledError:
            raise _closed() from None  # only the end of the loop cancels what somebody waits for

    def end(self, last: Callable[[], Awaitable[None]] | None = None) -> Future[None]:
        """Take no more work, await `last`, cancel what is left and stop. Again: nothing but the wait.

        Whoever waits for the future may be interrupted; the end comes all the same.
        """
        with self._lock:
            if self._ending:
                return self._ended
            self._ending = True

            async def work() -> None:
                if last is not None:
                    await last()

            self._ended: Future[None] = asyncio.run_coroutine_threadsafe(work(), self._loop)
        self._ended.add_done_callback(self._stop)
        return self._ended

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout_s)

    # In the thread

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            self._loop.close()

    def _stop(self, _: Future[None]) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


def refuse_in_a_loop() -> None:
    """Raises LocalError in a thread that runs an event loop: waiting stops it, for ever if it is ours."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise LocalError(
        "a blocking call would stop the event loop that runs in this thread",
        hint="use crdt_sync_client.Device with await, or call it in a thread: await asyncio.to_thread(…)",
    )


def _closed() -> StoreClosed:
    return StoreClosed("the device is closed", hint="open it again")


@atexit.register
def _end_all() -> None:
    left = [background for background in _running if background.running]
    for background in left:
        background.end(background.closing)
    for background in left:
        background.join(EXIT_S)
