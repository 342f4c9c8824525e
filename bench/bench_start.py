"""Start of `tabor run` on an empty folder: seconds from exec until /-/ready answers 200.

    python -m bench.bench_start [--rounds 9]

One start before those that count compiles kernels and modules if need be and warms the page cache; so
PYTHONDONTWRITEBYTECODE must not be set, or every start compiles Tabor's modules anew.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.servers import tabor


def bench(rounds: int) -> list[float]:
    """Seconds of each start, ascending."""
    seconds = []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            server = tabor(Path(folder))
            try:
                seconds.append(server.start())
                server.stop()
            finally:
                server.kill()
    return sorted(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    seconds = bench(parser.parse_args().rounds)
    print(f"ready after {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f})")


if __name__ == "__main__":
    main()
