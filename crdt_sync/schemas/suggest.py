"""The nearest name to a misspelt one, for messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST_COMPARED = 100
"""difflib takes quadratic time; a longer word is no misspelling of a name."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`; did you mean 'title'?`, or nothing when no name is near."""
    if not isinstance(word, str) or len(word) > _LONGEST_COMPARED:
        return ""
    near = get_close_matches(word, list(names), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
