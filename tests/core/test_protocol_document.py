"""docs/protocol.md says what the code does: its tables are compared with it."""

from __future__ import annotations

import re
from pathlib import Path

from crdt_sync.crypto.envelope import HEADER_BYTES, Header
from crdt_sync.membership.entries import MAX_ENTRY_BYTES, EntryKind
from crdt_sync.protocol import codes, device_states, frames, limits, relay_session
from crdt_sync.protocol.codes import RETRYABLE, CloseCode
from crdt_sync.protocol.frames import AUTH_DOMAIN, Frame, FromDevice, FromRelay, Got, Mode, RowKind, encode

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def table(title: str) -> list[list[str]]:
    """The body of the table whose first heading cell starts with `title`."""
    lines = DOCUMENT.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {title}"))
    body = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in line.strip("|").split("|")])
    return body


def test_the_frames_are_those_of_the_code() -> None:
    from_device, from_relay = set(FromDevice.__args__), set(FromRelay.__args__)
    expected = []
    for frame in sorted(Frame.__subclasses__(), key=lambda frame: int(frame.__struct_config__.tag or 0)):
        sender = (
            "both" if frame in from_device & from_relay else "device" if frame in from_device else "relay"
        )
        fields = ", ".join(f"`{name}`" for name in frame.__struct_fields__)
        expected.append([str(frame.__struct_config__.tag), frame.__name__, sender, fields])
    assert table("tag") == expected


def test_every_field_has_a_type() -> None:
    described = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in table("field"))))
    used = {name for frame in Frame.__subclasses__() for name in frame.__struct_fields__}
    assert described == used
    assert f"[{', '.join(limits.Limits.__struct_fields__)}]" in DOCUMENT
    assert f"[{', '.join(frames.Row.__struct_fields__)}]" in DOCUMENT
    assert ", ".join(f"{kind.value} {kind.name.lower()}" for kind in RowKind) in DOCUMENT
    assert ", ".join(f"{mode.value} {mode.name.lower()}" for mode in Mode) in DOCUMENT


def test_the_states_are_those_of_the_code() -> None:
    for title, transitions in (
        ("the relay is", relay_session._TRANSITIONS),
        ("the device is", device_states.TRANSITIONS),
    ):
        documented = {row[0]: row[2].split(", ") for row in table(title)}
        actual = {
            state.name.lower(): [frame.__name__ for frame in takes] or ["nothing"]
            for state, takes in transitions.items()
        }
        assert documented == actual


def test_the_close_codes_are_those_of_the_code() -> None:
    documented = [(int(code), name, again) for code, name, again, _ in table("code | name")]
    assert documented == [(code, code.name, "yes" if code in RETRYABLE else "no") for code in CloseCode]
    others = sorted(RETRYABLE - set(codes.CloseCode))
    assert others == [1005, 1006, 1012, 1013]


def test_the_limits_are_those_of_the_code() -> None:
    assert {name: float(value) for name, value, _ in table("limit")} == {
        name: getattr(limits, name) for name, _, _ in table("limit")
    }
    first = [name.lower() for name, _, _ in table("limit")][:4]
    assert first == list(limits.Limits.__struct_fields__)
    assert limits.MAX_MEMBERSHIP_BYTES == MAX_ENTRY_BYTES


def test_the_envelope_is_that_of_the_code() -> None:
    rows = table("offset")
    assert [row[2].strip("`") for row in rows] == list(Header.__struct_fields__)
    offset = 0
    for row in rows:
        assert int(row[0]) == offset
        offset += int(row[1])
    assert offset == HEADER_BYTES


def test_the_membership_kinds_are_those_of_the_code() -> None:
    assert [row[:2] for row in table("kind")] == [[str(kind.value), kind.name.lower()] for kind in EntryKind]


def test_the_words_that_are_signed_and_hashed() -> None:
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "crdt_sync").rglob("*.py"))
    for word in re.findall(r'"(crdt-sync/[\w-]+/v1)"', DOCUMENT):
        assert f'b"{word}"' in source, word
    assert f'"{AUTH_DOMAIN.decode()}"' in DOCUMENT


def test_the_example() -> None:
    assert encode(Got(1)).hex(" ") in DOCUMENT
