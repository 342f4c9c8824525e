"""A real Chromium, as Debian has it, driven over WebDriver."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement

ROOT = Path(__file__).parents[2]
WIDE, NARROW = (1280, 900), (360, 760)
_WAIT_S = 20.0
_AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def modules() -> Path:
    """The page's npm packages, installed as the lock file has them, once for all processes of a test run."""
    if shutil.which("npm") is None:
        pytest.fail("npm is missing (Debian: nodejs npm); the page cannot be built and checked without it")
    with (ROOT / "ui" / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", "ui/node_modules/.stamp"], cwd=ROOT, check=True)
    return ROOT / "ui" / "node_modules"


class Browser:
    """One window. Waits for what it is asked for; see `errors` for what went wrong in it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self._axe = (modules() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """What the system prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)
        self.find("main")

    def all(self, css: str, text: str = "") -> list[WebElement]:
        """Elements that are shown and have the text."""
        found = self.driver.find_elements("css selector", css)
        return [one for one in found if one.is_displayed() and (not text or text in _text_of(one))]

    def find(self, css: str, text: str = "") -> WebElement:
        found: WebElement = self.wait(lambda: next(iter(self.all(css, text)), None), f"{css} {text}")
        return found

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = _WAIT_S) -> Any:
        """As `tests.processes.wait_for`; elements may be replaced meanwhile."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(StaleElementReferenceException):
                if value := condition():
                    return value
            time.sleep(0.02)
        page = self.driver.find_element("css selector", "body").text
        raise AssertionError(f"not within {timeout_s} s: {what}; the page reads:\n{page[:3000]}\n{self.errors()}")

    def gone(self, css: str, text: str = "") -> None:
        self.wait(lambda: not self.all(css, text), f"no {css} {text}")

    def click(self, css: str, text: str = "") -> None:
        self.find(css, text).click()

    def button(self, name: str) -> None:
        """Press a button by its accessible name or its text."""

        def named() -> WebElement | None:
            buttons = self.all("button")
            return next((one for one in buttons if name in (one.accessible_name, one.text.strip())), None)

        self.wait(named, f"a button {name!r}").click()

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def editor(self, number: int = 1) -> WebElement:
        """Where the expression is typed; it is in a shadow root."""
        self.wait(lambda: len(self.all(".editor-host")) >= number, f"editor {number}")
        host = self.all(".editor-host")[number - 1]
        content: WebElement = host.shadow_root.find_element("css selector", ".cm-content")
        return content

    def in_editor(self, css: str, number: int = 1) -> list[WebElement]:
        host = self.all(".editor-host")[number - 1]
        return list(host.shadow_root.find_elements("css selector", css))

    def run_js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def errors(self, *expected: str) -> list[str]:
        """What the console has complained of since the last call, except lines that hold one of the texts."""
        lines = [
            f"{one['level']} {one['message']}"
            for one in self.driver.get_log("browser")
            if one["level"] in ("SEVERE", "WARNING")
        ]
        return [line for line in lines if not any(text in line for text in expected)]

    def accessibility(self) -> list[str]:
        """Serious and critical violations that axe finds in the page as it is now."""
        self.run_js(f"if (!window.axe) {{ {self._axe} }}")
        options = {"runOnly": _AXE_TAGS, "resultTypes": ["violations"]}
        found = self.driver.execute_async_script(
            "const done = arguments[1]; axe.run(document, arguments[0]).then((r) => done(r.violations));", options
        )
        return [
            f"{one['impact']} {one['id']}: {one['help']}; {[node['target'] for node in one['nodes'][:5]]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def overflows(self) -> bool:
        """Whether the page is wider than its window."""
        return bool(self.run_js("return document.documentElement.scrollWidth > window.innerWidth"))


def _text_of(element: WebElement) -> str:
    return element.text or element.get_attribute("value") or ""


@contextlib.contextmanager
def browser(url: str, folder: Path) -> Iterator[Browser]:
    """A browser that knows nothing yet. url: where its paths begin, with a slash at its end."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.fail("chromium or chromedriver is missing (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        # Root, and containers, have no sandbox; only our own page is opened.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        started = webdriver.Chrome(options, Service(driver))
    except WebDriverException as error:
        pytest.fail(f"chromium does not start: {error}")
    try:
        started.command_executor.client_config.timeout = 60  # type: ignore[attr-defined]
        yield Browser(started, url)
    finally:
        started.quit()
