"""`tabor placement simulate`: how samples would spread over nodes, and what moves when nodes come and go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from common.errors import CallerError
from common.hashing import partitions_of
from common.placement import arrivals, assign, capacity

_BAR_WIDTH = 50


class Cluster(NamedTuple):
    """Who belongs to it, and which nodes hold what."""

    members: tuple[int, ...]
    n_ordinals: int
    placed: NDArray[np.int32]  # (n_partitions, n_replicas)

    def joined(self) -> Cluster:
        """With one node more."""
        return _cluster((*self.members, self.n_ordinals), self.n_ordinals + 1, self.placed.shape)

    def left(self, ordinal: int) -> Cluster:
        """Without one of the members."""
        members = tuple(member for member in self.members if member != ordinal)
        return _cluster(members, self.n_ordinals, self.placed.shape)


class Step(NamedTuple):
    """What one change moves, in replicated samples; `ideal` is the least that a fair placement has to move."""

    change: str
    moved: int
    ideal: float
    bound: float


def fresh_cluster(n_partitions: int, n_replicas: int, n_nodes: int) -> Cluster:
    """Nodes 0 to n_nodes - 1, none of which has left."""
    return _cluster(tuple(range(n_nodes)), n_nodes, (n_partitions, n_replicas))


def samples_of_partitions(n_samples: int, n_partitions: int) -> NDArray[np.int64]:
    """How many of so many series, with a sample each, every partition has: int64 (n_partitions,)."""
    ids = b"".join(xxhash.xxh3_128_digest(b"sample %d" % i) for i in range(n_samples))
    partitions = partitions_of(np.frombuffer(ids, dtype=np.uint8).reshape(n_samples, 16), n_partitions)
    return np.bincount(partitions, minlength=n_partitions)


def samples_of_members(cluster: Cluster, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Replicated samples on each member, in the order of the members; samples: of each partition."""
    weights = np.broadcast_to(samples[:, None], cluster.placed.shape)
    there = cluster.placed >= 0
    sums = np.bincount(cluster.placed[there], weights=weights[there], minlength=cluster.n_ordinals)
    return sums.astype(np.int64)[list(cluster.members)]


def samples_by_n_nodes(cluster: Cluster, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many samples are on 0, 1, 2 … distinct nodes: int64 (n_replicas + 1,)."""
    ordered = np.sort(cluster.placed, axis=1)
    distinct = (ordered[:, :1] >= 0).astype(np.int64)[:, 0]
    distinct += ((ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(axis=1)
    counts = np.bincount(distinct, weights=samples, minlength=cluster.placed.shape[1] + 1)
    return counts.astype(np.int64)


def samples_moved(before: Cluster, after: Cluster, samples: NDArray[np.int64]) -> int:
    """Replicated samples on a node that did not have them before."""
    return int((arrivals(before.placed, after.placed) * samples[:, None]).sum())


def step_of(change: str, before: Cluster, after: Cluster, samples: NDArray[np.int64]) -> Step:
    """One node more or less. Ideal: the new node's fair share, or all that the leaving node held.

    The bound is (1 + 1/replicas) / members afterwards of all replicated samples.
    """
    n_replicas = after.placed.shape[1]
    total = int(samples.sum()) * n_replicas
    gone = [i for i, member in enumerate(before.members) if member not in after.members]
    ideal = float(samples_of_members(before, samples)[gone].sum()) if gone else total / len(after.members)
    bound = total * (1 + 1 / n_replicas) / len(after.members)
    return Step(change, samples_moved(before, after, samples), ideal, bound)


def distribution_lines(cluster: Cluster, samples: NDArray[np.int64]) -> Iterator[str]:
    """A bar for each node, and what statistics say; then on how many nodes the samples are."""
    n_samples, n_replicas = int(samples.sum()), cluster.placed.shape[1]
    held = samples_of_members(cluster, samples)
    yield (
        f"Samples on each node: {n_samples:,} samples, {_counted(n_replicas, 'replica')}, "
        f"{_counted(len(samples), 'partition')}, {_counted(len(held), 'node')}"
    )
    most = max(1, int(held.max()))
    for ordinal, count in zip(cluster.members, held.tolist(), strict=True):
        yield f"  {ordinal:>4} {count:>11,} {'█' * round(_BAR_WIDTH * count / most)}"
    yield (
        f"  min {held.min():,}  max {held.max():,}  mean {held.mean():,.1f}  median {np.median(held):,.1f}  "
        f"standard deviation {held.std():,.1f} ({100 * held.std() / held.mean():.2f} % of the mean)"
    )
    slots = np.bincount(cluster.placed[cluster.placed >= 0], minlength=cluster.n_ordinals)[list(cluster.members)]
    allowed = capacity(len(samples), n_replicas, len(held))
    yield f"  partitions a node: {slots.min():,} to {slots.max():,}; at most {allowed:,} are allowed"
    yield "Samples by the number of nodes that have them:"
    for n_nodes, count in enumerate(samples_by_n_nodes(cluster, samples).tolist()):
        yield f"  {n_nodes:>4} {count:>11,} {100 * count / n_samples:6.2f} %"


def displacement_lines(steps: Sequence[Step]) -> Iterator[str]:
    """A table: what each change moves, beside the ideal and the bound."""
    yield "Displacement, in replicated samples:"
    yield f"  {'change':<24} {'moved':>11} {'ideal':>11} {'moved/ideal':>11} {'bound':>11}"
    for step in steps:
        ratio = f"{step.moved / step.ideal:.3f}" if step.ideal else "–"
        yield f"  {step.change:<24} {step.moved:>11,} {step.ideal:>11,.0f} {ratio:>11} {step.bound:>11,.0f}"


def run_simulate(
    nodes: int, replicas: int, partitions: int, samples: int, add: int, remove: Sequence[int]
) -> None:
    """Print the distribution, then what the removals, in their order, and after them the additions move.

    Raises:
        CallerError: there are more replicas than nodes, or a node to remove that is not there.
    """
    if replicas > nodes:
        raise CallerError(f"--replicas {replicas} needs at least {replicas} nodes, and --nodes is {nodes}")
    for i, ordinal in enumerate(remove):
        if ordinal >= nodes:
            raise CallerError(f"--remove {ordinal}: there is no such node; --nodes {nodes} are 0 to {nodes - 1}")
        if ordinal in remove[:i]:
            raise CallerError(f"--remove {ordinal} is given twice; a node leaves once")
    if nodes - len(remove) < replicas:
        left = nodes - len(remove)
        raise CallerError(f"--remove leaves {_counted(left, 'node')}, too few for --replicas {replicas}")
    counts = samples_of_partitions(samples, partitions)
    cluster = fresh_cluster(partitions, replicas, nodes)
    _print(distribution_lines(cluster, counts))
    steps = []
    for ordinal in remove:
        before, cluster = cluster, cluster.left(ordinal)
        steps.append(step_of(f"node {ordinal} leaves", before, cluster, counts))
    for _ in range(add):
        before, cluster = cluster, cluster.joined()
        steps.append(step_of(f"node {before.n_ordinals} joins", before, cluster, counts))
    if steps:
        print()
        _print(displacement_lines(steps))
        print()
        _print(distribution_lines(cluster, counts))


def _cluster(members: tuple[int, ...], n_ordinals: int, shape: tuple[int, ...]) -> Cluster:
    return Cluster(members, n_ordinals, assign(shape[0], shape[1], members, n_ordinals))


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)
