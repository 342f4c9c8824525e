"""Metrics of the storage node, read from its state when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.patience import LastAnswer

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

    from storage_node.acquiring import Acquirer
    from storage_node.auditing import Auditor
    from storage_node.backup.schedule import Schedule
    from storage_node.service import StorageNode

_NOT_OF_SAMPLES = ("quarantined_records", "tombstones")


class NodeCollector:
    """A collector for prometheus-client."""

    def __init__(self, node: StorageNode) -> None:
        self._node = node
        self._lag = LastAnswer(node.lag_records)

    def describe(self) -> Iterator[Metric]:
        """Nothing: whoever registers it need not wait for the log."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        node = self._node
        outcomes = CounterMetricFamily(
            "tabor_storage_node_samples",
            "Samples of the log by what became of them, since the start of the log",
            labels=["outcome"],
        )
        totals: dict[str, int] = {}
        shards = node.views.shards.values()
        for shard in shards:
            for name, count in asdict(shard.state.outcomes).items():
                totals[name] = totals.get(name, 0) + count
        for name, count in totals.items():
            if name not in _NOT_OF_SAMPLES:
                outcomes.add_metric([name], count)
        yield outcomes
        yield CounterMetricFamily(
            "tabor_storage_node_quarantined_records",
            "Records that could not be read and were passed over",
            value=totals.get("quarantined_records", 0),
        )
        yield CounterMetricFamily(
            "tabor_storage_node_tombstones",
            "Deletions applied, each once for every partition",
            value=totals.get("tombstones", 0),
        )
        yield CounterMetricFamily(
            "tabor_storage_node_cut_off_records",
            "Offsets that the log's retention deleted before this node read them",
            value=node.cut_off_records,
        )
        yield CounterMetricFamily("tabor_storage_node_merges", "Merges of segments done", value=node.merges)
        lag = self._lag()
        if lag is not None:
            yield GaugeMetricFamily(
                "tabor_storage_node_lag_records",
                "Records that the partition which is furthest behind has not applied; absent if nobody can tell",
                value=lag,
            )
        for name, text, value in (
            ("partitions", "Partitions held", len(shards)),
            ("replayed_partitions", "Partitions held that have replayed the log", len(node.ready_partitions())),
            ("series", "Series known", sum(len(shard.state.series) for shard in shards)),
            ("head_samples", "Samples that are in RAM only", sum(shard.state.n_head for shard in shards)),
            ("segment_bytes", "Bytes of all blocks of samples", sum(shard.state.size_bytes for shard in shards)),
            ("healthy", "Whether the node takes writes", int(node.healthy() is None)),
        ):
            yield GaugeMetricFamily(f"tabor_storage_node_{name}", text, value=value)


class ClusterCollector:
    """What concerns a node's part in a cluster."""

    def __init__(self, acquirer: Acquirer, auditor: Auditor) -> None:
        self._acquirer = acquirer
        self._auditor = auditor

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "tabor_storage_node_copied_partitions",
            "Partitions that came as copies of other nodes",
            value=self._acquirer.copied,
        )
        under_way = list(self._acquirer.copying.values())
        yield GaugeMetricFamily(
            "tabor_storage_node_copying_partitions",
            "Partitions that are being copied from other nodes",
            value=len(under_way),
        )
        yield GaugeMetricFamily(
            "tabor_storage_node_copying_bytes",
            "Bytes that have arrived of these",
            value=sum(copying.size_bytes for copying in under_way),
        )
        yield CounterMetricFamily(
            "tabor_storage_node_compared_replicas",
            "Replicas of other nodes that were compared with those of this node",
            value=self._auditor.comparisons,
        )
        yield GaugeMetricFamily(
            "tabor_storage_node_differing_replicas",
            "Replicas of other nodes that differed from those of this node when they were compared last",
            value=len(self._auditor.differing),
        )


class BackupCollector:
    """What this node has done of its backups."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def collect(self) -> Iterator[Metric]:
        schedule = self._schedule
        yield GaugeMetricFamily(
            "tabor_backup_last_success_timestamp_seconds",
            "Start of the last period whose backup this node has done its part of; 0 before the first",
            value=schedule.last_success_s,
        )
        yield GaugeMetricFamily(
            "tabor_backup_interval_seconds", "How often backups are to be written", value=schedule.every_s
        )
        yield GaugeMetricFamily(
            "tabor_backup_last_seconds", "How long this node's part of it took", value=schedule.last_seconds
        )
        moved = CounterMetricFamily(
            "tabor_backup_bytes",
            "Bytes of backups: sent, compressed; kept, of keys and values that the target had already",
            labels=["what"],
        )
        moved.add_metric(["sent"], schedule.sent_bytes)
        moved.add_metric(["kept"], schedule.kept_bytes)
        yield moved
        failures = CounterMetricFamily(
            "tabor_backup_failures", "Backups that failed and are tried again, by error", labels=["reason"]
        )
        for reason, count in schedule.failures.items():
            failures.add_metric([reason], count)
        yield failures


def register_backups(schedule: Schedule, registry: CollectorRegistry) -> None:
    """Show what a node does of its backups."""
    registry.register(BackupCollector(schedule))


def register_cluster(acquirer: Acquirer, auditor: Auditor, registry: CollectorRegistry) -> None:
    """Show what concerns the node's part in a cluster."""
    registry.register(ClusterCollector(acquirer, auditor))


def register(node: StorageNode, registry: CollectorRegistry) -> None:
    """Show the node's metrics in a registry."""
    registry.register(NodeCollector(node))
