"""Where a setting's value comes from: a flag, the environment, a TOML file, or its default; in that order.

click keeps the order and knows the source; what it does not know is lines of a file: they are looked up here.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from crdt_sync_server.setting_types import Secret
from crdt_sync_server.settings import BY_NAME, CHECK, ENV_PREFIX, SETTINGS, Setting, SettingError

F = TypeVar("F", bound=Callable[..., Any])


# The file


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file that was read: each value in the form its setting has, and the line on which it stands."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]


def read_file(path: Path) -> SettingsFile:
    """Read a TOML file. Raises SettingError that names file, line, key, and what would be allowed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise SettingError(
            f"{path} cannot be read: {why}", hint="check the path given with --config"
        ) from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(exc))
        where = f"{path}:{at[1]}:{at[2]}" if at else str(path)
        what = str(exc).split(" (at ")[0]
        raise SettingError(
            f"{where}: not TOML: {what}", hint='a line is `name = value`, text in "quotes"'
        ) from None
    lines = {name: _line_of(text, name) for name in table}
    values: dict[str, Any] = {}
    for name, raw in table.items():
        where = f"{path}:{lines[name]}"
        setting = BY_NAME.get(name)
        if setting is None:
            raise SettingError(f"{where}: {name} is no setting of the relay{_meant(name)}", hint=CHECK)
        values[name] = _converted(setting, raw, where)
    return SettingsFile(path, values, lines)


def _converted(setting: Setting, raw: Any, where: str) -> Any:
    strict = isinstance(setting.type, click.types.BoolParamType) and not isinstance(raw, bool)
    if strict or isinstance(raw, bool) is not isinstance(setting.type, click.types.BoolParamType):
        allowed = "true or false" if strict else "a number or text"
        raise SettingError(f"{where}: {setting.name}: {raw!r} is not {allowed}", hint=CHECK)
    if not isinstance(raw, str | int | bool):
        raise SettingError(f"{where}: {setting.name}: a {type(raw).__name__} is no value for it", hint=CHECK)
    if isinstance(raw, int) and isinstance(setting.type, click.types.StringParamType | click.Path | Secret):
        raise SettingError(f"{where}: {setting.name}: text is wanted, in quotes", hint=CHECK)
    try:
        return setting.type.convert(raw, None, None)
    except click.BadParameter as exc:
        raise SettingError(f"{where}: {setting.name}: {exc.message.rstrip('.')}", hint=CHECK) from None


def _line_of(text: str, name: str) -> int:
    pattern = re.compile(rf"""\s*(\[+\s*)?["']?{re.escape(name)}["']?\s*([=.\]])""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return number
    return 1


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, BY_NAME, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(BY_NAME)}"


# Options


class _Option(click.Option):
    """Says which variable a wrong value came from."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        if (
            ctx is not None
            and self.name
            and ctx.get_parameter_source(self.name) is ParameterSource.ENVIRONMENT
        ):
            return str(self.envvar)
        source = None if ctx is None else ctx.get_parameter_source(str(self.name))
        if self.required and source in (None, ParameterSource.DEFAULT):
            return f"'{self.opts[0]}' (or {self.envvar}, or `{self.name}` in the file of --config)"
        return super().get_error_hint(ctx)


def setting_options(*names: str) -> Callable[[F], F]:
    """Add `--config` and the named settings (all of them without a name) as options of a command."""
    chosen = [BY_NAME[name] for name in names] or list(SETTINGS)

    def decorate(command: F) -> F:
        for setting in reversed(chosen):
            required = setting.name == "data"
            # A default of None would count as given.
            given: dict[str, Any] = {"required": True} if required else {"default": setting.default}
            command = click.option(
                setting.flag, setting.name, cls=_Option, type=setting.type, envvar=setting.env,
                help=_help(setting), metavar="DIR" if required else None, **given,
            )(command)  # fmt: skip
        return click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            envvar=f"{ENV_PREFIX}CONFIG",
            is_eager=True,
            expose_value=False,
            callback=_load,
            metavar="FILE",
            help="A TOML file with any of these settings.",
        )(command)

    return decorate


def _help(setting: Setting) -> str:
    shown = "" if setting.default is None else f"  [default: {setting.show(setting.default)}]"
    return setting.help + shown


def _load(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    known = {setting.env for setting in SETTINGS} | {f"{ENV_PREFIX}CONFIG"}
    for variable in sorted(os.environ):
        if variable.startswith(ENV_PREFIX) and variable not in known:
            name = variable.removeprefix(ENV_PREFIX).lower()
            raise SettingError(f"{variable}: no setting of the relay{_meant(name)}", hint=CHECK)
    if path is not None:
        file = read_file(path)
        ctx.meta[_FILE] = file
        ctx.default_map = dict(file.values)


_FILE: Final = f"{__name__}.file"


def origin_of(ctx: click.Context, name: str) -> str:
    """Where a command's value came from: `flag`, a variable, `FILE:LINE`, or `default`."""
    source = ctx.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return "flag"
    if source is ParameterSource.ENVIRONMENT:
        return BY_NAME[name].env
    if source is ParameterSource.DEFAULT_MAP:
        file: SettingsFile = ctx.meta[_FILE]
        return f"{file.path}:{file.lines[name]}"
    return "default"
