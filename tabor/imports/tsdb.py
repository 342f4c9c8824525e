"""`tabor import prometheus-tsdb`: the data folder of a Prometheus, through `promtool tsdb dump`.

promtool prints a sample a line, floats with as many digits as give them back; a NaN is `NaN`, whatever its bits,
and native histograms come, if at all, as a text for people. What becomes of both is said at the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from common.calling import Caller
from common.errors import CallerError
from common.labels import LabelTable
from common.store import MAX_TIME_MS, MIN_TIME_MS, STALE_NAN_BITS, Selection
from ingest.write_request import PIECE_SAMPLES
from query.promql.quoting import unquote
from tabor.imports.command import told
from tabor.imports.sending import Sender
from tabor.progress import Bar, say
from tabor.remote import Server

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*|"(?:[^"\\]|\\.)*")="((?:[^"\\]|\\.)*)"(?:, ?|\})')


def run_import_tsdb(caller: Caller, url: str, folder: Path, promtool: str) -> bool:
    """Send all samples of a data folder that no Prometheus writes to; whether all were taken.

    Raises:
        CallerError: it is no such folder, promtool is missing or fails.
    """
    program = shutil.which(promtool)
    if program is None:
        raise CallerError(
            f"{promtool} is missing; it comes with Prometheus (Debian: apt-get install prometheus); see --promtool"
        )
    ranges, n_noted = time_ranges(folder), noted_histograms(folder)
    _check_unused(folder)
    with _with_wal(folder) as readable, Server(url, caller) as server, Bar(str(folder), total=len(ranges)) as bar:
        dump = _Dump(program, readable)
        sender = Sender(server)
        for done, (first_ms, last_ms) in enumerate(ranges, start=1):
            for selection in dump.selections(first_ms, last_ms):
                sender.send_selection(selection, f"{folder}, between {first_ms} and {last_ms} ms")
                bar.update(done - 1, note=f"{sender.n_samples:,} samples")
            bar.update(done, note=f"{sender.n_samples:,} samples")
    say(f"{folder}: {sender.n_samples:,} samples sent")
    if dump.n_stale:
        say(f"{dump.n_stale:,} NaNs that stand alone in their series were taken for stale markers")
    if dump.n_nans:
        say(f"{dump.n_nans:,} NaNs in a row are stored as NaN; stale markers at the end of such a row are lost")
    if dump.n_histograms:
        say(f"left out: {dump.n_histograms:,} native histograms of {len(dump.histogram_series):,} series")
        say("  " + "\n  ".join(sorted(dump.histogram_series)[:10]))
    complete = told(sender)
    unseen = max(0, n_noted - dump.n_histograms)
    histograms = f", and {unseen:,} native histograms that the blocks' meta.json count" if unseen else ""
    say(f"promtool does not give, and so has not been moved: exemplars, if there are any{histograms}")
    return complete


def time_ranges(folder: Path) -> list[tuple[int, int]]:
    """Closed ranges of times that cover everything, cut where blocks end. Raises CallerError."""
    ends = set()
    for path, meta in _metas(folder):
        try:
            ends.add(int(meta["maxTime"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CallerError(f"{path} cannot be read: {error}") from None
    if not ends and not (folder / "wal").is_dir():
        raise CallerError(f"{folder} is no data folder of Prometheus: it has neither blocks nor a folder 'wal'")
    edges = [MIN_TIME_MS, *sorted(ends), MAX_TIME_MS + 1]
    return [(first, last - 1) for first, last in pairwise(edges)]


def noted_histograms(folder: Path) -> int:
    """Native histograms of all blocks by their own account, which not every release of Prometheus gives.

    Those of two blocks that overlap are counted twice; those of the WAL are not counted.
    """
    stats = [meta.get("stats") for _, meta in _metas(folder)]
    counts = [one.get("numHistogramSamples") for one in stats if isinstance(one, dict)]
    return sum(count for count in counts if type(count) is int)


def _metas(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What each block tells of itself. Raises CallerError."""
    for path in folder.glob("*/meta.json"):
        try:
            meta = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise CallerError(f"{path} cannot be read: {error}") from None
        if not isinstance(meta, dict):
            raise CallerError(f"{path} cannot be read: it is no object")
        yield path, meta


