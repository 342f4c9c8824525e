"""Which route needs which right: the only place that says it. A route that is not here is answered 404."""

from __future__ import annotations

import re

from common.access import Right

OPEN = Right(0)
"""Nobody is asked who he is: supervisors ask whether a process lives, and a page loads before its user logs in."""

RIGHTS: dict[str, Right] = {
    "/": OPEN,
    "/-/healthy": OPEN,
    "/-/ready": OPEN,
    "/api/v1/admin/delete_tenant": Right.ADMIN,
    "/api/v1/admin/tsdb/clean_tombstones": Right.ADMIN,
    "/api/v1/admin/tsdb/delete_series": Right.ADMIN,
    "/api/v1/alertmanagers": Right.READ,
    "/api/v1/alerts": Right.READ,
    "/api/v1/cardinality": Right.READ,
    "/api/v1/export": Right.READ,
    "/api/v1/format_query": Right.READ,
    "/api/v1/import/prometheus": Right.WRITE,
    "/api/v1/label/{name:path}/values": Right.READ,
    "/api/v1/labels": Right.READ,
    "/api/v1/metadata": Right.READ,
    "/api/v1/otlp/v1/metrics": Right.WRITE,
    "/api/v1/parse_query": Right.READ,
    "/api/v1/query": Right.READ,
    "/api/v1/query_exemplars": Right.READ,
    "/api/v1/query_range": Right.READ,
    "/api/v1/read": Right.READ,
    "/api/v1/rules": Right.READ,
    "/api/v1/scrape_pools": Right.READ,
    "/api/v1/series": Right.READ,
    "/api/v1/status/queries/{id}": Right.ADMIN,
    "/api/v1/status/{name}": Right.READ,
    "/api/v1/targets": Right.READ,
    "/api/v1/targets/metadata": Right.READ,
    "/api/v1/write": Right.WRITE,
    "/debug/profile": Right.ADMIN,
    "/cardinality": OPEN,
    "/cluster": OPEN,
    "/federate": Right.READ,
    "/graph": OPEN,
    "/internal/v1/{name}": Right.NODE,
    "/metrics": Right.READ,
    "/openapi.json": Right.READ,
    "/query": OPEN,
    "/read": Right.READ,
    "/static/{name}": OPEN,
    "/status": OPEN,
    "/write": Right.WRITE,
}
"""By path as routes are declared: {name} stands for one part of a path, {name:path} for any rest of it."""

OF_ALL_TENANTS = frozenset({"/metrics", "/api/v1/status/partitions"})
"""What shows numbers of the whole process: not for those who are bound to tenants."""


def right_for(path: str) -> Right | None:
    """What a request for this path needs; None if no route is declared for it."""
    right = _EXACT.get(path)
    if right is not None:
        return right
    return next((right for pattern, right in _PATTERNS if pattern.fullmatch(path)), None)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^}]*\})", template)
    return re.compile("".join(_part(part) for part in parts), re.DOTALL)


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return ".*" if part.endswith(":path}") else "[^/]+"


_EXACT = {path: right for path, right in RIGHTS.items() if "{" not in path}
_PATTERNS = [(_pattern(path), right) for path, right in RIGHTS.items() if "{" in path]
