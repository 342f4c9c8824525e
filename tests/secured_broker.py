"""A broker that lets nobody in without a password or a certificate, and grants what ACLs say.

SASL_SSL with SCRAM-SHA-512 on one port, mutual TLS on another; a certificate's common name is the user's. The
authorizer is Kafka's own, and grants nobody anything but `admin`.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.certificates import Authority
from tests.kafka_broker import JavaBroker, free_ports

ADMIN = "admin"
REQUEST_S = 30.0


class SecuredBroker(JavaBroker):
    """bootstrap: of the listener with passwords; mutual: of the one with certificates."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder=folder / "broker")
        self._certificates = folder
        self._mutual_port = free_ports(1)[0]
        self.mutual = f"127.0.0.1:{self._mutual_port}"
        self._authority = Authority(folder)
        self.ca_file = self._authority.file
        broker = self._authority.sign("broker")
        # Kafka takes both in one file.
        (folder / "broker.both").write_bytes(broker.cert.read_bytes() + broker.key.read_bytes())

    def _settings(self, data: Path) -> dict[str, object]:
        listeners = {"SASL_SSL": self.port, "SSL": self._mutual_port, "CONTROLLER": self._controller_port}
        return {
            **super()._settings(data),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._certificates / "broker.both",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.ca_file,
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.ssl.ssl.principal.mapping.rules": r"RULE:^.*CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # ANONYMOUS is the broker at its own controller, whose port is nobody else's.
            "super.users": f"User:{ADMIN};User:broker;User:ANONYMOUS",
        }

    def _format(self) -> list[str]:
        credential = f"SCRAM-SHA-512=[name={ADMIN},password={password_of(ADMIN)}]"
        return [*super()._format(), "--add-scram", credential]

    def _client_options(self) -> dict[str, str]:
        return self.options(ADMIN)

    def options(self, user: str) -> dict[str, str]:
        """librdkafka's, with a password."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password_of(user),
            "ssl.ca.location": str(self.ca_file),
        }

    def certificate_options(self, user: str) -> dict[str, str]:
        """librdkafka's, with a certificate."""
        certificate, key = self._authority.sign(user)
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.ca_file),
            "ssl.certificate.location": str(certificate),
            "ssl.key.location": str(key),
        }

    def admin(self) -> Any:
        return AdminClient({**self.options(ADMIN), "bootstrap.servers": self.bootstrap})

    def add_users(self, names: Iterable[str]) -> None:
        """Give each a password."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = [UserScramCredentialUpsertion(n, info, password_of(n).encode()) for n in names]
        admin = self.admin()
        for done in admin.alter_user_scram_credentials(wanted).values():
            done.result(REQUEST_S)

    def grant(self, acls: Sequence[AclBinding]) -> None:
        admin = self.admin()
        for done in admin.create_acls(list(acls), request_timeout=REQUEST_S).values():
            done.result(REQUEST_S)


def password_of(user: str) -> str:
    """Made up, and such that it is not found in anything else."""
    return f"pw-{user}-9f8a"


def acls_of(command: str) -> list[AclBinding]:
    """What a `kafka-acls --add` command grants; it may have no flags but those that docs/security.md uses."""
    program, *arguments = shlex.split(command)
    assert program == "kafka-acls", command
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    for once in ("--bootstrap-server", "--command-config", "--allow-principal", "--topic"):
        parser.add_argument(once, required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--operation", action="append", required=True)
    given = parser.parse_args(arguments)
    return [
        AclBinding(
            ResourceType.TOPIC,
            given.topic,
            ResourcePatternType.LITERAL,
            given.allow_principal,
            "*",
            AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
            AclPermissionType.ALLOW,
        )
        for operation in given.operation
    ]
