"""Numbers as text, the way Go reads and writes them: Prometheus' labels and messages are made of these."""

from __future__ import annotations

import math
import re

_DIGITS = r"\d(_?\d)*"
_HEX_DIGITS = r"[0-9a-f](_?[0-9a-f])*"
_DECIMAL = re.compile(rf"[+-]?({_DIGITS}\.?({_DIGITS})?|\.{_DIGITS})(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_HEXADECIMAL = re.compile(
    rf"[+-]?0x_?({_HEX_DIGITS}\.?({_HEX_DIGITS})?|\.{_HEX_DIGITS})p[+-]?\d+", re.ASCII | re.IGNORECASE
)
_SPECIAL = re.compile(r"([+-]?inf(inity)?|nan)", re.ASCII | re.IGNORECASE)


def parse_float(text: str) -> float | None:
    """The number, or None where Go's strconv.ParseFloat gives an error (which it does on overflow too)."""
    if _SPECIAL.fullmatch(text):
        return float(text)
    try:
        if _HEXADECIMAL.fullmatch(text):
            return float.fromhex(text.replace("_", ""))
    except OverflowError:
        return None
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return None if math.isinf(value) else value


def format_g(value: float) -> str:
    """Shortest text that reads back as the number, as Go's %g."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1.0, value) < 0 else "0"
    mantissa, _, exponent_text = repr(float(value)).partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    exponent = int(exponent_text or "0") + len(whole) - 1
    digits = whole + fraction
    leading = len(digits) - len(digits.lstrip("0"))
    digits = digits[leading:].rstrip("0")
    exponent -= leading
    if exponent < -4 or exponent >= 6:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return sign + digits.ljust(exponent + 1, "0")
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"


def format_f(value: float) -> str:
    """Six decimals, as Go's %f."""
    return f"{value:f}" if math.isfinite(value) else format_g(value)


def format_open_metrics(value: float) -> str:
    """Text of a number as a label's value in OpenMetrics: it always shows that it is not an integer."""
    text = format_g(value)
    return text if not math.isfinite(value) or "." in text or "e" in text else text + ".0"
