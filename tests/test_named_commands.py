"""Every command that the documents, the hints of errors and the code name is there, with its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from crdt_sync_client.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("crdt_sync", "client", "server", "simulations", "demo", "docs", "schemas")
NAMED = re.compile(
    r"(?:^|(?<=[`'\"(])|(?<=[$:;,] ))(?<!b\")"
    r"crdt-sync((?: (?:[a-z][a-z|-]*|--[a-z-]+|[A-Z…][A-Z_]*|'[^']*'))+)",
    re.MULTILINE,
)
"""A command as one would type it: where a line or a quotation begins."""


def texts() -> Iterator[Path]:
    yield ROOT / "README.md"
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.md"))
        yield from sorted((ROOT / folder).rglob("*.py"))


def wrong_in(words: list[str]) -> str | None:
    """What there is not; `a|b` names both."""
    known: list[click.Command] = [cli]
    context = click.Context(cli)
    for place, word in enumerate(words):
        groups = [each for each in known if isinstance(each, click.Group)]
        if not groups or not word[0].islower():
            rest = words[place:]
            break
        found = [group.get_command(context, name) for group in groups for name in word.split("|")]
        known = [each for each in found if each is not None]
        if len(known) < len(word.split("|")):
            return f"no command {' '.join(words[: place + 1])!r}"
    else:
        rest = []
    options = {name for each in known for option in each.params for name in option.opts} | {"--help"}
    missing = [word for word in rest if word.startswith("--") and word not in options]
    return f"{' '.join(words)!r} has no {missing[0]}" if missing else None


def test_what_is_named_is_there() -> None:
    assert wrong_in(["conflicts", "list"]) == "no command 'conflicts list'"
    assert wrong_in(["conflicts", "ls", "--newest"]) == "'conflicts ls --newest' has no --newest"
    assert wrong_in(["space", "off|on|leave"]) is None
    seen, wrong = 0, []
    for path in texts():
        text = path.read_text(encoding="utf-8")
        for match in NAMED.finditer(text):
            seen += 1
            problem = wrong_in(match[1].split())
            if problem:
                wrong.append(
                    f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {problem}"
                )
    assert wrong == []
    assert seen > 300, "the pattern finds them"
