"""Data folders as each released version has left them, which every later version must open.

`python -m tests.golden.folders VERSION` makes that of the version at hand, never one that is there: a folder with
everything that the formats can hold, killed so that a part of the log is not in the views yet, and beside it what
is answered from it. Do it once for each release.
"""

from __future__ import annotations

import json
import random
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.acceptance.test_kill import digests
from tests.acceptance.test_moving import histogram_message, message, random_series
from tests.oracles import remote_write as oracle
from tests.processes import Process, running, tabor_run

FOLDER = Path(__file__).parent / "folders"
T0_S = 1_790_000_000
_TEXT = f"""# TYPE requests counter
# HELP requests what came in
requests_total{{job="api"}} 5 {T0_S} # {{trace_id="abc"}} 0.5 {T0_S}
requests_total{{job="api"}} 9 {T0_S + 60}
doomed{{job="api"}} 1 {T0_S}
doomed{{job="web"}} 2 {T0_S}
# EOF
"""
_QUERIES = (
    ("/api/v1/query", {"query": 'count by (__name__) ({__name__=~".+"})', "time": T0_S + 1}),
    (
        "/api/v1/query",
        {"query": "sum by (__name__) (last_over_time({__name__=~'.+'}[500d]))", "time": T0_S + 86_400},
    ),
    ("/api/v1/query", {"query": "histogram_sum(native)", "time": T0_S + 30}),
    ("/api/v1/query", {"query": "increase(requests_total[5m])", "time": T0_S + 100}),
    ("/api/v1/query", {"query": "doomed", "time": T0_S}),
    ("/api/v1/query_range", {"query": "late", "start": T0_S - 60, "end": T0_S + 60, "step": 15}),
    ("/api/v1/query_exemplars", {"query": "requests_total", "start": T0_S - 60, "end": T0_S + 60}),
    ("/api/v1/series", {"match[]": '{job!=""}', "start": 0, "end": T0_S + 86_400}),
    ("/api/v1/labels", {}),
    ("/api/v1/metadata", {}),
)


def names() -> list[str]:
    """The versions of which there is a folder."""
    return sorted(path.name.removesuffix(".tar.gz") for path in FOLDER.glob("*.tar.gz"))


def unpack(name: str, folder: Path) -> Path:
    """The data folder of a version, in `folder`."""
    with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "data"


def expected(name: str) -> dict[str, Any]:
    """What is answered from it."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def answers(server: Process) -> dict[str, Any]:
    """Digests of all partitions, and the answers to queries that touch everything."""
    asked = [[path, parameters, server.data(path, **parameters)] for path, parameters in _QUERIES]
    return {"digests": {str(partition): digest for partition, digest in digests(server).items()}, "answers": asked}


def _fill(server: Process) -> None:
    rng = random.Random(7)
    for _ in range(4):
        _taken(server.write(oracle.snappy(message(random_series(rng, odd=True)))))
    _taken(server.write(oracle.snappy(histogram_message())))
    kind = {"Content-Type": "application/openmetrics-text; version=1.0.0"}
    _taken(server.request("POST", "/api/v1/import/prometheus", _TEXT.encode(), kind))
    _taken(server.request("POST", "/api/v1/admin/tsdb/delete_series?match[]=doomed%7Bjob%3D%22web%22%7D"))


def _fill_more(server: Process) -> None:
    """What comes after the last checkpoint: late samples, a series that is known, one that is new, a deletion."""
    labels = {"__name__": "late", "job": "api"}
    for offset_s in (30, -30, 0):
        _taken(server.write(oracle.snappy(message([(labels, [((T0_S + offset_s) * 1000, 1 << 62)])]))))
    _taken(
        server.request("POST", "/api/v1/import/prometheus", f'requests_total{{job="api"}} 12 {T0_S}090'.encode())
    )
    _taken(server.request("POST", f"/api/v1/admin/tsdb/delete_series?match[]=native&end={T0_S}"))


def _taken(answer: tuple[int, bytes]) -> None:
    assert answer[0] == 204, answer


def _without_traces(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """No names of users and machines, and not RocksDB's diary, in which they are too."""
    if Path(member.name).name.startswith(("LOG", "lock", "views.lock", "LOCK")):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def make(name: str) -> None:
    """Make the folder of the version at hand."""
    archive = FOLDER / f"{name}.tar.gz"
    assert not archive.exists(), f"{archive} is there; a release's folder is never made anew"
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tabor-golden-") as text:
        folder = Path(text)
        first, second = (tabor_run(folder, "--partitions", "2", name=one) for one in ("first", "second"))
        with running(first, second):
            first.start_and_wait()
            _fill(first)
            assert first.stop() == 0
            second.start_and_wait()
            _fill_more(second)
            found = answers(second)
            second.kill()
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        with tarfile.open(archive, "w:gz") as out:
            out.add(folder / "data", "data", filter=_without_traces)


if __name__ == "__main__":
    make(sys.argv[1])
