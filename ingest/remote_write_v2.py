"""Requests of remote write 2.0, which are read as the requests of 1.0 that say the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.kernels import remote_write_v2 as kernels
from ingest.errors import BadRequest, BodyTooLarge

_SEEN = 1 << 16
_REASONS = {
    kernels.MALFORMED: "is truncated or malformed",
    kernels.BAD_SYMBOL: "refers to a symbol that is not there",
    kernels.ODD_REFS: "has a label name without a value",
}


class Transcoder:
    """Turns requests of 2.0 into messages of 1.0; used by one thread.

    Senders repeat the metadata of a series with each of its samples. What was seen lately is left out, until
    `forget_metadata`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._numbers = np.zeros(kernels.N_NUMBERS, dtype=np.int64)
        self._symbols = np.empty((4096, 2), dtype=np.int64)
        self._seen = np.zeros(_SEEN, dtype=np.uint64)

    def forget_metadata(self) -> None:
        self._seen[:] = 0

    def message(self, data: NDArray[np.uint8], salt: int = 0) -> bytes:
        """The message of 1.0 for a request (not compressed), of the tenant with this salt.

        Raises:
            BadRequest: it is not an io.prometheus.write.v2.Request. BodyTooLarge: it says more than one may.
        """
        while True:
            status = kernels.find_symbols(data, len(data), self._symbols, self._numbers)
            n_symbols = int(self._numbers[kernels.SIZE])
            if status != kernels.OK or n_symbols <= len(self._symbols):
                break
            self._symbols = np.empty((n_symbols, 2), dtype=np.int64)
        if status == kernels.NO_EMPTY_SYMBOL:
            raise BadRequest("the body is not an io.prometheus.write.v2.Request: its first symbol is not empty")
        # Pages that are not touched take no memory.
        out = np.empty(self._max_bytes, dtype=np.uint8)
        if status == kernels.OK:
            symbols = np.ascontiguousarray(self._symbols[:n_symbols])
            status = kernels.transcode(data, len(data), symbols, self._seen, np.uint64(salt), out, self._numbers)
        if status == kernels.TOO_LARGE:
            raise BodyTooLarge(
                f"the request's series have more than {self._max_bytes} bytes with their labels spelled out "
                "(--max-body-bytes)"
            )
        if status != kernels.OK:
            raise BadRequest(
                "the body is not an io.prometheus.write.v2.Request: the field at byte "
                f"{self._numbers[kernels.ERROR_AT]} of {len(data)} {_REASONS[status]}"
            )
        return out[: int(self._numbers[kernels.SIZE])].tobytes()
