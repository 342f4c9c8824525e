"""Numbers and strings as Go prints them, because they show in labels and messages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

_PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def positional(value: float) -> str:
    """The shortest digits that give this float64 back, never with an exponent: strconv's format 'f', -1."""
    if not math.isfinite(value):
        return _special(value)
    return np.format_float_positional(value, trim="-")


def general(value: float) -> str:
    """Printf's %v and %g of a float64: an exponent below 1e-4 and from 1e21 on."""
    if not math.isfinite(value):
        return _special(value)
    if value == 0.0 or 1e-4 <= abs(value) < 1e21:
        return positional(value)
    return np.format_float_scientific(value, trim="-", exp_digits=2)


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def quote(text: str) -> str:
    """A string in double quotes; surrogates stand for bytes that are not UTF-8."""
    out = []
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def label_set(labels: Mapping[str, str]) -> str:
    """A label set in braces, the metric name being one of the labels."""
    parts = []
    for name in sorted(labels):
        plain = _PLAIN_NAME.match(name)
        parts.append(f"{name if plain else quote(name)}={quote(labels[name])}")
    return "{" + ", ".join(parts) + "}"
