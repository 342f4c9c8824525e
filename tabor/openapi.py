"""The OpenAPI document of a process: the services that the wiring says it has, and what all answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

import ingest.openapi
import query.openapi
import storage_node.openapi
from common.openapi import (
    TEXT,
    WHOLE,
    Json,
    Parameter,
    answer,
    array,
    failures,
    operation,
    record,
    success,
)
from common.version import VERSION
from tabor.doors.rights import OPEN, right_for
from tabor.page.routes import MEDIA_TYPES, PAGES


def _page() -> Json:
    """The paths of `tabor.page.routes`."""
    html = {"200": answer("the page", "text/html", TEXT), "304": answer("as the client has it")}
    kinds = {kind.partition(";")[0]: {"schema": TEXT} for kind in MEDIA_TYPES.values()}
    file = {
        "200": {"description": "the file", "content": kinds},
        "304": answer("as the client has it"),
        "404": answer("no such file", "text/plain", TEXT),
    }
    name = (Parameter("name", TEXT, "of the file", required=True, place="path"),)
    paths = {path: _read(operation("The page, one of its views", html)) for path in PAGES}
    return {**paths, "/static/{name}": _read(operation("A file of the page", file, name))}


def _process() -> Json:
    """The path of `tabor.page.process`."""
    number = {"type": "number"}
    found = record(
        service=TEXT,
        version=TEXT,
        python=TEXT,
        started=number,
        time=number,
        cores=WHOLE,
        cpuSeconds=number,
        peakMemoryBytes=WHOLE,
        settings=array(record(name=TEXT, value=TEXT, source=TEXT)),
        limits=array(record(name=TEXT, flag=TEXT, used=number, limit=number)),
    )
    told = {"200": answer("how it was started, and its limits", "application/json", success(found))}
    return {"/api/v1/status/process": {"get": operation("The process, its settings and limits", told)}}


def _cluster() -> Json:
    """The path of `tabor.cluster.overview`."""
    maybe = {"type": ["integer", "null"]}
    replica = record(node=TEXT, state={"enum": ["whole", "coming", "missing"]}, next_offset=maybe, lag=maybe)
    partition = record(partition=WHOLE, replicas=array(replica), high_watermark=maybe, lag=maybe)
    node = record(name=TEXT, address=TEXT, state=TEXT, partitions=WHOLE, copying=WHOLE, lag=maybe)
    log = record(kind={"enum": ["local", "kafka"]}, retention_ms=maybe, retention_bytes=maybe)
    found = record(
        partitions=WHOLE,
        replicas=WHOLE,
        nodes=array(node),
        partition_states=array(partition),
        under_replicated=array(WHOLE),
        unavailable=array(WHOLE),
        log=log,
    )
    told = {"200": answer("how the cluster is", "application/json", success(found))}
    told |= failures({503: "nobody has joined, or the log does not answer"})
    return {"/api/v1/status/cluster": {"get": operation("Nodes, partitions, replicas and the log", told)}}


def _read(described: Json) -> Json:
    return {"get": described, "head": described}


_WHERE = "where the process has a web configuration file with users or tokens; roles are rights"
_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": f"a token, {_WHERE}"},
    "basic": {"type": "http", "scheme": "basic", "description": f"a user and his password, {_WHERE}"},
}
_PATHS = {
    "ingest": ingest.openapi.paths,
    "query": query.openapi.paths,
    "queries": query.openapi.queries_paths,
    "tenants": query.openapi.tenants_paths,
    "admin": query.openapi.admin_paths,
    "reads": storage_node.openapi.read_paths,
    "copies": storage_node.openapi.copy_paths,
    "marks": storage_node.openapi.mark_paths,
    "report": storage_node.openapi.report_paths,
    "status": storage_node.openapi.paths,
    "page": _page,
    "process": _process,
    "cluster": _cluster,
}


def all_services() -> tuple[str, ...]:
    """The names of all services that a process may have."""
    return tuple(_PATHS)


def document(services: Iterable[str]) -> Json:
    """All paths of these services, by their names in `_PATHS`, and which right each needs."""
    paths = _every_service()
    for service in services:
        paths |= _PATHS[service]()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tabor", "version": VERSION},
        "paths": {path: _secured(path, methods) for path, methods in paths.items()},
        "components": {"securitySchemes": _SCHEMES},
    }


def _secured(path: str, methods: Json) -> Json:
    """The methods of a path, with the right that `tabor.doors.rights` asks for as the role of the caller."""
    right = right_for(re.sub(r"\{[^}]*\}", "x", path))
    if right is None or right is OPEN:
        return {method: {**described, "security": []} for method, described in methods.items()}
    name = str(right.name).lower()
    refusals = {
        "401": answer("no credentials, or wrong ones"),
        "403": answer(f"the credentials lack the right {name!r}, or are bound to other tenants"),
    }
    security = [{scheme: [name]} for scheme in _SCHEMES]
    return {
        method: {**described, "responses": {**refusals, **described["responses"]}, "security": security}
        for method, described in methods.items()
    }


def _every_service() -> Json:
    well = answer("yes", "text/plain", TEXT)
    not_ready = answer("not yet; says why", "application/json", record(ready={"const": False}))
    metrics = {
        "description": "Prometheus' text format or OpenMetrics, by Accept",
        "content": {media: {"schema": TEXT} for media in ("text/plain", "application/openmetrics-text")},
    }
    return {
        "/-/healthy": {"get": operation("Whether the process answers", {"200": well})},
        "/-/ready": {"get": operation("Whether reads and writes are served", {"200": well, "503": not_ready})},
        "/debug/profile": {
            "get": operation(
                "Where the threads of the process spend their time",
                {
                    "200": {
                        "description": "a flame graph, or how often each stack was seen",
                        "content": {media: {"schema": TEXT} for media in ("image/svg+xml", "text/plain")},
                    },
                    "400": answer("a parameter is wrong", "text/plain", TEXT),
                    "429": answer("another one is being made", "text/plain", TEXT),
                },
                (
                    Parameter("seconds", {"type": "number"}, "above 0, at most 60; 10 if not given"),
                    Parameter("format", {"enum": ["svg", "collapsed"]}, "also by Accept: text/plain"),
                    Parameter("idle", {"enum": ["true", "false"]}, "whether threads that wait are shown too"),
                ),
            )
        },
        "/metrics": {"get": operation("Metrics of the process", {"200": metrics})},
    }
