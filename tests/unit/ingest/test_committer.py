"""The committer's own promises, with work that is made up here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from common.errors import LogUnavailable
from ingest.batcher import Batcher
from ingest.committer import GroupCommitter
from ingest.config import MAX_ACTIVE_SERIES, IngestConfig
from tests.memory_log import MemoryLog
from tests.unit.ingest.logs import own_metrics, samples_of


class Taken(NamedTuple):
    n_samples: int


def make(log: MemoryLog) -> GroupCommitter[Taken]:
    return GroupCommitter(Batcher(log.partitions, 10, 1000, None), log, IngestConfig(), own_metrics(), lambda: 0)


def put(batcher: Batcher, value: float) -> Taken:
    slots, _ = batcher.table.add(np.array([[1, 2]], dtype=np.uint64), [b"\x08__name__\x01m"])
    at = batcher.n_samples
    batcher.slots[at], batcher.timestamps[at] = slots[0], 1
    batcher.values[at] = np.array([value]).view(np.uint64)[0]
    batcher.n_samples += 1
    return Taken(1)


def test_work_that_fails_half_way_leaves_nothing_in_the_group() -> None:
    log = MemoryLog(1)
    committer = make(log)

    def fail(batcher: Batcher) -> Taken:
        put(batcher, 13.0)
        raise ZeroDivisionError

    futures = [committer.offer(work, 1) for work in (lambda b: put(b, 1.0), fail, lambda b: put(b, 2.0))]
    committer.start()
    with pytest.raises(ZeroDivisionError):
        futures[1].result(60.0)
    assert futures[0].result(60.0) == futures[2].result(60.0) == Taken(1)
    assert committer.close(60.0)
    assert samples_of(log) == {(("__name__", "m"),): [(1, 1.0), (1, 2.0)]}


def test_work_offered_to_a_committer_that_never_starts_fails_when_it_closes() -> None:
    committer = make(MemoryLog(1))
    future = committer.offer(lambda batcher: put(batcher, 1.0), 1)
    assert not committer.close(0.01)
    with pytest.raises(LogUnavailable, match="closed before"):
        future.result(0.0)


@pytest.mark.parametrize(
    "limits", [{"max_body_bytes": 0}, {"linger_s": -1.0}, {"max_active_series": MAX_ACTIVE_SERIES + 1}]
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        IngestConfig(**limits)
