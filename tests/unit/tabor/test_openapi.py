"""/openapi.json knows every route there is, and none that is not."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.routing import Route

from common.tenants import Tenancy
from ingest import http, import_http, otlp_http
from query.http import router as query_router
from query.http_admin import router as admin_router
from query.http_queries import router as queries_router
from query.http_tenants import router as tenants_router
from storage_node.copies_http import router as copies_router
from storage_node.http import router as node_router
from storage_node.marks_http import router as marks_router
from storage_node.reads_http import NodeReads
from storage_node.report_http import router as report_router
from tabor.cluster.overview import router as cluster_router
from tabor.openapi import all_services, document
from tabor.page.process import router as process_router
from tabor.page.routes import router as page_router

NOTHING: Any = SimpleNamespace()


def reads() -> NodeReads:
    return NodeReads("node", NOTHING, evaluate=NOTHING)


def ingest_routes() -> APIRouter:
    routes = APIRouter()
    for some in (import_http.router(NOTHING), otlp_http.router(NOTHING)):
        routes.routes.extend(some.routes)
    return routes


def described(service: str) -> set[tuple[str, str]]:
    common = document([])["paths"]
    paths = document([service])["paths"]
    return {(path, method) for path in paths.keys() - common.keys() for method in paths[path]}


def routed(routes: APIRouter) -> set[tuple[str, str]]:
    found = [route for route in routes.routes if isinstance(route, Route)]
    return {(route.path_format, method.lower()) for route in found for method in route.methods}


@pytest.mark.parametrize(
    ("service", "routes"),
    [
        ("query", query_router(NOTHING, "1")),
        ("queries", queries_router(NOTHING)),
        ("tenants", tenants_router(NOTHING)),
        ("page", page_router()),
        ("process", process_router("run", (), ())),
        ("cluster", cluster_router(NOTHING)),
        ("status", node_router(NOTHING)),
        ("reads", reads().router()),
        ("copies", copies_router("node", NOTHING)),
        ("marks", marks_router("node", NOTHING, NOTHING)),
        ("report", report_router("node", NOTHING, NOTHING)),
        ("ingest", ingest_routes()),
        ("admin", admin_router(NOTHING, Tenancy.OFF, NOTHING)),
    ],
)
def test_every_route_is_described(service: str, routes: APIRouter) -> None:
    # Remote write is answered in front of the routes.
    in_front = {(path, "post") for path in http.PATHS} if service == "ingest" else set()
    assert described(service) == routed(routes) | in_front


def test_what_every_service_answers_is_described() -> None:
    everywhere = {"/-/healthy", "/-/ready", "/debug/profile", "/metrics"}
    assert document([])["paths"].keys() == everywhere


def test_the_descriptions_are_not_loaded_by_what_serves() -> None:
    served = "fastapi, ingest.import_http, query.http, storage_node.http, tabor.run, tabor.serving, tabor.tiers"
    code = f"import sys, {served}; print([name for name in sys.modules if name.endswith('.openapi')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['fastapi.openapi']\n"


def test_every_path_says_which_right_it_needs() -> None:
    found = document(all_services())
    schemes = found["components"]["securitySchemes"]
    assert {name: (one["type"], one["scheme"]) for name, one in schemes.items()} == {
        "bearer": ("http", "bearer"),
        "basic": ("http", "basic"),
    }
    needed: dict[str, list[str]] = {}
    for path, methods in found["paths"].items():
        for one in methods.values():
            roles = {role for option in one["security"] for (listed,) in [option.values()] for role in listed}
            needed.setdefault("".join(sorted(roles)), []).append(path)
            assert len(one["security"]) in (0, 2)
            assert ("401" in one["responses"]) == bool(one["security"])
    assert {"/api/v1/query", "/metrics", "/api/v1/label/{name}/values"} <= set(needed["read"])
    assert {"/api/v1/write", "/api/v1/otlp/v1/metrics"} <= set(needed["write"])
    assert {"/api/v1/admin/tsdb/delete_series", "/debug/profile"} <= set(needed["admin"])
    assert {path.split("/")[1] for path in needed["node"]} == {"internal"}
    assert {"/-/ready", "/", "/static/{name}"} <= set(needed[""])
    assert not [path for path in needed[""] if path.startswith("/api/")]
