"""From flags to the configuration of each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.calling import Caller, CallerFiles
from common.errors import StartupError
from common.log.url import identity
from common.tenants import Tenancy
from ingest.config import IngestConfig
from query.config import QueryConfig
from storage_node.config import ClusterConfig, NodeConfig
from tabor.doors.connections import Limits
from tabor.doors.door import Door
from tabor.run import LogOptions

if TYPE_CHECKING:
    from storage_node.backup.schedule import BackupPlan


def log(options: Mapping[str, Any]) -> LogOptions:
    return LogOptions(
        url=options["log"],
        partitions=options.get("partitions"),
        retention_ms=options.get("log_retention"),
        retention_bytes=options.get("log_retention_size"),
    )


def door(options: Mapping[str, Any]) -> Door:
    """Reads the web configuration file. Raises StartupError."""
    limits = Limits(
        max_connections=options["max_connections"], max_connections_of_peer=options["max_connections_per_peer"]
    )
    return Door(options["web_config"], insecure=options["insecure"], limits=limits)


def caller(options: Mapping[str, Any], prefix: str = "") -> Caller:
    """Reads the files that are shown to servers. Raises StartupError."""
    token, ca, cert, key = (options[f"{prefix}{name}_file"] for name in ("token", "ca", "cert", "key"))
    return Caller(CallerFiles(token, ca, cert, key))


def node(options: Mapping[str, Any], *, name: str) -> NodeConfig:
    return NodeConfig(
        name=name,
        data_dir=options["data_dir"],
        log_identity=identity(options["log"]),
        retention_ms=options["retention"],
    )


def cluster(options: Mapping[str, Any]) -> ClusterConfig:
    return ClusterConfig(
        replicas=options["replicas"],
        rebuild_after_s=options["rebuild_after"] / 1000,
        use_peers=options["from"] == "peers",
        copy_rate_bytes_per_s=options["copy_rate"],
        audit_every_s=options["audit_every"] / 1000,
        node_timeout_s=options["node_timeout"] / 1000,
    )


def backup(options: Mapping[str, Any]) -> BackupPlan | None:
    """Where and how often backups are written; None if they are not. Raises StartupError."""
    if options["backup"] is None:
        return None
    from storage_node.backup.schedule import BackupPlan
    from storage_node.backup.target import open_target

    target = open_target(options["backup"], create=True)
    return BackupPlan(target, options["backup_every"] / 1000, options["backup_keep"])


def ingest(options: Mapping[str, Any]) -> IngestConfig:
    return IngestConfig(
        max_body_bytes=options["max_body_bytes"],
        max_active_series=options["max_active_series"],
        tenancy=Tenancy(options["tenancy"]),
        tenant_limits=_tenant_limits(options),
    )


def _tenant_limits(options: Mapping[str, Any]) -> Path | None:
    file: Path | None = options["tenant_limits"]
    if file is not None and options["tenancy"] == Tenancy.OFF.value:
        raise StartupError("--tenant-limits needs tenants: give --tenancy optional or required too")
    return file


def query(options: Mapping[str, Any]) -> QueryConfig:
    return QueryConfig(
        lookback_ms=options["query_lookback"],
        timeout_s=options["query_timeout"] / 1000,
        max_concurrency=options["query_max_concurrency"],
        max_samples=options["query_max_samples"],
        max_series=options["query_max_series"],
        max_points=options["query_max_points"],
        max_response_bytes=options["query_max_response_bytes"],
        consistency=options["read_consistency"],
        promql_strict=options["promql_strict"],
        slow_query_s=options["slow_query_threshold"] / 1000,
        tenancy=Tenancy(options["tenancy"]),
        tenant_limits=_tenant_limits(options),
    )
