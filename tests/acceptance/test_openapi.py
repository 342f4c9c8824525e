"""Requests made at random from /openapi.json are answered as it says, never with an error of the server itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from query.promql.printer import format_expr
from tabor.openapi import document
from tests.load import Load, wait_for_acknowledged
from tests.oracles.remote_write import snappy
from tests.processes import Process, running, tabor_run
from tests.property.test_promql import expressions, selectors

pytestmark = pytest.mark.acceptance
EXAMPLES = 12
ANSWER_S = 10
"""A request that takes longer hangs; what is asked for takes a moment."""
OPERATIONS = [
    (method, path)
    for path, methods in document(["ingest", "query", "queries", "admin", "status"])["paths"].items()
    for method in methods
    # It takes as long as it is asked to: tests/unit/tabor/test_profiling.py.
    if path != "/debug/profile"
]
CHECKED = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

# Selectors of what is there, and any expressions with them.
there = st.sampled_from(["load", 'load{batch="1"}', '{__name__=~"l.*",series!=""}', "load offset 1m", "up"])
inside = st.sampled_from(
    ["rate({}[5m])", "sum by (batch) ({})", "topk(3, {})", "{} / 0", "{}[1h:1m]", "-{} @ end()"]
)
schemathesis.openapi.format(
    "promql", st.one_of(st.builds(str.format, inside, there), expressions(depth=2).map(format_expr))
)
schemathesis.openapi.format("promql-selector", st.one_of(there, selectors().map(format_expr)))


@schemathesis.serializer("application/x-protobuf")
def compressed(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Whatever it is, it gets past the decompression."""
    return snappy(getattr(value, "data", None) or str(value).encode("utf-8", "surrogateescape"))


@pytest.fixture(scope="module")
def tabor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    server = tabor_run(tmp_path_factory.mktemp("openapi"))
    with running(server):
        server.start_and_wait()
        load = Load(n_batches=2, n_series=10)
        load.start(server)
        wait_for_acknowledged(load, 2_000)
        load.stop()
        yield server


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_requests_made_from_the_description_are_answered_as_it_says(
    tabor: Process, method: str, path: str
) -> None:
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{tabor.port}/openapi.json")[path][method]

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(described.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(timeout=ANSWER_S)
        # 503 says that too much is asked at once or for too long, which one request at a time may not do.
        assert answer.status_code < 500
        case.validate_response(answer, CHECKED)

    ask()
