"""Remote write 1.0: a request is refused, or read as the slow parser reads it, also when its series are known."""

from __future__ import annotations

import contextlib

from ingest.errors import BadRequest, RequestRefused
from ingest.remote_write import RemoteWriteReader
from tests.oracles import remote_write as oracle
from tests.property.test_remote_write_walk import CONFIG, expected, has_others, new_batcher, take


def one_input(data: bytes) -> object:
    """data: a WriteRequest before compression, and the same as it would arrive, compressed."""
    reader, batcher = RemoteWriteReader(CONFIG), new_batcher()
    with contextlib.suppress(RequestRefused):
        reader.take(data, batcher)
    reader, batcher = RemoteWriteReader(CONFIG), new_batcher()
    try:
        want = expected(data)
    except oracle.NotAMessage:
        want = None
    outcomes = []
    for _ in range(2):
        mark = batcher.mark()
        try:
            got = take(reader, batcher, data)
        except BadRequest as error:
            # What is inside of an exemplar, a histogram or metadata, the slow parser does not look at.
            assert want is None or has_others(data), "the slow parser reads it"
            assert batcher.mark() == mark
            return str(error)
        assert want is not None, "the slow parser refuses it"
        assert got == want if not has_others(data) else got[:2] == want[:2]
        outcomes.append(got)
    assert outcomes[0] == outcomes[1] or has_others(data)
    return outcomes[0]
