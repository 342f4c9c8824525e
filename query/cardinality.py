"""Where series come from: counts over the columns of label codes, no work per series in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.labels import METRIC_NAME, LabelTable
from common.store import HOUR_MS


class LabelCounts(NamedTuple):
    """Values of one label, and how many series have each. codes: of the table's pool, int32; counts: int64."""

    name: str
    codes: NDArray[np.int32]
    counts: NDArray[np.int64]


def label_counts(table: LabelTable) -> Iterator[LabelCounts]:
    """Of every label of the table."""
    for name, codes in zip(table.names, table.codes, strict=True):
        distinct, counts = np.unique(codes[codes != 0], return_counts=True)
        yield LabelCounts(name, distinct, counts)


def most(found: LabelCounts, table: LabelTable, limit: int) -> list[tuple[int, str]]:
    """The values that most series have, with these counts; of equal ones the first in the order of texts."""
    if len(found.counts) > limit:
        least = np.partition(found.counts, -limit)[-limit]
        # Those at the edge are compared by their texts, of which there may be many more than are wanted.
        kept = np.flatnonzero(found.counts >= least)
    else:
        kept = np.arange(len(found.counts))
    rows = [(int(found.counts[i]), table.pool[int(found.codes[i])]) for i in kept.tolist()]
    return sorted(rows, key=lambda row: (-row[0], row[1]))[:limit]


def churn(births: dict[int, int], last_hour: int, n_hours: int) -> list[dict[str, int]]:
    """Series by the hour of their first sample, of the last hours, `last_hour` at the end (Unix ms // HOUR_MS)."""
    hours = range(last_hour - n_hours + 1, last_hour + 1)
    return [{"start": hour * HOUR_MS // 1000, "series": births.get(hour, 0)} for hour in hours]


def cardinality(table: LabelTable, limit: int) -> dict[str, object]:
    """What `/api/v1/cardinality` tells of these series."""
    labels: list[tuple[int, int, str]] = []
    pairs: list[tuple[int, str, str]] = []
    metrics: list[tuple[int, str]] = []
    n_metrics = 0
    for found in label_counts(table):
        top = most(found, table, limit)
        if found.name == METRIC_NAME:
            metrics, n_metrics = top, len(found.codes)
            continue
        labels.append((len(found.codes), int(found.counts.sum()), found.name))
        pairs += [(count, found.name, text) for count, text in top]
    labels.sort(key=lambda row: (-row[0], row[2]))
    pairs.sort(key=lambda row: (-row[0], row[1], row[2]))
    return {
        "series": len(table),
        "metrics": n_metrics,
        "labels": len(labels),
        "seriesByMetric": [{"metric": text, "series": count} for count, text in metrics],
        "valuesByLabel": [{"label": name, "values": n, "series": count} for n, count, name in labels[:limit]],
        "seriesByPair": [{"label": name, "value": text, "series": count} for count, name, text in pairs[:limit]],
    }
