"""Chunk codec: bytes a sample, encoding, decoding, and the time to compile it.

    python -m bench.bench_codec [--small] [--compile]

Loads are synthetic, with fixed seeds; times are the best of several runs on one thread. Decoding is from blocks in
memory to columns of timestamps and values.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from storage_node.blocks import block_rows, count_samples, decode_samples, encode_blocks

START = 1_790_000_000_000
RUNS = 7


def loads(scale: int) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Timestamps and values (n_rows, n_samples) by name."""
    random = np.random.default_rng(1)

    def regular(n_rows: int, n_samples: int) -> NDArray[np.int64]:
        return np.tile(START + 15000 * np.arange(n_samples, dtype=np.int64), (n_rows, 1))

    def counter(n_rows: int, n_samples: int) -> NDArray[np.int64]:
        starts = random.integers(0, 10**6, (n_rows, 1))
        return np.asarray(starts + np.cumsum(random.integers(0, 1000, (n_rows, n_samples)), axis=1))

    seldom = np.cumsum(random.integers(0, 20, (20 * scale, 120)) == 0, axis=1).astype(np.float64)
    gauges = (4096 * random.integers(10**5, 10**5 + 500, (20 * scale, 120))).astype(np.float64)
    noise = np.cumsum(random.normal(size=(2 * scale, 1440)), axis=1)
    jitter = regular(20 * scale, 120) + random.integers(0, 4, 120) + random.integers(0, 15000, (20 * scale, 1))
    return {
        "counter, 2 decimals, 1440 samples": (regular(2 * scale, 1440), counter(2 * scale, 1440) / 100),
        "counter, 120 samples": (regular(20 * scale, 120), counter(20 * scale, 120).astype(np.float64)),
        "counter, 120 samples, jitter": (jitter, counter(20 * scale, 120).astype(np.float64)),
        "counter, seldom moving, 120 samples": (regular(20 * scale, 120), seldom),
        "gauge of pages, 120 samples": (regular(20 * scale, 120), gauges),
        "noise, 1440 samples": (regular(2 * scale, 1440), noise),
        "counter, 8 samples": (regular(200 * scale, 8), counter(200 * scale, 8).astype(np.float64)),
    }


def best_s(run: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def bench(scale: int) -> str:
    """Print a line for each load; returns a checksum of the encoded bytes."""
    checksum = hashlib.blake2b(digest_size=8)
    print(f"{'load':<38}{'B/sample':>9}{'encode':>16}{'decode':>14}{'count':>16}")
    for name, (times, values) in loads(scale).items():
        n_rows, n_samples = values.shape
        offsets = np.arange(n_rows + 1, dtype=np.int64) * n_samples
        snos, flat = np.arange(n_rows, dtype=np.uint32), np.ascontiguousarray(times).ravel()
        bits = np.ascontiguousarray(values).ravel().view(np.uint64)
        encoded = encode_blocks(snos, offsets, flat, bits)
        encode_s = best_s(lambda snos=snos, o=offsets, t=flat, b=bits: encode_blocks(snos, o, t, b))  # type: ignore[misc]
        blocks = [encoded.data[a:b] for a, b in pairwise(encoded.starts.tolist())]
        wanted, cursor = np.arange(n_rows, dtype=np.int32), offsets[:-1].copy()
        times_out, bits_out = np.empty_like(flat), np.empty_like(bits)

        def decode(blocks=blocks, w=wanted, c=cursor, o=offsets, t=times_out, b=bits_out) -> None:  # type: ignore[no-untyped-def]
            c[:] = o[:-1]
            decode_samples(blocks, w, START, 2 * START, c, t, b)

        decode_s = best_s(decode)
        assert np.array_equal(times_out, flat)
        assert np.array_equal(bits_out, bits)
        counts = np.zeros(n_rows, np.int64)
        count_s = best_s(lambda b=blocks, w=wanted, c=counts: count_samples(b, w, START, 2 * START, c))  # type: ignore[misc]
        checksum.update(encoded.data + block_rows(blocks).n_samples.tobytes())
        print(
            f"{name:<38}{len(encoded.data) / len(flat):>9.3f}{1e9 * encode_s / len(flat):>9.1f} ns/smp"
            f"{len(flat) / decode_s / 1e6:>9.0f} M/s{1e9 * count_s / n_rows:>9.1f} ns/chk",
            flush=True,
        )
    return checksum.hexdigest()


def compile_afresh() -> None:
    """Print how long each kernel takes to compile, with nothing cached."""
    from common.kernels import block

    with tempfile.TemporaryDirectory(prefix="tabor-bench-") as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder
        start = time.perf_counter()
        import numba  # noqa: F401

        print(f"{'import numba':<38}{time.perf_counter() - start:>9.2f} s")
        for kernel in (block.encode, block.rows, block.count, block.decode, block.finish):
            start = time.perf_counter()
            kernel.compile()
            print(f"{kernel.name:<38}{time.perf_counter() - start:>9.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a fiftieth of the data")
    parser.add_argument("--compile", action="store_true", help="compile afresh first, and say how long it takes")
    arguments = parser.parse_args()
    if arguments.compile:
        compile_afresh()
    print(f"checksum {bench(10 if arguments.small else 500)}")


if __name__ == "__main__":
    main()
