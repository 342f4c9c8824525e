"""`tabor run`: everything in one process. Wiring only.

HTTP ─► ingest.http ─► Ingestor ─► Log ─► StorageNode ─► NodeStore
                                                           ▲
HTTP ─► query.http ─► QueryService ─► Engine ──────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import prometheus_client

from common.log.base import Log
from common.log.local import LocalLog, LocalLogCollector
from common.log.url import open_log
from common.rocksdb import RocksCollector
from common.version import VERSION
from ingest.config import IngestConfig
from query.config import QueryConfig
from storage_node.config import NodeConfig
from tabor import kernels, server_metrics, supervisor
from tabor.doors.door import Door
from tabor.folder import DataFolder
from tabor.progress import say
from tabor.readiness import NodeState
from tabor.serving import Entrance, build_app, first_of, listen, serve, serving
from tabor.settings import Setting
from tabor.values import Address

if TYPE_CHECKING:
    from storage_node.backup.schedule import BackupPlan, Schedule
    from storage_node.copies import Copies

COPY_RATE = 1 << 40
"""Bytes a second that backups over HTTP may read: as fast as it goes; `tabor backup --rate` bounds it."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which log, and how long a local one keeps its records."""

    url: str
    partitions: int | None
    retention_ms: int | None
    retention_bytes: int | None

    def open(self, data_dir: Path | None, *, reads: bool = True, writes: bool = True) -> Log:
        return open_log(
            self.url,
            data_dir=data_dir,
            partitions=self.partitions,
            retention_ms=self.retention_ms,
            retention_bytes=self.retention_bytes,
            reads=reads,
            writes=writes,
        )


def run_all(
    address: Address,
    door: Door,
    data_dir: Path,
    log: LogOptions,
    node: NodeConfig,
    ingest: IngestConfig,
    query: QueryConfig,
    settings: Sequence[Setting] = (),
    backup: BackupPlan | None = None,
) -> None:
    """Serve until a signal; returns after a clean shutdown."""
    with ExitStack() as stack:
        folder = stack.enter_context(DataFolder(data_dir))
        entrance = stack.enter_context(listen(address, door))
        opened = log.open(folder.path)
        stack.callback(opened.close)
        kernels.ensure()
        serve(lambda: _serve(entrance, data_dir, opened, node, ingest, query, log, settings, backup))
    say("stopped; everything acknowledged is on disk")


async def _serve(
    entrance: Entrance,
    data_dir: Path,
    log: Log,
    node_config: NodeConfig,
    ingest_config: IngestConfig,
    query_config: QueryConfig,
    log_options: LogOptions,
    settings: Sequence[Setting],
    backup: BackupPlan | None,
) -> None:
    # Imported here, after the first line of output and the locks: these bring most of what start-up costs.
    from fastapi import Depends

    from ingest.http import in_front_of
    from ingest.import_http import router as import_router
    from ingest.ingestor import Ingestor
    from ingest.otlp_http import router as otlp_router
    from query.http import in_front_of as queries_in_front_of
    from query.http import router as query_router
    from query.http_admin import router as admin_router
    from query.http_queries import router as queries_router
    from query.http_tenants import router as tenants_router
    from query.service import QueryService
    from storage_node.copies import Copies
    from storage_node.copies_http import router as copies_router
    from storage_node.http import router as node_router
    from storage_node.service import StorageNode
    from tabor.cluster.overview import of_one_process
    from tabor.cluster.overview import router as cluster_router
    from tabor.page.process import Limit, query_limits
    from tabor.page.process import router as process_router
    from tabor.page.routes import router as page_router

    node = StorageNode(log, node_config)
    ingestor = Ingestor(log, ingest_config, gate=node.healthy)
    queries = QueryService(node.store, query_config)
    copies = Copies(lambda: node.views, COPY_RATE)
    state = NodeState(node, log.failure if isinstance(log, LocalLog) else lambda: None)
    app = build_app(
        state.readiness,
        "ingest",
        "query",
        "queries",
        "tenants",
        "admin",
        "status",
        "copies",
        "page",
        "process",
        "cluster",
    )
    ingest_routes = (
        import_router(ingestor),
        otlp_router(ingestor),
        admin_router(ingestor.delete, ingest_config.tenancy, ingestor.delete_tenant),
    )
    query_routes = query_router(queries, VERSION), queries_router(queries), tenants_router(queries)
    for routes in (*query_routes, node_router(node), copies_router(node_config.name, copies), *ingest_routes):
        app.include_router(routes, dependencies=[Depends(state.require_started)])
    local = isinstance(log, LocalLog)
    overview = of_one_process(
        node.progress,
        str(entrance.address),
        "local" if local else "kafka",
        log_options.retention_ms if local else None,
        log_options.retention_bytes if local else None,
    )
    app.include_router(cluster_router(overview), dependencies=[Depends(state.require_started)])
    known = Limit(
        "series that ingest knows", "max-active-series", ingestor.known_series, ingest_config.max_active_series
    )
    limits = [known, *query_limits(queries)]
    app.include_router(process_router("run", settings, limits))
    app.include_router(page_router())
    ingestor.start()
    schedule = _schedule(backup, copies, node_config.name, log.partitions)
    expiring = asyncio.create_task(_expire(copies))
    try:
        asked = queries_in_front_of(app, queries, state.require_started)
        async with serving(in_front_of(asked, ingestor), entrance) as stop:
            if await first_of(stop, asyncio.to_thread(node.start)):
                state.node_has_started()
                server_metrics.register(state.readiness, "run", data_dir)
                databases = {"views": node.rocksdb}
                if isinstance(log, LocalLog):
                    databases["log"] = log.properties
                    prometheus_client.REGISTRY.register(LocalLogCollector(log))
                prometheus_client.REGISTRY.register(RocksCollector(databases))
            if state.started and await state.until_ready(stop):
                supervisor.ready()
                kernels.preload_in_background()
                if schedule is not None:
                    schedule.start()
                url = entrance.url
                say(f"remote_write url:  {url}/api/v1/write")
                say(f"queries:           {url}/api/v1/query (Grafana: Prometheus data source {url})")
                say(f"page:              {url}/")
                say(f"data:              {data_dir.resolve()}")
                say(f"door:              {entrance.door.describe()}")
            await stop.wait()
            say("stopping: finishing requests under way")
    finally:
        expiring.cancel()
        await asyncio.to_thread(ingestor.close)
        await asyncio.to_thread(queries.close)
        if schedule is not None:
            await asyncio.to_thread(schedule.close)
        await asyncio.to_thread(node.close)


async def _expire(copies: Copies) -> None:
    """Give back the snapshots of backups that were cut off: they keep files from being freed."""
    from storage_node.copies import IDLE_S

    while True:
        await asyncio.sleep(IDLE_S)
        await asyncio.to_thread(copies.expire)


def _schedule(plan: BackupPlan | None, copies: Copies, name: str, partitions: int) -> Schedule | None:
    """The backups of the one node, which has everything."""
    if plan is None:
        return None
    from storage_node.backup.schedule import Schedule
    from storage_node.metrics import register_backups

    schedule = Schedule(plan, copies, name, partitions, lambda: range(partitions))
    register_backups(schedule, prometheus_client.REGISTRY)
    return schedule
