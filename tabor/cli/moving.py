"""Commands that bring samples in and take them out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tabor.cli.options import caller_of, options_of, server_url, shown_to_server
from tabor.settings import config_option, option
from tabor.values import TIME_MS


@click.command()
@options_of(
    config_option,
    server_url,
    shown_to_server,
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

    run_export(caller_of(options), **options)


class _FilesUnlessNamed(click.Group):
    """`tabor import FILE…` is short for `tabor import files FILE…`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["files", *args]
        return super().parse_args(ctx, args)


@click.group(name="import", cls=_FilesUnlessNamed)
def import_() -> None:
    """Send samples from files, or from the data folder of a Prometheus, to a running Tabor.

    \b
      tabor import FILE…                  OpenMetrics, Prometheus' text, Parquet, Arrow, VictoriaMetrics' JSON
      tabor import prometheus-tsdb DIR    see 'tabor import prometheus-tsdb --help'

    Sending the same again does no harm: of a sample that is there already, the first value stays.
    """


@import_.command()
@options_of(
    config_option,
    server_url,
    shown_to_server,
    click.option(
        "--format",
        "form",
        type=click.Choice(["auto", "openmetrics", "prometheus", "parquet", "arrow", "victoriametrics"]),
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

    if not run_import(caller_of(options), **options):
        sys.exit(1)


@import_.command()
@options_of(
    config_option,
    server_url,
    shown_to_server,
    option("--promtool", default="promtool", help="The program that comes with Prometheus, or its path."),
    click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path)),
)
def prometheus_tsdb(**options: Any) -> None:
    """Send all samples of the data folder of a Prometheus that does not run, or of a snapshot.

    Native histograms and exemplars are left out, for promtool does not give them.
    """
    from tabor.imports.tsdb import run_import_tsdb

    if not run_import_tsdb(caller_of(options), **options):
        sys.exit(1)
