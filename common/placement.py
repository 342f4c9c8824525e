"""Which nodes hold a partition: jump hash by quota, then rendezvous for what left nodes leave behind.

A node has an ordinal: 0, 1, 2 …, the lowest that is free when it joins. A *member* is a node that has joined and
not left; whether it answers just now is no matter of placement. The replica r of partition p is
the *slot* "{r}:{p}". Who holds it comes of two steps:

1. **Home.** All ordinals join one after the other. A slot moves to newcomers at the jumps of its jump
   hash (Lamping and Veach, arXiv:1406.2294), except that a newcomer takes exactly so many slots from each holder
   that all loads are equal to within one: of each holder those whose jump is due first, and never two slots of
   one partition.
2. **Replacement.** A slot whose home has left asks the members in its rendezvous order. A member declines if it
   has the partition already or is full: `capacity`, 1 % above the mean (bounded loads, arXiv:1608.01350).

Nothing else enters, so every process that knows the same members comes to the same placement. Why nodes are
distinct, loads bounded and moves few is argued in docs/decisions/0041-placement.md; in short:

- While nobody has left, a node that joins takes its fair share, rounded down, and nothing else moves.
- A node that joins or leaves has its own share moved. Members exchange replicas among each other only in
  partitions that are, before or after, elsewhere than they would be without the bound.
- No member holds more than `capacity` replicas.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

MAX_ORDINALS = 65_535
_SLACK_PERCENT = 1
_BLOCK_ENTRIES = 1 << 20

_JUMP_MULTIPLIER = np.uint64(2862933555777941757)
_ONE = np.uint64(1)
_LOW_16 = np.uint64(0xFFFF)
_NOBODY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def assign(n_partitions: int, n_replicas: int, members: Iterable[int], n_ordinals: int) -> NDArray[np.int32]:
    """The ordinals of the nodes that hold each partition, first choice first.

    members: ordinals of the nodes that have joined and not left, in any order. n_ordinals: one more than the
    highest ordinal that was given, be it a member's or not. Returns int32 (n_partitions, n_replicas); a row's
    ordinals are distinct. With fewer members than replicas every member holds every partition, and the last
    columns are -1.
    """
    wanted = sorted(members)
    limit = capacity(n_partitions, n_replicas, len(wanted)) if wanted else 0
    return _assign(n_partitions, n_replicas, wanted, n_ordinals, limit)


def capacity(n_partitions: int, n_replicas: int, n_members: int) -> int:
    """The most replicas that one member may hold: the mean and 1 %, rounded up."""
    assert n_members >= 1
    total = n_partitions * min(n_replicas, n_members)
    return -(-total * (100 + _SLACK_PERCENT) // (100 * n_members))


def arrivals(before: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which replicas of `after` lie on nodes that did not hold the partition before; the order does not matter.

    Both int32 (n_partitions, n_replicas), as `assign` returns them; bool of that shape.
    """
    came: NDArray[np.bool_] = (after >= 0) & (after[:, :, None] != before[:, None, :]).all(axis=2)
    return came


def _assign(
    n_partitions: int, n_replicas: int, members: list[int], n_ordinals: int, limit: int
) -> NDArray[np.int32]:
    """`assign` with any bound on the load of a member; `limit` is at least the mean."""
    assert n_partitions >= 1
    assert n_replicas >= 1
    assert 0 <= n_ordinals <= MAX_ORDINALS
    assert len(set(members)) == len(members)
    assert all(0 <= ordinal < n_ordinals for ordinal in members)
    if len(members) <= n_replicas:
        return _everywhere(n_partitions, n_replicas, members)
    placed = _homes(n_partitions, n_replicas, n_ordinals).copy()
    if len(members) < n_ordinals:
        _replace_left(placed, np.array(members, dtype=np.int32), n_ordinals, limit)
    return placed


def _everywhere(n_partitions: int, n_replicas: int, members: list[int]) -> NDArray[np.int32]:
    """No more members than replicas: all hold everything, each partition in another order."""
    placed = np.full((n_partitions, n_replicas), -1, dtype=np.int32)
    n = len(members)
    if n:
        turn = (np.arange(n)[None, :] + np.arange(n_partitions)[:, None]) % n
        placed[:, :n] = np.array(members, dtype=np.int32)[turn]
    return placed


