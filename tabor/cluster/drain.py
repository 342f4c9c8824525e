"""`tabor cluster drain`: a node gives its partitions away before it is taken out."""

from __future__ import annotations

import time
from dataclasses import replace

from common.control.events import NODE_PREFIX, Presence, Seat, seat_key
from common.errors import StartupError
from tabor.cluster.reading import Reading, reading
from tabor.progress import Bar, say

LOOK_S = 0.2


def run_drain(url: str, node: str, *, undo: bool, force: bool, wait_s: float | None) -> bool:
    """Drain a node, and wait until it holds nothing; False if the time is over before."""
    with reading(url, writes_control=True) as cluster:
        seat = _seat(cluster, node)
        if undo:
            cluster.put(replace(seat, presence=Presence.IN))
            say(f"{node} is given partitions again")
            return True
        _check_room(cluster, seat, force=force)
        cluster.put(replace(seat, presence=Presence.DRAINING))
        deadline = None if wait_s is None else time.monotonic() + wait_s
        with Bar(f"draining {node}") as bar:
            while left := _left(cluster, node):
                done = cluster.layout().partitions - len(left)
                bar.update(done, cluster.layout().partitions, f"{len(left)} partitions left")
                if deadline is not None and time.monotonic() > deadline:
                    say(f"{node} still has {len(left)} partitions; it goes on to give them away")
                    return False
                time.sleep(LOOK_S)
        if node in cluster.live():
            say(f"{node} holds nothing that another node lacks; stop it, and it leaves the cluster")
        else:
            # It cannot say goodbye itself.
            cluster.send(seat_key(seat.ordinal), None)
            cluster.send(NODE_PREFIX + node, None)
            say(f"{node} was not running, and belongs to the cluster no more")
        return True


def _seat(cluster: Reading, node: str) -> Seat:
    seat = cluster.membership.read(lambda members: members.seat_of(node))
    if seat is None:
        names = ", ".join(sorted(seat.node for seat in cluster.cluster().seats.values())) or "none"
        raise StartupError(f"there is no node {node!r} in this cluster; its nodes are: {names}")
    return seat


def _check_room(cluster: Reading, seat: Seat, *, force: bool) -> None:
    others = [
        one for one in cluster.cluster().seats.values() if one.presence is Presence.IN and one.node != seat.node
    ]
    replicas = cluster.layout().replicas
    if len(others) < replicas and not force:
        raise StartupError(
            f"without {seat.node} too few nodes are left, {len(others)} for {replicas} replicas of each partition;"
            " add a node first, or use --force"
        )


def _left(cluster: Reading, node: str) -> list[int]:
    """Partitions that the node still has to give away."""
    live, targets = cluster.live(), cluster.targets()
    member = live.get(node)
    if member is not None:
        return sorted(member.applied)
    return [p for p, names in targets.items() if not all(n in live and live[n].has(p) for n in names)]
