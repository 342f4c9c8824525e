"""Blocks: the chunks of many series under one columnar header (`docs/format/chunk.md`)."""

from __future__ import annotations

import numpy as np

from common.kernels.chunk import get_values, put_specials, scale
from common.kernels.jit import device, inlined, kernel
from common.kernels.vector import GROUP, N_SCRATCH, get_vector, put_vector

VERSION = 1
HEAD = 5  # version u8, n_chunks u16, n_clocks u16
MAX_CHUNKS = 4096  # in a block
ENOUGH_CHUNKS = 512  # of which who wants one has to read the columns of all
MAX_CHUNK_SAMPLES = 1 << 16
# Columns of the header: of the chunks, then of the clocks.
SNO, FIRST, CLOCK, SIZE, SAMPLES, SPAN, CLOCK_SIZE = 0, 1, 2, 3, 4, 5, 6
N_COLUMNS = 7
N_CHUNK_COLUMNS = 4
OK, CORRUPT, NO_ROOM = 0, -1, -2
_SLOTS = 2 * MAX_CHUNKS
_ARENA = 2 * MAX_CHUNK_SAMPLES  # ticks of clocks kept decoded
# A typed constant: numba compiles a function anew for a literal.
_INTEGERS = np.int64(0)
_MOST_SNO = (1 << 32) - 1


@device
def _find_clock(ticks, n, timestamps, columns, n_clocks, clock_starts, slots):
    """(clock, slot): the block's clock whose ticks are ticks[:n]; n_clocks and a free slot if there is none.

    clock_starts: where in `timestamps` the chunk lies that brought each clock.
    """
    mixed = np.int64(n)
    for i in range(n):
        mixed = (mixed ^ ticks[np.uint64(i)]) * -7046029254386353131
        mixed ^= (mixed >> 29) & ((1 << 35) - 1)
    slot = mixed & (_SLOTS - 1)
    while slots[slot] >= 0:
        clock = slots[slot]
        if columns[SAMPLES, clock] == n:
            at = clock_starts[clock]
            origin = timestamps[at]
            differ = np.int64(0)
            for i in range(n):
                differ |= (timestamps[np.uint64(at + i)] - origin) ^ ticks[np.uint64(i)]
            if differ == 0:
                return clock, slot
        slot = (slot + 1) & (_SLOTS - 1)
    return n_clocks, slot


@device
def _put_head(out, position, n_chunks, n_clocks):
    out[position] = VERSION
    out[position + 1] = n_chunks & 255
    out[position + 2] = n_chunks >> 8
    out[position + 3] = n_clocks & 255
    out[position + 4] = n_clocks >> 8
    return position + HEAD


@inlined
def _copy(data, size, out, position):
    for i in range(size):
        out[np.uint64(position + i)] = data[np.uint64(i)]
    return position + size


