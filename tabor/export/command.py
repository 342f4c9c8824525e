"""`tabor export`: from a running Tabor into a file, complete and, as a table, bit for bit."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import re2

from common.calling import Caller
from common.errors import CallerError
from common.labels import METRIC_NAME
from common.store import Matcher
from query.promql.errors import ParseError
from query.promql.parser import parse_selector
from query.promql.quoting import quote
from tabor.export.files import Counted, output
from tabor.export.openmetrics import Family, TextWriter, families
from tabor.export.tables import TableWriter
from tabor.export.walk import bounds, slices, time_text
from tabor.progress import Bar, say
from tabor.remote import Server
from tabor.stopping import Stopped, stoppable
from tabor.values import format_time


def run_export(
    caller: Caller, url: str, match: str, start_ms: int | None, end_ms: int | None, form: str, path: str
) -> None:
    """Write all samples of the series that match, in the closed range of times.

    Raises:
        CallerError: the selector or the output is wrong. Unreachable, Refused: the server does not give it.
        Stopped: by a signal; what had been exported until then is said, and the file is not there.
    """
    try:
        matchers = parse_selector(match)
    except ParseError as error:
        raise CallerError(f"--match {match} is not a selector: {error}") from None
    if start_ms is not None and end_ms is not None and end_ms < start_ms:
        raise CallerError("--end is before --start")
    done = _Done()
    try:
        with stoppable(), Server(url, caller) as server, output(path) as file:
            found = bounds(server, match, start_ms, end_ms)
            times = found or (0, -1)
            if form == "openmetrics":
                _text(server, matchers, times, file, done)
            else:
                _table(server, match, times, form, file, done)
    except Stopped as stop:
        where = f"{done.n_samples:,} samples" + (f", {done.where}" if done.where else "")
        left = "what has been written is not whole" if path == "-" else f"{path} has not been written"
        say(f"stopped by {stop.name} after {where}; {left}")
        raise


@dataclass(slots=True)
class _Done:
    """How far an export has come."""

    n_samples: int = 0
    where: str = ""


def _table(server: Server, match: str, times: tuple[int, int], form: str, file: Counted, done: _Done) -> None:
    start_ms, end_ms = times
    labels = server.data("/api/v1/labels", {"match[]": match, **_range(times)}) if end_ms >= start_ms else []
    # Closed after an error and Ctrl-C too: the writer would do it later, when the file is closed already.
    with closing(TableWriter(file, form, labels)) as writer, Bar("exporting", total=end_ms - start_ms + 1) as bar:
        for part in slices(server, match, start_ms, end_ms):
            writer.add(part.table)
            done.n_samples += part.table.num_rows
            done.where = f"up to {format_time(part.end_ms)}"
            bar.update(part.end_ms - start_ms + 1, note=f"{done.n_samples:,} samples")
    say(f"{done.n_samples:,} samples exported")


def _text(
    server: Server, matchers: tuple[Matcher, ...], times: tuple[int, int], file: Counted, done: _Done
) -> None:
    writer = TextWriter(file)
    wanted: list[Family] = []
    if times[1] >= times[0]:
        asked = {"match[]": _selector(matchers), **_range(times)}
        names = server.data(f"/api/v1/label/{METRIC_NAME}/values", asked)
        wanted = families(names, server.data("/api/v1/metadata", {}))
    with Bar("exporting", total=len(wanted)) as bar:
        for n_done, family in enumerate(wanted, start=1):
            names = "|".join(re2.escape(name) for name in family.members)
            writer.begin(family)
            for part in slices(server, _selector(matchers, names), *times):
                writer.add(part.table)
                done.n_samples = writer.n_samples
                done.where = f"the last of {family.name} up to {format_time(part.end_ms)}"
            writer.end()
            bar.update(n_done, note=f"{writer.n_samples:,} samples, {family.name}")
    writer.close()
    say(f"{writer.n_samples:,} samples exported")
    if writer.n_stale:
        say(f"left out: {writer.n_stale:,} stale markers, which OpenMetrics does not have")
    if writer.n_histograms:
        say(f"left out: {writer.n_histograms:,} native histograms; --format parquet and arrow have them")


def _range(times: tuple[int, int]) -> dict[str, str]:
    return {"start": time_text(times[0]), "end": time_text(times[1])}


def _selector(matchers: tuple[Matcher, ...], names: str = "") -> str:
    """The selector in braces, also for names of metrics by an expression."""
    parts = [f"{quote(one.name)}{one.op.value}{quote(one.value)}" for one in matchers]
    if names:
        parts.append(f"{quote(METRIC_NAME)}=~{quote(names)}")
    return f"{{{','.join(parts)}}}"
