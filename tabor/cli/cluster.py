"""Commands that see, change and check a cluster."""

from __future__ import annotations

import sys
from typing import Any

import click

from tabor.cli.options import kafka_url, log_retention, options_of, shown_to_nodes
from tabor.settings import config_option, option
from tabor.values import DURATION_MS


@click.group()
def cluster() -> None:
    """See, change and check a cluster of storage nodes on Kafka."""


@cluster.command("create-topics")
@options_of(
    config_option,
    kafka_url,
    option("--partitions", type=click.IntRange(1, 65_536), required=True, help="Partitions of the log, for good."),
    option("--replicas", type=click.IntRange(1, 100), default=3, help="Storage nodes that each partition is on."),
    option(
        "--topic-replication-factor",
        type=click.IntRange(1, 100),
        default=None,
        show_default="3, or all brokers if there are fewer",
        help="Brokers that each record is on.",
    ),
    log_retention,
)
def create_topics(**options: Any) -> None:
    """Make the topics of a new cluster with the settings that its guarantees want.

    \b
      tabor cluster create-topics --log kafka://k1:9092,k2:9092/metrics --partitions 64 --log-retention 7d

    All brokers but one of each record acknowledge it. What exists is left as it is. docs/operations.md says how
    many partitions and how much retention to choose.
    """
    from tabor.cluster.topics import run_create_topics

    run_create_topics(
        options["log"],
        partitions=options["partitions"],
        replicas=options["replicas"],
        factor=options["topic_replication_factor"],
        retention_ms=options["log_retention"],
        retention_bytes=options["log_retention_size"],
    )


@cluster.command()
@options_of(
    config_option,
    kafka_url,
    click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    option(
        "--wait",
        type=DURATION_MS,
        default=None,
        show_default="show it at once",
        help="Wait until no partition lacks a replica, at most so long.",
    ),
)
def status(**options: Any) -> None:
    """Show nodes, partitions, replicas and lag; exits with 1 if a partition lacks a replica.

    \b
      tabor cluster status --wait 10m && sudo systemctl restart tabor-storage-node
    """
    from tabor.cluster.status import run_status

    wait_s = (options["wait"] or 0) / 1000
    if not run_status(options["log"], as_json=options["as_json"], watch=options["watch"], wait_s=wait_s):
        sys.exit(1)


@cluster.command()
@options_of(
    click.argument("node"),
    config_option,
    kafka_url,
    click.option("--undo", is_flag=True, help="Let a node that drains, or has drained, take partitions again."),
    click.option("--force", is_flag=True, help="Even if fewer nodes than replicas are left."),
    option("--wait", type=DURATION_MS, default=None, show_default="until it is done", help="How long to wait."),
)
def drain(node: str, **options: Any) -> None:
    """Have NODE give all its partitions to the others, and wait until it has.

    Until a partition is on all nodes on which it then belongs NODE goes on to serve it. Stop NODE afterwards: it
    leaves the cluster. A node that is dead for good is drained the same way. Ctrl-C ends the command alone.
    """
    from tabor.cluster.drain import run_drain

    wait_s = None if options["wait"] is None else options["wait"] / 1000
    if not run_drain(options["log"], node, undo=options["undo"], force=options["force"], wait_s=wait_s):
        sys.exit(1)


@cluster.command()
@options_of(
    config_option,
    kafka_url,
    shown_to_nodes,
    click.option("--repair", is_flag=True, help="Fetch replicas anew that differ from the majority."),
    option("--wait", type=DURATION_MS, default="1m", help="How long a node may take to come to the mark."),
)
def verify(**options: Any) -> None:
    """Compare all replicas; exits with 0 only if every partition has all of them and they are equal.

    Puts a mark into every partition of the log, at which each node remembers its digest. Names partition, node and
    window of whatever differs.
    """
    from tabor import configs
    from tabor.cluster.verify import run_verify

    caller = configs.caller(options, "node_")
    if not run_verify(options["log"], caller, repair=options["repair"], wait_s=options["wait"] / 1000):
        sys.exit(1)
