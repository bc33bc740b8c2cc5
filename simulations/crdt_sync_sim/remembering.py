"""Pure functions of bytes and keys, worked out once per run for all of its devices.

Five devices and a relay in one process check the same signatures, take the same entries and updates apart
and decrypt the same envelopes; what differs between them is what they do with the result. While a run is
`Remembering`, the functions in `_FUNCTIONS` answer from memory when they were asked the same before. Every
different input is really worked out. What is refused is not remembered: it is refused again each time.

A signature that a key of the run made in it, or at its founding, is known to be good: that is what signing
means. All others are verified. Runs with the same founding begin with the same keys, membership entries and
signatures, so those are remembered from one run to the next.

Nothing of it can be seen in a run, and that is checked: one run in `REALLY_EACH_TIME` (which, its seed
decides) works everything out each time, `--check-determinism` compares a run that remembers with one that
does not, and `--no-memo` switches it off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from types import ModuleType, TracebackType
from typing import Any, Final, TypeAlias

from crdt_sync.crypto.device_keys import DeviceKeys, verify_signature
from crdt_sync.crypto.envelope import Envelope, parse
from crdt_sync.crypto.payload import Payload
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.ids import SpaceId
from crdt_sync.membership.entries import parse_entry
from crdt_sync.membership.invites import InviteSecret
from crdt_sync.membership.log import MembershipLog
from crdt_sync.records.update_check import check_update
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import check_write, read_write

REALLY_EACH_TIME: Final = 16
"""One run in so many remembers nothing."""

Signed: TypeAlias = tuple[bytes, bytes, bytes]
"""A public key, a message, and the signature that the private key made of it."""

_FUNCTIONS: Final[tuple[Callable[..., Any], ...]] = (
    parse,
    parse_update,
    check_update,
    check_write,
    read_write,
)
_METHODS: Final[tuple[tuple[type, str], ...]] = (
    (Envelope, "open"),
    (Envelope, "cover"),
    (Payload, "decode"),
)
_SIGNERS: Final[tuple[tuple[type, str], ...]] = ((DeviceKeys, "sign"), (InviteSecret, "sign"))
_BEGINNINGS: Final = 256
"""What runs begin with, of several foundings: members, their entries, their keys."""
_entry = lru_cache(maxsize=_BEGINNINGS)(parse_entry)
_loaded: Final[tuple[tuple[type, Any], ...]] = (
    (DeviceKeys, lru_cache(maxsize=_BEGINNINGS)(DeviceKeys.from_bytes)),
    (SpaceKeys, lru_cache(maxsize=_BEGINNINGS)(SpaceKeys.from_bytes)),
)
_restored = lru_cache(maxsize=_BEGINNINGS)(MembershipLog.restore)


class Remembering:
    """For one `with` block, a run. Not to be nested. At its end it forgets what was of this run."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []
        self._good: set[Signed] = set()

    def know(self, signed: Iterable[Signed]) -> None:
        """These are good: see `noting_signatures`."""
        self._good.update(signed)

    def __enter__(self) -> None:
        for function in _FUNCTIONS:
            self._answer(function, cache(function))
        self._answer(parse_entry, _entry)
        self._answer(verify_signature, _verifying(verify_signature, self._good))
        for owner, name in _METHODS:
            before = vars(owner)[name]
            if isinstance(before, classmethod):
                self._put(owner, name, before, staticmethod(cache(getattr(owner, name))))
            else:
                self._put(owner, name, before, cache(before))
        for owner, load in _loaded:
            self._put(owner, "from_bytes", vars(owner)["from_bytes"], staticmethod(load))
        self._put(MembershipLog, "restore", vars(MembershipLog)["restore"], staticmethod(_restore))
        for owner, name in _SIGNERS:
            self._put(owner, name, vars(owner)[name], _signing(vars(owner)[name], self._good))

    def _answer(self, function: Callable[..., Any], answer: Callable[..., Any]) -> None:
        """Whoever imports the function asks that one."""
        for module in _importers(function):
            self._put(module, function.__name__, function, answer)

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


def forget_all() -> None:
    """Nothing is remembered from one run to the next any more."""
    for kept in (_entry, _restored, *(load for _, load in _loaded)):
        kept.cache_clear()


def remembers(seed: int) -> bool:
    """Whether the run with that seed remembers."""
    return seed % REALLY_EACH_TIME != 0


@contextmanager
def noting_signatures() -> Iterator[set[Signed]]:
    """What keys sign meanwhile, for runs that begin with it."""
    signed: set[Signed] = set()
    before = [(owner, name, vars(owner)[name]) for owner, name in _SIGNERS]
    for owner, name, sign in before:
        setattr(owner, name, _signing(sign, signed))
    try:
        yield signed
    finally:
        for owner, name, sign in before:
            setattr(owner, name, sign)


def _restore(space: SpaceId, entries: Iterable[bytes]) -> MembershipLog:
    """A log of one's own: what was restored is remembered, and logs grow."""
    return _restored(space, tuple(entries)).copy()


def _verifying(verify: Callable[..., bool], good: set[Signed]) -> Callable[..., bool]:
    """The same, and it knows what is good."""

    def answer(sign_public: bytes, message: bytes, signature: bytes) -> bool:
        asked = sign_public, message, signature
        if asked not in good:
            if not verify(sign_public, message, signature):
                return False
            good.add(asked)
        return True

    return answer


def _signing(sign: Callable[[Any, bytes], bytes], good: set[Signed]) -> Callable[..., bytes]:
    """The same, and it notes what is good."""

    def signed(keys: DeviceKeys | InviteSecret, message: bytes) -> bytes:
        signature = sign(keys, message)
        good.add((keys.sign_public, message, signature))
        return signature

    return signed
