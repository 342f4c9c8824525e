"""Fields of protobuf messages, for kernels that walk them."""

from __future__ import annotations

import numpy as np

from common.kernels.jit import inlined


@inlined
def get_varint(data, at, end):
    """Read a varint before `end` as the int64 of its bits. Returns it and the position behind it, -1 if none."""
    if at < end and data[np.uint64(at)] < 128:
        return np.int64(data[np.uint64(at)]), at + 1
    value = np.int64(0)
    shift = np.int64(0)
    while at < end and shift < 70:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return value, np.int64(-1)


@inlined
def skip(data, at, end, tag):
    """Position behind the content of a field whose tag has been read, or -1. Groups are skipped whole."""
    depth = 0
    while True:
        if (tag >> 3) < 1 or tag > 0xFFFFFFFF:
            return np.int64(-1)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = get_varint(data, at, end)
        elif wire_type == 1:
            at = at + 8 if end - at >= 8 else np.int64(-1)
        elif wire_type == 2:
            size, at = get_varint(data, at, end)
            at = at + size if at >= 0 and 0 <= size <= end - at else np.int64(-1)
        elif wire_type == 3:
            depth += 1
        elif wire_type == 4:
            depth -= 1
        elif wire_type == 5:
            at = at + 4 if end - at >= 4 else np.int64(-1)
        else:
            return np.int64(-1)
        if at < 0 or depth < 0:
            return np.int64(-1)
        if depth == 0:
            return at
        tag, at = get_varint(data, at, end)
        if at < 0:
            return at
