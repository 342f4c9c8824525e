"""Settings of the query side; the defaults are Prometheus' where it has the setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.tenancy import Tenancy


@dataclass(frozen=True, slots=True)
class QueryConfig:
    """Limits of one query server.

    max_samples, max_series: read by one query, over all its selectors. max_response_bytes: before compression.
    consistency: 'strong' waits until everything acknowledged before the query is visible, 'eventual' does not.
    slow_query_s: queries that take longer are logged.
    promql_strict: refuse what Prometheus has behind feature flags only.
    tenancy: whether there are tenants, and whether a request has to name one. tenant_limits: the file of their
    limits.
    """

    lookback_ms: int = 300_000
    timeout_s: float = 120.0
    max_concurrency: int = 20
    max_samples: int = 50_000_000
    max_series: int = 1_000_000
    max_points: int = 11_000
    max_response_bytes: int = 1 << 30
    consistency: str = "strong"
    promql_strict: bool = False
    slow_query_s: float = 5.0
    tenancy: Tenancy = Tenancy.OFF
    tenant_limits: Path | None = None
