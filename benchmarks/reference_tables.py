"""The pages of reference that are made from the code: the commands with their options, and the operators of the App."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.record import markdown_table

OPERATORS = Path(__file__).resolve().parents[1] / "operators"


def commands_reference() -> str:
    """Each command that the help lists: its description, its arguments and its options with their defaults."""
    from typer.main import get_command

    from audit_plugin.cli import app

    lines: list[str] = []
    for name, command in _commands(get_command(app), ()):
        lines += [f"## {name}", "", inspect.cleandoc(command.help or "").replace("\b\n", ""), ""]
        rows = [row for parameter in command.params if (row := _parameter_row(parameter))]
        lines += [*markdown_table(("option", "meaning", "default"), rows), ""] if rows else []
    return "\n".join(lines).rstrip()


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(name, command) of all commands below one, in the order of the help; of groups, those that do something alone."""
    for name, child in command.commands.items():
        if child.hidden:
            continue
        if not hasattr(child, "commands") or child.invoke_without_command:
            yield " ".join((*path, name)), child
        if hasattr(child, "commands"):
            yield from _commands(child, (*path, name))


def _parameter_row(parameter: Any) -> tuple[str, str, str] | None:
    """Names, meaning and default of an argument or option; None of one that the help does not show."""
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return None
    is_argument = parameter.param_type_name == "argument"
    names = parameter.name.upper() if is_argument else ", ".join((*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    shown = "" if default is None or default is False or default == [] or callable(default) else str(default)
    if parameter.required:
        shown = "required"
    meaning = " ".join((getattr(parameter, "help", None) or "").split())
    return f"`{names}`", meaning.replace("|", "\\|"), shown and (shown if shown == "required" else f"`{shown}`")


def operators_table() -> str:
    """The operators that the App lists: label, name for scripts, and what they do."""
    rows = sorted((label, f"`{name}`", text) for name, label, text, is_listed in _listings() if is_listed)
    return "\n".join(markdown_table(("in the App", "operator", "what it does"), rows))


def _listings() -> Iterator[tuple[str, str, str, bool]]:
    """(name, label, description, whether it is listed) of each operator, by its source, without FiftyOne."""
    for path in sorted(OPERATORS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "operator_config":
                if not all(isinstance(argument, ast.Constant) for argument in node.args):
                    continue  # former names, which are not listed
                name, label, _, _, text = (ast.literal_eval(argument) for argument in node.args)
                options = {keyword.arg for keyword in node.keywords}
                yield name, label, text, "unlisted" not in options
