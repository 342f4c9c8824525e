"""docs/metrics.md, made of the metrics as the code has them: `python -m tests.metrics_page > docs/metrics.md`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

PAGE = Path("docs/metrics.md")
SERVICES = {
    "server": "Every process",
    "http": "Requests: every process",
    "door": "The gate: every process",
    "ingest": "Writes: `tabor run`, `tabor ingest`",
    "log": "The log: whoever appends to it",
    "storage_node": "Storage: `tabor run`, `tabor storage-node`",
    "rocksdb": "RocksDB, by database (`views`, `log`)",
    "cluster": "The cluster, as a process sees it: `tabor storage-node`, `tabor query`",
    "query": "Queries: `tabor run`, `tabor query`",
    "tenant": "Tenants",
    "backup": "Backups: `tabor run`, `tabor storage-node`",
}
_UNITS = (
    "seconds",
    "bytes",
    "records",
    "samples",
    "series",
    "partitions",
    "nodes",
    "replicas",
    "queries",
    "requests",
)

_HEAD = """# Metrics

What `/metrics` of each process shows. `make metrics` makes this page of the code; a test fails if it is old.
Names are `tabor_<service>_<thing>_<unit>`; counters end in `_total`, and begin at 0 with the process unless their
meaning says otherwise. No label has values of users' data: routes are those declared, `other` stands for all else.
The `process_*` and `python_*` metrics are those of every Python process (`process_resident_memory_bytes`, …).
"""


class Described(NamedTuple):
    """A metric. name: as in queries; of a histogram the part that _bucket, _sum and _count have in common."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str

    @property
    def service(self) -> str:
        rest = self.name.removeprefix("tabor_")
        return next((one for one in SERVICES if rest.startswith(one + "_")), "")

    @property
    def unit(self) -> str:
        base = self.name.removesuffix("_total")
        return next((unit for unit in _UNITS if base.endswith("_" + unit)), "")


def described() -> list[Described]:
    """All metrics of all processes, by name."""
    for package in ("common", "ingest", "query", "storage_node", "tabor"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    from ingest.metrics import process_metrics

    process_metrics()
    found = {}
    for collector in list(REGISTRY._collector_to_names):
        if isinstance(collector, MetricWrapperBase) and collector._name.startswith("tabor_"):
            one = _of_wrapper(collector)
            found[one.name] = one
    for family in _collected():
        total = "_total" if family.type == "counter" else "_info" if family.type == "info" else ""
        labels: tuple[str, ...] = tuple(getattr(family, "_labelnames", ()) or ())
        if family.type == "info":
            labels = tuple(sorted(family.samples[0].labels))
        one = Described(family.name + total, family.type, labels, family.documentation)
        found[one.name] = one
    return sorted(found.values())


def _of_wrapper(metric: Any) -> Described:
    total = "_total" if metric._type == "counter" else ""
    return Described(metric._name + total, metric._type, tuple(metric._labelnames), metric._documentation)


def _collected() -> Iterator[Metric]:
    """What collectors make when they are asked, of a node that is there and has nothing."""
    from common.log.local import LocalLog, LocalLogCollector
    from common.membership import Membership
    from common.membership_metrics import MembershipCollector
    from common.rocksdb import RocksCollector
    from storage_node.config import NodeConfig
    from storage_node.metrics import BackupCollector, ClusterCollector, NodeCollector
    from storage_node.service import StorageNode
    from tabor.server_metrics import ServerCollector
    from tests.memory_control import Broker

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = LocalLog(folder / "log", 1)
        stack.callback(log.close)
        node = StorageNode(log, NodeConfig(name="n", data_dir=folder, log_identity="n"))
        node.start()
        stack.callback(node.close)
        nothing: Any = SimpleNamespace(copied=0, copying={}, comparisons=0, differing={})
        backups: Any = SimpleNamespace(
            last_success_s=0.0, every_s=0.0, last_seconds=0.0, sent_bytes=0, kept_bytes=0, failures={"": 0}
        )
        collectors: list[Any] = [
            NodeCollector(node),
            ClusterCollector(nothing, nothing),
            BackupCollector(backups),
            LocalLogCollector(log),
            RocksCollector({"views": node.rocksdb, "log": log.properties}),
            MembershipCollector(Membership(Broker().topic())),
            ServerCollector(lambda: (True, {}), "run", folder),
        ]
        for collector in collectors:
            yield from collector.collect()


def page() -> str:
    """The whole page."""
    lines = [_HEAD]
    metrics = described()
    for service, title in SERVICES.items():
        if not any(one.service == service for one in metrics):
            continue
        lines += [f"## {title}", "", "| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
        for one in metrics:
            if one.service == service:
                labels = ", ".join(f"`{label}`" for label in one.labels)
                lines.append(f"| `{one.name}` | {one.type} | {one.unit} | {labels} | {one.help.rstrip('.')} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
