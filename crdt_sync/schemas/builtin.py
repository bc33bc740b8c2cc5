"""The reserved record type `_schema`: how a space carries the schemas of its own records.

Each record holds one schema's YAML text. It is a record like any other, so schemas reach every device
by the same encrypted envelopes, and a newer version replaces an older one by the same merge. Only
admins write them; writes that carry another role are refused when they arrive, too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final

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
type: object
required: [source]
properties:
  # The YAML text. Of two admins who changed it while apart, the later wins as a whole: half of one
  # schema and half of another is none.
  source: {type: string, minLength: 1, x-merge: {rule: register, prefer: [admin]}}
"""


@cache
def schema_type() -> RecordSchema:
    """The type `_schema`, with its one field `source`; always the same object."""
    loaded = load_schema(_TEXT, source="the built-in type _schema")
    return replace(loaded, type=SCHEMA_TYPE)
