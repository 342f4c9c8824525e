"""Samples as JSON text in Prometheus' form: `[[1435781430,"1"],[1435781445.001,"0.5"]]`."""

from __future__ import annotations

from common.kernels.jit import device, kernel

POINT_BYTES = 80
"""Upper limit of the text of one point: 26 of time, 48 of value, punctuation."""


@device
def write_uint(out, at, value):
    """Write a non-negative int64 in decimal; returns the position behind it."""
    digits = 1
    rest = value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for i in range(digits):
        out[at + digits - 1 - i] = 48 + value % 10
        value //= 10
    return at + digits


@device
def write_time(out, at, time_ms):
    """Seconds, with three decimals only where there are milliseconds."""
    if time_ms < 0:
        out[at] = 45
        at += 1
        if time_ms == -9223372036854775808:
            time_ms += 1  # has no positive twin; one millisecond off after 292 million years
        time_ms = -time_ms
    at = write_uint(out, at, time_ms // 1000)
    fraction = time_ms % 1000
    if fraction != 0:
        out[at] = 46
        out[at + 1] = 48 + fraction // 100
        out[at + 2] = 48 + fraction // 10 % 10
        out[at + 3] = 48 + fraction % 10
        at += 4
    return at


@device
def write_number(out, at, tokens, start, end, digits):
    """Rewrite a JSON number as Go prints it: plain for 1e-6 <= |v| < 1e21, else with an exponent.

    `digits` is scratch of at least 32 bytes.
    """
    i = start
    if tokens[i] == 45:
        out[at] = 45
        at += 1
        i += 1
    n = 0  # significant digits, without leading zeros
    point = 0  # position of the decimal point relative to the first significant digit
    seen_point = False
    exponent = 0
    while i < end:
        c = tokens[i]
        if c == 46:
            seen_point = True
        elif c == 101 or c == 69:
            i += 1
            negative = tokens[i] == 45
            if tokens[i] == 45 or tokens[i] == 43:
                i += 1
            while i < end:
                exponent = exponent * 10 + (tokens[i] - 48)
                i += 1
            if negative:
                exponent = -exponent
            break
        else:
            if n > 0 or c != 48:
                digits[n] = c
                n += 1
                if not seen_point:
                    point += 1
            elif seen_point:
                point -= 1
        i += 1
    while n > 0 and digits[n - 1] == 48:
        n -= 1
    if n == 0:
        out[at] = 48
        return at + 1
    point += exponent
    if point > 21 or point < -5:
        out[at] = digits[0]
        at += 1
        if n > 1:
            out[at] = 46
            at += 1
            for k in range(1, n):
                out[at] = digits[k]
                at += 1
        out[at] = 101
        exponent = point - 1
        out[at + 1] = 45 if exponent < 0 else 43
        at += 2
        exponent = abs(exponent)
        if exponent < 10:
            out[at] = 48
            at += 1
        return write_uint(out, at, exponent)
    if point <= 0:
        out[at] = 48
        out[at + 1] = 46
        at += 2
        for _ in range(-point):
            out[at] = 48
            at += 1
        for k in range(n):
            out[at] = digits[k]
            at += 1
        return at
    for k in range(max(n, point)):
        if k == point:
            out[at] = 46
            at += 1
        out[at] = digits[k] if k < n else 48
        at += 1
    return at


@kernel("int64(int64[::1], int64[::1], float64[::1], uint8[::1], uint8[::1], uint8[::1], int64[::1])")
def write_points(offsets, timestamps, values, tokens, digits, out, ends):
    """Write the points of every row one after another, without the brackets around a row.

    offsets: int64 (n_rows + 1,) into timestamps and values. tokens: the values as a JSON array of numbers,
    null for those that are not finite. out: uint8, POINT_BYTES a point. ends: int64 (n_rows,), set to the end of
    each row's text. Returns the length of the text.
    """
    at = 0
    token = 1
    for row in range(offsets.size - 1):
        for i in range(offsets[row], offsets[row + 1]):
            end = token
            while tokens[end] != 44 and tokens[end] != 93:
                end += 1
            if i > offsets[row]:
                out[at] = 44
                at += 1
            out[at] = 91
            at = write_time(out, at + 1, timestamps[i])
            out[at] = 44
            out[at + 1] = 34
            at += 2
            value = values[i]
            if value != value:
                out[at] = 78
                out[at + 1] = 97
                out[at + 2] = 78
                at += 3
            elif tokens[token] == 110:
                out[at] = 43 if value > 0 else 45
                out[at + 1] = 73
                out[at + 2] = 110
                out[at + 3] = 102
                at += 4
            else:
                at = write_number(out, at, tokens, token, end, digits)
            out[at] = 34
            out[at + 1] = 93
            at += 2
            token = end + 1
        ends[row] = at
    return at
