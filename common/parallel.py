"""Kernels on all cores: they release the GIL, and rows do not depend on one another."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import islice, pairwise
from typing import TypeVar

T = TypeVar("T")

LEAST_WORK = 200_000
"""Samples and cells below which a second thread costs more than it brings."""
AHEAD_PER_CORE = 2
"""Jobs of `in_order` that are begun or done before they are asked for."""


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, n_cores() - 1), thread_name_prefix="kernels")


@cache
def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_all(jobs: Sequence[Callable[[], None]]) -> None:
    """Run the jobs, which must not wait for one another, and return when all are done; raises what one raised.

    The caller works too, and takes what no thread has begun: however many callers there are, none waits for a
    thread to be free.
    """
    if len(jobs) <= 1:
        for job in jobs:
            job()
        return
    futures = [_threads().submit(job) for job in jobs[1:]]
    try:
        jobs[0]()
        for future, job in zip(reversed(futures), reversed(jobs), strict=False):
            if future.cancel():
                job()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled():
            future.result()


def in_rows(n_rows: int, work: int, run: Callable[[slice], None]) -> None:
    """Call `run` for all rows [0, n_rows): in a part for each core where the work, in samples, is worth it."""
    n_parts = min(n_cores(), n_rows, work // LEAST_WORK + 1)
    if n_parts <= 1:
        run(slice(0, n_rows))
        return
    bounds = [n_rows * part // n_parts for part in range(n_parts + 1)]
    run_all([partial(run, slice(first, last)) for first, last in pairwise(bounds)])


def in_order(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What the jobs, which must not wait for one another, return, in their order; raises what one raised.

    Some of them are run before they are asked for: AHEAD_PER_CORE for each core. Whoever asks works too, as in
    `run_all`, and after it has closed the iterator no further job is begun.
    """
    left = iter(jobs)
    begun: deque[tuple[Future[T], Callable[[], T]]] = deque()
    first = list(islice(left, 2))
    if len(first) < 2 or n_cores() == 1:
        yield from (job() for job in first)
        yield from (job() for job in left)
        return
    try:
        begun.extend((_threads().submit(job), job) for job in first)
        while begun:
            room = AHEAD_PER_CORE * n_cores() - len(begun)
            begun.extend((_threads().submit(job), job) for job in islice(left, room))
            future, job = begun.popleft()
            if future.cancel():
                yield job()
                continue
            _work_until_done(future, begun)
            yield future.result()
    finally:
        for future, _ in begun:
            future.cancel()


def _work_until_done(future: Future[T], begun: deque[tuple[Future[T], Callable[[], T]]]) -> None:
    """Run what no thread has begun, instead of waiting for one that is running."""
    for place, (other, job) in enumerate(begun):
        if future.done():
            return
        if other.cancel():
            begun[place] = _outcome(job), job


def _outcome(job: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(job())
    except Exception as error:
        future.set_exception(error)
    return future
