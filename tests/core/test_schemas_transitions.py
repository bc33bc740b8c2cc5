"""Which status may follow which, and what is said of one that may not."""

from __future__ import annotations

import pytest

from crdt_sync.errors import TransitionError, ValidationError
from crdt_sync.schemas import check_transition, load_schema, next_values

SCHEMA = load_schema(
    """\
x-type: pump
properties:
  free: {type: string, enum: [a, b]}
  status:
    type: string
    enum: [draft, active, on_hold, done]
    x-transitions: {draft: [active], active: [on_hold, done, draft], on_hold: [active]}
""",
    source="pump.yaml",
)
STATUS = SCHEMA.fields["status"]


@pytest.mark.parametrize(
    ("current", "new"),
    [
        ("draft", "active"),
        ("active", "done"),
        ("active", "active"),
        ("done", "done"),
        (None, "done"),
        ("from_a_newer_schema", "draft"),
    ],
)
def test_a_step_of_the_table_is_allowed(current: str | None, new: str) -> None:
    check_transition(STATUS, "status", current, new)


@pytest.mark.parametrize(
    ("current", "new", "message", "hint"),
    [
        ("draft", "done", "status: 'draft' may not become 'done'", "from 'draft' it may become active"),
        (
            "on_hold",
            "draft",
            "status: 'on_hold' may not become 'draft'",
            "from 'on_hold' it may become active",
        ),
        ("done", "draft", "status: 'done' is final and may not become 'draft'", ""),
        ("done", None, "status: 'done' is final and may not be cleared", ""),
        (
            "active",
            None,
            "status: 'active' may not be cleared",
            "from 'active' it may become on_hold, done or draft",
        ),
    ],
)
def test_another_step_is_refused_naming_what_may_follow(
    current: str, new: str | None, message: str, hint: str
) -> None:
    with pytest.raises(TransitionError) as caught:
        check_transition(STATUS, "status", current, new)
    assert isinstance(caught.value, ValidationError)
    assert (str(caught.value), caught.value.hint, caught.value.field) == (message, hint, "status")


def test_a_field_without_a_table_takes_any_step() -> None:
    check_transition(SCHEMA.fields["free"], "free", "a", None)
    assert next_values(SCHEMA.fields["free"], "a") is None


def test_what_may_follow_can_be_asked_for() -> None:
    assert next_values(STATUS, "active") == ("on_hold", "done", "draft")
    assert next_values(STATUS, "done") == ()
    assert next_values(STATUS, None) is None
