"""docs/metrics.md is what the code has, and metrics are named as the house rules say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.metrics_page import PAGE, SERVICES, Described, described, page

ROOT = Path(__file__).parents[2]
LABELS = {
    "api",
    "code",
    "db",
    "method",
    "what",
    "outcome",
    "part",
    "read",
    "reason",
    "route",
    "stage",
    "status",
    "tier",
}
LABELS |= {"type", "version", "target", "kind", "limit"}
"""Labels that have few values, none of them from users' data."""


@pytest.fixture(scope="module")
def metrics() -> list[Described]:
    return described()


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / PAGE).read_text() == page(), "run `make metrics`"


def test_every_metric_is_named_for_its_service_and_says_what_it_means(metrics: list[Described]) -> None:
    for one in metrics:
        assert re.fullmatch(r"tabor_[a-z0-9_]+", one.name), one.name
        assert one.service in SERVICES, f"{one.name} belongs to no service of {', '.join(SERVICES)}"
        assert len(one.help) > 10, f"{one.name} has no help"


def test_counters_end_in_total_and_nothing_else_does(metrics: list[Described]) -> None:
    for one in metrics:
        assert one.name.endswith("_total") == (one.type == "counter"), one.name


def test_histograms_end_in_their_unit(metrics: list[Described]) -> None:
    for one in metrics:
        if one.type == "histogram":
            assert one.unit in ("seconds", "bytes"), one.name


def test_labels_are_known_to_have_few_values(metrics: list[Described]) -> None:
    for one in metrics:
        assert set(one.labels) <= LABELS, f"{one.name}: are the values of these few, and not users' data?"
