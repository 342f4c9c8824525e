"""Builds what is given to users: wheel and sdist, the same bytes wherever they are built, and a wheelhouse.

    python .ci/dist.py build --to dist                    tabor-VERSION-py3-none-any.whl and tabor-VERSION.tar.gz
    python .ci/dist.py wheelhouse --to dist/wheelhouse    the wheel and all it needs, for this platform and Python

Built from the files that git tracks, as they are in the work tree, with the tools pinned in requirements-dev.lock.
Times are those of the last commit, or SOURCE_DATE_EPOCH's; modes, owners and order do not depend on who builds.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["build", "wheelhouse"])
    parser.add_argument("--to", type=Path, required=True, help="folder, made if it is missing")
    arguments = parser.parse_args()
    folder: Path = arguments.to.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    made = build(folder) if arguments.what == "build" else wheelhouse(folder)
    for path in made:
        print(f"{path.stat().st_size:>11,} bytes  {path}")


def build(folder: Path, *, sdist: bool = True) -> list[Path]:
    """Build into a folder; the paths of what was built. Those of other versions are removed."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    for old in (*folder.glob("tabor-*.whl"), *folder.glob("tabor-*.tar.gz")):
        old.unlink()
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        _copy_tracked(source, epoch)
        kinds = ["--wheel", "--sdist"] if sdist else ["--wheel"]
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(folder), str(source)],
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
            # From the folder of the source, so that nothing of this tree is imported.
            cwd=source,
            umask=0o022,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"the build failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    made = sorted([*folder.glob("tabor-*.whl"), *folder.glob("tabor-*.tar.gz")])
    for path in made:
        if path.name.endswith(".tar.gz"):
            _normalise(path, epoch)
    return made


def wheelhouse(folder: Path) -> list[Path]:
    """Fill a folder with wheels; it needs no index afterwards. What is there already is not fetched again."""
    pinned, kept = ROOT / "requirements.lock", folder / "requirements.lock"
    # Copied last of all, so that it says what is whole.
    if not kept.exists() or kept.read_bytes() != pinned.read_bytes():
        _fetch(folder, pinned)
        shutil.copy(pinned, kept)
    build(folder, sdist=False)
    return sorted(folder.glob("*.whl"))


def _fetch(folder: Path, pinned: Path) -> None:
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    fetch += ["--only-binary", ":all:", "--no-deps", "--find-links", str(folder)]
    # pipx wants a pip of its own.
    pip = ["--constraint", str(ROOT / "requirements-dev.lock"), "pip"]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for what in (["--requirement", str(pinned)], pip):
            subprocess.run([*fetch, "--dest", name, *what], check=True)
        for old in folder.glob("*.whl"):
            old.unlink()
        for path in Path(name).glob("*.whl"):
            path.rename(folder / path.name)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)  # noqa: S607
    if done.returncode:
        sys.exit(f"this is built from a clone: git {arguments[0]} says {done.stderr.strip()}")
    return done.stdout


def _copy_tracked(target: Path, epoch: int) -> None:
    for name in _git("ls-files", "-z").split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
        os.utime(copy, (epoch, epoch))


def _normalise(path: Path, epoch: int) -> None:
    """Write an sdist anew, in order, without traces of who built it."""
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with path.open("wb") as out, gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=epoch) as file:
        file.write(packed.getvalue())


if __name__ == "__main__":
    main()
