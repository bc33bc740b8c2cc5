"""A device that its relay's operator has shut out says so, keeps what it has, and does not insist."""

from __future__ import annotations

from crdt_sync.errors import RelayRefused, ShutOut
from crdt_sync.protocol.codes import CloseCode
from crdt_sync_client.endings import SHUT_OUT_S, Reconnecting, refusal
from crdt_sync_client.unsettled import says_no

URL = "ws://relay"


def test_the_relays_word_becomes_an_error_with_why_and_what_next() -> None:
    error = refusal(CloseCode.FORBIDDEN, "revoked", "shut out: lost at\x1b Pit 4", URL)
    assert isinstance(error, ShutOut)
    assert (error.code, error.retryable, error.close_code) == ("revoked", False, 4403)
    assert error.message == "shut out: lost at� Pit 4"
    assert "--undo" in error.hint
    assert "operator" in refusal(CloseCode.FORBIDDEN, "revoked", "", URL).args[0]


def test_it_asks_once_an_hour_and_at_once_when_it_is_told_to() -> None:
    reconnecting = Reconnecting(lambda: 0.5)
    waits = [reconnecting.ended(refusal(4403, "revoked", "", URL), fruitful=False) for _ in range(3)]
    assert waits == [SHUT_OUT_S * 1.125] * 3
    assert isinstance(reconnecting.problem, ShutOut)


def test_a_space_that_was_just_joined_is_not_taken_for_one_that_never_was() -> None:
    assert says_no(RelayRefused("x", close_code=CloseCode.FORBIDDEN))
    assert not says_no(refusal(CloseCode.FORBIDDEN, "revoked", "", URL))
