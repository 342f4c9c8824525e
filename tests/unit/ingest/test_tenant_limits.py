"""Limits of tenants, enforced before the log, and their retention, which is tombstones in the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from common.errors import LogUnavailable
from common.limits import Limits
from common.store import MIN_TIME_MS
from common.tenants import Tenancy, other_tenants_matcher, tenant_matcher
from common.tombstones import Tombstone
from ingest.errors import LimitReached
from ingest.rates import Rates
from ingest.retention import STEP_MS, TenantRetention
from tests.tenancies import Tabor, tabor

LIMITS = """
[limits]
max_label_value_bytes = 10
[tenants.few]
max_active_series = 2
[tenants.slow]
samples_per_s = 1
burst_samples = 3
[tenants.narrow]
max_query_samples = 2
"""
IMPORT = "/api/v1/import/prometheus"
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tabor]:
    folder = tmp_path_factory.mktemp("tabor")
    file = folder / "limits.toml"
    file.write_text(LIMITS)
    with tabor(folder / "data", Tenancy.OPTIONAL, tenant_limits=file) as found:
        yield found


def send(whole: Tabor, tenant: str, *series: str, n_samples: int = 1) -> Any:
    text = "".join(f"{one} 1 {time}\n" for one in series for time in range(1000, 1000 + n_samples))
    return whole.ask("POST", IMPORT, tenant, content=text)


def test_a_series_too_many_is_refused_with_the_limit_and_the_others_are_stored(whole: Tabor) -> None:
    assert send(whole, "few", "a", "b").status_code == 204
    answer = send(whole, "few", "a", "c")
    assert answer.status_code == 429
    assert "its tenant has 2 active series already (max_active_series of the tenant)" in answer.text
    assert answer.headers["retry-after"] == "60"
    assert send(whole, "few", "a", "b").status_code == 204
    assert send(whole, "other", "a", "b", "c").status_code == 204


def test_a_tenant_that_writes_too_fast_is_told_when_to_come_again(whole: Tabor) -> None:
    assert send(whole, "slow", "a", n_samples=5).status_code == 204
    answer = send(whole, "slow", "a")
    assert (answer.status_code, "more than 1 samples/s (samples_per_s)" in answer.text) == (429, True)
    assert answer.headers["retry-after"] == "3"
    remote_write = whole.ask("POST", "/api/v1/write", "slow", content=b"\0")
    assert (remote_write.status_code, remote_write.headers["retry-after"]) == (429, "3")
    otlp = {"content-type": "application/x-protobuf"}
    assert whole.ask("POST", "/api/v1/otlp/v1/metrics", "slow", headers=otlp).status_code in (200, 429)


def test_labels_that_are_too_long_for_the_tenant_are_refused(whole: Tabor) -> None:
    answer = send(whole, "other", 'a{b="12345678901"}')
    assert answer.status_code == 422
    assert "more than 10 bytes (max_label_value_bytes)" in answer.text


def test_a_query_of_too_many_samples_names_the_tenant_and_the_limit(whole: Tabor) -> None:
    assert send(whole, "narrow", "a", n_samples=3).status_code == 204
    assert send(whole, "wide", "a", n_samples=3).status_code == 204
    params = {"query": "count_over_time(a[1m])", "time": "10"}
    answer = whole.ask("GET", "/api/v1/query", "narrow", params=params)
    assert answer.status_code == 422
    assert "the limit of tenant narrow (max_query_samples)" in answer.json()["error"]
    # Of several tenants the lowest limit holds, as in Mimir.
    assert whole.ask("GET", "/api/v1/query", "narrow|wide", params=params).status_code == 422
    assert whole.ask("GET", "/api/v1/query", "wide", params=params).status_code == 200


def limits_of(folder: Path, text: str) -> Limits:
    file = folder / "limits.toml"
    file.write_text(text)
    return Limits(file)


def test_a_debt_is_paid_by_waiting_and_the_burst_is_never_exceeded(tmp_path: Path) -> None:
    now_s = 0.0
    rates = Rates(limits_of(tmp_path, "[limits]\nsamples_per_s = 10\nburst_samples = 20"), lambda: now_s)
    rates.check("a")
    rates.spend("a", 120)
    with pytest.raises(LimitReached) as refused:
        rates.check("a")
    assert refused.value.retry_after_s == pytest.approx(10.1)
    rates.check("b")
    now_s = 10.0
    with pytest.raises(LimitReached):
        rates.check("a")
    now_s = 1000.0
    rates.check("a")
    rates.spend("a", 20)
    with pytest.raises(LimitReached):
        rates.check("a")


class Log:
    def __init__(self) -> None:
        self.asked: list[Tombstone] = []
        self.error: Exception | None = None

    def delete(self, tombstones: Sequence[Tombstone]) -> Future[list[int]]:
        done: Future[list[int]] = Future()
        if self.error is not None:
            done.set_exception(self.error)
        else:
            self.asked += tombstones
            done.set_result([])
        return done


def test_retention_is_tombstones_each_once_a_step(tmp_path: Path) -> None:
    now_ms = 100 * DAY_MS + 5
    log = Log()
    limits = limits_of(tmp_path, '[limits]\nretention = "30d"\n[tenants.a]\nretention = "10d"')
    retention = TenantRetention(limits, log.delete, lambda: now_ms)
    log.error = LogUnavailable("away")
    with pytest.raises(LogUnavailable):
        retention.carry_out()
    log.error = None
    retention.carry_out()
    retention.carry_out()
    others, mine = other_tenants_matcher(["a"]), tenant_matcher(["a"])
    assert log.asked == [
        Tombstone((others,), MIN_TIME_MS, 70 * DAY_MS - 1),
        Tombstone((mine,), MIN_TIME_MS, 90 * DAY_MS - 1),
    ]
    now_ms += STEP_MS
    retention.carry_out()
    assert [one.max_time_ms for one in log.asked[2:]] == [70 * DAY_MS + STEP_MS - 1, 90 * DAY_MS + STEP_MS - 1]
