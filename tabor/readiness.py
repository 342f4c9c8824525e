"""Is the node caught up? For /-/ready, and for the bar on the terminal."""

from __future__ import annotations

import asyncio
from typing import Any

from storage_node.service import StorageNode
from tabor.progress import Bar

_ASK_EVERY_S = 0.02


def readiness(node: StorageNode) -> tuple[bool, dict[str, Any]]:
    """Whether the node is ready, and how far it is."""
    progress = node.progress()
    reason = node.healthy()
    return progress.ready and reason is None, {"reason": reason or "replaying the log", **progress.as_dict()}


async def until_caught_up(node: StorageNode, stop: asyncio.Event) -> bool:
    """Wait until the node has replayed the log; False if a stop came first."""
    with Bar("replaying the log") as bar:
        while not stop.is_set():
            progress = node.progress()
            if progress.ready:
                return True
            bar.update(progress.done, progress.total, progress.note)
            await asyncio.sleep(_ASK_EVERY_S)
    return False
