"""Settings of a storage node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.control.members import LIVE_S

HEAD_SAMPLES = 3_000_000
"""Samples that a node keeps in RAM before it writes segments; 24 B each."""


REBUILD_AFTER_S = 600.0
COPY_RATE = 100 << 20
AUDIT_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """How a node takes part in a cluster.

    replicas: nodes that each partition is on; None takes what the cluster has.
    rebuild_after_s: after so long a silence of a node its partitions are rebuilt elsewhere.
    use_peers: whether partitions come as copies from other nodes; else from the log.
    copy_rate_bytes_per_s: at which this node gives copies to others.
    audit_every_s: how often replicas are compared.
    node_timeout_s: after so long a silence another node is taken to be down.
    """

    replicas: int | None = None
    rebuild_after_s: float = REBUILD_AFTER_S
    use_peers: bool = True
    copy_rate_bytes_per_s: int = COPY_RATE
    audit_every_s: float = AUDIT_EVERY_S
    node_timeout_s: float = LIVE_S


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Settings of one node.

    name: for logs and metrics. data_dir: its views lie in the folder `views` there.
    log_identity: names the log, so that views of another log are recognised; '' is not checked.
    retention_ms: age from which samples are dropped; None keeps all.
    head_samples: samples in RAM, over all partitions, before the largest head is written.
    checkpoint_age_s: a head is written when its oldest record is as old as this, by the node's clock.
    flush_age_s: what was written is made durable at least this often, to bound the replay after a crash.
    retry_s: pause before a disk or a log that failed is tried again.
    """

    name: str
    data_dir: Path
    log_identity: str = ""
    retention_ms: int | None = None
    head_samples: int = HEAD_SAMPLES
    checkpoint_age_s: float = 3600.0
    flush_age_s: float = 600.0
    retry_s: float = 2.0
