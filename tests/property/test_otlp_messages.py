"""Counting the messages of an OTLP request before it is parsed, against protobuf's own parser."""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from common.kernels.otlp import CHILDREN, MALFORMED, MAX_DEPTH, NESTING, TOO_DEEP, count_messages
from common.protobuf import delimited
from tests.unit.ingest.otlp import (
    SERVICE,
    attributes,
    counter,
    exponential,
    gauge,
    histogram,
    point,
    request,
    summary,
)

VALUES = st.recursive(
    st.sampled_from([{}, {"intValue": 3}, {"stringValue": "é"}, {"bytesValue": "AQL/"}]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: {"arrayValue": {"values": values}})
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda labels: {"kvlistValue": {"values": attributes(labels)}}
        )
    ),
    max_leaves=6,
)
LABELS = st.dictionaries(st.sampled_from(["a", "b.c", ""]), VALUES, max_size=3)
EXEMPLARS = st.lists(LABELS.map(lambda labels: {"asInt": 1, "filteredAttributes": attributes(labels)}), max_size=2)
METRICS = st.lists(
    st.one_of(
        st.builds(lambda labels: gauge("g", point(1, labels, asInt=1)), LABELS),
        st.builds(lambda labels, found: counter("c", point(1, labels, exemplars=found)), LABELS, EXEMPLARS),
        st.builds(lambda labels, found: histogram("h", point(1, labels, exemplars=found)), LABELS, EXEMPLARS),
        st.builds(lambda labels: exponential("e", point(1, labels, positive={}, negative={"offset": 3})), LABELS),
        st.builds(lambda labels: summary("s", point(1, labels, quantileValues=[{}, {"value": 1}])), LABELS),
        st.builds(lambda labels: {"name": "n", "metadata": attributes(labels)}, LABELS),
    ),
    max_size=4,
)


def count(body: bytes) -> int:
    return int(count_messages(np.frombuffer(bytearray(body), dtype=np.uint8), CHILDREN))


def messages_in(message: Message) -> int:
    n = 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            inner = value if field.is_repeated else [value]
            n += sum(1 + messages_in(each) for each in inner)
    return n


def test_the_table_has_every_message_of_the_schema() -> None:
    found: dict[str, dict[int, str]] = {}

    def look(descriptor: Any) -> None:
        if descriptor.name in found:
            return
        inner = [field for field in descriptor.fields if field.message_type is not None]
        found[descriptor.name] = {field.number: field.message_type.name for field in inner}
        for field in inner:
            look(field.message_type)

    look(ExportMetricsServiceRequest.DESCRIPTOR)
    assert found == dict(NESTING)
    assert NESTING[0][0] == "ExportMetricsServiceRequest"


@settings(deadline=None, max_examples=100)
@given(METRICS, METRICS)
def test_messages_are_counted_as_protobuf_finds_them(one: list[Any], other: list[Any]) -> None:
    message = request(*one, resource=SERVICE)
    message.MergeFrom(request(*other))
    assert count(message.SerializeToString()) == messages_in(message)


@settings(deadline=None, max_examples=300)
@given(METRICS, st.data())
def test_a_damaged_body_counts_what_protobuf_finds_in_it(metrics: list[Any], data: st.DataObject) -> None:
    body = bytearray(request(*metrics, resource=SERVICE).SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=3)):
        body[place] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        message = ExportMetricsServiceRequest.FromString(cut)
    except DecodeError:
        # Whether text is UTF-8 is not looked at.
        count(cut)
        return
    # One that occurs twice where there is room for one is one message to protobuf.
    assert count(cut) >= messages_in(message)


def test_depth_is_limited() -> None:
    body = b""
    for _ in range(MAX_DEPTH):
        # An AnyValue that is an array of one AnyValue.
        body = delimited(5, delimited(1, body))
    resource = delimited(1, delimited(1, delimited(2, body)))
    assert count(delimited(1, resource)) == TOO_DEEP
    assert count(b"\x0a\x01") == MALFORMED
    assert count(b"") == 0
