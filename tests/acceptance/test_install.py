"""What is given to users installs with pipx, without a network, and works."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Process, free_port

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
PACKAGES = {"common", "ingest", "query", "storage_node", "tabor"}


def dist(*arguments: str, **environment: str) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "dist.py"), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, built a little later than those of `built_before`."""
    folder = tmp_path_factory.mktemp("dist")
    dist("build", "--to", str(folder))
    return folder


def test_the_same_sources_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    # Another folder, mask and time of the machine; what is built may depend on none.
    before = os.umask(0o077)
    try:
        dist("build", "--to", str(tmp_path), TZ="Asia/Tokyo")
    finally:
        os.umask(before)
    names = sorted(path.name for path in built.iterdir())
    assert len(names) == 2
    for name in names:
        assert (built / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_the_wheel_has_the_product_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert {name.split("/")[0] for name in names} == PACKAGES | {info}
    assert f"{info}/licenses/LICENSE" in names
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", *sorted(PACKAGES)], capture_output=True, text=True, check=True
    )
    # Every file of the packages is in it, those that are no Python too.
    assert {name for name in names if not name.startswith(info)} == set(tracked.stdout.split())


def test_the_sdist_builds_the_same_wheel(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "requirements.lock"} <= set(names)
    assert not any(name.startswith(("tests", "bench", ".")) for name in names)
    wheel = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert {name for name in wheel if ".dist-info/" not in name} <= set(names)


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    """Kept from run to run, as long as the lock is the same; the wheel of Tabor is built anew."""
    digest = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()[:16]
    folder = CACHE / f"wheelhouse-{digest}"
    for old in CACHE.glob("wheelhouse-*"):
        if old != folder:
            shutil.rmtree(old)
    dist("wheelhouse", "--to", str(folder))
    return folder


def without_network() -> list[str]:
    """A prefix of commands that have no network but loopback, where this user may have that."""
    prefix = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    return prefix if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0 else []


@pytest.fixture(scope="module")
def installed(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The program `tabor`, installed by pipx from the wheelhouse alone."""
    home = tmp_path_factory.mktemp("pipx")
    # A proxy that is not there, for where the network cannot be taken away.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    places = {
        "PIPX_HOME": str(home),
        "PIPX_BIN_DIR": str(home / "bin"),
        "PIPX_SHARED_LIBS": str(CACHE / "pipx-shared"),
        "PIPX_DEFAULT_PYTHON": sys.executable,
    }
    pip = f"--no-index --no-compile --find-links={wheelhouse}"
    command = [*without_network(), sys.executable, "-m", "pipx", "install", f"--pip-args={pip}", "tabor"]
    done = subprocess.run(
        command, env={**os.environ, **nowhere, **places}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield home / "bin" / "tabor"
    shutil.rmtree(home)


def test_pipx_installs_it_without_a_network_and_it_stores_and_answers(installed: Path, tmp_path: Path) -> None:
    version = subprocess.run([installed, "--version"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert version.stdout.startswith("tabor, version "), version.stderr
    port = free_port()
    command = [str(installed), "run", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}"]
    # As plain Python: to compile all kernels at their new place takes a minute, and test_one_kernel compiles one.
    server = Process("tabor", ["env", "NUMBA_DISABLE_JIT=1", *command], tmp_path, port)
    try:
        server.start_and_wait()
        assert server.request("POST", "/api/v1/import/prometheus", b'up{job="a"} 1\n')[0] == 204
        result = server.data("/api/v1/query", query="up")["result"]
        assert [row["value"][1] for row in result] == ["1"]
        assert server.get("/openapi.json")[0] == 200
        assert server.stop() == 0
    finally:
        server.close()
    # Its own packages were used, not those of this tree.
    assert str(ROOT) not in server.output


def test_one_kernel_compiles_with_what_is_installed(installed: Path, tmp_path: Path) -> None:
    (python,) = installed.parent.parent.glob("venvs/tabor/bin/python")
    text = "from common.kernels import digest, jit; jit.all_kernels()[0].compile(); print('compiled')"
    done = subprocess.run(
        [python, "-c", text],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "TABOR_KERNEL_CACHE": str(tmp_path)},
    )
    assert done.stdout == "compiled\n", done.stderr
