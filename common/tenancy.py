"""Whether there are tenants; apart from `common.tenants`, of which the command line needs nothing else."""

from __future__ import annotations

from enum import Enum


class Tenancy(Enum):
    """Whether there are tenants.

    off: there are none, and the header is not looked at. optional: without the header, the tenant is `default`.
    required: without it, a request is refused.
    """

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"
