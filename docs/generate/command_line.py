"""The commands, their options, and how they end."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, ParameterInfo

from generate.markdown import code, prose, table
from orchestrator.cli import main as cli


def command_line_page() -> str:
    """Return every command with its arguments and options, from what typer reads: the functions' annotations."""
    sections = [
        "# Command line\n\n`python -m orchestrator` and `continual-sweep` are the same. "
        "[Exit codes](exit-codes.md) say how a command ended. Every command has `--help`.\n"
    ]
    main = cli.app.registered_callback
    if main is not None and main.callback is not None:
        sections.append(table(["option", "default", "meaning"], _options(main.callback)))
    for command in cli.app.registered_commands:
        assert command.callback is not None
        rows = _options(command.callback)
        lines = [
            f"## {command.name or command.callback.__name__}",
            prose(inspect.cleandoc(command.callback.__doc__ or "")),
        ]
        lines += [table(["argument or option", "default", "meaning"], rows)] if rows else []
        sections.append("\n\n".join(lines) + "\n")
    return "\n".join(sections)


def _options(command: Callable[..., Any]) -> list[list[str]]:
    """Return the names, the default and the meaning of each parameter of a command."""
    hints = get_type_hints(command, include_extras=True)
    rows = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *extras = (
            get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name], parameter.default)
        )
        info = next(extra for extra in extras if isinstance(extra, ParameterInfo))
        if not getattr(info, "hidden", False):
            rows.append(
                _option(name, info, kind, None if isinstance(parameter.default, ParameterInfo) else parameter.default)
            )
    return rows


def _option(name: str, info: ParameterInfo, kind: Any, default: Any) -> list[str]:
    words = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
    plain = [
        part
        for part in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))
        if part is not type(None)
    ]
    inner = get_args(plain[0])[0] if get_origin(plain[0]) is list else plain[0]
    value = info.metavar or ("|".join(get_args(inner)) if get_origin(inner) is Literal else words.get(inner, ""))
    if isinstance(info, ArgumentInfo):
        names = info.metavar or f"[{name.upper()}]"
    else:
        first = (info.default,) if isinstance(info.default, str) and info.default.startswith("-") else ()
        names = f"{', '.join([*first, *(info.param_decls or ())]) or '--' + name.replace('_', '-')} {value}".strip()
    meaning = info.help or ""
    if info.envvar:
        meaning += f" Environment variable: `{info.envvar}`."
    if get_origin(plain[0]) is list:
        meaning += " May be given several times."
    bare = default is None or default is False or default is inspect.Parameter.empty
    return [code(names), "" if bare else code(default), prose(meaning)]


def exit_codes_page() -> str:
    """Return what the exit codes mean, from the command line's own epilog."""
    found = re.findall(r"(\d+) (.*?)(?=, \d|\.?$)", str(cli.app.info.epilog).partition(": ")[2])
    if len(found) < 5:
        raise ValueError(f"expected the exit codes in the epilog of the command line, got {cli.app.info.epilog!r}")
    rows = [[code(number), re.sub(r"--[a-z-]+", lambda option: code(option[0]), meaning)] for number, meaning in found]
    return f"# Exit codes\n\n{table(['code', 'meaning'], rows)}\nThe same for every command.\n"
