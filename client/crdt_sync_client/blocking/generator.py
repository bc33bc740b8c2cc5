"""Makes `generated.py`, the blocking classes, from the source of the asynchronous ones.

    python -m crdt_sync_client.blocking.generator

A test compares the file with what this makes, so the two cannot drift apart. It begins at `Device` and takes
along every class that a public method there returns and that has something to be awaited. Signatures,
annotations and docstrings are taken from the source as they stand, names are imported from where the source
has them. What it has no blocking counterpart for stops it with a message.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

WIDTH: Final = 110
OUT: Final = Path(__file__).with_name("generated.py")

_HEAD: Final = '''"""The blocking classes; made by `python -m crdt_sync_client.blocking.generator`."""

from __future__ import annotations

'''
_CREATE: Final = '''class CreateDevice(Protocol):
{device}


class CreateRecord(Protocol):
{record}


class CreateMethod:
    """`Device.create(path, name=…)` makes a device, `device.create(type, values)` a record of it."""

    @overload
    def __get__(self, device: None, kind: type[Device]) -> CreateDevice: ...
    @overload
    def __get__(self, device: Device, kind: type[Device]) -> CreateRecord: ...
    def __get__(self, device: Device | None, kind: type[Device]) -> CreateDevice | CreateRecord:
        return kind._create_device if device is None else device._create_record
'''
_WORDS: Final = (
    (r"`async with", "`with"),
    (r"`async for", "`for"),
    (r"\bawait (?=[a-z]+\.)", ""),
    (r"an `await` for", "a wait for"),
    (r"[Aa]n asynchronous iterator", "An iterator"),
    (r"\b[Cc]alled in the event loop", "called in its own thread"),
    (r"\s*A (live query|watcher) belongs to the event loop that made it\.", ""),
)
"""How a docstring speaks of waiting, and how it does here."""


_INSIDE: Final = "made, self._background, self._kept()"
"""What a blocking class is made of, in a method of another."""


@dataclass(frozen=True)
class Member:
    """A public method, property or attribute and the module whose source it is in."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.AnnAssign
    module: str
    doc: str | None


@dataclass
class Source:
    """What is written so far."""

    classes: dict[str, type] = field(default_factory=dict)
    """Asynchronous classes by name, in the order they were met."""
    imports: dict[str, set[str]] = field(default_factory=dict)

    def use(self, module: str, name: str) -> None:
        self.imports.setdefault(module, set()).add(name)


def fail(what: str) -> NoReturn:
    raise SystemExit(f"blocking/generator.py: {what}: teach it")


def generate() -> str:
    """The source of `generated.py`."""
    from crdt_sync_client.device import Device

    source = Source(classes={"Device": Device})
    bodies: list[str] = []
    done = 0
    while done < len(source.classes):  # making one may find others
        cls = list(source.classes.values())[done]
        bodies.append(_class_source(source, cls))
        done += 1
    device, others = bodies[0], bodies[1:]
    create = _create_source(source, Device)
    return _HEAD + "\n\n\n".join([_imports(source), *others, create.rstrip(), device]) + "\n"


