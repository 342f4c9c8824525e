"""The head of a partition: samples in order of arrival, and the last one of each series."""

from __future__ import annotations

import numpy as np

from common.kernels.digest import lane_a, lane_b
from common.kernels.jit import kernel

NONE = np.uint32(0xFFFFFFFF)
"""No series, or no previous sample."""

ACCEPTED, DUPLICATE, LATE, TOO_OLD, PENDING = range(5)
"""Positions in `outcomes`."""
N_OUTCOMES = 5

LANES = 8
"""Chains that are followed at the same time."""

UNKNOWN_REF = -1
OTHER_WINDOW = -2


@kernel(
    "int64(uint32[::1], int64[::1], uint64[::1], uint32[::1], int64, boolean, "
    "int64[::1], int64[::1], uint64[:,::1], int64[::1], "
    "int64[::1], int64[::1], uint32[::1], uint64[:,::1], "
    "uint32[::1], int64[::1], uint64[::1], uint32[::1], int64, "
    "uint32[::1], int64[::1], uint64[::1], int64, int64[::1])"
)
def apply_samples(
    refs,
    timestamps,
    value_bits,
    sno_of_ref,
    horizon,
    settled,
    window_starts,
    window_ends,
    window_lanes,
    window_counts,
    min_times,
    max_times,
    tails,
    ids,
    head_snos,
    head_times,
    head_bits,
    head_previous,
    n_head,
    late_snos,
    late_times,
    late_bits,
    n_late,
    outcomes,
):
    """Sort samples into the head, the late buffer, or out; return the new length of the head.

    refs, timestamps, value_bits: the samples, (n,). sno_of_ref: series of a ref, NONE if it has none.
    horizon: earliest timestamp that is taken. settled: the samples are known to be new; none is looked for.
    window_*: first and last ms, digest lanes (n_windows, 2) and counts of windows, ascending; the caller lists
    every window that occurs, or one of which it hopes that it is the only one.
    min_times, max_times, tails, ids: per series; max < min while a series has no sample.
    head_*: columns with room for n samples behind the first `n_head`; late_* the same. outcomes: added to.

    Returns UNKNOWN_REF if a ref has no series, OTHER_WINDOW if the only window given is not the only one that
    occurs; nothing has changed then.
    """
    n = refs.size
    if not settled:
        n_refs = sno_of_ref.size
        one_window = window_ends.size == 1
        for i in range(n):
            if refs[i] >= n_refs or sno_of_ref[refs[i]] == NONE:
                return UNKNOWN_REF
            if one_window and not (window_starts[0] <= timestamps[i] <= window_ends[0]):
                return OTHER_WINDOW
    window = 0
    for i in range(n):
        sno = refs[i] if settled else sno_of_ref[refs[i]]
        time = timestamps[i]
        if time < horizon:
            outcomes[TOO_OLD] += 1
            continue
        latest = max_times[sno]
        earliest = min_times[sno]
        if time > latest or latest < earliest:
            max_times[sno] = time
            if time < earliest:
                min_times[sno] = time
            outcomes[LATE if settled else ACCEPTED] += 1
        elif settled or time < earliest:
            min_times[sno] = min(time, earliest)
            outcomes[LATE] += 1
        elif time in (latest, earliest):
            outcomes[DUPLICATE] += 1
            continue
        else:
            late_snos[n_late] = sno
            late_times[n_late] = time
            late_bits[n_late] = value_bits[i]
            n_late += 1
            outcomes[PENDING] += 1
            continue
        head_snos[n_head] = sno
        head_times[n_head] = time
        head_bits[n_head] = value_bits[i]
        head_previous[n_head] = tails[sno]
        tails[sno] = n_head
        n_head += 1
        if not (window_starts[window] <= time <= window_ends[window]):
            window = np.searchsorted(window_ends, time)
        window_lanes[window, 0] += lane_a(ids[sno, 0], ids[sno, 1], np.uint64(time), value_bits[i])
        window_lanes[window, 1] += lane_b(ids[sno, 0], ids[sno, 1], np.uint64(time), value_bits[i])
        window_counts[window] += 1
    return n_head


