"""The command line: flags, their help and their errors; what the commands do is elsewhere."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from common.errors import TaborError
from common.log.base import DEFAULT_PARTITIONS
from ingest.config import MAX_ACTIVE_SERIES
from tabor import starting
from tabor.logging import configure as configure_logging
from tabor.memory import share_arenas
from tabor.progress import say
from tabor.settings import config_option, effective, option
from tabor.stopping import Stopped
from tabor.values import ADDRESS, DURATION_MS, SIZE_BYTES, TIME_MS

F = TypeVar("F", bound=Callable[..., Any])


def main() -> None:
    """Entry point: every error that a user can mend is one line on standard error."""
    try:
        cli.main(standalone_mode=False, prog_name="tabor")
    except click.exceptions.Abort:
        sys.exit(130)
    except Stopped as stop:
        sys.exit(stop.exit_status)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "tabor"
        say(f"tabor: {error.format_message()} (see '{command} --help')")
        sys.exit(2)
    except click.ClickException as error:
        say(f"tabor: {error.format_message()}")
        sys.exit(1)
    except TaborError as error:
        say(f"tabor: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone, as in `tabor log inspect … | head`.
        sys.stderr.close()
        sys.exit(141)
    _leave_threads_behind()


def _leave_threads_behind() -> None:
    """End now if a thread is still busy: a query in the midst of a kernel, for all that lasts has been closed."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


data_dir = option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    help="Folder of all data.",
)
listen = option("--listen", type=ADDRESS, default="127.0.0.1:9080", help="Where to serve HTTP.")
log_url = option(
    "--log",
    default="local",
    help="'local' (inside the data folder) or kafka://host:port,…/prefix?librdkafka-option=value",
)
kafka_url = option("--log", required=True, help="kafka://host:port,…/prefix?librdkafka-option=value")
partitions = option(
    "--partitions",
    type=click.IntRange(1, 65_536),
    default=None,
    show_default=f"{DEFAULT_PARTITIONS} for a new log, else the log's own",
    help="Partitions of the log; fixed once it is made.",
)
retention = option(
    "--retention",
    type=DURATION_MS,
    default=None,
    show_default="keep all",
    help="How long samples are kept, by their timestamps; in steps of four hours.",
)
kept_retention = option(
    "--retention",
    type=DURATION_MS,
    default=None,
    show_default="as the views were kept so far",
    help="How long samples are kept.",
)
node_timeout = option(
    "--node-timeout",
    type=DURATION_MS,
    default="10s",
    help="After so long a silence a storage node is taken to be down.",
)
log_retention = _options(
    option(
        "--log-retention",
        type=DURATION_MS,
        default=None,
        show_default="keep all",
        help="How long the local log keeps records; without its start the views cannot be rebuilt from it.",
    ),
    option(
        "--log-retention-size",
        type=SIZE_BYTES,
        default=None,
        show_default="no limit",
        help="How large the local log may grow before its oldest records go.",
    ),
)
ingest_limits = _options(
    option("--max-body-bytes", type=SIZE_BYTES, default="32MiB", help="Largest write request, decompressed."),
    option(
        "--max-active-series",
        type=click.IntRange(1, MAX_ACTIVE_SERIES),
        default=5_000_000,
        help="Series that ingest keeps known.",
    ),
)
query_limits = _options(
    option("--query-lookback", type=DURATION_MS, default="5m", help="How far back an instant selector looks."),
    option("--query-timeout", type=DURATION_MS, default="2m", help="How long a query may take."),
    option("--query-max-concurrency", type=click.IntRange(1, 1000), default=20, help="Queries at the same time."),
    option("--query-max-samples", type=click.IntRange(1), default=50_000_000, help="Samples one query may touch."),
    option("--query-max-series", type=click.IntRange(1), default=1_000_000, help="Series one query may touch."),
    option("--query-max-points", type=click.IntRange(1), default=11_000, help="Steps of one range query."),
    option(
        "--query-max-response-bytes",
        type=SIZE_BYTES,
        default="1GiB",
        help="Largest answer, before compression.",
    ),
    option(
        "--promql-strict",
        is_flag=True,
        help="Refuse what Prometheus has behind feature flags only, such as duration expressions and limitk.",
    ),
    option(
        "--read-consistency",
        type=click.Choice(["strong", "eventual"]),
        default="strong",
        help="'strong': a query sees every write acknowledged before it.",
    ),
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, invoke_without_command=True
)
@click.version_option(package_name="tabor", prog_name="tabor")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Durable long-term storage for Prometheus metrics.

    `tabor run` does the whole job on one machine. Every flag of every command may also be given as TABOR_<FLAG> in
    the environment or in a TOML file (--config); the flag wins over the environment, and both over the file.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command()
