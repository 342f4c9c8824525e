"""Whether two servers gave the same answer to a query."""

from __future__ import annotations

import math
from typing import Any

RELATIVE = 1e-6

Points = dict[float, float]


def difference(expected: Any, found: Any) -> str | None:
    """The first difference between the `data` of two answers, or None; values may differ by a part in 10^6."""
    if expected["resultType"] != found["resultType"]:
        return f"a {found['resultType']} instead of a {expected['resultType']}"
    if expected["resultType"] not in ("vector", "matrix"):
        return _points("", _series([expected["result"]]), _series([found["result"]]))
    left, right = _rows(expected["result"]), _rows(found["result"])
    for missing in left.keys() - right.keys():
        return f"{missing} is missing, one of {len(left.keys() - right.keys())} of {len(left)} series"
    for extra in right.keys() - left.keys():
        return f"{extra} is too much, one of {len(right.keys() - left.keys())} of {len(right)} series"
    for labels, points in left.items():
        text = _points(labels, points, right[labels])
        if text is not None:
            return text
    return None


def n_points(data: Any) -> int:
    """How many points an answer has."""
    if data["resultType"] not in ("vector", "matrix"):
        return 1
    return sum(len(row.get("values", (None,))) for row in data["result"])


def _rows(result: list[dict[str, Any]]) -> dict[str, Points]:
    rows = {}
    for row in result:
        labels = ",".join(f"{name}={value}" for name, value in sorted(row["metric"].items()))
        rows["{" + labels + "}"] = _series(row["values"] if "values" in row else [row["value"]])
    return rows


def _series(points: list[tuple[float, str]]) -> Points:
    return {time: float(text) for time, text in points}


def _points(labels: str, left: Points, right: Points) -> str | None:
    if left.keys() != right.keys():
        return f"{labels}: {len(right)} points instead of {len(left)}, or at other times"
    for time, value in left.items():
        other = right[time]
        same = value == other or (math.isnan(value) and math.isnan(other))
        if not same and not abs(value - other) <= RELATIVE * max(abs(value), abs(other)):
            return f"{labels} at {time}: {other!r} instead of {value!r}"
    return None
