"""An S3 server for tests: moto's, in a process of its own on the loopback interface; its objects are in memory."""

from __future__ import annotations

import contextlib
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Process, free_port, running

BUCKET = "metrics"


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Gives the environment by which a client reaches it; it has a bucket BUCKET."""
    port = free_port()
    server = Process("s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], folder, port)
    with running(server):
        server.start_and_wait("/moto-api/")
        url = f"http://127.0.0.1:{port}"
        made = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")  # noqa: S310
        urllib.request.urlopen(made, timeout=10).close()  # noqa: S310
        yield {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
