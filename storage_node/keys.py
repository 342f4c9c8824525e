"""Keys of the views in RocksDB (`docs/format/rocksdb-keys.md`).

Every key starts with one byte for its kind; numbers are big-endian, so that the order of the bytes is the order
of the numbers. Windows are signed and stored with the sign bit flipped.
"""

from __future__ import annotations

import struct

NODE_META = b"M"
PARTITION_META = b"P"
PRODUCER_REFS = b"R"
SERIES_TIMES = b"T"
ORPHANS = b"O"
WINDOW = b"W"
SEGMENT_LIST = b"S"
SEGMENT_DIRECTORY = b"D"
SEGMENT_BLOCK = b"B"
INDEX = b"I"
ATTACHED_DIRECTORY = b"a"
ATTACHED_BLOCK = b"A"
METADATA = b"F"
DELETIONS = b"X"

_KINDS_OF_PARTITIONS = (
    PARTITION_META,
    PRODUCER_REFS,
    SERIES_TIMES,
    ORPHANS,
    WINDOW,
    SEGMENT_LIST,
    SEGMENT_DIRECTORY,
    SEGMENT_BLOCK,
    INDEX,
    ATTACHED_DIRECTORY,
    ATTACHED_BLOCK,
    METADATA,
    DELETIONS,
)
"""Everything that belongs to one partition: the kind is followed by the partition's number."""

_SIGN = 1 << 63
_PARTITION = struct.Struct(">cI")
_BLOCK_OF = struct.Struct(">cII")
_PRODUCER = struct.Struct(">cIQI")
_WINDOW = struct.Struct(">cIQ")
_SEGMENT = struct.Struct(">cIQQ")
_BLOCK = struct.Struct(">cIQQI")


def partition_meta(partition: int) -> bytes:
    return _PARTITION.pack(PARTITION_META, partition)


def parse_partition_meta(key: bytes) -> int:
    _, partition = _PARTITION.unpack(key)
    return int(partition)


def of_partition(kind: bytes, partition: int) -> tuple[bytes, bytes]:
    """The half-open range of all keys of one kind and partition."""
    return _PARTITION.pack(kind, partition), _PARTITION.pack(kind, partition + 1)


def ranges_of_partition(partition: int) -> list[tuple[bytes, bytes]]:
    """The half-open ranges of all that belongs to a partition, in the order of the keys."""
    return [of_partition(kind, partition) for kind in sorted(_KINDS_OF_PARTITIONS)]


def numbered(kind: bytes, partition: int, number: int) -> bytes:
    """Key of block `number` of a column that is stored in blocks."""
    return _BLOCK_OF.pack(kind, partition, number)


def producer_refs(partition: int, producer_id: int, block: int) -> bytes:
    return _PRODUCER.pack(PRODUCER_REFS, partition, producer_id, block)


def parse_producer_refs(key: bytes) -> tuple[int, int]:
    """(producer_id, block) of such a key."""
    _, _, producer_id, block = _PRODUCER.unpack(key)
    return producer_id, block


def index(partition: int) -> bytes:
    """What the keys of a partition's index start with; the rest is in `docs/format/index-keys.md`."""
    return _PARTITION.pack(INDEX, partition)


def window(kind: bytes, partition: int, number: int) -> bytes:
    """Key of a window's record, and the start of the keys of all its segments of the given kind."""
    return _WINDOW.pack(kind, partition, number + _SIGN)


def parse_window(key: bytes) -> int:
    _, _, number = _WINDOW.unpack(key)
    return int(number) - _SIGN


def segment(kind: bytes, partition: int, number: int, segment: int) -> bytes:
    """Key of what there is once for a segment, or for a run of attachments."""
    return _SEGMENT.pack(kind, partition, number + _SIGN, segment)


def parse_segment(key: bytes) -> tuple[int, int]:
    """(window, segment) of such a key."""
    _, _, number, segment_number = _SEGMENT.unpack(key)
    return number - _SIGN, segment_number


def segment_directory(partition: int, number: int, segment_number: int) -> bytes:
    return segment(SEGMENT_DIRECTORY, partition, number, segment_number)


def segment_block(partition: int, number: int, segment_number: int, block: int) -> bytes:
    return _BLOCK.pack(SEGMENT_BLOCK, partition, number + _SIGN, segment_number, block)


def attached_block(partition: int, number: int, run: int, block: int) -> bytes:
    return _BLOCK.pack(ATTACHED_BLOCK, partition, number + _SIGN, run, block)
