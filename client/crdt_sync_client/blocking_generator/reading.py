"""The asynchronous classes as their source has them: members, names and where names come from."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NoReturn


def fail(what: str) -> NoReturn:
    raise SystemExit(f"blocking_generator: {what}: teach it")


@dataclass(frozen=True)
class Member:
    """A public method, property or attribute and the module whose source it is in."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign
    module: str
    doc: str | None


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """Every name the module imports, also for the type checker only: from where, and as what there."""
    found: dict[str, tuple[str, str]] = {}
    package = importlib.import_module(module).__package__ or ""
    nodes = [node for outer in tree(module).body for node in (outer, *getattr(outer, "body", ()))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            home = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found.update({alias.asname or alias.name: (home, alias.name) for alias in node.names})
    return found


def home_of(module: str, name: str) -> tuple[str, str] | None:
    """Where a name that the module uses is to be imported from; None for one that Python has itself."""
    if name in _imported(module):
        return _imported(module)[name]
    if hasattr(importlib.import_module(module), name):
        return module, name
    if hasattr(builtins, name):
        return None
    fail(f"{module} uses {name}, which it does not import by name")


def value_of(module: str, name: str) -> Any:
    home = home_of(module, name)
    return None if home is None else getattr(importlib.import_module(home[0]), home[1])


def is_part(cls: type) -> bool:
    """Whether it is one of the groups of methods that `Device` is made of."""
    from crdt_sync_client.device import Device
    from crdt_sync_client.device_part import StorePart

    return issubclass(cls, StorePart) and issubclass(Device, cls) and cls is not Device


def parts_of(cls: type) -> list[type]:
    """The bases that are parts and have something public."""
    return [
        base
        for base in cls.__bases__
        if is_part(base) and (parts_of(base) or any(True for _ in members(base)))
    ]


def members(cls: type) -> Iterator[Member]:
    """As they stand in the source, those of base classes after those of the class; not those of parts."""
    seen: set[str] = set()
    for part in cls.__mro__:
        if not part.__module__.startswith("crdt_sync") or (part is not cls and is_part(part)):
            continue
        (node,) = (
            n for n in tree(part.__module__).body if isinstance(n, ast.ClassDef) and n.name == part.__name__
        )
        for member in _members_of(node, part.__module__):
            known = member.name in seen
            seen.add(member.name)
            hidden = member.name.startswith("_") and member.name not in SPECIAL
            asked = is_part(cls) and _is_asked_of_others(member.node)
            if not known and not hidden and not asked and not (member.doc or "").startswith(_INNER):
                yield member


def _is_asked_of_others(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign) -> bool:
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return "abstractmethod" in {ast.unparse(part) for part in node.decorator_list}


_INNER: Final = "Called by the hub"
"""So begins the docstring of a method that is public among our own modules only."""
SPECIAL: Final = ("__anext__", "__aenter__", "_create_device", "_create_record")


def _members_of(node: ast.ClassDef, module: str) -> Iterator[Member]:
    for part, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Member(part.name, part, module, ast.get_docstring(part))
            if part.name == "__init__":
                yield from _attributes(part, module)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            yield Member(part.target.id, part, module, _text(after))


def _attributes(init: ast.FunctionDef | ast.AsyncFunctionDef, module: str) -> Iterator[Member]:
    for part, after in zip(init.body, [*init.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Attribute):
            yield Member(part.target.attr, part, module, _text(after))


def _text(node: ast.stmt | None) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return inspect.cleandoc(str(node.value.value))
    return None


def awaits(value: Any) -> bool:
    """Whether it is a class of ours in which something public has to be awaited."""
    if not isinstance(value, type) or not value.__module__.startswith("crdt_sync_client"):
        return False
    public = [name for name in dir(value) if not name.startswith("_") or name in SPECIAL]
    return any(inspect.iscoroutinefunction(inspect.getattr_static(value, name)) for name in public)
