"""What a process knows of its cluster from the control topic, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from common.membership import Membership


class MembershipCollector:
    """A collector for prometheus-client."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def collect(self) -> Iterator[Metric]:
        cluster = self._membership.cluster()
        live = self._membership.live(cluster)
        missing = unavailable = 0
        if cluster.layout is not None:
            for partition in range(cluster.layout.partitions):
                on = sum(member.has(partition) for member in live.values())
                missing += max(0, cluster.layout.replicas - on)
                unavailable += not on
        for name, text, value in (
            ("live_nodes", "Storage nodes that are heard", len(live)),
            ("seats", "Storage nodes that have joined and were not drained", len(cluster.seats)),
            ("missing_replicas", "Replicas of partitions that no live node has whole", missing),
            ("unavailable_partitions", "Partitions that no live node has whole: queries fail", unavailable),
        ):
            yield GaugeMetricFamily(f"tabor_cluster_{name}", text, value=value)
