"""How the page's files are served."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tabor.page.routes import PAGES, STATIC, names, router

MAX_BYTES = 600_000


def ask(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(router())
    shown = {name.replace("_", "-"): text for name, text in headers.items()}

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tabor") as client:
            return await client.request(method, path, headers=shown)

    return asyncio.run(send())


def shipped(name: str) -> bytes:
    return gzip.decompress((STATIC / f"{name}.gz").read_bytes())


@pytest.mark.parametrize("path", PAGES)
def test_every_view_is_the_page_and_is_asked_for_again(path: str) -> None:
    answer = ask(path)
    assert answer.content == shipped("index.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/static/icon.svg", "/static/nothing"])
def test_no_script_and_no_style_but_its_own_runs_in_the_page(path: str) -> None:
    policy = ask(path).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert ask(path).headers["x-content-type-options"] == "nosniff"
    assert ask(path).headers["referrer-policy"] == "no-referrer"


def test_the_page_refers_to_files_that_are_there_and_may_be_kept_for_ever() -> None:
    found = re.findall(r'(?:src|href)="static/([^"]+)"', shipped("index.html").decode())
    assert {Path(name).suffix for name in found} == {".js", ".css", ".svg"}
    for name in found:
        answer = ask(f"/static/{name}")
        assert answer.content == shipped(name)
        kept = "no-cache" if name.endswith(".svg") else "public, max-age=31536000, immutable"
        assert answer.headers["cache-control"] == kept


def test_nothing_in_the_page_is_inline_or_from_elsewhere() -> None:
    html = shipped("index.html").decode()
    assert not re.search(r"<style|<script(?![^>]* src=)|\son\w+=|\sstyle=|//", html)


def test_files_are_sent_compressed_unless_the_client_cannot_take_it() -> None:
    whole = ask("/", accept_encoding="gzip, br")
    plain = ask("/", accept_encoding="identity")
    assert whole.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert whole.content == plain.content
    assert "content-encoding" not in ask("/", accept_encoding="gzip;q=0").headers


def test_what_the_browser_has_already_is_not_sent_again() -> None:
    etag = ask("/").headers["etag"]
    again = ask("/", if_none_match=f'"other", W/{etag}')
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == etag
    assert ask("/", if_none_match='"other"').status_code == 200


def test_head_has_the_headers_alone() -> None:
    assert int(ask("/", "HEAD").headers["content-length"]) > 100


@pytest.mark.parametrize("name", ["nothing.js", "..%2froutes.py", "%2e%2e%2froutes.py", "index.html.gz", "%00"])
def test_nothing_but_the_shipped_files_is_served(name: str) -> None:
    assert ask(f"/static/{name}").status_code == 404


def test_all_of_it_is_small() -> None:
    sizes = {name: (STATIC / f"{name}.gz").stat().st_size for name in names()}
    assert sum(sizes.values()) <= MAX_BYTES, sizes
