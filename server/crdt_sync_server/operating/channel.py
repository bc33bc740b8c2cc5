"""How the operator's commands find a running relay: by a file in its data directory.

A running relay is the only one that can open its database. So `relay status` and the like ask it over HTTP,
on the port that it serves; `operator.json` says where that is and holds a token made for this run. Only the
operator may read it, as the database. When the relay stops the file goes; after `kill -9` it is stale, and
nobody answers to it.
"""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

from crdt_sync.ids import Entropy, b64url
from crdt_sync_server.storage.port import DataDirError

FILE: Final = "operator.json"
_TOKEN_BYTES: Final = 24


class Channel(NamedTuple):
    """Where a relay runs. `token` is a secret."""

    url: str
    token: str

    def __repr__(self) -> str:
        return f"Channel(url={self.url!r})"


def _reachable(host: str) -> str:
    """Where a program on this machine finds a relay that listens there: if everywhere, then on loopback."""
    try:
        address = ip_address(host)
    except ValueError:  # a name
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def open_channel(data: Path, host: str, port: int, entropy: Entropy) -> Channel:
    """Write the file of a relay that listens. Raises DataDirError."""
    local = _reachable(host)
    shown = f"[{local}]" if ":" in local else local
    channel = Channel(f"http://{shown}:{port}", b64url(entropy(_TOKEN_BYTES)))
    path = data / FILE
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": channel.url, "token": channel.token, "pid": os.getpid()}, file)
    except OSError as exc:
        raise DataDirError(
            f"{path} cannot be written: {exc.strerror}", hint="check the owner and mode of the directory"
        ) from None
    return channel


def close_channel(data: Path) -> None:
    """The relay stops."""
    (data / FILE).unlink(missing_ok=True)


def find_channel(data: Path) -> Channel | None:
    """The relay that says it runs there; None if none does."""
    try:
        found: dict[str, Any] = json.loads((data / FILE).read_text())
        return Channel(str(found["url"]), str(found["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
