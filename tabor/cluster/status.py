"""`tabor cluster status`: nodes, partitions, replicas, and what is missing."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from shlex import quote

from common.control.members import Member
from common.errors import LogUnavailable
from tabor.cluster.reading import Reading, reading
from tabor.cluster.states import ClusterStatus, NodeStatus, PartitionStatus, ReplicaStatus
from tabor.progress import Bar

WATCH_S = 1.0


def run_status(url: str, *, as_json: bool, watch: bool, wait_s: float = 0.0) -> bool:
    """Print how the cluster is, once it is whole or `wait_s` seconds are over; says whether it is whole.

    Whole is a cluster of which every partition has all its replicas.
    """
    with reading(url) as cluster:
        if wait_s:
            _wait_whole(cluster, time.monotonic() + wait_s)
        while True:
            status = status_of(cluster)
            if as_json:
                print(json.dumps(asdict(status)), flush=True)
            else:
                # Home, and clear what was there.
                print(("\x1b[H\x1b[2J" if watch else "") + text_of(status), flush=True)
            if not watch:
                return not status.under_replicated
            time.sleep(WATCH_S)


def _wait_whole(cluster: Reading, deadline_s: float) -> None:
    with Bar("waiting for replicas") as bar:
        while (lacking := status_of(cluster)).under_replicated and time.monotonic() < deadline_s:
            whole = lacking.partitions - len(lacking.under_replicated)
            bar.update(whole, lacking.partitions, f"{whole} of {lacking.partitions} partitions have all")
            time.sleep(WATCH_S)


def status_of(cluster: Reading) -> ClusterStatus:
    """How a cluster is just now."""
    layout, seen, live, targets = cluster.layout(), cluster.cluster(), cluster.live(), cluster.targets()
    ends = _ends(cluster, layout.partitions)
    partitions = []
    for p in range(layout.partitions):
        on = [name for name, member in live.items() if member.has(p)]
        coming = [name for name, member in live.items() if p in member.applied and not member.has(p)]
        missing = [name for name in targets[p] if name not in on]
        replicas = [_replica(p, name, live.get(name), ends[p]) for name in dict.fromkeys((*on, *coming, *missing))]
        lag = _lag_of(p, on, live, ends[p])
        partitions.append(PartitionStatus(p, replicas, on, coming, missing, ends[p], lag))
    ordinals = {seat.node: seat for seat in seen.seats.values()}
    nodes = []
    for name in sorted({*seen.members, *ordinals}, key=lambda n: (n not in ordinals, n)):
        seat, member = ordinals.get(name), seen.members.get(name)
        nodes.append(
            NodeStatus(
                ordinal=None if seat is None else seat.ordinal,
                name=name,
                presence="no seat" if seat is None else seat.presence.value,
                address="" if member is None else member.address,
                state=_state(name, member, live),
                heard_s=0.0 if member is None else round(cluster.membership.age_s(member), 1),
                partitions=0 if member is None else len(member.applied),
                copying=0 if member is None else len(member.lagging),
                lag=_lag(member, ends),
            )
        )
    return ClusterStatus(
        layout.partitions,
        layout.replicas,
        layout.format,
        sorted(nodes, key=lambda node: (node.ordinal is None, node.ordinal or 0)),
        partitions,
        under_replicated=[one.partition for one in partitions if len(one.on) < layout.replicas],
        unavailable=[one.partition for one in partitions if not one.on],
    )


def text_of(status: ClusterStatus) -> str:
    """For people."""
    lines = [f"{status.partitions} partitions, {status.replicas} replicas of each, format {status.format}", ""]
    lines.append(
        f"{'node':<16} {'ordinal':>7}  {'address':<24} {'state':<22} {'partitions':>10} {'lag':>8}  heard"
    )
    for node in status.nodes:
        state = node.state if node.presence == "in" else f"{node.state}, {node.presence}"
        ordinal = "-" if node.ordinal is None else str(node.ordinal)
        held = f"{node.partitions}" + (f" ({node.copying} behind)" if node.copying else "")
        lag = "?" if node.lag is None else str(node.lag)
        about = f"{node.name:<16} {ordinal:>7}  {node.address:<24} {state:<22} {held:>10} {lag:>8}"
        lines.append(f"{about}  {node.heard_s:.0f} s ago")
    lines += ["", f"{'partition':>9}  {'on':<32} {'lag':>8}  missing on"]
    for one in status.partition_states:
        lag = "?" if one.lag is None else str(one.lag)
        coming = [f"{name} (comes)" if name in one.coming else name for name in one.missing]
        lines.append(f"{one.partition:>9}  {', '.join(one.on) or '-':<32} {lag:>8}  {', '.join(coming)}".rstrip())
    lines.append("")
    if status.unavailable:
        lines.append(f"NOT AVAILABLE: partitions {_some(status.unavailable)} have no live replica; queries fail")
    if status.under_replicated:
        lines.append(f"under-replicated: partitions {_some(status.under_replicated)}")
        seated = sum(node.presence == "in" for node in status.nodes)
        lines += [
            f"{node.name!r} is {node.state} and keeps its seat: "
            f"start it, or `tabor cluster drain {quote(node.name)}`"
            for node in status.nodes
            if node.presence == "in" and node.state in ("silent", "stopped", "never heard")
        ]
        if seated < status.replicas:
            lines.append(
                f"{status.replicas} replicas need as many storage nodes; {seated} have joined, start more"
            )
    else:
        lines.append("every partition has all its replicas")
    return "\n".join(lines)


def _some(partitions: list[int]) -> str:
    return ", ".join(map(str, partitions[:20])) + (f" and {len(partitions) - 20} more" if partitions[20:] else "")


def _state(name: str, member: Member | None, live: dict[str, Member]) -> str:
    if member is None:
        return "never heard"
    if name not in live:
        return "stopped" if member.stopped else "silent"
    return "ready" if member.ready else "catching up"


def _ends(cluster: Reading, n_partitions: int) -> list[int | None]:
    """High watermarks; None where the log does not answer."""
    try:
        return list(cluster.log.high_watermarks())
    except LogUnavailable:
        return [None] * n_partitions


def _replica(partition: int, name: str, member: Member | None, end: int | None) -> ReplicaStatus:
    if member is None or partition not in member.applied:
        return ReplicaStatus(name, "missing", None, None)
    offset = member.applied[partition]
    state = "whole" if member.has(partition) else "coming"
    return ReplicaStatus(name, state, offset, None if end is None else max(0, end - offset))


def _lag_of(partition: int, on: list[str], live: dict[str, Member], end: int | None) -> int | None:
    if end is None or not on:
        return None
    return max(0, end - max(live[name].applied[partition] for name in on))


def _lag(member: Member | None, ends: list[int | None]) -> int | None:
    if member is None or None in ends:
        return None
    return sum(max(0, (ends[p] or 0) - offset) for p, offset in member.applied.items() if p < len(ends))
