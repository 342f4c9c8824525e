"""Floats and label sets as Prometheus writes them into labels and messages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from query.promql.quoting import quote

_PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def positional(value: float) -> str:
    """The shortest digits that give this float64 back, never with an exponent: Go's strconv format 'f', -1."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return np.format_float_positional(value, trim="-")


def label_set(labels: Mapping[str, str]) -> str:
    """A label set in braces, the metric name being one of the labels."""
    parts = []
    for name in sorted(labels):
        plain = _PLAIN_NAME.match(name)
        parts.append(f"{name if plain else quote(name)}={quote(labels[name])}")
    return "{" + ", ".join(parts) + "}"
