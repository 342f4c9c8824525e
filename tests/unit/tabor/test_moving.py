"""Parts of export and import: slices of time, families, tables, what promtool prints."""

from __future__ import annotations

import datetime
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from common.errors import CallerError
from common.store import STALE_NAN_BITS, Selection, TooManySamples
from query.export import exported
from query.params import parse_time_ms
from query.promql.parser import parse_selector
from tabor.export import walk
from tabor.export.files import output
from tabor.export.openmetrics import Family, families
from tabor.export.walk import bounds, slices, time_text
from tabor.imports import tsdb
from tabor.imports.tables import selection_of
from tabor.imports.tsdb import _Dump, labels_of, noted_histograms, time_ranges
from tabor.remote import TooMuch
from tests.memory_store import MemoryStore

DAY_MS = 86_400_000


class StoreServer:
    """Answers as a server does, out of a store."""

    def __init__(self, store: MemoryStore, limit: int = 1 << 60) -> None:
        self._store = store
        self._limit = limit
        self.n_asked = 0

    def _range(self, asked: dict[str, str]) -> tuple[int, int]:
        start, end = parse_time_ms(asked["start"]), parse_time_ms(asked["end"])
        assert start is not None
        assert end is not None
        assert start <= end
        return start, end

    def data(self, path: str, asked: dict[str, str]) -> Any:
        self.n_asked += 1
        return list(self._store.series([parse_selector(asked["match[]"])], *self._range(asked)))

    def arrow(self, path: str, asked: dict[str, str]) -> bytes:
        self.n_asked += 1
        limit = min(int(asked["max_samples"]), self._limit)
        try:
            return b"".join(
                exported(self._store.select(parse_selector(asked["match[]"]), *self._range(asked), limit))
            )
        except TooManySamples as error:
            raise TooMuch(str(error)) from None


def test_slices_have_every_sample_once_in_order_and_none_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SLICE_SAMPLES", 50)
    rng = random.Random(5)
    store = MemoryStore()
    times = {rng.choice((0, 10**12, 10**12 + 5 * DAY_MS)) + rng.randrange(400) * 1000 for _ in range(500)}
    store.add({"__name__": "a"}, [(time, 1.0) for time in times])
    # One millisecond has more than a slice may have, and is given whole.
    for i in range(70):
        store.add({"__name__": "b", "i": str(i)}, [(10**12 + 5, float(i))])
    server: Any = StoreServer(store)
    found = []
    low, high = bounds(server, "{__name__=~'.+'}", None, None) or (0, 0)
    last = low - 1
    for part in slices(server, "{__name__=~'.+'}", low, high):
        times_of = part.table["timestamp"].cast(pa.int64()).to_pylist()
        assert all(last < time <= part.end_ms for time in times_of)
        assert len(times_of) <= 50 or set(times_of) == {10**12 + 5}
        found += times_of
        last = part.end_ms
    assert last == high
    assert sorted(found) == sorted([*times, *[10**12 + 5] * 70])


def test_one_millisecond_that_has_more_than_the_server_gives_is_an_error() -> None:
    store = MemoryStore([({"__name__": "a", "i": str(i)}, [(5, 1.0)]) for i in range(7)])
    server: Any = StoreServer(store, limit=6)
    with pytest.raises(TooMuch):
        list(slices(server, "a", 0, 10))


@pytest.mark.parametrize("times", [[0], [-5 * 10**14, 7], [10**12, 3 * 10**13], [1_790_000_000_000]])
def test_bounds_hold_all_samples_and_are_found_with_few_questions(times: list[int]) -> None:
    server: Any = StoreServer(MemoryStore([({"__name__": "a"}, [(time, 1.0) for time in times])]))
    found = bounds(server, "a", None, None)
    assert found is not None
    assert min(times) - DAY_MS <= found[0] <= min(times)
    assert max(times) <= found[1] <= max(times) + DAY_MS
    assert server.n_asked < 70
    assert bounds(server, "a", 0, 10) == ((0, 10) if 0 in times or 7 in times else None)
    assert bounds(server, "b", None, None) is None


def test_times_too_far_to_be_told_apart_are_refused() -> None:
    server: Any = StoreServer(MemoryStore([({"__name__": "a"}, [(1 << 52 | 1 << 51, 1.0)])]))
    with pytest.raises(CallerError, match="--start and --end"):
        bounds(server, "a", None, None)


@pytest.mark.parametrize("time_ms", [0, 1, -1, -1500, 1_790_000_000_123, -(1 << 52), 1 << 52])
def test_a_time_is_read_back_as_the_same(time_ms: int) -> None:
    assert parse_time_ms(time_text(time_ms)) == time_ms


def about(kind: str, unit: str = "") -> list[dict[str, str]]:
    return [{"type": kind, "help": "h", "unit": unit}]


def test_metrics_are_gathered_into_the_families_of_their_metadata() -> None:
    names = ["a_total", "b_total", "c_bucket", "c_count", "c_sum", "d", "d_sum", "e", "f", "f_total", "g_bytes"]
    known = {
        "a": about("counter"),
        "b_total": about("counter"),
        "c": about("histogram"),
        "d": about("summary"),
        "e": about("counter"),
        "f": about("counter"),
        "g_bytes": about("gauge", "bytes"),
    }
    assert families(names, known) == [
        Family("a", "counter", "h", "", ("a_total",)),
        Family("b", "counter", "h", "", ("b_total",)),
        Family("c", "histogram", "h", "", ("c_bucket", "c_count", "c_sum")),
        Family("d", "summary", "h", "", ("d", "d_sum")),
        # A counter without its suffix, and one whose family another metric is called, are of no known type.
        Family("e", "unknown", "h", "", ("e",)),
        Family("f", "unknown", "h", "", ("f",)),
        Family("f_total", "unknown", "", "", ("f_total",)),
        Family("g_bytes", "gauge", "h", "bytes", ("g_bytes",)),
    ]


