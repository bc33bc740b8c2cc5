"""Pure functions of bytes and keys, worked out once per run for all of its devices.

Five devices and a relay in one process check the same signatures, take the same entries and updates apart
and decrypt the same envelopes; what differs between them is what they do with the result. While a run is
`Remembering`, the functions in `_FUNCTIONS` answer from memory when they were asked the same before. Every
different input is really worked out. What is refused is not remembered: it is refused again each time.

A signature that a device's key made in this run is known to be good: that is what signing means. All others
are verified.

Nothing of it can be seen in a run, and that is checked: one run in `REALLY_EACH_TIME` (which, its seed
decides) works everything out each time, `--check-determinism` compares a run that remembers with one that
does not, and `--no-memo` switches it off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType, TracebackType
from typing import Any, Final

from crdt_sync.crypto.device_keys import DeviceKeys, verify_signature
from crdt_sync.crypto.envelope import Envelope, parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.membership.entries import parse_entry
from crdt_sync.records.update_check import check_update
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import check_write

REALLY_EACH_TIME: Final = 16
"""One run in so many remembers nothing."""

_FUNCTIONS: Final[tuple[Callable[..., Any], ...]] = (
    verify_signature,
    parse_entry,
    parse,
    parse_update,
    check_update,
    check_write,
)
_METHODS: Final[tuple[tuple[type, str], ...]] = (
    (Envelope, "open"),
    (Envelope, "cover"),
    (Payload, "decode"),
    (DeviceKeys, "from_bytes"),
    (SpaceKeys, "from_bytes"),
)


class Remembering:
    """For one `with` block, a run. Not to be nested. What is remembered is forgotten at its end."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        good: set[tuple[bytes, bytes, bytes]] = set()
        for function in _FUNCTIONS:
            answer = _verifying(function, good) if function is verify_signature else cache(function)
            for module in _importers(function):
                self._put(module, function.__name__, function, answer)
        for owner, name in _METHODS:
            before = vars(owner)[name]
            if isinstance(before, classmethod):
                self._put(owner, name, before, staticmethod(cache(getattr(owner, name))))
            else:
                self._put(owner, name, before, cache(before))
        sign = DeviceKeys.__dict__["sign"]
        self._put(DeviceKeys, "sign", sign, _signing(sign, good))

    def _put(self, owner: Any, name: str, before: Any, after: Any) -> None:
        self._before.append((owner, name, before))
        setattr(owner, name, after)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            setattr(*self._before.pop())


_known_importers: dict[Callable[..., Any], tuple[int, list[ModuleType]]] = {}
"""Per function, how many modules there were when its importers were looked for, and those."""


def _importers(function: Callable[..., Any]) -> list[ModuleType]:
    """The modules of ours that call it by its name; not its own, from which more may import it meanwhile."""
    count = len(sys.modules)
    known = _known_importers.get(function)
    if known is None or known[0] != count:
        found = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith("crdt_sync")
            and name != function.__module__
            and vars(module).get(function.__name__) is function
        ]
        known = _known_importers[function] = count, found
    return known[1]


def remembers(seed: int) -> bool:
    """Whether the run with that seed remembers."""
    return seed % REALLY_EACH_TIME != 0


def _verifying(verify: Callable[..., bool], good: set[tuple[bytes, bytes, bytes]]) -> Callable[..., bool]:
    """The same, and it knows what is good."""

    def answer(sign_public: bytes, message: bytes, signature: bytes) -> bool:
        asked = sign_public, message, signature
        if asked not in good:
            if not verify(sign_public, message, signature):
                return False
            good.add(asked)
        return True

    return answer


def _signing(
    sign: Callable[[DeviceKeys, bytes], bytes], good: set[tuple[bytes, bytes, bytes]]
) -> Callable[..., bytes]:
    def signed(keys: DeviceKeys, message: bytes) -> bytes:
        signature = sign(keys, message)
        good.add((keys.sign_public, message, signature))
        return signature

    return signed
