"""Break a cluster on purpose: `python -m tests.cluster [SCENARIO …]`.

Starts 3 brokers, 2 ingestors, 5 storage nodes and 2 query servers, writes and asks all the time, and does to them
what the scenarios say. Exits with 1 if a sample is lost or doubled, an answer is wrong, or a query fails that
should not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tabor import kernels
from tests.cluster.checker import Checker
from tests.cluster.cluster import Cluster
from tests.cluster.hosts import Loopback, Namespaces, Network, why_no_namespaces
from tests.cluster.scenarios import OF_THE_NETWORK, SCENARIOS, Run


def main() -> int:
    # So that all is ended and removed, whoever ends this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    epilog = "scenarios: " + ", ".join(SCENARIOS)
    parser = argparse.ArgumentParser("python -m tests.cluster", description=__doc__, epilog=epilog)
    parser.add_argument("scenario", nargs="*", help="all by default")
    parser.add_argument("--loopback", action="store_true", help="without network namespaces and their faults")
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="keep logs, data and the history in this folder")
    arguments = parser.parse_args()
    wanted = arguments.scenario or list(SCENARIOS)
    for name in wanted:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}; choose from {', '.join(SCENARIOS)}")
    network, left_out = choose_network(arguments.loopback)
    if left_out:
        skipped = [name for name in wanted if name in OF_THE_NETWORK]
        if skipped:
            print(f"LEFT OUT for want of {left_out}: {', '.join(skipped)}", flush=True)
        wanted = [name for name in wanted if name not in OF_THE_NETWORK]
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="tabor-cluster-"))
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(
        network,
        folder,
        n_brokers=arguments.brokers,
        n_nodes=arguments.nodes,
        partitions=arguments.partitions,
    )
    try:
        return run(cluster, wanted, folder)
    finally:
        cluster.close()
        network.close()
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def choose_network(loopback: bool) -> tuple[Network, str]:
    """The network, and what faults of the network are left out for."""
    missing = "a network of their own (--loopback)" if loopback else why_no_namespaces()
    if missing is not None:
        return Loopback(), missing
    network = Namespaces()
    # This process asks the servers, so it is one of the hosts.
    enter(network.host("checker").prefix[-1])
    return network, ""


def enter(space: str) -> None:
    """Go into a network namespace with this process; threads and children come after."""
    import ctypes

    with Path(f"/run/netns/{space}").open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {space}")


def run(cluster: Cluster, wanted: list[str], folder: Path) -> int:
    kernels.ensure()
    begin_s = time.monotonic()
    cluster.start()
    print(f"the cluster runs after {time.monotonic() - begin_s:.1f} s", flush=True)
    checker = Checker([one.endpoint for one in cluster.ingestors], [query.endpoint for query in cluster.queries])
    checker.start()
    failed: list[str] = []
    try:
        checker.wait_for_progress(2_000)
        state = Run(cluster, checker)
        for name in wanted:
            print(f"{name}: {(SCENARIOS[name].__doc__ or '').splitlines()[0]}", flush=True)
            SCENARIOS[name](state)
    except AssertionError as error:
        failed.append(f"{error}")
    finally:
        checker.stop()
    try:
        total = [checker.verify(query.endpoint) for query in cluster.queries]
        cluster.assert_equal_digests()
        if not failed:
            print(
                f"{checker.total_acknowledged():,} samples acknowledged, {total[0]:,} found, none lost, doubled or"
                f" foreign; digests equal; longest write {checker.longest_write_s:.1f} s;"
                f" {time.monotonic() - begin_s:.0f} s in all",
                flush=True,
            )
    except AssertionError as error:
        failed.append(str(error))
    for reason in failed:
        print(f"FAILED: {reason}", file=sys.stderr, flush=True)
    if failed:
        history = Path(tempfile.gettempdir()) / f"tabor-cluster-history-{os.getpid()}.jsonl"
        checker.save(history)
        print(f"the history is in {history.resolve()}", file=sys.stderr)
        for service in cluster.services:
            print(f"--- {service.name}\n{service.output[-1500:]}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
