"""The table of series an ingestor knows: hash of label bytes to slot, and samples of slots to partitions.

A slot is the dense number of a series within the table. `keys[slot]` is the 128-bit hash of its label bytes,
`index` an open-addressing hash table of slots: int32, its length a power of two, -1 where it is empty.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined, kernel

MAX_HASHED_BYTES = 64 * 1024
"""Longest byte string that `hash_bytes` takes; the hash's key is as long."""

HASH_KEY_WORDS = MAX_HASHED_BYTES // 8 + 2

_1 = np.uint64(1)
_29 = np.uint64(29)
_32 = np.uint64(32)
_63 = np.uint64(63)
_LOW = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inlined
def word_at(words, at):
    """Eight bytes from byte position `at` as a little-endian uint64; `words` is the buffer as aligned uint64."""
    shift = np.uint64((at & 7) * 8)
    # Two shifts instead of one by 64 - shift, which would not be defined where shift is 0.
    place = np.uint64(at >> 3)
    return (words[place] >> shift) | ((words[place + _1] << _1) << (_63 - shift))


@inlined
def _nh(word, key):
    return ((word + key) & _LOW) * (((word >> _32) + (key >> _32)) & _LOW)


@inlined
def _mix(value):
    """Spread the differences of NH sums, which may be in few bits, over all of them; one to one."""
    value = (value ^ (value >> _32)) * _GOLDEN
    value = (value ^ (value >> _29)) * _GOLDEN
    return value ^ (value >> _32)


@inlined
def hash_bytes(words, hash_key, start, size, tenant):
    """128-bit hash of a tenant's number and `size` bytes from byte `start`; size <= MAX_HASHED_BYTES.

    Two NH sums with independent keys (Black et al., UMAC, CRYPTO '99, section 4): without the key, no choice of
    two different strings makes them collide with a probability above 2^-62 (2^-64 if they are equally long). The
    length is hashed as a last word, so that zero bytes at the end count, and with it the tenant (below 2^31), so
    that equal bytes of two tenants are two strings.
    """
    shift = np.uint64((start & 7) * 8)
    # Unsigned: of a signed place it is asked whether it counts from the end.
    at = np.uint64(start >> 3)
    n_words = size >> 3
    first = np.uint64(0)
    second = np.uint64(0)
    for i in range(n_words):
        # Both words are loaded again, so that the machine may take several steps at a time.
        place = at + np.uint64(i)
        word = (words[place] >> shift) | ((words[place + _1] << _1) << (_63 - shift))
        first += _nh(word, hash_key[0, i])
        second += _nh(word, hash_key[1, i])
    rest = size & 7
    if rest:
        word = word_at(words, start + n_words * 8) & ((_1 << np.uint64(rest * 8)) - _1)
        first += _nh(word, hash_key[0, n_words])
        second += _nh(word, hash_key[1, n_words])
    length = np.uint64(size) | (np.uint64(tenant) << _32)
    first += _nh(length, hash_key[0, n_words + 1])
    second += _nh(length, hash_key[1, n_words + 1])
    return _mix(first), _mix(second)


@inlined
def find(index, keys, first, second):
    """Slot of a key, or -1; and its place in the index, or the empty place where it belongs. Keys are uniform."""
    mask = len(index) - 1
    at = np.int64(first >> _32) & mask
    while True:
        slot = np.int64(index[at])
        if slot < 0 or (keys[slot, 0] == first and keys[slot, 1] == second):
            return slot, at
        at = (at + 1) & mask


@kernel("int64(int32[::1], uint64[:, ::1], int64, int64, uint64[:, ::1], int32[::1])")
def find_or_add(index, keys, n_slots, max_slots, wanted, slots):
    """Give each wanted key its slot, adding those that are not there.

    index, keys: the table; index has more than `max_slots` places, keys at least `max_slots` rows.
    n_slots: slots in use. wanted: uint64 (n, 2); may repeat a key and may be `keys` itself.
    slots: int32 (n,), written; -1 for a key that found the table full. Returns the number of slots in use now.
    """
    for i in range(len(wanted)):
        first = wanted[i, 0]
        second = wanted[i, 1]
        slot, at = find(index, keys, first, second)
        if slot < 0 and n_slots < max_slots:
            slot = n_slots
            n_slots += 1
            keys[slot, 0] = first
            keys[slot, 1] = second
            index[at] = slot
        slots[i] = slot
    return n_slots


@kernel(
    "int64(int32[::1], int64[::1], uint64[::1], int32[::1], uint32[::1], int64[::1], int64[::1], int64[::1],"
    " uint32[::1], int64[::1], uint64[::1], int64[::1], int32[::1], int64[::1])"
)
def split_by_partition(
    slots,
    timestamps,
    values,
    partitions,
    refs,
    due_ms,
    seen,
    now,
    out_refs,
    out_timestamps,
    out_values,
    offsets,
    declared,
    declared_offsets,
):
    """Counting sort of samples by partition, keeping their order, and the series to declare.

    slots, timestamps, values: the samples, (n_samples,); values are the bits of float64.
    partitions, refs, due_ms, seen: what the table knows of each slot. `seen` is set to the group's number.
    now: int64 (3,): the group's number (positive, larger than every earlier one), its time, and the latest time
        at which a declaration may fall due; what is due later was declared before the clock was set back.
    out_refs, out_timestamps, out_values: (n_samples,), written. offsets: (n_partitions + 1,), written.
    declared: int32, one place a distinct slot at least; written with the slots to declare, by partition.
    declared_offsets: (n_partitions + 1,), written. Returns the number of slots to declare.
    """
    group = now[0]
    n_partitions = len(offsets) - 1
    offsets[:] = 0
    declared_offsets[:] = 0
    n_declared = 0
    for i in range(len(slots)):
        slot = slots[i]
        offsets[partitions[slot] + 1] += 1
        if seen[slot] != -group:
            # Negative until the second pass has met the slot too.
            seen[slot] = -group
            if due_ms[slot] <= now[1] or due_ms[slot] > now[2]:
                declared_offsets[partitions[slot] + 1] += 1
                n_declared += 1
    for p in range(n_partitions):
        offsets[p + 1] += offsets[p]
        declared_offsets[p + 1] += declared_offsets[p]

    # offsets[p] serves as the cursor of partition p and ends up where p + 1 begins; then all move up by one.
    for i in range(len(slots)):
        slot = slots[i]
        partition = partitions[slot]
        at = offsets[partition]
        offsets[partition] = at + 1
        out_refs[at] = refs[slot]
        out_timestamps[at] = timestamps[i]
        out_values[at] = values[i]
        if seen[slot] == -group:
            seen[slot] = group
            if due_ms[slot] <= now[1] or due_ms[slot] > now[2]:
                declared[declared_offsets[partition]] = slot
                declared_offsets[partition] += 1
    for p in range(n_partitions, 0, -1):
        offsets[p] = offsets[p - 1]
        declared_offsets[p] = declared_offsets[p - 1]
    offsets[0] = 0
    declared_offsets[0] = 0
    return n_declared
