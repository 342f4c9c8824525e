"""What the kernels are measured on: the largest call of each, as it comes up when the real code does its work.

A log, an ingestor, a storage node and a query service in one process take writes of all protocols, late samples,
deletions and queries of all kinds, in a folder that is deleted afterwards. Seeds are fixed.
"""

from __future__ import annotations

import asyncio
import gzip
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cramjam
import httpx
import numpy as np
from fastapi import FastAPI
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bench.loads import START_MS, STEP_MS
from bench.requests import compress, encode_labels, encode_sample, field
from common.kernels.jit import Kernel
from common.labels import uvarint
from common.log.url import open_log
from ingest.config import IngestConfig
from ingest.ingestor import Ingestor
from ingest.otlp_http import router as otlp_router
from query.config import QueryConfig
from query.http import router as query_router
from query.http_admin import router as admin_router
from query.service import QueryService
from storage_node.config import NodeConfig
from storage_node.service import StorageNode
from storage_node.windows import WINDOW_MS

Arguments = tuple[Any, ...]
PARTITIONS = 2
MERGED_S = 60.0
BEGIN_MS = START_MS // WINDOW_MS * WINDOW_MS - 600_000
"""Ten minutes before a window ends, so that there are samples of two."""


@contextmanager
def largest_calls(kept: dict[str, Arguments]) -> Iterator[None]:
    """Keep copies of the arguments with which each kernel is called, of the call with most bytes."""
    called = Kernel.__call__
    sizes: dict[str, int] = {}

    def call(kernel: Kernel, *arguments: Any) -> Any:
        size = n_bytes(arguments)
        if size > sizes.get(kernel.name, -1):
            # Before the call: kernels write into their arguments.
            sizes[kernel.name], kept[kernel.name] = size, fresh(arguments)
        return called(kernel, *arguments)

    Kernel.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        Kernel.__call__ = called  # type: ignore[method-assign]


def n_bytes(arguments: Sequence[Any]) -> int:
    """Of all arrays among the arguments, tuples of arrays included."""
    return sum(
        one.nbytes if isinstance(one, np.ndarray) else n_bytes(one) if isinstance(one, tuple) else 0
        for one in arguments
    )


def fresh(arguments: Arguments) -> Arguments:
    """Copies of the arrays among the arguments, as writable as they were."""
    copies = []
    for one in arguments:
        if isinstance(one, np.ndarray):
            copies.append(one.copy())
        elif isinstance(one, tuple):
            inner = fresh(one)
            copies.append(inner if type(one) is tuple else type(one)(*inner))
        else:
            copies.append(one)
    return tuple(copies)


def run(n_series: int, n_steps: int) -> dict[str, Arguments]:
    """Arguments by the name of the kernel. n_series: a hundred at least, of each kind that is written."""
    kept: dict[str, Arguments] = {}
    with largest_calls(kept), tempfile.TemporaryDirectory(prefix="tabor-kernels-") as folder:
        asyncio.run(_run(Path(folder), n_series, n_steps))
    return kept


