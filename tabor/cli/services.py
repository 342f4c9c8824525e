"""Commands that serve, and the rebuilding of views."""

from __future__ import annotations

import sys
from typing import Any

import click

from tabor import starting
from tabor.cli.options import (
    backups,
    data_dir,
    door,
    ingest_limits,
    kafka_url,
    kept_retention,
    listen,
    log_retention,
    log_url,
    logs,
    node_timeout,
    options_of,
    partitions,
    query_limits,
    retention,
    shown_to_nodes,
    tenancy,
    traces,
)
from tabor.logging import configure as configure_logging
from tabor.memory import keep_little
from tabor.progress import say
from tabor.settings import Setting, config_option, effective, option
from tabor.values import ADDRESS, DURATION_MS, NODE_NAME, SIZE_BYTES


@click.command()
@options_of(
    config_option,
    logs,
    traces,
    data_dir,
    listen,
    door,
    log_url,
    partitions,
    retention,
    log_retention,
    tenancy,
    backups,
    ingest_limits,
    query_limits,
)
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Take remote write, keep it, answer PromQL: everything in one process.

    \b
    Point Prometheus at it:
      remote_write: [{url: http://127.0.0.1:9080/api/v1/write}]
    and ask:
      curl 'http://127.0.0.1:9080/api/v1/query?query=up'
    """
    settings = _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.run import run_all

    run_all(
        options["listen"],
        configs.door(options),
        options["data_dir"],
        configs.log(options),
        configs.node(options, name="local"),
        configs.ingest(options),
        configs.query(options),
        settings,
        configs.backup(options),
    )


@click.command()
@options_of(config_option, logs, traces, listen, door, kafka_url, partitions, tenancy, ingest_limits)
@click.pass_context
def ingest(ctx: click.Context, /, **options: Any) -> None:
    """Only the write side: remote write in, records into Kafka."""
    _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.tiers import run_ingest

    run_ingest(options["listen"], configs.door(options), configs.log(options), configs.ingest(options))


@click.command()
@options_of(
    config_option,
    logs,
    traces,
    option(
        "--name", type=NODE_NAME, required=True, help="Name of this node; stays the same for the life of its data."
    ),
    data_dir,
    listen,
    door,
    option(
        "--advertise",
        type=ADDRESS,
        default=None,
        show_default="the address of --listen",
        help="Where query servers reach this node; needed if --listen is a wildcard such as 0.0.0.0.",
    ),
    shown_to_nodes,
    kafka_url,
    retention,
    option(
        "--replicas",
        type=click.IntRange(1, 100),
        default=None,
        show_default="3 for a new cluster, else the cluster's own",
        help="On how many nodes each partition is; the first node of a cluster fixes it.",
    ),
    option(
        "--rebuild-after",
        type=DURATION_MS,
        default="10m",
        help="After so long a silence of another node its partitions are rebuilt on the nodes that are left.",
    ),
    option(
        "--from",
        type=click.Choice(["peers", "log"]),
        default="peers",
        help="Where partitions that this node lacks come from; from peers means as copies, and then from the log.",
    ),
    node_timeout,
    option("--copy-rate", type=SIZE_BYTES, default="100MiB", help="Bytes a second that other nodes may copy."),
    option("--audit-every", type=DURATION_MS, default="5m", help="How often replicas are compared."),
    backups,
)
@click.pass_context
def storage_node(ctx: click.Context, /, **options: Any) -> None:
    """Only storage: consume this node's share of the log from Kafka into views, and serve reads of them."""
    _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.tiers import run_storage_node

    run_storage_node(
        options["listen"],
        configs.door(options),
        options["data_dir"],
        configs.log(options),
        configs.node(options, name=options["name"]),
        configs.cluster(options),
        configs.backup(options),
        caller=configs.caller(options, "node_"),
        advertise=options["advertise"],
    )


@click.command()
@options_of(
    config_option, logs, traces, listen, door, shown_to_nodes, kafka_url, node_timeout, tenancy, query_limits
)
@click.pass_context
def query(ctx: click.Context, /, **options: Any) -> None:
    """Only the read side: PromQL over the storage nodes that announce themselves in the log."""
    settings = _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.tiers import run_query

    run_query(
        options["listen"],
        configs.door(options),
        configs.log(options),
        configs.query(options),
        caller=configs.caller(options, "node_"),
        node_timeout_s=options["node_timeout"] / 1000,
        settings=settings,
    )


@click.command()
@options_of(config_option, logs, data_dir, log_url, kept_retention)
@click.option(
    "--force", is_flag=True, help="Rebuild even if the log has lost its start: what only the views have goes."
)
@click.pass_context
def replay(ctx: click.Context, /, **options: Any) -> None:
    """Throw the views away and rebuild them from the log; prints each partition's digest before and after.

    Tabor must not be running on the data folder. A replay that is interrupted leaves the old views as they were.
    """
    _start(ctx)
    from tabor import configs
    from tabor.replay import run_replay

    if not run_replay(
        options["data_dir"], configs.log(options), configs.node(options, name="local"), force=options["force"]
    ):
        sys.exit(1)


def _start(ctx: click.Context) -> tuple[Setting, ...]:
    keep_little()
    configure_logging(ctx.params["log_format"], ctx.params["log_level"])
    say(f"{ctx.command_path}, configuration:")
    settings = tuple(effective(ctx))
    width = max(len(one.name) for one in settings)
    for one in settings:
        say(f"  {one.name:<{width}} {one.value:<32} {one.source}")
    if endpoint := ctx.params.get("otlp_endpoint"):
        from tabor.tracing import traced

        ctx.with_resource(traced(endpoint, ctx.command.name or ""))
    return settings
