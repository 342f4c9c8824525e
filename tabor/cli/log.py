"""Commands that look into the log."""

from __future__ import annotations

from typing import Any

import click

from tabor.cli.options import data_dir, log_url, options_of
from tabor.logging import configure as configure_logging
from tabor.settings import config_option


@click.group()
def log() -> None:
    """Look into the log."""


@log.command()
@options_of(
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
