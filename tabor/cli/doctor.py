"""`tabor doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tabor.cli.options import log_url, options_of, shown_to_nodes
from tabor.settings import config_option, option


@click.command()
@options_of(
    config_option,
    option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        show_default="data, or none if the log is on Kafka",
        help="Folder of the data, there or to be made.",
    ),
    log_url,
    shown_to_nodes,
    click.option("--json", "as_json", is_flag=True, help="For programs: a list of what was found."),
)
def doctor(**options: Any) -> None:
    """Look at this machine, the data folder and Kafka, and say what is wrong and what to do.

    Changes nothing, and may be run while Tabor runs. Exits with 1 if there is a problem; warnings are none.

    \b
    Before the first start, and when something is odd:
      tabor doctor --data-dir /var/lib/tabor
      tabor doctor --log kafka://k1:9092,k2:9092,k3:9092/metrics
    """
    from tabor import configs
    from tabor.doctor.command import run_doctor

    data_dir = options["data_dir"]
    if data_dir is None and options["log"] == "local":
        data_dir = Path("data")
    well = run_doctor(
        data_dir, options["log"], lambda: configs.caller(options, "node_"), as_json=options["as_json"]
    )
    if not well:
        sys.exit(1)
