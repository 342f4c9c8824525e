"""What the query routes take and answer, as OpenAPI has it: one row for each path."""

from __future__ import annotations

from typing import NamedTuple

from common.openapi import (
    TEXT,
    WHOLE,
    Json,
    Parameter,
    answer,
    array,
    by_name,
    failures,
    form,
    operation,
    record,
    success,
)
from query.http_about import NOTHING
from query.remote_read import PATHS as READ_PATHS
from query.responses import ARROW

_TIME: Json = {"anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}]}
_DURATION: Json = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^([0-9]+(y|w|d|h|m|s|ms))+$"}]}
_LABELS = by_name(TEXT)
_POINT: Json = {"type": "array", "prefixItems": [{"type": "number"}, TEXT], "minItems": 2, "maxItems": 2}

_QUERY = Parameter("query", {"type": "string", "format": "promql"}, "a PromQL expression", required=True)
_SELECTORS = Parameter(
    "match[]", array({"type": "string", "format": "promql-selector"}), "series selectors, of which any may match"
)
_START = Parameter("start", _TIME, "Unix seconds or RFC 3339")
_END = Parameter("end", _TIME, "Unix seconds or RFC 3339")
_LIMIT = Parameter("limit", {"type": "integer", "minimum": 0}, "at most so many results; 0 for all")
_CONSISTENCY = Parameter(
    "consistency",
    {"enum": ["strong", "eventual"]},
    "whether to wait for all that was acknowledged before; also as header X-Read-Consistency",
)
_PARTIAL = Parameter(
    "partial_response",
    {"enum": ["true", "false"]},
    "whether partitions that no storage node can answer for may be missing; warnings then say which",
)
_EVALUATION = (
    Parameter("timeout", _DURATION, "how long the query may take, up to --query-timeout"),
    Parameter("lookback_delta", _DURATION, "how old a sample may be that is taken for the current one"),
    Parameter("stats", TEXT, "what the query has cost is told too, if this is not empty; all: at each step"),
    _LIMIT,
    _CONSISTENCY,
    _PARTIAL,
)
_RANGE = (_START, _END, _LIMIT, _CONSISTENCY, _PARTIAL)

_RESULT = record(
    resultType={"enum": ["matrix", "vector", "scalar", "string"]},
    result=array({"anyOf": [record(metric=_LABELS), {"type": "number"}, TEXT]}),
)
_METADATA = by_name(array(record(type=TEXT, unit=TEXT, help=TEXT)))
_EXEMPLAR = record(labels=_LABELS, value=TEXT, timestamp={"type": "number"})
_NUMBERED = array(record(name=TEXT, value=WHOLE))

_WRONG = {400: "a parameter is missing or wrong"}
_BUSY = {503: "it took too long, too many queries wait, or the data are not there just now"}
_TOO_MUCH = {422: "the query cannot be executed, or takes more than it may"}


class _Row(NamedTuple):
    summary: str
    data: Json
    parameters: tuple[Parameter, ...] = ()
    post: bool = False
    """Whether a form may be posted instead."""


_ROWS: dict[str, _Row] = {
    "/api/v1/query": _Row(
        "An expression at one time",
        _RESULT,
        (_QUERY, Parameter("time", _TIME, "Unix seconds or RFC 3339; now if not given"), *_EVALUATION),
        post=True,
    ),
    "/api/v1/query_range": _Row(
        "An expression at many times",
        _RESULT,
        (
            _QUERY,
            _START._replace(required=True),
            _END._replace(required=True),
            Parameter("step", _DURATION, "between two times", required=True),
            *_EVALUATION,
        ),
        post=True,
    ),
    "/api/v1/series": _Row(
        "Label sets of series", array(_LABELS), (_SELECTORS._replace(required=True), *_RANGE), post=True
    ),
    "/api/v1/labels": _Row("Names of labels", array(TEXT), (_SELECTORS, *_RANGE), post=True),
    "/api/v1/label/{name}/values": _Row(
        "Values of a label",
        array(TEXT),
        (Parameter("name", TEXT, "of the label; U__ before an escaped one", True, "path"), _SELECTORS, *_RANGE),
    ),
    "/api/v1/cardinality": _Row(
        "Which metrics, labels and pairs have most series",
        record(
            series=WHOLE,
            metrics=WHOLE,
            labels=WHOLE,
            seriesByMetric=array(record(metric=TEXT, series=WHOLE)),
            valuesByLabel=array(record(label=TEXT, values=WHOLE, series=WHOLE)),
            seriesByPair=array(record(label=TEXT, value=TEXT, series=WHOLE)),
            newSeriesByHour=array(record(start=WHOLE, series=WHOLE)),
        ),
        (_SELECTORS, *_RANGE),
        post=True,
    ),
    "/api/v1/query_exemplars": _Row(
        "Exemplars of the series that an expression selects",
        array(record(seriesLabels=_LABELS, exemplars=array(_EXEMPLAR))),
        (_QUERY, _START, _END, _CONSISTENCY),
        post=True,
    ),
    "/api/v1/format_query": _Row("An expression in one form", TEXT, (_QUERY,), post=True),
    "/api/v1/parse_query": _Row("The tree of an expression", {"type": "object"}, (_QUERY,), post=True),
    "/api/v1/metadata": _Row(
        "Type, help and unit of metric families",
        _METADATA,
        (
            Parameter("metric", TEXT, "a metric family; all if not given"),
            Parameter("limit", WHOLE, "at most so many families"),
            Parameter("limit_per_metric", WHOLE, "at most so many of one family"),
            _CONSISTENCY,
        ),
    ),
    "/api/v1/status/buildinfo": _Row("Version of the API and of Tabor", by_name(TEXT)),
    "/api/v1/status/runtimeinfo": _Row("The process", {"type": "object"}),
    "/api/v1/status/flags": _Row("Limits of queries", by_name(TEXT)),
    "/api/v1/status/config": _Row("A comment: there is no such file", record(yaml=TEXT)),
    "/api/v1/status/walreplay": _Row("Always done", record(min=WHOLE, max=WHOLE, current=WHOLE, state=TEXT)),
    "/api/v1/status/tsdb": _Row(
        "How many series there are, and of which labels",
        record(
            headStats=by_name(WHOLE),
            seriesCountByMetricName=_NUMBERED,
            labelValueCountByLabelName=_NUMBERED,
            memoryInBytesByLabelName=_NUMBERED,
            seriesCountByLabelValuePair=_NUMBERED,
        ),
        (_LIMIT, _CONSISTENCY),
    ),
    **{path: _Row("Empty: Tabor does not scrape or alert", {}) for path in NOTHING},
}


def paths() -> Json:
    """The paths of `query.http`."""
    described = {path: _methods(path, row) for path, row in _ROWS.items()}
    described["/federate"] = {"get": _federate()}
    described["/api/v1/export"] = _export()
    return described | {path: {"post": _remote_read()} for path in READ_PATHS}


def queries_paths() -> Json:
    """The paths of `query.http_queries`."""
    text, number = TEXT, {"type": "number"}
    query = {
        "id": text,
        "route": text,
        "query": text,
        "start": number,
        "running_seconds": number,
        "samples": WHOLE,
    }
    query |= {"series": WHOLE, "client": text, "principal": text, "tenant": text, "request_id": text}
    shown = record(
        queries=array(record(**query, state={"enum": ["waiting", "running", "cancelled"]})),
        slow=array(record(**query, outcome=text, stages=by_name(number))),
        slow_threshold_seconds=number,
    )
    told = {"200": answer("what runs, waits and was slow", "application/json", success(shown))}
    id_ = Parameter("id", TEXT, "of the query", required=True, place="path")
    ended = {"204": answer("it will stop"), **failures({404: "no such query runs or waits"})}
    path = "/api/v1/status/queries"
    return {
        path: {"get": operation("Queries that run, wait and were slow", told)},
        path + "/{id}": {"delete": operation("End a query", ended, (id_,))},
    }


def tenants_paths() -> Json:
    """The paths of `query.http_tenants`."""
    row = record(tenant=TEXT, series=WHOLE, samples=WHOLE, bytes=WHOLE)
    row["required"] = ["tenant", "series"]
    told = answer("the tenants", "application/json", success(record(tenants=array(row), deletionsPending=WHOLE)))
    parameters = (
        Parameter("samples", {"enum": ["true", "false"]}, "whether to count samples and bytes, in all blocks"),
        Parameter("tenant", TEXT, "this one alone"),
    )
    responses = {"200": told, **failures(_WRONG | _BUSY)}
    return {"/api/v1/status/tenants": {"get": operation("Tenants and how much each has", responses, parameters)}}


def _methods(path: str, row: _Row) -> Json:
    responses = {"200": answer("what was asked for", "application/json", success(row.data))}
    if row.parameters:
        responses |= failures(_WRONG | _BUSY)
    if path.startswith("/api/v1/query"):
        responses |= failures(_TOO_MUCH)
    methods = {"get": operation(row.summary, responses, row.parameters)}
    if row.post:
        methods["post"] = operation(row.summary, responses, body=form(row.parameters))
    return methods


def admin_paths() -> Json:
    """The paths of `query.http_admin`."""
    where = "/api/v1/admin/tsdb"
    return {
        f"{where}/delete_series": _for_admins("Delete series", (_SELECTORS._replace(required=True), _START, _END)),
        f"{where}/clean_tombstones": _for_admins(
            "Nothing to do: deletions are carried out without being asked", ()
        ),
        "/api/v1/admin/delete_tenant": _for_admins(
            "Delete a tenant with all that it has", (Parameter("tenant", TEXT, "its name", required=True),)
        ),
    }


def _for_admins(summary: str, parameters: tuple[Parameter, ...]) -> Json:
    responses = {"204": answer("done"), **failures(_WRONG | _BUSY)}
    return {method: operation(summary, responses, parameters) for method in ("post", "put")}


def _export() -> Json:
    rows = answer("samples as they are stored", ARROW, {"type": "string", "format": "binary"})
    at_most = Parameter("max_samples", {"type": "integer", "minimum": 0}, "422 if there are more")
    parameters = (_SELECTORS._replace(required=True), _START, _END, at_most, _CONSISTENCY)
    responses = {"200": rows, **failures(_WRONG | _TOO_MUCH | _BUSY)}
    summary = "Samples of one selector, bit for bit"
    return {
        "get": operation(summary, responses, parameters),
        "post": operation(summary, responses, body=form(parameters)),
    }


def _federate() -> Json:
    text = answer("the newest sample of each series, in Prometheus' text format", "text/plain", TEXT)
    parameters = (_SELECTORS._replace(required=True), _CONSISTENCY)
    return operation(
        "Newest samples, for a Prometheus to scrape", {"200": text, **failures(_WRONG | _BUSY)}, parameters
    )


def _remote_read() -> Json:
    binary = {"type": "string", "format": "binary"}
    return operation(
        "Prometheus' remote read: a ReadRequest, snappy",
        {
            "200": answer("a ReadResponse of samples, snappy", "application/x-protobuf", binary),
            **failures({400: "no ReadRequest", **_BUSY, **_TOO_MUCH}),
        },
        (_CONSISTENCY,),
        {"application/x-protobuf": {"schema": binary}},
    )