@_options(
    config_option, data_dir, listen, log_url, partitions, retention, log_retention, ingest_limits, query_limits
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
    _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.run import run_all

    run_all(
        options["listen"],
        options["data_dir"],
        configs.log(options),
        configs.node(options, name="local"),
        configs.ingest(options),
        configs.query(options),
    )


@cli.command()
@_options(config_option, listen, kafka_url, partitions, ingest_limits)
@click.pass_context
def ingest(ctx: click.Context, /, **options: Any) -> None:
    """Only the write side: remote write in, records into Kafka."""
    _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.tiers import run_ingest

    run_ingest(options["listen"], configs.log(options), configs.ingest(options))


@cli.command()
@_options(
    config_option,
    option("--name", required=True, help="Name of this node; stays the same for the life of its data."),
    data_dir,
    listen,
    option(
        "--advertise",
        type=ADDRESS,
        default=None,
        show_default="the address of --listen",
        help="Where query servers reach this node; needed if --listen is a wildcard such as 0.0.0.0.",
    ),
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
        options["data_dir"],
        configs.log(options),
        configs.node(options, name=options["name"]),
        configs.cluster(options),
        advertise=options["advertise"],
    )


@cli.command()
@_options(config_option, listen, kafka_url, node_timeout, query_limits)
@click.pass_context
def query(ctx: click.Context, /, **options: Any) -> None:
    """Only the read side: PromQL over the storage nodes that announce themselves in the log."""
    _start(ctx)
    starting.begin()
    from tabor import configs
    from tabor.tiers import run_query

    node_timeout_s = options["node_timeout"] / 1000
    run_query(options["listen"], configs.log(options), configs.query(options), node_timeout_s=node_timeout_s)


@cli.command()
@_options(config_option, data_dir, log_url, kept_retention)
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


server_url = option("--url", default="http://127.0.0.1:9080", help="Where Tabor runs.")


@cli.command()
@_options(
    config_option,
    server_url,
    click.option("--match", required=True, help="Which series: a selector such as '{job=\"node\"}'."),
    click.option(
        "--start",
        "start_ms",
        type=TIME_MS,
        default=None,
        show_default="all",
        help="First time: RFC 3339 or Unix seconds.",
    ),
    click.option("--end", "end_ms", type=TIME_MS, default=None, show_default="all", help="Last time, inclusive."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["parquet", "arrow", "openmetrics"]),
        required=True,
        help="parquet and arrow (an IPC stream) have every bit; openmetrics has no stale markers and no native "
        "histograms.",
    ),
    click.option("--output", "path", required=True, help="File to write, or - for standard output."),
)
def export(**options: Any) -> None:
    """Write all samples of some series into a file.

    The file has its name only when it is whole. `tabor import` reads it back.
    """
    from tabor.export.command import run_export

    run_export(**options)


