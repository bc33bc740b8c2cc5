"""Rules by name: from what a schema says to a rule, or to an error its author can act on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from crdt_sync.roles import Role
from crdt_sync.rules.base import Rule, RuleError
from crdt_sync.rules.collections import Rows, SetRule
from crdt_sync.rules.counter import Counter
from crdt_sync.rules.extremes import Max, Min
from crdt_sync.rules.once import Once
from crdt_sync.rules.register import ClientWins, Manual, Register, ServerWins
from crdt_sync.rules.text import Text


def build_rule(
    name: str, options: Mapping[str, Any], json_type: str | Sequence[str], formats: Sequence[str] = ()
) -> Rule:
    """The rule `name` with its options, for a field of that JSON type (or one of several).

    `formats` are those that a text of the field may have, where each has one. Raises RuleError for an
    unknown rule or option, an option with a wrong value, and a rule that does not fit the type.
    """
    if name not in _BUILDERS:
        nearest = suggest(name)
        meant = f"; did you mean {nearest!r}?" if nearest else f"; the rules are {', '.join(RULE_NAMES)}"
        raise RuleError(f"there is no merge rule {name!r}{meant}")
    build, known = _BUILDERS[name]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise RuleError(f"rule {name!r} has no option {option!r}; {has}")
    _check_type(name, (json_type,) if isinstance(json_type, str) else tuple(json_type), formats)
    return build(options)


def suggest(name: str) -> str | None:
    """The rule whose name is nearest to a misspelt one, if any is near."""
    near = difflib.get_close_matches(name, RULE_NAMES, n=1, cutoff=0.5)
    return near[0] if near else None


def _check_type(name: str, types: tuple[str, ...], formats: Sequence[str]) -> None:
    fitting = _FITTING_TYPES.get(name)
    if fitting is None:
        return
    present = [json_type for json_type in types if json_type != "null"]
    if present and all(json_type in fitting for json_type in present):
        return
    moments = name in _COMPARING
    if moments and present == ["string"] and formats and set(formats) <= _MOMENTS:
        return
    wanted = " or ".join(fitting)
    if moments:
        wanted += ", or string with format date or date-time"
    raise RuleError(f"rule {name!r} needs a field of type {wanted}, not {' or '.join(types) or 'any type'}")


def _register(options: Mapping[str, Any]) -> Rule:
    return Register(prefer=_roles("register", "prefer", options), order=_values(options.get("order", [])))


def _roles(rule: str, option: str, options: Mapping[str, Any]) -> list[Role]:
    names = options.get(option, [])
    where = f"option {option!r} of rule {rule!r}"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RuleError(f"{where} is a list of roles, such as [supervisor, office]")
    roles: list[Role] = []
    for name in names:
        try:
            role = Role.parse(name)
        except ValueError as exc:
            raise RuleError(f"{where}: {exc}") from None
        if role is Role.READER:
            raise RuleError(f"{where}: a reader never writes")
        if role in roles:
            raise RuleError(f"{where} names {name!r} twice")
        roles.append(role)
    return roles


def _values(values: Any) -> list[Any]:
    if not isinstance(values, list) or any(isinstance(value, (list, dict)) for value in values):
        raise RuleError("option 'order' of rule 'register' is a list of plain values, the weakest first")
    seen = []
    for value in values:
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise RuleError(f"option 'order' of rule 'register' cannot hold a {type(value).__name__}")
        if (type(value), value) in seen:
            raise RuleError(f"option 'order' of rule 'register' names {value!r} twice")
        seen.append((type(value), value))
    return list(values)


def _flag(options: Mapping[str, Any], name: str) -> bool:
    flag = options.get(name, False)
    if not isinstance(flag, bool):
        raise RuleError(f"option {name!r} is true or false")
    return flag


_BUILDERS: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], Rule], tuple[str, ...]]]] = {
    "register": (_register, ("prefer", "order")),
    "client_wins": (lambda _: ClientWins(), ()),
    "server_wins": (lambda _: ServerWins(), ()),
    "manual": (lambda _: Manual(), ()),
    "set": (lambda options: SetRule(remove_wins=_flag(options, "remove_wins")), ("remove_wins",)),
    "rows": (lambda options: Rows(remove_wins=_flag(options, "remove_wins")), ("remove_wins",)),
    "counter": (lambda _: Counter(), ()),
    "max": (lambda _: Max(), ()),
    "min": (lambda _: Min(), ()),
    "once": (lambda options: Once(correct=_roles("once", "correct", options)), ("correct",)),
    "text": (lambda _: Text(), ()),
}

RULE_NAMES: Final = tuple(_BUILDERS)

_FITTING_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "set": ("array",),
    "rows": ("object",),
    "counter": ("integer", "number"),
    "max": ("integer", "number"),
    "min": ("integer", "number"),
    "text": ("string",),
}
_COMPARING: Final = ("max", "min")
_MOMENTS: Final = frozenset({"date", "date-time"})
