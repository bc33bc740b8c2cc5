"""The public surface of the library, the shipped schemas, and the keychain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import crdt_sync_client
from crdt_sync.errors import NoKey, SchemaError, UnknownType
from crdt_sync_client import keychain
from crdt_sync_client.shipped import find_schema, shipped_types
from tests.keychains import MemoryKeychain, in_use

PUBLIC = {
    "AddElement",
    "Alternative",
    "Change",
    "CheckinResult",
    "Checkout",
    "CheckoutResult",
    "ConflictChange",
    "ConflictEntry",
    "ConflictWatch",
    "Device",
    "ExplainedField",
    "ExplainedVersion",
    "Explanation",
    "FieldChange",
    "Filter",
    "HistoryEntry",
    "ImportReport",
    "ImportRow",
    "Increment",
    "LateWork",
    "LiveQuery",
    "LeaveReport",
    "LogoutReport",
    "Member",
    "Order",
    "OutboxItem",
    "OwnValue",
    "Page",
    "Preference",
    "Quarantined",
    "Query",
    "Record",
    "RemoveElement",
    "SpaceInfo",
    "SpaceStatus",
    "Status",
    "StorePart",
    "StoreSize",
    "Suggestion",
    "SyncReport",
    "Watch",
    "WriteLife",
    "WriteResult",
    "WrittenValue",
    "field",
    "find_schema",
    "name_app",
    "read_csv",
    "shipped_types",
}
DEVICE = {
    "add_schema",
    "auto_sync",
    "break_checkouts",
    "change_passphrase",
    "check_in",
    "check_out",
    "checkout",
    "checkouts",
    "clean_up",
    "clear_cache",
    "close",
    "conflict",
    "conflict_counts",
    "conflict_trail",
    "conflicts",
    "connect",
    "content_hash",
    "count",
    "count_conflicts",
    "create",
    "create_space",
    "delete",
    "discard",
    "disconnect",
    "explain",
    "export_conflicts",
    "fetch",
    "finished",
    "foreground",
    "get",
    "history",
    "import_rows",
    "invite",
    "join",
    "leave",
    "life",
    "live",
    "lives",
    "lock",
    "lock_after",
    "lock_if_idle",
    "locked",
    "logout",
    "members",
    "network",
    "open",
    "outbox",
    "page",
    "pick",
    "preferences",
    "quarantined",
    "query",
    "ready",
    "record_state",
    "renew_checkouts",
    "require_ready",
    "resolve",
    "resolve_record",
    "restore",
    "restore_version",
    "retry",
    "retry_failed",
    "schema",
    "schemas",
    "scope",
    "set_scope",
    "set_setting",
    "settings",
    "spaces",
    "status",
    "store_size",
    "switch_space",
    "sync",
    "touch",
    "transaction",
    "unlock",
    "unpick",
    "update",
    "vacuum",
    "wait",
    "watch",
    "watch_conflicts",
    "watch_record_state",
    "watch_status",
}


def test_the_library_exports_what_it_promises_and_nothing_else() -> None:
    assert set(crdt_sync_client.__all__) == PUBLIC == set(dir(crdt_sync_client))
    for name in PUBLIC:
        assert getattr(crdt_sync_client, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Gadget'"):
        _ = crdt_sync_client.Gadget


def test_a_device_offers_what_it_promises_and_nothing_else() -> None:
    public = {name for name in dir(crdt_sync_client.Device) if not name.startswith("_")}
    assert public == DEVICE


def test_everything_public_says_what_it_is() -> None:
    undocumented = [name for name in PUBLIC if not getattr(crdt_sync_client, name).__doc__]
    device = crdt_sync_client.Device
    members = {name: part for part in reversed(device.__mro__) for name, part in vars(part).items()}
    undocumented += [name for name in DEVICE - {"open"} if not members[name].__doc__]
    assert not undocumented


def test_a_shipped_type_is_found_by_name_and_a_file_by_path(tmp_path: Path) -> None:
    files = (Path(__file__).resolve().parents[2] / "schemas").glob("*.yaml")
    assert shipped_types() == sorted(file.stem for file in files)
    assert {"work_order", "daily_work_record", "volunteer", "citizen_report", "todo"} <= set(shipped_types())
    shipped = find_schema("work_order")
    assert shipped.type == "work_order"
    own = tmp_path / "own.yaml"
    own.write_text(shipped.text, encoding="utf-8")
    assert find_schema(str(own)).fields.keys() == shipped.fields.keys()


def test_what_is_no_schema_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UnknownType) as near:
        find_schema("work_ordr")
    assert near.value.hint == "did you mean work_order?"
    with pytest.raises(UnknownType, match="no schema file or record type"):
        find_schema(str(tmp_path / "missing.yaml"))
    binary = tmp_path / "photo.yaml"
    binary.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SchemaError, match=r"photo\.yaml:1:1: not UTF-8 text"):
        find_schema(str(binary))
    broken = tmp_path / "broken.yaml"
    broken.write_text("x-type: thing\nproperties: {a: {type: strng}}\n", encoding="utf-8")
    with pytest.raises(SchemaError, match=r"broken\.yaml:2:"):
        find_schema(str(broken))


@pytest.fixture
def chain() -> Iterator[MemoryKeychain]:
    with in_use(MemoryKeychain()) as chain:
        yield chain


def test_a_stores_key_is_kept_under_its_salt(chain: MemoryKeychain) -> None:
    salt, key = bytes(16), bytes(range(32))
    assert keychain.available()
    assert keychain.load_key(salt) is None
    keychain.save_key(salt, key)
    assert chain.entries == {("crdt-sync", salt.hex()): key.hex()}
    assert keychain.load_key(salt) == key
    assert keychain.load_key(b"x" * 16) is None
    keychain.forget_key(salt)
    keychain.forget_key(salt)
    assert keychain.load_key(salt) is None


def test_a_keychain_that_fails_says_what_to_do_and_shows_no_key(chain: MemoryKeychain) -> None:
    salt, key = bytes(16), b"K" * 32
    chain.full = True
    with pytest.raises(NoKey) as refused:
        keychain.save_key(salt, key)
    assert "passphrase" in refused.value.hint
    assert key.hex() not in str(refused.value)
    chain.entries["crdt-sync", salt.hex()] = "abcd"
    with pytest.raises(NoKey, match="damaged"):
        keychain.load_key(salt)