# Step 1: homes.


@lru_cache(maxsize=8)
def _homes(n_partitions: int, n_replicas: int, n_ordinals: int) -> NDArray[np.int32]:
    """The homes of all slots once all ordinals have joined and nobody has left; more ordinals than replicas.

    Loads differ by at most one. Not to be written to.
    """
    homes = _everywhere(n_partitions, n_replicas, list(range(n_replicas))).ravel()
    loads = np.zeros(n_ordinals, dtype=np.int64)
    loads[:n_replicas] = n_partitions
    keys, due = _next_jump(_slot_keys(n_partitions, n_replicas), n_replicas - 1)
    for newcomer in range(n_replicas, n_ordinals):
        quotas = _quotas(loads[:newcomer])
        taken = _due_first(due, homes, quotas, n_partitions)
        homes[taken] = newcomer
        loads[:newcomer] -= quotas
        loads[newcomer] = len(taken)
        keys[taken], due[taken] = _next_jump(keys[taken], newcomer)
    by_partition = homes.reshape(n_partitions, n_replicas)
    by_partition.flags.writeable = False
    return by_partition


@lru_cache(maxsize=4)
def _slot_keys(n_partitions: int, n_replicas: int) -> NDArray[np.uint64]:
    """xxh3-64 of "{r}:{p}" for every slot, partition by partition. Not to be written to."""
    digests = [
        xxhash.xxh3_64_intdigest(b"%d:%d" % (replica, partition))
        for partition in range(n_partitions)
        for replica in range(n_replicas)
    ]
    keys = np.array(digests, dtype=np.uint64)
    keys.flags.writeable = False
    return keys


