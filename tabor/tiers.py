"""`tabor ingest`, `tabor storage-node`, `tabor query`: one tier a process, Kafka between them. Wiring only.

ingest:        HTTP ─► ingest.http ─► Ingestor ─► Kafka
storage-node:  Kafka ─► StorageNode ─► NodeStore ◄─ storage_node.reads_http ◄─ HTTP of query servers
                            ├─ Assigner ◄─ Membership ◄─ control topic ◄─ Announcer
                            └─ Acquirer ◄─ copies_http of other nodes
query:         control topic ─► Membership ─► RemoteStore ◄─ Engine ◄─ QueryService ◄─ query.http ◄─ HTTP
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client

from common.calling import Caller
from common.control.events import MAX_NAME_BYTES
from common.control.kafka import KafkaControlTopic
from common.control.members import LIVE_S, Member
from common.errors import LogUnavailable, StartupError
from common.log.base import Log
from common.log.kafka import KafkaLog
from common.log.url import parse_kafka_url
from common.membership import Announcement, Announcer, Membership
from common.membership_metrics import MembershipCollector
from common.rocksdb import RocksCollector
from common.version import VERSION
from ingest.config import IngestConfig
from query.config import QueryConfig
from storage_node.config import ClusterConfig, NodeConfig
from tabor import kernels, server_metrics, supervisor
from tabor.doors.door import Door
from tabor.folder import DataFolder
from tabor.progress import say
from tabor.readiness import NodeState
from tabor.run import LogOptions
from tabor.serving import Entrance, build_app, first_of, listen, serve, serving
from tabor.settings import Setting
from tabor.values import Address

if TYPE_CHECKING:
    from storage_node.backup.schedule import BackupPlan, Schedule
    from storage_node.copies import Copies
    from storage_node.service import StorageNode

PROBE_S = 1.0
READ_TOPIC_S = 30.0


def run_ingest(address: Address, door: Door, log_options: LogOptions, config: IngestConfig) -> None:
    """Serve remote write until a signal; returns after a clean shutdown."""
    with ExitStack() as stack:
        entrance = stack.enter_context(listen(address, door))
        log = _open_log(log_options, stack, reads=False)
        serve(lambda: _serve_ingest(entrance, log, config))
    say("stopped; everything acknowledged is in the log")


def run_storage_node(
    address: Address,
    door: Door,
    data_dir: Path,
    log_options: LogOptions,
    config: NodeConfig,
    cluster: ClusterConfig,
    backup: BackupPlan | None = None,
    *,
    caller: Caller,
    advertise: Address | None = None,
) -> None:
    """Keep views of the log and serve reads of them until a signal; returns after a clean shutdown.

    caller: how it shows itself to other nodes.
    advertise: where query servers reach this node; by default where it listens.
    """
    if not 0 < len(config.name.encode()) <= MAX_NAME_BYTES:
        raise StartupError(f"--name has to have 1 to {MAX_NAME_BYTES} bytes")
    with ExitStack() as stack:
        folder = stack.enter_context(DataFolder(data_dir))
        entrance = stack.enter_context(listen(address, door))
        reached_at = f"{door.scheme}://{_reached_at(entrance.address, advertise)}".removeprefix("http://")
        log = _open_log(log_options, stack)
        membership = _follow(log_options, cluster.node_timeout_s, stack)
        serve(
            lambda: _serve_storage_node(
                entrance, reached_at, caller, folder.path, log, membership, config, cluster, backup
            )
        )
    say("stopped; the views are on disk")


def run_query(
    address: Address,
    door: Door,
    log_options: LogOptions,
    config: QueryConfig,
    *,
    caller: Caller,
    node_timeout_s: float = LIVE_S,
    settings: Sequence[Setting] = (),
) -> None:
    """Serve queries over the storage nodes until a signal; returns after a clean shutdown.

    caller: how it shows itself to the nodes.
    """
    with ExitStack() as stack:
        entrance = stack.enter_context(listen(address, door))
        log = _open_log(log_options, stack, reads=False, writes=False)
        membership = _follow(log_options, node_timeout_s, stack, writes=False)
        serve(lambda: _serve_query(entrance, caller, log, membership, config, settings))
    say("stopped")


async def _serve_ingest(entrance: Entrance, log: Log, config: IngestConfig) -> None:
    from ingest.http import in_front_of
    from ingest.import_http import router as import_router
    from ingest.ingestor import Ingestor
    from ingest.otlp_http import router as otlp_router
    from query.http_admin import router as admin_router

    probe = _LogProbe(log)
    ingestor = Ingestor(log, config)
    app = build_app(probe.readiness, "ingest", "admin")
    for routes in (
        import_router(ingestor),
        otlp_router(ingestor),
        admin_router(ingestor.delete, config.tenancy, ingestor.delete_tenant),
    ):
        app.include_router(routes)
    ingestor.start()
    probe.start()
    server_metrics.register(probe.readiness, "ingest")
    try:
        async with serving(in_front_of(app, ingestor), entrance) as stop:
            if await _until(lambda: probe.readiness()[0], stop, "waiting for the log"):
                supervisor.ready()
                kernels.preload_in_background()
                say(f"remote_write url:  {entrance.url}/api/v1/write")
                say(f"door:              {entrance.door.describe()}")
                say(f"log:               {log.partitions} partitions")
            await stop.wait()
            say("stopping: finishing requests under way")
    finally:
        await asyncio.to_thread(ingestor.close)
        await asyncio.to_thread(probe.close)


async def _serve_storage_node(
    entrance: Entrance,
    reached_at: str,
    caller: Caller,
    data_dir: Path,
    log: Log,
    membership: Membership,
    config: NodeConfig,
    cluster: ClusterConfig,
    backup: BackupPlan | None,
) -> None:
    from fastapi import Depends

    from query.pushdown.answering import evaluate
    from storage_node.acquiring import Acquirer
    from storage_node.assigner import Assigner
    from storage_node.auditing import Auditor
    from storage_node.copies import Copies
    from storage_node.copies_http import router as copies_router
    from storage_node.http import router
    from storage_node.marks_http import router as marks_router
    from storage_node.metrics import register_cluster
    from storage_node.reads_http import NodeReads
    from storage_node.report_http import router as report_router
    from storage_node.service import StorageNode

    node = StorageNode(log, config)
    state = NodeState(node)
    backups = None if backup is None else backup.target
    acquirer = Acquirer(log, lambda: node.views, use_peers=cluster.use_peers, caller=caller, backups=backups)
    copies = Copies(lambda: node.views, cluster.copy_rate_bytes_per_s)
    schedule = None if backup is None else _schedule(backup, copies, membership, node, config.name, log.partitions)
    assigner = Assigner(membership, node, config.name, acquirer, copies, rebuild_after_s=cluster.rebuild_after_s)
    says = Announcement(config.name, reached_at, log.partitions, state=assigner.state, replicas=cluster.replicas)
    announcer = Announcer(membership, says)
    reads = NodeReads(config.name, node.store, evaluate=evaluate)
    app = build_app(state.readiness, "reads", "copies", "marks", "report", "status")
    auditor = Auditor(membership, log, node, config.name, every_s=cluster.audit_every_s, caller=caller)
    peers = (
        copies_router(config.name, copies),
        marks_router(config.name, node, assigner.repair),
        report_router(config.name, acquirer, auditor),
    )
    for routes in (router(node), reads.router(), *peers):
        app.include_router(routes, dependencies=[Depends(state.require_started)])

    def start() -> None:
        node.start(())
        register_cluster(acquirer, auditor, prometheus_client.REGISTRY)
        prometheus_client.REGISTRY.register(MembershipCollector(membership))
        prometheus_client.REGISTRY.register(RocksCollector({"views": node.rocksdb}))
        server_metrics.register(state.readiness, "storage-node", data_dir)
        announcer.start()
        acquirer.start()
        assigner.start()
        auditor.start()

    try:
        async with serving(app, entrance) as stop:
            if await first_of(stop, asyncio.to_thread(start)):
                state.node_has_started()
            if state.started and await state.until_ready(stop):
                supervisor.ready()
                kernels.preload_in_background()
                if schedule is not None:
                    schedule.start()
                held = len(node.views.shards)
                say(f"node:              {config.name}, {held} of {log.partitions} partitions")
                say(f"reads:             {reached_at} (state: {entrance.url}/api/v1/status/partitions)")
                say(f"door:              {entrance.door.describe()}")
                say(f"data:              {data_dir.resolve()}")
            await stop.wait()
            say("stopping: finishing requests under way")
            # Query servers turn to other nodes before this one stops to answer.
            await asyncio.to_thread(announcer.leave)
    finally:
        await asyncio.to_thread(announcer.leave)
        if schedule is not None:
            await asyncio.to_thread(schedule.close)
        await asyncio.to_thread(auditor.close)
        await asyncio.to_thread(assigner.close)
        await asyncio.to_thread(acquirer.close)
        await asyncio.to_thread(reads.close)
        await asyncio.to_thread(node.close)


def _schedule(
    plan: BackupPlan, copies: Copies, membership: Membership, node: StorageNode, name: str, n_partitions: int
) -> Schedule:
    """The backups of a node of a cluster: of the partitions of which it is the first that is there."""
    from storage_node.assignment import chosen_for
    from storage_node.backup.schedule import Schedule
    from storage_node.metrics import register_backups

    def live() -> dict[str, Member]:
        return membership.live(membership.cluster())

    schedule = Schedule(
        plan,
        copies,
        name,
        n_partitions,
        lambda: chosen_for(name, node.ready_partitions(), live()),
        prunes=lambda: name == min(live(), default=name),
    )
    register_backups(schedule, prometheus_client.REGISTRY)
    return schedule


async def _serve_query(
    entrance: Entrance,
    caller: Caller,
    log: KafkaLog,
    membership: Membership,
    config: QueryConfig,
    settings: Sequence[Setting],
) -> None:
    from query.http import in_front_of, router
    from query.http_queries import router as queries_router
    from query.http_tenants import router as tenants_router
    from query.remote import RemoteStore
    from query.service import QueryService
    from tabor.cluster.overview import of_cluster
    from tabor.cluster.overview import router as cluster_router
    from tabor.page.process import query_limits
    from tabor.page.process import router as process_router
    from tabor.page.routes import router as page_router

    store = RemoteStore(
        membership,
        log.partitions,
        log.high_watermarks,
        timeout_s=config.timeout_s,
        caller=caller,
    )
    queries = QueryService(store, config)

    def readiness() -> tuple[bool, dict[str, Any]]:
        missing = membership.uncovered(log.partitions)
        some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        reason = f"no storage node of {membership.topic.name} is ready for partition {some}"
        return not missing, {"reason": reason, "partitions": missing}

    def is_covered() -> bool:
        return not membership.uncovered(log.partitions)

    app = build_app(readiness, "query", "queries", "tenants", "page", "process", "cluster")
    prometheus_client.REGISTRY.register(MembershipCollector(membership))
    server_metrics.register(readiness, "query")
    for routes in (router(queries, VERSION), queries_router(queries), tenants_router(queries), page_router()):
        app.include_router(routes)
    app.include_router(cluster_router(of_cluster(membership, log, caller)))
    app.include_router(process_router("query", settings, query_limits(queries)))
    try:
        async with serving(in_front_of(app, queries), entrance) as stop:
            await first_of(stop, asyncio.to_thread(membership.wait_read, READ_TOPIC_S))
            if not is_covered():
                say(f"waiting for storage nodes to announce themselves in {membership.topic.name}")
            if await _until(is_covered, stop, "waiting for storage nodes"):
                supervisor.ready()
                kernels.preload_in_background()
                names = ", ".join(member.name for member in membership.nodes())
                say(f"queries:           {entrance.url}/api/v1/query (Grafana: Prometheus data source)")
                say(f"page:              {entrance.url}/")
                say(f"door:              {entrance.door.describe()}")
                say(f"storage nodes:     {names}")
            await stop.wait()
            say("stopping: finishing requests under way")
    finally:
        await asyncio.to_thread(queries.close)
        store.close()


class _LogProbe:
    """Asks the log for its bounds now and then, in a thread, for a log that is away keeps one waiting."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reason: str | None = "the log has not answered yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="log-probe", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        reason = self._reason
        return reason is None, {"reason": reason}

    def _probe(self) -> None:
        while not self._stop.is_set():
            try:
                self._log.bounds(0)
                self._reason = None
            except LogUnavailable as error:
                self._reason = str(error)
            self._stop.wait(PROBE_S)


