"""`GET /api/v1/status/cluster`: nodes, partitions, replicas and the log, of a cluster or of `tabor run`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from common.errors import LogUnavailable, RetryableError, StartupError

if TYPE_CHECKING:
    from fastapi import APIRouter

    from common.calling import Caller
    from common.log.kafka import KafkaLog
    from common.membership import Membership
    from storage_node.service import Progress
    from tabor.cluster.states import ClusterStatus, LogStatus

KEPT_S = 1.0
"""How old an answer may be: however many ask, Kafka is asked once in that time."""

_FORMAT = 1

Overview: TypeAlias = "Callable[[], tuple[ClusterStatus, LogStatus]]"


def of_cluster(membership: Membership, log: KafkaLog, caller: Caller) -> Overview:
    """That of the cluster that a query server follows."""
    # Imported here: `tabor run` has no Kafka, which costs a while to load.
    from tabor.cluster.reading import Reading
    from tabor.cluster.reports import Reports, with_reports
    from tabor.cluster.states import LogStatus
    from tabor.cluster.status import status_of

    reports = Reports(caller)
    retention: list[tuple[int | None, int | None]] = []

    def overview() -> tuple[ClusterStatus, LogStatus]:
        try:
            status = status_of(Reading(membership, log))
        except StartupError as error:
            raise RetryableError(str(error)) from None
        told = reports.of(membership.live(membership.cluster()))
        status = replace(status, partition_states=[with_reports(one, told) for one in status.partition_states])
        try:
            # Asked once: who changes it restarts the query servers, or reads Kafka's own tools.
            if not retention:
                retention.append(log.retention())
            return status, LogStatus("kafka", *retention[0], log.starts())
        except LogUnavailable:
            return status, LogStatus("kafka", *(retention or [(None, None)])[0], None)

    return overview


def of_one_process(
    progress: Callable[[], Progress],
    address: str,
    log_kind: str,
    retention_ms: int | None,
    retention_bytes: int | None,
) -> Overview:
    """That of `tabor run`, in the form of a cluster of one node."""

    def overview() -> tuple[ClusterStatus, LogStatus]:
        # Imported when somebody looks: nobody waits for it at start-up.
        from tabor.cluster.states import ClusterStatus, LogStatus, NodeStatus, PartitionStatus, ReplicaStatus

        found = progress()
        partitions = []
        for one in found.partitions:
            lag = max(0, one.high_watermark - one.next_offset)
            replica = ReplicaStatus("local", "whole" if found.ready else "coming", one.next_offset, lag)
            on, coming = (["local"], []) if found.ready else ([], ["local"])
            missing = [] if found.ready else ["local"]
            partitions.append(
                PartitionStatus(one.partition, [replica], on, coming, missing, one.high_watermark, lag)
            )
        lag = sum(one.lag or 0 for one in partitions)
        state, n = "ready" if found.ready else "catching up", len(partitions)
        node = NodeStatus(0, "local", "in", address, state, 0.0, n, 0 if found.ready else n, lag)
        not_whole = [] if found.ready else list(range(n))
        status = ClusterStatus(n, 1, _FORMAT, [node], partitions, not_whole, not_whole)
        starts = [one.start for one in found.partitions]
        return status, LogStatus(log_kind, retention_ms, retention_bytes, starts)

    return overview


def router(overview: Overview) -> APIRouter:
    """The route."""
    from fastapi import APIRouter

    routes = APIRouter()
    kept = _Kept(overview)

    # Not async: it asks the log, hence runs in the thread pool.
    @routes.get("/api/v1/status/cluster")
    def cluster() -> Any:
        status, log = kept.now()
        return {"status": "success", "data": {**asdict(status), "log": asdict(log), "time": time.time()}}

    return routes


class _Kept:
    """The last overview, for as long as it may be kept."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._lock = threading.Lock()
        self._found: tuple[ClusterStatus, LogStatus] | None = None
        self._since_s = 0.0

    def now(self) -> tuple[ClusterStatus, LogStatus]:
        with self._lock:
            if self._found is None or time.monotonic() - self._since_s > KEPT_S:
                self._found = self._overview()
                self._since_s = time.monotonic()
            return self._found
