"""Records that are applied together have the outcome that they have one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.log.base import LogRecord
from common.record import RecordBatch, encode_record
from storage_node.config import NodeConfig
from storage_node.partition import PartitionState
from storage_node.producers import FORGET_AFTER_MS, MAX_REFS
from storage_node.views import Views
from tests.memory_disk import MemoryDisk
from tests.unit.storage_node.batches import HOUR_MS, T0, labels_of, make_batch

DAY_MS = 24 * HOUR_MS
FOLDER = Path("unused")

refs = st.integers(0, 2)
# Rarely one that no record may use.
sampled_refs = st.integers(0, 60).map(lambda number: MAX_REFS if number == 60 else number % 3)
batches = st.builds(
    lambda declared, samples, producer_id: (declared, samples, producer_id),
    st.lists(st.tuples(refs, st.integers(0, 2)), max_size=2) | st.just([]),
    st.lists(st.tuples(sampled_refs, st.integers(0, 20), st.floats(0, 3)), max_size=5),
    st.sampled_from([1, 1, 1, 2]),
)
steps_ms = st.sampled_from([0, 0, 0, 1, 1, -5, HOUR_MS, 4 * HOUR_MS, FORGET_AFTER_MS, FORGET_AFTER_MS + 1])


def records_of(batches: list[tuple[RecordBatch, bool]]) -> list[LogRecord]:
    values = [(encode_record(batch), damaged) for batch, damaged in batches]
    return [LogRecord(0, i, b"x" + value[1:] if damaged else value) for i, (value, damaged) in enumerate(values)]


def state_after(records: list[LogRecord], *, together: bool, retention_ms: int | None = None) -> dict[str, object]:
    views = Views(FOLDER, 1, NodeConfig("test", FOLDER, retention_ms=retention_ms), disk=MemoryDisk())
    for part in [records] if together else [[record] for record in records]:
        views.apply(part, 0.0)
    shard, state = views.shards[0], views.shards[0].state
    state.resolve()
    return {
        "digest": state.digest(),
        "outcomes": asdict(state.outcomes),
        "next_offset": state.next_offset,
        "clock_ms": state.clock_ms,
        "horizon_ms": state.horizon_ms,
        "producers": state.producers.summary(),
        "series": len(state.series),
        "counted": (shard.records, shard.samples),
    }


@given(
    st.lists(st.tuples(batches, steps_ms, st.integers(0, 9)), min_size=1, max_size=12),
    st.sampled_from([None, 6 * HOUR_MS]),
)
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_records_of_one_poll_have_the_outcome_that_they_have_one_by_one(
    plan: list[tuple[tuple[list[tuple[int, int]], list[tuple[int, int, float]], int], int, int]],
    retention_ms: int | None,
) -> None:
    now_ms = T0 + DAY_MS
    made = []
    for (declared, samples, producer_id), step_ms, chance in plan:
        now_ms += step_ms
        batch = make_batch(
            [(ref, labels_of(series)) for ref, series in declared],
            [(ref, now_ms - 10 + offset, value) for ref, offset, value in samples],
            producer_id=producer_id,
            created_ms=now_ms,
        )
        made.append((batch, chance == 0))
    records = records_of(made)
    assert state_after(records, together=True, retention_ms=retention_ms) == state_after(
        records, together=False, retention_ms=retention_ms
    )


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offset and number of samples of each call of the state machine."""
    calls = []
    apply: Callable[[PartitionState, int, RecordBatch], None] = PartitionState.apply

    def note(state: PartitionState, offset: int, batch: RecordBatch) -> None:
        calls.append((offset, len(batch.refs)))
        apply(state, offset, batch)

    monkeypatch.setattr(PartitionState, "apply", note)
    return calls


def test_records_of_one_ingestor_without_declarations_are_applied_in_one_go(
    applied: list[tuple[int, int]],
) -> None:
    made = [make_batch([(0, labels_of(0))] if i % 5 == 0 else [], [(0, T0 + i, 1.0)]) for i in range(10)]
    state_after(records_of([(batch, False) for batch in made]), together=True)
    assert applied == [(4, 5), (9, 5)]


def test_one_bad_record_among_many_is_the_only_one_passed_over() -> None:
    made = [make_batch([(0, labels_of(0))], [(0, T0, 1.0)])]
    made += [make_batch([], [(MAX_REFS if i == 3 else 0, T0 + i, 1.0)]) for i in range(1, 6)]
    after = state_after(records_of([(batch, i == 5) for i, batch in enumerate(made)]), together=True)
    outcomes = after["outcomes"]
    assert isinstance(outcomes, dict)
    assert (outcomes["accepted"], outcomes["quarantined_records"]) == (4, 2)
    assert after["counted"] == (6, 4)


def test_records_that_were_applied_already_are_passed_over() -> None:
    records = records_of([(make_batch([(0, labels_of(0))], [(0, T0 + i, 1.0)]), False) for i in range(4)])
    views = Views(FOLDER, 1, NodeConfig("test", FOLDER), disk=MemoryDisk())
    views.apply(records[:2], 0.0)
    views.apply(records, 0.0)
    assert views.shards[0].samples == views.shards[0].records == 4
