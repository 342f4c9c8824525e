"""Who Tabor is to Kafka's brokers: whether they let it in, and whether it has the rights it needs.

Both are found out at the start, so that a wrong password or a missing ACL is one line and no hang later.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

from common.errors import StartupError

DESCRIBE, READ, WRITE = AclOperation.DESCRIBE, AclOperation.READ, AclOperation.WRITE

_ATTEMPT_S = 0.25
_FORBIDDEN = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


class KafkaUser:
    """The user that librdkafka's options make of this process, at the brokers `bootstrap`.

    Whoever makes a client gives it `on_error` as its `error_cb`.
    """

    def __init__(self, bootstrap: str, options: Mapping[str, str]) -> None:
        self._bootstrap = bootstrap
        self._name = options.get("sasl.username", options.get("sasl.user.name"))
        self._certificate = options.get("ssl.certificate.location", options.get("ssl.keystore.location"))
        self._last_error: KafkaError | None = None

    def __str__(self) -> str:
        if self._name is not None:
            return f"the user {self._name!r}"
        return "an anonymous user" if self._certificate is None else f"the owner of {self._certificate}"

    def on_error(self, error: KafkaError) -> None:
        """Notes what librdkafka says of its connections."""
        # That all brokers are down is said after each other error, and explains less.
        if error.code() != KafkaError._ALL_BROKERS_DOWN and not _shuts_out(self._last_error):
            self._last_error = error

    def metadata(self, admin: Any, timeout_s: float) -> Any:
        """All topics that this user may describe, and the brokers.

        Raises:
            StartupError: no broker answers, or none lets this user in.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.05, deadline - time.monotonic())
            try:
                return admin.list_topics(timeout=min(_ATTEMPT_S, left_s))
            except KafkaException as error:
                admin.poll(0)  # serves the error callback, which knows more
                self._give_up_if_shut_out()
                if time.monotonic() > deadline:
                    known = self._last_error or error.args[0]
                    cause = known.str().partition(" (after")[0]
                    raise StartupError(
                        f"no Kafka broker answers at {self._bootstrap}: {cause}; start it first"
                    ) from None

    def _give_up_if_shut_out(self) -> None:
        error = self._last_error
        if error is None or not _shuts_out(error):
            return
        cause = error.str().partition(" (after")[0]
        if error.code() != KafkaError._AUTHENTICATION:
            advice = "see ssl.ca.location, ssl.certificate.location and ssl.key.location"
        else:
            advice = "see sasl.mechanism, sasl.username and sasl.password"
        raise StartupError(f"Kafka at {self._bootstrap} does not let {self} in: {cause}; {advice}")

    def check_rights(self, admin: Any, topic: str, needed: Collection[AclOperation], timeout_s: float) -> bool:
        """See that this user has the rights it needs on a topic; False if there is no such topic.

        Raises:
            StartupError: a right is missing; it is named.
        """
        # Without this right a topic looks as if it were not there.
        needed = {DESCRIBE, *needed}
        asked = admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=True, request_timeout=timeout_s
        )
        try:
            granted = asked[topic].result(timeout_s).authorized_operations
        except KafkaException as error:
            if error.args[0].code() in _FORBIDDEN:
                raise self.lacks(topic, needed) from None
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return False
            raise StartupError(
                f"Kafka at {self._bootstrap} does not say what {self} may do with the topic {topic!r}:"
                f" {error.args[0].str()}"
            ) from None
        except TimeoutError:
            raise StartupError(
                f"Kafka at {self._bootstrap} has not said within {timeout_s:.0f} s what {self} may do with the"
                f" topic {topic!r}; is it overloaded?"
            ) from None
        # Brokers without an authorizer grant everything, those before 2.3 do not say.
        if granted is not None and (missing := needed - set(granted)):
            raise self.lacks(topic, missing)
        return True

    def cannot_create(self, topic: str, error: KafkaError) -> StartupError:
        """Why a topic that is missing was not made."""
        if error.code() in _FORBIDDEN:
            return StartupError(
                f"there is no topic {topic!r} at {self._bootstrap}, and {self} lacks the right Create to make it;"
                " `tabor cluster create-topics` makes all topics, as a user who has it (docs/security.md)"
            )
        return StartupError(f"cannot create the topic {topic!r}: {error.str()}")

    def lacks(self, topic: str, rights: Collection[AclOperation]) -> StartupError:
        """That rights are missing, and how they are given."""
        names = sorted(right.name.capitalize() for right in rights)
        # Whoever may read or write a topic may describe it.
        if len(names) > 1 and "Describe" in names:
            names.remove("Describe")
        operations = " ".join(f"--operation {name}" for name in names)
        return StartupError(
            f"{self} lacks the right {' and '.join(names)} on the topic {topic!r} at {self._bootstrap};"
            f" it is given by kafka-acls --bootstrap-server {self._bootstrap} --add --allow-principal"
            f" 'User:{self._name or '…'}' {operations} --topic {topic} (docs/security.md)"
        )


def concerns_groups(error: KafkaError) -> bool:
    """Whether librdkafka only says that it may not look for the coordinator of a group; Tabor uses no groups."""
    return bool(error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED)


def _shuts_out(error: KafkaError | None) -> bool:
    """Whether asking again does not help."""
    if error is None:
        return False
    # A broker that wants another certificate says so in an alert, which librdkafka takes for a broken connection.
    return error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or "SSL alert number" in error.str()
