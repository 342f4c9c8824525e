"""The storage node as a whole, over a log in memory and a real RocksDB."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest

from common.errors import StartupError
from common.log.base import Append
from common.store import MAX_TIME_MS, MIN_TIME_MS, Matcher, MatchOp, NotCaughtUp, TooManySamples, TooManySeries
from storage_node import service
from storage_node.config import NodeConfig
from storage_node.http import router
from storage_node.metrics import register
from storage_node.replay import Replayed, replay
from storage_node.service import StorageNode
from tests.disk_usage import disk_usage
from tests.memory_log import MemoryLog
from tests.unit.storage_node.batches import HOUR_MS, T0, fill, labels_of, make_batch, write

ALL = (MIN_TIME_MS, MAX_TIME_MS)


class Nodes:
    """Starts nodes on one folder and closes those that a test leaves open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[StorageNode] = []

    def config(self, **settings: object) -> NodeConfig:
        return NodeConfig("test", self.folder, **{"retry_s": 0.05, **settings})  # type: ignore[arg-type]

    def start(self, log: MemoryLog, **settings: object) -> StorageNode:
        node = StorageNode(log, self.config(**settings))
        node.start()
        self._open.append(node)
        node.store.wait_caught_up(10)
        return node

    def close(self) -> None:
        for node in self._open:
            node.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    found = Nodes(tmp_path / "data")
    yield found
    found.close()


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    event = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        event.wait(0.01)


def crash(node: StorageNode) -> None:
    """Stop a node as SIGKILL would: nothing more is written."""
    node._stop.set()
    for thread in node._threads:
        thread.join()
    node.views.close()
    node._views = None
    node._folder_lock.close()


def samples_of(node: StorageNode) -> dict[str, list[tuple[int, float]]]:
    found = node.store.select([], *ALL, max_samples=1 << 40)
    return {
        str(sorted(labels.items())): list(
            zip(
                found.timestamps[found.offsets[i] : found.offsets[i + 1]].tolist(),
                found.values[found.offsets[i] : found.offsets[i + 1]].tolist(),
                strict=True,
            )
        )
        for i, labels in enumerate(found.labels)
    }


def digests(node: StorageNode) -> list[object]:
    return [status["digest"] for status in node.partitions_status(digest=True)]


def test_a_read_that_waits_does_not_let_records_gather(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "GATHER_S", 3600.0)
    log = MemoryLog(1)
    node = nodes.start(log)
    for i in range(3):
        write(log, 0, make_batch([(0, labels_of(0))], [(0, T0 + i, 1.0)]))
        node.store.wait_caught_up(60)
        assert node.views.shards[0].samples == i + 1


def test_what_is_in_the_log_is_selected_from_all_partitions(nodes: Nodes) -> None:
    log = MemoryLog(3)
    fill(log)
    node = nodes.start(log)
    found = samples_of(node)
    assert len(found) == 15
    assert found[str(sorted(labels_of(2001).items()))] == [(T0 + i * 15_000, float(1 + i)) for i in range(20)]
    one = node.store.select([Matcher(MatchOp.EQUAL, "series", "1002")], T0 + 15_000, T0 + 30_000, 100)
    assert one.labels.labels(0) == labels_of(1002)
    assert one.timestamps.tolist() == [T0 + 15_000, T0 + 30_000]
    assert node.store.label_names([], *ALL) == ["__name__", "series"]
    assert node.store.label_values("__name__", [], *ALL) == ["metric_0", "metric_1", "metric_2"]
    metric = [Matcher(MatchOp.EQUAL, "__name__", "metric_0")]
    assert {labels["__name__"] for labels in node.store.series([metric], *ALL)} == {"metric_0"}
    assert len(node.store.series([metric, metric], *ALL)) == len(node.store.series([metric], *ALL))
    assert len(node.store.series([], T0 - HOUR_MS, T0 - 1)) == 0


