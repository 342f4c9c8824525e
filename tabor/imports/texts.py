"""Text files: OpenMetrics and Prometheus' text format, compressed or not."""

from __future__ import annotations

import gzip
import io
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from common.errors import CallerError
from ingest.errors import BadRequest
from ingest.openmetrics import pieces
from tabor.imports.sending import Sender
from tabor.progress import Bar

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK_BYTES = 1 << 20
_VICTORIA = b'{"metric":'
UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError)


def unpacked(file: BinaryIO) -> BinaryIO:
    """The bytes of a file, decompressed if its first bytes say that it is gzip or zstd."""
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(GZIP_MAGIC):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if magic == ZSTD_MAGIC:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, reader)))
    return file


def text_form(path: Path) -> str:
    """'victoriametrics', 'openmetrics' or 'prometheus', by how the text begins and ends. Raises CallerError."""
    end = b""
    try:
        with path.open("rb") as file:
            text = unpacked(file)
            if (end := text.read(len(_VICTORIA))) == _VICTORIA:
                return "victoriametrics"
            while chunk := text.read(_CHUNK_BYTES):
                end = (end + chunk)[-64:]
    except UNREADABLE as error:
        raise CallerError(f"{path} cannot be read: {error}") from None
    return "openmetrics" if end.rstrip().endswith(b"# EOF") else "prometheus"


def import_text(path: Path, form: str, sender: Sender) -> None:
    """Send the samples of a file, 'openmetrics' or 'prometheus'.

    Raises:
        CallerError: it is not of that form; says in which line. What was sent before is stored.
    """
    size = path.stat().st_size
    before = sender.n_samples
    try:
        with path.open("rb") as file, Bar(path.name, total=size) as bar:
            # Lines end at \n only: other characters at which Python ends lines may stand in labels.
            lines = io.TextIOWrapper(cast(IO[bytes], unpacked(file)), encoding="utf-8", newline="\n")
            last = 0
            for piece in pieces(
                _each(lines), open_metrics=form == "openmetrics", now_ms=time.time_ns() // 1_000_000
            ):
                sender.send(piece.message, piece.n_samples, f"{path}: lines {last + 1} to {piece.line}")
                last = piece.line
                bar.update(file.tell(), note=f"{sender.n_samples - before:,} samples")
    except BadRequest as error:
        raise CallerError(f"{path}: {error}") from None
    except UNREADABLE as error:
        raise CallerError(f"{path} cannot be read: {error}") from None


def _each(lines: io.TextIOWrapper) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ValueError(f"the next line is not UTF-8: {error.reason}") from None
