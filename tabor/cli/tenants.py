"""Commands about tenants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tabor.cli.options import caller_of, options_of, server_url, shown_to_server
from tabor.settings import config_option, option
from tabor.values import DURATION_MS


@click.group()
def tenant() -> None:
    """See the tenants of a running Tabor, and delete one.

    A tenant is there from its first sample on; limits are in the file of --tenant-limits (docs/tenants.md).
    """


_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON array.")


@tenant.command("list")
@options_of(config_option, server_url, shown_to_server, _as_json)
def list_(**options: Any) -> None:
    """List tenants, with their series."""
    from tabor.tenants import run_usage

    as_json = options.pop("as_json")
    run_usage(caller_of(options), options["url"], None, with_samples=False, as_json=as_json)


@tenant.command()
@options_of(
    click.argument("name", required=False),
    config_option,
    server_url,
    shown_to_server,
    _as_json,
)
def usage(name: str | None, **options: Any) -> None:
    """Count series, samples and bytes of tenant NAME, or of all.

    Series: those that have samples now. Samples: all that are stored. Bytes: of the compressed blocks of samples
    on one replica; tenants lie in the same blocks, and each window of four hours is shared out by samples. It
    reads all blocks, so it takes a while where there is much.
    """
    from tabor.tenants import run_usage

    as_json = options.pop("as_json")
    run_usage(caller_of(options), options["url"], name, with_samples=True, as_json=as_json)


@tenant.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong in FILE, which is for --tenant-limits, or which limits it gives to whom."""
    from tabor.tenants import run_check

    run_check(file)


@tenant.command()
@options_of(
    click.argument("name"),
    config_option,
    server_url,
    option(
        "--ingest-url",
        default=None,
        show_default="that of --url",
        help="Where ingest runs, if apart: all its processes, http://a:9080,http://b:9080.",
    ),
    shown_to_server,
    click.option("--yes", is_flag=True, help="Do not ask."),
    option("--wait", type=DURATION_MS, default="10m", help="How long to wait until it is carried out."),
)
def delete(name: str, **options: Any) -> None:
    """Delete tenant NAME with all series, samples, exemplars and metadata that were written so far.

    The deletion is a record of the log, so all replicas carry it out, and every replay. The log itself keeps what
    it has until its retention cuts it off. Deny the tenant's tokens first: what it writes later makes it anew.
    """
    from tabor.tenants import run_delete

    url, wait_s = options["url"], options["wait"] / 1000
    ingest_urls = (options["ingest_url"] or url).split(",")
    run_delete(caller_of(options), url, ingest_urls, name, asks=not options["yes"], wait_s=wait_s)
