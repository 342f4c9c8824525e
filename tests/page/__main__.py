"""`make screenshots`: the pictures of the page in docs/images, of made-up metrics."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from tests.page import demo
from tests.page.browser import NARROW, ROOT, Browser, browser
from tests.processes import running, tabor_run

IMAGES = ROOT / "docs" / "images"
SIZE = 1200, 800


def main() -> None:
    end_s = int(time.time())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = tabor_run(folder)
        with running(server), browser(f"http://127.0.0.1:{server.port}/", folder) as page:
            server.start_and_wait()
            headers = {"Content-Type": "application/openmetrics-text"}
            status, _ = server.request("POST", "/api/v1/import/prometheus", demo.openmetrics(end_s), headers)
            assert status == 204
            IMAGES.mkdir(exist_ok=True)
            take(page, end_s)


def take(page: Browser, end_s: int) -> None:
    """All pictures."""
    requests = "sum by (job, code) (rate(http_requests_total[5m]))"
    memory = "node_memory_used_bytes"
    buckets = 'sum by (le) (rate(http_request_duration_seconds_bucket{job="shop"}[5m]))'
    common = [("range", "6h"), ("end", str(end_s)), ("utc", "1")]
    picture(page, "query-light", "light", SIZE, [("e", requests), ("m", "graph"), *common], ".chart canvas")
    both = [("e", buckets), ("e", memory), ("m", "heatmap"), ("m", "stacked")]
    picture(page, "query-dark", "dark", SIZE, [*both, *common], ".chart canvas")
    picture(page, "query-narrow", "light", NARROW, [("e", requests), ("m", "graph"), *common], ".chart canvas")
    for name, shown in (("cardinality", "meter"), ("cluster", "table.grid"), ("status", "section.card meter")):
        picture(page, name, "light", SIZE, [("utc", "1")], shown, name)


def picture(
    page: Browser,
    name: str,
    scheme: str,
    size: tuple[int, int],
    query: list[tuple[str, str]],
    shown: str,
    path: str = "",
) -> None:
    page.size(*size)
    page.scheme(scheme)
    page.open(path + (f"?{urlencode(query)}" if query else ""))
    page.find(shown)
    page.wait(lambda: not page.all(".shown.stale"), "everything is there")
    page.driver.save_screenshot(str(IMAGES / f"{name}.png"))
    print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
