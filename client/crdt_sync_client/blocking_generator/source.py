"""A module that is being written, and what it imports."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

WIDTH: Final = 110
PACKAGE: Final = "crdt_sync_client.blocking.generated"

TYPE_VARIABLE: Final = "W"
"""What a part is a group of methods of."""

HEAD: Final = '''"""The blocking classes; made by `python -m crdt_sync_client.blocking_generator`."""

from __future__ import annotations

'''


@dataclass
class Source:
    """One module that is being written. `found` are the asynchronous classes met, by name, of all modules."""

    module: str
    found: dict[str, type]
    imports: dict[str, set[str]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def use(self, module: str, name: str) -> None:
        if module != self.module:
            self.imports.setdefault(module, set()).add(name)

    def make_use(self, cls: type) -> None:
        """The blocking class of that one is named here."""
        self.found.setdefault(cls.__name__, cls)
        self.use(module_of(cls), cls.__name__)

    def text(self) -> str:
        lines = 1 if self.texts[0].startswith(f"{TYPE_VARIABLE} = ") else 2
        return HEAD + imports(self) + "\n" * (lines + 1) + "\n\n\n".join(self.texts) + "\n"


def module_of(cls: type) -> str:
    return f"{PACKAGE}.{cls.__module__.rpartition('.')[2]}"


def imports(source: Source) -> str:
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    for module in sorted(source.imports):
        plain = sorted((name for name in source.imports[module] if " as " not in name), key=_isort_key)
        renamed = sorted(source.imports[module] - set(plain))
        relative = _relative(module)
        group = groups[2 if relative != module else 1 if module.startswith("crdt_sync") else 0]
        for names in (plain, *([name] for name in renamed)):
            line = f"from {relative} import {', '.join(names)}"
            if len(line) > WIDTH:
                line = f"from {relative} import (\n" + "".join(f"    {name},\n" for name in names) + ")"
            if names:
                group.append(line)
    groups[2].sort(key=_import_key)
    return "\n\n".join("\n".join(group) for group in groups if group)


def _relative(module: str) -> str:
    """As a module in `generated/` imports it."""
    for package, dots in ((PACKAGE, "."), (PACKAGE.rpartition(".")[0], ".."), ("crdt_sync_client", "...")):
        if module.startswith(f"{package}."):
            return dots + module.removeprefix(f"{package}.")
    return module


def _import_key(line: str) -> tuple[int, str, tuple[int, str]]:
    """Farther packages first, then by module, then by the first name, as ruff sorts."""
    module, _, names = line.removeprefix("from ").partition(" import ")
    first = re.split(r"[, ]", names.lstrip("(\n "), maxsplit=1)[0]
    name = module.lstrip(".")
    return len(name) - len(module), name, _isort_key(first)


def _isort_key(name: str) -> tuple[int, str]:
    """Constants, classes, functions, each by name: as ruff sorts."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name
