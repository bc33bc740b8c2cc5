"""How the `simulate` commands say that they cannot run: as all commands do, with exit codes of their own."""

from __future__ import annotations

import json
from typing import Any

import click


def complain(code: str, message: str, *, as_json: bool, hint: str = "", **more: Any) -> None:
    """`error: what. why. what to do` on standard error, and with `--json` an object on a line after it."""
    lines = f"{message}. {hint}" if hint and "\n" not in message else message
    click.echo(click.style("error:", fg="red", bold=True) + f" {lines}", err=True)
    if as_json:
        body = {"code": code, "message": message, "hint": hint, **more}
        click.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
