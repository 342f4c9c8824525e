"""OTLP through the ingestor to the log, as Prometheus 3.14 translates it by default."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any

import pytest

from common.store import STALE_NAN_BITS
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge
from ingest.ingestor import Ingestor
from ingest.otlp import MAX_BUCKETS, MAX_INFO_SAMPLES, Translation, parse
from ingest.write_request import PIECE_SAMPLES
from tests.memory_log import MemoryLog
from tests.oracles.histogram import NativeHistogram
from tests.unit.ingest.logs import bits, key_of, own_metrics
from tests.unit.ingest.otlp import (
    OF_SERVICE,
    SERVICE,
    Stored,
    attributes,
    counter,
    exponential,
    gauge,
    histogram,
    point,
    request,
    stored,
    summary,
)

DELTA, CUMULATIVE = 1, 2
NO_RECORDED_VALUE = 1


class Room:
    """An ingestor on a log in memory."""

    def __init__(self, config: IngestConfig | None = None) -> None:
        self.log = MemoryLog(2)
        self.config = config or IngestConfig()
        self.ingestor = Ingestor(self.log, self.config, metrics=own_metrics())
        self.ingestor.start()

    def take(self, message: Any) -> tuple[Stored, Translation]:
        """Give a request to the ingestor, which refuses none of it."""
        translation = Translation(parse(message.SerializeToString(), self.config.max_body_bytes), self.config)
        for piece in translation.pieces():
            outcome = self.ingestor.submit_message(piece.message).result(60)
            assert outcome.refusal is None
            assert outcome.n_samples == piece.n_samples
        return stored(self.log), translation


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    assert room.ingestor.close(60)


def key(name: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return key_of({"__name__": name, **labels})


def test_gauges_and_sums_are_samples_of_their_resource(room: Room) -> None:
    not_monotonic = {"aggregationTemporality": CUMULATIVE, "dataPoints": [point(7, asInt=-3)]}
    temperatures = point(1500.9, {"room": "a"}, asDouble=20.5), point(2000, asInt=3)
    got, translation = room.take(
        request(
            gauge("temp", *temperatures, unit="Cel", description="How warm."),
            counter("hits", point(5, {"http.code": {"intValue": 200}}, asInt=4)),
            {"name": "queue", "unit": "1", "sum": not_monotonic},
            resource=SERVICE,
        )
    )
    assert got.samples == {
        key("temp_celsius", room="a", **OF_SERVICE): [(1500, 20.5)],
        key("temp_celsius", **OF_SERVICE): [(2000, 3.0)],
        key("hits_total", http_code="200", **OF_SERVICE): [(5, 4.0)],
        key("queue", **OF_SERVICE): [(7, -3.0)],
    }
    assert sorted(got.metadata, key=lambda row: row["family"]) == [
        {"family": "hits_total", "type": "counter", "help": "", "unit": ""},
        {"family": "queue", "type": "gauge", "help": "", "unit": ""},
        {"family": "temp_celsius", "type": "gauge", "help": "How warm.", "unit": "celsius"},
    ]
    assert (translation.n_points, translation.n_refused, translation.reasons) == (4, 0, [])


def test_a_series_of_many_points_keeps_their_order_over_pieces(room: Room) -> None:
    n = PIECE_SAMPLES + 10
    points = [point(k, {"i": str(k % 3)}, asInt=k) for k in range(n)]
    got, translation = room.take(request(gauge("m", *points)))
    assert translation.n_points == n
    for i in range(3):
        assert got.samples[key("m", i=str(i))] == [(k, float(k)) for k in range(i, n, 3)]


def test_a_point_without_a_value_ends_its_series(room: Room) -> None:
    stale = {"flags": NO_RECORDED_VALUE}
    quantiles = [{"quantile": 0.5, "value": 1}]
    got, _ = room.take(
        request(
            gauge("g", point(1, asDouble=5, **stale)),
            summary("s", point(1, count=3, sum=4, quantileValues=quantiles, **stale)),
            histogram("h", point(1, explicitBounds=[1], bucketCounts=[0, 0], **stale)),
            exponential("e", point(1, scale=-9, **stale)),
        )
    )
    assert set(got.samples) == {
        key("g"), key("s", quantile="0.5"), key("s_sum"), key("s_count"),
        key("h_bucket", le="1"), key("h_bucket", le="+Inf"), key("h_count"), key("e"),
    }  # fmt: skip
    for ((time_ms, value),) in got.samples.values():
        assert time_ms == 1
        assert bits(value) == STALE_NAN_BITS


def test_histograms_are_cumulative_buckets_a_count_and_a_sum_if_there_is_one(room: Room) -> None:
    points = [
        point(10, {"op": "get"}, count=7, sum=12.5, explicitBounds=[0.1, 1, 10], bucketCounts=[1, 2, 0, 4]),
        point(10, {"op": "put"}, count=5),
    ]
    got, _ = room.take(request(histogram("d", *points, unit="s")))
    assert got.samples == {
        key("d_seconds_sum", op="get"): [(10, 12.5)],
        key("d_seconds_count", op="get"): [(10, 7.0)],
        key("d_seconds_bucket", op="get", le="0.1"): [(10, 1.0)],
        key("d_seconds_bucket", op="get", le="1"): [(10, 3.0)],
        key("d_seconds_bucket", op="get", le="10"): [(10, 3.0)],
        key("d_seconds_bucket", op="get", le="+Inf"): [(10, 7.0)],
        key("d_seconds_count", op="put"): [(10, 5.0)],
        key("d_seconds_bucket", op="put", le="+Inf"): [(10, 5.0)],
    }
    assert got.metadata == [{"family": "d_seconds", "type": "histogram", "help": "", "unit": "seconds"}]


def test_summaries_are_quantiles_a_sum_and_a_count(room: Room) -> None:
    quantiles = [{"quantile": 0.5, "value": 1.5}, {"quantile": 0.99, "value": 9}, {"quantile": 1, "value": 11}]
    of_point = {"count": 4, "sum": 8.25, "quantileValues": quantiles}
    got, _ = room.take(request(summary("lat", point(3, {"quantile": "mine"}, **of_point))))
    assert got.samples == {
        key("lat_sum", quantile="mine"): [(3, 8.25)],
        key("lat_count", quantile="mine"): [(3, 4.0)],
        key("lat", quantile="0.5"): [(3, 1.5)],
        key("lat", quantile="0.99"): [(3, 9.0)],
        key("lat", quantile="1"): [(3, 11.0)],
    }


def native(schema: int, **fields: Any) -> NativeHistogram:
    return NativeHistogram(schema=schema, zero_threshold=1e-128, is_float=False, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            # OTLP's bucket i is (2^i, 2^(i+1)] at scale 0, and Prometheus' i is (2^(i-1), 2^i].
            {"scale": 0, "count": 6, "sum": 9.5, "zeroCount": 1, "positive": {"bucketCounts": [2, 0, 3]}},
            native(0, count=6, sum=9.5, zero_count=1, positive_spans=((1, 3),), positive=(2, 0, 3)),
        ),
        (
            # Up to two empty buckets are kept, a longer gap parts two spans; empty ones at the ends are left out.
            {"scale": 3, "count": 15, "positive": {"offset": -4, "bucketCounts": [0, 1, 0, 0, 2, 0, 0, 0, 4, 0]},
             "negative": {"offset": 7, "bucketCounts": [8]}},
            native(3, count=15, positive_spans=((-2, 4), (3, 1)), positive=(1, 0, 0, 2, 4),
                   negative_spans=((8, 1),), negative=(8,)),
        ),
        (
            # Two steps down from scale 10: of the buckets -5 to 3, -5 | -4 … -1 | 0 … 3 become one each.
            {"scale": 10, "count": 45, "positive": {"offset": -5, "bucketCounts": [1, 2, 3, 4, 5, 6, 7, 8, 9]}},
            native(8, count=45, positive_spans=((-1, 3),), positive=(1, 14, 30)),
        ),
        (
            {"scale": 2000, "count": 3, "positive": {"offset": -1, "bucketCounts": [1, 2]}},
            native(8, count=3, positive_spans=((0, 2),), positive=(1, 2)),
        ),
        (
            {"scale": -4, "count": 2, "sum": -1, "zeroCount": 2, "zeroThreshold": 0.5},
            native(-4, count=2, sum=-1, zero_count=2),
        ),
    ],
)  # fmt: skip
def test_exponential_histograms_are_native_ones(
    room: Room, fields: dict[str, Any], expected: NativeHistogram
) -> None:
    got, translation = room.take(request(exponential("e", point(4, **fields)), resource=SERVICE))
    assert translation.reasons == []
    assert got.histograms == {key("e", **OF_SERVICE): [(4, expected)]}


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (counter("a.b", point(1, asInt=1), point(2, asInt=1), temporality=DELTA), "'a.b' has delta temporality"),
        (counter("a.b", point(1, asInt=1), point(1, asInt=1), temporality=0), "'a.b' has no temporality"),
        (counter("a.b", point(1, asInt=1), point(1, asInt=1), temporality=9), "'a.b' has unknown temporality"),
        (histogram("h", point(1), point(2), temporality=DELTA), "'h' has delta temporality"),
        (exponential("e", point(1), point(2), temporality=0), "'e' has no temporality"),
        (gauge("$", point(1), point(1)), "'$' has no letter or digit in its name"),
        (gauge("g", point(1, {"§§": "x"}), point(1, {"": "y"})), "'g' has an attribute '§§'"),
        (exponential("e", point(1, scale=-5), point(2, scale=-6)), "'e' has scale -5; at least -4"),
        (
            exponential(
                "e",
                point(1, positive={"offset": 2**31 - 1, "bucketCounts": [1]}),
                point(1, negative={"bucketCounts": [2**63 - 1, 1]}),
            ),
            "'e' has bucket offsets",
        ),
        (
            histogram(
                "h",
                point(1, explicitBounds=list(range(MAX_BUCKETS + 1)), bucketCounts=[1] * (MAX_BUCKETS + 2)),
                point(1, explicitBounds=list(range(MAX_BUCKETS + 2)), bucketCounts=[1] * (MAX_BUCKETS + 2)),
            ),
            "'h' has a histogram of more than 1000 buckets",
        ),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name_and_the_rest_is_stored(
    room: Room, metric: dict[str, Any], reason: str
) -> None:
    got, translation = room.take(request(metric, gauge("good", point(9, asInt=1))))
    assert reason in translation.reasons[0]
    assert (translation.n_points, translation.n_refused) == (3, 2)
    assert got.samples == {key("good"): [(9, 1.0)]}


def test_a_metric_without_points_is_named_and_refuses_nothing(room: Room) -> None:
    got, translation = room.take(request(gauge("none"), {"name": "nothing"}, gauge("good", point(9, asInt=1))))
    assert translation.reasons == ["metric 'none' has no data points", "metric 'nothing' has no data points"]
    assert translation.n_refused == 0
    assert list(got.samples) == [key("good")]


def test_attributes_are_labels_and_those_of_one_name_are_joined(room: Room) -> None:
    labels = {
        "b.c": "2",
        "b_c": "3",
        "b-c": "1",
        "empty": "",
        "job": "mine",
        "__name__": "other",
        "_x": {"boolValue": True},
    }
    got, _ = room.take(request(gauge("m", point(1, labels, asInt=1)), resource={"service.name": "shop"}))
    # In the order of the attributes' names: "-" comes before "." and "_"; job is that of the resource.
    assert list(got.samples) == [key("m", b_c="1;2;3", key_x="true", job="shop")]


def test_points_are_told_apart_though_their_attributes_have_the_same_bytes_together(room: Room) -> None:
    message = request(gauge("m", point(1, asInt=1), point(1, asInt=2)))
    one, two = message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    one.attributes.add(key="a").value.string_value = "1"
    two.attributes.add(key="a")
    two.attributes.add().value.string_value = "1"
    got, translation = room.take(message)
    assert got.samples == {key("m", a="1"): [(1, 1.0)]}
    assert translation.n_refused == 1


def test_exemplars_have_their_trace_and_go_to_the_bucket_of_their_value(room: Room) -> None:
    trace, span = bytes(range(16)), bytes(range(1, 9))

    def exemplar(time_ms: int, **fields: Any) -> dict[str, Any]:
        ids = {"traceId": base64.b64encode(trace).decode(), "spanId": base64.b64encode(span).decode()}
        return {"timeUnixNano": time_ms * 1_000_000, **ids, **fields}

    labels = {"trace_id": trace.hex(), "span_id": span.hex()}
    points = [
        point(9, count=3, explicitBounds=[1, 2], bucketCounts=[1, 1, 1], exemplars=[
            exemplar(5, asDouble=1), exemplar(6, asInt=3), exemplar(7, asDouble=1.5), exemplar(8),
        ])
    ]  # fmt: skip
    long = {"key": "k", "value": {"stringValue": "x" * 65}}
    got, _ = room.take(
        request(
            histogram("h", *points),
            counter("c", point(9, asInt=1, exemplars=[
                exemplar(0, asInt=1, filteredAttributes=attributes({"user.id": "7"})),
                exemplar(4, asInt=1, filteredAttributes=[long]),
                {"timeUnixNano": 3_000_000, "asInt": 1, "traceId": base64.b64encode(bytes(16)).decode()},
            ])),
            exponential("e", point(4, count=0, exemplars=[exemplar(2, asInt=1)])),
        )
    )  # fmt: skip
    assert got.exemplars == {
        key("h_bucket", le="1"): [(5, labels)],
        key("h_bucket", le="2"): [(7, labels)],
        key("h_bucket", le="+Inf"): [(6, labels)],
        # Without a time of its own it has that of the point; labels that are too long leave the trace.
        key("c_total"): [(9, labels | {"user.id": "7"}), (4, labels), (3, {})],
        key("e"): [(2, labels)],
    }


INFO = {**SERVICE, "host.name": "h1", "build": {"intValue": 7}}
STEP_MS = 150_000


def info_of(got: Stored) -> list[tuple[int, float]]:
    return got.samples[key("target_info", host_name="h1", build="7", **OF_SERVICE)]


def test_target_info_is_there_from_the_first_point_to_the_last(room: Room) -> None:
    points = [point(1000 + 2 * STEP_MS + 1, asInt=1), point(1000, asInt=1), point(2000, asInt=1)]
    got, translation = room.take(request(gauge("m", *points), resource=INFO))
    last = 1000 + 2 * STEP_MS
    assert info_of(got) == [(time_ms, 1.0) for time_ms in (1000, 1000 + STEP_MS, last, last + 1)]
    assert {"family": "target_info", "type": "gauge", "help": "Target metadata", "unit": ""} in got.metadata
    assert translation.reasons == []


def test_target_info_of_one_time_is_one_sample(room: Room) -> None:
    message = request(gauge("m", point(1000, asInt=1)), resource=INFO)
    message.resource_metrics.append(message.resource_metrics[0])
    got, _ = room.take(message)
    assert info_of(got) == [(1000, 1.0)]


@pytest.mark.parametrize("resource", [{}, SERVICE, {"host.name": "h1"}])
def test_a_resource_with_nothing_more_to_say_or_without_a_name_has_no_target_info(
    room: Room, resource: dict[str, Any]
) -> None:
    got, _ = room.take(request(gauge("m", point(1, asInt=1)), resource=resource))
    assert len(got.samples) == 1


def test_a_resource_none_of_whose_points_are_taken_has_no_target_info(room: Room) -> None:
    got, _ = room.take(request(counter("m", point(1, asInt=1), temporality=DELTA), resource=INFO))
    assert got.samples == {}


def test_points_that_lie_years_apart_do_not_have_target_info_all_the_time(room: Room) -> None:
    now = STEP_MS * MAX_INFO_SAMPLES
    got, translation = room.take(request(gauge("m", point(0, asInt=1), point(now, asInt=1)), resource=INFO))
    assert info_of(got) == [(0, 1.0), (now, 1.0)]
    assert "far apart" in translation.reasons[0]


def test_numbers_that_have_no_value_are_0_and_whole_ones_are_exact_to_53_bits(room: Room) -> None:
    got, _ = room.take(request(gauge("m", point(1), point(2, asInt=2**62 + 1), point(3, asDouble="NaN"))))
    values = [value for _, value in got.samples[key("m")]]
    assert values[:2] == [0.0, float(2**62)]
    assert math.isnan(values[2])


def test_more_than_a_request_may_have_is_refused() -> None:
    labels = {"a": "x" * 10_000}
    buckets = {"explicitBounds": list(range(900)), "bucketCounts": [1] * 901}
    message = request(histogram("h", point(1, labels, **buckets)))
    body = message.SerializeToString()
    with pytest.raises(BodyTooLarge, match="labels spelled out"):
        list(Translation(parse(body, 1 << 20), IngestConfig(max_body_bytes=1 << 20)).pieces())
    message = request(gauge("m", *(point(k, asInt=k) for k in range(11))))
    with pytest.raises(BodyTooLarge, match="max_samples_per_request"):
        list(Translation(message, IngestConfig(max_samples_per_request=10)).pieces())


def test_a_request_that_says_more_with_its_labels_spelled_out_is_stored() -> None:
    room = Room(IngestConfig(max_body_bytes=20_000))
    buckets = {"explicitBounds": list(range(40)), "bucketCounts": [1] * 41}
    message = request(histogram("h", point(1, {"a": "x" * 1000}, count=41, **buckets)))
    assert len(message.SerializeToString()) < 20_000
    got, _ = room.take(message)
    assert len(got.samples) == 42
    assert room.ingestor.close(60)


def test_a_body_that_would_take_much_memory_is_refused_before_it_does() -> None:
    with pytest.raises(BodyTooLarge, match="1001 messages within it; at most 1000"):
        parse(b"\x0a\x00" * 1001, 16_000)
    assert len(parse(b"\x0a\x00" * 1000, 16_000).resource_metrics) == 1000


def test_a_value_nested_too_deep_is_refused() -> None:
    message = request(gauge("m", point(1, {"a": "b"}, asInt=1)))
    value = message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].attributes[0].value
    for _ in range(30):
        value = value.array_value.values.add()
    parse(message.SerializeToString(), 1 << 20)
    for _ in range(30):
        value = value.array_value.values.add()
    with pytest.raises(BadRequest, match="ExportMetricsServiceRequest"):
        parse(message.SerializeToString(), 1 << 20)