def test_a_read_sees_a_record_that_was_acknowledged_before(nodes: Nodes) -> None:
    log = MemoryLog(2)
    node = nodes.start(log)
    for i in range(20):
        write(log, i % 2, make_batch([(0, labels_of(i % 2))], [(0, T0 + i, 1.0)]))
        node.store.wait_caught_up(10)
        assert sum(map(len, samples_of(node).values())) == i + 1


def test_a_read_that_waits_in_vain_names_the_partition(nodes: Nodes) -> None:
    log = MemoryLog(2)
    node = nodes.start(log)
    node._stop.set()
    for thread in node._threads:
        thread.join()
    write(log, 1, make_batch([], []))
    with pytest.raises(NotCaughtUp, match="partition 1 is at offset 0"):
        node.store.wait_caught_up(0.05)


def test_a_closed_node_continues_where_it_was(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log)
    node = nodes.start(log)
    before, digest = samples_of(node), digests(node)
    node.close()
    node = nodes.start(log)
    assert [shard.records for shard in node.views.shards.values()] == [0, 0]
    assert samples_of(node) == before
    assert digests(node) == digest


def test_a_killed_node_reads_again_what_it_had_not_made_durable(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log)
    node = nodes.start(log, head_samples=30)
    before, digest = samples_of(node), digests(node)
    crash(node)
    node = nodes.start(log)
    assert samples_of(node) == before
    assert digests(node) == digest


def test_segments_of_a_window_are_merged_without_any_change(nodes: Nodes) -> None:
    log = MemoryLog(1)
    node = nodes.start(log, head_samples=0)
    for i in range(30):
        write(log, 0, make_batch([(0, labels_of(0)), (1, labels_of(1))], [(i % 2, T0 + i, float(i))]))
        node.store.wait_caught_up(10)
    before, digest = samples_of(node), digests(node)
    wait_for(lambda: node.merges > 0)
    assert samples_of(node) == before
    assert digests(node) == digest
    window = next(iter(node.views.shards[0].state.windows.values()))
    wait_for(lambda: len(window.segments) < 20)
    crash(node)
    assert samples_of(nodes.start(log)) == before


def test_a_record_that_cannot_be_read_is_passed_over_and_counted(nodes: Nodes) -> None:
    log = MemoryLog(1)
    write(log, 0, make_batch([(0, labels_of(0))], [(0, T0, 1.0)]))
    log.append([Append(0, b"TABR" + bytes(80))]).result(5)
    write(log, 0, make_batch([], [((1 << 24), T0, 1.0)]))
    write(log, 0, make_batch([], [(0, T0 + 1, 2.0)]))
    node = nodes.start(log)
    assert list(samples_of(node).values()) == [[(T0, 1.0), (T0 + 1, 2.0)]]
    assert node.views.shards[0].state.outcomes.quarantined_records == 2
    assert node.partitions_status()[0]["next_offset"] == 4
    assert node.healthy() is None


def test_a_log_whose_start_was_cut_is_read_from_there(nodes: Nodes) -> None:
    log = MemoryLog(1)
    write(log, 0, make_batch([(0, labels_of(0))], [(0, T0, 1.0)]))
    node = nodes.start(log)
    node.close()
    for i in range(1, 4):
        write(log, 0, make_batch([], [(0, T0 + i, 2.0)]))
    log.cut(0, 3)
    node = nodes.start(log)
    assert node.cut_off_records == 2
    assert list(samples_of(node).values()) == [[(T0, 1.0), (T0 + 3, 2.0)]]


