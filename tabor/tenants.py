"""`tabor tenant`: what tenants have, and the deletion of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from common.calling import Caller
from common.errors import CallerError, RetryableError
from common.limits import read_limits
from common.tenants import why_no_tenant
from tabor.progress import Bar, say
from tabor.remote import Server
from tabor.stopping import stoppable
from tabor.values import format_duration

LOOK_S = 0.5


def run_usage(caller: Caller, url: str, name: str | None, *, with_samples: bool, as_json: bool) -> None:
    """Print what tenants have. Raises CallerError if there is no tenant of the name."""
    with stoppable(), Server(url, caller) as server:
        rows = _asked(server, name, with_samples=with_samples)["tenants"]
    if name is not None and not rows:
        raise CallerError(f"there is no tenant {name!r}; `tabor tenant list` shows all")
    if as_json:
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    if not rows:
        say("there are no series that these credentials may see; those with the right 'admin' see every tenant's")
    columns = ["tenant", "series", *(["samples", "bytes"] if with_samples else [])]
    cells = [columns, *([_shown(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *numbers in cells:
        texts = (text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))
        print(first.ljust(widths[0]), *texts, sep="  ")


def run_check(file: Path) -> None:
    """Print the limits that a file gives to each tenant. Raises CallerError, which says what is wrong in it."""
    try:
        table = read_limits(file)
    except ValueError as error:
        raise CallerError(str(error)) from None
    rows = [*table.tenants, ("(others)", table.common)]
    width = max(len(name) for name, _ in rows)
    for name, limits in rows:
        set_here = [_limit(limit, value) for limit, value in asdict(limits).items() if value is not None]
        print(name.ljust(width), ", ".join(set_here) or "no limits", sep="  ")


def _limit(name: str, value: int | float) -> str:
    return f"retention {format_duration(int(value))}" if name == "retention_ms" else f"{name} {value:,}"


def run_delete(
    caller: Caller, url: str, ingest_urls: Sequence[str], name: str, *, asks: bool, wait_s: float
) -> None:
    """Delete a tenant, and wait until it is carried out where queries are answered.

    ingest_urls: each is asked, so that none takes series for declared any more that the views have forgotten.

    Raises:
        CallerError: it is no name, nobody is there to be asked, or the answer was no. RetryableError: it is not
          carried out in time; it will be.
    """
    reason = why_no_tenant(name)
    if reason is not None:
        raise CallerError(reason)
    with stoppable(), Server(url, caller) as server, ExitStack() as stack:
        ingests = [stack.enter_context(Server(ingest_url, caller)) for ingest_url in ingest_urls]
        rows = _asked(server, name)["tenants"]
        n_series = rows[0]["series"] if rows else 0
        if asks:
            _ask(name, n_series)
        for ingest in ingests:
            ingest.act("/api/v1/admin/delete_tenant", {"tenant": name})
        gone = f"{n_series:,} series go" if rows else "it has no series (`tabor tenant list` shows who has)"
        say(f"the deletion of tenant {name} is in the log; {gone}")
        deadline_s = time.monotonic() + wait_s
        most = 0
        with Bar("deleting") as bar:
            while True:
                found = _asked(server, name)
                left, pending = sum(row["series"] for row in found["tenants"]), found["deletionsPending"]
                if not left and not pending:
                    break
                most = max(most, pending)
                bar.update(most - pending, most, note=f"{left:,} series, {pending:,} windows and indexes left")
                if time.monotonic() > deadline_s:
                    raise RetryableError(
                        f"{left:,} series and {pending:,} windows and indexes are left after {wait_s:g} s; "
                        "storage nodes go on by themselves (the tenant may still be writing)"
                    )
                time.sleep(LOOK_S)
    say(f"tenant {name} is deleted; the log has its records until its retention cuts them off")


def _asked(server: Server, name: str | None, *, with_samples: bool = False) -> Any:
    parameters = {"samples": "true"} if with_samples else {}
    return server.data("/api/v1/status/tenants", parameters | ({} if name is None else {"tenant": name}))


def _ask(name: str, n_series: int) -> None:
    if not sys.stdin.isatty():
        raise CallerError(f"this deletes tenant {name} with {n_series:,} series for good; give --yes")
    say(f"This deletes tenant {name} with {n_series:,} series for good, on all replicas.")
    if click.prompt("Type the name of the tenant to go on", default="", show_default=False, err=True) != name:
        raise CallerError("that is not its name; nothing is deleted")


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
