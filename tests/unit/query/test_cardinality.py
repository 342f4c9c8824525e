"""Counts of series by metric, label and pair."""

from __future__ import annotations

import pytest

from common.labels import LabelTable
from query.cardinality import cardinality, churn, label_counts, most

SERIES = [
    {"__name__": "up", "job": "a"},
    {"__name__": "up", "job": "b"},
    {"__name__": "load", "job": "a", "core": "0"},
    {"__name__": "load", "job": "a", "core": "1"},
    {"__name__": "load", "job": "a", "core": "2"},
]


def test_metrics_labels_and_pairs_are_counted_the_largest_first() -> None:
    found = cardinality(LabelTable.of(SERIES), 2)
    assert found == {
        "series": 5,
        "metrics": 2,
        "labels": 2,
        "seriesByMetric": [{"metric": "load", "series": 3}, {"metric": "up", "series": 2}],
        "valuesByLabel": [
            {"label": "core", "values": 3, "series": 3},
            {"label": "job", "values": 2, "series": 5},
        ],
        "seriesByPair": [
            {"label": "job", "value": "a", "series": 4},
            {"label": "core", "value": "0", "series": 1},
        ],
    }


def test_of_nothing_there_is_nothing() -> None:
    found = cardinality(LabelTable.of([]), 10)
    assert (found["series"], found["seriesByMetric"], found["seriesByPair"]) == (0, [], [])


def test_every_hour_is_told_of_with_those_without_new_series() -> None:
    assert churn({100: 5, 102: 1, 90: 7}, 102, 3) == [
        {"start": 360_000, "series": 5},
        {"start": 363_600, "series": 0},
        {"start": 367_200, "series": 1},
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_the_most_are_those_of_a_sort(limit: int) -> None:
    table = LabelTable.of([{"a": f"{i % 7}{'x' * (i % 3)}"} for i in range(100)])
    (found,) = label_counts(table)
    texts = [labels["a"] for labels in table]
    expected = sorted(((texts.count(text), text) for text in set(texts)), key=lambda row: (-row[0], row[1]))
    assert most(found, table, limit) == expected[:limit]
