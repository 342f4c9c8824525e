"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from common.log.base import DEFAULT_PARTITIONS, LOCAL_PARTITIONS
from common.tenancy import Tenancy
from ingest.config import MAX_ACTIVE_SERIES
from tabor.logging import FORMATS as LOG_FORMATS
from tabor.logging import LEVELS as LOG_LEVELS
from tabor.settings import option

if TYPE_CHECKING:
    from common.calling import Caller

from tabor.values import ADDRESS, DURATION_MS, SIZE_BYTES

F = TypeVar("F", bound=Callable[..., Any])


def options_of(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


data_dir = option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    help="Folder of all data.",
)
listen = option("--listen", type=ADDRESS, default="127.0.0.1:9080", help="Where to serve HTTP.")
door = options_of(
    option(
        "--web-config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        show_default="everyone may do everything",
        help="File with TLS, users and tokens: Prometheus' web configuration, and more (docs/security.md).",
    ),
    option(
        "--insecure",
        is_flag=True,
        help="Listen where other machines reach it, though nobody is asked who he is.",
    ),
    option("--max-connections", type=click.IntRange(1, 1_000_000), default=4096, help="Connections at a time."),
    option(
        "--max-connections-per-peer",
        type=click.IntRange(1, 1_000_000),
        default=1024,
        help="Connections at a time from one address; all that come through a proxy are from one.",
    ),
)


def _shown(prefix: str, to: str) -> Callable[[F], F]:
    """How a process shows itself to servers that it calls."""
    file = click.Path(dir_okay=False, path_type=Path)
    helps = {
        "token": f"File with the token to show to {to}.",
        "ca": f"Authorities (PEM) to trust when calling {to}; without TLS they are then not called.",
        "cert": f"Certificate (PEM) to show to {to}, where they ask for one.",
        "key": "The key of that certificate.",
    }
    defaults = {"ca": "the system's"}
    return options_of(
        *(
            option(
                f"--{prefix}{name}-file",
                type=file,
                default=None,
                show_default=defaults.get(name, "none"),
                help=text,
            )
            for name, text in helps.items()
        )
    )


shown_to_nodes = _shown("node-", "storage nodes")
shown_to_server = options_of(
    _shown("", "the server"),
    option(
        "--tenant",
        default=None,
        show_default="the one of the token, or 'default'",
        help="For which tenant (X-Scope-OrgID), where the server has tenants.",
    ),
)
logs = options_of(
    option(
        "--log-format",
        type=click.Choice(LOG_FORMATS),
        default="auto",
        help="Of standard error; auto: text for people, and events as text on a terminal, as JSON elsewhere.",
    ),
    option(
        "--log-level", type=click.Choice(LOG_LEVELS), default="info", help="From which level on events are logged."
    ),
)
traces = option(
    "--otlp-endpoint",
    envvar=["TABOR_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    default=None,
    show_default="no traces",
    help="Where spans go by OTLP over HTTP, such as http://127.0.0.1:4318; OTEL_TRACES_SAMPLER and the like hold.",
)
log_url = option(
    "--log",
    default="local",
    help="'local' (inside the data folder) or kafka://host:port,…/prefix?librdkafka-option=value; secrets go into "
    "a file of such options, one a line: …/prefix?options-file=FILE.",
)
kafka_url = option(
    "--log",
    required=True,
    help="kafka://host:port,…/prefix?librdkafka-option=value; secrets go into a file of such options, one a line: "
    "…/prefix?options-file=FILE (docs/security.md).",
)
partitions = option(
    "--partitions",
    type=click.IntRange(1, 65_536),
    default=None,
    show_default=f"{LOCAL_PARTITIONS} for a new local log, {DEFAULT_PARTITIONS} for a new topic, else its own",
    help="Partitions of the log; fixed once it is made.",
)
retention = option(
    "--retention",
    type=DURATION_MS,
    default=None,
    show_default="keep all",
    help="How long samples are kept, by their timestamps; in steps of four hours.",
)
kept_retention = option(
    "--retention",
    type=DURATION_MS,
    default=None,
    show_default="as the views were kept so far",
    help="How long samples are kept.",
)
node_timeout = option(
    "--node-timeout",
    type=DURATION_MS,
    default="10s",
    help="After so long a silence a storage node is taken to be down.",
)
log_retention = options_of(
    option(
        "--log-retention",
        type=DURATION_MS,
        default=None,
        show_default="keep all",
        help="How long the local log keeps records; without its start the views cannot be rebuilt from it.",
    ),
    option(
        "--log-retention-size",
        type=SIZE_BYTES,
        default=None,
        show_default="no limit",
        help="How large the local log may grow before its oldest records go.",
    ),
)
backups = options_of(
    option(
        "--backup",
        default=None,
        show_default="none",
        help="Where to write backups: a folder, or s3://bucket/prefix with AWS_* in the environment.",
    ),
    option("--backup-every", type=DURATION_MS, default="1d", help="How often."),
    option("--backup-keep", type=click.IntRange(1), default=7, help="How many whole backups stay there."),
)
ingest_limits = options_of(
    option("--max-body-bytes", type=SIZE_BYTES, default="32MiB", help="Largest write request, decompressed."),
    option(
        "--max-active-series",
        type=click.IntRange(1, MAX_ACTIVE_SERIES),
        default=5_000_000,
        help="Series that ingest keeps known.",
    ),
)
query_limits = options_of(
    option("--query-lookback", type=DURATION_MS, default="5m", help="How far back an instant selector looks."),
    option("--query-timeout", type=DURATION_MS, default="2m", help="How long a query may take."),
    option("--query-max-concurrency", type=click.IntRange(1, 1000), default=20, help="Queries at the same time."),
    option("--query-max-samples", type=click.IntRange(1), default=50_000_000, help="Samples one query may touch."),
    option("--query-max-series", type=click.IntRange(1), default=1_000_000, help="Series one query may touch."),
    option("--query-max-points", type=click.IntRange(1), default=11_000, help="Steps of one range query."),
    option(
        "--query-max-response-bytes",
        type=SIZE_BYTES,
        default="1GiB",
        help="Largest answer, before compression.",
    ),
    option(
        "--slow-query-threshold",
        type=DURATION_MS,
        default="5s",
        help="Queries that take longer are logged and shown at /api/v1/status/queries.",
    ),
    option(
        "--promql-strict",
        is_flag=True,
        help="Refuse what Prometheus has behind feature flags only, such as duration expressions and limitk.",
    ),
    option(
        "--read-consistency",
        type=click.Choice(["strong", "eventual"]),
        default="strong",
        help="'strong': a query sees every write acknowledged before it.",
    ),
)
tenancy = options_of(
    option(
        "--tenancy",
        type=click.Choice([one.value for one in Tenancy]),
        default=Tenancy.OFF.value,
        help="Tenants, by the header X-Scope-OrgID. 'optional': without it the tenant is 'default'; 'required': "
        "without it a request is refused.",
    ),
    option(
        "--tenant-limits",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        show_default="none",
        help="TOML file of the tenants' limits, read again when it changes (docs/tenants.md).",
    ),
)
server_url = option("--url", default="http://127.0.0.1:9080", help="Where Tabor runs.")


def caller_of(options: dict[str, Any]) -> Caller:
    """Takes what is shown to the server out of the options."""
    from common.calling import Caller, CallerFiles

    token, ca, cert, key = (options.pop(f"{name}_file") for name in ("token", "ca", "cert", "key"))
    return Caller(CallerFiles(token, ca, cert, key), options.pop("tenant"))
