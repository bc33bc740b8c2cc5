"""A run that works pure functions out once for all devices is the run that works them out each time."""

from __future__ import annotations

import pytest

from crdt_sync.crypto import device_keys, envelope
from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync_client.engine import receiving
from crdt_sync_sim.commands import scenario_folder
from crdt_sync_sim.founding import VARIANTS
from crdt_sync_sim.remembering import REALLY_EACH_TIME, Remembering, remembers
from crdt_sync_sim.run import simulate
from crdt_sync_sim.scenario_file import load_scenario

SMALL = load_scenario(scenario_folder() / "small.toml")
SECRET = bytes(range(128))


@pytest.mark.parametrize("seed", [3, 11, REALLY_EACH_TIME])
def test_the_same_run_either_way(seed: int) -> None:
    with_memory, without = (simulate(SMALL, seed, remember=remember) for remember in (True, False))
    assert with_memory.digest == without.digest
    assert with_memory.verdict == without.verdict == "pass"


def test_most_seeds_remember_and_some_do_not() -> None:
    assert sum(map(remembers, range(80))) == 80 - 80 // REALLY_EACH_TIME


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes, bytes]]:
    """The signatures that are really verified: key, signature, message."""
    asked: list[tuple[bytes, bytes, bytes]] = []
    verifier = device_keys._verifier

    class Counting:
        def __init__(self, sign_public: bytes) -> None:
            self.key = sign_public

        def verify(self, signature: bytes, message: bytes) -> None:
            asked.append((self.key, signature, message))
            verifier(self.key).verify(signature, message)

    monkeypatch.setattr(device_keys, "_verifier", Counting)
    return asked


def test_each_question_is_worked_out_once(asked: list[tuple[bytes, bytes, bytes]]) -> None:
    simulate(SMALL, 3, remember=False)
    each_time = len(asked)
    asked.clear()
    simulate(SMALL, 3, remember=True)
    assert len(asked) == len(set(asked)) < each_time / 2


def test_what_the_founding_signed_is_good_in_all_runs_that_begin_with_it(
    asked: list[tuple[bytes, bytes, bytes]],
) -> None:
    simulate(SMALL, 3, remember=True)
    asked.clear()
    simulate(SMALL, 3 + VARIANTS, remember=True)
    assert asked == []


def test_what_a_key_signed_is_good_and_nothing_else_is() -> None:
    keys = DeviceKeys(SECRET)
    with Remembering():
        verify = vars(envelope)["verify_signature"]
        signature = keys.sign(b"message")
        assert verify(keys.sign_public, b"message", signature)
        assert not verify(keys.sign_public, b"another", signature)
        assert not verify(keys.sign_public, b"message", bytes(64))


def test_nothing_is_left_behind() -> None:
    places = (envelope, "verify_signature"), (receiving, "parse"), (DeviceKeys, "sign")
    before = [vars(owner)[name] for owner, name in places]
    simulate(SMALL, 3)
    assert before == [vars(owner)[name] for owner, name in places]
