"""Metrics of OTLP as messages of remote write 1.0, a piece at a time, as Prometheus 3.14 has them by default.

    ExportMetricsServiceRequest ─► Translation ─► Piece ─► Ingestor.submit_message
                                    │  otlp_labels, otlp_names, otlp_values, otlp_histograms, otlp_message
                                    └► what was refused, and why

Start timestamps and scopes are not used. What has no counterpart is refused by data point, and the rest goes on.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.kernels.otlp import CHILDREN, count_messages
from common.labels import METRIC_NAME
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge, PointRefused
from ingest.messages import MAX_EXEMPLAR_CHARACTERS
from ingest.otlp_histograms import native_histogram, stale_histogram
from ingest.otlp_labels import INFO_STEP_NS, info_labels, info_times, labels_of, resource_labels
from ingest.otlp_message import MessageBuilder, Piece
from ingest.otlp_names import metric_name, unit_name
from ingest.otlp_values import attribute_text, decimal_text
from ingest.write_request import exemplar_field, histogram_field, label_field, labels_field, metadata_field

MAX_BUCKETS = 1000
"""Of a histogram with explicit bounds, and quantiles of a summary: each becomes a series."""
MAX_INFO_SAMPLES = 10_000
"""Samples of `target_info` of one request at times between those of data points."""
MAX_REASONS = 5
MAX_REASON_CHARACTERS = 500
"""What one answer says at most."""

_BYTES_PER_MESSAGE = 16
"""A request may have one message for so many of the bytes that a body may have."""
_NO_RECORDED_VALUE = 1
_CUMULATIVE = 2
_TEMPORALITIES = {0: "no temporality", 1: "delta temporality"}


def parse(body: bytes, max_body_bytes: int) -> Any:
    """The request.

    Raises:
        BadRequest: it is not an ExportMetricsServiceRequest. BodyTooLarge: it has more messages than one may have.
    """
    # Imported here, since it takes time and many servers never get such a request.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    # Copied, for kernels take arrays that may be written to.
    n_messages = count_messages(np.frombuffer(bytearray(body), dtype=np.uint8), CHILDREN)
    limit = max_body_bytes // _BYTES_PER_MESSAGE
    if n_messages > limit:
        raise BodyTooLarge(
            f"the request has {n_messages} messages within it; at most {limit} are accepted, one for "
            f"{_BYTES_PER_MESSAGE} bytes of --max-body-bytes"
        )
    try:
        if n_messages < 0:
            raise DecodeError("a field is truncated, malformed or nested too deep")
        return ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise BadRequest(f"the body is not an ExportMetricsServiceRequest: {error}") from None


class Translation:
    """One request on its way to remote write; used by one thread at a time.

    n_points: data points seen so far. n_refused: those of them that have no counterpart. reasons: why, and what
    else the sender should know; each once, the first few.
    """

    def __init__(self, request: Any, config: IngestConfig) -> None:
        self._request = request
        self._builder = MessageBuilder(config)
        self._resource: dict[str, str] = {}
        self._label_fields: dict[bytes, dict[str, bytes]] = {}
        self._stale = False
        self._info_room = MAX_INFO_SAMPLES
        self._info_seen: set[tuple[bytes, int]] = set()
        self._add: dict[str, Callable[[str, Any, int], None]] = {
            "gauge": self._add_gauge,
            "sum": self._add_sum,
            "histogram": self._add_histogram,
            "exponential_histogram": self._add_exponential,
            "summary": self._add_summary,
        }
        self.n_points = 0
        self.n_refused = 0
        self.reasons: list[str] = []

    def pieces(self) -> Iterator[Piece]:
        """Messages for the request.

        Raises:
            BodyTooLarge: the request has more than one may have. What was yielded before holds.
        """
        builder = self._builder
        for of_resource in self._request.resource_metrics:
            builder.forget_series()
            self._label_fields = {}
            self._resource = resource_labels(of_resource.resource.attributes)
            earliest, latest = 1 << 64, -1
            for scope in of_resource.scope_metrics:
                for metric in scope.metrics:
                    for time_ns in self._points(metric):
                        earliest, latest = min(earliest, time_ns), max(latest, time_ns)
                        if builder.full and (piece := builder.take()) is not None:
                            self._label_fields = {}
                            yield piece
            if latest >= 0:
                self._add_info(of_resource.resource.attributes, earliest, latest)
        if (piece := builder.take()) is not None:
            yield piece

    def _points(self, metric: Any) -> Iterator[int]:
        """Translate the data points of a metric, one at a time; yields the times of those that were taken."""
        kind = metric.WhichOneof("data")
        points = getattr(metric, kind).data_points if kind is not None else ()
        self.n_points += len(points)
        if not points:
            self._note(f"metric {metric.name!r} has no data points")
            return
        try:
            family = self._family(metric, kind)
        except PointRefused as error:
            self._refuse(metric, len(points), error)
            return
        add = self._add[kind]
        for point in points:
            time_ns = point.time_unix_nano
            self._stale = bool(point.flags & _NO_RECORDED_VALUE)
            try:
                add(family, point, time_ns)
            except PointRefused as error:
                self._refuse(metric, 1, error)
            else:
                yield time_ns

    def _family(self, metric: Any, kind: str) -> str:
        """The name of a metric that can be stored, whose metadata are noted.

        Raises:
            PointRefused: it cannot.
        """
        data = getattr(metric, kind)
        if kind in ("sum", "histogram", "exponential_histogram") and data.aggregation_temporality != _CUMULATIVE:
            temporality = _TEMPORALITIES.get(data.aggregation_temporality, "unknown temporality")
            raise PointRefused(
                f"has {temporality}; only cumulative sums and histograms can be stored (an OpenTelemetry "
                "Collector turns delta into cumulative with its processor deltatocumulative)"
            )
        counter = kind == "sum" and data.is_monotonic
        family = metric_name(metric.name, metric.unit, counter=counter, gauge=kind == "gauge")
        if not family:
            raise PointRefused("has no letter or digit in its name")
        stored_as = {"sum": "counter" if counter else "gauge", "exponential_histogram": "histogram"}.get(
            kind, kind
        )
        unit = unit_name(metric.unit)
        self._builder.add_metadata(metadata_field(stored_as, family, metric.description, unit))
        return family

    def _add_gauge(self, name: str, point: Any, time_ns: int) -> None:
        value = point.as_double if point.HasField("as_double") else point.as_int
        self._sample(self._series(name, point, _key(point)), value, time_ns)

    def _add_sum(self, name: str, point: Any, time_ns: int) -> None:
        value = point.as_double if point.HasField("as_double") else point.as_int
        exemplars = _exemplars(point)
        series = self._series(name, point, _key(point))
        self._sample(series, value, time_ns)
        for _, exemplar in exemplars:
            self._builder.add_field(series, exemplar)

    def _add_histogram(self, name: str, point: Any, time_ns: int) -> None:
        counts = list(point.bucket_counts)
        bounds = point.explicit_bounds[: len(counts)]
        if len(bounds) > MAX_BUCKETS:
            raise PointRefused(f"has a histogram of more than {MAX_BUCKETS} buckets")
        count, sum_ = point.count, point.sum if point.HasField("sum") else None
        exemplars = _exemplars(point)
        key = _key(point)
        if sum_ is not None:
            self._sample(self._series(f"{name}_sum", point, key), sum_, time_ns)
        self._sample(self._series(f"{name}_count", point, key), count, time_ns)
        total, buckets = 0, []
        for bound, in_bucket in zip(bounds, counts, strict=False):
            total += in_bucket
            buckets.append(self._series(f"{name}_bucket", point, key, "le", decimal_text(bound)))
            self._sample(buckets[-1], total, time_ns)
        buckets.append(self._series(f"{name}_bucket", point, key, "le", "+Inf"))
        self._sample(buckets[-1], count, time_ns)
        for value, exemplar in exemplars:
            self._builder.add_field(buckets[bisect_left(bounds, value)], exemplar)

    def _add_exponential(self, name: str, point: Any, time_ns: int) -> None:
        time_ms = time_ns // 1_000_000
        histogram = stale_histogram(time_ms) if self._stale else native_histogram(point, time_ms)
        exemplars = _exemplars(point)
        series = self._series(name, point, _key(point))
        self._builder.add_field(series, histogram_field(histogram), n_samples=1)
        for _, exemplar in exemplars:
            self._builder.add_field(series, exemplar)

    def _add_summary(self, name: str, point: Any, time_ns: int) -> None:
        if len(point.quantile_values) > MAX_BUCKETS:
            raise PointRefused(f"has a summary of more than {MAX_BUCKETS} quantiles")
        count, sum_ = point.count, point.sum
        quantiles = [(decimal_text(each.quantile), each.value) for each in point.quantile_values]
        key = _key(point)
        self._sample(self._series(f"{name}_sum", point, key), sum_, time_ns)
        self._sample(self._series(f"{name}_count", point, key), count, time_ns)
        for quantile, value in quantiles:
            self._sample(self._series(name, point, key, "quantile", quantile), value, time_ns)

    def _series(self, name: str, point: Any, key: bytes, *extra: str) -> bytearray:
        """The series of that name for a data point's attributes, for which `key` stands; extra: another label."""

        def labels() -> bytes:
            base = self._label_fields.get(key)
            if base is None:
                found = labels_of(point.attributes, self._resource)
                base = self._label_fields[key] = {each: label_field(each, found[each]) for each in found}
            fields = {**base, METRIC_NAME: label_field(METRIC_NAME, name)}
            if extra:
                fields[extra[0]] = label_field(*extra)
            return b"".join([fields[each] for each in sorted(fields)])

        return self._builder.series((name, *extra, key), labels)

    def _sample(self, series: bytearray, value: float, time_ns: int) -> None:
        self._builder.add_sample(series, value, time_ns, stale=self._stale)

    def _add_info(self, attributes: Any, earliest_ns: int, latest_ns: int) -> None:
        """Add `target_info` for a resource that has data points from the earliest to the latest time."""
        try:
            labels = info_labels(attributes, self._resource)
        except PointRefused as error:
            self._note(f"the resource {error}; it has no target_info")
            return
        if labels is None:
            return
        field = labels_field(labels)
        times = info_times(earliest_ns, latest_ns, self._info_room)
        self._info_room -= max(0, len(times) - 2)
        if times[-1] - times[0] > INFO_STEP_NS and len(times) == 2:
            self._note(
                "data points lie so far apart that target_info is stored for the first and last of them only"
            )
        series = self._builder.series(("target_info",), lambda: field)
        for time_ns in times:
            if (field, time_ns) not in self._info_seen:
                self._info_seen.add((field, time_ns))
                self._builder.add_sample(series, 1.0, time_ns)
        self._builder.add_metadata(metadata_field("gauge", "target_info", "Target metadata", ""))

    def _refuse(self, metric: Any, n_points: int, error: PointRefused) -> None:
        self.n_refused += n_points
        self._note(f"metric {metric.name!r} {error}")

    def _note(self, reason: str) -> None:
        if len(reason) > MAX_REASON_CHARACTERS:
            # Names are as long as the sender likes, and what matters is at both ends.
            half = MAX_REASON_CHARACTERS // 2
            reason = f"{reason[:half]}…{reason[-half:]}"
        if len(self.reasons) < MAX_REASONS and reason not in self.reasons:
            self.reasons.append(reason)


