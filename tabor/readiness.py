"""Is the node caught up? For /-/ready, for the bar on the terminal, and for whoever asks too early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import prometheus_client

from common.errors import LogUnavailable, RetryableError
from tabor.progress import Bar

if TYPE_CHECKING:
    from storage_node.service import StorageNode

_ASK_EVERY_S = 0.02
_UNKNOWN = dict.fromkeys(("next_offset", "high_watermark", "samples_per_s", "seconds_left", "partitions"))


class NodeState:
    """What the wiring knows of its node: not started, replaying, ready.

    log_failure: why the log takes no records just now, or None.
    """

    def __init__(self, node: StorageNode, log_failure: Callable[[], str | None] = lambda: None) -> None:
        self._node = node
        self._log_failure = log_failure
        self.started = False

    def node_has_started(self) -> None:
        """The views are open: reads are let in, and the node's figures are on /metrics."""
        from storage_node.metrics import register

        register(self._node, prometheus_client.REGISTRY)
        self.started = True

    async def require_started(self) -> None:
        """For routes that read the views. A coroutine only because the framework would run it in a thread else.

        Raises:
            RetryableError: they are not open yet.
        """
        if not self.started:
            raise RetryableError("the views are being opened")

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether reads and writes are served, else why not and how far the replay is."""
        if not self.started:
            return False, {"reason": "opening the views", **_UNKNOWN}
        try:
            progress = self._node.progress()
        except LogUnavailable as error:
            return False, {"reason": str(error), **_UNKNOWN}
        unhealthy = self._node.healthy() or self._log_failure()
        details = {
            "reason": unhealthy or "replaying the log",
            "next_offset": sum(p.next_offset for p in progress.partitions),
            "high_watermark": sum(p.high_watermark for p in progress.partitions),
            "samples_per_s": round(progress.samples_per_s),
            "seconds_left": None if progress.seconds_left is None else round(progress.seconds_left, 1),
            "partitions": [asdict(p) for p in progress.partitions],
        }
        return progress.ready and unhealthy is None, details

    async def until_ready(self, stop: asyncio.Event) -> bool:
        """Wait until the node has replayed the log; False if a stop came first."""
        first: int | None = None
        with Bar("replaying the log") as bar:
            while not stop.is_set():
                ready, details = await asyncio.to_thread(self.readiness)
                if ready:
                    return True
                if details["next_offset"] is not None:
                    first = details["next_offset"] if first is None else first
                    left = details["seconds_left"]
                    bar.update(
                        details["next_offset"] - first,
                        max(details["high_watermark"] - first, 1),
                        f"{details['samples_per_s']:,} samples/s"
                        + ("" if left is None else f", {left:.0f} s left")
                        + ("" if details["reason"] == "replaying the log" else f", {details['reason']}"),
                    )
                await asyncio.sleep(_ASK_EVERY_S)
        return False
