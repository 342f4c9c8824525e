"""/openapi.json knows every route there is, and none that is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from ingest import http, import_http
from query.http import router as query_router
from storage_node.http import router as node_router
from tabor.openapi import document

NOTHING: Any = SimpleNamespace()


def described(service: str) -> set[tuple[str, str]]:
    common = document([])["paths"]
    paths = document([service])["paths"]
    return {(path, method) for path in paths.keys() - common.keys() for method in paths[path]}


def routed(routes: APIRouter) -> set[tuple[str, str]]:
    found = [route for route in routes.routes if isinstance(route, APIRoute)]
    return {(route.path_format, method.lower()) for route in found for method in route.methods}


@pytest.mark.parametrize(
    ("service", "routes"),
    [
        ("query", query_router(NOTHING, "1")),
        ("storage_node", node_router(NOTHING)),
        ("ingest", import_http.router(NOTHING)),
    ],
)
def test_every_route_is_described(service: str, routes: APIRouter) -> None:
    # Remote write is answered in front of the routes.
    in_front = {(path, "post") for path in http.PATHS} if service == "ingest" else set()
    assert described(service) == routed(routes) | in_front


def test_what_every_service_answers_is_described() -> None:
    assert document([])["paths"].keys() == {"/-/healthy", "/-/ready", "/metrics"}
