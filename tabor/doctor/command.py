"""Runs the checks and shows what they found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from common.calling import Caller
from common.log.url import parse_kafka_url, redact
from tabor.doctor import folder, machine
from tabor.doctor.findings import Finding, Level, found_by

_SIGNS = {Level.OK: "ok     ", Level.WARNING: "warning", Level.PROBLEM: "PROBLEM"}


def run_doctor(data_dir: Path | None, log: str, caller: Callable[[], Caller], *, as_json: bool) -> bool:
    """Print what was found; says whether there was no problem."""
    findings = list(_findings(data_dir, log, caller))
    if as_json:
        print(json.dumps([{**asdict(one), "level": one.level.value} for one in findings], indent=1))
    else:
        print(text_of(findings))
    return not any(one.level is Level.PROBLEM for one in findings)


def _findings(data_dir: Path | None, log: str, caller: Callable[[], Caller]) -> Iterator[Finding]:
    yield from found_by("machine", machine.check)
    if data_dir is not None:
        yield from found_by("data folder", lambda: folder.check(data_dir, has_log=log == "local"))
    if log != "local":
        # Imported here: nobody waits for Kafka's client who has none.
        from tabor.doctor import broker, nodes

        seen = found_by(f"log {redact(log)}", lambda: broker.check(parse_kafka_url(log)))
        yield from seen
        if not any(one.level is Level.PROBLEM for one in seen):
            yield from found_by("cluster", lambda: nodes.check(log, caller()))


def text_of(findings: list[Finding]) -> str:
    """For people: a line each, and below it what to do."""
    lines = []
    width = max(len(one.about) for one in findings)
    for one in findings:
        lines.append(f"{_SIGNS[one.level]}  {one.about:<{width}}  {one.text}")
        if one.advice:
            lines.append(f"{'':>{width + 11}}→ {one.advice}")
    levels = [one.level for one in findings]
    lines.append(f"{levels.count(Level.PROBLEM)} problems, {levels.count(Level.WARNING)} warnings")
    return "\n".join(lines)
