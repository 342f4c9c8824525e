"""Where `tabor backup` reads from: a running server, a cluster, or a folder that nobody serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common.calling import SECURE, Caller
from common.errors import RetryableError, StartupError
from common.log.url import has_secrets, open_log, redact
from storage_node.assignment import sources_of
from storage_node.backup.source import Frozen, of_node, of_this_process
from storage_node.config import NodeConfig
from storage_node.copies import Copies
from storage_node.service import StorageNode
from tabor.cluster.reading import reading
from tabor.folder import DataFolder
from tabor.remote import what_to_look_at

LOCAL_NODE = "local"
"""Name of the node inside of `tabor run`."""
_READY_S = 3600.0
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Source:
    """partitions: of the log. freeze: a partition as it is when it is called; raises RetryableError."""

    partitions: int
    freeze: Callable[[int], Frozen]


@contextmanager
def of_server(url: str, caller: Caller) -> Iterator[Source]:
    """A running `tabor run`. Raises RetryableError, StartupError."""
    import httpx

    parts = urlsplit(url)
    if has_secrets(url):
        raise StartupError(
            f"--url {redact(url)!r} has credentials in it, where others can see them; give --token-file"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise StartupError(f"{url!r} is no URL of a server; give http://host:port or https://host:port")
    address = (SECURE if parts.scheme == "https" else "") + parts.netloc
    try:
        answer = httpx.get(
            caller.url(address, "/api/v1/status/partitions"),
            headers=caller.headers(),
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=caller.context(),
        )
    except httpx.HTTPError as error:
        problem = str(error).rstrip(".") or type(error).__name__
        raise RetryableError(f"no answer from {url}: {problem}; {what_to_look_at(url, error)}") from None
    if answer.status_code != 200:
        raise RetryableError(f"{url} answers with HTTP status {answer.status_code}: {answer.text[:300].strip()}")
    status: Any = answer.json()
    partitions = len(status["data"]["partitions"])
    yield Source(partitions, lambda partition: of_node(caller, LOCAL_NODE, address, partition))


@contextmanager
def of_cluster(log_url: str, caller: Caller) -> Iterator[Source]:
    """The storage nodes of a cluster: each partition is read from one that has all of it. Raises TaborError."""
    with reading(log_url) as cluster:

        def freeze(partition: int) -> Frozen:
            error: RetryableError = RetryableError(f"no node has partition {partition}")
            for member in sources_of(partition, "", cluster.live()):
                try:
                    return of_node(caller, member.name, member.address, partition)
                except RetryableError as refused:
                    error = refused
            raise error

        yield Source(cluster.layout().partitions, freeze)


@contextmanager
def of_folder(data_dir: Path) -> Iterator[Source]:
    """A data folder of `tabor run` that nobody serves: what its log has is applied first. Raises StartupError."""
    if not data_dir.is_dir():
        raise StartupError(f"there is no folder {data_dir}")
    with DataFolder(data_dir):
        log = open_log("local", data_dir=data_dir, partitions=None, create=False)
        try:
            from storage_node.views import kept, views_folder

            config = NodeConfig(LOCAL_NODE, data_dir, "local", kept(views_folder(data_dir)).retention_ms)
            node = StorageNode(log, config)
            node.start()
            try:
                _wait_ready(node)
                copies = Copies(lambda: node.views, float("inf"))
                yield Source(log.partitions, lambda partition: of_this_process(copies, LOCAL_NODE, partition))
            finally:
                node.close()
        finally:
            log.close()


def _wait_ready(node: StorageNode) -> None:
    deadline = time.monotonic() + _READY_S
    pause = threading.Event()
    while not node.is_ready():
        if (reason := node.healthy()) is not None or time.monotonic() > deadline:
            raise StartupError(f"the log cannot be applied: {reason or 'it takes too long'}")
        pause.wait(0.05)
