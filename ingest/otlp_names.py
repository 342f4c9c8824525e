"""Names of OTLP as names of Prometheus, as Prometheus 3.14 has them by default.

The rules are those of the strategy `UnderscoreEscapingWithSuffixes` (Prometheus' documentation, `otlp:` in its
configuration), and of OpenTelemetry's specification, compatibility/prometheus_and_openmetrics: characters that old
Prometheus names cannot have become underscores, and a metric's name ends with its unit and with what it is.
"""

from __future__ import annotations

import re

_NOT_IN_METRIC_NAMES = re.compile("[^a-zA-Z0-9:]+")
_NOT_IN_LABEL_NAMES = re.compile("[^a-zA-Z0-9_]")

# The units of UCUM that have a name; others stand for themselves. "tibibytes" is how Prometheus spells it.
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds",
    "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
_PER_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}


def metric_name(name: str, unit: str, *, counter: bool = False, gauge: bool = False) -> str:
    """The name of a metric, with suffixes; "" if nothing of it can be in a name.

    counter: it is a monotonic sum. gauge: it is a gauge of OTLP (not a sum), for which the unit 1 is a ratio.
    """
    tokens = [token for token in _NOT_IN_METRIC_NAMES.split(name) if token]
    main, per = _unit_suffixes(unit)
    if main in tokens:
        main = ""
    # A unit that ends with characters that no name has would leave an underscore before the next part.
    per = "" if per == "per_" else per.removesuffix("_")
    if per in tokens:
        per = ""
    if per:
        main = main.removesuffix("_")
    tokens += [suffix for suffix in (main, per) if suffix]
    for applies, suffix in ((counter, "total"), (gauge and unit == "1", "ratio")):
        if applies:
            tokens = [token for token in tokens if token != suffix] + [suffix]
    out = "_".join(tokens)
    return f"_{out}" if out[:1].isdigit() else out


def unit_name(unit: str) -> str:
    """The unit that metadata give, in words."""
    main, per = _unit_suffixes(unit)
    return "_".join(part for part in (main, per) if part).removeprefix("_").removesuffix("_")


def label_name(key: str) -> str:
    """The name of the label for an attribute; "" if there is none.

    Names do not begin with a digit or one underscore; with two they may, and no underscores are joined.
    """
    out = _NOT_IN_LABEL_NAMES.sub("_", key)
    if out[:1].isdigit():
        out = f"key_{out}"
    elif out.startswith("_") and not out.startswith("__"):
        out = f"key{out}"
    return out if out.strip("_") else ""


def _unit_suffixes(unit: str) -> tuple[str, str]:
    """What is measured and per what, in words, as parts of a name; what is in braces is a comment, not a unit."""
    main, _, per = unit.partition("/")
    main, per = ("" if "{" in part or "}" in part else part.strip() for part in (main, per))
    main, per = _UNITS.get(main, main), _PER_UNITS.get(per, per)
    return _in_name(main), _in_name(f"per_{per}") if per else ""


def _in_name(text: str) -> str:
    return _NOT_IN_METRIC_NAMES.sub("_", text).removeprefix("_")
