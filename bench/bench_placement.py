"""Placement beside simpler ones: how even, and how much moves.

    python -m bench.bench_placement [--partitions 1024] [--small]

`probes`: each replica goes to the jump hash of "{r}:{p}"; if that node has left, has the partition or is full, to
the jump hash of "{r}:{p}:{attempt}", and so on. `rendezvous`: what `common.placement` does for slots whose home
has left, for all of them. `quotas`: what it does. All with several bounds on the replicas of a node, as slack over
the mean. 3 replicas, 19 nodes; counts of replicas, without samples.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from common import placement
from common.kernels.hashing import jump_hash

N_REPLICAS = 3
N_NODES = 19
MAX_ATTEMPTS = 10_000
SLACKS_PERCENT = (None, 5, 2, 1, 0)

Placed = NDArray[np.int32]
Place = Callable[[int, list[int], int, int], Placed]


def probes(n_partitions: int, members: list[int], n_ordinals: int, limit: int) -> Placed:
    """All slots at once, attempt by attempt; who comes first at a node that fills up is a matter of a hash."""
    placed = np.full((n_partitions, N_REPLICAS), -1, dtype=np.int32)
    room = np.zeros(n_ordinals, dtype=np.int64)
    room[members] = limit
    waiting = [(p, r) for p in range(n_partitions) for r in range(N_REPLICAS)]
    for attempt in range(MAX_ATTEMPTS):
        if not waiting:
            break
        suffix = b":%d" % attempt if attempt else b""
        keys = np.array(
            [xxhash.xxh3_64_intdigest(b"%d:%d%s" % (r, p, suffix)) for p, r in waiting], dtype=np.uint64
        )
        nodes = np.empty(len(keys), dtype=np.int32)
        jump_hash(keys, n_ordinals, nodes)
        for i in np.argsort(keys, kind="stable").tolist():
            (p, r), node = waiting[i], nodes[i]
            if room[node] > 0 and node not in placed[p]:
                placed[p, r] = node
                room[node] -= 1
        waiting = [(p, r) for p, r in waiting if placed[p, r] == -1]
    return placed


def rendezvous(n_partitions: int, members: list[int], n_ordinals: int, limit: int) -> Placed:
    placed = np.full((n_partitions, N_REPLICAS), -1, dtype=np.int32)
    placement._replace_left(placed, np.array(members, dtype=np.int32), n_ordinals, limit)
    return placed


def quotas(n_partitions: int, members: list[int], n_ordinals: int, limit: int) -> Placed:
    return placement._assign(n_partitions, N_REPLICAS, members, n_ordinals, limit)


class Figures(NamedTuple):
    """Spread in percent of the mean; replicas moved as multiples of the ideal."""

    spread_fresh: float
    joins: float
    leaves: float
    worst_single: float
    spread_ten_left: float
    ten_leave: float
    spread_all_replaced: float
    replacements: float
    unplaced: int


def figures(place: Place, n_partitions: int, slack_percent: int | None) -> Figures:
    total = n_partitions * N_REPLICAS
    unplaced = 0

    def placed_on(members: list[int], n_ordinals: int) -> Placed:
        nonlocal unplaced
        limit = total if slack_percent is None else -(-total * (100 + slack_percent) // (100 * len(members)))
        placed = place(n_partitions, members, n_ordinals, limit)
        unplaced += int((placed == -1).sum())
        return placed

    def without(node: int) -> list[int]:
        return [member for member in nodes if member != node]

    nodes = list(range(N_NODES))
    fresh = placed_on(nodes, N_NODES)
    singles = [_moved(fresh, placed_on(without(node), N_NODES)) / int((fresh == node).sum()) for node in nodes]
    joins = _moved(fresh, placed_on([*nodes, N_NODES], N_NODES + 1)) / (total / (N_NODES + 1))

    members, now, ratios = nodes, fresh, []
    for gone in random.Random(1).sample(nodes, 10):
        members, before = [member for member in members if member != gone], now
        now = placed_on(members, N_NODES)
        ratios.append(_moved(before, now) / int((before == gone).sum()))
    ten_left = _spread(now, members)

    members, now, moved, ideal = nodes, fresh, 0, 0.0
    for gone in nodes:
        for change in ([member for member in members if member != gone], [*members[1:], gone + N_NODES]):
            before = now
            now = placed_on(change, gone + N_NODES + (change[-1] == gone + N_NODES))
            moved += _moved(before, now)
            ideal += total / N_NODES
        members = change
    spread = _spread(fresh, nodes)
    mean = float(np.mean(ratios))
    worst = max(singles)
    return Figures(
        spread, joins, singles[-1], worst, ten_left, mean, _spread(now, members), moved / ideal, unplaced
    )


def _moved(before: Placed, after: Placed) -> int:
    return int(placement.arrivals(before, after).sum())


def _spread(placed: Placed, members: list[int]) -> float:
    loads = np.bincount(placed[placed >= 0], minlength=max(members) + 1)[members]
    return float(100 * loads.std() / loads.mean())


def bench(n_partitions: int) -> dict[tuple[str, int | None], Figures]:
    """Prints a row for each way and bound."""
    print(
        f"{n_partitions} partitions, {N_REPLICAS} replicas, {N_NODES} nodes; spread: standard deviation, % of mean"
    )
    names = (
        "spread",
        "19→20",
        "19→18",
        "worst of 19",
        "spread, 10 left",
        "10 leave",
        "spread, repl.",
        "all repl.",
    )
    print(f"{'':10} {'slack':>6} " + " ".join(f"{name:>16}" for name in names))
    found = {}
    for name, place in (("probes", probes), ("rendezvous", rendezvous), ("quotas", quotas)):
        for slack in SLACKS_PERCENT:
            row = found[name, slack] = figures(place, n_partitions, slack)
            label = "none" if slack is None else f"{slack} %"
            print(f"{name:10} {label:>6} " + " ".join(f"{value:16.2f}" for value in row[:-1]), flush=True)
    return found


def cpu_s() -> float:
    """How long the first placement of a large cluster takes."""
    start = time.process_time()
    placement.assign(65_536, 3, range(100), 100)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=1024)
    parser.add_argument("--small", action="store_true", help="128 partitions")
    options = parser.parse_args()
    bench(128 if options.small else options.partitions)
    print(f"65,536 partitions, 3 replicas, 100 nodes: {cpu_s():.2f} s of CPU")


if __name__ == "__main__":
    main()
