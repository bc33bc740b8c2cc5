"""Leaving out what was read of a damaged store and makes no sense, before a new store is made of it.

A page that verifies can still hold what nobody meant to write: memory fails too, and what it spoils is then
encrypted and signed like everything else. Such a row is as good as lost, and is counted with the rows that
are (`Salvage.broken_rows`), so that what comes of that is the same: it is fetched from the relay, or said to
be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, cast

import msgspec

from crdt_sync.crypto.device_keys import DeviceKeys
from crdt_sync.crypto.envelope import parse
from crdt_sync.crypto.groups import decode_ends
from crdt_sync.crypto.space_keys import SpaceKeys
from crdt_sync.hlc import MAX_HLC
from crdt_sync.ids import ID_BYTES, Author, DeviceId, Incarnation, SpaceId
from crdt_sync.membership.log import MembershipLog
from crdt_sync.protocol.leases import decode_lease
from crdt_sync.protocol.limits import MAX_ENVELOPE_BYTES
from crdt_sync.records.document import RecordDocument
from crdt_sync.records.update_format import parse_update
from crdt_sync.records.writes import read_write
from crdt_sync_client.engine.audit import decode_alternatives
from crdt_sync_client.engine.filter_text import decode_filter
from crdt_sync_client.engine.history import read_entry
from crdt_sync_client.engine.open_records import decode_heads, decode_standing
from crdt_sync_client.store.btree import CLASSES
from crdt_sync_client.store.salvage import Salvage, Values, layouts_of

_STAGES: Final = frozenset({"creating", "joining", "active"})
_json = msgspec.json.Decoder(dict[str, Any]).decode
_path = msgspec.json.Decoder(tuple[str, ...]).decode
_msgpack = msgspec.msgpack.Decoder().decode


def sift(salvage: Salvage, *, without: Collection[str] = ()) -> dict[str, int]:
    """Take rows out of `salvage` that no store can hold; how many, by table. Not of the tables `without`."""
    sifting = _Sifting(salvage)
    gone: dict[str, int] = {}
    for table, rows in salvage.rows.items():
        if table in without:
            continue
        kept = [row for row in rows if sifting.makes_sense(table, row)]
        if len(kept) < len(rows):
            gone[table] = len(rows) - len(kept)
            salvage.rows[table] = kept
    if "membership" not in without and (cut := sifting.cut_membership()):
        gone["membership"] = gone.get("membership", 0) + cut
    for table, count in gone.items():
        salvage.broken_rows[table] = salvage.broken_rows.get(table, 0) + count
    return gone


def whole_document(state: bytes) -> RecordDocument:
    """The document with that state, every write of which can be read. Raises Exception of any kind."""
    parsed = parse_update(state)
    if any(Author.from_array_name(each.name or "").client_id != each.client for each in parsed.blocks):
        raise ValueError("a client id that is not its author's")
    document = RecordDocument(state)
    document.writes()
    return document


def writes_of(change: bytes, author: Author) -> dict[str, Any]:
    """What an update by that author writes, by dotted path. Raises Exception of any kind."""
    parsed = parse_update(change)
    writes = [read_write(raw, author) for blocks in parsed.blocks for _, raw in parsed.visible(blocks)]
    return {".".join(write.path): write.value for write in writes}


class _Sifting:
    """Judges rows of one salvage; those of spaces first, for others are judged by their keys."""

    def __init__(self, salvage: Salvage) -> None:
        self._rows = salvage.rows
        self._layouts = layouts_of([])
        self._device = _device_of(salvage)
        self._keys: dict[int, SpaceKeys] = {}
        self._spaces: dict[int, SpaceId] = {}
        self._choose_spaces(salvage)

    def _choose_spaces(self, salvage: Salvage) -> None:
        """Of the two rows about a space, the one with which its member log begins counts, else the first."""
        entries = _entries(salvage)
        founded: set[int] = set()
        for table in ("spaces", "spare_spaces"):
            for row in salvage.rows.get(table, ()):
                if not (self._fits(table, row) and _decodes(SpaceKeys.from_bytes, row["keys"])):
                    continue
                no = row["no"]
                fits_log = _founded(row, entries.get(no, ()))
                if no not in self._spaces or (fits_log and no not in founded):
                    self._keys[no] = SpaceKeys.from_bytes(row["keys"])
                    self._spaces[no] = SpaceId(row["id"])
                if fits_log:
                    founded.add(no)

    def makes_sense(self, table: str, row: Values) -> bool:
        """Whether the columns have values of their types, and what is encoded in them can be decoded."""
        if not self._fits(table, row):
            return False
        judge = _JUDGES.get(table)
        try:
            return judge is None or judge(self, row)
        except Exception:  # it may be broken in any way
            return False

    def cut_membership(self) -> int:
        """Leave out, of each space, the first entry that does not verify and all behind it; how many."""
        rows = sorted(self._rows.get("membership", ()), key=lambda row: (row["space"], row["position"]))
        logs = {no: MembershipLog(id) for no, id in self._spaces.items()}
        kept = []
        for row in rows:
            log = logs.get(row["space"])
            if log is None:
                continue
            try:
                if row["position"] != len(log.entries):
                    raise ValueError("a gap")
                log.apply(row["entry"])
            except Exception:  # it may be broken in any way
                del logs[row["space"]]
                continue
            kept.append(row)
        self._rows["membership"] = kept
        return len(rows) - len(kept)

    def _fits(self, table: str, row: Values) -> bool:
        layout = self._layouts.get(table)
        if layout is None:  # a table that this program does not know
            return True
        for column in layout.columns:
            value = row.get(column["name"])
            if value is None:
                if column["name"] in row and (column["notnull"] or (column["pk"] and layout.without_rowid)):
                    return False
            elif column["type"] and not isinstance(value, CLASSES[column["type"]]):
                return False
        return True

    # By table

    def _meta(self, row: Values) -> bool:
        name, value = row["name"], row["value"]
        if name == "keys":
            DeviceKeys.from_bytes(value)
        elif name == "name":
            return isinstance(value, str)
        elif name == "incarnation":
            return isinstance(value, int) and 0 < value < 2**32
        elif name == "hlc":
            return isinstance(value, int) and 0 <= value <= MAX_HLC
        return True

    def _space(self, row: Values) -> bool:
        no = row["no"]
        same = self._spaces.get(no) == row["id"] and self._keys[no].to_bytes() == row["keys"]
        return same and len(row["id"]) == ID_BYTES and row["stage"] in _STAGES

    def _record(self, row: Values) -> bool:
        keys = self._keys.get(row["space"])
        if keys is not None and keys.opaque_id(row["type"], row["id"]) != row["opaque"]:
            return False
        # What is shown, and what stands in conflict, are made from the document again.
        if row["json"] is not None and not _decodes(_json, row["json"]):
            row["json"] = None
        if not _decodes(decode_standing, row["standing"]):
            row["standing"] = None
        return True

    def _document(self, row: Values) -> bool:
        whole_document(row["state"])
        decode_heads(row["heads"])
        decode_ends(row.get("group_ends"))
        return True

    def _waiting_change(self, row: Values) -> bool:
        if self._device is None:
            return _decodes(parse_update, row["change"])
        writes_of(row["change"], Author(self._device, Incarnation(row["incarnation"])))
        return True

    def _sealed(self, row: Values) -> bool:
        return bool(parse(row["envelope"], max_bytes=MAX_ENVELOPE_BYTES).hash == row["hash"])

    def _envelope(self, row: Values) -> bool:
        if row["envelope"] is not None:
            parse(row["envelope"], max_bytes=MAX_ENVELOPE_BYTES)
        return len(row["device"]) == ID_BYTES

    def _conflict(self, row: Values) -> bool:
        _path(row["path"])
        alternatives = decode_alternatives(row["alternatives"])
        if row["resolution"] is not None:
            _msgpack(row["resolution"])
        return bool(alternatives) and 0 <= row["winner"] < len(alternatives)

    def _history(self, row: Values) -> bool:
        read_entry(row["entry"])
        return True

    def _scope(self, row: Values) -> bool:
        decode_filter(row["condition"])
        return True

    def _lease(self, row: Values) -> bool:
        decode_lease(row["lease"])
        return True

    def _at_relay(self, row: Values) -> bool:
        whole_document(row["state"])
        decode_heads(row["heads"])
        return True


_JUDGES: Final[Mapping[str, Callable[[_Sifting, Values], bool]]] = {
    "meta": _Sifting._meta,
    "spare_meta": _Sifting._meta,
    "spaces": _Sifting._space,
    "spare_spaces": _Sifting._space,
    "records": _Sifting._record,
    "documents": _Sifting._document,
    "outbox": _Sifting._waiting_change,
    "sealed": _Sifting._sealed,
    "quarantine": _Sifting._envelope,
    "waiting": _Sifting._envelope,
    "conflicts": _Sifting._conflict,
    "history": _Sifting._history,
    "scopes": _Sifting._scope,
    "leases": _Sifting._lease,
    "at_relay": _Sifting._at_relay,
}


def _device_of(salvage: Salvage) -> DeviceId | None:
    for row in (*salvage.rows.get("meta", ()), *salvage.rows.get("spare_meta", ())):
        if row["name"] == "keys" and _decodes(DeviceKeys.from_bytes, row["value"]):
            return DeviceKeys.from_bytes(row["value"]).device_id
    return None


def _entries(salvage: Salvage) -> dict[int, list[bytes]]:
    """The first entry of each space's member log."""
    found: dict[int, list[bytes]] = {}
    for row in salvage.rows.get("membership", ()):
        if row["position"] == 0:
            found.setdefault(row["space"], []).append(row["entry"])
    return found


def _founded(row: Values, entries: Collection[bytes]) -> bool:
    """Whether one of these is the entry that founded this space, with these keys."""
    return any(_decodes(lambda entry: _check_founding(row, entry), entry) for entry in entries)


def _check_founding(row: Values, entry: bytes) -> None:
    log = MembershipLog(SpaceId(row["id"]))
    log.apply(entry)
    keys = SpaceKeys.from_bytes(row["keys"])
    if any(keys.commitment(epoch) != stated for epoch, stated in log.epochs.items()):
        raise ValueError("other keys")


def _decodes(decode: Callable[[Any], object], raw: object) -> bool:
    try:
        decode(cast(Any, raw))
    except Exception:  # whatever is wrong with it
        return False
    return True
