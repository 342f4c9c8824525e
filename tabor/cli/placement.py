"""Commands that plan which storage nodes hold what."""

from __future__ import annotations

from typing import Any

import click

from common.log.base import DEFAULT_PARTITIONS
from tabor.cli.options import options_of
from tabor.settings import config_option, option


@click.group()
def placement() -> None:
    """Plan which storage nodes hold what."""


@placement.command()
@options_of(
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
