"""`tabor tenant` against a running `tabor run` with tenants, and what the command says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import Process, free_port


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tenants")
    port = free_port()
    address = f"127.0.0.1:{port}"
    limits = folder / "limits.toml"
    limits.write_text("[tenants.small]\nmax_active_series = 1\n")
    arguments = ["--listen", address, "--tenancy", "required", "--tenant-limits", str(limits), "--partitions", "2"]
    command = [sys.executable, "-m", "tabor", "run", "--data-dir", str(folder / "data"), *arguments]
    server = Process("tabor", command, folder, port)
    try:
        server.start_and_wait()
        yield f"http://{address}"
    finally:
        server.stop()


def send(url: str, tenant: str, n_series: int) -> httpx.Response:
    text = "".join(f'up{{i="{i}"}} {i} {1000 * t}\n' for i in range(n_series) for t in range(5))
    return httpx.post(f"{url}/api/v1/import/prometheus", content=text, headers={"X-Scope-OrgID": tenant})


def tabor(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tabor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, check=False, timeout=120)


def listed(url: str) -> dict[str, tuple[int, ...]]:
    answer = tabor("tenant", "usage", "--url", url, "--json")
    assert answer.returncode == 0, answer.stderr
    return {row["tenant"]: (row["series"], row["samples"]) for row in json.loads(answer.stdout)}


def requests(url: str) -> float:
    """How many deletions of tenants have been asked for."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    counted = [line for line in lines if "requests_total{" in line and "delete_tenant" in line]
    return sum(float(line.split()[-1]) for line in counted)


def test_tenants_are_listed_counted_and_deleted(url: str) -> None:
    for tenant, n_series in (("a", 3), ("b", 4)):
        assert send(url, tenant, n_series).status_code == 204
    assert "its tenant has 1 active series already" in send(url, "small", 2).text
    assert listed(url) == {"a": (3, 15), "b": (4, 20), "small": (1, 5)}
    lines = tabor("tenant", "list", "--url", url).stdout.splitlines()
    assert [line.split() for line in lines] == [["tenant", "series"], ["a", "3"], ["b", "4"], ["small", "1"]]

    refused = tabor("tenant", "delete", "a", "--url", url)
    assert (refused.returncode, refused.stderr.count("give --yes")) == (1, 1)
    assert listed(url)["a"] == (3, 15)

    deleted = tabor("tenant", "delete", "a", "--url", url, "--yes")
    assert deleted.returncode == 0, deleted.stderr
    assert "tenant a is deleted" in deleted.stderr
    assert listed(url) == {"b": (4, 20), "small": (1, 5)}
    # Every ingest that is named is asked.
    asked = requests(url)
    both = tabor("tenant", "delete", "a", "--url", url, "--ingest-url", f"{url},{url}", "--yes")
    assert both.returncode == 0, both.stderr
    assert requests(url) == asked + 2
    unknown = tabor("tenant", "usage", "a", "--url", url)
    assert (unknown.returncode, "there is no tenant 'a'" in unknown.stderr) == (1, True)
    nonsense = tabor("tenant", "delete", "a/b", "--url", url, "--yes")
    assert (nonsense.returncode, "is not the name of a tenant" in nonsense.stderr) == (1, True)


def test_export_and_import_are_for_a_tenant(url: str, tmp_path: Path) -> None:
    assert send(url, "from", 2).status_code == 204
    file = tmp_path / "all.parquet"
    every = ["--match", '{__name__=~".+"}', "--format", "parquet", "--output", str(file)]
    exported = tabor("export", "--url", url, "--tenant", "from", *every)
    assert "10 samples exported" in exported.stderr
    assert tabor("import", "--url", url, "--tenant", "to", str(file)).returncode == 0
    assert listed(url)["to"] == (2, 10)
    refused = tabor("export", "--url", url, *every)
    assert (refused.returncode, "X-Scope-OrgID is missing" in refused.stderr) == (1, True)


def test_a_file_of_limits_that_is_wrong_or_has_no_tenants_is_said_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[limits]\nmax_sereis = 3\n")
    where = ["--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--tenant-limits", str(file)]
    wrong = tabor("run", *where, "--tenancy", "optional")
    assert (wrong.returncode, "[limits] has the unknown limit 'max_sereis'" in wrong.stderr) == (1, True)
    useless = tabor("run", *where)
    assert (useless.returncode, "--tenant-limits needs tenants" in useless.stderr) == (1, True)
