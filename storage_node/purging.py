"""Carrying deletions out on the disk: a window's segments and runs are written anew without what is deleted.

Only deletions that a checkpoint has saved are carried out. A crash takes the state back to a checkpoint; were the
samples of a later tombstone gone by then, its replay could no longer count them out of the digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from storage_node.attachments import Run
from storage_node.checkpoint import put_replaced
from storage_node.disk import Batch
from storage_node.errors import SegmentGone
from storage_node.merging import MergePlan, merge
from storage_node.partition import PartitionState
from storage_node.windows import Deletion, Segment


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What to write anew of a window: all that was there before the earliest of its saved deletions."""

    window: int
    segments: MergePlan
    runs: list[Run]
    done: set[Deletion]
    """Deletions that nothing else holds."""


def purge(state: PartitionState, lock: Lock) -> bool:
    """Carry out the deletions of one window, if there are any; returns whether there were.

    Raises:
        DiskError, ViewsDamaged: nothing has changed.
    """
    with lock:
        plan = _plan(state)
    if plan is None:
        return False
    try:
        batch, segment = Batch(), None
        if plan.segments.old:
            batch, segment = merge(plan.segments, state.segments, state.disk)
        run = None
        if plan.runs:
            run = state.attached.merge(plan.window, plan.runs, batch, plan.segments.deletions)
    except SegmentGone:
        # The window has expired meanwhile.
        return True
    with lock:
        _commit(state, plan, segment, run, batch)
    return True


def _plan(state: PartitionState) -> _Plan | None:
    for window, deletions in state.deletions.saved():
        known = state.windows.get(window)
        segments = [] if known is None else known.segments
        runs = state.attached.runs.get(window, [])
        # What is older than the first deletion is older than all, for `below` ascends.
        below = deletions[0].below
        numbers = [segment.number for segment in segments] + [run.number for run in runs]
        done = {one for one in deletions if not any(below <= number < one.below for number in numbers)}
        old = [segment for segment in segments if segment.number < below]
        merge_plan = MergePlan(state.partition, window, old, state.order_keys(), deletions)
        return _Plan(window, merge_plan, [run for run in runs if run.number < below], done)
    return None


def _commit(state: PartitionState, plan: _Plan, segment: Segment | None, run: Run | None, batch: Batch) -> None:
    """Write the batch, unless the window has expired. Like a merge it says nothing of the digest or the offset."""
    window, old = state.windows.get(plan.window), plan.segments.old
    if not set(old) <= set([] if window is None else window.segments):
        return
    if not state.attached.put_replaced(plan.window, plan.runs, batch):
        return
    if plan.window not in state.deletions:
        return
    segments = put_replaced(state, plan.window, old, segment, batch) if old else None
    state.deletions.put_carried_out(batch, plan.window, plan.done)
    state.disk.write(batch)
    if window is not None and segments is not None:
        window.segments = segments
    state.attached.replaced(plan.window, plan.runs, run)
    state.deletions.carried_out(plan.window, plan.done)
