"""Work on several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from common import parallel
from common.parallel import AHEAD_PER_CORE, LEAST_WORK, in_order, in_rows, run_all


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


@pytest.mark.parametrize("n_cores", [1, 3])
@pytest.mark.parametrize("n_jobs", [0, 1, 2, 50])
def test_what_jobs_return_comes_in_their_order(n_jobs: int, n_cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: n_cores)
    assert list(in_order(partial(int, i) for i in range(n_jobs))) == list(range(n_jobs))


def test_a_single_job_stays_on_the_thread_of_the_caller() -> None:
    assert list(in_order([threading.get_ident])) == [threading.get_ident()]


def test_an_error_comes_in_the_place_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)

    def fail() -> int:
        raise ValueError("no")

    results = in_order([lambda: 0, lambda: 1, fail, lambda: 3, lambda: 4])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="no"):
        next(results)


def test_few_jobs_are_begun_before_they_are_asked_for_and_none_after_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)
    given = 0

    def jobs() -> Iterator[Callable[[], int]]:
        nonlocal given
        for i in range(1000):
            given += 1
            yield partial(int, i)

    results = in_order(jobs())
    for i in range(10):
        assert next(results) == i
        assert given <= i + 1 + 2 * AHEAD_PER_CORE
    before = given
    results.close()  # type: ignore[attr-defined]
    assert given == before


def test_what_waits_for_a_thread_when_nobody_asks_any_more_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)
    threads = parallel._threads()
    busy = threading.Event()
    blockers = [threads.submit(busy.wait, 30) for _ in range(threads._max_workers)]
    ran: list[int] = []
    results = in_order(partial(ran.append, i) for i in range(10))
    next(results)
    results.close()  # type: ignore[attr-defined]
    busy.set()
    assert all(blocker.result(30) for blocker in blockers)
    threads.submit(int).result(30)
    assert ran == [0]


def test_who_asks_works_while_another_thread_is_at_the_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)
    others = threading.Semaphore(0)
    # The first job ends when all others have been run, of which the pool's one thread may be no help.
    jobs = [lambda: all(others.acquire(timeout=30) for _ in range(3)), *([lambda: others.release() or True] * 3)]
    assert list(in_order(jobs)) == [True] * 4


def test_jobs_in_order_may_be_asked_for_on_the_threads_that_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_cores", lambda: 2)
    callers = [
        parallel._threads().submit(lambda: list(in_order(partial(int, i) for i in range(20))))
        for _ in range(parallel.n_cores() + 3)
    ]
    assert [caller.result(30) for caller in callers] == [list(range(20))] * len(callers)
