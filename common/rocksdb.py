"""What RocksDB tells of itself, as metrics: one database a label `db`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

Properties = Callable[[], dict[str, int]]
"""Values of a database's properties, by those names of `PROPERTIES` that it knows; empty if it is closed."""

PROPERTIES = {
    "rocksdb.total-sst-files-size": ("table_bytes", "Bytes of all table files"),
    "rocksdb.total-blob-file-size": ("blob_bytes", "Bytes of all blob files"),
    "rocksdb.live-blob-file-garbage-size": ("blob_garbage_bytes", "Bytes in blob files that nothing refers to"),
    "rocksdb.estimate-num-keys": ("keys", "Keys, estimated"),
    "rocksdb.cur-size-all-mem-tables": ("memtable_bytes", "Bytes of memtables that are not flushed"),
    "rocksdb.block-cache-usage": ("cache_bytes", "Bytes in the block cache"),
    "rocksdb.estimate-table-readers-mem": ("reader_bytes", "Bytes of indexes and filters of open table files"),
    "rocksdb.num-files-at-level0": ("level0_files", "Table files that no compaction has taken up yet"),
    "rocksdb.estimate-pending-compaction-bytes": ("pending_bytes", "Bytes that compactions have yet to rewrite"),
    "rocksdb.num-running-compactions": ("compactions", "Compactions that run now"),
    "rocksdb.num-running-flushes": ("flushes", "Flushes that run now"),
    "rocksdb.is-write-stopped": ("write_stopped", "Whether writes wait for compactions or flushes"),
    "rocksdb.background-errors": ("background_errors", "Errors of flushes and compactions since it was opened"),
}
"""Properties of RocksDB: name of the metric behind tabor_rocksdb_, and its help."""


def properties_of(db: Any) -> dict[str, int]:
    """Of an open rocksdict.Rdict."""
    found = {}
    try:
        for name in PROPERTIES:
            value = db.property_int_value(name)
            if value is not None:
                found[name] = int(value)
    except Exception:  # rocksdict raises bare Exception: it is closed, or being opened anew
        return {}
    return found


class RocksCollector:
    """A collector for prometheus-client. databases: by the value of the label `db`."""

    def __init__(self, databases: dict[str, Properties]) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Metric]:
        found = {db: properties() for db, properties in self._databases.items()}
        for name, (metric, text) in PROPERTIES.items():
            family = GaugeMetricFamily(f"tabor_rocksdb_{metric}", text, labels=["db"])
            for db, values in found.items():
                if name in values:
                    family.add_metric([db], values[name])
            yield family
