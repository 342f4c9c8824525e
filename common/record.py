"""One record of the log: a columnar batch of samples for one partition (`docs/format/log-record.md`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """What a record says, as columns.

    producer_id: random 64-bit number of the ingestor process that wrote the record; refs are its own.
    created_ms: the ingestor's clock when the record was made, Unix ms.

    Declarations, n_declared of them:
      declared_refs: uint32 (n_declared,), the ingestor's number of the series within this partition, from 0.
      declared_ids: uint8 (n_declared, 16), `common.labels.series_id`.
      label_offsets: int64 (n_declared + 1,) into `label_bytes`.
      label_bytes: uint8, canonical label sets one after another.
    Samples, in order of arrival; n_samples of them:
      refs: uint32 (n_samples,).
      timestamps: int64 (n_samples,), Unix ms.
      values: float64 (n_samples,), bit-exact.
    """

    producer_id: int
    created_ms: int
    declared_refs: NDArray[np.uint32]
    declared_ids: NDArray[np.uint8]
    label_offsets: NDArray[np.int64]
    label_bytes: NDArray[np.uint8]
    refs: NDArray[np.uint32]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]
