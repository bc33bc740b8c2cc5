"""The rule `text`: what several people type into one text while apart is all there afterwards.

Apps read and write plain strings. Between devices, a text travels in one of two forms:

- typed for the first time, it is that string;
- changed later, it is `{"client": id, "state": bytes}`, where `state` is the Yjs update of a whole document
  with one `Text` called "text", and `client` is the id under which this author typed into it last. A text
  that was cleared has `"cleared": true` besides.

Writes that stand side by side are merged as Yjs merges; the next edit starts from what that gives, takes
the differences between the old string and the new one as deletions and insertions, and replaces all of
those writes by one, as any write does. So a text needs nothing of the record's document that other
values do not: authorship, deletion, snapshots and compaction know nothing of it.

Why its parts can never be confused. In a Yjs document a client id and a clock name one character for
ever. Here

- a string typed for the first time has the id that is the hash of the string, so two devices that import
  the same line make the same text and not the double of it;
- what an author types later has an id that begins with that edit: the hash of the author, of which writes
  the edit replaces, and of the text it makes. An author replaces a write once and never sees it again, so no
  other edit has that id. The author goes on under it for as long as its own last write stands: all that was
  ever typed under the id is in there. When another's write stands in its place, the next edit begins an id;
  so does the first one after the store was opened, which may be a copy of another life's.

Nothing here depends on clocks, nor on what became of the record in between. Each id leaves some ten bytes
behind. A text of 10 KB is well served; each edit sends the whole of it, deflated, and its past in a few bytes
for each place where something was typed.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pycrdt
from pycrdt import Doc

from crdt_sync.ids import Author
from crdt_sync.records.changes import Value
from crdt_sync.records.writes import Write
from crdt_sync.rules.base import Rule
from crdt_sync.rules.text_state import ROOT, check_state

_READ_ONLY_CLIENT: Final = 1
_WORD: Final = re.compile(r"\S+\s*|\s+")
_MAX_WORDS: Final = 1_000
"""Finding differences takes time by the square of the words; beyond this, what differs is one piece."""


class _Part:
    """One write of a text, read."""

    __slots__ = ("cleared", "state")

    def __init__(self, state: bytes, *, cleared: bool = False) -> None:
        self.state = state
        self.cleared = cleared


class Text(Rule):
    """Merges character by character. Nothing is ever a conflict."""

    __slots__ = ()
    name = "text"
    shape = "text"

    def value_of(self, writes: Sequence[Write]) -> str | None:
        """The text that these visible writes amount to; None when there is none, or it was cleared."""
        if len(writes) == 1:
            value = writes[0].value
            if value is None or isinstance(value, str):
                return value
        parts = _parts(writes)
        if not parts:
            return None
        text = str(_merged(parts, _READ_ONLY_CLIENT).get(ROOT, type=pycrdt.Text))
        return None if not text and all(part.cleared for part in parts) else text

    def edited(self, writes: Sequence[Write], wanted: str | None, author: Author, since: int = 0) -> Value:
        """The value to write in place of all these writes, so that `wanted` stands there.

        Of the author's own writes, only those later than `since` are surely not known to a copy of it.
        """
        parts = _parts(writes)
        if not parts:
            return wanted
        client = _client_id(writes, wanted, author, since)
        doc = _merged(parts, client)
        text = doc.get(ROOT, type=pycrdt.Text)
        before = str(text)
        with doc.transaction():
            # From the last to the first, so that places before a difference stay what they were. The
            # bindings count in bytes of UTF-8.
            for start, end, typed in reversed(differences(before, wanted or "")):
                at = len(before[:start].encode())
                if end > start:
                    del text[at : at + len(before[start:end].encode())]
                if typed:
                    text.insert(at, typed)
        value: dict[str, Value] = {"client": client, "state": doc.get_update()}
        if wanted is None:
            value["cleared"] = True
        return value


def _parts(writes: Iterable[Write]) -> list[_Part]:
    """The writes that hold a text; those that hold none, or a broken one, are left out."""
    parts = (_read(write) for write in writes)
    return [part for part in parts if part is not None]


def _read(write: Write) -> _Part | None:
    match write.value:
        case str(text):
            return _Part(_typed(text))
        case {"client": int(), "state": bytes(state), **more}:
            try:
                check_state(state)
            except ValueError:
                return None
            return _Part(state, cleared=more.get("cleared") is True)
        case _:
            return None


def _merged(parts: Sequence[_Part], client: int) -> Doc[Any]:
    """In the order of the writes, which is the same on every device."""
    doc: Doc[Any] = Doc(client_id=client)
    for part in parts:
        doc.apply_update(part.state)
    return doc


def _typed(text: str) -> bytes:
    """The state of a text that was typed at once."""
    doc: Doc[Any] = Doc(client_id=_hash53(b"crdt-sync/text/v1", text.encode()))
    if text:
        doc.get(ROOT, type=pycrdt.Text).insert(0, text)
    update: bytes = doc.get_update()
    return update


def _client_id(writes: Sequence[Write], wanted: str | None, author: Author, since: int) -> int:
    """Under which id the author types what turns these writes into what is wanted."""
    for write in writes:
        match write.value:
            case {"client": int(client)} if (
                write.author == author and write.hlc > since and 0 < client < 2**53
            ):
                return client
    parts = [author.array_name, "" if wanted is None else wanted]
    parts += sorted(f"{write.author.array_name} {write.hlc}" for write in writes)
    return _hash53(b"crdt-sync/text-edit/v1", "\0".join(parts).encode())


def _hash53(purpose: bytes, material: bytes) -> int:
    return int.from_bytes(hashlib.sha256(purpose + material).digest()[:8], "big") >> 11


def differences(before: str, after: str) -> list[tuple[int, int, str]]:
    """What to do to `before` so that it becomes `after`: (start, end, text in their place), in order.

    Found word by word, so that a word taken out goes as a whole; in a word that was changed, only what
    differs in it.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    shorter = min(len(old), len(new))
    first = 0
    while first < shorter and old[first] == new[first]:
        first += 1
    last = 0
    while last < shorter - first and old[-1 - last] == new[-1 - last]:
        last += 1
    places = [sum(map(len, old[:first]))]
    old, new = old[first : len(old) - last], new[first : len(new) - last]
    for word in old:
        places.append(places[-1] + len(word))
    if len(old) > _MAX_WORDS or len(new) > _MAX_WORDS:
        changed = [(0, len(old), 0, len(new))]
    else:
        matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
        changed = [each[1:] for each in matcher.get_opcodes() if each[0] != "equal"]
    found = []
    for low, high, new_low, new_high in changed:
        start, typed = places[low], "".join(new[new_low:new_high])
        same, gone, typed = _trimmed(before[start : places[high]], typed)
        if gone or typed:
            found.append((start + same, start + same + gone, typed))
    return found


def _trimmed(old: str, new: str) -> tuple[int, int, str]:
    """How many characters both begin with, how many go after them, and what comes there instead."""
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    end = 0
    while end < shorter - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return start, len(old) - end - start, new[start : len(new) - end]
