"""What goes to a terminal, a pipe and a program."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync_client.cli.output import Output, iso_time, local_time, printable, show, to_json


@given(st.text())
def test_nothing_in_a_value_can_steer_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("replace tooth", "replace tooth"),
        ("\x1b[2J\x1b[31mgone", "\\x1b[2J\\x1b[31mgone"),
        ("first\nsecond", "first⏎second"),
        ("Kühlmittel – ёж 🙂", "Kühlmittel – ёж 🙂"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_control_characters_are_shown_not_sent(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (12.5, "12.5"),
        (b"\xff\xd8" * 1000, "2,000 bytes"),
        (["urgent", "pm"], '["urgent", "pm"]'),
        ({"A": {"qty": 2}}, '{"A": {"qty": 2}}'),
    ],
)
def test_values_for_people(value: Any, shown: str) -> None:
    assert show(value) == shown


def test_values_for_programs_keep_bytes_as_base64() -> None:
    assert to_json({"photo": b"\x00\x01", "rows": [{"x": b"a"}]}) == {
        "photo": "AAE=",
        "rows": [{"x": "YQ=="}],
    }


def test_json_is_one_utf8_line_whatever_the_locale(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Output(as_json=True).result({"title": "Kühlmittel\nleckt"})
    out = capsysbinary.readouterr().out
    assert out.count(b"\n") == 1
    assert json.loads(out.decode("utf-8")) == {"title": "Kühlmittel\nleckt"}


def test_a_table_in_a_pipe_is_plain_and_never_cuts(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    Output(as_json=False).table(("id", "title"), [(long, "[red]not markup[/red] \x1b[31m")], none="")
    out = capsys.readouterr().out
    assert long in out
    assert "[red]not markup[/red] \\x1b[31m" in out
    assert "\x1b" not in out


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).table(("id",), [], none="No conflicts.")
    assert capsys.readouterr().out == "No conflicts.\n"


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert iso_time(1_700_000_000_123) == "2023-11-14T22:13:20Z"
    assert iso_time(None) is None
    assert local_time(None) == "never"


def test_notes_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).note("saved")
    Output(as_json=True).note("saved")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "saved\n"


def test_the_console_writes_to_the_stream_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    Output(as_json=False).table(("a",), [(1,)], none="")
    assert "1" in stream.getvalue()
