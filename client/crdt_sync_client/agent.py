"""What this device calls itself to a relay: its software, the operating system, the app around it.

An operator sees it in the list of devices. It says nothing of the person, and every word of it is optional.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from crdt_sync.errors import ValidationError

MAX_AGENT_CHARS = 100
"""As in `Hello.agent`."""
_MAX_WORD_CHARS = 32
_app = ""


def name_app(name: str, version: str) -> None:
    """Say which app this is, for every device in this process. Raises ValidationError for odd characters."""
    global _app
    word = f"{name}-{version}"
    fits = word.isascii() and word.isprintable() and " " not in word and "/" not in word
    if not fits or len(word) > _MAX_WORD_CHARS or not name or not version:
        raise ValidationError(
            "app",
            f"{word[:50]!r} is not ASCII without blanks and slashes, at most {_MAX_WORD_CHARS} characters",
        )
    _app = f" app/{word}"


def agent() -> str:
    """For the relay, as in `crdt-sync/0.1.0 python/3.11.7 os/Linux-6.1 app/Rigs-2.3`."""
    return (_device() + _app)[:MAX_AGENT_CHARS]


@cache
def _device() -> str:
    try:
        own = f"crdt-sync/{version('crdt-sync')}"
    except PackageNotFoundError:  # a source tree that was never installed
        own = "crdt-sync"
    release = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{own} python/{platform.python_version()} os/{platform.system()}-{release}"
