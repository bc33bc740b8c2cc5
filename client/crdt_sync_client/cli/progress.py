"""Progress bars, on standard error, and only where somebody is looking: never in a pipe."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress

    from crdt_sync_client import Device

_POLL_S: Final = 0.1
"""How often the bar asks the device: ten times a second looks alive and costs nothing."""


def wanted() -> bool:
    """Whether a person watches standard error."""
    return sys.stderr.isatty()


@contextmanager
def count_progress(label: str, total: int, *, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A bar from 0 to `total`; yields the function that takes how many are done."""
    if not enabled or not wanted():
        yield lambda _done: None
        return
    with bar() as shown:
        task = shown.add_task(label, total=total)
        yield lambda done: shown.update(task, completed=done)


@asynccontextmanager
async def sync_progress(device: Device, *, enabled: bool) -> AsyncIterator[None]:
    """A bar that follows the device's status while the block runs."""
    if not enabled or not wanted():
        yield
        return
    import asyncio

    async def follow(shown: Progress) -> None:
        task = shown.add_task("connecting", total=None)
        while True:
            status = await device.status()
            done = sum(space.done for space in status.spaces)
            total = sum(space.total for space in status.spaces)
            shown.update(task, description=status.state, completed=done, total=total or None)
            await asyncio.sleep(_POLL_S)

    with bar() as shown:
        following = asyncio.create_task(follow(shown))
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def bar(*, redirect: bool = True) -> Progress:
    """A bar in the one style. Without `redirect`, standard output is left alone, which may be a pipe."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .output import console

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        redirect_stdout=redirect,
        redirect_stderr=redirect,
    )
