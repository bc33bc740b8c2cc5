"""YAML text as a tree of nodes that know their line and column.

PyYAML's C parser splits the text into events; the tree is built here, because that is where YAML's
traps are disarmed:

- Scalars follow the core schema of YAML 1.2, as JSON Schema authors expect: `no`, `on` and `12:30` are
  text (PyYAML's own constructor takes them for false, true and 750), `0o17` is 15, `017` is 17.
- A key that stands twice in a mapping is a problem, not a silent overwrite.
- Anchors, aliases, merge keys and tags are refused: a schema of 200 bytes must not become gigabytes,
  and nothing in a schema may name a Python type.
- Depth and size are bounded, and building does not recurse.

Measured on the work order schema (5 KB): this 0.7 ms, ruamel.yaml's round-trip loader 12 ms and its
composer 9 ms, PyYAML's C composer 0.4 ms, but that one recurses and has none of the above.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from crdt_sync.errors import SchemaProblem

MAX_TEXT_BYTES: Final = 256 * 1024
"""A hundred times a large schema. A schema travels as one record and is read at every open."""
MAX_DEPTH: Final = 32

_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

Scalar: TypeAlias = bool | int | float | str | None


@dataclass(slots=True)
class Node:
    """Where something stands; lines and columns count from 1."""

    line: int
    column: int


@dataclass(slots=True)
class ScalarNode(Node):
    value: Scalar


@dataclass(slots=True)
class ListNode(Node):
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class MapNode(Node):
    """`entries` has key node and value node by the key's text, in the order of the file."""

    entries: dict[str, tuple[ScalarNode, Node]] = field(default_factory=dict)

    def get(self, key: str) -> Node | None:
        entry = self.entries.get(key)
        return None if entry is None else entry[1]

    def key_node(self, key: str) -> Node:
        return self.entries[key][0]