async def _until(condition: Callable[[], bool], stop: asyncio.Event, doing: str) -> bool:
    """Wait for a condition that costs nothing to look at; False if the stop signal came first.

    doing: what a supervisor is told meanwhile, which then does not take it for a start that hangs.
    """
    tell_at = 0.0
    while not stop.is_set():
        if condition():
            return True
        if (now := time.monotonic()) >= tell_at:
            supervisor.starting(doing)
            tell_at = now + supervisor.MORE_TIME_S / 4
        await asyncio.sleep(0.02)
    return False


def _open_log(options: LogOptions, stack: ExitStack, *, reads: bool = True, writes: bool = True) -> KafkaLog:
    if options.url == "local":
        raise StartupError(
            "a tier by itself needs the log on Kafka: give --log kafka://host:port,host:port/prefix"
        )
    kernels.ensure()
    log = options.open(None, reads=reads, writes=writes)
    assert isinstance(log, KafkaLog), "every log but 'local' is on Kafka"
    stack.callback(log.close)
    return log


def _follow(options: LogOptions, live_s: float, stack: ExitStack, *, writes: bool = True) -> Membership:
    where = parse_kafka_url(options.url)
    topic = KafkaControlTopic(where.bootstrap, where.prefix, options=where.options, writes=writes)
    stack.callback(topic.close)
    membership = Membership(topic, live_s=live_s)
    membership.start()
    stack.callback(membership.close)
    return membership


def _reached_at(bound: Address, advertise: Address | None) -> Address:
    """Where query servers reach this node.

    Raises:
        StartupError: that is not known, for it listens everywhere.
    """
    if advertise is not None and advertise.port and not advertise.is_everywhere:
        return advertise
    if advertise is not None:
        raise StartupError(f"{advertise} is no address to reach this node at; give --advertise host:port")
    if bound.is_everywhere:
        raise StartupError(
            f"this node listens on {bound}, which is no address to reach it at; give --advertise host:port too"
        )
    return bound