def test_samples_of_an_undeclared_series_appear_with_its_declaration(nodes: Nodes) -> None:
    log = MemoryLog(1)
    write(log, 0, make_batch([], [(0, T0, 1.0), (1, T0, 5.0)]))
    node = nodes.start(log, head_samples=0)
    assert samples_of(node) == {}
    assert node.partitions_status()[0]["samples"] == 2
    write(log, 0, make_batch([(0, labels_of(7))], [(0, T0 + 1, 2.0)]))
    node.store.wait_caught_up(10)
    assert list(samples_of(node).values()) == [[(T0, 1.0), (T0 + 1, 2.0)]]
    # The series of ref 1 exists already, with another sample at the same time: the stored one stays.
    write(log, 0, make_batch([(1, labels_of(7))], [(1, T0 + 2, 3.0)]))
    node.store.wait_caught_up(10)
    assert list(samples_of(node).values()) == [[(T0, 1.0), (T0 + 1, 2.0), (T0 + 2, 3.0)]]
    assert node.partitions_status()[0]["samples"] == 3
    assert node.views.shards[0].state.outcomes.moved_twice == 1


def test_too_many_samples_are_refused_with_the_limit(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log)
    node = nodes.start(log)
    assert len(node.store.select([], *ALL, max_samples=200).timestamps) == 200
    with pytest.raises(TooManySamples, match="more than 199 samples"):
        node.store.select([], *ALL, max_samples=199)


def test_too_many_series_of_all_partitions_are_refused_with_the_limit(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log)
    node = nodes.start(log)
    n = len(node.store.series([], *ALL))
    assert len(node.store.select([], *ALL, max_samples=200, max_series=n).labels) == n
    assert len(node.store.series([], *ALL, max_series=n)) == n
    for read in (
        lambda: node.store.select([], *ALL, max_samples=200, max_series=n - 1),
        lambda: node.store.series([], *ALL, max_series=n - 1),
    ):
        with pytest.raises(TooManySeries, match=f"more than {n - 1} series.*--query-max-series"):
            read()
    # Series that match and lie outside of the range do not count.
    assert len(node.store.select([], MIN_TIME_MS, T0 - 1, max_samples=1, max_series=0).labels) == 0


def test_status_and_progress_tell_where_the_node_is(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log, n_series=5, n_samples=20)
    node = nodes.start(log)
    wait_for(lambda: node.progress().ready)
    status = node.partitions_status(digest=True)[1]
    digest = status.pop("digest")
    assert len(str(digest)) == 32
    assert status == {
        "partition": 1, "start": 0, "next_offset": 20, "high_watermark": 20, "lag": 0,
        "series": 5, "samples": 100, "bytes": 0,
    }  # fmt: skip
    assert node.progress().seconds_left == 0


def test_retention_drops_old_windows_and_frees_their_space(nodes: Nodes) -> None:
    log = MemoryLog(1)
    random = np.random.default_rng(3)
    series = [(ref, labels_of(ref)) for ref in range(50)]
    node = nodes.start(log, retention_ms=24 * HOUR_MS, checkpoint_age_s=0.0)

    def write_at(time_ms: int) -> None:
        samples = [(ref, time_ms + i, float(random.random())) for ref in range(50) for i in range(400)]
        write(log, 0, make_batch(series, samples, created_ms=time_ms))
        node.store.wait_caught_up(10)

    def disk_bytes() -> int:
        return disk_usage(nodes.folder / "views", ".sst", ".blob")

    for day in range(4):
        write_at(T0 + day * HOUR_MS)
    shard = node.views.shards[0]
    wait_for(lambda: shard.changed_at_s is None)
    node.views.flush()
    full = disk_bytes()
    assert full > 4 * 20_000 * 6
    write_at(T0 + 30 * HOUR_MS)
    wait_for(lambda: shard.changed_at_s is None and shard.state.dropped_before is None)
    wait_for(lambda: disk_bytes() < full / 2)
    assert shard.state.outcomes.expired == 4 * 20_000
    assert node.partitions_status()[0]["samples"] == 20_000
    # What is too old is refused, whatever its series has.
    write(log, 0, make_batch([], [(0, T0, 1.0)], created_ms=T0 + 30 * HOUR_MS))
    node.store.wait_caught_up(10)
    assert shard.state.outcomes.too_old == 1
    assert len(node.store.select([], *ALL, 1 << 40).timestamps) == 20_000
    digest = digests(node)
    node.close()
    assert [row.digest_after for row in replay(log, nodes.config(retention_ms=24 * HOUR_MS))] == digest