@kernel(
    "int64(uint32[::1], int64[::1], int64[::1], int64[::1], float64[::1], int64, int64, uint8[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1])"
)
def encode(snos, offsets, timestamps, bits, floats, target, room, out, starts, first_rows, min_times, max_times):
    """Pack the chunks of rows into blocks; returns the number of blocks.

    bits, floats: two views of the values. room: what the chunks of one block can take. starts, first_rows:
    (n_rows + 1,). A row longer than a chunk may be becomes several chunks, all in one block.
    """
    scratch = np.empty((N_SCRATCH, MAX_CHUNK_SAMPLES + GROUP), np.int64)
    integers = np.empty(MAX_CHUNK_SAMPLES, np.int64)
    specials = np.empty(MAX_CHUNK_SAMPLES, np.int64)
    columns = np.empty((N_COLUMNS, MAX_CHUNKS), np.int64)
    clock_starts = np.empty(MAX_CHUNKS, np.int64)
    slots = np.empty(_SLOTS, np.int64)
    clocks, values = np.empty(room, np.uint8), np.empty(room, np.uint8)
    n_blocks, position, row = np.int64(0), np.int64(0), np.int64(0)
    while row < len(snos):
        starts[n_blocks], first_rows[n_blocks] = position, row
        low = high = timestamps[offsets[row]]
        slots[:] = -1
        n_chunks, n_clocks, clocks_size, values_size = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        while row < len(snos):
            at, end = offsets[row], offsets[row + 1]
            n_pieces = (end - at + MAX_CHUNK_SAMPLES - 1) // MAX_CHUNK_SAMPLES
            # Some four bytes of header a chunk and six a clock come on top.
            size = clocks_size + values_size + 4 * n_chunks + 6 * n_clocks
            if n_chunks > 0 and (size >= target or n_chunks >= ENOUGH_CHUNKS or n_chunks + n_pieces > MAX_CHUNKS):
                break
            low, high = min(low, timestamps[at]), max(high, timestamps[end - 1])
            while at < end:
                n = min(end - at, MAX_CHUNK_SAMPLES)
                for i in range(n):
                    integers[np.uint64(i)] = timestamps[np.uint64(at + i)] - timestamps[at]
                clock, slot = _find_clock(integers, n, timestamps, columns, n_clocks, clock_starts, slots)
                if clock == n_clocks:
                    slots[slot], clock_starts[clock] = clock, at
                    columns[SAMPLES, clock], columns[SPAN, clock] = n, integers[n - 1]
                    size = put_vector(integers, n, _INTEGERS, clocks, clocks_size, scratch)
                    columns[CLOCK_SIZE, clock] = size - clocks_size
                    clocks_size = size
                    n_clocks += 1
                exponent, n_specials = scale(bits, floats, at, n, integers, specials)
                size = put_vector(integers, n, exponent, values, values_size, scratch)
                if n_specials > 0:
                    size = put_specials(bits, at, specials, n_specials, values, size)
                columns[SNO, n_chunks], columns[FIRST, n_chunks] = snos[row], timestamps[at]
                columns[CLOCK, n_chunks], columns[SIZE, n_chunks] = clock, size - values_size
                values_size = size
                n_chunks += 1
                at += n
            row += 1
        position = _put_head(out, position, n_chunks, n_clocks)
        for column in range(N_COLUMNS):
            n = n_chunks if column < N_CHUNK_COLUMNS else n_clocks
            position = put_vector(columns[column], n, _INTEGERS, out, position, scratch)
        position = _copy(clocks, clocks_size, out, position)
        position = _copy(values, values_size, out, position)
        min_times[n_blocks], max_times[n_blocks] = low, high
        n_blocks += 1
    starts[n_blocks], first_rows[n_blocks] = position, len(snos)
    return n_blocks


@inlined
def _get_header(data, start, end, columns):
    """Read a block's columns; (n_chunks, n_clocks, position of the first clock), n_chunks < 0 if corrupt."""
    bad = np.int64(CORRUPT), np.int64(0), np.int64(0)
    if end - start < HEAD or data[start] != VERSION:
        return bad
    n_chunks = np.int64(data[start + 1]) | np.int64(data[start + 2]) << 8
    n_clocks = np.int64(data[start + 3]) | np.int64(data[start + 4]) << 8
    if n_chunks < 1 or n_chunks > MAX_CHUNKS or n_clocks < 1 or n_clocks > n_chunks:
        return bad
    position = start + HEAD
    for column in range(N_COLUMNS):
        n = n_chunks if column < N_CHUNK_COLUMNS else n_clocks
        position, _ = get_vector(data, position, end, n, columns[column])
        if position < 0:
            return bad
    left = end - position
    for i in range(n_clocks):
        size, samples = columns[CLOCK_SIZE, i], columns[SAMPLES, i]
        if samples < 1 or samples > MAX_CHUNK_SAMPLES or size < 0 or size > left:
            return bad
        left -= size
    for i in range(n_chunks):
        size, clock, sno = columns[SIZE, i], columns[CLOCK, i], columns[SNO, i]
        if clock < 0 or clock >= n_clocks or size < 0 or size > left or sno < 0 or sno > _MOST_SNO:
            return bad
        left -= size
    if left != 0:
        return bad
    return n_chunks, n_clocks, position


