"""How a cluster is: what `tabor cluster status` prints and `/api/v1/status/cluster` answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """lag: records of the log that it has not applied, over all that it holds; None if that is not known."""

    ordinal: int | None
    name: str
    presence: str
    address: str
    state: str
    heard_s: float
    partitions: int
    copying: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A partition on a node. state: 'whole', 'coming' while it is fetched or replayed, or 'missing'.

    next_offset, lag: None if the node does not tell, or the log does not.
    digest: 'equal' or 'differs', as it was when replicas were compared last, at offset `compared_at` of the log.
    copied_from, copied_bytes, copied_in_s, copy_bytes: of a copy under way, from where, how much of it has come in
    which time, and about how much it will be, if that is known. These are told by `/api/v1/status/cluster` only.
    """

    node: str
    state: str
    next_offset: int | None
    lag: int | None
    digest: str | None = None
    compared_at: int | None = None
    copied_from: str | None = None
    copied_bytes: int | None = None
    copied_in_s: float | None = None
    copy_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """on: live nodes that have it whole. coming: that fetch it. missing: where it belongs and is not whole."""

    partition: int
    replicas: list[ReplicaStatus]
    on: list[str]
    coming: list[str]
    missing: list[str]
    high_watermark: int | None
    lag: int | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """under_replicated: partitions that live nodes have less often than they should."""

    partitions: int
    replicas: int
    format: int
    nodes: list[NodeStatus]
    partition_states: list[PartitionStatus]
    under_replicated: list[int]
    unavailable: list[int]


@dataclass(frozen=True, slots=True)
class LogStatus:
    """kind: 'local' or 'kafka'. retention_bytes: of each partition in Kafka, of the whole log locally.

    starts: the first offset that is left of each partition; None where the log does not answer.
    """

    kind: str
    retention_ms: int | None
    retention_bytes: int | None
    starts: list[int] | None