def test_a_replay_gives_the_same_digests_and_takes_the_place_of_the_views(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log)
    node = nodes.start(log, head_samples=30)
    expected = samples_of(node)
    node.close()
    fill(log, first_ms=T0 + HOUR_MS)
    seen = []
    rows = replay(log, nodes.config(), progress=lambda done, total, samples: seen.append((done, total)))
    assert [row.partition for row in rows] == [0, 1]
    assert all(row.digest_before == row.digest_after for row in rows)
    assert seen[-1] == (80, 80)
    node = nodes.start(log)
    assert digests(node) == [row.digest_after for row in rows]
    assert sum(map(len, samples_of(node).values())) == 2 * sum(map(len, expected.values()))
    assert sorted(path.name for path in nodes.folder.iterdir()) == ["views", "views.lock"]


def test_a_replay_of_a_cut_log_is_refused_unless_forced(nodes: Nodes) -> None:
    log = MemoryLog(1)
    for i in range(4):
        write(log, 0, make_batch([(0, labels_of(0))], [(0, T0 + i, 1.0)]))
    nodes.start(log).close()
    log.cut(0, 2)
    with pytest.raises(StartupError, match="begins at offset 2"):
        replay(log, nodes.config())
    row = replay(log, nodes.config(), force=True)[0]
    assert row.digest_before != row.digest_after


@pytest.mark.parametrize("killed_at", ["rebuilt", "moved away", "moved in"])
def test_an_exchange_of_views_that_was_killed_is_finished_at_the_next_start(nodes: Nodes, killed_at: str) -> None:
    log = MemoryLog(1)
    fill(log)
    nodes.start(log).close()
    folder = nodes.folder
    views = folder / "views"
    if killed_at == "rebuilt":
        (folder / "views.ready").mkdir()
        for path in views.iterdir():
            (folder / "views.ready" / path.name).write_bytes(path.read_bytes())
    elif killed_at == "moved away":
        views.rename(folder / "views.ready")
        (folder / "views.old").mkdir()
    else:
        (folder / "views.old").mkdir()
    node = nodes.start(log)
    assert len(samples_of(node)) == 5
    assert sorted(path.name for path in folder.iterdir()) == ["views", "views.lock"]


def test_a_second_node_on_the_folder_is_refused(nodes: Nodes) -> None:
    log = MemoryLog(1)
    nodes.start(log)
    with pytest.raises(StartupError, match="in use by another process"):
        StorageNode(log, nodes.config()).start()
    with pytest.raises(StartupError, match="in use by another process"):
        replay(log, nodes.config())


def test_views_of_another_log_are_refused(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log)
    nodes.start(log, log_identity="local:a").close()
    for other, settings, message in (
        (MemoryLog(3), {"log_identity": "local:a"}, "partitions 2, not 3"),
        (log, {"log_identity": "kafka:b"}, "log 'local:a', not 'kafka:b'"),
        (MemoryLog(2), {"log_identity": "local:a"}, "the log ends at 0"),
    ):
        with pytest.raises(StartupError, match=message):
            StorageNode(other, nodes.config(**settings)).start()