@kernel("int64(uint32[::1], uint32[::1], int64, int64[::1], int64, int64, int64[::1], uint64[::1])")
def find_in_chains(tails, previous, first, times, min_time, max_time, counts, found):
    """Where the samples of a few series are, by the chain of each from its last sample back; return their number.

    tails: (n_rows,), position of the last sample or NONE; previous, times: columns of the head.
    first: the caller knows that no sample before this position is in the range; chains end there.
    counts: (n_rows,), samples of each row in [min_time, max_time], set from zeros. found: row and position of
    each, `row << 32 | position`, the last sample of a row first. What finds no room there is only counted.

    Each step of a chain waits for memory, so LANES of them are followed at the same time.
    """
    positions = tails[:LANES].copy()
    rows = np.arange(positions.size)
    n_found = 0
    n_lanes = next_row = positions.size
    while n_lanes > 0:
        lane = 0
        while lane < n_lanes:
            at = positions[lane]
            if at != NONE and at >= first:
                positions[lane] = previous[at]
                if min_time <= times[at] <= max_time:
                    row = rows[lane]
                    counts[row] += 1
                    if n_found < found.size:
                        found[n_found] = np.uint64(row) << np.uint64(32) | np.uint64(at)
                    n_found += 1
                lane += 1
            elif next_row < tails.size:
                positions[lane] = tails[next_row]
                rows[lane] = next_row
                next_row += 1
            else:
                n_lanes -= 1
                positions[lane] = positions[n_lanes]
                rows[lane] = rows[n_lanes]
    return n_found


@kernel("void(uint64[::1], int64[::1], uint64[::1], int64[::1], int64[::1], uint64[::1])")
def put_found(found, times, bits, cursor, times_out, bits_out):
    """Put the samples that `find_in_chains` has found at cursor (n_rows,), which moves on, in order of arrival."""
    for i in range(found.size - 1, -1, -1):
        row = np.int64(found[i] >> np.uint64(32))
        at = np.int64(found[i] & np.uint64(0xFFFFFFFF))
        out = cursor[row]
        cursor[row] = out + 1
        times_out[out] = times[at]
        bits_out[out] = bits[at]


@kernel(
    "void(int32[::1], uint32[::1], int64[::1], uint64[::1], int64, int64, boolean, "
    "int64[::1], int64[::1], int64[::1], uint64[::1])"
)
def collect_scan(row_of_sno, snos, times, bits, min_time, max_time, counting, counts, cursor, times_out, bits_out):
    """Samples of many series, by a scan over the head.

    row_of_sno: (n_series,), row of each series or -1; snos, times, bits: columns of the head.
    counting: only set counts (n_rows,), from zeros, to the number of samples in [min_time, max_time]. Otherwise
    put them, in order of arrival, at cursor (n_rows,), which moves on.
    """
    for i in range(snos.size):
        row = row_of_sno[snos[i]]
        if row >= 0 and min_time <= times[i] <= max_time:
            if counting:
                counts[row] += 1
            else:
                times_out[cursor[row]] = times[i]
                bits_out[cursor[row]] = bits[i]
                cursor[row] += 1


@kernel("void(int64[::1], int64[::1], int64[::1], int64[::1], boolean[::1])")
def find_new(offsets, timestamps, stored_offsets, stored_times, is_new):
    """Which late samples are not stored yet.

    offsets: (n_rows + 1,) into timestamps, ascending within a row; the first of equals came first in the log.
    stored_offsets: (n_rows + 1,) into stored_times, ascending within a row. is_new: (n_samples,), set.
    """
    for row in range(offsets.size - 1):
        at = stored_offsets[row]
        end = stored_offsets[row + 1]
        for i in range(offsets[row], offsets[row + 1]):
            time = timestamps[i]
            while at < end and stored_times[at] < time:
                at += 1
            again = i > offsets[row] and timestamps[i - 1] == time
            is_new[i] = not again and not (at < end and stored_times[at] == time)


@kernel("int64(int64[::1], int64[::1], uint64[::1], int64[::1], int64, int64[::1], int64[::1], uint64[::1])")
def take_until(offsets, times, bits, cursor, max_time, offsets_out, times_out, bits_out):
    """Copy the next samples of each row, up to max_time, and move cursor behind them; return their number.

    offsets: (n_rows + 1,); cursor: (n_rows,), next sample of each row; offsets_out: (n_rows + 1,), set.
    times_out, bits_out have room for all that is left.
    """
    out = 0
    for row in range(cursor.size):
        offsets_out[row] = out
        at = cursor[row]
        while at < offsets[row + 1] and times[at] <= max_time:
            times_out[out] = times[at]
            bits_out[out] = bits[at]
            out += 1
            at += 1
        cursor[row] = at
    offsets_out[cursor.size] = out
    return out
