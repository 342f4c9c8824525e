"""A sender's Histogram message is refused, or stored as bytes that say the same when they are sent back."""

from __future__ import annotations

from ingest.errors import BadRequest
from query.remote_read import histogram_message
from tests.fuzz import histogram
from tests.oracles import remote_write as oracle
from tests.property.test_histogram_messages import new_batcher, rows_of, series, take


def one_input(data: bytes) -> object:
    """data: a Histogram message of remote write."""
    try:
        rows, refusal = stored(data)
    except BadRequest as error:
        return str(error)
    for _, _, timestamp, content in rows:
        assert isinstance(histogram.one_input(content), tuple), "storage cannot read it"
        again, refusal = stored(histogram_message(content, timestamp))
        assert refusal is None
        assert again == rows
    return rows, refusal


def stored(message: bytes) -> tuple[list[tuple[int, bytes | None, int, bytes]], str | None]:
    """The rows that reach the log, and why the histogram is refused if it is."""
    batcher = new_batcher()
    taken = take(series({"__name__": "a"}, oracle.delimited(4, message)), batcher)
    assert (taken.refusal is None) == (taken.n_samples == 1)
    rows = rows_of(batcher.seal(7)) if taken.n_samples else []
    return rows, None if taken.refusal is None else taken.refusal.message
