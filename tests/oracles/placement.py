"""Placement slot by slot, with Python's integers and nothing done all at once."""

from __future__ import annotations

from collections import Counter

import xxhash

_64_BITS = (1 << 64) - 1
_NONE = -1


def assign_oracle(
    n_partitions: int, n_replicas: int, members: set[int], n_ordinals: int, limit: int
) -> list[list[int]]:
    """Rows of ordinals; limit: the most that one member may hold, at least the mean."""
    if len(members) <= n_replicas:
        return _everywhere(n_partitions, n_replicas, sorted(members))
    rows = _homes(n_partitions, n_replicas, n_ordinals)
    for row in rows:
        row[:] = [ordinal if ordinal in members else _NONE for ordinal in row]
    _replace(rows, members, limit)
    return rows


def _everywhere(n_partitions: int, n_replicas: int, members: list[int]) -> list[list[int]]:
    n = len(members)
    return [[members[(r + p) % n] if r < n else _NONE for r in range(n_replicas)] for p in range(n_partitions)]


def _slot_key(partition: int, replica: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{replica}:{partition}".encode())


def _homes(n_partitions: int, n_replicas: int, n_ordinals: int) -> list[list[int]]:
    rows = _everywhere(n_partitions, n_replicas, list(range(n_replicas)))
    slots = [(p, r) for p in range(n_partitions) for r in range(n_replicas)]
    keys = {slot: _slot_key(*slot) for slot in slots}
    jumps = {slot: _jump(keys, slot, n_replicas - 1) for slot in slots}
    for newcomer in range(n_replicas, n_ordinals):
        open_quotas = _quotas(rows, newcomer)
        has: set[int] = set()
        for p, r in sorted(slots, key=lambda slot: (jumps[slot], slot)):
            if p not in has and open_quotas[rows[p][r]] > 0:
                open_quotas[rows[p][r]] -= 1
                has.add(p)
                rows[p][r] = newcomer
                jumps[p, r] = _jump(keys, (p, r), newcomer)
        assert not any(open_quotas.values())
    return rows


def _jump(keys: dict[tuple[int, int], int], slot: tuple[int, int], bucket: int) -> float:
    keys[slot] = (keys[slot] * 2862933555777941757 + 1) & _64_BITS
    return (bucket + 1) * ((1 << 31) / ((keys[slot] >> 33) + 1))


def _quotas(rows: list[list[int]], newcomer: int) -> dict[int, int]:
    loads = Counter(dict.fromkeys(range(newcomer), 0))
    loads.update(ordinal for row in rows for ordinal in row)
    fair, left_over = divmod(sum(loads.values()), newcomer + 1)
    fullest = sorted(loads, key=lambda ordinal: (-loads[ordinal], ordinal))
    return {ordinal: loads[ordinal] - fair - (fullest.index(ordinal) < left_over) for ordinal in loads}


def _replace(rows: list[list[int]], members: set[int], limit: int) -> None:
    loads = Counter(ordinal for row in rows for ordinal in row if ordinal != _NONE)
    for r in range(len(rows[0])):
        waiting = {
            p: sorted((_score(_slot_key(p, r), ordinal), ordinal) for ordinal in members)
            for p, row in enumerate(rows)
            if row[r] == _NONE
        }
        while any(waiting.values()):
            asking = sorted((order.pop(0), p) for p, order in waiting.items() if order)
            for (_, ordinal), p in asking:
                if ordinal not in rows[p] and loads[ordinal] < limit:
                    rows[p][r] = ordinal
                    loads[ordinal] += 1
                    del waiting[p]
    for p, row in enumerate(rows):
        for r, ordinal in enumerate(row):
            if ordinal == _NONE:
                _swap_in(rows, p, r, members, loads)


def _score(key: int, ordinal: int) -> int:
    return _mixed(key ^ _mixed(ordinal + 1)) >> 16


def _mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return value ^ (value >> 31)


def _swap_in(rows: list[list[int]], partition: int, replica: int, members: set[int], loads: Counter[int]) -> None:
    giver = min(members - set(rows[partition]))
    taker = min(members, key=lambda ordinal: (loads[ordinal], ordinal))
    for row in rows:
        if giver in row and taker not in row:
            row[row.index(giver)] = taker
            rows[partition][replica] = giver
            loads[taker] += 1
            return
    raise AssertionError("nothing to swap")
