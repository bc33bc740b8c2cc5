"""What a log says of an error that is a bug or a failing disk: never its text, which could hold content."""

from __future__ import annotations


def named(exc: BaseException) -> str:
    """Its type, and the notes on it: the storage writes there what failed, in words of its own."""
    return ": ".join([type(exc).__name__, *getattr(exc, "__notes__", ())])
