"""Numbers and durations as PromQL spells them.

Numbers follow Go's strconv (ParseInt with base 0, then ParseFloat), so `0x1F` and `0755` are hexadecimal and octal
and underscores may separate digits. Durations follow Prometheus: `1h30m`, units descending, whole numbers only.
"""

from __future__ import annotations

import math
import re

from query.promql.quoting import quote

MAX_DURATION_S = 2**63 / 1e9
"""Prometheus counts durations in ns in an int64."""

_DECIMAL = "0123456789"
_HEXADECIMAL = "0123456789abcdefABCDEF"
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_OCTAL = re.compile(r"0_?[0-7]+(?:_[0-7]+)*\Z")
_HEX = re.compile(r"0[xX](?:_?[0-9a-fA-F]+)+\Z")
_UNDERSCORES_FIT = re.compile(r"[^_]*(?:[0-9]_(?=[0-9])[^_]*)*\Z")
_FLOAT = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_PART = re.compile(r"([0-9]+)([^0-9]+)")
_UNITS_NS = {
    "y": 365 * 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
    "d": 86_400 * 10**9,
    "h": 3_600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
}
_UNIT_NAMES = list(_UNITS_NS)


def parse_number(text: str) -> float:
    """Value of a number token.

    Raises:
        ValueError: with Prometheus' message.
    """
    if len(text) < 16 and text.isdecimal() and text.isascii() and (text[0] != "0" or text == "0"):
        return float(text)
    lower = text.lower()
    if lower == "inf":
        return math.inf
    if lower == "nan":
        return math.nan
    if _HEX.match(text) or _OCTAL.match(text):
        value = int(text.replace("_", ""), 16 if text[1] in "xX" else 8)
        if value < 2**63:
            return float(value)
    parsing = f"error parsing number: strconv.ParseFloat: parsing {quote(text)}"
    if _UNDERSCORES_FIT.match(text) and _FLOAT.match(plain := text.replace("_", "")):
        number = float(plain)
        if math.isinf(number):
            raise ValueError(f"{parsing}: value out of range")
        return number
    raise ValueError(f"{parsing}: invalid syntax")


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as `1h30m`.

    Raises:
        ValueError: with Prometheus' message.
    """
    total_ns = 0
    last_unit = -1
    at = 0
    while at < len(text) or not text:
        part = _PART.match(text, at)
        if part is None:
            raise ValueError(f"not a valid duration string: {quote(text)}")
        count, unit = part.groups()
        if unit not in _UNITS_NS:
            raise ValueError(f"unknown unit {quote(unit)} in duration {quote(text)}")
        if _UNIT_NAMES.index(unit) <= last_unit:
            raise ValueError(f"not a valid duration string: {quote(text)}")
        last_unit = _UNIT_NAMES.index(unit)
        # Twenty digits are over any limit already, and int() of very long ones is slow.
        total_ns += (int(count) if len(count) < 20 else 2**64) * _UNITS_NS[unit]
        if total_ns >= 2**63:
            raise ValueError("duration out of range")
        at = part.end()
    return total_ns // 10**6


def seconds_to_ms(seconds: float) -> int:
    """Whole milliseconds, towards zero, of seconds within the range of durations."""
    ns = round(abs(seconds) * 1e9)
    ms = ns // 10**6
    return -ms if seconds < 0 else ms


def scan_number_or_duration(text: str, at: int) -> tuple[int, bool, bool]:
    """End of the token at a digit or dot, whether it is a number, whether it is a duration.

    It may still be no valid number. If it is neither, the end is where Prometheus stops reading, for its message.
    """
    end, is_number = _scan_number(text, at)
    if is_number:
        return end, True, False
    end, is_duration = _scan_units(text, end)
    return end, False, is_duration


def _scan_number(text: str, at: int) -> tuple[int, bool]:
    def char(i: int) -> str:
        return text[i] if i < len(text) else "\0"

    digits = _DECIMAL
    if char(at) == "0":
        at += 1
        if char(at) in "xX":
            at += 1 + (char(at + 1) == "_")
            digits = _HEXADECIMAL
    at += char(at) == "."
    at += char(at) in digits
    dotted = exponent = False
    while (c := char(at)) in digits or c in "._eE":
        if (c == "." and dotted) or (c in "eE" and exponent):
            return at + 1, False
        if c == ".":
            dotted = True
            if char(at + 1) in "_.":
                return at + 2, False
            if digits == _HEXADECIMAL:
                return at + 1, False
            at += 1
        elif c in "eE":
            exponent = True
            at += 2 if char(at + 1) in "+-" else 1
            if char(at) in "._eE":
                return at + 1, False
            if at >= len(text):
                return at, False
        elif c == "_":
            at += 1
            if char(at) in "._eE":
                return at + 1, False
            if at >= len(text):
                return at, False
        while char(at) in digits:
            at += 1
    return at, char(at) not in _WORD


def _scan_units(text: str, at: int) -> tuple[int, bool]:
    def char(i: int) -> str:
        return text[i] if i < len(text) else "\0"

    if char(at) not in "smhdwy":
        return at, False
    at += 1
    at += char(at) == "s"
    while char(at) in _DECIMAL:
        while char(at) in _DECIMAL:
            at += 1
        if char(at) not in "smhdw":
            return at, False
        at += 1
        at += char(at) == "s"
    if char(at) in _WORD:
        return at + 1, False
    return at, True