@kernel("int64(uint8[::1], int64[::1], int32[::1], uint32[::1], int32[::1], int64[::1], int64[::1])")
def rows(data, starts, blocks, snos, n_samples, min_times, max_times):
    """Fill the outputs with a line for each chunk; returns how many there are or CORRUPT.

    data: the blocks one after another, block i at starts[i] : starts[i + 1], and PADDING bytes.
    """
    columns = np.empty((N_COLUMNS, MAX_CHUNKS), np.int64)
    n_rows = 0
    for block in range(len(starts) - 1):
        n_chunks, _, _ = _get_header(data, starts[block], starts[block + 1], columns)
        if n_chunks < 0 or n_rows + n_chunks > len(blocks):
            return CORRUPT
        for i in range(n_chunks):
            clock = columns[CLOCK, i]
            blocks[n_rows] = block
            snos[n_rows] = columns[SNO, i]
            n_samples[n_rows] = columns[SAMPLES, clock]
            min_times[n_rows] = columns[FIRST, i]
            max_times[n_rows] = columns[FIRST, i] + columns[SPAN, clock]
            n_rows += 1
    return n_rows


@kernel("int64(uint8[::1], int64[::1], int32[::1], int64, int64, int64[::1])")
def count(data, starts, row_of_sno, min_time, max_time, counts):
    """Add to counts[row] the samples of its chunks that touch [min_time, max_time]; returns OK or CORRUPT."""
    columns = np.empty((N_COLUMNS, MAX_CHUNKS), np.int64)
    for block in range(len(starts) - 1):
        n_chunks, _, _ = _get_header(data, starts[block], starts[block + 1], columns)
        if n_chunks < 0:
            return CORRUPT
        for i in range(n_chunks):
            sno, clock = columns[SNO, i], columns[CLOCK, i]
            if sno >= len(row_of_sno) or row_of_sno[sno] < 0:
                continue
            first = columns[FIRST, i]
            if first <= max_time and first + columns[SPAN, clock] >= min_time:
                if row_of_sno[sno] >= len(counts):
                    return NO_ROOM
                counts[row_of_sno[sno]] += columns[SAMPLES, clock]
    return OK


@inlined
def _first_not_before(arena, at, n, first, time):
    """The first of n samples whose time, first + tick, is not before `time`."""
    low, high = np.int64(0), n
    while low < high:
        middle = (low + high) >> 1
        if first + arena[at + middle] < time:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(
    "int64(uint8[::1], int64[::1], int32[::1], int64, int64, int64[::1], int64[::1], int64[::1], float64[::1])"
)
def decode(data, starts, row_of_sno, min_time, max_time, cursor, timestamps, bits, floats):
    """Append the samples of [min_time, max_time] of the wanted series at cursor[row].

    Returns OK, CORRUPT or NO_ROOM. bits, floats: two views of the output of values.
    """
    columns = np.empty((N_COLUMNS, MAX_CHUNKS), np.int64)
    clock_at = np.empty(MAX_CHUNKS, np.int64)
    ticks_at = np.empty(MAX_CHUNKS, np.int64)
    arena = np.empty(_ARENA, np.int64)
    integers = np.empty(MAX_CHUNK_SAMPLES, np.int64)
    for block in range(len(starts) - 1):
        n_chunks, n_clocks, position = _get_header(data, starts[block], starts[block + 1], columns)
        if n_chunks < 0:
            return CORRUPT
        for i in range(n_clocks):
            clock_at[i] = position
            ticks_at[i] = -1
            position += columns[CLOCK_SIZE, i]
        used = np.int64(0)
        for i in range(n_chunks):
            sno, clock, end = columns[SNO, i], columns[CLOCK, i], position + columns[SIZE, i]
            first, n = columns[FIRST, i], columns[SAMPLES, clock]
            outside = first > max_time or first + columns[SPAN, clock] < min_time
            if outside or sno >= len(row_of_sno) or row_of_sno[sno] < 0:
                position = end
                continue
            row = row_of_sno[sno]
            if ticks_at[clock] < 0:
                if used + n > _ARENA:
                    used = np.int64(0)
                    for j in range(n_clocks):
                        ticks_at[j] = -1
                last, _ = get_vector(
                    data, clock_at[clock], clock_at[clock] + columns[CLOCK_SIZE, clock], n, arena[used:]
                )
                if last < 0:
                    return CORRUPT
                ticks_at[clock] = used
                used += n
            ticks = ticks_at[clock]
            low, high = np.int64(0), n
            if first < min_time:
                low = _first_not_before(arena, ticks, n, first, min_time)
            if first + columns[SPAN, clock] > max_time:
                high = _first_not_before(arena, ticks, n, first, max_time)
                if high < n and first + arena[ticks + high] == max_time:
                    high += 1
            if row >= len(cursor) or cursor[row] < 0 or cursor[row] + high - low > len(timestamps):
                return NO_ROOM
            at = cursor[row]
            for j in range(high - low):
                timestamps[np.uint64(at + j)] = first + arena[np.uint64(ticks + low + j)]
            if get_values(data, position, end, n, low, high, integers, bits, floats, at) < 0:
                return CORRUPT
            cursor[row] = at + max(high - low, 0)
            position = end
    return OK


