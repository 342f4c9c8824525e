"""Arguments for the functions, and their results, as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.labels import LabelTable, StringPool
from query.engine.functions import FUNCTIONS
from query.engine.values import Annotations, Context, RangeVector, Scalar, String, Value, Vector
from query.promql.ast import Call, NumberLiteral, Span

Labels = Mapping[str, str]
Samples = Sequence[tuple[int, float]]


def context(steps: Sequence[int] = (0,), step_ms: int = 0, query: str = "query") -> Context:
    return Context(np.array(steps, dtype=np.int64), step_ms, 300_000, Annotations(query), StringPool().fork_or_self())


def scalar(value: float, n_steps: int = 1) -> Scalar:
    return Scalar(np.full(n_steps, value, dtype=np.float64))
