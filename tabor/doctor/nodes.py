"""The nodes of a cluster: who is there, with which version, and whether clocks agree."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

from common.calling import Caller
from common.control.members import Member
from common.errors import RetryableError
from common.version import VERSION
from tabor.cluster.reading import reading
from tabor.doctor.findings import Finding, graded, ok, problem, warning

ASK_S = 3.0
POOR_SKEW_S, BAD_SKEW_S = 5.0, 60.0
_HEARTBEAT_S = 2.0
_INFO = re.compile(r'^tabor_server_info\{.*version="([^"]*)".*\} 1', re.MULTILINE)


def check(url: str, caller: Caller) -> Iterator[Finding]:
    """How the nodes are that have joined. Raises StartupError, LogUnavailable."""
    with reading(url) as cluster:
        layout, live = cluster.layout(), cluster.live()
        seats = {seat.node for seat in cluster.cluster().seats.values()}
        newest_ms = max((member.heard_ms for member in live.values()), default=None)
        if newest_ms is not None:
            yield skew(time.time() - newest_ms / 1000)
        silent = sorted(seats - live.keys())
        n_live, n_wanted = len(live), layout.replicas
        text = f"{n_live} live, of {len(seats)} that have joined" + (
            f"; silent: {', '.join(silent)}" if silent else ""
        )
        advice = (
            f"{n_wanted} replicas need as many nodes: start them, or `tabor cluster drain` who is gone for good"
        )
        yield graded("storage nodes", text, advice, bad=n_live == 0, poor=bool(silent) or n_live < n_wanted)
        yield from versions({name: _version(member, caller) for name, member in live.items()})


def skew(behind_s: float) -> Finding:
    """How far this clock is from the brokers', by how old the newest heartbeat looks: one to two seconds."""
    off_s = behind_s if behind_s < 0 else max(0.0, behind_s - 2 * _HEARTBEAT_S)
    advice = "run chrony or systemd-timesyncd on brokers and nodes (docs/runbooks/TaborClockSkew.md)"
    text = "as the brokers'"
    if off_s:
        text = f"{abs(off_s):.0f} s {'behind' if off_s < 0 else 'ahead of'} the brokers'"
    return graded("clock and brokers", text, advice, bad=abs(off_s) > BAD_SKEW_S, poor=abs(off_s) > POOR_SKEW_S)


def versions(found: Mapping[str, str | None]) -> Iterator[Finding]:
    """Whether all are of one version. found: by node; None: it does not say."""
    unknown = sorted(name for name, version in found.items() if version is None)
    if unknown:
        advice = "start them, or give --node-token-file and --node-ca-file"
        yield warning("versions", f"{', '.join(unknown)} did not say theirs", advice)
    others = sorted(f"{name} has {version}" for name, version in found.items() if version not in (None, VERSION))
    if others:
        advice = "bring all to one version: read API and control topic know no other"
        yield problem("versions", f"this is {VERSION}; {', '.join(others)}", advice)
    elif found and not unknown:
        yield ok("versions", f"all are {VERSION}")


def _version(member: Member, caller: Caller) -> str | None:
    import httpx

    try:
        url = caller.url(member.address, "/metrics")
        answer = httpx.get(url, headers=caller.headers(), timeout=ASK_S, verify=caller.context(), trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, RetryableError):
        return None
    info = _INFO.search(answer.text) if answer.status_code == 200 else None
    return None if info is None else info.group(1)
