"""Parameters of Prometheus' HTTP API: times, durations, selectors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from urllib.parse import unquote

from common.errors import CallerError
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher
from query.promql.errors import ParseError
from query.promql.parser import parse_selector
from query.promql.selector_parser import has_non_empty_matcher

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNIT_MS = (365 * 86_400_000, 7 * 86_400_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)
_ESCAPED = re.compile(r"__|_([0-9A-Fa-f]{1,6})_")
_MAX_BODY_FIELDS = 10_000
_REMEMBERED_LENGTH = 4096
MAX_SELECTORS = 1000
"""Parameters match[] of one request: each is looked up by itself."""


class BadParameter(CallerError):
    """A parameter cannot be read (errorType 'bad_data')."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'invalid parameter "{name}": {reason}')


class Parameters:
    """Query and form parameters of one request; the form comes first, as in Go's net/http."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields

    @classmethod
    def of(cls, query_string: bytes, form: bytes) -> Parameters:
        fields: dict[str, list[str]] = {}
        for text in (form, query_string):
            if not text:
                continue
            pairs = text.decode("utf-8", "surrogateescape").split("&")
            if len(pairs) > _MAX_BODY_FIELDS:
                raise CallerError(f"error parsing form values: there are more than {_MAX_BODY_FIELDS} fields")
            for pair in pairs:
                if pair:
                    name, _, value = pair.partition("=")
                    fields.setdefault(_unquoted(name), []).append(_unquoted(value))
        for name, values in fields.items():
            for value in values:
                if not _is_utf8(value):
                    raise BadParameter(name, f"{value!a} is not valid UTF-8")
        return cls(fields)

    def get(self, name: str) -> str:
        values = self._fields.get(name)
        return values[0] if values else ""

    def all(self, name: str) -> Sequence[str]:
        return self._fields.get(name, ())

    def time_ms(self, name: str, default: int | None = None) -> int:
        text = self.get(name)
        if not text:
            if default is None:
                raise BadParameter(name, 'cannot parse "" to a valid timestamp')
            return default
        time_ms = parse_time_ms(text)
        if time_ms is None:
            raise BadParameter(name, f'cannot parse "{text}" to a valid timestamp')
        return time_ms

    def time_range(self) -> tuple[int, int]:
        """Parameters start and end, ms, closed; all of time without them."""
        start_ms, end_ms = self.time_ms("start", MIN_TIME_MS), self.time_ms("end", MAX_TIME_MS)
        if end_ms < start_ms:
            raise BadParameter("end", "end timestamp must not be before start time")
        return start_ms, end_ms

    def duration_ms(self, name: str, default: int | None = None) -> int:
        text = self.get(name)
        if not text:
            if default is None:
                raise BadParameter(name, 'cannot parse "" to a valid duration')
            return default
        duration_ms = parse_duration_ms(text)
        if duration_ms is None:
            raise BadParameter(name, f'cannot parse "{text}" to a valid duration')
        return duration_ms

    def limit(self, default: int = 0, name: str = "limit") -> int:
        """Upper limit of results; 0 stands for none, unless another default does."""
        text = self.get(name)
        if not text:
            return default
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            raise BadParameter(name, f'cannot parse "{text}" to a valid limit')
        if int(text) < 0 and default == 0:
            raise BadParameter(name, "limit must be non-negative")
        return int(text)

    def matcher_sets(self) -> list[tuple[Matcher, ...]]:
        sets = []
        if len(self.all("match[]")) > MAX_SELECTORS:
            raise BadParameter("match[]", f"there are more than {MAX_SELECTORS} of them")
        for text in self.all("match[]"):
            try:
                matchers = parse_selector(text)
            except ParseError as error:
                raise BadParameter("match[]", str(error)) from None
            if not has_non_empty_matcher(matchers):
                raise BadParameter("match[]", "match[] must contain at least one non-empty matcher")
            sets.append(matchers)
        return sets


def _unquoted(text: str) -> str:
    """As by `urllib.parse.parse_qs`, which takes longer than all else that is done before a small query runs."""
    if "%" not in text and "+" not in text:
        return text
    return _remembered(text) if len(text) <= _REMEMBERED_LENGTH else _unquote(text)


def _unquote(text: str) -> str:
    return unquote(text.replace("+", " "), errors="surrogateescape")


# Dashboards ask the same again and again, for other times.
_remembered = lru_cache(maxsize=1024)(_unquote)


def parse_time_ms(text: str) -> int | None:
    """Unix seconds with fractions, or RFC 3339; None if it is neither."""
    seconds = _parse_float(text)
    if seconds is not None:
        # Clamped before and after: a float may be infinite, and rounds the limits.
        return _clamp(math.floor(max(MIN_TIME_MS, min(MAX_TIME_MS, seconds * 1000 + 0.5))))
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, _, sign, off_hour, off_minute = match.groups()[6:]
    zone = UTC
    try:
        if sign:
            shift = timedelta(hours=int(off_hour), minutes=int(off_minute))
            zone = timezone(shift if sign == "+" else -shift)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    whole_s = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return whole_s * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def parse_duration_ms(text: str) -> int | None:
    """Seconds with fractions, or Prometheus' form such as 1h30m; None if it is neither."""
    seconds = _parse_float(text)
    if seconds is not None:
        duration_ms = seconds * 1000
        return int(duration_ms) if abs(duration_ms) < MAX_TIME_MS else None
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    total = sum(int(part) * unit for part, unit in zip(match.groups(), _UNIT_MS, strict=True) if part)
    return total if total <= MAX_TIME_MS // 1_000_000 else None


def unescape_label_name(name: str) -> str:
    """A label name of a URL path; after `U__`, '_2e_' is the character 0x2e and '__' an underscore."""
    if not name.startswith("U__"):
        return name
    return _ESCAPED.sub(lambda m: "_" if m.group(1) is None else _character(m), name[3:])


def _character(match: re.Match[str]) -> str:
    code = int(match.group(1), 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        return match.group(0)
    return chr(code)


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any(0xDC80 <= ord(c) <= 0xDCFF for c in text)


def _parse_float(text: str) -> float | None:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _clamp(time_ms: int) -> int:
    return max(MIN_TIME_MS, min(MAX_TIME_MS, time_ms))
