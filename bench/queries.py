"""The queries, by load: shapes of Prometheus' own engine benchmark and of TSBS' devops queries, as PromQL.

Prometheus: promql/bench_test.go (BenchmarkRangeQuery). TSBS: cmd/tsbs_generate_queries/databases/victoriametrics;
the fields of a measurement are a label here, since PromQL drops names. What each does is kept, not its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.loads import HOUR_MS, Load

_MINUTE_MS = 60_000


class Query(NamedTuple):
    """One request to the API. step_ms is 0 for an instant query, whose time is end_ms."""

    name: str
    text: str
    start_ms: int
    end_ms: int
    step_ms: int

    @property
    def path(self) -> str:
        return "/api/v1/query_range" if self.step_ms else "/api/v1/query"

    @property
    def parameters(self) -> dict[str, str]:
        # VictoriaMetrics would answer a repeated query from its cache of results; all work is to be done here.
        common = {"query": self.text, "nocache": "1"}
        if not self.step_ms:
            return common | {"time": _seconds(self.end_ms)}
        return common | {
            "start": _seconds(self.start_ms),
            "end": _seconds(self.end_ms),
            "step": _seconds(self.step_ms),
        }


def _seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03d}"


def _fill(text: str, names: dict[str, str]) -> str:
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return text


_ONE_METRIC = (
    ("plain", "{a}"),
    ("rate", "rate({a}[5m])"),
    ("rate-few-samples", "rate({a}[1m])"),
    ("delta", "delta({a}[5m])"),
    ("sum-over-time", "sum_over_time({a}[10m])"),
    ("quantile-over-time", "quantile_over_time(0.9, {a}[10m])"),
    ("unary", "-{a}"),
    ("arithmetic", "{a} * 2 + 1"),
    ("join", "{a} - {b}"),
    ("join-rates", "rate({a}[5m]) / rate({b}[5m])"),
    ("join-left", "{a} / on (job) group_left () sum by (job) ({a})"),
    ("and", "{a} and {b} > 500000"),
    ("or", "{a} or {b}"),
    ("unless", "{a} unless {b} > 500000"),
    ("sum", "sum({a})"),
    ("sum-by", "sum by (job) ({a})"),
    ("sum-without", "sum without (instance) ({a})"),
    ("sum-rate", "sum(rate({a}[5m]))"),
    ("sum-by-rate", "sum by (job) (rate({a}[5m]))"),
    ("avg-by", "avg by (dc) ({a})"),
    ("stddev-by", "stddev by (dc) ({a})"),
    ("quantile-by", "quantile by (dc) (0.9, {a})"),
    ("count-values", 'count_values("v", floor({a} / 100000))'),
    ("topk", "topk(5, rate({a}[5m]))"),
    ("topk-by", "topk by (job) (1, {a})"),
    ("subquery-max", "max_over_time(sum by (job) (rate({a}[2m]))[10m:1m])"),
    ("subquery-avg", "avg_over_time({a}[10m:30s])"),
    ("label-replace", 'label_replace({a}, "host", "$1", "instance", "(host-[0-9]+).*")'),
)
_HUNDRED = {"{a}": "app_metric_060_total", "{b}": "app_metric_061_total"}
_THOUSANDS = {"{a}": 'app_requests_total{code=~"20[0-4]"}', "{b}": "app_requests_total"}
_ENGINE = (
    *((f"{name}-100", _fill(text, _HUNDRED)) for name, text in _ONE_METRIC),
    *((f"{name}-2000", _fill(text, _THOUSANDS)) for name, text in _ONE_METRIC if "-few-" not in name),
    ("ten-metrics", '{__name__=~"app_metric_06[0-9]_total"}'),
    ("sum-rate-4000", "sum by (job) (rate(app_requests_total[5m]))"),
    ("histogram", "histogram_quantile(0.9, rate(app_request_seconds_bucket[5m]))"),
    ("histogram-by", "histogram_quantile(0.99, sum by (le, job) (rate(app_request_seconds_bucket[5m])))"),
    ("regex-100", 'sum(app_metric_071_total{instance=~"host-0.*5.*"})'),
    ("regex-4000", 'sum by (code) (app_requests_total{instance=~"host-0.*5.*"})'),
    ("one-series", 'rate(app_metric_072_total{instance="host-00000.example.net:9100"}[5m])'),
    ("one-instance", '{instance="host-00000.example.net:9100"}'),
)
_FLEET = (
    ("rate", "rate(app_metric_060_total[5m])"),
    ("sum-by-rate", "sum by (job) (rate(app_metric_066_total[5m]))"),
    ("sum-rate-many", "sum by (job) (rate(app_requests_total[5m]))"),
    ("histogram-by", "histogram_quantile(0.99, sum by (le, job) (rate(app_request_seconds_bucket[5m])))"),
    ("one-instance", '{instance="host-00000.example.net:9100"}'),
)
_HIGH_CARDINALITY = (
    ("one-series", 'app_metric_072_total{instance="host-00007.example.net:9100"}'),
    ("one-instance", 'count by (__name__) ({instance="host-00007.example.net:9100"})'),
    ("one-metric", "sum by (job) (rate(app_metric_060_total[2m]))"),
    ("regex-prefix", 'count(app_metric_061_total{instance=~"host-00.*"})'),
    ("regex-middle", 'sum by (dc) (app_metric_062_total{instance=~".*7[0-9]3.*"})'),
    ("regex-alternatives", 'sum(app_metric_063_total{instance=~"host-(00001|00017|00003).*"})'),
    ("regex-not", 'count by (job) (app_metric_064_total{instance!~".*[05].example.*"})'),
    ("regex-names", 'count by (__name__) ({__name__=~"app_metric_0[6-8]._total", job="job-3"})'),
    ("everything", 'count({__name__=~".+"})'),
    ("sum-rate-many", "sum by (job) (rate(app_requests_total[2m]))"),
    ("topk", "topk(10, app_metric_065_total)"),
    ("histogram-by", "histogram_quantile(0.99, sum by (le) (rate(app_request_seconds_bucket[2m])))"),
)
_GROWTH = (
    ("one-metric", "sum by (job) (app_metric_060_total)"),
    ("one-instance", '{instance="host-00007.example.net:9100"}'),
)
_ALL_HOSTS = 'cpu_usage{field="user"}'
_EIGHT_HOSTS = '{field="user", hostname=~"host_(0|1|2|3|4|5|6|7)"}'
_DEVOPS = (
    ("single-groupby-1-1", 'max by (field) (max_over_time(cpu_usage{field="user", hostname="host_1"}[1m]))'),
    ("single-groupby-1-8", f"max by (field) (max_over_time(cpu_usage{_EIGHT_HOSTS}[1m]))"),
    (
        "single-groupby-5-8",
        'max by (field) (max_over_time(cpu_usage{field=~"user|system|idle|nice|iowait", '
        'hostname=~"host_(0|1|2|3|4|5|6|7)"}[1m]))',
    ),
    ("cpu-max-all-1", 'max by (field) (max_over_time(cpu_usage{hostname="host_1"}[1h]))'),
    ("cpu-max-all-8", 'max by (field) (max_over_time(cpu_usage{hostname=~"host_(0|1|2|3|4|5|6|7)"}[1h]))'),
    ("double-groupby-1", f"avg by (field, hostname) (avg_over_time({_ALL_HOSTS}[1h]))"),
    (
        "double-groupby-5",
        'avg by (field, hostname) (avg_over_time(cpu_usage{field=~"user|system|idle|nice|iowait"}[1h]))',
    ),
    ("double-groupby-all", "avg by (field, hostname) (avg_over_time(cpu_usage[1h]))"),
    ("high-cpu-1", 'max_over_time(cpu_usage{field="user", hostname="host_1"}[1m]) > 90'),
    ("high-cpu-all", f"max_over_time({_ALL_HOSTS}[1m]) > 90"),
    # The second term decides between equals, of which topk may take any.
    (
        "group-by-orderby-limit",
        f"topk(5, max_over_time({_ALL_HOSTS}[1m]) + avg_over_time({_ALL_HOSTS}[1h]) / 1000)",
    ),
    ("lastpoint", "cpu_usage"),
)
_RECORDED = (
    ("plain", "node_cpu_seconds_total"),
    ("cpu-by-mode", "sum by (mode) (rate(node_cpu_seconds_total[1m]))"),
    ("cpu-share", '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[1m]))'),
    ("memory-share", "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"),
    ("network", 'rate(node_network_receive_bytes_total{device!="lo"}[1m])'),
    ("disk", "sum by (device) (rate(node_disk_io_time_seconds_total[1m]))"),
    ("join-info", "node_memory_MemFree_bytes * on (instance) group_left (release) node_uname_info"),
    (
        "histogram-by",
        "histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_response_size_bytes_bucket[5m])))",
    ),
    ("count-names", 'count by (__name__) ({__name__=~".+"}) > 5'),
    ("subquery", "max_over_time(sum(rate(node_cpu_seconds_total[1m]))[5m:30s])"),
    ("everything", 'count by (job, __name__) ({__name__=~".+_total"} > 0)'),
)
_SETS: dict[str, Sequence[tuple[str, str]]] = {
    "engine": _ENGINE,
    "fleet": _FLEET,
    "high-cardinality": _HIGH_CARDINALITY,
    "growth": _GROWTH,
    "devops": _DEVOPS,
    "recorded": _RECORDED,
}


def of(load: Load) -> Iterator[Query]:
    """The queries of a load, each at one time and over a range of times."""
    for name, text in _SETS[load.queries_of]:
        yield Query(name, text, load.end_ms, load.end_ms, 0)
        start_ms, step_ms = _range(load, name)
        yield Query(name, text, start_ms, load.end_ms, step_ms)


def _range(load: Load, name: str) -> tuple[int, int]:
    """Start and step: the whole load in some 300 steps at most, and TSBS' steps for its queries."""
    length_ms = load.end_ms - load.start_ms
    if load.queries_of == "devops":
        if name.startswith(("double", "cpu-max")):
            return load.end_ms - length_ms // HOUR_MS * HOUR_MS, HOUR_MS
        return max(load.start_ms, load.end_ms - HOUR_MS), _MINUTE_MS
    step_ms = next(ms for ms in (15_000, _MINUTE_MS, 5 * _MINUTE_MS, HOUR_MS) if length_ms <= 400 * ms)
    return load.start_ms, step_ms
