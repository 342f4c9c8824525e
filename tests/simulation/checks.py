"""What must hold of a node: it is what the log says, and the log has what was acknowledged."""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.errors import CorruptError
from common.hashing import partitions_of
from common.labels import canonical_labels, parse_canonical, series_id
from common.record import RecordBatch, decode_record
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp
from storage_node import keys
from storage_node.errors import DiskError
from tests.memory_store import matches
from tests.oracles.partition import OraclePartition
from tests.simulation.disk import SimDisk
from tests.simulation.ingest import HOUR_MS, Ledger
from tests.simulation.log import SimLog
from tests.simulation.node import SimNode

Found = dict[bytes, dict[int, int]]
_COUNTED = ("accepted", "duplicate", "late", "too_old", "orphaned", "deleted")
_LIMIT = 1 << 40


@dataclass(slots=True)
class _Model:
    """The oracle after some records, of which the offsets are known."""

    oracle: OraclePartition
    offsets: list[int]
    quarantined: int = 0


class Checker:
    """Compares nodes with oracles, and with what senders know."""

    def __init__(self, log: SimLog, ledger: Ledger, retention_ms: int | None) -> None:
        self._log = log
        self._ledger = ledger
        self._retention_ms = retention_ms
        self._models: dict[tuple[str, int], _Model] = {}

    # -- models -------------------------------------------------------------------------------------------------

    def model(self, node: SimNode, partition: int, next_offset: int) -> _Model:
        """What the records that the node was given make of a partition, up to an offset."""
        offsets = node.history(partition, next_offset)
        model = self._models.get((node.name, partition))
        if model is None or model.offsets != offsets[: len(model.offsets)]:
            model = self._models[node.name, partition] = _Model(OraclePartition(self._retention_ms), [])
        log = self._log.partitions[partition]
        values = dict(zip(log.offsets, log.values, strict=True))
        for offset in offsets[len(model.offsets) :]:
            try:
                model.oracle.apply(decode_record(values[offset]))
            except CorruptError:
                model.quarantined += 1
            model.offsets.append(offset)
        return model

    def _begun(self, partition: int, model: _Model, next_offset: int) -> list[RecordBatch]:
        """Records that the node may have begun to apply when its disk failed, with their ingestor and clock noted.

        It applies them again: they are the next one, or the one before the log was cut off.
        """
        log = self._log.partitions[partition]
        after = model.offsets[-1] + 1 if model.offsets else 0
        found = []
        for offset in (after, next_offset):
            at = bisect.bisect_left(log.offsets, offset)
            if at < len(log.offsets):
                try:
                    found.append(decode_record(log.values[at]))
                except CorruptError:
                    continue
        return found

    def is_caught_up(self, node: SimNode) -> bool:
        assert node.node is not None
        positions = node.node.views.positions()
        return all(positions[p] >= log.high_watermark for p, log in enumerate(self._log.partitions))

    # -- a node at rest -----------------------------------------------------------------------------------------

    def check(self, node: SimNode, *, with_digest: bool = False) -> None:
        """The node holds exactly what its records say: samples, counters, and on demand the digest."""
        if not node.is_open:
            return
        with node.reading(calmly=True) as real:
            found = self._select(real, [], MIN_TIME_MS, MAX_TIME_MS)
            wanted: Found = {}
            for partition, shard in real.views.shards.items():
                state = shard.state
                model = self.model(node, partition, state.next_offset)
                oracle = model.oracle
                wanted |= oracle.select(MIN_TIME_MS, MAX_TIME_MS)
                where = f"partition {partition} of {node.name} at {state.next_offset}"
                n_samples = state.n_samples
                assert n_samples == oracle.n_samples, f"{where}: {n_samples} samples, not {oracle.n_samples}"
                begun = self._begun(partition, model, state.next_offset)
                clocks = {oracle.clock_ms, *(max(oracle.clock_ms, one.created_ms) for one in begun)}
                assert state.clock_ms in clocks, f"{where}: another clock"
                heard = {producer_id for producer_id, *_ in state.producers.summary()}
                maybe = {one.producer_id for one in begun}
                assert heard - maybe == oracle.heard_ms.keys() - maybe, f"{where}: other ingestors are known"
                counted = {name: getattr(state.outcomes, name) for name in _COUNTED}
                expected = {name: getattr(oracle, name) for name in _COUNTED}
                assert counted == expected, f"{where}: counted {counted}, not {expected}"
                quarantined = state.outcomes.quarantined_records
                assert quarantined == model.quarantined, f"{where}: {quarantined} records quarantined"
                lost = state.outcomes.expired + state.outcomes.moved_twice + state.outcomes.deleted
                assert counted["accepted"] + counted["late"] == n_samples + lost, f"{where}: counters disagree"
                if with_digest:
                    assert state.digest() == oracle.digest(), f"{where}: another digest"
                self._check_segments(node, partition)
            self._compare(found, wanted, node)

    def _check_segments(self, node: SimNode, partition: int) -> None:
        """The disk has the segments that the windows list, and no others."""
        assert node.node is not None
        views = node.node.views
        state = views.shards[partition].state
        if state.dropped_before is None:
            listed = {(number, one.number) for number, window in state.windows.items() for one in window.segments}
            disk = views.disk
            assert isinstance(disk, SimDisk)
            stored = disk.disk.scan(*keys.of_partition(keys.SEGMENT_DIRECTORY, partition))
            names = {keys.segment_directory(partition, *name) for name in listed}
            assert {key for key, _ in stored} == names, f"segments of partition {partition} of {node.name}"

    def _select(self, real, matchers: list[Matcher], low: int, high: int) -> Found:  # type: ignore[no-untyped-def]
        selection = real.store.select(matchers, low, high, _LIMIT)
        found: Found = {}
        bits = selection.values.view(np.uint64)
        for row, labels in enumerate(selection.labels):
            part = slice(int(selection.offsets[row]), int(selection.offsets[row + 1]))
            times = selection.timestamps[part].tolist()
            assert times, f"{labels} has no samples"
            assert all(a < b for a, b in pairwise(times)), f"{labels}: {times} do not ascend"
            series = canonical_labels(labels)
            assert series not in found, f"{labels} is there twice"
            found[series] = dict(zip(times, bits[part].tolist(), strict=True))
        return found

    def _compare(self, found: Found, wanted: Found, node: SimNode) -> None:
        for series in found.keys() | wanted.keys():
            has, needs = found.get(series, {}), wanted.get(series, {})
            if has != needs:
                missing = sorted(needs.keys() - has.keys())
                extra = sorted(has.keys() - needs.keys())
                other = [time for time in has.keys() & needs.keys() if has[time] != needs[time]]
                labels = parse_canonical(series)
                raise AssertionError(f"{node.name}, {labels}: missing {missing}, extra {extra}, other {other}")
            for time, bits in has.items():
                assert bits in self._ledger.sent[series][time], f"{node.name}: {time} was never sent"

    # -- a node at work -----------------------------------------------------------------------------------------

    def ask(self, node: SimNode, rng: random.Random, now_ms: int) -> None:
        """A query while the node goes on: every series is as it was at some offset in the meantime."""
        matchers = random_matchers(rng)
        high = now_ms - rng.randint(-2, 30) * HOUR_MS // 2
        low = rng.choice((MIN_TIME_MS, high - rng.randint(0, 30) * HOUR_MS // 2))
        with node.reading() as real:
            before = real.views.positions()
            try:
                found = self._select(real, matchers, low, high)
            except DiskError:
                assert node.read_errors or node.disk_full or not node.is_open, "a healthy disk fails"
                return
            for partition, after in real.views.positions().items():
                first = before[partition]
                ends = [first, *(at + 1 for at in node.history(partition, after) if at >= first)]
                states = [self.model(node, partition, end).oracle.select(low, high) for end in ends]
                for series in {series for state in states for series in state}:
                    labels = parse_canonical(series)
                    if all(matches(matcher, labels) for matcher in matchers):
                        samples = found.pop(series, {})
                        allowed = [state.get(series, {}) for state in states]
                        assert samples in allowed, f"{labels} was never like {samples} between {first} and {after}"
            assert not found, f"series that do not match {matchers} or do not exist: {sorted(found)}"

    # -- in the end ---------------------------------------------------------------------------------------------

    def check_acknowledged(self, node: SimNode, *, strict: bool) -> None:
        """Every acknowledged sample that retention and deletions have left is there.

        strict: and visible. Otherwise its declaration may have been cut off, or forgotten for a clock's sake; it
        then waits under the ref of its ingestor.
        """
        with node.reading(calmly=True) as real:
            real.store.wait_caught_up(0.0)
            found = self._select(real, [], MIN_TIME_MS, MAX_TIME_MS)
            for partition, log in enumerate(self._log.partitions):
                if len(node.history(partition, log.high_watermark)) < len(log.offsets):
                    continue
                oracle = self.model(node, partition, log.high_watermark).oracle
                waiting = {} if strict else self._waiting(partition, oracle)
                for series, times in self._acknowledged_in(partition).items():
                    kept = {time for time in times if time >= oracle.horizon_ms}
                    missing = kept - found.get(series, {}).keys() - waiting.get(series, set())
                    missing -= oracle.erased.get(series, set())
                    labels = parse_canonical(series)
                    assert not missing, f"{node.name} lacks {sorted(missing)} of {labels}, which were acknowledged"

    def _acknowledged_in(self, partition: int) -> dict[bytes, set[int]]:
        series = list(self._ledger.acknowledged)
        ids = np.frombuffer(b"".join(map(series_id, series)), dtype=np.uint8).reshape(-1, 16)
        partitions = partitions_of(ids, len(self._log.partitions)).tolist() if series else []
        chosen = [one for one, its in zip(series, partitions, strict=True) if its == partition]
        return {one: self._ledger.acknowledged[one] for one in chosen}

    def _waiting(self, partition: int, oracle: OraclePartition) -> dict[bytes, set[int]]:
        """Times of samples that wait for the declaration of their series, by that series."""
        declared: dict[tuple[int, int], bytes] = {}
        for value in self._log.partitions[partition].values:
            try:
                batch = decode_record(value)
            except CorruptError:
                continue
            offsets = batch.label_offsets.tolist()
            for i, ref in enumerate(batch.declared_refs.tolist()):
                labels = batch.label_bytes[offsets[i] : offsets[i + 1]].tobytes()
                declared[batch.producer_id, ref] = labels
        waiting: dict[bytes, set[int]] = {}
        for series, samples in oracle.samples.items():
            if isinstance(series, tuple):
                waiting.setdefault(declared.get(series, b""), set()).update(samples)
        return waiting

    def check_equal(self, nodes: list[SimNode]) -> None:
        """All replicas that were given the whole log are alike."""
        for partition, log in enumerate(self._log.partitions):
            whole = [node for node in nodes if node.history(partition, log.high_watermark) == log.offsets]
            seen = {}
            for node in whole:
                assert node.node is not None
                state = node.node.views.shards[partition].state
                seen[node.name] = (state.digest(), state.n_samples, state.outcomes, state.next_offset)
            assert len({repr(one) for one in seen.values()}) <= 1, (
                f"replicas of partition {partition} differ: {seen}"
            )


def random_matchers(rng: random.Random, least: int = 0) -> list[Matcher]:
    """Up to two conditions on the labels of `ingest.label_sets`."""
    candidates = [
        Matcher(MatchOp.EQUAL, "__name__", f"m{rng.randrange(4)}"),
        Matcher(MatchOp.NOT_EQUAL, "__name__", "m1"),
        Matcher(MatchOp.REGEX, "i", rng.choice(("[0-5]", "1.*", ".*", "7|8|nothing"))),
        Matcher(MatchOp.NOT_REGEX, "i", "[3-9]"),
        Matcher(MatchOp.EQUAL, "job", rng.choice(("", "api", "größe"))),
        Matcher(MatchOp.NOT_EQUAL, "job", ""),
    ]
    return rng.sample(candidates, rng.randint(least, 2))
