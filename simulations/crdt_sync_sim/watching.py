"""Progress on standard error while runs go on, where a person is looking; answers on standard output."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import click

from crdt_sync_client.cli import progress

if TYPE_CHECKING:
    from rich.progress import Progress


class Watching:
    """A bar from 0 to `total`, and what was last said about it. Use as a context manager."""

    def __init__(self, label: str, total: float, *, enabled: bool = True) -> None:
        self._label = label
        self._total = total
        self._bar: Progress | None = progress.bar(redirect=False) if enabled and progress.wanted() else None

    def __enter__(self) -> Watching:
        if self._bar is not None:
            self._task = self._bar.add_task(self._label, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, note: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"{self._label} {note}".rstrip())

    def say(self, text: str) -> None:
        """Print an answer without mixing it with the bar."""
        if self._bar is not None:
            self._bar.stop()
        click.echo(text)
        if self._bar is not None:
            self._bar.start()
