"""Work on several threads."""

from __future__ import annotations

import threading

import pytest

from common import parallel
from common.parallel import LEAST_WORK, in_rows, run_all


@pytest.mark.parametrize(("n_rows", "work"), [(0, 0), (1, 10**9), (7, 10), (7, 10**9), (1000, 3 * LEAST_WORK)])
def test_every_row_is_run_once(n_rows: int, work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 3)
    found: list[int] = []
    in_rows(n_rows, work, lambda rows: found.extend(range(rows.start, rows.stop)))
    assert sorted(found) == list(range(n_rows))


def test_little_work_stays_on_the_thread_of_the_caller() -> None:
    threads: list[int] = []
    in_rows(100, LEAST_WORK - 1, lambda rows: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]


def test_an_error_in_any_job_is_raised_when_all_have_ended() -> None:
    done: list[int] = []

    def fail() -> None:
        raise ValueError("no")

    for jobs in ([fail, lambda: done.append(1)], [lambda: done.append(1), fail]):
        with pytest.raises(ValueError, match="no"):
            run_all(jobs)


def test_callers_make_progress_though_no_thread_is_free() -> None:
    """As many callers as wait for one another in their first jobs: the other jobs are run by the callers."""
    n = parallel.n_cores() + 3
    barrier = threading.Barrier(n)
    done: list[int] = []

    def call() -> None:
        run_all([lambda: barrier.wait(30) and None, *([lambda: done.append(1)] * 3)])

    callers = [threading.Thread(target=call) for _ in range(n)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert len(done) == 3 * n
