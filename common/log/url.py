"""Where a log is, as one string: `local`, or `kafka://host:port,host:port/prefix?option=value`.

The options are librdkafka's. Those that are secret are not in the string, which everybody sees who lists
processes, but in a file that it names: `…/prefix?options-file=/etc/tabor/kafka.properties`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from common.errors import StartupError
from common.log.base import Log
from common.log.options_file import read_options

LOCAL_FOLDER = "log"
OPTIONS_FILE = "options-file"
_FORMS = "give 'local' or 'kafka://host:port,host:port/prefix'"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,200}")
# Parts of the names of librdkafka's options whose values must not be shown.
_SECRETS = ("password", "secret", "token", "key.pem", "key.string", "oauthbearer.config", "assertion.private.key")
_HIDDEN = "***"


class KafkaUrl(NamedTuple):
    """The parts of a Kafka URL; `options` are librdkafka's, those in the file included."""

    bootstrap: str
    prefix: str
    options: dict[str, str]


def open_log(
    url: str,
    *,
    data_dir: Path | None,
    partitions: int | None,
    retention_ms: int | None = None,
    retention_bytes: int | None = None,
    create: bool = True,
    read_only: bool = False,
    reads: bool = True,
    writes: bool = True,
) -> Log:
    """Open the log that `url` names.

    data_dir: `local` lies in its folder `log`; Kafka does not use it.
    partitions: None takes those of an existing log, and LOCAL_PARTITIONS or DEFAULT_PARTITIONS for a new one.
    retention_ms, retention_bytes: of a local log; with Kafka they are set on a topic that is made here.
    create: whether a log that does not exist is made.
    read_only: a local log is opened as it is now, even while another process owns it; nothing is written to Kafka.
    reads, writes: what will be done with a log on Kafka, whose user needs the rights for it.

    Raises:
        StartupError: the URL cannot be understood, or the log cannot be opened.
    """
    if url == "local":
        if data_dir is None:
            raise StartupError("the log 'local' needs a data folder; give one, or a log on Kafka")
        if read_only:
            from common.log.frozen import FrozenLog

            return FrozenLog(data_dir / LOCAL_FOLDER)
        from common.log.local import LocalLog

        return LocalLog(
            data_dir / LOCAL_FOLDER,
            partitions,
            create=create,
            retention_ms=retention_ms,
            retention_bytes=retention_bytes,
        )
    where = parse_kafka_url(url)
    from common.log.kafka import KafkaLog

    return KafkaLog(
        where.bootstrap,
        where.prefix,
        partitions,
        options=where.options,
        create=create,
        retention_ms=retention_ms,
        retention_bytes=retention_bytes,
        reads=reads,
        writes=writes and not read_only,
    )


def parse_kafka_url(url: str) -> KafkaUrl:
    """Take a Kafka URL apart, and read the file of options that it names.

    Its query parameters are percent-encoded.
    Raises:
        StartupError: it is not one, has secrets in it, or the file cannot be read; the message hides secrets.
    """
    bootstrap, prefix, options = _parts(url)
    for name in options:
        if _is_secret(name):
            raise StartupError(
                f"the log {redact(url)!r} has {name} in it, where others can see it; put it as a line {name}=…"
                f" into a file, and the file's name into the URL: ?{OPTIONS_FILE}=FILE"
            )
    if OPTIONS_FILE in options:
        path = Path(options.pop(OPTIONS_FILE))
        in_file = read_options(path)
        if twice := options.keys() & in_file.keys():
            raise StartupError(f"{min(twice)} is both in the log {redact(url)!r} and in {path}")
        options |= in_file
    return KafkaUrl(bootstrap, prefix, options)


def _parts(url: str) -> KafkaUrl:
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise StartupError(f"the log {redact(url)!r} cannot be understood; {_FORMS}") from None
    hosts = parts.netloc.split(",")
    prefix = parts.path.removeprefix("/")
    if parts.scheme != "kafka" or parts.fragment:
        raise StartupError(f"the log {redact(url)!r} cannot be understood; {_FORMS}")
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise StartupError(f"the log {redact(url)!r} does not name brokers as host:port; {_FORMS}")
    if not _PREFIX.fullmatch(prefix):
        raise StartupError(f"the log {redact(url)!r} lacks a prefix of letters, digits, '.', '_' or '-'; {_FORMS}")
    names = [name for name, _ in query]
    if len(set(names)) < len(names):
        raise StartupError(f"the log {redact(url)!r} gives an option twice")
    return KafkaUrl(parts.netloc, prefix, dict(query))


def has_secrets(url: str) -> bool:
    """Whether a URL that is not a log's has anything in it that `redact` hides."""
    return redact(url) != url


def identity(url: str) -> str:
    """What names a log for good: brokers come and go, the prefix of the topics stays.

    Raises:
        StartupError: the URL cannot be understood.
    """
    return url if url == "local" else f"kafka:{_parts(url).prefix}"


def redact(url: str) -> str:
    """The URL with what may be secret replaced by '***'.

    In a log's: values of secret options and a password before a host. In any other: all that is before the host
    or behind a '?'.

    Works on any text, so that a malformed URL can be shown too.
    """
    if not url.startswith("kafka:"):
        head, mark, _ = re.sub("://.*@", f"://{_HIDDEN}@", url, flags=re.DOTALL).partition("?")
        return head + mark + (_HIDDEN if mark else "")
    head, mark, query = url.partition("?")
    # Not a place for credentials, but people put them there.
    head = re.sub(r"(://[^/@]*:)[^/]*@", rf"\g<1>{_HIDDEN}@", head)
    shown = []
    for option in query.split("&") if mark else []:
        name, equals, _ = option.partition("=")
        shown.append(f"{name}={_HIDDEN}" if equals and _is_secret(name) else option)
    return head + mark + "&".join(shown)


def _is_secret(option: str) -> bool:
    # `%70assword` is a name too.
    name = unquote(option).lower()
    return any(word in name for word in _SECRETS)
