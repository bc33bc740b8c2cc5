"""When a device comes back after a connection ended, and after which endings it stays away longer."""

from __future__ import annotations

import pytest

from crdt_sync.errors import BadMembership, InviteUsed, ProtocolViolation, RelayRefused, RelayUnreachable
from crdt_sync.protocol.frames import AppendRefused
from crdt_sync_client.backoff import DELAYS_S
from crdt_sync_client.endings import MAX_AT_ONCE, Reconnect, Reconnecting, append_refusal, refusal


@pytest.fixture
def reconnecting() -> Reconnecting:
    """Without chance."""
    return Reconnecting(lambda: 0.0)


def test_waits_grow_until_a_connection_has_everything(reconnecting: Reconnecting) -> None:
    lost = RelayUnreachable("lost")
    assert [reconnecting.ended(lost, fruitful=False) for _ in DELAYS_S] == list(DELAYS_S)
    assert reconnecting.ended(lost, fruitful=True) == DELAYS_S[-1]
    problems = [reconnecting.problem]
    reconnecting.caught_up()
    assert [*problems, reconnecting.problem] == [lost, None]
    assert reconnecting.ended(lost, fruitful=True) == DELAYS_S[0]
    assert reconnecting.failures == len(DELAYS_S) + 2


def test_a_person_who_asks_does_not_wait(reconnecting: Reconnecting) -> None:
    for _ in range(4):
        reconnecting.ended(RelayUnreachable("lost"), fruitful=False)
    reconnecting.asked()
    assert reconnecting.ended(RelayUnreachable("lost"), fruitful=False) == DELAYS_S[0]


@pytest.mark.parametrize("error", [RelayRefused("no", close_code=4403), BadMembership("forged")])
def test_what_only_a_person_can_change_is_asked_again_after_the_longest_wait(
    reconnecting: Reconnecting, error: RelayRefused | BadMembership
) -> None:
    assert reconnecting.ended(error, fruitful=False) == DELAYS_S[-1]


def test_a_fault_of_ours_is_a_failure_like_a_lost_connection(reconnecting: Reconnecting) -> None:
    assert reconnecting.ended(OSError("disk full"), fruitful=False) == DELAYS_S[0]
    assert isinstance(reconnecting.problem, RelayUnreachable)
    assert "OSError" in reconnecting.problem.message
    assert reconnecting.ended(ProtocolViolation("twice"), fruitful=False) == DELAYS_S[1]


def test_a_session_that_hands_over_to_the_next_is_no_failure(reconnecting: Reconnecting) -> None:
    for _ in range(MAX_AT_ONCE * 3):
        assert reconnecting.ended(Reconnect("another session"), fruitful=True) is None
    assert (reconnecting.failures, reconnecting.problem) == (0, None)


def test_sessions_that_bring_nothing_do_not_chase_each_other(reconnecting: Reconnecting) -> None:
    """A relay that refuses whatever it is sent would otherwise be asked without a pause, for ever."""
    waits = [reconnecting.ended(Reconnect("refused"), fruitful=False) for _ in range(MAX_AT_ONCE * 2)]
    assert waits == [None, None, None, None, DELAYS_S[0], None, None, None, None, DELAYS_S[1]]
    assert reconnecting.failures == 2


def test_the_relays_words_become_errors_with_a_way_out() -> None:
    lost = refusal(1006, "", "", "ws://relay")
    assert isinstance(lost, RelayUnreachable)
    refused = refusal(4404, "unknown_space", "no such\x1b[31m space", "ws://relay")
    assert isinstance(refused, RelayRefused)
    assert refused.close_code == 4404
    assert "\x1b" not in refused.message
    assert "data directory" in refused.hint
    assert isinstance(append_refusal(AppendRefused("invite_used", "", bytes(32)), "ws://relay"), InviteUsed)
