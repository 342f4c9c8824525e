"""`tabor cluster create-topics`: the topics of a new cluster, and what its nodes agree on."""

from __future__ import annotations

from common.control.events import Layout
from common.errors import StartupError
from common.log.kafka_topics import create_topics
from common.log.url import parse_kafka_url
from common.membership import LOG_FORMAT
from tabor.cluster.reading import reading
from tabor.progress import say


def run_create_topics(
    url: str,
    *,
    partitions: int,
    replicas: int,
    factor: int | None,
    retention_ms: int | None,
    retention_bytes: int | None,
) -> None:
    """Make what is missing; a cluster that exists with another layout is an error."""
    where = parse_kafka_url(url)
    for line in create_topics(
        where.bootstrap,
        where.prefix,
        partitions,
        factor=factor,
        retention_ms=retention_ms,
        retention_bytes=retention_bytes,
        options=where.options,
    ):
        say(line)
    with reading(url, writes_control=True) as cluster:
        wanted = Layout(cluster.log.partitions, LOG_FORMAT, replicas)
        if cluster.log.partitions != partitions:
            raise StartupError(
                f"the log has {cluster.log.partitions} partitions, not {partitions}; that is fixed for good"
            )
        cluster.membership.read(lambda members: members.check_layout(wanted, cluster.membership.topic.name))
        if cluster.cluster().layout is None:
            cluster.put(wanted)
    say(f"the cluster has {partitions} partitions and keeps {replicas} replicas of each on its storage nodes")
