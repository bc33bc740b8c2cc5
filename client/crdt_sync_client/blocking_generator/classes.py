"""The text of a blocking class: each public member of the asynchronous one, run in its thread."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from typing import Final

from .reading import Member, awaits, fail, is_part, members, parts_of, value_of
from .signatures import annotation_text, call_lines, doc_lines, free_names, passed_on, signature_lines
from .source import TYPE_VARIABLE, WIDTH, Source

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
_INSIDE: Final = "made, self._background, self._kept()"
"""What a blocking class is made of, in a method of another."""


def class_source(source: Source, cls: type) -> str:
    name, alias = cls.__name__, f"Async{cls.__name__}"
    own = list(members(cls))
    source.use(cls.__module__, f"{name} as {alias}")
    before, inner = "", alias
    if is_part(cls):
        before, inner = f'{TYPE_VARIABLE} = TypeVar("{TYPE_VARIABLE}", bound={alias})\n\n\n', TYPE_VARIABLE
        source.use("typing", "TypeVar")
        if any(text.startswith(before) for text in source.texts):
            fail(f"two parts in {cls.__module__}")
    bases = [f"{part.__name__}[{inner}]" for part in parts_of(cls)]
    for part in parts_of(cls):
        source.make_use(part)
    bases += _kinds(source, own, inner, name, alone=not (bases and is_part(cls)))
    head = f"class {name}({', '.join(bases)}):"
    if len(head) > WIDTH:
        together = f"    {', '.join(bases)}\n"
        each = together if len(together) <= WIDTH + 1 else "".join(f"    {base},\n" for base in bases)
        head = f"class {name}(\n{each}):"
    parts = [f"{before}{head}\n{doc_lines(_own_doc(cls), 4)}"]
    parts += [text for member in own if (text := _member_source(source, cls, member))]
    return "\n\n".join(parts)


def _kinds(source: Source, own: list[Member], inner: str, name: str, *, alone: bool) -> list[str]:
    """What of `wrapping` the class is. `alone`: its parts are not that already."""
    if name == "Device":
        source.use("crdt_sync_client.blocking.wrapping", "BlockingDevice")
        return ["BlockingDevice"]
    by_name = {member.name: member for member in own}
    kinds = []
    if item := by_name.get("__anext__"):
        assert not isinstance(item.node, ast.AnnAssign)
        kinds.append(
            ("BlockingIterator", f"{inner}, {annotation_text(source, item.node.returns, item.module)}")
        )
    if "__aenter__" in by_name:
        kinds.append(("BlockingContext", inner))
    if dataclasses.is_dataclass(source.found.get(name)):
        kinds.append(("BlockingValue", inner))
    if alone:
        kinds = kinds or [("Blocking", inner)]
    for kind, _ in kinds:
        source.use("crdt_sync_client.blocking.wrapping", kind)
    return [f"{kind}[{parameters}]" for kind, parameters in kinds]


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
        return f"    def close(self) -> None:\n{doc_lines(member.doc, 8)}\n        self._end()"
    text = signature_lines(source, node, member.module, "    ") + "\n" + doc_lines(member.doc, 8)
    arguments = ", ".join(passed_on(node.args))
    if "classmethod" in decorators:
        called = name.removeprefix("_").removesuffix("_device")
        source.use("crdt_sync_client.device", "Device as AsyncDevice")
        begin = call_lines("cls._begin", f"AsyncDevice.{called}({arguments})", "return ")
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
        # To close a watch is always harmless.
        how = "self._call" if cls.__name__ == "Device" or is_part(cls) else "self._read"
    if inspect.isasyncgenfunction(getattr(cls, member.name)):
        source.use("crdt_sync_client.blocking.wrapping", "BlockingGenerator")
        how, wrap = "self._call", "BlockingGenerator"
    else:
        wrap, shape = _wrapped(source, node.returns, member)
        if shape == "list":
            lines = call_lines(how, called, "found = ")
            return f"{lines}\n        return [{wrap}({_INSIDE}) for made in found]"
        if shape == "optional":
            lines = call_lines(how, called, "made = ")
            return f"{lines}\n        return None if made is None else {wrap}({_INSIDE})"
    if wrap:
        return f"{call_lines(how, called, 'made = ')}\n        return {wrap}({_INSIDE})"
    returns = "" if ast.unparse(node.returns or fail(member.name)) == "None" else "return "
    return call_lines(how, called, returns)


def _wrapped(source: Source, returns: ast.expr | None, member: Member) -> tuple[str, str]:
    """The blocking class of what is returned, if any, and whether it is one, a list or may be None."""
    awaiting = [name for name in free_names(returns) if awaits(value_of(member.module, name))]
    if not awaiting:
        return "", ""
    (name,) = awaiting
    source.make_use(value_of(member.module, name))
    text = ast.unparse(returns) if returns else ""
    for shape, pattern in (("one", name), ("list", f"list[{name}]"), ("optional", f"{name} | None")):
        if text == pattern:
            return name, shape
    return fail(f"{member.name} returns {text}")


def _property(source: Source, member: Member, annotation: ast.expr | None) -> str:
    kind = annotation_text(source, annotation, member.module)
    wrap, shape = _wrapped(source, annotation, member)
    head = f"    @property\n    def {member.name}(self) -> {kind}:"
    doc = doc_lines(member.doc, 8) if member.doc else ""
    read = f"self._read(lambda: self._inner.{member.name})"
    if wrap and shape == "one":
        read = f"{wrap}({read}, self._background, self._kept())"
    elif wrap:
        doc = "\n".join(line for line in (doc, f"        found = {read}") if line)
        read = f"[{wrap}({_INSIDE}) for made in found]"
    return "\n".join(line for line in (head, doc, f"        return {read}") if line)


def create_source(source: Source, device: type) -> str:
    for name in ("Protocol", "overload"):
        source.use("typing", name)
    texts = {}
    for member in members(device):
        if member.name in ("_create_device", "_create_record"):
            assert not isinstance(member.node, ast.AnnAssign)
            text = signature_lines(source, member.node, member.module, "    ", name="__call__", first="self")
            texts[member.name.removeprefix("_create_")] = text + " ..."
    return _CREATE.format(**texts)
