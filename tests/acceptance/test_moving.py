"""What is exported from one Tabor and imported into another is the same there, bit for bit."""

from __future__ import annotations

import gzip
import json
import random
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from common.labels import LabelTable
from common.store import Selection
from query.export import exported
from tests.acceptance.test_kill import digests
from tests.acceptance.test_prometheus import program
from tests.oracles import remote_write as oracle
from tests.oracles.histogram import NativeHistogram
from tests.processes import Process, running, tabor_command, tabor_run

pytestmark = pytest.mark.acceptance
T0 = 1_790_000_000_000
ONE_BITS = 0x3FF0000000000000
ODD_BITS = (0x7FF0000000000002, 0x7FF8000000000001, 0xFFF8000000ABCDEF, 1 << 63, 0x7FF0000000000000, 1, 0)
TEXTS = ("", "a", "ü{}\"'\\\n\u2028\x85", "0.5", "x" * 300)
NAMES = ("timestamp", "value", "histogram", "label_value", "ä b.c", "job")
HISTOGRAMS = [
    NativeHistogram(1, 6, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), ((3, 1),), (1,), is_float=False),
    NativeHistogram(0, 3.5, -2.5, 0.0, 0.5, ((0, 2),), (1, 2), hint=3),
    NativeHistogram(-53, 3, 2.5, positive_spans=((0, 2),), positive=(1, 2), bounds=(0.5,), is_float=False),
    # A span without a bucket means nothing, but is part of what was sent.
    NativeHistogram(3, 1, 2.5, 0.1, 1, ((5, 0),), (), hint=1, is_float=False),
]


def tabor(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tabor_command(*arguments), capture_output=True, text=True, timeout=120, **options)


def moved(*arguments: str) -> str:
    """Run a command that has to succeed; what it said."""
    result = tabor(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stderr


def url(server: Process) -> str:
    return f"http://127.0.0.1:{server.port}"


def write(server: Process, message: bytes) -> None:
    status, text = server.write(oracle.snappy(message))
    assert status == 204, text


def random_series(rng: random.Random, *, odd: bool) -> list[tuple[dict[str, str], list[tuple[int, int]]]]:
    """Label sets with samples of (time, bits); spread over a year, some before 1970."""
    series: dict[str, tuple[dict[str, str], list[tuple[int, int]]]] = {}
    for _ in range(60):
        labels = {"__name__": rng.choice(["m", "requests_total", "a:b", "my.metric ü", "my-metric ü"])}
        for name in rng.sample(NAMES, rng.randint(0, 4)):
            labels[name] = rng.choice(TEXTS)
        labels = {name: text for name, text in labels.items() if text}
        start = T0 - rng.choice((0, 0, 86_400_000 * 300, T0 + 5_000))
        samples = []
        for i in range(rng.randint(1, 40)):
            value = rng.choice(
                (rng.random(), rng.randint(-5, 5), rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300))
            )
            bits = struct.unpack("<Q", struct.pack("<d", value))[0]
            samples.append((start + i * 15_007, rng.choice(ODD_BITS) if odd and rng.random() < 0.3 else bits))
        series.setdefault(json.dumps(labels, sort_keys=True), (labels, samples))
    return list(series.values())


def message(series: list[tuple[dict[str, str], list[tuple[int, int]]]]) -> bytes:
    return b"".join(
        oracle.series_field(sorted((k.encode(), v.encode()) for k, v in labels.items()), samples)
        for labels, samples in series
    )


def histogram_message() -> bytes:
    return b"".join(
        oracle.delimited(
            1,
            oracle.label_field(b"__name__", b"native")
            + oracle.label_field(b"i", b"%d" % i)
            + b"".join(oracle.delimited(4, one.message(T0 + 15_000 * k)) for k in range(3))
            + oracle.sample_field(T0 + 60_000, 5),
        )
        for i, one in enumerate(HISTOGRAMS)
    )


def empty(folder: Path, name: str) -> Process:
    return tabor_run(folder, name=name, data_dir=folder / f"data-{name}")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_table_brings_every_bit_to_an_empty_tabor(tmp_path: Path, form: str) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source, target = empty(tmp_path, "source"), empty(tmp_path, "target")
    with running(source, target):
        source.start_and_wait()
        target.start_and_wait()
        write(source, message(random_series(random.Random(seed), odd=True)))
        write(source, histogram_message())
        path = str(tmp_path / f"all.{form}")
        everything = ("--match", '{__name__=~".+"}', "--format", form)
        moved("export", "--url", url(source), *everything, "--output", path)
        for _ in range(2):
            # The second time nothing changes.
            moved("import", "--url", url(target), path)
        assert digests(source) == digests(target)
        to_pipe = subprocess.run(
            tabor_command("export", "--url", url(source), *everything, "--output", "-"),
            capture_output=True,
            timeout=120,
        )
        assert to_pipe.stdout == Path(path).read_bytes()
        assert sorted(p.name for p in tmp_path.iterdir() if "all" in p.name) == [f"all.{form}"]


