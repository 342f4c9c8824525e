"""What goes wrong in ingest.

    TaborError
    ├── CallerError
    │   ├── RequestRefused         the whole request; nothing of it is stored; carries the HTTP status
    │   │   ├── BadRequest         400: cannot be read
    │   │   ├── BodyTooLarge       413: more bytes or series than a request may have
    │   │   ├── UnsupportedType    415: another media type or encoding
    │   │   └── LimitReached       429: a limit of the tenant; carries its name and when to come again
    │   │       └── TooManyTenants
    │   ├── PointRefused           a data point of OTLP; the rest of its request is stored
    │   └── InvalidLabels          a label set that the producer was given
    └── RetryableError
        ├── LogUnavailable         (common.errors) the log did not take the records
        ├── QueueFull              too much waits for the ingest thread
        ├── NotAccepting           the wiring has closed the gate, for example because a disk is full
        └── DeliveryFailed         samples given to the producer did not reach the log

A series that is refused while the others of its request are stored is no exception but a `Refusal` of the outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from common.errors import CallerError, RetryableError


class RequestRefused(CallerError):
    """The whole request is refused and nothing of it is stored."""

    status = 400


class BadRequest(RequestRefused):
    """The body cannot be read."""


class BodyTooLarge(RequestRefused):
    """The request has more bytes or more series than one may have."""

    status = 413


class UnsupportedType(RequestRefused):
    """The content type or encoding is not one that is understood."""

    status = 415


class LimitReached(RequestRefused):
    """A limit is reached, of a tenant as a rule; sent again later it may be taken."""

    status = 429

    def __init__(self, message: str, *, limit: str, retry_after_s: float) -> None:
        self.limit = limit
        self.retry_after_s = retry_after_s
        super().__init__(message)


class TooManyTenants(LimitReached):
    """The ingestor knows as many tenants as it can."""

    def __init__(self, message: str) -> None:
        super().__init__(message, limit="max_tenants", retry_after_s=60.0)


class PointRefused(CallerError):
    """A data point of OTLP has no counterpart in Prometheus; the message goes on after its metric's name."""


class InvalidLabels(CallerError):
    """A label set breaks the rules or a limit; the message shows it."""


class QueueFull(RetryableError):
    """What waits for the ingest thread has reached its limit."""


class NotAccepting(RetryableError):
    """Writes are not accepted for now; the message says why."""


class DeliveryFailed(RetryableError):
    """Samples given to the producer did not reach the log; they may be sent again."""

    def __init__(self, message: str, *, samples: int) -> None:
        super().__init__(message)
        self.samples = samples


class Fault(Enum):
    """Why a series is refused; the value is the `reason` of the metric."""

    NO_METRIC_NAME = "no_metric_name"
    EMPTY_NAME = "empty_label_name"
    DUPLICATE_NAME = "duplicate_label_name"
    RESERVED_NAME = "reserved_label_name"
    UNSORTED = "unsorted_labels"
    NOT_UTF8 = "invalid_utf8"
    HISTOGRAM_SCHEMA = "histogram_schema"
    HISTOGRAM_SPANS = "histogram_spans"
    HISTOGRAM_BUCKETS = "histogram_buckets"
    HISTOGRAM_NEGATIVE = "histogram_negative_count"
    HISTOGRAM_COUNT = "histogram_count"
    HISTOGRAM_BOUNDS = "histogram_bounds"
    HISTOGRAM_THRESHOLD = "histogram_zero_threshold"
    HISTOGRAM_TOO_LARGE = "histogram_too_large"
    TOO_MANY_LABELS = "too_many_labels"
    NAME_TOO_LONG = "label_name_too_long"
    VALUE_TOO_LONG = "label_value_too_long"
    LABELS_TOO_LONG = "labels_too_long"
    ACTIVE_SERIES = "too_many_active_series"
    TENANT_ACTIVE_SERIES = "too_many_active_series_of_tenant"

    @property
    def status(self) -> int:
        """HTTP status: 429 may succeed later, 422 breaks a limit, 400 is not valid."""
        if self in (Fault.ACTIVE_SERIES, Fault.TENANT_ACTIVE_SERIES):
            return 429
        return 422 if self.value.startswith("too_many") or self.value.endswith(("too_long", "too_large")) else 400


@dataclass(frozen=True, slots=True)
class Refusal:
    """Series of a request that were refused while its other series are stored.

    status: HTTP status for the request. message: names the first refused series, why, and how many there are.
    retry_after_s: when it may succeed, if ever.
    """

    status: int
    message: str
    n_series: int
    retry_after_s: float | None = None


def retry_after(error: object) -> dict[str, str]:
    """The header that says when to come again, if the error or refusal does."""
    seconds = getattr(error, "retry_after_s", None)
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
