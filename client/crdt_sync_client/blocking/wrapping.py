"""What the generated classes are made of: an asynchronous object, and the loop it lives in."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from crdt_sync.errors import StoreClosed

from .background import EXIT_S, Background, refuse_in_a_loop

if TYPE_CHECKING:
    from crdt_sync_client.device import Device as AsyncDevice

W = TypeVar("W")
T = TypeVar("T")


class Blocking(Generic[W]):
    """Waits for what an asynchronous object does. `owner` is kept: a device lives while a part is used."""

    def __init__(self, inner: W, background: Background, owner: object = None) -> None:
        self._inner = inner
        self._background = background
        self._owner = owner

    def _kept(self) -> object:
        return self if self._owner is None else self._owner

    def __repr__(self) -> str:
        return f"<blocking {self._inner!r}>"

    def _run(self, make: Callable[[], Awaitable[T]]) -> T:
        return self._background.run(make)

    def _call(self, work: Callable[[], T]) -> T:
        """Of a method that is no coroutine, for what lives in the loop is touched there only."""
        return self._background.call(work)

    def _read(self, work: Callable[[], T]) -> T:
        """Of what can be read, or closed, also after the device was."""
        if self._background.ending:
            return work()
        return self._background.call(work)


class BlockingValue(Blocking[W]):
    """A value with something to wait for: read wherever it is, for it does not change."""

    def __repr__(self) -> str:
        return repr(self._inner)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockingValue) and bool(self._inner == other._inner)

    def __hash__(self) -> int:
        return hash(self._inner)

    def _read(self, work: Callable[[], T]) -> T:
        return work()


class BlockingContext(Blocking[W]):
    """`with` for `async with`."""

    def __enter__(self) -> Self:
        inner = cast("AbstractAsyncContextManager[Any]", self._inner)
        self._run(inner.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inner = cast("AbstractAsyncContextManager[Any]", self._inner)
        self._run(lambda: inner.__aexit__(kind, error, trace))


class BlockingIterator(Blocking[W], Generic[W, T]):
    """`for` for `async for`. Several threads may share one: each item goes to one of them."""

    def __init__(self, inner: W, background: Background, owner: object = None) -> None:
        super().__init__(inner, background, owner)
        self._turn = threading.Lock()
        self._next: Future[T] | None = None

    def __del__(self) -> None:
        pending = getattr(self, "_next", None)
        if pending is not None and not self._background.ending:
            pending.cancel()  # or what was begun would keep the asynchronous iterator

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout_s: float | None = None) -> T:
        """The next item. Raises TimeoutError when none came in time, StopIteration at the end.

        Nothing is lost by either, nor by Ctrl-C: what comes then is handed out next time.
        """
        refuse_in_a_loop()
        if not self._turn.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise TimeoutError
        try:
            inner = cast("AsyncIterator[T]", self._inner)
            if self._next is None:
                self._next = self._background.begin(inner.__anext__)
            item = self._background.result(self._next, timeout_s)
            self._next = None
            return item
        except (StopAsyncIteration, StoreClosed) as end:
            self._next = None
            if isinstance(end, StoreClosed) and not self._background.ending:
                raise
            raise StopIteration from None
        except Exception:
            if self._next is not None and self._next.done() and self._next.exception() is not None:
                self._next = None  # it failed; one that only is not there yet is kept
            raise
        finally:
            self._turn.release()


class BlockingGenerator(BlockingIterator[AsyncIterator[T], T]):
    """An asynchronous generator, step by step."""


class BlockingDevice(BlockingContext["AsyncDevice"]):
    """Base of `Device`: begins and ends the loop."""

    def __init__(self, inner: AsyncDevice, background: Background) -> None:
        super().__init__(inner, background)
        background.closing = inner.close
        self._forgotten = weakref.finalize(self, _forgotten, inner, background)
        self._forgotten.atexit = False  # the program's end is the background's own

    @classmethod
    def _begin(cls, make: Callable[[], Awaitable[AsyncDevice]]) -> Self:
        refuse_in_a_loop()
        background = Background()
        try:
            return cls(background.run(make), background)
        except BaseException:
            background.end()
            background.join(EXIT_S)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        refuse_in_a_loop()
        self._forgotten.detach()
        ended = self._background.end(self._inner.close)
        self._background.join()
        ended.result()


def _forgotten(inner: AsyncDevice, background: Background) -> None:
    """The device was dropped without being closed."""
    if not background.ending:
        background.end(inner.close)
        warnings.warn(f"the device {inner.name!r} was not closed", ResourceWarning, stacklevel=2)
