"""Kernels on all cores: they release the GIL, and rows do not depend on one another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import pairwise

LEAST_WORK = 200_000
"""Samples and cells below which a second thread costs more than it brings."""


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
    futures = [_threads().submit(job) for job in jobs[1:]]
    try:
        for job in jobs[:1]:
            job()
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
