"""Which node is asked for which partitions, and what is done when one is slow or fails. No I/O, no clock.

    start() ──► attempts ──► answered() ─► kept, unless another answer was first with one of its partitions
                         ├─► failed()   ─► attempts at the next nodes for what is missing
                         └─► hedged()   ─► attempts at other nodes beside the one under way

Every partition is in exactly one of the answers that are kept, so nothing is counted twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """A node that is asked for some partitions, ascending. alone: no other node is left to ask for one of them."""

    number: int
    node: str
    partitions: tuple[int, ...]
    alone: bool


class Gathering:
    """One read of many partitions.

    candidates: for each partition the nodes that can be asked, best first.
    """

    def __init__(self, candidates: Mapping[int, Sequence[str]]) -> None:
        self._candidates = candidates
        self._untried = {partition: list(nodes) for partition, nodes in candidates.items()}
        self._under_way: dict[int, Attempt] = {}
        self._kept: set[int] = set()
        self._n_attempts = 0

    def start(self) -> list[Attempt]:
        """The first attempts."""
        return self._ask_for(self._candidates)

    def again(self) -> list[Attempt]:
        """Ask everybody anew for what is missing and nobody works on."""
        stuck = self.stuck()
        for partition in stuck:
            self._untried[partition] = list(self._candidates[partition])
        return self._ask_for(stuck)

    def answered(self, attempt: Attempt) -> bool:
        """An attempt has come to its end; whether its answer is to be kept."""
        del self._under_way[attempt.number]
        if self._kept.intersection(attempt.partitions):
            return False
        needed = [other for other in self._under_way.values() if self.is_needed(other)]
        self._kept.update(attempt.partitions)
        for other in needed:
            if not self.is_needed(other):
                # Its answer cannot be taken apart, but its node may still be the only one that has the rest.
                for partition in other.partitions:
                    self._untried[partition].append(other.node)
        return True

    def failed(self, attempt: Attempt) -> list[Attempt]:
        """An attempt has failed; what to ask instead."""
        del self._under_way[attempt.number]
        return self.stuck_asked_elsewhere()

    def stuck_asked_elsewhere(self) -> list[Attempt]:
        """What to ask for partitions that nobody works on."""
        return self._ask_for(self.stuck())

    def hedged(self, attempt: Attempt) -> list[Attempt]:
        """An attempt takes long; what to ask beside it: nothing, unless each partition has another node."""
        wanted = [partition for partition in attempt.partitions if partition not in self._kept]
        if not all(self._untried[partition] for partition in wanted):
            return []
        return self._ask_for(wanted)

    def is_needed(self, attempt: Attempt) -> bool:
        """Whether the answer of an attempt would still be kept."""
        return not self._kept.intersection(attempt.partitions)

    @property
    def done(self) -> bool:
        return len(self._kept) == len(self._candidates)

    def stuck(self) -> list[int]:
        """Partitions that are missing and that no attempt under way can still bring."""
        coming = set(self._kept)
        for attempt in self._under_way.values():
            if self.is_needed(attempt):
                coming.update(attempt.partitions)
        return [partition for partition in self._candidates if partition not in coming]

    def _ask_for(self, partitions: Mapping[int, object] | Sequence[int]) -> list[Attempt]:
        of_node: defaultdict[str, list[int]] = defaultdict(list)
        for partition in partitions:
            if self._untried[partition]:
                of_node[self._untried[partition].pop(0)].append(partition)
        found = []
        for node, asked in of_node.items():
            alone = not all(self._untried[partition] for partition in asked)
            self._n_attempts += 1
            attempt = Attempt(self._n_attempts, node, tuple(sorted(asked)), alone)
            self._under_way[attempt.number] = attempt
            found.append(attempt)
        return found
