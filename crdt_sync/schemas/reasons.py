"""Why a field merges as it does: the comment that stands with it in the schema's text.

Schemas give the reason for a rule in a comment above the field, or behind it on its line. A comment above
several fields speaks of all of them: up to the next comment or empty line, and for fields of one rule.
Schemas travel without comments, so those of a space have none; every rule has a sentence of its own.
"""

from __future__ import annotations

import re
from typing import Final

from crdt_sync.schemas import yaml_nodes
from crdt_sync.schemas.model import FieldSpec, RecordSchema
from crdt_sync.schemas.yaml_nodes import MapNode, Problems

RULE_SENTENCES: Final = {
    "register": "the latest write is kept",
    "client_wins": "the field's word stands before the office's",
    "server_wins": "the office's word stands before the field's",
    "manual": "a person decides between what was written apart",
    "set": "what anybody added is there",
    "rows": "each row merges by itself, field by field",
    "counter": "what every device counted is added up",
    "max": "the greatest is kept",
    "min": "the least is kept",
    "once": "the first is kept, and a person decides between two",
    "text": "what several people wrote is all there",
}

_TRAILING: Final = re.compile(r"""^(?:[^'"#]|'[^']*'|"[^"]*"|(?<=\S)\#)*\s\#\s*(.*)$""")
"""A comment behind what stands on a line: a # after a blank, outside of quotes."""


def reasons(schema: RecordSchema) -> dict[tuple[str, ...], str]:
    """The reason of each field that has one, by its names: `("parts_used",)`, `("parts_used", "qty")`."""
    root = yaml_nodes.read(schema.text, Problems(schema.source))
    found: dict[tuple[str, ...], str] = {}
    properties = root.get("properties") if isinstance(root, MapNode) else None
    if isinstance(properties, MapNode):
        _read(properties, dict(schema.fields), schema.text.splitlines(), (), found)
    return found


def _read(
    properties: MapNode,
    specs: dict[str, FieldSpec],
    lines: list[str],
    prefix: tuple[str, ...],
    found: dict[tuple[str, ...], str],
) -> None:
    last: tuple[str, str, int] | None = None
    """The reason above an earlier field, the rule it spoke of, and the line it has reached."""
    for name, (key, node) in properties.entries.items():
        spec = specs.get(name)
        if spec is None:
            continue
        at = key.line - 1
        above = _above(lines, at)
        behind = _TRAILING.match(lines[at])
        path = (*prefix, name)
        if above:
            found[path] = above
            last = (above, spec.rule.name, at)
        elif behind:
            found[path] = behind[1].strip()
        elif last is not None and _spoken_of(spec, last[1], lines[last[2] : at]):
            found[path] = last[0]
        row = node.get("additionalProperties") if isinstance(node, MapNode) else None
        below = row.get("properties") if isinstance(row, MapNode) else None
        if spec.row is not None and isinstance(below, MapNode):
            _read(below, dict(spec.row), lines, path, found)


def _spoken_of(spec: FieldSpec, rule: str, between: list[str]) -> bool:
    """Whether a comment above an earlier field speaks of this one too. The usual rule needs no reason."""
    return spec.rule.name == rule != "register" and all(line.strip() for line in between)


def _above(lines: list[str], at: int) -> str:
    start = at
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return " ".join(line.strip().lstrip("#").strip() for line in lines[start:at]).strip()
