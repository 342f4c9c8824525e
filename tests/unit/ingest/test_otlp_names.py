"""Names of OTLP as Prometheus 3.14 writes them by default; expectations are from its documentation."""

from __future__ import annotations

import pytest

from ingest.otlp_names import label_name, metric_name, unit_name

PLAIN: dict[str, bool] = {}
COUNTER = {"counter": True}
GAUGE = {"gauge": True}


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", PLAIN, "http_server_request_duration_seconds"),
        ("requests", "", COUNTER, "requests_total"),
        ("requests_total", "", COUNTER, "requests_total"),
        ("total.requests", "", COUNTER, "requests_total"),
        ("items", "1", COUNTER, "items_total"),
        ("cpu_usage", "1", GAUGE, "cpu_usage_ratio"),
        ("cpu_usage_ratio", "1", GAUGE, "cpu_usage_ratio"),
        ("queue.size", "1", PLAIN, "queue_size"),
        ("response_time", "ms", GAUGE, "response_time_milliseconds"),
        ("response_time_seconds", "s", GAUGE, "response_time_seconds"),
        ("process.cpu.seconds", "s", COUNTER, "process_cpu_seconds_total"),
        ("memory_usage", "By", GAUGE, "memory_usage_bytes"),
        ("disk", "TiBy", GAUGE, "disk_tibibytes"),
        ("disk", "kBy", GAUGE, "disk_kBy"),
        ("requests", "1/s", GAUGE, "requests_per_second"),
        ("requests", "1/s", COUNTER, "requests_per_second_total"),
        ("throughput", "By/s", GAUGE, "throughput_bytes_per_second"),
        ("speed", "m/min", GAUGE, "speed_meters_per_min"),
        ("pressure.per_second", "Pa/s", GAUGE, "pressure_per_second_Pa_per_second"),
        ("growth", "%/mo", GAUGE, "growth_percent_per_month"),
        ("custom_metric", "custom_unit", GAUGE, "custom_metric_custom_unit"),
        ("custom_metric", "{custom}", GAUGE, "custom_metric"),
        ("custom_metric", "By/{custom}", GAUGE, "custom_metric_bytes"),
        ("custom_metric", "{packets}/s", GAUGE, "custom_metric_per_second"),
        ("custom_metric", " By / s ", GAUGE, "custom_metric_bytes_per_second"),
        ("custom_metric", "By/", GAUGE, "custom_metric_bytes"),
        ("custom_metric", "unit@with#special/chars", GAUGE, "custom_metric_unit_with_special_per_chars"),
        ("metric", "$", GAUGE, "metric"),
        ("metric", "a$/b$", GAUGE, "metric_a_per_b"),
        ("metric", "By/$", GAUGE, "metric_bytes"),
        ("metric@@##$$name", "", GAUGE, "metric_name"),
        ("__metric__with__underscores__", "a__b", GAUGE, "metric_with_underscores_a_b"),
        ("rule:metric", "", GAUGE, "rule:metric"),
        ("métrique", "", GAUGE, "m_trique"),
        ("123metric", "", GAUGE, "_123metric"),
        ("1.requests", "s", COUNTER, "_1_requests_seconds_total"),
        ("@#$%", "", GAUGE, ""),
        ("", "", GAUGE, ""),
        ("$", "s", GAUGE, "seconds"),
    ],
)
def test_a_metric_ends_with_its_unit_and_with_what_it_is(
    name: str, unit: str, kind: dict[str, bool], expected: str
) -> None:
    assert metric_name(name, unit, **kind) == expected


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("", ""),
        ("1", ""),
        ("s", "seconds"),
        ("By/s", "bytes_per_second"),
        ("1/s", "per_second"),
        ("{requests}", ""),
        ("unit__multiple__underscores", "unit_multiple_underscores"),
        ("unit@with#special/chars", "unit_with_special_per_chars"),
        ("_a_", "a"),
    ],
)
def test_the_unit_of_metadata_is_in_words(unit: str, expected: str) -> None:
    assert unit_name(unit) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("http.method", "http_method"),
        ("http_status", "http_status"),
        ("a..b", "a__b"),
        ("a__b", "a__b"),
        ("a:b", "a_b"),
        ("größe", "gr__e"),
        ("0", "key_0"),
        ("123invalid", "key_123invalid"),
        ("_private", "key_private"),
        (".hidden", "key_hidden"),
        ("_", "key_"),
        ("__reserved__", "__reserved__"),
        ("..dots", "__dots"),
        ("ü", "key_"),
        ("üü", ""),
        ("__", ""),
        ("", ""),
    ],
)
def test_a_label_begins_with_a_letter_or_two_underscores(key: str, expected: str) -> None:
    assert label_name(key) == expected
