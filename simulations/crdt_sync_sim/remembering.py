"""Pure functions of bytes and keys, worked out once per run for all of its devices.

Five devices and a relay in one process check the same signatures, take the same entries and updates apart
and decrypt the same envelopes; what differs between them is what they do with the result. While a run is
`Remembering`, the functions in `_PLACES` answer from memory when they were asked the same before. Every
different input is really worked out. What is refused is not remembered: it is refused again each time.

A signature that a device's key made in this run is known to be good: that is what signing means. All others
are verified.

Nothing of it can be seen in a run, and that is checked: one run in `REALLY_EACH_TIME` (which, its seed
decides) works everything out each time, `--check-determinism` compares a run that remembers with one that
does not, and `--no-memo` switches it off.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import crdt_sync.crypto.envelope
import crdt_sync.membership.entries
import crdt_sync.membership.log
import crdt_sync.records.document
import crdt_sync.records.update_check
import crdt_sync_client.engine.arrivals
import crdt_sync_client.engine.gathering
import crdt_sync_client.engine.receiving
import crdt_sync_server.checking
import crdt_sync_server.engine
import crdt_sync_server.spaces
from crdt_sync.crypto.device_keys import DeviceKeys, verify_signature
from crdt_sync.crypto.envelope import Envelope
from crdt_sync.crypto.space_keys import SpaceKeys

REALLY_EACH_TIME: Final = 8
"""One run in so many remembers nothing."""

_engine: Final = crdt_sync_client.engine

_PLACES: Final[tuple[tuple[Any, str], ...]] = (
    (crdt_sync.crypto.envelope, "verify_signature"),
    (crdt_sync.membership.entries, "verify_signature"),
    (crdt_sync_server.engine, "verify_signature"),
    (crdt_sync.membership.log, "parse_entry"),
    (_engine.receiving, "parse_entry"),
    (crdt_sync_server.spaces, "parse_entry"),
    (crdt_sync_server.engine, "parse_entry"),
    (_engine.receiving, "parse"),
    (_engine.gathering, "parse"),
    (crdt_sync_server.checking, "parse"),
    (crdt_sync.records.document, "parse_update"),
    (crdt_sync.records.update_check, "parse_update"),
    (_engine.arrivals, "check_update"),
    (Envelope, "open"),
    (DeviceKeys, "from_bytes"),
    (SpaceKeys, "from_bytes"),
)
"""Where the functions are called from, and by which name."""


class Remembering:
    """For one `with` block, a run. Not to be nested. What is remembered is forgotten at its end."""

    def __init__(self) -> None:
        self._known: dict[object, dict[Any, Any]] = {}
        """Per function, its results by its arguments."""
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        for owner, name in _PLACES:
            before = owner.__dict__[name]
            known = self._known.setdefault(before, {})
            if isinstance(before, classmethod):
                self._put(owner, name, before, staticmethod(_remembered(getattr(owner, name), known)))
            else:
                self._put(owner, name, before, _remembered(before, known))
        sign = DeviceKeys.__dict__["sign"]
        self._put(DeviceKeys, "sign", sign, _signing(sign, self._known.setdefault(verify_signature, {})))

    def _put(self, owner: Any, name: str, before: Any, after: Any) -> None:
        self._before.append((owner, name, before))
        setattr(owner, name, after)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            setattr(*self._before.pop())
        self._known.clear()


def remembers(seed: int) -> bool:
    """Whether the run with that seed remembers."""
    return seed % REALLY_EACH_TIME != 0


def _remembered(function: Callable[..., Any], known: dict[Any, Any]) -> Callable[..., Any]:
    def answer(*arguments: Any, **options: Any) -> Any:
        key = (arguments, *options.items()) if options else arguments
        result = known.get(key)
        if result is None:
            result = known[key] = function(*arguments, **options)
        return result

    return answer


def _signing(sign: Callable[[DeviceKeys, bytes], bytes], good: dict[Any, Any]) -> Callable[..., bytes]:
    def signed(keys: DeviceKeys, message: bytes) -> bytes:
        signature = sign(keys, message)
        good[keys.sign_public, message, signature] = True
        return signature

    return signed
