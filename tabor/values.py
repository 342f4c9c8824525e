"""Values of command-line options: durations, sizes, addresses."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from common.durations import UNITS_MS, duration_ms

MAX_SIZE_BYTES = 1 << 60
MAX_NODE_NAME_CHARACTERS = 128
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_UNITS |= {_letter: 1024**_power, f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @property
    def is_everywhere(self) -> bool:
        """Whether it is all addresses of the machine, hence none by which it is reached."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Duration(click.ParamType[Any]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        found = duration_ms(text)
        if found is None:
            example = "write for example 400d, 12h30m or 500ms"
            self.fail(f"{text!r} is not a duration above 0 and at most 1000y; {example}", param, ctx)
        return found


class _Size(click.ParamType[Any]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,18})\s*([a-z]*)", str(value).strip().lower(), re.ASCII)
        if match is None or match.group(2) not in _SIZE_UNITS:
            self.fail(f"{value!r} is not a size; write for example 32MiB, 10GB or 1048576", param, ctx)
        size_bytes = int(match.group(1)) * _SIZE_UNITS[match.group(2)]
        if not 0 < size_bytes <= MAX_SIZE_BYTES:
            self.fail(f"{value!r} is not above 0 and at most 1024 PiB", param, ctx)
        return size_bytes


class _Time(click.ParamType[Any]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        # Imported here, since it brings the parser of PromQL along.
        from query.params import parse_time_ms

        time_ms = parse_time_ms(str(value).strip())
        if time_ms is None:
            self.fail(f"{value!r} is not a time; write for example 2026-11-24T00:00:00Z or 1790000000", param, ctx)
        return time_ms


class _NodeName(click.ParamType[Any]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.isprintable() or not text or len(text) > MAX_NODE_NAME_CHARACTERS or set(text) & set(" ,/"):
            rule = f"up to {MAX_NODE_NAME_CHARACTERS} characters without spaces, commas and slashes"
            self.fail(f"{text!r} is no name of a node: {rule}", param, ctx)
        return text


class _Address(click.ParamType[Any]):
    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]*)):(\d{1,5})", str(value).strip(), re.ASCII)
        if match is None or int(match.group(3)) > 65_535:
            self.fail(f"{value!r} is not an address; write for example 127.0.0.1:9080", param, ctx)
        # `:9080` asks for every interface, as everywhere.
        return Address(match.group(1) or match.group(2) or "0.0.0.0", int(match.group(3)))  # noqa: S104


DURATION_MS = _Duration()
SIZE_BYTES = _Size()
ADDRESS = _Address()
TIME_MS = _Time()
NODE_NAME = _NodeName()


def format_duration(duration_ms: int) -> str:
    """The shortest exact form, e.g. 400d or 1h30m."""
    if duration_ms == 0:
        return "0s"
    text, rest = "", duration_ms
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, UNITS_MS[unit])
        if count:
            text += f"{count}{unit}"
    return text


def format_size(n_bytes: float) -> str:
    """A size for people: '3.2 MiB'."""
    size, unit = float(n_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def format_time(time_ms: int) -> str:
    """ISO 8601 in UTC, or the number where the calendar ends."""
    try:
        return (
            datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
