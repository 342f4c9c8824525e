"""The page at `/` in a real Chromium: loaded, and clicked through."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

import bcrypt
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from common.log.base import LOCAL_PARTITIONS
from tests.page import demo
from tests.page.browser import NARROW, WIDE, Browser, browser
from tests.processes import Process, running, tabor_run
from tests.unit.ingest.otlp import exponential, point, request

pytestmark = pytest.mark.acceptance

REFUSED = "status of 4"
"""The console tells of every answer that is an error, those of expressions that do not parse yet too."""
OPENMETRICS = {"Content-Type": "application/openmetrics-text"}


@cache
def end_s() -> int:
    """Where the data end: when they are written first, which may be long after this module was imported."""
    return int(time.time())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = tabor_run(tmp_path_factory.mktemp("server"))
    with running(process):
        process.start_and_wait()
        for body in (demo.openmetrics(end_s()), demo.many(1000, end_s())):
            status, answer = process.request("POST", "/api/v1/import/prometheus", body, OPENMETRICS)
            assert status == 204, answer
        status, answer = process.request(
            "POST", "/api/v1/otlp/v1/metrics", native(end_s()), {"Content-Type": "application/x-protobuf"}
        )
        assert status == 200, answer
        yield process


def native(end_s: int) -> bytes:
    """A native histogram over an hour, as OTLP."""
    points = [
        point(
            (end_s - 3600 + 60 * i) * 1000,
            count=str(10 * i),
            sum=2.5 * i,
            scale=2,
            zeroCount="0",
            positive={"offset": -8, "bucketCounts": [str(i), str(4 * i), str(3 * i), str(2 * i)]},
        )
        for i in range(61)
    ]
    return request(exponential("wait", *points)).SerializeToString()


@pytest.fixture(scope="module")
def window(server: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(f"http://127.0.0.1:{server.port}/", tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(window: Browser) -> Iterator[Browser]:
    """The window, wide and light; fails if its console has complained, of the security policy for instance."""
    window.size(*WIDE)
    window.scheme("light")
    yield window
    assert window.errors(REFUSED) == []


def query(*expressions: str, mode: str = "graph", **more: str) -> str:
    return "?" + urlencode(
        [("e", e) for e in expressions] + [("m", mode) for _ in expressions] + list(more.items())
    )


def test_an_expression_is_completed_run_and_kept_in_the_address(page: Browser) -> None:
    page.open("")
    assert page.find(".chip", "http_requests_total")
    page.keys("/")
    page.keys("sum by (job) (rat")
    page.wait(
        lambda: [one for one in page.in_editor(".cm-tooltip-autocomplete li") if one.text.startswith("rate")],
        "functions",
    )
    page.keys("e(http_req")
    page.wait(
        lambda: [
            one for one in page.in_editor(".cm-tooltip-autocomplete li") if "http_requests_total" in one.text
        ],
        "metrics",
    )
    page.keys("uests_total{co")
    page.wait(
        lambda: [one for one in page.in_editor(".cm-tooltip-autocomplete li") if one.text == "code"], "labels"
    )
    assert "range vector" in page.find(".signature").text
    page.keys('de="')
    page.wait(
        lambda: [one for one in page.in_editor(".cm-tooltip-autocomplete li") if one.text == "404"], "values"
    )
    page.keys(Keys.ESCAPE, "500", Keys.END, Keys.ARROW_LEFT, Keys.ARROW_LEFT, "[5m]")
    page.wait(
        lambda: page.editor().text == 'sum by (job) (rate(http_requests_total{code="500"}[5m]))', "what was typed"
    )
    page.keys(Keys.ENTER)
    page.find(".chart canvas")
    cost = page.find(".cost", "series").text
    assert "4 series" in cost
    assert "samples" in cost
    assert "http_requests_total" in page.driver.current_url
    assert [one.text for one in page.all(".legend .name")] == [
        f'{{job="{job}"}}' for job in ("login", "mail", "search", "shop")
    ]


def test_an_error_is_marked_at_its_position(page: Browser) -> None:
    page.open(query("sum(rate(up[5m]) by (job)"))
    assert "1:18: parse error" in page.find(".note.bad").text
    page.wait(lambda: [one.text for one in page.in_editor(".cm-lintRange-error")] == ["by"], "the mark")
    page.open(query('{__name__="ü"} + sum(', range="1h"))
    page.find(".note.bad")
    page.wait(lambda: page.in_editor(".cm-lintRange-error"), "a mark at the end")


def test_all_ways_to_show_a_result(page: Browser) -> None:
    buckets = "sum by (le) (rate(http_request_duration_seconds_bucket[5m]))"
    page.open(query(buckets, "up", range="6h"))
    page.wait(lambda: len(page.all(".chart canvas")) == 2, "two charts")
    for mode in ("Stacked", "Heat map"):
        page.click(".tabs button", mode)
        page.find(f".chart[aria-label^='{mode}'] canvas")
    page.find(".tabs button[aria-pressed=true]", "Heat map")
    page.click(".tabs button", "Table")
    assert '{le="0.1"}' in page.find("table.result").text
    page.driver.back()
    page.find(".chart[aria-label^='Heat map'] canvas")
    page.open(query("up", mode="heatmap"))
    assert "no buckets" in page.find(".empty").text
    page.open(query("up[2m]", mode="table"))
    assert page.find("table.result").text.count("@") == 4 * 4 or "@" in page.find("table.result").text
    page.open(query("rate(wait[5m])", mode="heatmap", range="1h", end=str(end_s())))
    page.find(".chart[aria-label^='Heat map'] canvas")
    page.run_js("document.querySelector('.chart').focus()")
    page.keys(Keys.ARROW_LEFT)
    assert "from 0." in page.find(".tip").text
    page.click(".tabs button", "Table")
    page.click("table.result summary", "count")
    assert len(page.all("table.buckets tr")) == 4
    page.open(query("no_such_metric"))
    assert "No series match" in page.find(".empty").text


def test_dragging_zooms_all_charts_and_going_back_undoes_it(page: Browser) -> None:
    page.open(query("up", "sum(http_requests_total)", range="6h"))
    page.wait(lambda: len(page.all(".u-over")) == 2, "two charts")
    over = page.all(".u-over")[0]
    ActionChains(page.driver).move_to_element_with_offset(over, -100, 0).click_and_hold().move_by_offset(
        200, 0
    ).release().perform()
    page.wait(
        lambda: "end=" in page.driver.current_url and "range=6h" not in page.driver.current_url, "another window"
    )
    assert page.find("input[aria-label^=End]").get_attribute("value")
    page.driver.back()
    page.wait(lambda: page.find("input[aria-label^=Range]").get_attribute("value") == "6h", "six hours again")
    ActionChains(page.driver).move_to_element(page.find(".u-over")).perform()
    assert "up{job=" in page.find(".tip").text
    x = page.run_js("return [...document.querySelectorAll('.u-cursor-x')].map((one) => one.style.transform)")
    assert len(set(x)) == 1, "the cursor of both charts is at the same time"


def test_the_legend_hides_series_by_keyboard_and_the_address_says_so(page: Browser) -> None:
    page.open(query("up"))
    first = page.find(".legend li button")
    page.run_js("arguments[0].focus()", first)
    page.keys(Keys.SPACE)
    page.find(".legend li button[aria-pressed=false]")
    assert "x=" in page.driver.current_url
    page.driver.refresh()
    page.wait(lambda: len(page.all(".legend li button[aria-pressed=false]")) == 1, "it is still hidden")
    page.button("show all")
    page.gone(".legend li button[aria-pressed=false]")
    page.run_js("document.querySelector('.chart').focus()")
    page.keys(Keys.ARROW_LEFT)
    assert "up{job=" in page.find(".tip").text


def test_a_thousand_series_stay_fluid(page: Browser) -> None:
    page.open(query("busy", range="1h", end=str(end_s())))
    over = page.find(".u-over")
    assert "1,000 series" in page.find(".cost", "series").text
    page.run_js(
        "window.frames = []; let last = performance.now();"
        "(function next() { const now = performance.now(); frames.push(now - last); last = now;"
        " requestAnimationFrame(next); })()"
    )
    moves = ActionChains(page.driver, duration=10).move_to_element(over)
    for i in range(25):
        moves.move_by_offset(8, (-1) ** i * 4)
    moves.perform()
    frames = sorted(page.run_js("return frames"))
    # A machine of two cores that does other work, too: alone it is 15 ms.
    assert frames[len(frames) // 2] < 100, frames
    assert "busy{core=" in page.find(".tip").text


def test_history_time_zone_and_theme(page: Browser) -> None:
    page.open(query("up"))
    page.find(".chart canvas")
    page.button("Run")
    page.button("History")
    page.find(".history button", "up").click()
    page.gone("dialog")
    page.open(query("up", end="1790000000", utc="1"))
    assert page.find("input[aria-label^=End]").get_attribute("value") == "2026-09-21 14:13:20"
    background = "return getComputedStyle(document.body).backgroundColor"
    light = page.run_js(background)
    page.button("Dark theme")
    assert page.run_js(background) != light
    page.driver.refresh()
    page.find("button[aria-label='Light theme']").click()
    assert page.run_js(background) == light
    page.run_js("localStorage.removeItem('tabor.theme')")


def test_a_running_query_is_stopped(page: Browser, server: Process) -> None:
    # Many small steps of work, for a query ends between two of them.
    heavy = " + ".join(f"sum(quantile_over_time(0.{i}, busy[30m:10s]))" for i in range(1, 60))
    page.open(query(heavy, range="1h", step="30s", end=str(end_s())))
    page.button("Stop")
    assert page.find(".note").text == "Stopped."
    page.wait(lambda: not server.data("/api/v1/status/queries")["queries"], "the server has stopped, too")


def test_cardinality_leads_to_queries_and_to_the_command_that_deletes(page: Browser) -> None:
    page.open("cardinality")
    page.find(".figure", "1,059 series")
    assert "1,059 series have their first sample" in page.find("section.card", "New series by hour").text
    metrics = page.find("section.card", "Metrics by series")
    assert metrics.find_elements("css selector", "tbody tr")[0].text.startswith("busy 1,000")
    page.click(".name-button", "http_requests_total")
    page.find(".figure", "24 series")
    page.click(".name-button", 'code="404"')
    page.find(".figure", "8 series")
    assert page.find("input.wide").get_attribute("value") == '{__name__="http_requests_total", code="404"}'
    page.button('Delete job="shop" …')
    command = page.find(".copyable pre").text
    selector = '{__name__="http_requests_total", code="404", job="shop"}'
    assert command.startswith("curl -X POST 'http://127.0.0.1:")
    assert command.endswith(f"/api/v1/admin/tsdb/delete_series' --data-urlencode 'match[]={selector}'")
    page.button("Close")
    page.find("a[aria-label='Query job=\"shop\"']").click()
    page.find(".chart canvas")
    assert page.editor().text == f"count({selector})"
    page.open("cardinality?match=%7Ba%3D")
    assert "parse error" in page.find(".note.bad").text


def test_cluster_shows_the_node_its_partitions_and_the_log(page: Browser) -> None:
    page.open("cluster")
    page.find(".note.good", "Every partition has all its replicas")
    page.wait(lambda: len(page.all("table.grid td.lag-0")) == LOCAL_PARTITIONS, "all replicas have caught up")
    page.find("section.card", "Log")
    assert "everything from the start" in page.find("section.card", "In the data folder").text
    views = page.find("section.card", "1,059 series")
    assert len(views.find_elements("css selector", "tbody code")) == LOCAL_PARTITIONS


def test_cluster_shows_how_fast_a_copy_comes_and_how_long_it_will_take(page: Browser) -> None:
    # What a node that is rebuilt would tell, put into the answer of this one.
    copy = {
        "state": "coming",
        "copied_from": "b",
        "copied_bytes": 1_000_000,
        "copied_in_s": 4.0,
        "copy_bytes": 4_000_000,
    }
    from_backup = copy | {"copied_from": "backup 20261128T070000Z", "copy_bytes": None}
    script = """
        const fetched = window.fetch;
        window.fetch = async (...asked) => {
          const answer = await fetched(...asked);
          if (!String(asked[0].url ?? asked[0]).includes("status/cluster")) return answer;
          const body = await answer.json();
          const partitions = body.data.partition_states;
          COPIES.forEach((copy, partition) => Object.assign(partitions[partition].replicas[0], copy));
          return new Response(JSON.stringify(body), { headers: { "content-type": "application/json" } });
        };
    """.replace("COPIES", json.dumps([copy, from_backup]))
    made = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.open("cluster")
        told = page.find("li", "copied from b").text
        assert "1.00 MB of about 4.00 MB are here, 250 kB a second, about 12 s left" in told
        assert page.find("li meter[aria-label='Progress of partition 0']")
        told = page.find("li", "copied from backup 20261128T070000Z").text
        assert told.endswith("1.00 MB are here, 250 kB a second")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def test_status_shows_settings_limits_and_ends_a_query(page: Browser, server: Process) -> None:
    page.open("status")
    page.find(".figure", "tabor run")
    assert "--query-max-samples" in page.find("section.card", "Limits").text
    listen = page.find("section.card", "Settings").find_element("xpath", ".//tr[contains(., '--listen')]")
    assert listen.text.split() == ["--listen", f"127.0.0.1:{server.port}", "flag"]
    started = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    heavy = " + ".join(f"sum(quantile_over_time(0.{i}, busy[30m:10s]))" for i in range(1, 60))
    page.open(query(heavy, range="1h", step="30s", end=str(end_s())))
    running = page.driver.current_window_handle
    page.driver.switch_to.window(started)
    page.find("button.stop", "cancel").click()
    page.find("section.card", "None just now")
    page.driver.switch_to.window(running)
    assert "cancelled by an operator" in page.find(".note.bad").text
    page.driver.close()
    page.driver.switch_to.window(started)


def test_a_server_that_locks_its_door_is_entered_with_a_token_or_a_password(page: Browser, tmp_path: Path) -> None:
    digest, hashed = (
        hashlib.sha256(b"right").hexdigest(),
        bcrypt.hashpw(b"pass\xc3\xa9", bcrypt.gensalt(4)).decode(),
    )
    rules = f"basic_auth_users: {{alice: '{hashed}'}}\n"
    rules += f"tokens:\n  - {{name: grafana, sha256: '{digest}', rights: [read]}}\n"
    (tmp_path / "web.yml").write_text(rules)
    (tmp_path / "web.yml").chmod(0o600)
    locked = tabor_run(tmp_path, "--web-config", str(tmp_path / "web.yml"))
    with running(locked):
        locked.start_and_wait()
        page.driver.get(f"http://127.0.0.1:{locked.port}/status")
        for token in ("wrong", "right"):
            field = page.find("dialog input[type=password]")
            field.send_keys(token)
            page.button("Use these")
            if token == "wrong":
                page.find("dialog .note.bad", "refused")
                assert page.accessibility() == []
        page.find(".figure", "tabor run")
        page.gone("dialog")
        page.driver.refresh()
        page.find(".figure", "tabor run")
        page.button("signed in")
        page.button("Sign out")
        page.find("dialog")
        page.button("User and password")
        page.find("dialog input[autocomplete=username]").send_keys("alice")
        page.find("dialog input[type=password]").send_keys("passé")
        page.button("Use these")
        page.find(".figure", "tabor run")
        page.gone("dialog")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_everyone_can_use_it(page: Browser, scheme: str, size: tuple[int, int]) -> None:
    page.size(*size)
    page.scheme(scheme)
    for path, shown in (
        ("", ".chip"),
        (query("up", "sum by (le) (http_request_duration_seconds_bucket)", range="6h"), ".chart canvas"),
        (query("http_requests_total", mode="table"), "table.result"),
        (query("sum(", mode="table"), ".note.bad"),
        ("cardinality", "meter" if size is WIDE else "td.actions"),
        ("cluster", "table.grid"),
        ("status", "section.card meter"),
    ):
        page.open(path)
        page.find(shown)
        assert page.accessibility() == [], path
        assert not page.overflows(), path
    page.button("Keys")
    assert page.accessibility() == []
