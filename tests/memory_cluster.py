"""A store spread over nodes in memory, for tests of what is pushed down to nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from common.store import ANY_NUMBER, Matcher, Selection, SeriesStore, check_n_samples, check_n_series
from common.wire import answers
from common.wire.evaluation import Evaluation
from common.wire.frames import FrameReader
from common.wire.matrices import StepMatrix, read_matrix
from common.wire.requests import ReadRequest, encode_request, parse_request
from query.joining import join_selections
from query.pushdown.answering import evaluate
from tests.memory_store import MemoryStore


class MemoryCluster(MemoryStore):
    """Nodes that speak in frames, as they do over HTTP. Only what the engine asks of a store.

    evaluations: what was pushed down. refused: why nodes have not evaluated something.
    """

    def __init__(self, nodes: Iterable[SeriesStore]) -> None:
        super().__init__()
        self.nodes = list(nodes)
        self.evaluations: list[Evaluation] = []
        self.refused: list[str] = []

    def select(
        self,
        matchers: Sequence[Matcher],
        min_time_ms: int,
        max_time_ms: int,
        max_samples: int,
        max_series: int = ANY_NUMBER,
    ) -> Selection:
        self.selects.append((tuple(matchers), min_time_ms, max_time_ms))
        found = [node.select(matchers, min_time_ms, max_time_ms, max_samples, max_series) for node in self.nodes]
        check_n_series(sum(len(one.labels) for one in found), max_series)
        check_n_samples(sum(len(one.timestamps) for one in found), max_samples)
        return join_selections(found)

    def evaluate(
        self,
        evaluation: Evaluation,
        n_columns: int,
        max_samples: int,
        max_series: int,
        check: Callable[[], None],
    ) -> list[StepMatrix]:
        check()
        self.evaluations.append(evaluation)
        request = ReadRequest("n", (0,), None, 0.0, (), 0, 0, max_samples, max_series, evaluation=evaluation)
        body = encode_request(request)
        found = []
        for node in self.nodes:
            try:
                frames = b"".join(evaluate(node, parse_request(body), (threading.Event(),)))
            except Exception as error:
                said = answers.error_content(error)
                if said["type"] == "internal":
                    raise
                self.refused.append(said["message"])
                raise answers.error_of(said) from error
            found.append(read_matrix(FrameReader([frames]), evaluation.n_steps, n_columns, max_samples))
        return found
