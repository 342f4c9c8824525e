"""What a storage node tells of its audits and copies, as JSON (`docs/format/copy-api.md`, 'Report')."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import orjson

from common.wire.frames import WireError, parse_object

PATH = "/internal/v1/report"
VERSION = 1


class Copy(NamedTuple):
    """A copy under way.

    source: a node or backup. size_bytes: what has come in `seconds`. total_bytes: about all of it, if known.
    """

    source: str
    size_bytes: int
    total_bytes: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """compared: offset and whether the digests were equal, by partition and other node, when compared last.

    copying: by partition.
    """

    compared: dict[tuple[int, str], tuple[int, bool]]
    copying: dict[int, Copy]


def encode_report(report: Report) -> bytes:
    return orjson.dumps(
        {
            "v": VERSION,
            "compared": [[*replica, *found] for replica, found in sorted(report.compared.items())],
            "copying": [[partition, *found] for partition, found in sorted(report.copying.items())],
        }
    )


def parse_report(body: bytes) -> Report:
    """Raises WireError."""
    content = parse_object(memoryview(body))
    try:
        if content["v"] != VERSION:
            raise WireError("the report is of another version")
        compared = {
            (int(p), str(node)): (int(offset), bool(same)) for p, node, offset, same in content["compared"]
        }
        copying = {
            int(p): Copy(str(source), int(size), None if total is None else int(total), float(seconds))
            for p, source, size, total, seconds in content["copying"]
        }
    except (KeyError, TypeError, ValueError):
        raise WireError("the answer is no report") from None
    return Report(compared, copying)