def _key(point: Any) -> bytes:
    """What stands for the attributes of a data point, of which nothing else is left."""
    for name in _other_fields(point.DESCRIPTOR):
        point.ClearField(name)
    return bytes(point.SerializeToString())


@functools.cache
def _other_fields(descriptor: Any) -> list[str]:
    return [field.name for field in descriptor.fields if field.name != "attributes"]


def _exemplars(point: Any) -> list[tuple[float, bytes]]:
    """Values and fields of the exemplars that have a value."""
    out = []
    for exemplar in point.exemplars:
        kind = exemplar.WhichOneof("value")
        if kind is None:
            continue
        ids = (("trace_id", exemplar.trace_id.hex()), ("span_id", exemplar.span_id.hex()))
        labels = {name: text for name, text in ids if text.strip("0")}
        others = {each.key: attribute_text(each.value) for each in exemplar.filtered_attributes}
        # Too many attributes are left out, for then the trace can still be found.
        if (
            sum(len(name) + len(text) for name, text in (*labels.items(), *others.items()))
            <= MAX_EXEMPLAR_CHARACTERS
        ):
            labels = {**others, **labels}
        value = float(getattr(exemplar, kind))
        time_ns = exemplar.time_unix_nano or point.time_unix_nano
        out.append((value, exemplar_field(labels, value, time_ns // 1_000_000)))
    return out
