"""What a relay may send to a device when: each state, the frames it takes, and where they lead.

A frame that does not stand here for the state is a ProtocolViolation. What a device sends leads on too; that
is in the methods of `DeviceSession`, which says what the states mean.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final

from crdt_sync.protocol.deliveries import ConfirmCursor, Delivered
from crdt_sync.protocol.frames import (
    Ack,
    Appended,
    AppendRefused,
    Bye,
    Challenge,
    CheckedOut,
    CheckoutAnswer,
    CompactRequest,
    ConfirmRequest,
    Deliver,
    Fetched,
    Forked,
    Frame,
    Refuse,
    SnapshotResult,
    Welcome,
)


class State(IntEnum):
    HEARING = auto()
    CHALLENGED = auto()
    PROVING = auto()
    CREATING = auto()
    LIVE = auto()
    DONE = auto()


TRANSITIONS: Final[dict[State, dict[type[Frame], State]]] = {
    State.HEARING: {Challenge: State.CHALLENGED, Bye: State.DONE},
    State.CHALLENGED: {Bye: State.DONE},
    State.PROVING: {Welcome: State.LIVE, Bye: State.DONE},
    State.CREATING: {
        Appended: State.DONE,
        AppendRefused: State.DONE,
        Forked: State.DONE,
        Bye: State.DONE,
    },
    State.LIVE: {
        Deliver: State.LIVE,
        Ack: State.LIVE,
        Refuse: State.LIVE,
        Appended: State.LIVE,
        AppendRefused: State.LIVE,
        CompactRequest: State.LIVE,
        ConfirmRequest: State.LIVE,
        SnapshotResult: State.LIVE,
        Fetched: State.LIVE,
        CheckoutAnswer: State.LIVE,
        CheckedOut: State.LIVE,
        Delivered: State.LIVE,
        ConfirmCursor: State.LIVE,
        Bye: State.DONE,
    },
    State.DONE: {},
}
