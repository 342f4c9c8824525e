"""Remote write 2.0: a request is refused, or transcoded to what the slow parser reads in it."""

from __future__ import annotations

import numpy as np

from ingest.batcher import Batcher
from ingest.config import IngestConfig
from ingest.errors import BadRequest, BodyTooLarge
from ingest.remote_write import RemoteWriteReader
from ingest.remote_write_v2 import Transcoder
from tests.oracles import remote_write as v1
from tests.oracles import remote_write_v2 as oracle

CONFIG = IngestConfig(max_body_bytes=1 << 16)


def one_input(data: bytes) -> object:
    """data: an io.prometheus.write.v2.Request before compression."""
    try:
        want = oracle.parse(data)
    except v1.NotAMessage:
        want = None
    try:
        message = Transcoder(CONFIG.max_body_bytes).message(np.frombuffer(bytearray(data), dtype=np.uint8))
    except BodyTooLarge as error:
        return str(error)
    except BadRequest as error:
        assert want is None, "the slow parser reads it"
        return str(error)
    assert want is not None, "the slow parser refuses it"
    assert said(message) == want
    return message, taken(data, message)


def said(message: bytes) -> oracle.Said:
    """What the message of 1.0 says, in the slow parser's terms."""
    series, metadata = [], set()
    for number, content in v1.fields(message, known=(1, 3)):
        if number == 3:
            metadata.add(content)
            continue
        found: dict[int, list[bytes]] = {1: [], 2: [], 3: [], 4: []}
        for inner, part in v1.fields(content, known=(1, 2, 3, 4)):
            if inner == 1:
                part = v1.delimited(1, part)
            found[inner].append(minimal(part) if inner == 3 else part)
        series.append(found)
    return series, metadata


def minimal(exemplar: bytes) -> bytes:
    """The same message with its numbers as short as can be; the transcoder leaves them as they were sent."""
    out = b""
    for number, wire_type, content in v1.raw_fields(exemplar):
        out += v1.uvarint(number << 3 | wire_type)
        if wire_type == 2:
            out += v1.uvarint(len(content))
        out += v1.uvarint(content) if wire_type == 0 else content
    return out


def taken(data: bytes, message: bytes) -> object:
    """What the whole way of 2.0 takes, which is what that of 1.0 takes from the message."""
    outcomes = []
    for version, body in ((2, data), (1, message)):
        reader, batcher = RemoteWriteReader(CONFIG), Batcher(4, 1000, 3_600_000, None)
        try:
            got = (reader.take_v2 if version == 2 else reader.take)(v1.snappy(body), batcher)
        except (BadRequest, BodyTooLarge) as error:
            assert batcher.mark() == (0, (0, 0, 0))
            outcomes.append(repr(error))
            continue
        here = slice(0, batcher.n_samples)
        outcomes.append(repr((got, batcher.timestamps[here].tolist(), batcher.values[here].tolist())))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]
