"""Values of OTLP as text, character by character as Go, and so Prometheus, writes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from ingest.otlp_values import attribute_text, decimal_text


def value(**fields: Any) -> AnyValue:
    return ParseDict(fields, AnyValue())


def array(*values: dict[str, Any]) -> dict[str, Any]:
    return {"arrayValue": {"values": list(values)}}


def members(**values: dict[str, Any]) -> dict[str, Any]:
    return {"kvlistValue": {"values": [{"key": key, "value": each} for key, each in values.items()]}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"stringValue": 'a "b" <c>\n'}, 'a "b" <c>\n'),
        ({"boolValue": True}, "true"),
        ({"boolValue": False}, "false"),
        ({"intValue": -(2**63)}, "-9223372036854775808"),
        ({"doubleValue": 5}, "5"),
        ({"doubleValue": 0.1}, "0.1"),
        ({"doubleValue": -0.0}, "-0"),
        ({"doubleValue": 1e20}, "100000000000000000000"),
        ({"doubleValue": 1e21}, "1e+21"),
        ({"doubleValue": 1.5e-7}, "1.5e-7"),
        ({"doubleValue": 1e-6}, "0.000001"),
        ({"doubleValue": 1e-10}, "1e-10"),
        ({"doubleValue": "Infinity"}, "json: unsupported value: +Inf"),
        ({"doubleValue": "NaN"}, "json: unsupported value: NaN"),
        ({"bytesValue": "AQL/"}, "AQL/"),
        (array(), "[]"),
        (members(), "{}"),
        (
            array(
                {"stringValue": 'a"<\u2028\u00fc\x01\n'},
                {"intValue": 7},
                {"doubleValue": 2},
                {},
                {"boolValue": True},
            ),
            '["a\\"\\u003c\\u2028\u00fc\\u0001\\n",7,2,null,true]',
        ),
        (members(b=array({"bytesValue": "AQL/"}), a=members(x={"intValue": 1})), '{"a":{"x":1},"b":["AQL/"]}'),
        (array({"doubleValue": "Infinity"}), ""),
    ],
)
def test_an_attribute_is_text_as_go_writes_it(fields: dict[str, Any], expected: str) -> None:
    assert attribute_text(value(**fields)) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.005, "0.005"),
        (2.5, "2.5"),
        (1e6, "1000000"),
        (1e22, "10000000000000000000000"),
        (1e-7, "0.0000001"),
        (0.1 + 0.2, "0.30000000000000004"),
        (-3.0, "-3"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_bounds_and_quantiles_have_no_exponent(number: float, expected: str) -> None:
    assert decimal_text(number) == expected