def taken(columns: dict[str, Any], metric: str | None = None) -> dict[str, list[tuple[int, float]]]:
    found: Selection = selection_of(pa.RecordBatch.from_pydict(columns), metric, "f", 10)
    rows = {}
    for i, labels in enumerate(found.labels):
        part = slice(int(found.offsets[i]), int(found.offsets[i + 1]))
        samples = list(zip(found.timestamps[part].tolist(), found.values[part].tolist(), strict=True))
        rows[",".join(f"{k}={v}" for k, v in labels.items())] = samples
    return rows


def test_rows_in_any_order_are_gathered_by_series() -> None:
    columns = {
        "value": pa.array([1, 2, 3, 4], type=pa.int32()),
        "timestamp": pa.array([1, 2, 3, 4]),
        "__name__": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
        "x": pa.array([None, "", None, "y"], type=pa.large_utf8()),
    }
    assert taken(columns) == {
        "__name__=a": [(1, 1.0), (3, 3.0)],
        "__name__=b": [(2, 2.0)],
        "__name__=b,x=y": [(4, 4.0)],
    }


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_are_taken_as_milliseconds(unit: str) -> None:
    time = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    columns = {"timestamp": pa.array([time], type=pa.timestamp(unit, tz="Europe/Berlin")), "value": [1.0]}
    assert taken(columns, "m") == {"__name__=m": [(1_767_225_600_000, 1.0)]}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"time": [1], "value": [1.0]}, "f has no column 'timestamp'; there are time, value"),
        ({"timestamp": [1], "v": [1.0]}, "f has no column 'value'"),
        ({"timestamp": ["x"], "value": [1.0]}, "column 'timestamp' is of type string"),
        ({"timestamp": [1, None], "value": [1.0, 1.0]}, "f: row 12 has no timestamp"),
        ({"timestamp": [1, 1], "value": [1.0, None]}, "f: row 12 has no value"),
        ({"timestamp": [1], "value": ["x"]}, "column 'value' is of type string"),
        ({"timestamp": [1], "value": [1.0], "x": [1]}, "column 'x' is of type int64; labels are texts"),
        ({"timestamp": [1], "value": [1.0], "x": ["a"]}, "f: row 11 has no __name__; give one with --metric"),
        ({"timestamp": [1], "value": [1.0], "histogram": ["a"]}, "column 'histogram' is of type string"),
        (
            {"timestamp": [1, 2], "value": [1.0, None], "histogram": [None, b"x"], "__name__": ["a", "a"]},
            "f: row 12: the bytes are not those of a histogram",
        ),
    ],
)
def test_a_table_that_is_none_of_samples_is_refused_with_the_place(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(CallerError) as caught:
        taken(columns)
    assert reason in str(caught.value)


def test_labels_are_read_as_promtool_prints_them() -> None:
    assert labels_of(r'{__name__="a", b="\"\\\u00e9\n, }"}') == {"__name__": "a", "b": '"\\é\n, }'}
    assert labels_of('{"my.metric"="x", a="b"}') == {"my.metric": "x", "a": "b"}
    for bad in ("", "{", '{a="b"', '{a="b"} x', 'a="b"}', "{a=b}"):
        with pytest.raises(CallerError):
            labels_of(bad)


def test_a_stale_marker_is_told_from_nans_in_a_row_wherever_pieces_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsdb, "PIECE_SAMPLES", 3)
    values = ["1", "2", "NaN", "NaN", "3", "NaN", "4"]
    lines = [f'{{__name__="a"}} {value} {i}\n' for i, value in enumerate(values)]
    dump = _Dump("promtool", Path())
    found = [bits for one in dump._read(iter(lines)) for bits in one.values.view(np.uint64).tolist()]
    stale = [bits == STALE_NAN_BITS for bits in found]
    assert stale == [False, False, False, False, False, True, False]
    assert (dump.n_stale, dump.n_nans) == (1, 2)


def test_an_exported_file_is_one_that_others_may_read_as_any_other(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        with output(str(tmp_path / "out")) as file:
            file.write(b"x")
    finally:
        os.umask(umask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644


def test_histograms_are_counted_where_blocks_count_them(tmp_path: Path) -> None:
    stats = ('{"numHistogramSamples": 3}', '{"numHistogramSamples": 4}', '{"numSamples": 9}', '"?"')
    for i, text in enumerate(stats):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "meta.json").write_text(f'{{"maxTime": 9, "stats": {text}}}')
    assert noted_histograms(tmp_path) == 7


def test_the_ranges_of_a_data_folder_end_where_blocks_end_and_leave_nothing_out(tmp_path: Path) -> None:
    for i, end in enumerate((20, 10, 20)):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "meta.json").write_text(f'{{"minTime": 0, "maxTime": {end}}}')
    lowest, highest = -(1 << 63), (1 << 63) - 1
    assert time_ranges(tmp_path) == [(lowest, 9), (10, 19), (20, highest)]
    (tmp_path / "0" / "meta.json").write_text("{}")
    with pytest.raises(CallerError, match=r"meta\.json cannot be read"):
        time_ranges(tmp_path)