@inlined
def _end_of_run(timestamps, at, end):
    """Where the ascending run ends that begins at `at`, before `end`."""
    at += 1
    while at < end and timestamps[at] >= timestamps[at - 1]:
        at += 1
    return at


@inlined
def _merge_runs(timestamps, bits, start, end, times, values):
    """Sort timestamps[start:end] and its values by time, stably, by merging the runs that are there in pairs.

    Most rows are one long run with a short one behind it, of samples that came late: only what is later than the
    first of these is moved.
    """
    while True:
        left = start
        middle = _end_of_run(timestamps, left, end)
        if middle >= end:
            return
        while middle < end:
            right = _end_of_run(timestamps, middle, end)
            low, high = left, middle
            while low < high:
                half = (low + high) >> 1
                if timestamps[half] <= timestamps[middle]:
                    low = half + 1
                else:
                    high = half
            n = middle - low
            for k in range(n):
                times[k], values[k] = timestamps[low + k], bits[low + k]
            i, j, k = 0, middle, low
            while i < n:
                if j == right or times[i] <= timestamps[j]:
                    timestamps[k], bits[k] = times[i], values[i]
                    i += 1
                else:
                    timestamps[k], bits[k] = timestamps[j], bits[j]
                    j += 1
                k += 1
            left = right
            middle = _end_of_run(timestamps, left, end) if left < end else end


@kernel("int64(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64)")
def finish(row_starts, cursor, timestamps, bits, offsets, longest):
    """Sort and compact in place the rows filled at row_starts[i] : cursor[i]; returns the samples left."""
    times = np.empty(longest, np.int64)
    values = np.empty(longest, np.int64)
    written = 0
    for row in range(len(cursor)):
        start, n = row_starts[row], cursor[row] - row_starts[row]
        offsets[row] = written
        n_ascending = 1
        while n_ascending < n and timestamps[start + n_ascending] > timestamps[start + n_ascending - 1]:
            n_ascending += 1
        if n_ascending >= n:
            if written != start:
                for i in range(n):
                    timestamps[written + i], bits[written + i] = timestamps[start + i], bits[start + i]
            written += n
            continue
        _merge_runs(timestamps, bits, start, start + n, times, values)
        for i in range(n):
            if i == 0 or timestamps[start + i] != timestamps[written - 1]:
                timestamps[written], bits[written] = timestamps[start + i], bits[start + i]
                written += 1
    offsets[len(cursor)] = written
    return written
