"""The page of all commands and flags, made from the commands themselves."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

import click

from tabor.cli import cli

_HEAD = """# Commands and flags

Made from what `tabor COMMAND --help` says. A flag with a variable is also read from it, and from the TOML file
that `--config` names, by its name without `--`; the flag wins over the variable, and both over the file.

"""


def page() -> str:
    """Markdown with every command, argument and flag."""
    with click.Context(cli, info_name="tabor") as ctx:
        return _HEAD + "\n".join(_command(cli, ctx, "tabor"))


def _command(command: click.Command, ctx: click.Context, path: str) -> Iterator[str]:
    if not isinstance(command, click.Group):
        arguments = [p.make_metavar(ctx) for p in command.params if isinstance(p, click.Argument)]
        yield f"## {path}\n"
        yield f"```text\n{' '.join([path, '[OPTIONS]', *arguments])}\n```\n"
        yield from _prose(command.help or "")
        yield from _flags(command, ctx)
        return
    for name in command.list_commands(ctx):
        inner = command.get_command(ctx, name)
        if inner is not None and not inner.hidden:
            yield from _command(inner, click.Context(inner, parent=ctx, info_name=name), f"{path} {name}")


def _prose(text: str) -> Iterator[str]:
    """Help as click has it: paragraphs, of which those after a line with \\b keep their lines."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        kept = paragraph.startswith("\b\n")
        yield f"```text\n{textwrap.dedent(paragraph[2:])}\n```\n" if kept else f"{_plain(paragraph)}\n"


def _flags(command: click.Command, ctx: click.Context) -> Iterator[str]:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if not options:
        return
    yield "| flag | variable | default | |\n|---|---|---|---|"
    for option in options:
        yield f"| {' | '.join(_cell(text) for text in _row(option, ctx))} |"
    yield ""


def _row(option: click.Option, ctx: click.Context) -> tuple[str, ...]:
    takes = "" if option.is_flag else f" {option.make_metavar(ctx)}"
    names = ", ".join((*option.opts, *option.secondary_opts))
    variable = f"`{option.envvar}`" if option.envvar else ""
    extra = option.get_help_extra(ctx)
    default = "required" if option.required else str(extra.get("default", "")).strip("()")
    return f"`{names}{takes}`", variable, default, _plain(option.help or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("{", "&#123;")
