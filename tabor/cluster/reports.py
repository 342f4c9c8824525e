"""Asks storage nodes for their audits and copies, for the overview of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from common.calling import Caller
from common.control.members import Member
from common.errors import RetryableError
from common.wire.peers import fetch_report
from common.wire.reports import Report
from tabor.cluster.states import PartitionStatus, ReplicaStatus

KEPT_S = 5.0
TIMEOUT_S = 2.0
AT_ONCE = 8

Fetch = Callable[[Member], Report]


class Reports:
    """The reports of all nodes, at most KEPT_S old. One thread at a time; a node that does not answer has none."""

    def __init__(self, caller: Caller, fetch: Fetch | None = None) -> None:
        def ask(member: Member) -> Report:
            return fetch_report(member.name, member.address, caller, TIMEOUT_S)

        self._fetch = fetch or ask
        self._found: dict[str, Report] = {}
        self._since_s = float("-inf")

    def of(self, live: Mapping[str, Member]) -> dict[str, Report]:
        """By name of the node."""
        if time.monotonic() - self._since_s > KEPT_S:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="report") as threads:
                reports = threads.map(self._ask, live.values())
                self._found = {name: one for name, one in zip(live, reports, strict=True) if one is not None}
            self._since_s = time.monotonic()
        return self._found

    def _ask(self, member: Member) -> Report | None:
        try:
            return self._fetch(member)
        except RetryableError:
            return None


def with_reports(partition: PartitionStatus, reports: Mapping[str, Report]) -> PartitionStatus:
    """The same, and which replicas were equal when they were compared last, and what is being copied."""
    number = partition.partition
    found = {
        node: (report, *known)
        for report, one in reports.items()
        for (p, node), known in one.compared.items()
        if p == number
    }

    def told(replica: ReplicaStatus) -> ReplicaStatus:
        audits = [(offset, same) for node, (auditor, offset, same) in found.items() if replica.node == auditor]
        if replica.state == "missing":
            pass
        elif replica.node in found:
            _, offset, same = found[replica.node]
            replica = replace(replica, digest="equal" if same else "differs", compared_at=offset)
        elif audits:
            # It is what the others are compared with, and may be the one that is wrong.
            equal = any(same for _, same in audits)
            at = max(offset for offset, _ in audits)
            replica = replace(replica, digest="equal" if equal else "differs", compared_at=at)
        if replica.node in reports and number in reports[replica.node].copying:
            source, size, total, seconds = reports[replica.node].copying[number]
            replica = replace(
                replica, copied_from=source, copied_bytes=size, copy_bytes=total, copied_in_s=round(seconds, 3)
            )
        return replica

    return replace(partition, replicas=[told(replica) for replica in partition.replicas])
