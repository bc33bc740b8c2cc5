"""Identifiers and roles: stable forms that documents and logs depend on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sync.ids import (
    Author,
    DeviceId,
    Incarnation,
    SpaceId,
    b64url,
    from_b64url,
    is_record_id,
    keyed_record_id,
    new_incarnation,
    new_record_id,
)
from crdt_sync.roles import Role

authors = st.builds(
    Author,
    st.binary(min_size=16, max_size=16).map(DeviceId),
    st.integers(1, 2**32 - 1).map(Incarnation),
)


@given(authors)
def test_an_author_and_its_array_name_are_one(author: Author) -> None:
    assert len(author.array_name) == 27
    assert Author.from_array_name(author.array_name) == author
    assert 0 <= author.client_id < 2**53


def test_the_forms_that_stored_documents_depend_on_do_not_change() -> None:
    author = Author(DeviceId(bytes(range(16))), Incarnation(7))
    assert author.array_name == "AAECAwQFBgcICQoLDA0ODwAAAAc"
    assert author.client_id == 3084196544236549


@given(st.text(max_size=40))
def test_array_names_that_no_author_has_are_refused(name: str) -> None:
    try:
        author = Author.from_array_name(name)
    except ValueError:
        return
    assert author.array_name == name


@given(st.binary(max_size=64))
def test_base64url_round_trip(raw: bytes) -> None:
    assert from_b64url(b64url(raw)) == raw


@pytest.mark.parametrize("text", ["A", "AB=", "A B", "AB==", "A+", "A/", "AB", "ä"])
def test_text_that_is_not_canonical_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        from_b64url(text)


@given(st.binary(min_size=16, max_size=16))
def test_new_record_ids_are_version_4_uuids(raw: bytes) -> None:
    text = new_record_id(lambda count: raw[:count])
    assert is_record_id(text)
    assert text[14] == "4"
    assert text[19] in "89ab"


def test_a_keyed_id_depends_on_space_type_and_key_and_nothing_else() -> None:
    here, there = SpaceId(b"a" * 16), SpaceId(b"b" * 16)
    first = keyed_record_id(here, "work_order", "WO-1")
    assert is_record_id(first)
    assert first == keyed_record_id(here, "work_order", "WO-1")
    others = {
        keyed_record_id(there, "work_order", "WO-1"),
        keyed_record_id(here, "asset", "WO-1"),
        keyed_record_id(here, "work_order", "WO-2"),
    }
    assert len(others | {first}) == 4


def test_an_incarnation_is_never_zero() -> None:
    assert new_incarnation(bytes) == 1


def test_roles_keep_their_numbers() -> None:
    assert {role.text: int(role) for role in Role} == {
        "field": 1,
        "office": 2,
        "supervisor": 3,
        "admin": 4,
        "reader": 5,
    }


def test_an_unknown_role_names_the_roles_there_are() -> None:
    with pytest.raises(
        ValueError,
        match="there is no role 'boss'; the roles are field, office, supervisor, admin, reader",
    ):
        Role.parse("boss")
