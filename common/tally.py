"""What the reads of one query cost besides series and samples, counted by those who read.

The tally belongs to a context (`contextvars`), as the terms of a read do; a read outside of any query counts into
one that nobody looks at.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """partitions: how many are read. nodes: names of the storage nodes that were asked.

    node_reads: requests to them, hedges among these. received_bytes: of their answers, as sent.
    block_bytes: of chunks that this process itself read, compressed, from its disk or cache.
    """

    partitions: int = 0
    nodes: set[str] = field(default_factory=set)
    node_reads: int = 0
    hedges: int = 0
    received_bytes: int = 0
    block_bytes: int = 0


_current: ContextVar[Tally | None] = ContextVar("tabor_tally", default=None)


def begin() -> Tally:
    """A new tally, into which what is read in this context counts from now on."""
    tally = Tally()
    _current.set(tally)
    return tally


def current() -> Tally:
    """The tally of this context."""
    return _current.get() or Tally()
