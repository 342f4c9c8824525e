"""Tenants see what they would see if each had a Tabor of his own, to the byte, whatever the others do."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cramjam
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.labels import uvarint
from common.protobuf import delimited
from common.tenants import Tenancy
from ingest.write_request import (
    exemplar_field,
    histogram_field,
    labels_field,
    metadata_field,
    sample_field,
    series_field,
)
from query import http_about
from query.promql.printer import format_expr
from tests.oracles.histogram import NativeHistogram
from tests.oracles.remote_write_v2 import SeriesV2, request
from tests.property.test_engine import END, NAMES, START, STEP, expressions
from tests.tenancies import Tabor, tabor
from tests.unit.ingest import otlp

TENANTS = ("default", "a", "b-2")
WAYS = ("write", "write2", "otlp", "import", "producer", "delete", "forget")
NATIVE = NativeHistogram(1, 5, 2.5, 0.1, 2, ((-1, 1), (1, 1)), (1, 2), is_float=False)
QUERIES = (
    '{__name__=~".+"}',
    "sum by (i, __tenant__) (a)",
    "count without (i) (rate(b[5m]))",
    '{__name__=~".+", __tenant__!=""}',
    '{__name__=~".+", __tenant__=~"a|b-2|"}',
    'label_replace(a, "t", "$1", "__tenant__", "(.*)")',
    'count_values("__tenant__", c)',
    "a * on (i) group_left () b",
    'count({__name__=~".+"})',
    "topk(2, c)",
)


@pytest.fixture(autouse=True)
def then(monkeypatch: pytest.MonkeyPatch) -> None:
    """/federate asks for what is there now, which is a minute of the samples' time."""
    monkeypatch.setattr(http_about, "time", SimpleNamespace(time=lambda: 0.0, time_ns=lambda: END * 1_000_000))


def series_of(dice: random.Random) -> Iterator[dict[str, str]]:
    """Every tenant has the same few series, so that nothing but the tenant tells them apart."""
    for _ in range(dice.randint(1, 4)):
        labels = {"__name__": dice.choice(NAMES), "i": dice.choice("012")}
        if dice.random() < 0.3:
            labels |= {"Z": "upper", "__tenant_id__": "mine", "zz": dice.choice("xy")}
        yield labels


