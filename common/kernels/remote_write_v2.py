"""Remote write 2.0 (`io.prometheus.write.v2.Request`) as the message of 1.0 that says the same.

The messages, from Prometheus' `prompb/io/prometheus/write/v2/types.proto`:

    Request    { repeated string symbols = 4; repeated TimeSeries timeseries = 5; }
    TimeSeries { repeated uint32 labels_refs = 1; repeated Sample samples = 2; repeated Histogram histograms = 3;
                 repeated Exemplar exemplars = 4; Metadata metadata = 5; }
    Exemplar   { repeated uint32 labels_refs = 1; double value = 2; int64 timestamp = 3; }
    Metadata   { MetricType type = 1; uint32 help_ref = 3; uint32 unit_ref = 4; }

Samples and histograms are the same in both, but for start timestamps, which 1.0 does not know. What is inside of
them is left to who reads the result. The bytes come from outside: every length is checked.
"""

from __future__ import annotations

import numpy as np

from common.kernels.jit import device, kernel
from common.kernels.protobuf import get_varint, skip
from common.kernels.record import put_uvarint

OK = 0
MALFORMED = 1
TOO_LARGE = 2
BAD_SYMBOL = 3
ODD_REFS = 4
NO_EMPTY_SYMBOL = 5

# Places in the numbers that `transcode` writes.
SIZE = 0
ERROR_AT = 1
N_NUMBERS = 2

_LENGTH_BYTES = 5
_METRIC_NAME = np.frombuffer(b"__name__", dtype=np.uint8)
_BUCKET = np.frombuffer(b"_bucket", dtype=np.uint8)
_COUNT = np.frombuffer(b"_count", dtype=np.uint8)
_SUM = np.frombuffer(b"_sum", dtype=np.uint8)
_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
# Types of metrics that are families of several series; gauge histograms lie between.
_HISTOGRAM, _SUMMARY = 3, 5


@device
def _content(data, at, end, tag):
    """Range of a length-delimited field whose tag has been read; the end is -1 if it is not one."""
    size, at = get_varint(data, at, end)
    if tag & 7 != 2 or at < 0 or size < 0 or size > end - at:
        return at, np.int64(-1)
    return at, at + size


@kernel("int64(uint8[::1], int64, int64[:, ::1], int64[::1])")
def find_symbols(data, size, symbols, numbers):
    """Note where the symbols of a request lie; numbers[SIZE] is how many there are, though there be no room."""
    at = np.int64(0)
    n = 0
    while at < size:
        numbers[ERROR_AT] = at
        tag, at = get_varint(data, at, size)
        if at < 0:
            return MALFORMED
        if tag == 0x22:
            start, at = _content(data, at, size, tag)
            if at < 0:
                return MALFORMED
            if n < len(symbols):
                symbols[n, 0] = start
                symbols[n, 1] = at
            n += 1
        else:
            at = skip(data, at, size, tag)
            if at < 0:
                return MALFORMED
    numbers[SIZE] = n
    if n > 0 and len(symbols) > 0 and symbols[0, 1] > symbols[0, 0]:
        return NO_EMPTY_SYMBOL
    return OK


@device
def _uvarint_size(value):
    size = 1
    while value >= 128:
        value >>= 7
        size += 1
    return size


@device
def _put_bytes(out, at, tag, data, start, end):
    """Write a length-delimited field. Returns the position behind."""
    out[at] = np.uint8(tag)
    at = put_uvarint(out, at + 1, np.uint64(end - start))
    for i in range(start, end):
        out[at] = data[i]
        at += 1
    return at


@device
def _put_label(data, symbols, name, value, out, at):
    """Write a label, field 1 of a series or an exemplar. Returns the position behind, -1 if there is no room."""
    n_name = symbols[name, 1] - symbols[name, 0]
    n_value = symbols[value, 1] - symbols[value, 0]
    size = 2 + _uvarint_size(n_name) + n_name + _uvarint_size(n_value) + n_value
    if size + 8 > len(out) - at:
        return np.int64(-1)
    out[at] = 0x0A
    at = put_uvarint(out, at + 1, np.uint64(size))
    at = _put_bytes(out, at, 0x0A, data, symbols[name, 0], symbols[name, 1])
    return _put_bytes(out, at, 0x12, data, symbols[value, 0], symbols[value, 1])


