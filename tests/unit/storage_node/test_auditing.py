"""Marks in the log, and the comparison of replicas at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from common.calling import ANONYMOUS
from common.control.members import Member
from common.errors import RetryableError
from common.log.base import Append
from common.membership import Membership
from common.record import NOTHING, encode_record
from common.store import NotCaughtUp
from common.wire.frames import WireError
from common.wire.peers import ask_to_repair, fetch_mark, fetch_report
from common.wire.reports import Copy, Report, parse_report
from storage_node.auditing import Auditor
from storage_node.config import NodeConfig
from storage_node.errors import NotHeld
from storage_node.marks import MAX_MARKS
from storage_node.marks_http import router
from storage_node.report_http import router as report_router
from storage_node.service import StorageNode
from tests.memory_control import Broker
from tests.memory_log import MemoryLog
from tests.served import served
from tests.unit.storage_node.batches import T0, fill, make_batch, write

MARK = encode_record(NOTHING)


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(2)
    fill(log, n_samples=50)
    return log


@pytest.fixture
def nodes(tmp_path: Path, log: MemoryLog) -> Iterator[list[StorageNode]]:
    """Two replicas of everything."""
    nodes = [StorageNode(log, NodeConfig(name, tmp_path / name)) for name in "ab"]
    for node in nodes:
        node.start()
        node.store.wait_caught_up(10)
    yield nodes
    for node in nodes:
        node.close()


def mark(log: MemoryLog, partition: int) -> int:
    return log.append([Append(partition, MARK)]).result(5)[0]


def peer(node: StorageNode, name: str, repaired: list[int] | None = None) -> FastAPI:
    app = FastAPI()
    app.include_router(router(name, node, [].append if repaired is None else repaired.append))
    return app


def test_replicas_have_equal_digests_at_a_mark_however_far_each_has_come_since(
    nodes: list[StorageNode], log: MemoryLog
) -> None:
    offset = mark(log, 1)
    first = nodes[0].mark(1, offset, wait_s=10)
    for i in range(5):
        write(log, 1, make_batch([], [(0, T0 + 10_000_000 + i, 1.0)]))
    nodes[1].store.wait_caught_up(10)
    assert nodes[1].mark(1, offset) == first
    assert nodes[1].mark(1, mark(log, 1), wait_s=10).digest != first.digest


def test_a_mark_changes_no_sample_and_few_are_remembered(nodes: list[StorageNode], log: MemoryLog) -> None:
    before = nodes[0].partitions_status(digest=True)[0]["digest"]
    offsets = [mark(log, 0) for _ in range(MAX_MARKS + 1)]
    nodes[0].store.wait_caught_up(10)
    assert nodes[0].partitions_status(digest=True)[0]["digest"] == before
    assert {nodes[0].mark(0, offset).digest for offset in offsets[1:]} == {before}
    with pytest.raises(RetryableError, match="is not remembered"):
        nodes[0].mark(0, offsets[0])
    with pytest.raises(NotCaughtUp):
        nodes[0].mark(0, offsets[-1] + 1)
    with pytest.raises(NotHeld):
        nodes[0].mark(7, 0)


def auditor(node: StorageNode, log: MemoryLog) -> Auditor:
    return Auditor(Membership(Broker().topic()), log, node, "a")


def member(address: str) -> Member:
    return Member("b", "i", address, {0: 50, 1: 50}, frozenset(), True, False, 0, 0.0)


def test_an_audit_names_the_replica_and_the_window_that_differ_until_they_do_not(
    nodes: list[StorageNode], log: MemoryLog
) -> None:
    audit = auditor(nodes[0], log)
    with served(peer(nodes[1], "b")) as address:
        audit.audit(1, [member(address)])
        assert (audit.comparisons, audit.differing) == (1, frozenset())
        number, window = next(iter(nodes[1].views.shards[1].state.windows.items()))
        window.lane_a ^= 1
        with capture_logs() as logs:
            audit.audit(1, [member(address)])
        assert audit.differing == {(1, "b")}
        assert [same for _, same in audit.compared.values()] == [False]
        (said,) = [one for one in logs if one["event"] == "replicas_differ"]
        assert (said["node"], said["partition"], said["window_start_ms"]) == ("b", 1, number * 4 * 3_600_000)
        window.lane_a ^= 1
        audit.audit(1, [member(address)])
        assert audit.differing == frozenset()
        assert [same for _, same in audit.compared.values()] == [True]


def test_a_node_reports_its_audits_and_copies(nodes: list[StorageNode], log: MemoryLog) -> None:
    audit = auditor(nodes[0], log)
    audit.compared[1, "b"] = 7, True
    acquirer: Any = SimpleNamespace(copying={3: Copy("c", 500, 900, 2.5), 4: Copy("c", 5, None, 0.0)})
    app = FastAPI()
    app.include_router(report_router("a", acquirer, audit))
    with served(app) as address:
        copying = {3: Copy("c", 500, 900, 2.5), 4: Copy("c", 5, None, 0.0)}
        assert fetch_report("a", address, ANONYMOUS, 5.0) == Report({(1, "b"): (7, True)}, copying)
        with pytest.raises(RetryableError, match="this is node 'a', not 'z'"):
            fetch_report("z", address, ANONYMOUS, 5.0)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"v":2}', b'{"v":1,"compared":[[1]],"copying":[]}'])
def test_what_is_no_report_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        parse_report(body)


def test_a_peer_that_does_not_answer_is_not_compared(
    nodes: list[StorageNode], log: MemoryLog, monkeypatch: Any
) -> None:
    monkeypatch.setattr("storage_node.auditing.MARK_WAIT_S", 0.3)
    audit = auditor(nodes[0], log)
    with served(peer(nodes[1], "somebody else")) as address:
        audit.audit(0, [member(address)])
    assert (audit.comparisons, audit.differing) == (0, frozenset())


def test_marks_and_repairs_are_asked_for_over_http(nodes: list[StorageNode], log: MemoryLog) -> None:
    import httpx

    repaired: list[int] = []
    with served(peer(nodes[1], "b", repaired)) as address:
        offset = mark(log, 0)
        digest, windows = fetch_mark("b", address, 0, offset, wait_s=10)
        assert (digest, windows) == (nodes[0].mark(0, offset, wait_s=10).digest, nodes[0].mark(0, offset).windows)
        ask_to_repair("b", address, 1)
        assert repaired == [1]
        with pytest.raises(RetryableError, match="does not hold partition 9"):
            ask_to_repair("b", address, 9)
        with pytest.raises(RetryableError, match="this is node 'b'"):
            fetch_mark("c", address, 0, offset)
        for body in (b"", b"[]", b'{"v":1}', b'{"v":1,"node":"b","partition":"0","offset":1}'):
            status = httpx.post(f"http://{address}/internal/v1/mark", content=body, trust_env=False).status_code
            assert status == 400
        large = httpx.post(f"http://{address}/internal/v1/mark", content=b" " * 5000, trust_env=False)
        assert large.status_code == 413
