"""Long work of range vectors is cut into pieces: nothing else comes out, and a query can end between them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.labels import LabelTable, StringPool
from common.parallel import n_cores
from common.store import Selection
from query.engine.budget import Budget, QueryCancelled
from query.engine.engine import Engine, EngineConfig
from query.engine.functions import pieces
from query.engine.values import Context, RangeVector, Vector
from tests.processes import wait_for

STEP_MS, N_STEPS, N_SAMPLES = 20_000, 60, 400
ROWS = (N_SAMPLES, 0, 1, N_SAMPLES, 7, 0)


class Store:
    """Counters with resets, at irregular times, some with few samples; the same for every selector."""

    def __init__(self, lengths: tuple[int, ...] = ROWS, n_ms: int = N_STEPS * STEP_MS) -> None:
        random = np.random.default_rng(3)
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        times = [np.sort(random.choice(n_ms, length, replace=False)) for length in lengths]
        labels = LabelTable.of([{"__name__": "m_total", "i": str(i)} for i in range(len(lengths))], StringPool())
        values = random.integers(0, 1000, offsets[-1]) / 8
        self._selection = Selection(labels, offsets, np.concatenate(times).astype(np.int64), values)

    def select(self, *_: object) -> Selection:
        return self._selection


QUERIES = (
    "rate(m_total[5m])",
    "increase(m_total[1m] anchored)",
    "delta(m_total[1m] smoothed)",
    "changes(m_total[2m])",
    "resets(m_total[5m] anchored)",
    "irate(m_total[1m] offset 1m)",
    "sum_over_time(m_total[5m])",
    "ts_of_max_over_time(m_total[3m])",
    "stddev_over_time(m_total[5m])",
    "quantile_over_time(0.3, m_total[5m])",
    "mad_over_time(m_total[2m])",
    "deriv(m_total[5m])",
    "predict_linear(m_total[5m], time())",
    "double_exponential_smoothing(m_total[5m], 0.5, 0.1)",
    "absent_over_time(m_total[10s])",
    "max_over_time(rate(m_total[1m])[5m:10s])",
    "sum_over_time(m_total[5m] @ 600)",
    "quantile(0.4, m_total)",
)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("looks", [1, 1000, 100_000])
def test_pieces_give_what_the_whole_gives(query: str, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> Vector:
        value = Engine(Store(), EngineConfig()).range(query, 0, N_STEPS * STEP_MS, STEP_MS).value
        assert isinstance(value, Vector)
        return value

    whole = answer()
    assert whole.present.any()
    monkeypatch.setattr(pieces, "LOOKS", looks)
    monkeypatch.setattr("query.engine.budget._CELLS_PER_CHUNK", looks)
    cut = answer()
    assert np.array_equal(cut.present, whole.present)
    assert np.array_equal(cut.values[cut.present].view(np.int64), whole.values[whole.present].view(np.int64))


@pytest.mark.parametrize(
    "query",
    [
        "sum_over_time(m_total[20m])",
        "sum_over_time(m_total[1h:1s])",
        "quantile_over_time(0.5, m_total[20m])",
        "deriv(m_total[20m])",
        "changes(m_total[20m] anchored)",
    ],
)
@pytest.mark.parametrize("n_series", [1, 50])
def test_a_query_that_is_cancelled_ends_with_the_pieces_that_are_under_way(
    query: str, n_series: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()
    done: list[int] = []
    real = pieces.in_pieces

    def in_pieces(context: Context, samples: RangeVector, run: pieces.Run, **about: Any) -> None:
        def then_cancel(rows: slice, steps: slice, offsets: NDArray[np.int64]) -> None:
            run(rows, steps, offsets)
            done.append(rows.start)
            cancelled.set()

        real(context, samples, then_cancel, **about)

    monkeypatch.setattr(pieces, "LOOKS", 20_000)
    monkeypatch.setattr("query.engine.functions.windows.in_pieces", in_pieces)
    engine = Engine(Store((N_SAMPLES,) * n_series), EngineConfig())
    with pytest.raises(QueryCancelled):
        engine.range(query, 0, N_STEPS * STEP_MS, STEP_MS, budget=Budget(10**9, 10**6, 60.0, cancelled))
    # One on each core.
    assert 1 <= len(done) <= n_cores()


def test_a_deep_query_of_one_series_ends_soon_after_it_is_cancelled() -> None:
    class Watched(Budget):
        checks = 0

        def check(self) -> None:
            super().check()
            self.checks += 1

    cancelled, outcome = threading.Event(), []
    budget = Watched(10**9, 10, 600.0, cancelled)
    engine = Engine(Store((1_000_000,), n_ms=2_000_000), EngineConfig())

    def ask() -> None:
        # In one piece it would take a minute.
        try:
            engine.range("sum_over_time(m_total[20m])", 1_200_000, 2_000_000, 40, budget=budget)
        except QueryCancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    wait_for(lambda: budget.checks > 10, "it is deep in its work")
    cancelled.set()
    thread.join(15)
    assert outcome
