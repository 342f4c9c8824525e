"""OpenMetrics text: families one after another, in each the series, in these the samples by time.

The text has no stale markers and no native histograms; both are left out and counted. What is read slice by slice
of time has to be written series by series, so a family waits in a temporary file until all of it is there.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, cast

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from common.labels import METRIC_NAME, LabelTable
from common.store import STALE_NAN_BITS
from query.arrow_stream import HISTOGRAM, TIMESTAMP, VALUE
from query.engine.labeling import number
from query.json_result import point_texts
from tabor.export.files import Counted
from tabor.tables import label_columns, label_table

Known = Mapping[str, Sequence[Mapping[str, str]]]
"""Metadata as `/api/v1/metadata` has it."""

_IN_MEMORY_BYTES = 16 << 20
"""Text of a family up to which it waits in memory."""
_COPY_BYTES = 1 << 20
_PLAIN_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_PLAIN_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "summary": ("", "_count", "_sum", "_created"),
    "info": ("_info",),
    "gauge": ("",),
    "stateset": ("",),
}
"""Of the samples of a family, by its type (OpenMetrics 1.0, 'Metric Types')."""


@dataclass(frozen=True, slots=True)
class Family:
    """members: names of metrics, in the order in which they stand at one time."""

    name: str
    type: str
    help: str
    unit: str
    members: tuple[str, ...]


def families(names: Sequence[str], metadata: Known) -> list[Family]:
    """The families of these metrics.

    A metric of which nothing is known, or whose name does not fit its type, is of type unknown.
    """
    found: dict[str, dict[str, Any]] = {}
    loose = []
    for name in names:
        family = _family_of(name, metadata)
        if family is None:
            loose.append(name)
        else:
            found.setdefault(family[0], {"about": family[1], "members": []})["members"].append(name)
    out = []
    for name, one in found.items():
        about = one["about"]
        # The sample of an unknown metric would belong to the family that has its name.
        if name in loose:
            loose += one["members"]
            continue
        order = [name + suffix for suffix in _SUFFIXES[about["type"]]]
        members = tuple(sorted(one["members"], key=order.index))
        unit = about["unit"] if name.endswith("_" + about["unit"]) else ""
        out.append(Family(name, about["type"], about["help"], unit, members))
    out += [Family(name, "unknown", _help(name, metadata), "", (name,)) for name in loose]
    return sorted(out, key=lambda family: family.name)


def _family_of(name: str, metadata: Known) -> tuple[str, Mapping[str, str]] | None:
    for kind, suffixes in _SUFFIXES.items():
        for suffix in suffixes:
            if not name.endswith(suffix) or name == suffix:
                continue
            family = name.removesuffix(suffix)
            # Prometheus' text format calls a counter by the name of its sample.
            for known in (family, name) if kind == "counter" and suffix == "_total" else (family,):
                about = metadata.get(known, [{}])[0]
                if about.get("type") == kind:
                    return family, about
    return None


def _help(name: str, metadata: Known) -> str:
    return metadata.get(name, [{}])[0].get("help", "")


class TextWriter:
    """Writes families, each slice by slice."""

    def __init__(self, file: Counted) -> None:
        self._file = file
        self.n_samples = 0
        self.n_stale = 0
        self.n_histograms = 0

    def begin(self, family: Family) -> None:
        """What `add` gets from now on is of this family, until `end`."""
        self._family = family
        self._waiting = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))  # noqa: SIM115
        self._size = 0
        self._groups: dict[str, list[tuple[int, int]]] = {}

    def add(self, table: Any) -> None:
        """Take the rows of a slice; those of later slices are later."""
        native = table[HISTOGRAM].is_valid().to_numpy()
        values = table[VALUE].fill_null(0.0).to_numpy()
        stale = values.view(np.uint64) == np.uint64(STALE_NAN_BITS)
        self.n_histograms += int(np.count_nonzero(native))
        self.n_stale += int(np.count_nonzero(stale & ~native))
        kept = np.flatnonzero(~native & ~stale)
        if not len(kept):
            return
        times_ms = table[TIMESTAMP].cast(pa.int64()).to_numpy()[kept]
        (batch,) = table.unify_dictionaries().combine_chunks().to_batches()
        labels = label_table(batch, label_columns(table.schema)).take(kept)
        ids, firsts = number(labels)
        self._write(labels.take(firsts), ids, times_ms, values[kept])
        self.n_samples += len(kept)

    def _write(
        self,
        series: LabelTable,
        ids: NDArray[np.int64],
        times_ms: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        """ids: of each sample, the row of its series."""
        places = [_place(labels, self._family) for labels in series]
        prefixes = [_prefix(labels) for labels in series]
        names, groups = np.unique(np.array([group for group, _ in places]), return_inverse=True)
        ranks = np.empty(len(places), dtype=np.int64)
        ranks[sorted(range(len(places)), key=lambda i: places[i][1])] = np.arange(len(places))
        # All samples of a group of one time stand together, as the buckets of a histogram have to.
        order = np.lexsort((ranks[ids], times_ms, groups[ids]))
        points = point_texts(times_ms[order], values[order])
        lines = [
            f"{prefixes[i]} {text} {time}\n" for i, (time, text) in zip(ids[order].tolist(), points, strict=True)
        ]
        ends = np.cumsum(np.bincount(groups[ids])).tolist()
        for name, (start, end) in zip(names.tolist(), pairwise([0, *ends]), strict=True):
            lines_of_group = "".join(lines[start:end]).encode()
            self._waiting.write(lines_of_group)
            self._groups.setdefault(name, []).append((self._size, self._size + len(lines_of_group)))
            self._size += len(lines_of_group)

    def end(self) -> None:
        """Write the family, if it has any samples."""
        if self._groups:
            family = self._family
            name = family.name if _PLAIN_METRIC.match(family.name) else _quoted(family.name)
            self._file.write(f"# TYPE {name} {family.type}\n".encode())
            if family.unit:
                self._file.write(f"# UNIT {name} {family.unit}\n".encode())
            if family.help:
                self._file.write(f"# HELP {name} {_escaped(family.help)}\n".encode())
            for parts in self._groups.values():
                for start, end in parts:
                    self._copy(start, end)
        self._waiting.close()

    def _copy(self, start: int, end: int) -> None:
        self._waiting.seek(start)
        while start < end:
            part = self._waiting.read(min(end - start, _COPY_BYTES))
            self._file.write(part)
            start += len(part)

    def close(self) -> None:
        """Write what stands at the end of the text."""
        self._file.write(b"# EOF\n")


def _place(labels: Mapping[str, str], family: Family) -> tuple[str, tuple[int, float]]:
    """The group of a series within its family, and its place in it."""
    inner = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}.get(family.type, "")
    rest = {key: text for key, text in labels.items() if key not in (METRIC_NAME, inner)}
    try:
        bound = float(labels.get(inner, "inf"))
    except ValueError:
        bound = float("inf")
    return orjson.dumps(rest).decode(), (family.members.index(labels[METRIC_NAME]), bound)


def _prefix(labels: Mapping[str, str]) -> str:
    """A series as it stands at the beginning of its lines."""
    name = labels[METRIC_NAME]
    plain = _PLAIN_METRIC.match(name) is not None
    parts = [] if plain else [_quoted(name)]
    for key in sorted(labels):
        if key != METRIC_NAME:
            parts.append(f"{key if _PLAIN_LABEL.match(key) else _quoted(key)}={_quoted(labels[key])}")
    return (name if plain else "") + (f"{{{','.join(parts)}}}" if parts else "")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
