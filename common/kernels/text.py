"""Runs of bytes that are text: whether they are UTF-8, and their order."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined


@inlined
def is_utf8(data, at, end):
    """Whether data[at:end) is UTF-8 by RFC 3629: shortest form, no surrogates, at most U+10FFFF."""
    while at < end:
        lead = data[at]
        at += 1
        if lead < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            return False
        if end - at < more:
            return False
        for _ in range(more):
            if data[at] < low or data[at] > high:
                return False
            low, high = 0x80, 0xBF
            at += 1
    return True


@inlined
def compare(data, start, end, other_start, other_end):
    """Order of two byte ranges: negative, 0 or positive."""
    size = end - start
    other_size = other_end - other_start
    for i in range(min(size, other_size)):
        difference = np.int64(data[start + i]) - np.int64(data[other_start + i])
        if difference != 0:
            return difference
    return size - other_size
