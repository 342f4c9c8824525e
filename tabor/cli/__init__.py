"""The command line: flags, their help and their errors; what the commands do is elsewhere.

A module for each group of commands; `options` has the flags that several share.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

import click

from common.errors import TaborError
from tabor.cli.backup import backup, restore
from tabor.cli.cluster import cluster
from tabor.cli.completion import completion
from tabor.cli.doctor import doctor
from tabor.cli.log import log
from tabor.cli.moving import export, import_
from tabor.cli.placement import placement
from tabor.cli.services import ingest, query, replay, run, storage_node
from tabor.cli.tenants import tenant
from tabor.cli.web_config import web_config
from tabor.progress import say
from tabor.stopping import Stopped


def main() -> None:
    """Entry point: every error that a user can mend is one line on standard error."""
    _leave(_status())


def _status() -> int:
    """Do what the command line says; the exit status."""
    try:
        cli.main(standalone_mode=False, prog_name="tabor")
    except click.exceptions.Abort:
        return 130
    except Stopped as stop:
        return stop.exit_status
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "tabor"
        # click breaks lists of values into lines.
        say(f"tabor: {' '.join(error.format_message().split())} (see '{command} --help')")
        return 2
    except click.ClickException as error:
        say(f"tabor: {error.format_message()}")
        return 1
    except TaborError as error:
        say(f"tabor: {error}")
        return 1
    except BrokenPipeError:
        # The reader of our output has gone, as in `tabor log inspect … | head`.
        sys.stderr.close()
        return 141
    return 0


def _leave(status: int) -> NoReturn:
    """End now, even if a thread is still busy: a query in the midst of a kernel, a request to a bucket.

    All that lasts has been closed; to take the interpreter and the kernels apart would take another 0.2 s.
    """
    for stream in (sys.stdout, sys.stderr):
        # Closed, or with nobody who reads it.
        with contextlib.suppress(ValueError, OSError):
            stream.flush()
    os._exit(status)


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


for _command in (
    run,
    ingest,
    storage_node,
    query,
    replay,
    doctor,
    export,
    import_,
    log,
    placement,
    cluster,
    tenant,
    backup,
    restore,
    web_config,
    completion,
):
    cli.add_command(_command)
