"""Every route of every process says which right it needs."""

from __future__ import annotations

import re

import pytest

from common.access import Right
from ingest import http
from tabor.doors.rights import OPEN, RIGHTS, right_for
from tabor.openapi import _PATHS, document
from tabor.page.routes import PAGES


def every_route() -> set[str]:
    """All paths there are: that /openapi.json has them all is shown by test_openapi.py."""
    return set(document(_PATHS)["paths"]) | set(http.PATHS) | {"/openapi.json"}


@pytest.mark.parametrize("path", sorted(every_route()))
def test_a_route_is_declared(path: str) -> None:
    example = re.sub(r"\{.*?\}", "job", path)
    assert right_for(example) is not None, f"say in tabor/doors/rights.py which right {path} needs"


def test_nothing_is_declared_that_is_not_there() -> None:
    there = every_route()
    gone = [path for path in RIGHTS if "{" not in path and path not in there]
    assert gone == []


def test_only_supervisors_are_not_asked_who_they_are() -> None:
    assert {path for path, right in RIGHTS.items() if right is OPEN} == {
        "/-/healthy",
        "/-/ready",
        "/static/{name}",
        *PAGES,
    }


def test_what_tiers_ask_one_another_is_for_nodes_alone() -> None:
    internal = [path for path in every_route() if path.startswith("/internal/")]
    assert len(internal) > 5
    assert {right_for(path) for path in internal} == {Right.NODE}


@pytest.mark.parametrize(
    "path", ["/api/v1/query/", "/api/v1/nothing", "//api/v1/query", "/API/v1/query", "/-/", "", "/internal/v1/a/b"]
)
def test_what_is_not_declared_has_no_right(path: str) -> None:
    assert right_for(path) is None


def test_names_of_labels_may_have_slashes() -> None:
    assert right_for("/api/v1/label/a/b/values") is Right.READ
    assert right_for("/api/v1/label/U__a_b/values") is Right.READ