def test_a_node_that_is_killed_with_sigkill_loses_nothing(nodes: Nodes) -> None:
    log = MemoryLog(2)
    fill(log, n_samples=50)
    died = subprocess.run([sys.executable, "-c", KILLED, str(nodes.folder)], capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    node = nodes.start(log)
    read_again = [shard.records for shard in node.views.shards.values()]
    assert all(0 < records < 50 for records in read_again), "some of the log was read again, not all"
    assert {len(samples) for samples in samples_of(node).values()} == {50}
    assert [row.digest_before for row in _replayed(nodes, node, log)] == digests(nodes.start(log))


def test_a_replay_of_a_node_that_shares_the_log_rebuilds_what_it_holds(nodes: Nodes) -> None:
    log = MemoryLog(3)
    fill(log)
    node = StorageNode(log, nodes.config())
    node.start(())
    node.assign([2])
    wait_for(lambda: node.ready_partitions() == {2})
    before = digests(node)
    node.close()
    rows = replay(log, nodes.config())
    assert [(row.partition, row.digest_before) for row in rows] == [(2, before[0])]
    assert [row.digest_after for row in rows] == before
    again = StorageNode(log, nodes.config())
    again.start(())
    assert list(again.views.shards) == [2]
    again.close()


def _replayed(nodes: Nodes, node: StorageNode, log: MemoryLog) -> list[Replayed]:
    node.close()
    return replay(log, nodes.config())


KILLED = """
import os, signal, sys
from pathlib import Path
from storage_node.config import NodeConfig
from storage_node.views import Views, views_folder
from tests.memory_log import MemoryLog
from tests.unit.storage_node.batches import fill

log = MemoryLog(2)
fill(log, n_samples=50)
views = Views(views_folder(Path(sys.argv[1])), 2, NodeConfig("test", Path(sys.argv[1])))
records = log.reader({0: 0, 1: 0}).poll(1)
records.sort(key=lambda record: record.offset)
views.apply(records[:30], 0.0)
views.save(0.0)
views.apply(records[30:60], 0.0)
for shard in views.shards.values():
    views.checkpoint(shard, 0.0)
views.apply(records[60:], 0.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_partitions_and_metrics_are_shown_over_http(nodes: Nodes) -> None:
    log = MemoryLog(1)
    fill(log)
    node = nodes.start(log)
    app = FastAPI()
    app.include_router(router(node))
    answer = _get(app, "/api/v1/status/partitions?digest=1")
    assert answer == {"status": "success", "data": {"partitions": node.partitions_status(digest=True)}}
    assert "digest" not in _get(app, "/api/v1/status/partitions")["data"]["partitions"][0]
    registry = CollectorRegistry()
    register(node, registry)
    text = generate_latest(registry).decode()
    assert 'tabor_storage_node_samples_total{outcome="accepted"} 100.0' in text
    assert "tabor_storage_node_series 5.0" in text


def _get(app: FastAPI, path: str) -> Any:
    async def get() -> Any:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return (await client.get(path)).json()

    return asyncio.run(get())


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import numpy as np
from storage_node.config import NodeConfig
from storage_node.service import StorageNode
from tests.memory_log import MemoryLog
from tests.unit.storage_node.batches import T0, labels_of, make_batch, write
from tests.unit.storage_node.test_service import digests, samples_of, wait_for

log = MemoryLog(1)
node = StorageNode(log, NodeConfig("test", Path(sys.argv[1]), retry_s=0.05, head_samples=0, flush_age_s=0.0))
node.start()
random = np.random.default_rng(1)
def step(i):
    samples = [(ref, T0 + i * 1000 + j, float(random.random())) for ref in range(20) for j in range(100)]
    write(log, 0, make_batch([(ref, labels_of(ref)) for ref in range(20)], samples))
step(0)
node.store.wait_caught_up(10)
wait_for(lambda: node.views.unflushed_since_s is None)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for i in range(1, 40):
    step(i)
wait_for(lambda: node.healthy() is not None)
assert "cannot" in node.healthy(), node.healthy()
assert len(samples_of(node)) == 20
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
wait_for(lambda: node.healthy() is None, 30)
node.store.wait_caught_up(30)
assert sum(map(len, samples_of(node).values())) == 80_000
digest = digests(node)
node.close()
node = StorageNode(log, NodeConfig("test", Path(sys.argv[1])))
node.start()
node.store.wait_caught_up(30)
assert digests(node) == digest
node.close()
print("recovered")
"""


def test_a_full_disk_stops_writes_not_reads_and_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "data")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[-1:] == ["recovered"], done.stdout[-2000:] + done.stderr[-4000:]
