"""Commands for backups."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from tabor.cli.options import data_dir, log_url, options_of, server_url, shown_to_server
from tabor.settings import config_option, option
from tabor.values import SIZE_BYTES, TIME_MS

target = click.argument("target")


class _WriteUnlessNamed(click.Group):
    """`tabor backup TARGET` is short for `tabor backup write TARGET`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            if (close := get_close_matches(args[0], self.commands, n=1)) and not Path(args[0]).exists():
                raise click.UsageError(
                    f"No such command {args[0]!r}. Did you mean {close[0]!r}? (as a new folder: ./{args[0]})", ctx
                )
            args = ["write", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_WriteUnlessNamed)
def backup() -> None:
    """Write backups into a folder or bucket, and look after them.

    \b
      tabor backup /mnt/backups               of the Tabor that runs on this machine
      tabor backup s3://bucket/metrics        credentials, region and endpoint from AWS_* in the environment
      tabor backup list /mnt/backups
      tabor backup verify /mnt/backups
      tabor backup prune /mnt/backups --keep 7

    What the target has already is not sent again. `tabor restore` brings a backup back.
    """


@backup.command()
@options_of(
    config_option,
    target,
    server_url,
    shown_to_server,
    click.option("--log", default=None, help="Of a whole cluster: its log, kafka://host:port,…/prefix."),
    click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        help="Of a data folder that no Tabor runs on.",
    ),
    click.option("--rate", type=SIZE_BYTES, default=None, help="Bytes a second to read at most."),
)
def write(**options: Any) -> None:
    """Write a backup of all partitions to TARGET.

    Each partition is as it was at one offset of the log. A backup that was interrupted is not one; the next goes
    on with what it has sent. With authentication the token needs the rights 'read' and 'node'.
    """
    from tabor import configs
    from tabor.backup.command import run_backup

    if options["log"] is not None and options["data_dir"] is not None:
        raise click.UsageError("--log and --data-dir are two places to read from; give one")
    run_backup(
        options["target"],
        url=options["url"],
        log=options["log"],
        data_dir=options["data_dir"],
        caller=configs.caller(options),
        rate=options["rate"],
    )


@backup.command("list")
@options_of(config_option, target)
def list_(**options: Any) -> None:
    """List the backups in TARGET, oldest first."""
    from tabor.backup.command import run_list

    run_list(options["target"])


@backup.command()
@options_of(
    config_option,
    target,
    click.option("--backup", "run", default=None, show_default="the newest whole one", help="Which backup."),
    click.option("--quick", is_flag=True, help="Only whether all objects are there, with their sizes."),
)
def verify(**options: Any) -> None:
    """Check a backup in TARGET; exits with 0 only if nothing is wrong.

    Every object is read and its checksum compared, every partition is restored into a temporary folder, and the
    digests of all samples are counted anew from their chunks. Needs room for the largest partition.
    """
    from tabor.backup.command import run_verify

    if not run_verify(options["target"], options["run"], quick=options["quick"]):
        sys.exit(1)


@backup.command()
@options_of(
    config_option,
    target,
    click.option("--keep", type=click.IntRange(1), required=True, help="How many whole backups to keep."),
)
def prune(**options: Any) -> None:
    """Forget the oldest backups in TARGET, and delete what no other backup needs."""
    from tabor.backup.command import run_prune

    run_prune(options["target"], options["keep"])


@click.command()
@options_of(
    config_option,
    target,
    data_dir,
    click.option("--backup", "run", default=None, show_default="the newest whole one", help="Which backup."),
    log_url,
    click.option(
        "--log-from",
        default=None,
        help="Read on from this log after the backup: the data folder of another Tabor, or kafka://…",
    ),
    click.option(
        "--until",
        "until_ms",
        type=TIME_MS,
        default=None,
        show_default="the end of the log",
        help="Up to which time to read on: RFC 3339 or Unix seconds.",
    ),
    option("--force", is_flag=True, help="Replace the views of a folder that is not empty; its log stays."),
)
def restore(**options: Any) -> None:
    """Make a data folder for `tabor run` from a backup in TARGET.

    \b
      tabor restore /mnt/backups --data-dir data                       as of the backup
      tabor restore /mnt/backups --data-dir data --log-from old-data   and then what the old log has
      … --until 2026-11-28T07:00:00Z                                   but nothing that was written later
      tabor restore /mnt/backups --data-dir data --force               replace views that were damaged; the log
                                                                       in the folder brings the rest at the start

    A restore that was interrupted goes on when it is given again. Storage nodes of a cluster fetch what they lack
    from backups by themselves: see `tabor storage-node --backup`.
    """
    from tabor.backup.restore import run_restore

    run_restore(
        options["target"],
        options["data_dir"],
        run=options["run"],
        log=options["log"],
        log_from=options["log_from"],
        until_ms=options["until_ms"],
        force=options["force"],
    )
