"""Finds schema files: a path, or the name of a record type that ships with the product.

In an installed wheel the shipped files are the package data `crdt_sync_client/shipped_schemas`; in a
checkout they are the directory `schemas/` beside `client/`. Both hold the same files, one type each,
named after the type. This module reads files; what is in them is the business of `crdt_sync.schemas`.
"""

from __future__ import annotations

import difflib
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from crdt_sync.errors import SchemaError, SchemaProblem, UnknownType
from crdt_sync.schemas.loader import load_schema
from crdt_sync.schemas.model import RecordSchema

_TYPE_NAME: Final = re.compile(r"[a-z][a-z0-9_]*\Z")


def shipped_types() -> list[str]:
    """Names of the record types that ship with the product, sorted."""
    folder = _folder()
    if folder is None:
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if _is_schema(entry))


def find_schema(name_or_path: str) -> RecordSchema:
    """The schema in that file, or the shipped one of that type name.

    What looks like a type name is looked for among the shipped types first; everything else is a path.
    Raises SchemaError for a file that is not a good schema, UnknownType when there is none.
    """
    if _TYPE_NAME.match(name_or_path):
        text = _shipped_text(name_or_path)
        if text is not None:
            return load_schema(text, source=f"{name_or_path}.yaml")
    path = Path(name_or_path)
    if path.is_file():
        try:
            return load_schema(path.read_text(encoding="utf-8"), source=name_or_path)
        except UnicodeDecodeError as exc:
            raise SchemaError([SchemaProblem(name_or_path, 1, 1, "not UTF-8 text")]) from exc
    raise UnknownType(f"there is no schema file or record type {name_or_path!r}", hint=_hint(name_or_path))


def _hint(name: str) -> str:
    types = shipped_types()
    nearest = difflib.get_close_matches(name, types, n=1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    return (
        f"give the path of a .yaml file, or one of: {', '.join(types)}"
        if types
        else "give the path of a .yaml file"
    )


def _shipped_text(type_name: str) -> str | None:
    folder = _folder()
    if folder is None:
        return None
    file = folder / f"{type_name}.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _folder() -> Traversable | None:
    packaged = resources.files("crdt_sync_client") / "shipped_schemas"
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parents[2] / "schemas"
    return checkout if checkout.is_dir() else None


def _is_schema(entry: Traversable) -> bool:
    return entry.name.endswith(".yaml") and entry.is_file()
