"""Requests that are made to hurt, sent to a real process: each is refused or answered, and the process goes on.

Connections that are made to hurt are in `unit/tabor/doors/test_connections.py`.
"""

from __future__ import annotations

import time
import urllib.parse
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path

import cramjam
import pytest

from bench.requests import compress, encode_labels, encode_sample
from tests.load import START_MS
from tests.processes import Process, running, tabor_run

pytestmark = pytest.mark.acceptance

PATIENCE_S = 60.0
HEALTHY_S = 5.0
"""However busy the machine is; a blocked event loop takes longer."""
MAX_RSS_BYTES = 1 << 30
N_SERIES = 2000
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
GZIP = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
SNAPPY = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
VERSION_2 = {**SNAPPY, "Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}


@pytest.fixture(scope="module")
def tabor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = tabor_run(tmp_path_factory.mktemp("hostile"))
    with running(process):
        process.start_and_wait()
        labels = (
            {"__name__": "load", "s": f"{i:05d}", "pod": f"pod-{i % 100}-{'x' * 50}"} for i in range(N_SERIES)
        )
        status, body = process.write(compress(encode_labels(one) + encode_sample(1.0, START_MS) for one in labels))
        assert status == 204, body
        yield process


def peak_rss_bytes(process: Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def attack(
    tabor: Process, path: str, body: bytes | None, headers: dict[str, str], statuses: tuple[int, ...]
) -> bytes:
    """Send it; while it is being answered others are, too."""
    with ThreadPoolExecutor(1) as thread:
        before = time.monotonic()
        sent = thread.submit(tabor.request, "GET" if body is None else "POST", path, body, headers)
        while not sent.done():
            asked = time.monotonic()
            assert tabor.get("/-/healthy")[0] == 200
            assert time.monotonic() - asked < HEALTHY_S, "others were kept waiting"
            time.sleep(0.02)
        status, answer = sent.result()
    assert time.monotonic() - before < PATIENCE_S
    assert status in statuses, (status, answer[:300])
    assert len(answer) < 1 << 20
    assert peak_rss_bytes(tabor) < MAX_RSS_BYTES
    return answer


def nested(template: str, times: int) -> str:
    return reduce(lambda inner, _: template.format(inner), range(times), 'load{{s="00001"}}'.format())


QUERIES: dict[str, tuple[str, str, str]] = {
    # name: (query, timeout, what the answer has in it)
    "labels that double by joining": (nested('label_join({},"s","","s","s")', 60), "", "a label value would have"),
    "labels that double by replacing": (
        nested('label_replace({},"s","$1$1","s","(.*)")', 60),
        "",
        "a label value would have",
    ),
    "many long labels": (
        "count(" + nested('label_join({},"s","","s","s")', 13).replace('{s="00001"}', "") + ")",
        "",
        "",
    ),
    "regex: repetitions within repetitions": ('load{s=~"((((a{30}){30}){30}){30})"}', "", "repeat count"),
    "regex: a large program": (r'load{s=~"\\pL{1000}"}', "", "too large"),
    "regex: many large programs": ('load{s=~"' + r"(\\pL{200})|" * 60 + 'a"}', "", "too large"),
    "regex: exponential for others": ('load{pod=~"(x+x+)+y|((x*)*)*z"}', "", '"result":[]'),
    "regex: many states": ('load{pod=~".*x.{200}x.{200}x"}', "", '"result":[]'),
    "regex: 20,000 alternatives": (
        'load{s=~"' + "|".join(f"x{i}.*" for i in range(20_000)) + '"}',
        "1s",
        "",
    ),
    "regex: replaced": (r'label_replace(load,"z","$1","pod","(((x*)*)*)*y?")', "", '"success"'),
    "many matchers": ("load{" + 's!="x",' * 20_000 + "}", "", "too many label matchers"),
    "many steps of a subquery": ("max_over_time(load[100d:1ms])", "", "too many samples"),
    "subqueries in one another": ("max_over_time(max_over_time(load[1h:1s])[1d:1s])", "", "too many samples"),
    "parentheses": ("(" * 50_000 + "1" + ")" * 50_000, "", "nested too deeply"),
    "minus signs": ("-" * 200_000 + "1", "", "nested too deeply"),
    "sums": ("1" + "+1" * 100_000, "", "too many levels"),
    "durations": ("load[" + "(" * 5_000 + "1m" + ")" * 5_000 + "]", "", "nested too deeply"),
    "a long query": ("a" * 1_000_000, "", "query is too long"),
    "a huge k": ("topk(1e300, load)", "", "overflows"),
    "towers of powers": ("2" + "^9" * 50, "", '"+Inf"'),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_hostile_query_ends(tabor: Process, name: str) -> None:
    query, timeout, expected = QUERIES[name]
    fields = {"query": query, "time": START_MS / 1000, **({"timeout": timeout} if timeout else {})}
    form = urllib.parse.urlencode(fields).encode()
    answer = attack(tabor, "/api/v1/query", form, FORM, (200, 400, 422, 503))
    assert expected in answer.decode()


def snappy(message: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(message))


def gzip(message: bytes) -> bytes:
    return zlib.compress(message, 9, 31)


WRITE, READ, OTLP, IMPORT = "/api/v1/write", "/api/v1/read", "/api/v1/otlp/v1/metrics", "/api/v1/import/prometheus"
BODIES = {
    # name: (path, body, headers, status, what the answer has in it)
    "otlp: a gigabyte in gzip": (OTLP, gzip(bytes(1 << 30)), GZIP, 413, "--max-body-bytes"),
    "otlp: 16 million empty messages": (OTLP, gzip(b"\x0a\x00" * (15 << 20)), GZIP, 413, "messages within it"),
    "otlp: messages in one another": (OTLP, gzip(b"\x0a\x7f" * 10_000), GZIP, 400, "nested too deep"),
    "import: a gigabyte in gzip": (IMPORT, gzip(bytes(1 << 30)), GZIP, 413, "--max-body-bytes"),
    "import: a line of 5 million labels": (IMPORT, gzip(b"a{" + b'b="c",' * (5 << 20)), GZIP, 400, "characters"),
    "write: 4 GiB by its header": (WRITE, b"\xff\xff\xff\xff\x0f" + bytes(100), SNAPPY, 413, "--max-body-bytes"),
    "write: snappy that claims too little": (WRITE, b"\x01" + snappy(bytes(1 << 20))[3:], SNAPPY, 400, "snappy"),
    "write: 16 million empty series": (WRITE, snappy(b"\x0a\x00" * (16 << 20)), SNAPPY, 413, "series"),
    "write: 16 million empty metadata": (WRITE, snappy(b"\x1a\x00" * (16 << 20)), SNAPPY, 413, "samples"),
    "write 2.0: 16 million empty series": (WRITE, snappy(b"\x2a\x00" * (16 << 20)), VERSION_2, 413, "bytes"),
    "write: 5,000 labels": (
        WRITE,
        compress(
            [encode_labels({"__name__": "b", **{f"l{i:04d}": "v" for i in range(5000)}}) + encode_sample(1, 1)]
        ),
        SNAPPY,
        422,
        "labels",
    ),
    "write: a label of a megabyte": (
        WRITE,
        compress([encode_labels({"__name__": "b", "v": "v" * (1 << 20)}) + encode_sample(1, 1)]),
        SNAPPY,
        422,
        "",
    ),
    "read: 9 million empty queries": (READ, snappy(b"\x0a\x00" * (9 << 20)), SNAPPY, 400, "decompressed"),
    "read: 2 million empty queries": (READ, snappy(b"\x0a\x00" * (2 << 20)), SNAPPY, 400, "queries"),
    "read: a million types of answers": (
        READ,
        snappy(b"\x12\xc0\x84\x3d" + bytes(1_000_000)),
        SNAPPY,
        400,
        "ReadRequest",
    ),
    "read: a million matchers": (
        READ,
        snappy(b"\x0a\x80\x89\x7a" + b"\x1a\x00" * 1_000_000),
        SNAPPY,
        400,
        "matchers",
    ),
    "form: a million fields": ("/api/v1/query", b"a=&" * 1_000_000, FORM, 400, "fields"),
    "form: ten megabytes": ("/api/v1/query", b"query=" + b"%41" * 3_500_000, FORM, 400, "larger than"),
    "series: 9,000 selectors": (
        "/api/v1/series",
        urllib.parse.urlencode([("match[]", f'{{s=~".*{i}.*"}}') for i in range(9000)]).encode(),
        FORM,
        400,
        "match[]",
    ),
    "steps": (
        "/api/v1/query_range",
        b"query=vector(1)&start=0&end=1790000000&step=0.001",
        FORM,
        400,
        "maximum resolution",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused(tabor: Process, name: str) -> None:
    path, body, headers, status, expected = BODIES[name]
    assert expected in attack(tabor, path, body, headers, (status,)).decode(errors="replace")


@pytest.mark.parametrize("path", [OTLP, IMPORT])
def test_many_bombs_at_once_do_not_fill_the_memory(tabor: Process, path: str) -> None:
    """Each is 30 kB on the way and 31 MiB then; those that wait do so as they were sent."""
    bomb = gzip(b"#" * (31 << 20))
    with ThreadPoolExecutor(24) as threads:
        sent = [threads.submit(tabor.request, "POST", path, bomb, GZIP) for _ in range(24)]
        assert {one.result()[0] for one in sent} == {400}
    assert peak_rss_bytes(tabor) < MAX_RSS_BYTES


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/v1/label/..%2f..%2f..%2fetc%2fpasswd/values",
        "//etc/passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/api/v1/status/../../../../etc/passwd",
        "/%00",
        "/static/../../../../etc/passwd",
        "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static//etc/passwd",
    ],
)
def test_no_path_leads_to_files(tabor: Process, path: str) -> None:
    answer = attack(tabor, path, None, {}, (200, 400, 404))
    assert b"root:" not in answer


@pytest.mark.parametrize("header", ["Accept", "Accept-Encoding", "Content-Type", "Cookie", "X-Scope-OrgID"])
def test_long_headers_are_no_work(tabor: Process, header: str) -> None:
    for value in ("a/b;q=0.1," * 5000, ",;=" * 15_000, "(" * 50_000):
        attack(tabor, "/api/v1/query?query=1", None, {header: value}, (200, 400))
        attack(tabor, "/metrics", None, {header: value}, (200,))


def test_it_still_works_and_stops_in_good_order(tabor: Process) -> None:
    found = tabor.data("/api/v1/query", query="count(load)", time=START_MS / 1000)
    assert found["result"][0]["value"][1] == str(N_SERIES)
    assert tabor.write(compress([encode_labels({"__name__": "after"}) + encode_sample(1.0, START_MS)]))[0] == 204
    assert tabor.stop() == 0, tabor.output[-2000:]
    assert "Traceback" not in tabor.output
    assert "MemoryError" not in tabor.output
