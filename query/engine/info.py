"""`info(v, {…})`: series get the labels of the info series of their instance and job."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.labels import METRIC_NAME, LabelTable, StringPool
from common.store import Matcher, MatchOp
from query.engine.labeling import keep, number, stack
from query.engine.merging import merge_rows
from query.engine.values import EvalError, Vector
from query.promql.ast import (
    Aggregate,
    AtEdge,
    Binary,
    Call,
    Duration,
    Expr,
    MatrixSelector,
    Paren,
    Subquery,
    Unary,
    VectorSelector,
)
from query.promql.regex import compile_regex

_IDENTIFYING = ("instance", "job")
_DEFAULT = Matcher(MatchOp.EQUAL, METRIC_NAME, "target_info")
_ANY_INFO = Matcher(MatchOp.REGEX, METRIC_NAME, ".+_info")
_POSITIVE = (MatchOp.EQUAL, MatchOp.REGEX)


def info_selector(call: Call) -> VectorSelector:
    """What the function reads besides its first argument: at the time at which that reads its samples."""
    offset, at = _reference(call.args[0])
    given: tuple[Matcher, ...] = ()
    if len(call.args) > 1:
        selector = call.args[1]
        assert isinstance(selector, VectorSelector)
        given = selector.matchers
    names = [matcher for matcher in given if matcher.name == METRIC_NAME]
    if not names:
        given = (*given, _DEFAULT)
    elif not any(matcher.op in _POSITIVE for matcher in names):
        given = (*given, _ANY_INFO)
    return VectorSelector(None, given, offset, at)


def _reference(expr: Expr) -> tuple[Duration, int | AtEdge | None]:
    """Offset and time of the first selector, with those of the subqueries around it."""
    match expr:
        case VectorSelector():
            return expr.offset, expr.at
        case MatrixSelector():
            return expr.selector.offset, expr.selector.at
        case Subquery():
            offset, at = _reference(expr.expr)
            if at is not None:
                return offset, at
            assert isinstance(offset, int)
            assert isinstance(expr.offset, int)
            return offset + expr.offset, expr.at
        case Call():
            return next((_reference(arg) for arg in expr.args if _has_selector(arg)), (0, None))
        case Binary():
            return _reference(expr.lhs if _has_selector(expr.lhs) else expr.rhs)
        case Aggregate() | Paren() | Unary():
            return _reference(expr.expr)
        case _:
            return 0, None


def _has_selector(expr: Expr) -> bool:
    match expr:
        case VectorSelector() | MatrixSelector():
            return True
        case Subquery() | Aggregate() | Paren() | Unary():
            return _has_selector(expr.expr)
        case Binary():
            return _has_selector(expr.lhs) or _has_selector(expr.rhs)
        case Call():
            return any(_has_selector(arg) for arg in expr.args)
        case _:
            return False


def enriched(call: Call, base: Vector, info: Vector, times: Vector) -> Vector:
    """The base series with data labels of their info series; times: of the info samples, cell by cell.

    Raises:
        EvalError: two info series contradict each other.
    """
    selector = info_selector(call)
    names = [matcher for matcher in selector.matchers if matcher.name == METRIC_NAME]
    wanted = {matcher.name for matcher in selector.matchers if matcher.name != METRIC_NAME}
    required = any(not _accepts(m, "") for m in selector.matchers if m.name != METRIC_NAME)
    identities, _ = number(stack((_identity(base.labels), _identity(info.labels))))
    of_base, of_info = identities[: len(base.labels)], identities[len(base.labels) :]
    kept: list[int] = []
    label_sets: list[dict[str, str]] = []
    present: list[NDArray[np.bool_]] = []
    for row in range(len(base.labels)):
        labels = dict(base.labels.labels(row))
        steps = base.present[row]
        if all(_accepts(matcher, labels.get(METRIC_NAME, "")) for matcher in names):
            kept.append(row)
            label_sets.append(labels)
            present.append(steps)
            continue
        sources = np.flatnonzero(of_info == of_base[row])
        latest = _latest(info, times, sources, steps)
        patterns, which = np.unique(latest, axis=1, return_inverse=True)
        for i in range(patterns.shape[1]):
            chosen = sources[patterns[:, i]]
            if not len(chosen) and required:
                continue
            kept.append(row)
            label_sets.append(_with_labels(labels, [info.labels.labels(int(source)) for source in chosen], wanted))
            present.append(steps & (which.reshape(-1) == i))
    rows = np.array(kept, dtype=np.int64)
    shape = (0, base.present.shape[1])
    out = Vector(
        _table(label_sets, base.labels.pool),
        base.values[rows],
        np.array(present, dtype=np.bool_) if present else np.zeros(shape, dtype=np.bool_),
        base.drop_name[rows],
    )
    return merge_rows(replace(out, present=np.ascontiguousarray(out.present)))


def _table(label_sets: list[dict[str, str]], pool: StringPool) -> LabelTable:
    return LabelTable.of(label_sets, pool)


def _identity(table: LabelTable) -> LabelTable:
    return keep(table, _IDENTIFYING)


def _accepts(matcher: Matcher, value: str) -> bool:
    match matcher.op:
        case MatchOp.EQUAL:
            return value == matcher.value
        case MatchOp.NOT_EQUAL:
            return value != matcher.value
        case MatchOp.REGEX:
            return compile_regex(matcher.value).fullmatch(value) is not None
        case MatchOp.NOT_REGEX:
            return compile_regex(matcher.value).fullmatch(value) is None


def _latest(
    info: Vector, times: Vector, sources: NDArray[np.int64], steps: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of the sources count at each step, bool (n_sources, n_steps): of each metric the latest sample."""
    there: NDArray[np.bool_] = info.present[sources] & steps
    names = info.labels.column(METRIC_NAME)[sources]
    for name in np.unique(names).tolist():
        same = np.flatnonzero(names == name)
        if len(same) < 2:
            continue
        stamps = np.where(there[same], times.values[sources[same]], -np.inf)
        newest = stamps.max(axis=0)
        chosen = there[same] & (stamps == newest)
        if (np.count_nonzero(chosen, axis=0) > 1).any():
            raise EvalError(f"found duplicate series for info metric {info.labels.pool[name]}")
        there[same] = chosen
    return there


def _with_labels(labels: dict[str, str], sources: list[dict[str, str]], wanted: set[str]) -> dict[str, str]:
    added: dict[str, str] = {}
    for source in sources:
        for name, value in source.items():
            if name == METRIC_NAME or name in labels or (wanted and name not in wanted):
                continue
            if added.setdefault(name, value) != value:
                raise EvalError(f"conflicting label: {name}")
    return labels | added