# Reading ------------------------------------------------------------------------------------------------


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """Every name the module imports, also for the type checker only: from where, and as what there."""
    found: dict[str, tuple[str, str]] = {}
    package = importlib.import_module(module).__package__ or ""
    nodes = [node for outer in _tree(module).body for node in (outer, *getattr(outer, "body", ()))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            home = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found.update({alias.asname or alias.name: (home, alias.name) for alias in node.names})
    return found


def _home(module: str, name: str) -> tuple[str, str] | None:
    """Where a name that the module uses is to be imported from; None for one that Python has itself."""
    if name in _imported(module):
        return _imported(module)[name]
    if hasattr(importlib.import_module(module), name):
        return module, name
    if hasattr(builtins, name):
        return None
    fail(f"{module} uses {name}, which it does not import by name")


def _value(module: str, name: str) -> Any:
    home = _home(module, name)
    return None if home is None else getattr(importlib.import_module(home[0]), home[1])


def _members(cls: type) -> Iterator[Member]:
    """As they stand in the source, those of base classes after those of the class."""
    seen: set[str] = set()
    for part in cls.__mro__:
        if not part.__module__.startswith("crdt_sync"):
            continue
        (node,) = (
            n for n in _tree(part.__module__).body if isinstance(n, ast.ClassDef) and n.name == part.__name__
        )
        for member in _members_of(node, part.__module__):
            known = member.name in seen
            seen.add(member.name)
            hidden = member.name.startswith("_") and member.name not in _SPECIAL
            if not known and not hidden and not (member.doc or "").startswith(_INNER):
                yield member


_INNER: Final = "Called by the hub"
"""So begins the docstring of a method that is public among our own modules only."""
_SPECIAL: Final = ("__anext__", "__aenter__", "_create_device", "_create_record")


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


def _awaits(value: Any) -> bool:
    """Whether it is a class of ours in which something public has to be awaited."""
    if not isinstance(value, type) or not value.__module__.startswith("crdt_sync_client"):
        return False
    public = [name for name in dir(value) if not name.startswith("_") or name in _SPECIAL]
    return any(inspect.iscoroutinefunction(inspect.getattr_static(value, name)) for name in public)


# Writing ------------------------------------------------------------------------------------------------


def _class_source(source: Source, cls: type) -> str:
    name = cls.__name__
    members = list(_members(cls))
    alias = f"Async{name}"
    if name == "Device":
        source.use("crdt_sync_client.blocking.wrapping", "BlockingDevice")
        base = "BlockingDevice"
    else:
        source.use(cls.__module__, f"{name} as {alias}")
        base = _base(source, members, alias)
    head = f"class {name}({base}):"
    if len(head) > WIDTH:
        head = f"class {name}(\n    {base}\n):"
    parts = [f"{head}\n{_doc(_own_doc(cls), 4)}"]
    parts += [text for member in members if (text := _member_source(source, cls, member))]
    return "\n\n".join(parts)


def _base(source: Source, members: list[Member], alias: str) -> str:
    by_name = {member.name: member for member in members}
    kinds = []
    if item := by_name.get("__anext__"):
        assert not isinstance(item.node, ast.AnnAssign)
        kinds.append(("BlockingIterator", f"{alias}, {_annotation(source, item.node.returns, item.module)}"))
    if "__aenter__" in by_name:
        kinds.append(("BlockingContext", alias))
    kinds = kinds or [("Blocking", alias)]
    for kind, _ in kinds:
        source.use("crdt_sync_client.blocking.wrapping", kind)
    return ", ".join(f"{kind}[{parameters}]" for kind, parameters in kinds)


def _own_doc(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or fail(f"{cls.__name__} has no docstring"))


def _member_source(source: Source, cls: type, member: Member) -> str:
    node, name = member.node, member.name
    if name in ("__anext__", "__aenter__"):
        return ""
    if name == "create" and cls.__name__ == "Device":
        return ""
    if isinstance(node, ast.AnnAssign):
        return _property(source, member, node.annotation)
    decorators = {ast.unparse(part) for part in node.decorator_list}
    if "property" in decorators:
        return _property(source, member, node.returns)
    if cls.__name__ == "Device" and name == "close":
        return f"    def close(self) -> None:\n{_doc(member.doc, 8)}\n        self._end()"
    text = _signature(source, node, member.module, "    ") + "\n" + _doc(member.doc, 8)
    arguments = ", ".join(_passed(node.args))
    if "classmethod" in decorators:
        called = name.removeprefix("_").removesuffix("_device")
        source.use("crdt_sync_client.device", "Device as AsyncDevice")
        begin = _call("cls._begin", f"AsyncDevice.{called}({arguments})", "return ")
        return f"    @classmethod\n{text}\n{begin}"
    if name == "_create_record":
        body = _body(source, cls, member, node, f"self._inner.create({arguments})")
        return f"{text}\n{body}\n\n    create = CreateMethod()"
    return f"{text}\n{_body(source, cls, member, node, f'self._inner.{name}({arguments})')}"


def _body(
    source: Source, cls: type, member: Member, node: ast.FunctionDef | ast.AsyncFunctionDef, called: str
) -> str:
    how = "self._run"
    if isinstance(node, ast.FunctionDef):
        how = (
            "self._call" if cls.__name__ == "Device" else "self._read"
        )  # to close a watch is always harmless
    if inspect.isasyncgenfunction(getattr(cls, member.name)):
        source.use("crdt_sync_client.blocking.wrapping", "BlockingGenerator")
        how, wrap = "self._call", "BlockingGenerator"
    else:
        wrap, shape = _wrapped(source, node.returns, member)
        if shape == "list":
            lines = _call(how, called, "found = ")
            return f"{lines}\n        return [{wrap}({_INSIDE}) for made in found]"
        if shape == "optional":
            lines = _call(how, called, "made = ")
            return f"{lines}\n        return None if made is None else {wrap}({_INSIDE})"
    if wrap:
        return f"{_call(how, called, 'made = ')}\n        return {wrap}({_INSIDE})"
    returns = "" if ast.unparse(node.returns or fail(member.name)) == "None" else "return "
    return _call(how, called, returns)


def _wrapped(source: Source, returns: ast.expr | None, member: Member) -> tuple[str, str]:
    """The blocking class of what is returned, if any, and whether it is one, a list or may be None."""
    awaiting = [name for name in _free_names(returns) if _awaits(_value(member.module, name))]
    if not awaiting:
        return "", ""
    (name,) = awaiting
    source.classes.setdefault(name, _value(member.module, name))
    text = ast.unparse(returns) if returns else ""
    for shape, pattern in (("one", name), ("list", f"list[{name}]"), ("optional", f"{name} | None")):
        if text == pattern:
            return name, shape
    fail(f"{member.name} returns {text}")


def _property(source: Source, member: Member, annotation: ast.expr | None) -> str:
    kind = _annotation(source, annotation, member.module)
    wrap, shape = _wrapped(source, annotation, member)
    head = f"    @property\n    def {member.name}(self) -> {kind}:"
    doc = _doc(member.doc, 8) if member.doc else ""
    read = f"self._read(lambda: self._inner.{member.name})"
    if wrap and shape == "one":
        read = f"{wrap}({read}, self._background, self._kept())"
    elif wrap:
        read = f"[{wrap}({_INSIDE}) for made in {read}]"
    return "\n".join(line for line in (head, doc, f"        return {read}") if line)


def _create_source(source: Source, device: type) -> str:
    for name in ("Protocol", "overload"):
        source.use("typing", name)
    texts = {}
    for member in _members(device):
        if member.name in ("_create_device", "_create_record"):
            assert not isinstance(member.node, ast.AnnAssign)
            text = _signature(source, member.node, member.module, "    ", name="__call__", first="self")
            texts[member.name.removeprefix("_create_")] = text + " ..."
    return _CREATE.format(**texts)


def _signature(
    source: Source,
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    module: str,
    indent: str,
    *,
    name: str = "",
    first: str = "",
) -> str:
    for default in (*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)):
        _annotation(source, default, module)
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if argument.annotation is not None:
            _annotation(source, argument.annotation, module)
    returns = _annotation(source, node.returns, module).replace("AsyncIterator[", "Iterator[")
    arguments = _arguments(node.args)
    if first:
        arguments[0] = first
    head, tail = f"{indent}def {name or node.name}(", f") -> {returns}:"
    line = head + ", ".join(arguments) + tail
    inner = indent + "    "
    if len(line) <= WIDTH:
        return line
    if len(inner + ", ".join(arguments)) <= WIDTH:
        return f"{head}\n{inner}{', '.join(arguments)}\n{indent}{tail}"
    return f"{head}\n" + "".join(f"{inner}{one},\n" for one in arguments) + indent + tail


