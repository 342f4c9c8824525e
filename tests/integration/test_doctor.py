"""`tabor doctor` at a real broker."""

from __future__ import annotations

import subprocess
import uuid

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.kafka_broker import Broker
from tests.processes import tabor_command
from tests.unit.tabor.test_doctor import doctor

pytestmark = pytest.mark.kafka


def test_settings_of_topics_are_looked_at_where_they_are(kafka_broker: Broker) -> None:
    prefix = f"doctor-{uuid.uuid4().hex[:8]}"
    url = f"kafka://{kafka_broker.bootstrap}/{prefix}"
    samples, control = f"{prefix}.samples", f"{prefix}.control"

    status, found = doctor("--log", url)
    assert (status, found[samples]["level"], found[control]["level"]) == (1, "problem", "problem")
    assert "create-topics" in found[samples]["advice"]

    command = tabor_command("cluster", "create-topics", "--log", url, "--partitions", "2")
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    status, found = doctor("--log", url)
    assert found[samples]["text"] == "2 partitions, all in sync"
    well = [f"{samples} cleanup", f"{samples} retention", f"{samples} message size"]
    for about in (*well, f"{control} cleanup", f"{control} timestamps"):
        assert found[about]["level"] == "ok", found[about]
    assert found["brokers"]["level"] == found[f"{samples} replicas"]["level"] == "warning"
    assert (found["storage nodes"]["level"], status) == ("problem", 1), "none has joined"

    entry = ConfigEntry("retention.ms", "60000", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ResourceType.TOPIC, samples, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap})
    admin.incremental_alter_configs([changed])[changed].result(10)
    _, found = doctor("--log", url)
    assert found[f"{samples} retention"]["level"] == "problem"