class _FilesUnlessNamed(click.Group):
    """`tabor import FILE…` is short for `tabor import files FILE…`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["files", *args]
        return super().parse_args(ctx, args)


@cli.group(name="import", cls=_FilesUnlessNamed)
def import_() -> None:
    """Send samples from files, or from the data folder of a Prometheus, to a running Tabor.

    \b
      tabor import FILE…                  OpenMetrics, Prometheus' text, Parquet, Arrow
      tabor import prometheus-tsdb DIR    see 'tabor import prometheus-tsdb --help'

    Sending the same again does no harm: of a sample that is there already, the first value stays.
    """


@import_.command()
@_options(
    config_option,
    server_url,
    click.option(
        "--format",
        "form",
        type=click.Choice(["auto", "openmetrics", "prometheus", "parquet", "arrow"]),
        default="auto",
        show_default=True,
        help="What the files are; text may be compressed with gzip or zstd.",
    ),
    click.option("--metric", default=None, help="Name of the metric, for tables without a column __name__."),
    click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)),
)
def files(**options: Any) -> None:
    """Send the samples of files.

    A table has a column 'timestamp', a column 'value' and one of text for each label; so has what `tabor export`
    writes.
    """
    from tabor.imports.command import run_import

    if not run_import(**options):
        sys.exit(1)


@import_.command()
@_options(
    config_option,
    server_url,
    option("--promtool", default="promtool", help="The program that comes with Prometheus, or its path."),
    click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path)),
)
def prometheus_tsdb(**options: Any) -> None:
    """Send all samples of the data folder of a Prometheus that does not run, or of a snapshot.

    Native histograms and exemplars are left out, for promtool does not give them.
    """
    from tabor.imports.tsdb import run_import_tsdb

    if not run_import_tsdb(**options):
        sys.exit(1)


@cli.group()
def log() -> None:
    """Look into the log."""


@log.command()
@_options(
    config_option,
    data_dir,
    log_url,
    click.option("--partition", type=click.IntRange(0), required=True, help="Which partition."),
    click.option("--from", "from_offset", type=click.IntRange(0), required=True, help="First offset to show."),
    click.option(
        "--limit", type=click.IntRange(1), default=10, show_default=True, help="How many records at most."
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every sample."),
)
@click.pass_context
def inspect(ctx: click.Context, /, **options: Any) -> None:
    """Print records of the log, for people or, with --json, for programs. Also while Tabor runs."""
    configure_logging()
    from tabor.log_inspect import run_inspect

    run_inspect(**options)


@cli.group()
def placement() -> None:
    """Plan which storage nodes hold what."""


@placement.command()
@_options(
    config_option,
    option("--nodes", type=click.IntRange(1, 1000), required=True, help="Storage nodes; the first is node 0."),
    option("--replicas", type=click.IntRange(1, 16), default=3, help="Nodes that hold each partition."),
    option(
        "--partitions", type=click.IntRange(1, 65_536), default=DEFAULT_PARTITIONS, help="Partitions of the log."
    ),
    option(
        "--samples", type=click.IntRange(1, 10_000_000), default=100_000, help="Samples, each of its own series."
    ),
    click.option(
        "--remove", type=click.IntRange(0), multiple=True, help="A node that leaves; may be given again."
    ),
    click.option(
        "--add",
        type=click.IntRange(0, 1000),
        default=0,
        show_default=True,
        help="Nodes that join, after those left.",
    ),
)
def simulate(**options: Any) -> None:
    """Show how samples would spread over nodes, and how many move when nodes leave or join.

    \b
      tabor placement simulate --nodes 19 --partitions 1024 --add 1
      tabor placement simulate --nodes 19 --partitions 1024 --remove 7 --add 1    node 7 is replaced

    Nothing is read or changed. 'ideal' is what the node that leaves had, or the fair share of the one that joins;
    'bound' is (1 + 1/replicas) / nodes of all replicated samples. Few partitions spread badly: some 50 for each
    node make loads even.
    """
    from tabor.placement import run_simulate

    run_simulate(**options)


@cli.group()
def cluster() -> None:
    """See, change and check a cluster of storage nodes on Kafka."""


@cluster.command("create-topics")
@_options(
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
@_options(
    config_option,
    kafka_url,
    click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object."),
)
def status(**options: Any) -> None:
    """Show nodes, partitions, replicas and lag; exits with 1 if a partition lacks a replica."""
    from tabor.cluster.status import run_status

    if not run_status(options["log"], as_json=options["as_json"], watch=options["watch"]):
        sys.exit(1)


@cluster.command()
@_options(
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
@_options(
    config_option,
    kafka_url,
    click.option("--repair", is_flag=True, help="Fetch replicas anew that differ from the majority."),
    option("--wait", type=DURATION_MS, default="1m", help="How long a node may take to come to the mark."),
)
def verify(**options: Any) -> None:
    """Compare all replicas; exits with 0 only if every partition has all of them and they are equal.

    Puts a mark into every partition of the log, at which each node remembers its digest. Names partition, node and
    window of whatever differs.
    """
    from tabor.cluster.verify import run_verify

    if not run_verify(options["log"], repair=options["repair"], wait_s=options["wait"] / 1000):
        sys.exit(1)


def _start(ctx: click.Context) -> None:
    share_arenas()
    configure_logging()
    say(f"{ctx.command_path}, configuration:")
    for line in effective(ctx):
        say(line)
