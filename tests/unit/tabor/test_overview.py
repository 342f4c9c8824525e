"""What `/api/v1/status/cluster` answers of one process, and how often it looks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from common.calling import ANONYMOUS
from common.errors import RetryableError
from common.wire.reports import Copy, Report
from storage_node.service import PartitionProgress, Progress
from tabor.cluster.overview import Overview, of_one_process, router
from tabor.cluster.reports import Reports, with_reports
from tabor.cluster.states import PartitionStatus, ReplicaStatus


def one_process(*partitions: PartitionProgress, ready: bool = True) -> Overview:
    return of_one_process(
        lambda: Progress(ready, list(partitions), 0.0, None), "127.0.0.1:9080", "local", 1000, None
    )


def ask(overview: Overview, times: int = 1) -> Any:
    app = FastAPI()
    app.include_router(router(overview))

    async def send() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            answers = [await client.get("/api/v1/status/cluster") for _ in range(times)]
        return answers[-1].json()["data"]

    return asyncio.run(send())


def test_one_process_is_a_cluster_of_one_node() -> None:
    found = ask(one_process(PartitionProgress(0, 2, 7, 7), PartitionProgress(1, 0, 5, 9)))
    assert [(one["name"], one["state"], one["lag"]) for one in found["nodes"]] == [("local", "ready", 4)]
    (one,), (other,) = (one["replicas"] for one in found["partition_states"])
    assert (one["node"], one["state"], one["next_offset"], one["lag"]) == ("local", "whole", 7, 0)
    assert (other["node"], other["state"], other["next_offset"], other["lag"]) == ("local", "whole", 5, 4)
    assert found["log"] == {"kind": "local", "retention_ms": 1000, "retention_bytes": None, "starts": [2, 0]}
    assert (found["under_replicated"], found["unavailable"]) == ([], [])


def test_while_it_replays_its_partitions_are_coming() -> None:
    found = ask(one_process(PartitionProgress(0, 0, 3, 9), ready=False))
    assert found["nodes"][0]["state"] == "catching up"
    assert found["partition_states"][0]["replicas"][0]["state"] == "coming"
    assert found["unavailable"] == [0]


def partition(*replicas: ReplicaStatus) -> PartitionStatus:
    return PartitionStatus(1, list(replicas), [], [], [], 9, 0)


def digests(*compared: tuple[str, bool]) -> list[str | None]:
    """What is told of a, b and c after an audit by a."""
    report = Report({(1, node): (7, same) for node, same in compared}, {})
    found = with_reports(partition(*(ReplicaStatus(node, "whole", 9, 0) for node in "abc")), {"a": report})
    return [replica.digest for replica in found.replicas]


def test_replicas_tell_whether_they_were_equal_when_they_were_compared_last() -> None:
    assert digests(("b", True), ("c", True)) == ["equal", "equal", "equal"]
    assert digests(("b", True), ("c", False)) == ["equal", "equal", "differs"]
    assert digests(("b", False), ("c", False)) == ["differs", "differs", "differs"]
    assert digests(("c", True)) == ["equal", None, "equal"]
    assert digests() == [None, None, None]


def test_a_copy_under_way_is_told_of_with_its_bytes() -> None:
    found = with_reports(
        partition(ReplicaStatus("b", "missing", None, None)), {"b": Report({}, {1: Copy("a", 500, 900, 2.5)})}
    )
    told = found.replicas[0]
    assert (told.copied_from, told.copied_bytes, told.copied_in_s, told.copy_bytes) == ("a", 500, 2.5, 900)


def test_a_node_that_does_not_answer_has_no_report_and_nobody_is_asked_twice_in_a_moment() -> None:
    asked = []

    def fetch(member: Any) -> Report:
        asked.append(member)
        if member == "b":
            raise RetryableError("away")
        return Report({}, {})

    reports = Reports(ANONYMOUS, fetch)
    nodes: Any = {"a": "a", "b": "b"}
    assert reports.of(nodes).keys() == {"a"}
    assert reports.of(nodes).keys() == {"a"}
    assert sorted(asked) == ["a", "b"]


def test_however_many_ask_it_looks_once_a_second() -> None:
    looks = []
    overview = one_process(PartitionProgress(0, 0, 3, 3))

    def counted() -> Any:
        looks.append(1)
        return overview()

    ask(counted, times=20)
    assert len(looks) == 1
