"""`python -m tests.simulation --seed N [--steps K] [-v]`, or `--runs N` for many seeds."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.simulation.world import DEFAULT_STEPS, Failed, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed; with --runs, the first of them")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument("--runs", type=int, default=1, help="number of seeds, one after another")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell what happens")
    parser.add_argument("--points", action="store_true", help="list where nodes were killed, and how often")
    arguments = parser.parse_args()
    first = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    failed = 0
    crashes: Counter[str] = Counter()
    visits: Counter[str] = Counter()
    started_s = time.monotonic()
    for seed in range(first, first + arguments.runs):
        world = World(seed, note=print if arguments.verbose else lambda text: None)
        try:
            world.run(arguments.steps)
        except Failed as error:
            failed += 1
            print(error, flush=True)
            if arguments.runs == 1:
                raise
        for node in world.nodes:
            crashes += node.crashes
            visits += node.visits
    if arguments.points:
        for point, count in sorted(visits.items()):
            print(f"{crashes[point]:6} of {count:8} {point}")
    elapsed_s = time.monotonic() - started_s
    print(f"seeds {first} to {first + arguments.runs - 1}: {failed} failed, {elapsed_s:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
