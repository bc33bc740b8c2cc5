"""Signatures, docstrings and calls, laid out as the formatter would."""

from __future__ import annotations

import ast
import re
from typing import Final

from .reading import awaits, fail, home_of, value_of
from .source import WIDTH, Source

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


def signature_lines(
    source: Source,
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    module: str,
    indent: str,
    *,
    name: str = "",
    first: str = "",
) -> str:
    for default in (*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)):
        annotation_text(source, default, module)
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if argument.annotation is not None:
            annotation_text(source, argument.annotation, module)
    returns = annotation_text(source, node.returns, module).replace("AsyncIterator[", "Iterator[")
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


def passed_on(args: ast.arguments) -> list[str]:
    return [one.arg for one in args.args[1:]] + [f"{one.arg}={one.arg}" for one in args.kwonlyargs]


def annotation_text(source: Source, node: ast.expr | None, module: str) -> str:
    """The annotation (or default) as written; what it names is imported."""
    if node is None:
        fail(f"a signature in {module} without a type")
    for name in free_names(node):
        home = home_of(module, name)
        if home is None:
            continue
        if name == "AsyncIterator":
            home = ("collections.abc", "Iterator")
        elif awaits(value_of(module, name)):
            source.make_use(value_of(module, name))
            continue
        source.use(home[0], home[1] if home[1] == name or name == "AsyncIterator" else f"{home[1]} as {name}")
    return ast.unparse(node).replace("'", '"')


def free_names(node: ast.expr | None) -> list[str]:
    """Names in it, each once; of a dotted one the first part."""
    found = [one.id for one in ast.walk(node) if isinstance(one, ast.Name)] if node is not None else []
    return list(dict.fromkeys(found))


def call_lines(how: str, called: str, before: str) -> str:
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


def doc_lines(text: str | None, indent: int) -> str:
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
