"""Where the value of an option comes from: the flag, else TABOR_*, else the TOML file, else the default."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from common.log.url import redact
from tabor.values import DURATION_MS, Address, format_duration

F = TypeVar("F", bound=Callable[..., Any])

_SOURCES = {
    "COMMANDLINE": "flag",
    "ENVIRONMENT": "environment",
    "DEFAULT_MAP": "config file",
    "DEFAULT": "default",
}


def option(*names: str, **attributes: Any) -> Callable[[F], F]:
    """A click option that also reads TABOR_<NAME> and shows its default."""
    long_name = next(name for name in names if name.startswith("--"))
    attributes.setdefault("envvar", "TABOR_" + long_name[2:].upper().replace("-", "_"))
    attributes.setdefault("show_default", True)
    attributes.setdefault("show_envvar", True)
    return click.option(*names, **attributes)


def config_option(command: F) -> F:
    """`--config FILE`: a TOML file whose keys are the names of flags."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="TABOR_CONFIG",
        show_envvar=True,
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help='TOML file with flags by name, e.g. data-dir = "/var/lib/tabor".',
    )(command)


def _load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"cannot read {path}: {error.strerror}", ctx, param) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not TOML: {error}", ctx, param) from None
    known = {p.name: p for p in ctx.command.params if p.name not in (None, "config", "help")}
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            flags = ", ".join(sorted(str(n).replace("_", "-") for n in known))
            raise click.BadParameter(f"{path} has the unknown key {key!r}; known are {flags}", ctx, param)
        if isinstance(value, dict | list):
            raise click.BadParameter(f"{path}: {key} is one value, not a table or list", ctx, param)
        defaults[name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of an option, without secrets, and where it came from."""

    name: str
    value: str
    source: str


def effective(ctx: click.Context) -> Iterator[Setting]:
    """All options of a command."""
    for parameter in ctx.command.params:
        name = parameter.name
        if name is None or name not in ctx.params:
            continue
        source = ctx.get_parameter_source(name)
        origin = _SOURCES.get(source.name, "") if source is not None else ""
        yield Setting(name.replace("_", "-"), _show(parameter, ctx.params[name]), origin)


def _show(parameter: click.Parameter, value: Any) -> str:
    if value is None:
        return "none"
    if parameter.type is DURATION_MS:
        return format_duration(value)
    if isinstance(value, str) and "://" in value:
        return redact(value)
    if isinstance(value, Address | Path):
        return str(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
