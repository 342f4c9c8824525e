"""Kernels of the series index: ids, strings and label pairs in open-addressing tables over flat arrays.

Tables have a power of two of slots and are filled to half at most, then the caller makes a larger one. A kernel
that may run out of room returns how far it came; the caller grows what is full and calls it again.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined, kernel
from common.kernels.text import compare, is_utf8

NO_SNO = 0xFFFFFFFF
BAD_LENGTH = 1
BAD_ORDER = 2
BAD_UTF8 = 3
MAX_LABELS = 65535

_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)
_LOW = np.uint64(0x7FFFFFFF)
_WORD = np.uint64(32)


@inlined
def mix(word, seed):
    """One step of the string hash: a multiply and a fold, over 64 bits."""
    word = (word ^ seed) * _MULTIPLIER
    return (word ^ (word >> _SHIFT)) * _MULTIPLIER


@inlined
def hash_bytes(data, start, end, seed):
    """A 31-bit hash as int64; only ever compared within one process."""
    h = mix(np.uint64(end - start), seed)
    at = start
    while at + 8 <= end:
        word = np.uint64(0)
        for i in range(8):
            word |= np.uint64(data[at + i]) << np.uint64(8 * i)
        h = mix(word, h)
        at += 8
    if at < end:
        word = np.uint64(0)
        for i in range(end - at):
            word |= np.uint64(data[at + i]) << np.uint64(8 * i)
        h = mix(word, h)
    return np.int64((h ^ (h >> _WORD)) & _LOW)


@inlined
def read_uvarint(data, at, end):
    """(value, next position) of a uvarint below 2^28, or (-1, at)."""
    value = 0
    shift = 0
    while at < end and shift < 28:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return -1, at


@kernel("int64(int64[::1], Array(int64, 1, 'C', True), Array(uint8, 1, 'C', True), int64[::1])")
def check_labels(rows, offsets, data, counts):
    """Check the canonical label sets of `rows` and count their labels.

    offsets: int64 (n + 1,) into data, within bounds. counts: int64 (n_rows,), written.
    Returns 0, or 4 * index of the first bad row + BAD_LENGTH, BAD_ORDER or BAD_UTF8.
    """
    for i in range(len(rows)):
        at, end = offsets[rows[i]], offsets[rows[i] + 1]
        last_start, last_end, count = at, np.int64(-1), 0
        while at < end:
            length, at = read_uvarint(data, at, end)
            if length <= 0 or at + length > end or count >= MAX_LABELS:
                return 4 * i + BAD_LENGTH
            start = at
            if last_end >= 0 and compare(data, last_start, last_end, start, start + length) >= 0:
                return 4 * i + BAD_ORDER
            last_start, last_end = start, start + length
            value_length, at = read_uvarint(data, at + length, end)
            if value_length <= 0 or at + value_length > end:
                return 4 * i + BAD_LENGTH
            if not is_utf8(data, start, start + length) or not is_utf8(data, at, at + value_length):
                return 4 * i + BAD_UTF8
            at += value_length
            count += 1
        counts[i] = count
    return 0


@inlined
def intern_string(data, start, length, slots, ends, arena, n_strings, seed):
    """Code of a string, which is added if new; -1 if there is no room for it. n_strings is int64 (1,)."""
    h = hash_bytes(data, start, start + length, seed)
    mask = len(slots) - 1
    tag = h << 32
    at = h & mask
    while slots[at] != 0:
        slot = slots[at]
        if slot >> 32 == h:
            code = slot & 0xFFFFFFFF
            begin = ends[code - 1]
            if ends[code] - begin == length:
                same = True
                for i in range(length):
                    if arena[begin + i] != data[start + i]:
                        same = False
                        break
                if same:
                    return code
        at = (at + 1) & mask
    code = n_strings[0]
    if code >= len(ends) or 2 * code >= len(slots) or ends[code - 1] + length > len(arena):
        return np.int64(-1)
    begin = ends[code - 1]
    for i in range(length):
        arena[begin + i] = data[start + i]
    ends[code] = begin + length
    slots[at] = tag | code
    n_strings[0] = code + 1
    return code


@kernel(
    "int64(int64[::1], Array(int64, 1, 'C', True), Array(uint8, 1, 'C', True), int64[::1], int64, int32[::1],"
    " int64[::1], int64[::1], uint8[::1], int64[::1], uint64)"
)
def intern_labels(rows, offsets, data, counts, first, codes, slots, ends, arena, n_strings, seed):
    """Turn checked label sets into codes: name, value, name, value …, rows one after another.

    rows, offsets, data, counts: as in `check_labels`. first: the row to go on with, 0 at first.
    codes: int32 (2 * sum(counts),), written.
    slots: int64, 31-bit hash << 32 | code, 0 is free. ends: int64, string i is arena[ends[i - 1]:ends[i]].
    n_strings: int64 (1,), number of codes in use.
    Returns how many rows are done; fewer than all if slots, ends or arena are full.
    """
    label = 0
    for i in range(first):
        label += counts[i]
    for i in range(first, len(rows)):
        at, end = offsets[rows[i]], offsets[rows[i] + 1]
        for text in range(2 * counts[i]):
            length, at = read_uvarint(data, at, end)
            code = intern_string(data, at, length, slots, ends, arena, n_strings, seed)
            if code < 0:
                return i
            codes[2 * label + text] = code
            at += length
        label += counts[i]
    return len(rows)


@inlined
def hash_pair(name, value):
    """A 31-bit hash as int64; works on whole arrays too, for rebuilding a table."""
    h = (np.uint64(name) << _WORD | np.uint64(value)) * _MULTIPLIER
    h = (h ^ (h >> _SHIFT)) * _MULTIPLIER
    return np.int64((h >> _WORD) & _LOW)


@kernel(
    "int64(int32[::1], uint32[::1], int64, int64, int64, int32[::1], int32[::1], int32[::1], int32[::1],"
    " uint32[::1], int64[::1], int32[::1], int32[::1])"
)
def add_labels(
    codes, owners, first, n_labels, metric_name, slots, names, values, sizes, firsts, n_pairs, out, metrics
):
    """Number label pairs and count their series.

    codes: int32 (2 * n_labels,), name and value. owners: uint32 (n_labels,), sno. first: label to go on with.
    slots: int32, pair + 1, 0 is free. names, values, sizes, firsts: of each pair its codes, how many series have
    it and the sno of the first. n_pairs: int64 (1,). out: int32, pair of each label. metrics: int32, by sno, the
    value of the label whose name has the code metric_name.
    Returns how many labels are done; fewer than all if slots or the pairs are full.
    """
    mask = len(slots) - 1
    for label in range(first, n_labels):
        name, value = codes[2 * label], codes[2 * label + 1]
        at = hash_pair(name, value) & mask
        pair = -1
        while slots[at] != 0:
            pair = slots[at] - 1
            if names[pair] == name and values[pair] == value:
                break
            pair = -1
            at = (at + 1) & mask
        if pair < 0:
            pair = n_pairs[0]
            if pair >= len(names) or 2 * pair >= len(slots):
                return label
            names[pair] = name
            values[pair] = value
            sizes[pair] = 0
            firsts[pair] = owners[label]
            slots[at] = pair + 1
            n_pairs[0] = pair + 1
        sizes[pair] += 1
        out[label] = pair
        if name == metric_name:
            metrics[owners[label]] = value
    return n_labels


@inlined
def id_slot(ids, row):
    """Where the search for an id starts: from its second half, since the first chose the partition."""
    h = np.int64(0)
    for i in range(8, 12):
        h = h << 8 | np.int64(ids[row, i])
    return h


@kernel("int64(Array(uint8, 2, 'C', True), uint32[::1], int64, int64[::1], uint8[:, ::1], int32[::1])")
def enter_ids(ids, snos, first, next_sno, known, slots):
    """Find the series of ids and enter those that are new.

    ids: uint8 (n, 16). snos: uint32 (n,), written; where it is not NO_SNO a new id takes that number, else the
    next one. first: row to go on with. next_sno: int64 (2,), the next number, and how many ids are in the table.
    known: uint8 (n_snos, 16). slots: int32, sno + 1, 0 is free.
    Returns how many rows are done; fewer than all if slots or known are full.
    """
    mask = len(slots) - 1
    for row in range(first, len(ids)):
        at = id_slot(ids, row) & mask
        found = np.int64(-1)
        while slots[at] != 0:
            sno = slots[at] - 1
            same = True
            for i in range(16):
                if known[sno, i] != ids[row, i]:
                    same = False
                    break
            if same:
                found = np.int64(sno)
                break
            at = (at + 1) & mask
        if found < 0:
            if 2 * next_sno[1] >= len(slots) or next_sno[0] >= len(known):
                return row
            if snos[row] == NO_SNO:
                found = next_sno[0]
                next_sno[0] = found + 1
            else:
                found = np.int64(snos[row])
            next_sno[1] += 1
            for i in range(16):
                known[found, i] = ids[row, i]
            slots[at] = found + 1
        snos[row] = found
    return len(ids)


@kernel(
    "int64(Array(uint32, 1, 'C', True), int64[::1], uint16[::1], int32[::1], int32[::1], int32[::1], int64,"
    " int32[::1], int32[::1], int32[:, ::1])"
)
def fill_table(snos, starts, counts, entries, pair_names, pair_values, only, row_of, names, codes):
    """Labels of series as a matrix of value codes, one row a label name, in order of first appearance.

    starts, counts: by sno, the run of its labels in entries, which are pairs. only: the one name wanted, or -1.
    row_of: int32, by name code, row + 1, zeros at first. names: int32, written. codes: int32 (rows, n), zeros.
    Returns the number of names; what does not fit into names or codes is left out.
    """
    n_names = 0
    for i in range(len(snos)):
        start = starts[snos[i]]
        for at in range(start, start + counts[snos[i]]):
            pair = entries[at]
            name = pair_names[pair]
            if only >= 0 and name != only:
                continue
            row = row_of[name] - 1
            if row < 0:
                row = n_names
                n_names += 1
                row_of[name] = n_names
                if row < len(names):
                    names[row] = name
            if row < len(codes):
                codes[row, i] = pair_values[pair]
    return n_names


@inlined
def uvarint_size(value):
    size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


@inlined
def write_string(code, ends, arena, out, at):
    """Write length and bytes of a string; the next position."""
    begin = ends[code - 1]
    length = ends[code] - begin
    rest = length
    while rest >= 0x80:
        out[at] = rest & 0x7F | 0x80
        rest >>= 7
        at += 1
    out[at] = rest
    at += 1
    for i in range(length):
        out[at + i] = arena[begin + i]
    return at + length


@kernel(
    "int64(int64[::1], uint16[::1], int32[::1], int32[::1], int32[::1], int64[::1], uint8[::1], uint32[::1],"
    " uint8[::1])"
)
def encode_labels(starts, counts, entries, pair_names, pair_values, ends, arena, lengths, out):
    """Canonical label bytes of series, one after another, from their pairs.

    starts, counts: of the series to write. ends, arena: the strings. lengths: uint32 (n,), written.
    Returns the number of bytes; nothing is written to out if they do not fit.
    """
    total = 0
    for i in range(len(starts)):
        size = 0
        for at in range(starts[i], starts[i] + counts[i]):
            for code in (pair_names[entries[at]], pair_values[entries[at]]):
                length = ends[code] - ends[code - 1]
                size += uvarint_size(length) + length
        lengths[i] = size
        total += size
    if total > len(out):
        return total
    to = 0
    for i in range(len(starts)):
        for at in range(starts[i], starts[i] + counts[i]):
            to = write_string(pair_names[entries[at]], ends, arena, out, to)
            to = write_string(pair_values[entries[at]], ends, arena, out, to)
    return total
