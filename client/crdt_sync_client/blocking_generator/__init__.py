"""Makes the modules in `blocking/generated/`, the blocking classes, from the source of the asynchronous ones.

    python -m crdt_sync_client.blocking_generator

A test compares the modules with what this makes, so they cannot drift apart. It begins at `Device` and takes
along the parts that it is made of and every class that a public method returns and that has something to be
awaited. Each stands in a module of the same name as the asynchronous one. Signatures, annotations and
docstrings are taken from the source as they stand, names are imported from where the source has them. What it
has no blocking counterpart for stops it with a message.

It stands outside `blocking/` so that it runs when the modules it makes are missing or out of date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .classes import class_source, create_source
from .source import HEAD, Source, module_of

OUT: Final = Path(__file__).parents[1] / "blocking" / "generated"


def generate() -> dict[str, str]:
    """The source of each file in `generated/`, by its name."""
    from crdt_sync_client.device import Device

    found: dict[str, type] = {"Device": Device}
    sources: dict[str, Source] = {}
    done = 0
    while done < len(found):  # making one may find others
        cls = list(found.values())[done]
        module = module_of(cls)
        source = sources.setdefault(module, Source(module, found))
        if cls is Device:
            source.texts.append(create_source(source, Device).rstrip())
        source.texts.append(class_source(source, cls))
        done += 1
    files = {f"{module.rpartition('.')[2]}.py": source.text() for module, source in sources.items()}
    return {"__init__.py": HEAD.split("\n", 1)[0] + "\n", **files}


def write() -> None:
    """Make the folder hold what `generate` gives, and no other module."""
    OUT.mkdir(exist_ok=True)
    files = generate()
    for path in OUT.glob("*.py"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (OUT / name).write_text(text, encoding="utf-8")