def _arguments(args: ast.arguments) -> list[str]:
    """Each as it is written, with a bare star before those that have a name."""
    if args.vararg or args.kwarg or args.posonlyargs:
        fail(f"the arguments {ast.unparse(args)}")
    plain: list[str] = []
    defaults = [None] * (len(args.args) - len(args.defaults)) + list(args.defaults)
    for argument, default in zip(args.args, defaults, strict=True):
        plain.append(_argument(argument, default))
    if args.kwonlyargs:
        plain.append("*")
    for argument, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        plain.append(_argument(argument, default))
    return plain


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    value = "" if default is None else ast.unparse(default).replace("'", '"')
    return text if default is None else f"{text} = {value}"


def _passed(args: ast.arguments) -> list[str]:
    return [one.arg for one in args.args[1:]] + [f"{one.arg}={one.arg}" for one in args.kwonlyargs]


def _annotation(source: Source, node: ast.expr | None, module: str) -> str:
    """The annotation (or default) as written; what it names is imported."""
    if node is None:
        fail(f"a signature in {module} without a type")
    for name in _free_names(node):
        home = _home(module, name)
        if home is None:
            continue
        if name == "AsyncIterator":
            home = ("collections.abc", "Iterator")
        elif _awaits(_value(module, name)):
            source.classes.setdefault(name, _value(module, name))
            continue
        source.use(home[0], home[1] if home[1] == name or name == "AsyncIterator" else f"{home[1]} as {name}")
    return ast.unparse(node).replace("'", '"')


