"""How long each stage of a query took: a clock that is read between two stages."""

from __future__ import annotations

import time

STAGES = ("wait", "catch_up", "parse", "plan", "nodes", "select", "compute", "encode")
"""wait: for its turn. catch_up: for what was acknowledged before. nodes: for what storage nodes evaluate.
select: reading samples, wherever they lie. compute: the engine's own work, sorting included. encode: the answer.
"""


class Stages:
    """Seconds by stage, on one thread at a time. started_s: on the monotonic clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started_s = self._last_s = time.monotonic()

    def end(self, stage: str) -> None:
        """The stage ends now; it began when the one before it ended."""
        now_s = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def total_s(self) -> float:
        """Up to the end of the last stage."""
        return self._last_s - self.started_s
