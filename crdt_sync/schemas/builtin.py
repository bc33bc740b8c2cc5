"""The reserved record type `_schema`: how a space carries the schemas of its own records.

Each record holds the newest version of one schema as YAML text. It is a record like any other, so schemas
reach every device by the same encrypted envelopes, and versions meet by the same merge. Only admins write
them; writes that carry another role are refused when they arrive, too.

Beside the text stand the roles that any version granted the right to write and to delete (see `rights`): they
are known also to a program that cannot read the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from crdt_sync.records.writes import Write
from crdt_sync.rules.base import ValueRule, by_clock
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema

SCHEMA_TYPE: Final = "_schema"
"""No schema file can declare this name: `x-type` cannot begin with an underscore."""

_TEXT: Final = """\
$schema: https://json-schema.org/draft/2020-12/schema
title: Record type
x-type: schema
x-version: 1
x-write: {roles: [admin]}
# Before the records that cannot be read without it.
x-priority: 1
type: object
required: [source]
properties:
  # The YAML text. Of two versions that were published apart, the higher stands as a whole: half of one schema
  # and half of another is none.
  source: {type: string, minLength: 1}
  # Roles that any version let write, and delete. Sets, so that nothing one admin grants is lost to another.
  writers: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
  deleters: {type: array, items: {type: string}, uniqueItems: true, x-merge: set}
"""
_VERSION: Final = re.compile(r"^x-version:[ \t]*([0-9]{1,10})[ \t]*(?:#.*)?$", re.MULTILINE)


class NewestVersion(ValueRule):
    """Of schemas that were published apart, that of the highest version; of equal ones the later."""

    __slots__ = ()
    name = "newest_version"

    def choose(self, writes: Sequence[Write]) -> Write:
        if len(writes) == 1:
            return writes[0]
        return max(writes, key=lambda write: (version_in(write.value), by_clock(write)))


def version_in(source: object) -> int:
    """The version that a schema's text names, also one that this program cannot read; 1 without."""
    found = _VERSION.search(source) if isinstance(source, str) else None
    return 1 if found is None else int(found[1])


@cache
def schema_type() -> RecordSchema:
    """The type `_schema`; always the same object."""
    loaded = load_schema(_TEXT, source="the built-in type _schema")
    source = replace(loaded.fields["source"], rule=NewestVersion())
    return replace(loaded, type=SCHEMA_TYPE, fields={**loaded.fields, "source": source})