def _check_unused(folder: Path) -> None:
    """Raises CallerError: a Prometheus runs on it."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CallerError(f"a Prometheus runs on {folder}; stop it, or take a snapshot and import that") from None
    except OSError:
        # No lock, as in a snapshot.
        return


@contextlib.contextmanager
def _with_wal(folder: Path) -> Iterator[Path]:
    """The folder as promtool takes it, which wants a folder 'wal'; a snapshot has none, and is left as it is."""
    if (folder / "wal").is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tabor-import-") as name:
        beside = Path(name)
        (beside / "wal").mkdir()
        for path, _ in _metas(folder):
            # A block that is a link is not seen, its files may be.
            block = beside / path.parent.name
            block.mkdir()
            for entry in path.parent.iterdir():
                (block / entry.name).symlink_to(entry.resolve())
        yield beside


class _Dump:
    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.n_stale = 0
        self.n_nans = 0
        self.n_histograms = 0
        self.histogram_series: set[str] = set()

    def selections(self, first_ms: int, last_ms: int) -> Iterator[Selection]:
        """The samples of a closed range of times, in pieces. Raises CallerError: promtool fails."""
        command = [self._program, "tsdb", "dump", f"--min-time={first_ms}", f"--max-time={last_ms}"]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen([*command, str(self._folder)], stdout=subprocess.PIPE, stderr=errors)
            try:
                assert process.stdout is not None
                yield from self._read(line.decode("utf-8", "surrogateescape") for line in process.stdout)
                status = process.wait()
            finally:
                # Not read to its end, because of Ctrl-C or an error.
                process.kill()
                process.wait()
            if status:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                raise CallerError(f"{' '.join(command)} {self._folder} failed: {said[-1] if said else status}")

    def _read(self, lines: Iterator[str]) -> Iterator[Selection]:
        series: list[tuple[str, list[int], list[float]]] = []
        n_samples, text_before, last = 0, "", 0.0
        for line in lines:
            text, value, time_text = line.rsplit(" ", 2)
            try:
                number, time_ms = float(value), int(time_text)
            except ValueError:
                self._leave_out(line)
                continue
            if text != text_before:
                if n_samples >= PIECE_SAMPLES:
                    yield self._selection(series)
                    series, n_samples = [], 0
                series.append((text, [], []))
                text_before = text
            elif n_samples >= PIECE_SAMPLES and last == last:
                # Not between NaNs, for it matters whether one stands alone.
                yield self._selection(series)
                series, n_samples = [(text, [], [])], 0
            series[-1][1].append(time_ms)
            series[-1][2].append(number)
            last = number
            n_samples += 1
        if series:
            yield self._selection(series)

    def _leave_out(self, line: str) -> None:
        series, found, _ = line.partition("} {")
        if not found:
            raise CallerError(f"promtool printed what is no sample: {line.strip()[:500]}")
        self.n_histograms += 1
        self.histogram_series.add(series + "}")

    def _selection(self, series: Sequence[tuple[str, list[int], list[float]]]) -> Selection:
        values = [np.array(numbers) for _, _, numbers in series]
        for column in values:
            nan = np.isnan(column)
            before, after = np.append(False, nan[:-1]), np.append(nan[1:], False)
            alone = nan & ~before & ~after
            column.view(np.uint64)[alone] = STALE_NAN_BITS
            self.n_stale += int(np.count_nonzero(alone))
            self.n_nans += int(np.count_nonzero(nan & ~alone))
        return Selection(
            LabelTable.of([labels_of(text) for text, _, _ in series]),
            np.cumsum([0, *map(len, values)], dtype=np.int64),
            np.array([time for _, times, _ in series for time in times], dtype=np.int64),
            np.concatenate(values),
        )


def labels_of(text: str) -> dict[str, str]:
    """The label set that promtool prints in braces. Raises CallerError."""
    labels: dict[str, str] = {}
    at = 1
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            break
        name, value = match[1], match[2]
        labels[unquote(name) if name[0] == '"' else name] = unquote(f'"{value}"')
        at = match.end()
    if at != len(text) or text[:1] != "{" or text[-1:] != "}":
        raise CallerError(f"promtool printed what are no labels: {text[:500]}")
    return labels
