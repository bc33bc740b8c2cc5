"""The base of every error."""

from __future__ import annotations

from typing import ClassVar


class CrdtSyncError(Exception):
    """Base of all. `code` is stable and for programs, the text and `hint` are for people."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
