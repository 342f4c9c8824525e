"""What every server tells of itself: readiness, versions, clock, memory, disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from common.patience import LastAnswer
from common.version import VERSION

_CGROUP_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_limit_bytes() -> int:
    """What this process may use: its control group's limit or the machine's memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_FILES:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            return min(total, int(text))
    return total


class ServerCollector:
    """A collector for prometheus-client. tier: which command it is. data_dir: None without one."""

    def __init__(self, readiness: Callable[[], tuple[bool, Any]], tier: str, data_dir: Path | None) -> None:
        self._is_ready = LastAnswer(lambda: readiness()[0], keep_s=10.0)
        self._tier = tier
        self._data_dir = data_dir

    def describe(self) -> Iterator[Metric]:
        """Nothing: whoever registers it need not wait for the log."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "tabor_server", "Version and command of this process.", {"version": VERSION, "tier": self._tier}
        )
        gauges = [
            ("ready", "Whether /-/ready says so", int(self._is_ready() or False)),
            ("clock_seconds", "This machine's clock, Unix time; to be compared with the scraper's", time.time()),
            ("memory_limit_bytes", "Memory that the process may use", memory_limit_bytes()),
        ]
        if self._data_dir is not None:
            disk = os.statvfs(self._data_dir)
            gauges += [
                ("disk_free_bytes", "Free space of the data folder's file system", disk.f_bavail * disk.f_frsize),
                ("disk_size_bytes", "Size of the data folder's file system", disk.f_blocks * disk.f_frsize),
            ]
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"tabor_server_{name}", text, value=value)


def register(readiness: Callable[[], tuple[bool, Any]], tier: str, data_dir: Path | None = None) -> None:
    """Show what the process tells of itself on its /metrics."""
    prometheus_client.REGISTRY.register(ServerCollector(readiness, tier, data_dir))
