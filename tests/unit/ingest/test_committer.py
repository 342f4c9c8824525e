"""The committer's own promises, with work that is made up here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from common.errors import LogUnavailable
from common.log.base import Append
from common.record import decode_record
from ingest.batcher import Batcher
from ingest.committer import GroupCommitter
from ingest.config import MAX_ACTIVE_SERIES, IngestConfig
from ingest.errors import QueueFull
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


class GatedLog(MemoryLog):
    """Says how many records each append had, and can be waited for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.sizes: list[int] = []

    def append(self, records: Sequence[Append]) -> Future[list[int]]:
        self.sizes.append(sum(len(decode_record(record.value).refs) for record in records))
        return super().append(records)


def make_patient(log: MemoryLog, linger_s: float) -> GroupCommitter[Taken]:
    batcher = Batcher(log.partitions, 10, 1000, None)
    return GroupCommitter(batcher, log, IngestConfig(linger_s=linger_s), own_metrics(), lambda: 0)


def test_the_items_of_a_lone_sender_wait_for_nobody() -> None:
    log = GatedLog()
    committer = make_patient(log, 3600.0)
    committer.start()
    for i in range(5):
        assert committer.offer(partial(put, value=float(i)), 1).result(60.0) == Taken(1)
    assert log.sizes == [1] * 5
    assert committer.close(60.0)


def test_senders_that_were_seen_together_share_a_group_again() -> None:
    log = GatedLog()
    committer = make_patient(log, 3600.0)
    first = [committer.offer(lambda batcher: put(batcher, 1.0), 1) for _ in range(3)]
    committer.start()
    for future in first:
        future.result(60.0)
    # One after another now, and yet none of them is sent before the third has come.
    again = []
    for _ in range(3):
        assert log.sizes == [3]
        again.append(committer.offer(lambda batcher: put(batcher, 1.0), 1))
    for future in again:
        future.result(60.0)
    assert log.sizes == [3, 3]
    assert committer.close(60.0)


def test_a_sender_that_stays_away_holds_the_others_up_for_a_linger_at_most() -> None:
    log = GatedLog()
    committer = make_patient(log, 0.01)
    both = [committer.offer(lambda batcher: put(batcher, 1.0), 1) for _ in range(2)]
    committer.start()
    for future in both:
        future.result(60.0)
    for _ in range(2):
        assert committer.offer(lambda batcher: put(batcher, 1.0), 1).result(60.0) == Taken(1)
    assert log.sizes == [2, 1, 1]
    assert committer.close(60.0)


@pytest.mark.parametrize(
    "limits", [{"max_body_bytes": 0}, {"linger_s": -1.0}, {"max_active_series": MAX_ACTIVE_SERIES + 1}]
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        IngestConfig(**limits)


def several(n: int) -> Callable[[Batcher], Taken]:
    def take(batcher: Batcher) -> Taken:
        for i in range(n):
            put(batcher, float(i))
        return Taken(n)

    return take


def test_while_two_tenants_send_groups_are_small_and_take_of_both() -> None:
    log = GatedLog()
    config = IngestConfig(shared_group_samples=10, max_group_samples=1000)
    committer: GroupCommitter[Taken] = GroupCommitter(
        Batcher(1, 10, 1000, None), log, config, own_metrics(), lambda: 0
    )
    futures = [committer.offer(several(8), 10, tenant="flood") for _ in range(10)]
    futures += [committer.offer(several(1), 10, tenant="victim")]
    committer.start()
    for future in futures:
        future.result(60.0)
    assert committer.close(60.0)
    # The victim's item is the second of all, whatever was there before it.
    assert log.sizes[0] == 8 + 1 + 8
    assert all(size <= 17 for size in log.sizes)


def test_one_tenant_alone_is_sent_in_large_groups() -> None:
    for tenant in ("", "only"):
        log = GatedLog()
        committer: GroupCommitter[Taken] = GroupCommitter(
            Batcher(1, 10, 1000, None), log, IngestConfig(shared_group_samples=10), own_metrics(), lambda: 0
        )
        futures = [committer.offer(several(8), 10, tenant=tenant) for _ in range(10)]
        committer.start()
        for future in futures:
            future.result(60.0)
        assert log.sizes == [80]
        assert committer.close(60.0)


def test_a_tenant_may_fill_a_part_of_the_queue_only() -> None:
    log = MemoryLog(1)
    config = IngestConfig(max_queued_requests=8)
    committer: GroupCommitter[Taken] = GroupCommitter(
        Batcher(1, 10, 1000, None), log, config, own_metrics(), lambda: 0
    )
    for _ in range(2):
        committer.offer(several(1), 1, tenant="flood")
    with pytest.raises(QueueFull, match="of tenant flood"):
        committer.offer(several(1), 1, tenant="flood")
    committer.offer(several(1), 1, tenant="other")
    for _ in range(5):
        committer.offer(several(1), 1)
    with pytest.raises(QueueFull, match="too many writes are"):
        committer.offer(several(1), 1, tenant="third")
    committer.start()
    assert committer.close(60.0)