@device
def _labels(data, start, end, symbols, n_symbols, out, at):
    """Write the labels of a series or an exemplar, [start, end). Returns status, position, the metric's symbol."""
    here = start
    name = np.int64(-1)
    metric = np.int64(-1)
    while here < end:
        tag, here = get_varint(data, here, end)
        if here < 0:
            return MALFORMED, at, metric
        if tag >> 3 != 1:
            here = skip(data, here, end, tag)
            if here < 0:
                return MALFORMED, at, metric
            continue
        if tag & 7 == 2:
            here, last = _content(data, here, end, tag)
            if last < 0:
                return MALFORMED, at, metric
        elif tag & 7 == 0:
            last = here + 1
        else:
            return MALFORMED, at, metric
        while here < last:
            ref, here = get_varint(data, here, end)
            if here < 0 or (tag & 7 == 2 and here > last):
                return MALFORMED, at, metric
            if ref < 0 or ref >= n_symbols:
                return BAD_SYMBOL, at, metric
            if name < 0:
                name = ref
                continue
            at = _put_label(data, symbols, name, ref, out, at)
            if at < 0:
                return TOO_LARGE, at, metric
            if _is(data, symbols[name, 0], symbols[name, 1], _METRIC_NAME):
                metric = ref
            name = np.int64(-1)
    return (OK if name < 0 else ODD_REFS), at, metric


@device
def _is(data, start, end, text):
    same = end - start == len(text)
    for i in range(len(text) if same else 0):
        same = same and data[start + i] == text[i]
    return same


@device
def _begin(out, at, tag):
    """Begin a message whose length is not known yet. Returns where its content begins, -1 if there is no room."""
    if len(out) - at < 64:
        return np.int64(-1)
    out[at] = np.uint8(tag)
    return at + 1 + _LENGTH_BYTES


@device
def _finish(out, start, end):
    """Write the length of a message that was begun, in all of the bytes that were left for it."""
    size = end - start
    for i in range(_LENGTH_BYTES):
        more = 0 if i == _LENGTH_BYTES - 1 else 128
        out[start - _LENGTH_BYTES + i] = np.uint8((size >> (7 * i)) & 127 | more)


@device
def _exemplar(data, start, end, symbols, n_symbols, out, at):
    """Write an exemplar. Returns status and position."""
    begin = _begin(out, at, 0x1A)
    if begin < 0:
        return TOO_LARGE, at
    status, at, _ = _labels(data, start, end, symbols, n_symbols, out, begin)
    if status != OK:
        return status, at
    while start < end:
        field = start
        tag, start = get_varint(data, start, end)
        start = skip(data, start, end, tag)
        # `_labels` has seen that all fields are whole.
        if tag == 0x11 or tag == 0x18:
            if start - field + 8 > len(out) - at:
                return TOO_LARGE, at
            for i in range(field, start):
                out[at] = data[i]
                at += 1
    _finish(out, begin, at)
    return OK, at


@device
def _hash(data, start, end, value):
    for i in range(start, end):
        value = (value ^ np.uint64(data[i])) * _FNV_PRIME
    return (value ^ np.uint64(0xFF)) * _FNV_PRIME


