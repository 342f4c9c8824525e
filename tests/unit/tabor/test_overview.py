"""What `/api/v1/status/cluster` answers of one process, and how often it looks."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from storage_node.service import PartitionProgress, Progress
from tabor.cluster.overview import Overview, of_one_process, router


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
    assert [one["replicas"] for one in found["partition_states"]] == [
        [{"node": "local", "state": "whole", "next_offset": 7, "lag": 0}],
        [{"node": "local", "state": "whole", "next_offset": 5, "lag": 4}],
    ]
    assert found["log"] == {"kind": "local", "retention_ms": 1000, "retention_bytes": None, "starts": [2, 0]}
    assert (found["under_replicated"], found["unavailable"]) == ([], [])


def test_while_it_replays_its_partitions_are_coming() -> None:
    found = ask(one_process(PartitionProgress(0, 0, 3, 9), ready=False))
    assert found["nodes"][0]["state"] == "catching up"
    assert found["partition_states"][0]["replicas"][0]["state"] == "coming"
    assert found["unavailable"] == [0]


def test_however_many_ask_it_looks_once_a_second() -> None:
    looks = []
    overview = one_process(PartitionProgress(0, 0, 3, 3))

    def counted() -> Any:
        looks.append(1)
        return overview()

    ask(counted, times=20)
    assert len(looks) == 1
