"""Values of OTLP as texts of labels, character by character as Prometheus writes them.

Prometheus leaves this to Go: attributes are the `AsString` of the Collector's pdata, bounds and quantiles are
`strconv.FormatFloat(x, 'f', -1, 64)`. Another spelling would make another series.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from decimal import Decimal
from typing import Any


def attribute_text(value: Any) -> str:
    """An AnyValue as text: arrays and maps as JSON; no value is the empty text."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return str(value.string_value)
    if kind in ("array_value", "kvlist_value"):
        try:
            return _json(value)
        except ValueError:
            return ""
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "double_value" and not math.isfinite(value.double_value):
        return f"json: unsupported value: {decimal_text(value.double_value)}"
    return "" if kind is None else _json(value)


def decimal_text(value: float) -> str:
    """A float without an exponent, with as few digits as mean it."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return _without_exponent(repr(value))


@functools.lru_cache(maxsize=4096)
def _without_exponent(text: str) -> str:
    # Of texts, for 0 and -0 are the same key as numbers.
    return format(Decimal(text), "f").removesuffix(".0")


def _json(value: Any) -> str:
    """JSON as Go writes it: without spaces, keys sorted, and nothing that HTML would take for a tag.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot say.
    """
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return "[" + ",".join(map(_json, value.array_value.values)) + "]"
    if kind == "kvlist_value":
        members = {member.key: _json(member.value) for member in value.kvlist_value.values}
        return "{" + ",".join(f"{_quoted(key)}:{members[key]}" for key in sorted(members)) + "}"
    if kind == "string_value":
        return _quoted(value.string_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "int_value":
        return str(value.int_value)
    if kind == "double_value":
        return _json_number(value.double_value)
    return _quoted(base64.b64encode(value.bytes_value).decode()) if kind == "bytes_value" else "null"


def _json_number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON")
    if value and not 1e-6 <= abs(value) < 1e21:
        return repr(value).replace("e-0", "e-")
    return decimal_text(value)


_ESCAPED = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)