async def _run(folder: Path, n_series: int, n_steps: int) -> None:
    log = open_log("local", data_dir=folder, partitions=PARTITIONS)
    # A small head, so that there are enough segments for a merge.
    node = StorageNode(log, NodeConfig("bench", folder, head_samples=n_series * n_steps // 24))
    ingestor = Ingestor(log, IngestConfig())
    queries = QueryService(node.store, QueryConfig())
    app = FastAPI()
    for routes in (otlp_router(ingestor), query_router(queries, "0"), admin_router(ingestor.delete)):
        app.include_router(routes)
    ingestor.start()
    node.start()
    try:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tabor", timeout=600) as client:
            for body in _counters(n_series, n_steps):
                ingestor.submit(body).result()
                # One by one: else the machine decides how many segments there are, and whether they are merged.
                node.store.wait_caught_up(MERGED_S)
            ingestor.submit_v2(_counters_v2(n_series)).result()
            await _post(client, "/api/v1/otlp/v1/metrics", _histograms(n_series // 5, n_steps // 4))
            await _ask(client, n_steps)
            await _merged(node)
            # In the head, and there alone.
            ingestor.submit(next(_counters(n_series, n_steps + 20, n_steps + 19))).result()
            await _get(client, "/api/v1/query_range", 'app{i="7"}', n_steps + 20)
            await _post(client, "/api/v1/admin/tsdb/delete_series", params={"match[]": 'app{i=~".*3"}'})
            # Segments and head with what was deleted in them.
            await _get(client, "/api/v1/query_range", "sum(rate(app[5m]))", n_steps)
            node.partitions_status(digest=True)
    finally:
        for part in (ingestor, queries, node, log):
            part.close()


def _counters(n_series: int, n_steps: int, first: int = 0) -> Iterator[bytes]:
    """Requests of remote write 1.0: counters with two decimals, a tenth of the samples late, some exemplars."""
    random = np.random.default_rng(1)
    labels = [encode_labels({"__name__": "app", "i": str(i), "job": f"job-{i % 10}"}) for i in range(n_series)]
    labels += [
        encode_labels({"__name__": "app_bucket", "i": str(i // 10), "le": str(2.0 ** (i % 10))})
        for i in range(n_series)
    ]
    values = np.zeros(len(labels))
    held: list[bytes] = []
    for step in range(first, n_steps):
        values = np.round(values + random.integers(0, 10_000, len(labels)) / 100, 2)
        time_ms = BEGIN_MS + step * STEP_MS
        rows = [one + encode_sample(value, time_ms) for one, value in zip(labels, values.tolist(), strict=True)]
        if not n_steps // 3 <= step < 2 * n_steps // 3:
            name = "half_first" if step < n_steps // 3 else "half_last"
            half = [encode_labels({"__name__": name, "i": str(i)}) for i in range(n_series)]
            rows += [one + encode_sample(float(step), time_ms) for one in half]
        if step % 10 == 5:
            held, rows = rows, []
        elif step % 10 == 9:
            rows, held = [*rows, *held], []
        if step % 20 == 0:
            exemplar = (
                field(1, field(1, b"trace_id") + field(2, b"%016x" % step)) + encode_sample(1.0, time_ms)[2:]
            )
            rows[:100] = [row + field(3, exemplar) for row in rows[:100]]
        yield compress(rows)


def _counters_v2(n_series: int) -> bytes:
    """A request of remote write 2.0."""
    names = ["", "__name__", "app_v2", "i", *map(str, range(n_series))]
    rows = []
    for i in range(n_series):
        refs = b"".join(map(uvarint, (1, 2, 3, 4 + i)))
        rows.append(field(5, field(1, refs) + encode_sample(float(i), BEGIN_MS)))
    message = b"".join(field(4, name.encode()) for name in names) + b"".join(rows)
    return bytes(cramjam.snappy.compress_raw(message))


def _histograms(n_series: int, n_steps: int) -> bytes:
    """OTLP: exponential histograms, 20 buckets on either side of zero."""
    random = np.random.default_rng(2)
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="lat")
    metric.exponential_histogram.aggregation_temporality = 2
    counts = np.zeros((n_series, 40), dtype=np.int64)
    for step in range(n_steps):
        counts += random.integers(0, 5, counts.shape)
        for i in range(n_series):
            point = metric.exponential_histogram.data_points.add(
                time_unix_nano=(BEGIN_MS + step * STEP_MS) * 1_000_000, scale=2, sum=float(counts[i].sum())
            )
            point.attributes.add(key="i").value.string_value = str(i)
            point.attributes.add(key="job").value.string_value = f"job-{i % 10}"
            point.positive.bucket_counts.extend(counts[i, :20].tolist())
            point.negative.bucket_counts.extend(counts[i, 20:].tolist())
            point.zero_count = step
            point.count = int(counts[i].sum()) + step
    return gzip.compress(message.SerializeToString(), 1, mtime=0)


QUERIES = (
    "app",
    "app smoothed",
    "rate(app[5m] anchored)",
    "rate(app[5m])",
    "increase(app[5m] smoothed)",
    "max_over_time(app[5m])",
    "quantile_over_time(0.9, app[5m])",
    "deriv(app[5m])",
    "sum by (job) (app)",
    "avg by (job) (app)",
    "stddev(app)",
    "quantile by (job) (0.9, app)",
    "topk by (job) (3, app)",
    "topk(3, app)",
    "bottomk(2, floor(app / 1000))",
    "limitk(5, app)",
    'count_values("v", floor(app / 1000))',
    "app + app",
    "app / on (i) group_left app_v2",
    "app and app > 10",
    "app or app_v2",
    "app unless app > 100",
    "histogram_quantile(0.9, app_bucket)",
    "sort(app)",
    "label_replace(app, 'j', '$1', 'i', '(.*)')",
    'sum without (i) ({__name__=~"app.*"})',
    "lat",
    "rate(lat[5m])",
    "sum by (job) (lat)",
    "sum_over_time(lat[5m])",
    "irate(lat[5m])",
    "resets(lat[5m])",
    "changes(lat[5m])",
    "histogram_quantile(0.9, rate(lat[5m]))",
    "histogram_fraction(0, 2, lat)",
    "histogram_stddev(lat)",
    "lat + lat",
    "lat == lat",
    "lat </ 3",
    "lat smoothed",
    "rate(lat[5m] anchored)",
    "increase(lat[5m] smoothed)",
    "avg_over_time(lat[5m])",
    '-{__name__=~"half_.*"}',
    "sum(rate(app[1m]))",
    "absent(app)",
    "app @ end()",
    "max_over_time(sum(app)[5m:1m])",
)


async def _merged(node: StorageNode) -> None:
    """Wait until segments have been merged in the background."""
    deadline_s = time.monotonic() + MERGED_S
    while not node.merges:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"nothing has been merged within {MERGED_S:g} s")
        await asyncio.sleep(0.05)


async def _ask(client: httpx.AsyncClient, n_steps: int) -> None:
    for query in QUERIES:
        await _get(client, "/api/v1/query_range", query, n_steps)
        await _get(client, "/api/v1/query", query, n_steps)
    matcher = field(3, field(2, b"__name__") + field(3, b"app"))
    times = b"\x08" + uvarint(BEGIN_MS) + b"\x10" + uvarint(BEGIN_MS + n_steps * STEP_MS)
    for accepted in (b"", b"\x10\x01"):
        body = bytes(cramjam.snappy.compress_raw(field(1, times + matcher) + accepted))
        await _post(client, "/api/v1/read", body)


async def _get(client: httpx.AsyncClient, path: str, query: str, n_steps: int) -> None:
    end_s = BEGIN_MS / 1000 + n_steps * STEP_MS / 1000
    about = {"query": query, "time": end_s, "start": BEGIN_MS / 1000, "end": end_s, "step": 60}
    response = await client.get(path, params=about)
    if response.status_code != 200:
        raise RuntimeError(f"{query}: {response.text[:300]}")


async def _post(client: httpx.AsyncClient, path: str, body: bytes = b"", params: Any = None) -> None:
    headers = {"content-type": "application/x-protobuf"} if body else {}
    if path.endswith("metrics"):
        headers["content-encoding"] = "gzip"
    response = await client.post(path, content=body, headers=headers, params=params)
    if response.status_code >= 300:
        raise RuntimeError(f"{path}: {response.status_code} {response.text[:300]}")