def write(one: Tabor, tenant: str | None, way: str, seed: int) -> int:
    """Write or delete something at random; the status of the answer."""
    dice = random.Random(seed)
    times = [dice.randrange(START - 300_000, END, 15_000) for _ in range(4)]
    found, value = list(series_of(dice)), dice.randint(0, 1000) / 4
    if way == "forget":
        one.ingestor.delete_tenant(tenant or "default").result(30)
        return 204
    if way == "delete":
        match = dice.choice(
            ['{__name__=~"a|b"}', '{i="1"}', '{__name__=~".+", __tenant__=""}', '{__tenant__="a"}', "c"]
        )
        params = {"match[]": match, "start": str(times[0] / 1000), "end": str(max(times) / 1000)}
        return one.ask("POST", "/api/v1/admin/tsdb/delete_series", tenant, params=params).status_code
    if way == "producer":
        with one.producer(tenant) as producer:
            handles = producer.series(found)
            producer.write(np.repeat(handles, 4), np.tile(times, len(found)), np.full(4 * len(found), value))
        return 204
    if way == "import":
        lines = (
            f"{labels['__name__']}{{{','.join(f'{k}={json.dumps(labels[k])}' for k in labels if k[0] != '_')}}} "
            f"{value} {time}\n"
            for labels in found
            for time in times
        )
        text = f"# HELP a of {seed}\n# TYPE a gauge\n{''.join(lines)}"
        return one.ask("POST", "/api/v1/import/prometheus", tenant, content=text.encode()).status_code
    if way == "otlp":
        metric = otlp.gauge(
            "a", *(otlp.point(t, {"i": "0"}, asDouble=value) for t in times), description=f"{value}"
        )
        body, headers = otlp.request(metric).SerializeToString(), {"content-type": "application/x-protobuf"}
        return one.ask("POST", "/api/v1/otlp/v1/metrics", tenant, content=body, headers=headers).status_code
    if way == "write2":
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        samples = [(time, bits) for time in sorted(times)]
        exemplars = [([("trace", f"t{seed}")], value, times[0])]
        series = [
            SeriesV2(sorted(labels.items()), samples, [], exemplars, (2, f"help {value}", "")) for labels in found
        ]
        headers = {"content-type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
        body = cramjam.snappy.compress_raw(request(series))
        return one.ask("POST", "/api/v1/write", tenant, content=bytes(body), headers=headers).status_code
    parts = [metadata_field("counter", dice.choice(NAMES), f"text {value}", "s")]
    for labels in found:
        fields = labels_field(labels) + b"".join(sample_field(value, time) for time in sorted(set(times)))
        if dice.random() < 0.5:
            fields += exemplar_field({"trace": f"v1 {seed}"}, value, times[0])
        if dice.random() < 0.3:
            fields = labels_field({**labels, "__name__": "native"}) + histogram_field(NATIVE.message(times[0]))
        parts.append(series_field(fields))
    body = cramjam.snappy.compress_raw(b"".join(parts))
    return one.ask("POST", "/api/v1/write", tenant, content=bytes(body)).status_code


def answers(one: Tabor, tenant: str | None, expr: str) -> Iterator[tuple[str, Any]]:
    """What a tenant can ask, and what it is told."""
    every = {"match[]": '{__name__=~".+"}'}
    for query in (*QUERIES, expr):
        yield query, _normal(one.ask("GET", "/api/v1/query", tenant, params={"query": query, "time": END / 1000}))
        times = {"start": START / 1000, "end": END / 1000, "step": STEP / 1000}
        yield (
            f"{query} range",
            _normal(one.ask("GET", "/api/v1/query_range", tenant, params={"query": query, **times})),
        )
    for path, params in (
        ("/api/v1/series", every),
        ("/api/v1/labels", {}),
        ("/api/v1/labels", every),
        *((f"/api/v1/label/{name}/values", {}) for name in ("__name__", "i", "__tenant__", "__tenant_id__", "t")),
        ("/api/v1/label/i/values", {"match[]": '{__tenant__=~"a|b-2"}'}),
        ("/api/v1/metadata", {}),
        ("/api/v1/metadata", {"metric": "a"}),
        ("/api/v1/query_exemplars", {"query": '{__name__=~".+"}'}),
        ("/api/v1/status/tsdb", {}),
        ("/federate", every),
        ("/api/v1/export", every),
    ):
        yield f"{path} {params}", _normal(one.ask("GET", path, tenant, params=params))
    matcher = b"\x08\x02" + delimited(2, b"__name__") + delimited(3, b".+")
    asked = b"\x08" + uvarint(START - 300_000) + b"\x10" + uvarint(END) + delimited(3, matcher)
    body = bytes(cramjam.snappy.compress_raw(delimited(1, asked)))
    yield "remote read", _normal(one.ask("POST", "/api/v1/read", tenant, content=body))


def _normal(answer: Any) -> tuple[int, Any]:
    """An answer whose order is not said, sorted."""
    kind = answer.headers.get("content-type", "")
    if "arrow" in kind:
        # The order of a dictionary is not said; what is in it shows which strings there are.
        table = pa.ipc.open_stream(answer.content).read_all()
        texts = [
            sorted(c.combine_chunks().dictionary.to_pylist()) for c in table if pa.types.is_dictionary(c.type)
        ]
        return answer.status_code, (repr(table.to_pylist()), texts)
    if "json" not in kind:
        return answer.status_code, answer.content
    content = answer.json()
    # Which of several series is named depends on the order in which they lie.
    content["error"] = content.get("error", "").partition("{")[0]
    data = content.get("data")
    if isinstance(data, dict):
        # Chunks are not counted by tenant, and series lie in the order in which they came.
        data.get("headStats", {}).pop("chunkCount", None)
        if isinstance(data.get("result"), list):
            data["result"] = sorted(data["result"], key=json.dumps)
    elif isinstance(data, list):
        content["data"] = sorted(data, key=lambda one: json.dumps(one, sort_keys=True))
    return answer.status_code, content


@pytest.mark.parametrize("spread", [False, True], ids=["one node", "pushed down to two"])
@settings(
    deadline=None,
    max_examples=3,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.sampled_from(TENANTS), st.sampled_from(WAYS), st.integers(0, 1 << 30)),
        min_size=6,
        max_size=14,
    ),
    expressions(2, NAMES),
)
def test_a_tenant_sees_what_it_would_see_alone(spread: bool, steps: list[tuple[str, str, int]], expr: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        shared = stack.enter_context(tabor(Path(folder, "shared"), Tenancy.OPTIONAL, spread=spread))
        alone = {name: stack.enter_context(tabor(Path(folder, name))) for name in TENANTS}
        for name, way, seed in steps:
            statuses = write(shared, _header(name), way, seed), write(alone[name], None, way, seed)
            assert statuses in [(204, 204), (200, 200)], (way, statuses)
        for name in TENANTS:
            want = dict(answers(alone[name], None, format_expr(expr)))
            for question, got in answers(shared, _header(name), format_expr(expr)):
                assert got == want[question], (name, question)


def _header(name: str) -> str | None:
    """The tenant `default` is the one of whoever names none."""
    return None if name == "default" else name
