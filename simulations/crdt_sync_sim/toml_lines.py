"""On which line of a TOML file each key stands, since `tomllib` keeps no positions.

The index maps a path of table names, array positions and keys to a line, counted from 1. Keys inside inline
tables and arrays are not indexed one by one: asking for one gives the line of the nearest enclosing key. The
scanner relies on `tomllib` having accepted the text; it does not judge it.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from typing import Any, Final

Path = tuple[str | int, ...]

_NAME: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY: Final = re.compile(rf"\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*=")
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*(.+?)\s*(\]\]?)\s*(?:#.*)?$")
_PART: Final = re.compile(_NAME)
_SYNTAX: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class TomlSyntaxError(Exception):
    """Not TOML; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class LineIndex:
    """Where things stand. `line` never fails: what is not indexed is where its parent is."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self._lines = lines

    def line(self, *path: str | int) -> int:
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 1


def parse(text: str) -> tuple[dict[str, Any], LineIndex]:
    """The document and the lines of its keys. Raises TomlSyntaxError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = _SYNTAX.match(str(exc))
        line = int(found[2]) if found and found[2] else text.count("\n") + 1
        raise TomlSyntaxError(line, found[1] if found else str(exc)) from None
    return document, LineIndex(_index(text))


def _index(text: str) -> dict[Path, int]:
    lines: dict[Path, int] = {}
    table: Path = ()
    tables_seen: dict[Path, int] = defaultdict(int)
    depth, closing = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not depth and not closing:
            if (header := _HEADER.match(line)) and header[1][:1] == "[":
                table = _enter(header, tables_seen)
                lines.setdefault(table, number)
                continue
            if key := _KEY.match(line):
                path: Path = (*table, *_parts(key[1]))
                lines.setdefault(path, number)
                line = line[key.end() :]
        depth, closing = _balance(line, depth, closing)
    return lines


def _enter(header: re.Match[str], seen: dict[Path, int]) -> Path:
    """The path of a table header; arrays of tables get the position of their newest element."""
    path: Path = ()
    parts = _parts(header[2])
    for index, part in enumerate(parts):
        path = (*path, part)
        last = index == len(parts) - 1
        if last and header[1] == "[[":
            seen[path] += 1
        if path in seen:
            path = (*path, seen[path] - 1)
    return path


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _balance(line: str, depth: int, closing: str) -> tuple[int, str]:
    """Bracket depth and the open multi-line string after this stretch of a value."""
    position = 0
    while position < len(line):
        if closing:
            end = line.find(closing, position)
            if end < 0:
                return depth, closing if len(closing) == 3 else ""
            position, closing = end + len(closing), ""
            continue
        char = line[position]
        if char in "\"'":
            closing = char * 3 if line.startswith(char * 3, position) else char
            position += len(closing)
            if closing == '"':
                while position < len(line) and line[position] != '"':
                    position += 2 if line[position] == "\\" else 1
            continue
        if char == "#":
            break
        depth += char in "[{"
        depth -= char in "]}"
        position += 1
    return depth, closing if len(closing) == 3 else ""