class Problems:
    """Collects what is wrong in one file."""

    __slots__ = ("_end", "found", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[SchemaProblem] = []
        self._end: Node | None = None

    def end_at(self, text: str) -> None:
        """Remember where the text ends: the parser counts that end as a line of its own."""
        lines = _LINE_BREAK.split(text)
        self._end = Node(len(lines), len(lines[-1]) + 1)

    def add(self, where: Node, message: str) -> None:
        if self._end is not None and where.line > self._end.line:
            where = self._end
        self.found.append(SchemaProblem(self.source, where.line, where.column, message))

    def add_unless_said(self, where: Node, message: str) -> None:
        """For general checks: a problem that a closer look has named already is not named twice."""
        if all((problem.line, problem.column) != (where.line, where.column) for problem in self.found):
            self.add(where, message)


def plain(node: Node) -> Any:
    """The node as plain dicts, lists and scalars."""
    if isinstance(node, MapNode):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    assert isinstance(node, ScalarNode)
    return node.value


def node_at(root: Node, path: list[str | int]) -> Node:
    """The node at a path of keys and indexes, or the nearest above it."""
    for step in path:
        below: Node | None = None
        if isinstance(root, MapNode):
            below = root.get(str(step))
        elif isinstance(root, ListNode) and isinstance(step, int) and step < len(root.items):
            below = root.items[step]
        if below is None:
            break
        root = below
    return root


def read(text: str, problems: Problems) -> Node | None:
    """The tree of the one document in `text`; None after a problem that leaves no tree."""
    start = Node(1, 1)
    # Half a surrogate pair cannot be encoded; the C parser would raise an error of another kind.
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_TEXT_BYTES:
        problems.add(start, f"the file is larger than {MAX_TEXT_BYTES // 1024} KiB")
        return None
    bad = _UNREADABLE.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - (text.rfind("\n", 0, bad.start()) + 1) + 1
        problems.add(Node(line, column), f"the character U+{ord(bad.group()):04X} cannot stand in YAML")
        return None
    problems.end_at(text)
    builder = _Builder(problems)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if not builder.take(event):
                return None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = Node(mark.line + 1, mark.column + 1) if mark else start
        problems.add(where, f"not YAML: {exc.problem or exc.context or 'it cannot be read'}")
        return None
    except yaml.YAMLError:
        problems.add(start, "not YAML: it cannot be read")
        return None
    if builder.root is None:
        problems.add(start, "the file is empty")
    # Where an alias stood nothing stands now; more problems about that would only distract.
    return None if builder.has_references else builder.root


_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""libyaml where PyYAML was built with it (all its wheels are), else its slower twin in Python."""

_UNREADABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2 (section 5.1) does not count as printable."""


class _Builder:
    __slots__ = ("_keys", "_open", "has_references", "problems", "root")

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.root: Node | None = None
        self.has_references = False
        self._open: list[ListNode | MapNode] = []
        self._keys: list[ScalarNode | None] = []

    def take(self, event: Any) -> bool:
        """Add one event to the tree; False when nothing after it can be understood."""
        if isinstance(event, yaml.ScalarEvent):
            where = _start(event)
            self._check_properties(event, where)
            return self._put(ScalarNode(where.line, where.column, self._scalar(event, where)), event.value)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            return self._begin(event)
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            where = _start(event)
            self.has_references = True
            self.problems.add(where, "aliases (*name) are not supported; write it out")
            return self._put(ScalarNode(where.line, where.column, None), f"*{event.anchor}")
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            where = _start(event)
            self.problems.add(where, "a second document in one file; a file has one record type")
            return False
        return True

    def _begin(self, event: Any) -> bool:
        start = _start(event)
        is_map = isinstance(event, yaml.MappingStartEvent)
        node: ListNode | MapNode = (MapNode if is_map else ListNode)(start.line, start.column)
        self._check_properties(event, node)
        if len(self._open) == MAX_DEPTH:
            self.problems.add(node, f"nested more than {MAX_DEPTH} levels deep")
            return False
        if self._open and isinstance(self._open[-1], MapNode) and self._keys[-1] is None:
            self.problems.add(node, "a key must be a word, not a list or a mapping")
            return False
        self._put(node, None)
        self._open.append(node)
        self._keys.append(None)
        return True

    def _put(self, node: Node, text: str | None) -> bool:
        if not self._open:
            self.root = node
            return True
        parent = self._open[-1]
        if isinstance(parent, ListNode):
            parent.items.append(node)
            return True
        key = self._keys[-1]
        if key is None:
            assert isinstance(node, ScalarNode)
            # JSON has only text as keys, so `on:` and `1:` are the words they look like.
            node.value = text
            self._keys[-1] = node
            return True
        name = str(key.value)
        if name in parent.entries:
            first = parent.entries[name][0].line
            self.problems.add(key, f"{name!r} stands here a second time; it is on line {first} already")
        elif name == "<<":
            self.problems.add(key, "merge keys (<<) are not supported; write it out")
        else:
            parent.entries[name] = (key, node)
        self._keys[-1] = None
        return True

    def _check_properties(self, event: Any, where: Node) -> None:
        if event.anchor is not None:
            self.problems.add(where, "anchors (&name) are not supported")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.problems.add(where, f"tags ({tag}) are not supported")

    def _scalar(self, event: Any, where: Node) -> Scalar:
        if not event.implicit[0]:
            return str(event.value)
        try:
            return scalar(event.value)
        except ValueError as exc:
            self.problems.add(where, str(exc))
            return None


def _start(event: Any) -> Node:
    return Node(event.start_mark.line + 1, event.start_mark.column + 1)


_CORE: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def scalar(text: str) -> Scalar:
    """The value of a plain scalar by the YAML 1.2 core schema (section 10.3.2).

    Raises ValueError for numbers that JSON has not: infinities, NaN, beyond 64 bits.
    """
    if text in _CORE:
        return _CORE[text]
    if _INT.fullmatch(text):
        if len(text) > 24:
            raise ValueError("too large a whole number; 64 bits are the most")
        number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if not -(2**63) <= number < 2**63:
            raise ValueError("too large a whole number; 64 bits are the most")
        return number
    if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
        raise ValueError("not a finite number")
    return float(text) if _FLOAT.fullmatch(text) else text