def _next_jump(keys: NDArray[np.uint64], bucket: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """One turn of the jump hash's loop (arXiv:1406.2294, figure 1): new keys, and where slots in `bucket` jump to.

    A slot that jumps to t is due when the ordinal ⌊t⌋ joins. t is kept whole, so that it can say who is due first.
    """
    keys = keys * _JUMP_MULTIPLIER + _ONE
    return keys, (bucket + 1) * (2147483648.0 / ((keys >> np.uint64(33)) + _ONE).astype(np.float64))


def _quotas(loads: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many slots each holder gives to a newcomer, so that all, the newcomer too, are equal to within one.

    loads: differ by at most one, and older ordinals never have less. So it stays: the newcomer gets the mean,
    rounded down, and what is left over stays with the oldest.
    """
    fair, left_over = divmod(int(loads.sum()), len(loads) + 1)
    quotas = loads - fair
    quotas[:left_over] -= 1
    return quotas


def _due_first(
    due: NDArray[np.float64], homes: NDArray[np.int32], quotas: NDArray[np.int64], n_partitions: int
) -> NDArray[np.int64]:
    """The slots that a newcomer takes: through all slots, earliest due first, each if its holder's quota is not
    used up and no other slot of its partition was taken.

    The quotas always fill: a holder whose quota is open at the end would have all its remaining partitions, more
    than the newcomer's share, among the fewer that the newcomer has.
    """
    newcomer = len(quotas)
    n_replicas = len(due) // n_partitions
    n_wanted = int(quotas.sum())
    window = 1
    while True:
        # The first part of the walk suffices, so long as it fills the quotas.
        slots = np.flatnonzero(due < newcomer + 1 + window)
        slots = slots[np.argsort(due[slots], kind="stable")]
        taken = _matched(slots // n_replicas, homes[slots], quotas, n_partitions)
        if len(taken) == n_wanted:
            return slots[taken]
        window *= 4


def _matched(
    partitions: NDArray[np.int64], holders: NDArray[np.int32], quotas: NDArray[np.int64], n_partitions: int
) -> NDArray[np.int64]:
    """The walk of `_due_first` over slots in order, all at once; returns positions.

    Partitions offer their first slot that was not turned down, holders turn down what exceeds their quota. Since
    both sides go by the same order, the end is that of the walk.
    """
    open_ = np.arange(len(partitions))
    while True:
        first = np.full(n_partitions, len(open_))
        np.minimum.at(first, partitions[open_], np.arange(len(open_)))
        offered: NDArray[np.int64] = open_[np.sort(first[first < len(open_)])]
        kept = _rank_within(holders[offered]) < quotas[holders[offered]]
        if kept.all():
            return offered
        turned_down = np.zeros(len(partitions), dtype=np.bool_)
        turned_down[offered[~kept]] = True
        open_ = open_[~turned_down[open_]]


def _rank_within(groups: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many of the same group come before each; groups: int32 (n,), each in [0, MAX_ORDINALS)."""
    # Sixteen bits are sorted by radix.
    order = np.argsort(groups.astype(np.uint16), kind="stable")
    ordered = groups[order]
    positions = np.arange(len(groups))
    starts = np.ones(len(groups), dtype=np.bool_)
    starts[1:] = ordered[1:] != ordered[:-1]
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = positions - np.maximum.accumulate(np.where(starts, positions, 0))
    return ranks


# Step 2: replacements.


def _replace_left(placed: NDArray[np.int32], members: NDArray[np.int32], n_ordinals: int, limit: int) -> None:
    """Put members where a home has left; more members than replicas."""
    is_member = np.zeros(n_ordinals, dtype=np.bool_)
    is_member[members] = True
    placed[~is_member[placed]] = -1
    room = np.full(n_ordinals, limit) - np.bincount(placed[placed >= 0], minlength=n_ordinals)
    all_keys = _slot_keys(*placed.shape).reshape(placed.shape)
    # Replica by replica, so that two slots of a partition never ask the same node at the same time.
    for replica in range(placed.shape[1]):
        vacant = np.flatnonzero(placed[:, replica] == -1)
        keys = all_keys[vacant, replica]
        asked = np.zeros(len(vacant), dtype=np.uint64)
        for _ in range(len(members)):
            if not len(vacant):
                break
            asked = _next_asked(keys, asked, members)
            nodes = (asked & _LOW_16).astype(np.int32) - 1
            fit = np.flatnonzero((placed[vacant] != nodes[:, None]).all(axis=1))
            fit = fit[np.argsort(asked[fit], kind="stable")]
            fit = fit[_rank_within(nodes[fit]) < room[nodes[fit]]]
            placed[vacant[fit], replica] = nodes[fit]
            room -= np.bincount(nodes[fit], minlength=n_ordinals)
            waiting = np.ones(len(vacant), dtype=np.bool_)
            waiting[fit] = False
            vacant, keys, asked = vacant[waiting], keys[waiting], asked[waiting]
    for partition, replica in np.argwhere(placed == -1):
        _swap_in(placed, int(partition), int(replica), members, room)


def _next_asked(
    keys: NDArray[np.uint64], asked: NDArray[np.uint64], members: NDArray[np.int32]
) -> NDArray[np.uint64]:
    """Whom each slot asks next: 48 bits of its score for the member and 16 of ordinal + 1; lower is asked earlier.

    asked: what this returned last, 0 at first. There is somebody left to ask.
    """
    salts = _mixed(members.astype(np.uint64) + _ONE)
    marks = members.astype(np.uint64) + _ONE
    result = np.empty(len(keys), dtype=np.uint64)
    step = max(1, _BLOCK_ENTRIES // len(members))
    for start in range(0, len(keys), step):
        rows = slice(start, start + step)
        scores = (_mixed(keys[rows, None] ^ salts[None, :]) & ~_LOW_16) | marks[None, :]
        scores[scores <= asked[rows, None]] = _NOBODY
        result[rows] = scores.min(axis=1)
    return result


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection that spreads every bit: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _swap_in(
    placed: NDArray[np.int32], partition: int, replica: int, members: NDArray[np.int32], room: NDArray[np.int64]
) -> None:
    """Fill a slot that all have declined: those with room hold the partition already, all others are full.

    A full member gives one of its other partitions to one with room and takes this one. There is such a partition,
    for the full member holds more than the other. It takes few partitions, or hardly more members than replicas,
    to come to this.
    """
    giver = next(int(node) for node in members if node not in placed[partition])
    taker = int(members[np.argmax(room[members])])
    movable = (placed == giver) & (placed != taker).all(axis=1)[:, None]
    row, column = np.argwhere(movable)[0]
    placed[row, column] = taker
    placed[partition, replica] = giver
    room[taker] -= 1