def _free_names(node: ast.expr | None) -> list[str]:
    """Names in it, each once; of a dotted one the first part."""
    found = [one.id for one in ast.walk(node) if isinstance(one, ast.Name)] if node is not None else []
    return list(dict.fromkeys(found))


def _call(how: str, called: str, before: str) -> str:
    line = f"        {before}{how}(lambda: {called})"
    if len(line) <= WIDTH:
        return line
    inner = f"            lambda: {called}"
    if len(inner) <= WIDTH:
        return f"        {before}{how}(\n{inner}\n        )"
    name, _, arguments = called.partition("(")
    each = "".join(f"                {one},\n" for one in arguments.removesuffix(")").split(", "))
    together = f"                {arguments.removesuffix(')')}\n"
    each = together if len(together) <= WIDTH + 1 else each
    return f"        {before}{how}(\n            lambda: {name}(\n{each}            )\n        )"


def _doc(text: str | None, indent: int) -> str:
    if text is None:
        return ""
    for pattern, instead in _WORDS:
        text = re.sub(pattern, instead, text)
    lines = text.splitlines()
    space = " " * indent
    if len(lines) == 1:
        return f'{space}"""{text}"""'
    rest = [space + line if line else "" for line in lines[1:]]
    return "\n".join([f'{space}"""{lines[0]}', *rest, f'{space}"""'])


def _imports(source: Source) -> str:
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    for module in sorted(source.imports):
        plain = sorted((name for name in source.imports[module] if " as " not in name), key=_isort_key)
        renamed = sorted(source.imports[module] - set(plain))
        relative = re.sub(r"^crdt_sync_client\.(blocking\.)?", lambda m: "." if m[1] else "..", module)
        group = groups[2 if relative != module else 1 if module.startswith("crdt_sync") else 0]
        for names in (plain, *([name] for name in renamed)):
            line = f"from {relative} import {', '.join(names)}"
            if len(line) > WIDTH:
                line = f"from {relative} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
            if names:
                group.append(line)
    groups[2].sort(key=_import_key)
    return "\n\n".join("\n".join(group) for group in groups if group)


def _import_key(line: str) -> tuple[bool, str, tuple[int, str]]:
    """Farther packages first, then by module, then by the first name, as ruff sorts."""
    module, _, names = line.partition(" import ")
    first = re.split(r"[, ]", names.lstrip("(\n "), maxsplit=1)[0]
    return not module.startswith("from .."), module, _isort_key(first)


def _isort_key(name: str) -> tuple[int, str]:
    """Constants, classes, functions, each by name: as ruff sorts."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


if __name__ == "__main__":
    OUT.write_text(generate(), encoding="utf-8")
    sys.stdout.write(f"{OUT.name} is made\n")