@device
def _metadata(data, start, end, symbols, n_symbols, metric, seen, salt, out, at):
    """Write metadata that was not seen before as that of its family. Returns status and position."""
    kind = np.int64(0)
    text = np.int64(0)
    unit = np.int64(0)
    while start < end:
        tag, start = get_varint(data, start, end)
        if start < 0:
            return MALFORMED, at
        if tag == 0x08:
            kind, start = get_varint(data, start, end)
        elif tag == 0x18:
            text, start = get_varint(data, start, end)
        elif tag == 0x20:
            unit, start = get_varint(data, start, end)
        else:
            start = skip(data, start, end, tag)
        if start < 0:
            return MALFORMED, at
    if text < 0 or text >= n_symbols or unit < 0 or unit >= n_symbols:
        return BAD_SYMBOL, at
    if metric < 0 or (kind == 0 and text == 0 and unit == 0):
        return OK, at
    first = symbols[metric, 0]
    last = symbols[metric, 1]
    if _HISTOGRAM <= kind <= _SUMMARY:
        if _is(data, max(first + 1, last - len(_BUCKET)), last, _BUCKET):
            last -= len(_BUCKET)
        elif _is(data, max(first + 1, last - len(_COUNT)), last, _COUNT):
            last -= len(_COUNT)
        elif _is(data, max(first + 1, last - len(_SUM)), last, _SUM):
            last -= len(_SUM)
    mark = _hash(data, first, last, _FNV_OFFSET ^ salt ^ np.uint64(kind))
    mark = _hash(data, symbols[text, 0], symbols[text, 1], mark)
    mark = _hash(data, symbols[unit, 0], symbols[unit, 1], mark) | np.uint64(1)
    place = np.int64(mark >> np.uint64(32)) & (len(seen) - 1)
    if seen[place] == mark:
        return OK, at
    seen[place] = mark
    room = 64 + last - first + symbols[text, 1] - symbols[text, 0] + symbols[unit, 1] - symbols[unit, 0]
    if room > len(out) - at:
        return TOO_LARGE, at
    begin = _begin(out, at, 0x1A)
    out[begin] = 0x08
    # Types that 1.0 does not know are as good as none.
    at = put_uvarint(out, begin + 1, np.uint64(kind if 0 <= kind < 128 else 0))
    at = _put_bytes(out, at, 0x12, data, first, last)
    at = _put_bytes(out, at, 0x22, data, symbols[text, 0], symbols[text, 1])
    at = _put_bytes(out, at, 0x2A, data, symbols[unit, 0], symbols[unit, 1])
    _finish(out, begin, at)
    return OK, at


@device
def _series(data, start, end, symbols, n_symbols, seen, salt, out, at):
    """Write a series and its metadata. Returns status and position."""
    begin = _begin(out, at, 0x0A)
    if begin < 0:
        return TOO_LARGE, at
    status, at, metric = _labels(data, start, end, symbols, n_symbols, out, begin)
    if status != OK:
        return status, at
    metadata = np.int64(-1)
    metadata_end = np.int64(-1)
    here = start
    while here < end:
        tag, here = get_varint(data, here, end)
        number = tag >> 3
        if number < 2 or number > 5:
            here = skip(data, here, end, tag)
            continue
        first, here = _content(data, here, end, tag)
        if here < 0:
            return MALFORMED, at
        if number == 5:
            metadata = first
            metadata_end = here
        elif number == 4:
            status, at = _exemplar(data, first, here, symbols, n_symbols, out, at)
            if status != OK:
                return status, at
        else:
            if here - first + 16 > len(out) - at:
                return TOO_LARGE, at
            at = _put_bytes(out, at, 0x12 if number == 2 else 0x22, data, first, here)
    _finish(out, begin, at)
    if metadata >= 0:
        return _metadata(data, metadata, metadata_end, symbols, n_symbols, metric, seen, salt, out, at)
    return OK, at


@kernel("int64(uint8[::1], int64, int64[:, ::1], uint64[::1], uint64, uint8[::1], int64[::1])")
def transcode(data, size, symbols, seen, salt, out, numbers):
    """Write a request as a WriteRequest of 1.0.

    data: the request in its first `size` bytes. symbols: int64 (n, 2), as `find_symbols` found them.
    seen: uint64, a power of two of places, marks of metadata that need not be written again; changed.
    salt: of the tenant, whose marks are not those of others.
    out: uint8, limits the size of the result. numbers: int64 (N_NUMBERS,), written: the result's SIZE, and where
        the field at fault begins.
    """
    at = np.int64(0)
    here = np.int64(0)
    while here < size:
        numbers[ERROR_AT] = here
        tag, here = get_varint(data, here, size)
        if tag >> 3 != 5:
            here = skip(data, here, size, tag)
            continue
        start, here = _content(data, here, size, tag)
        if here < 0:
            return MALFORMED
        status, at = _series(data, start, here, symbols, np.int64(len(symbols)), seen, salt, out, at)
        if status != OK:
            return status
    numbers[SIZE] = at
    return OK