def test_open_metrics_brings_ordinary_values_and_promtool_reads_it_too(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source, target = empty(tmp_path, "source"), empty(tmp_path, "target")
    with running(source, target):
        source.start_and_wait()
        target.start_and_wait()
        write(source, message(random_series(random.Random(seed), odd=False)))
        for i, bound in enumerate(("0.5", "10", "+Inf")):
            labels = {"__name__": "rpc_seconds_bucket", "le": bound}
            write(
                source,
                message(
                    [(labels, [(T0, 4_600_000_000_000_000_000 + i), (T0 + 1_500, 4_611_686_018_427_387_904)])]
                ),
            )
        kinds = ((1, b"requests_total"), (3, b"rpc_seconds"), (2, b"m"))
        metadata = b"".join(
            oracle.delimited(3, b"\x08" + bytes([kind]) + oracle.delimited(2, name) + oracle.delimited(4, b"a\nb"))
            for kind, name in kinds
        )
        write(source, metadata)
        path = tmp_path / "all.om"
        out = ("--format", "openmetrics", "--output", str(path))
        said = moved("export", "--url", url(source), "--match", '{__name__=~".+"}', *out)
        assert "left out" not in said
        text = path.read_text()
        assert text.endswith("# EOF\n")
        for line in ("# TYPE requests counter\n", "# TYPE rpc_seconds histogram\n", "# HELP m a\\nb\n"):
            assert line in text
        # Buckets of one time stand together, in the order of their bounds.
        bounds = [line.split('"')[1] for line in text.splitlines() if line.startswith("rpc_seconds_bucket")]
        assert bounds == ["0.5", "10", "+Inf"] * 2
        (tmp_path / "all.om.gz").write_bytes(gzip.compress(path.read_bytes()))
        (tmp_path / "all.om.zst").write_bytes(zstandard.compress(path.read_bytes()))
        moved("import", "--url", url(target), str(tmp_path / "all.om.gz"), str(tmp_path / "all.om.zst"))
        assert digests(source) == digests(target)
        # Prometheus 2.42 has plain names only.
        plain = (
            "--match",
            "rpc_seconds_bucket",
            "--format",
            "openmetrics",
            "--output",
            str(tmp_path / "plain.om"),
        )
        moved("export", "--url", url(source), *plain)
        promtool = [program("promtool", "prometheus"), "tsdb", "create-blocks-from", "openmetrics"]
        blocks = subprocess.run(
            [*promtool, str(tmp_path / "plain.om"), str(tmp_path / "blocks")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert blocks.returncode == 0, blocks.stdout + blocks.stderr


def test_what_text_cannot_say_is_left_out_and_counted(tmp_path: Path) -> None:
    source = empty(tmp_path, "source")
    with running(source):
        source.start_and_wait()
        stale = [(T0, ODD_BITS[0]), (T0 + 1, 0), (T0 + 2, ODD_BITS[0])]
        write(source, message([({"__name__": "m"}, stale)]))
        write(source, histogram_message())
        out = ("--format", "openmetrics", "--output", "-")
        result = tabor("export", "--url", url(source), "--match", '{__name__=~".+"}', *out)
        assert result.returncode == 0
        assert "2 stale markers" in result.stderr
        assert "12 native histograms" in result.stderr
        assert "m 0 1790000000.001\n" in result.stdout
        # Ranges are closed on both sides.
        edges = ("--start", "1790000000.001", "--end", "1790000000.001")
        result = tabor("export", "--url", url(source), "--match", "m", *edges, *out)
        assert result.stdout == "# TYPE m unknown\nm 0 1790000000.001\n# EOF\n"
        assert "left out" not in result.stderr


def test_any_table_of_times_values_and_texts_can_be_imported(tmp_path: Path) -> None:
    target = empty(tmp_path, "target")
    n = 50_000
    columns = {
        "timestamp": pa.array([T0 * 1000 + i // 5 * 1_000_000 for i in range(n)], type=pa.timestamp("us")),
        "host": [f"h{i % 5}" for i in range(n)],
        "value": list(range(n)),
    }
    path = tmp_path / "mine.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    with running(target):
        target.start_and_wait()
        moved("import", "--url", url(target), "--metric", "my_metric", str(path))
        at = (T0 + n // 5 * 1000) / 1000
        counts = target.data("/api/v1/query", query=f"count_over_time(my_metric[{n}s])", time=at)["result"]
        assert {row["metric"]["host"]: row["value"][1] for row in counts} == {f"h{i}": "10000" for i in range(5)}
        result = tabor("import", "--url", url(target), str(path))
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert f"{path}: row 1 has no __name__; give one with --metric" in result.stderr


def test_what_the_server_refuses_is_said_and_the_rest_is_stored(tmp_path: Path) -> None:
    target = empty(tmp_path, "target")
    path = tmp_path / "some.txt"
    path.write_text(f'good 1 {T0}\nbad{{x="{"y" * 70_000}"}} 1 {T0}\n')
    with running(target):
        target.start_and_wait()
        result = tabor("import", "--url", url(target), str(path))
        assert result.returncode == 1
        assert f"{path}: lines 1 to" in result.stderr
        assert "refused" in result.stderr
        assert target.data("/api/v1/query", query="good", time=T0 / 1000)["result"]


UP = ["export", "--match", "up", "--format", "arrow", "--output", "x"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["export", "--match", "{", "--format", "parquet", "--output", "x"], "--match {"),
        (["export", "--match", "up", "--format", "csv", "--output", "x"], "'parquet', 'arrow', 'openmetrics'"),
        (["export", "--match", "up", "--format", "arrow", "--output", "no/such/x"], "--output no/such/x"),
        (["export", "--match", "up", "--format", "arrow", "--output", "/tmp"], "is a folder"),
        ([*UP, "--start", "soon"], "--start"),
        ([*UP, "--start", "2", "--end", "1"], "--end"),
        (
            ["export", "--match", "up", "--format", "arrow", "--output", "x", "--url", "http://127.0.0.1:1"],
            "--url",
        ),
        ([*UP, "--url", "127.0.0.1"], "--url"),
        (["import", "no-such-file"], "no-such-file"),
        (["import", "--url", "http://127.0.0.1:1", "pyproject.toml"], "pyproject.toml"),
        (["import"], "tabor import"),
        (["import", "--format", "parquet", "pyproject.toml"], "pyproject.toml cannot be read as parquet"),
        (["import", "--format", "arrow", "pyproject.toml"], "pyproject.toml cannot be read as arrow"),
        (["import", "prometheus-tsdb", "docs"], "docs is no data folder of Prometheus"),
        (["import", "prometheus-tsdb", "docs", "--promtool", "no-promtool"], "no-promtool is missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_flag_is_one_clear_line(arguments: list[str], hint: str) -> None:
    result = tabor(*arguments)
    if arguments == ["import"]:
        assert hint in result.stdout + result.stderr
        return
    assert result.returncode in (1, 2)
    assert result.stderr.count("\n") == 1, result.stderr
    assert hint in result.stderr
    assert not Path("x").exists()


DATA = {b"/api/v1/metadata": b"{}", b"/api/v1/labels": b'["__name__"]'}


@pytest.fixture
def hanging_server() -> Iterator[tuple[int, threading.Event]]:
    """A port where an export gets the sample of one second and then nothing, and the event that it is so far."""
    labels = LabelTable.of([{"__name__": "a"}])
    times, values = np.array([1000], dtype=np.int64), np.array([1.0])
    stream = b"".join(exported(Selection(labels, np.array([0, 1]), times, values)))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            n_exports = 0
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while request := connection.recv(65_536):
                        data = next((text for path, text in DATA.items() if path in request), b'["a"]')
                        status, body = b"200 OK", b'{"status":"success","data":%b}' % data
                        if b"/api/v1/export" in request:
                            n_exports += 1
                            if n_exports == 1:
                                status, body = b"422 Unprocessable", b'{"status":"error","error":"too much"}'
                            elif n_exports == 2:
                                body = stream
                            else:
                                hangs.set()
                                stop.wait()
                                return
                        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                        connection.sendall(head + body)

        stop, hangs = threading.Event(), threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], hangs
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", ["parquet", "openmetrics"])
def test_a_signal_leaves_no_half_file_and_is_told_where_the_export_was(
    tmp_path: Path, hanging_server: tuple[int, threading.Event], number: signal.Signals, form: str
) -> None:
    port, hangs = hanging_server
    path = tmp_path / "out"
    path.write_text("the one before")
    arguments = ["--match", "a", "--start", "1", "--end", "9", "--format", form, "--output", str(path)]
    command = tabor_command("export", "--url", f"http://127.0.0.1:{port}", *arguments)
    export = Process("export", command, tmp_path, 0)
    with running(export):
        export.start()
        assert hangs.wait(20), export.output
        export.signal(number)
        assert export.wait(20) == 128 + number, export.output
        assert "Traceback" not in export.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export.log", "out"]
    assert path.read_text() == "the one before"
    assert f"stopped by {number.name} after 1 samples," in export.output
    assert "up to 1970-01-01T00:00:04.999Z" in export.output
    assert f"{path} has not been written" in export.output
