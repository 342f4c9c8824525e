"""Reads made at random from their description are answered as it says, never with an error of the node itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import content_type_conformance, not_a_server_error, status_code_conformance

from query.pushdown.answering import evaluate
from storage_node.reads_http import NodeReads
from tabor.openapi import document
from tests.integration.test_remote_store import Node
from tests.served import served

PATHS = [path for path in document(["reads"])["paths"] if path.startswith("/internal/")]
CHECKED = [not_a_server_error, status_code_conformance, content_type_conformance]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    node = Node("one")
    reads = NodeReads(node.name, node, evaluate=evaluate)
    app = FastAPI()
    app.include_router(reads.router())
    with served(app) as where:
        yield where
    reads.close()


@pytest.mark.parametrize("path", PATHS)
def test_reads_made_from_the_description_are_answered_as_it_says(address: str, path: str) -> None:
    described = schemathesis.openapi.from_dict(document(["reads"]))[path]["post"]

    @seed(1)
    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(described.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict):
            # Or else all were meant for another node, and some waited for what does not come.
            case.body = {**case.body, "node": "one", "wait_s": 0}
        answer = case.call(base_url=f"http://{address}", timeout=10)
        case.validate_response(answer, CHECKED)
        assert b'"internal"' not in answer.content

    ask()
