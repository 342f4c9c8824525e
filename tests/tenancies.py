"""A whole Tabor in a test's process, with tenants or without: written to and asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from common.access import SCOPE_KEY, Principal
from common.control.events import Event, EventKind, encode_record, key_of
from common.membership import Membership
from common.store import SeriesStore
from common.tenants import DEFAULT_TENANT, Tenancy
from ingest.config import IngestConfig
from ingest.http import in_front_of
from ingest.import_http import router as import_router
from ingest.ingestor import Ingestor
from ingest.otlp_http import router as otlp_router
from ingest.producer import Producer
from query.config import QueryConfig
from query.http import router as query_router
from query.http_admin import router as admin_router
from query.http_tenants import router as tenants_router
from query.pushdown.answering import evaluate
from query.remote import RemoteStore
from query.service import QueryService
from storage_node.config import NodeConfig
from storage_node.reads_http import NodeReads
from storage_node.service import StorageNode
from tests.memory_control import Broker
from tests.memory_log import MemoryLog
from tests.served import served
from tests.unit.ingest.logs import own_metrics

PARTITIONS = 2


class Tabor:
    """Everything of `tabor run`, over a log in memory; `store` is what queries read from."""

    def __init__(
        self, log: MemoryLog, node: StorageNode, store: SeriesStore, tenancy: Tenancy = Tenancy.OFF, **config: Any
    ) -> None:
        self.log = log
        self.node = node
        self.tenancy = tenancy
        self.ingestor = Ingestor(log, IngestConfig(tenancy=tenancy, linger_s=0.0, **config), metrics=own_metrics())
        self.queries = QueryService(
            store, QueryConfig(tenancy=tenancy, max_concurrency=4, tenant_limits=config.get("tenant_limits"))
        )
        app = FastAPI()
        for routes in (
            query_router(self.queries, "0"),
            import_router(self.ingestor),
            otlp_router(self.ingestor),
            admin_router(self.ingestor.delete, tenancy, self.ingestor.delete_tenant),
            tenants_router(self.queries),
        ):
            app.include_router(routes)
        self.app: Any = in_front_of(app, self.ingestor)
        self.ingestor.start()

    def close(self) -> None:
        self.ingestor.close()
        self.queries.close()

    def ask(
        self, method: str, path: str, tenant: str | None = None, principal: Principal | None = None, **fields: Any
    ) -> httpx.Response:
        """One request for a tenant; principal: who sends it, as the gate would have found."""
        headers = {**fields.pop("headers", {}), **({} if tenant is None else {"X-Scope-OrgID": tenant})}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if principal is not None:
                scope[SCOPE_KEY] = principal
            await self.app(scope, receive, send)

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
                return await client.request(method, path, headers=headers, **fields)

        return asyncio.run(send())

    def producer(self, tenant: str | None) -> Producer:
        return Producer(self.log, tenant=tenant or DEFAULT_TENANT, metrics=own_metrics())


@contextlib.contextmanager
def tabor(folder: Path, tenancy: Tenancy = Tenancy.OFF, *, spread: bool = False, **config: Any) -> Iterator[Tabor]:
    """A Tabor with a folder of its own. spread: queries reach the node over HTTP, as two nodes with half each."""
    log = MemoryLog(PARTITIONS)
    node = StorageNode(log, NodeConfig(name="n", data_dir=folder, log_identity="memory"))
    node.start()
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        stack.callback(node.close)
        store = stack.enter_context(_remote(log, node)) if spread else node.store
        whole = Tabor(log, node, store, tenancy, **config)
        stack.callback(whole.close)
        yield whole


@contextlib.contextmanager
def _remote(log: MemoryLog, node: StorageNode) -> Iterator[RemoteStore]:
    broker = Broker()
    membership = Membership(broker.topic())
    membership.start()
    with contextlib.ExitStack() as stack:
        stack.callback(membership.close)
        offset = 0
        for partition in range(PARTITIONS):
            name = f"node-{partition}"
            reads = NodeReads(name, node.store, evaluate=evaluate)
            stack.callback(reads.close)
            app = FastAPI()
            app.include_router(reads.router())
            address = stack.enter_context(served(app))
            event = Event(EventKind.HEARTBEAT, name, name, address, {partition: 0}, frozenset(), True, 0)
            offset = broker.append(key_of(event), encode_record(event))
        assert membership.wait_position(offset + 1, 10)
        store = RemoteStore(
            membership, PARTITIONS, lambda _: [log.bounds(p).high_watermark for p in range(PARTITIONS)]
        )
        stack.callback(store.close)
        yield store
