"""Parts of OpenAPI 3.1 descriptions, of which a service's `openapi.py` makes its paths; not imported at start-up.

The handlers read their parameters themselves, as Prometheus does, so a framework that looks at signatures could
not describe them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = dict[str, Any]

TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}


class Parameter(NamedTuple):
    """A parameter of a query string or a form, a path or a header, by `place`."""

    name: str
    schema: Json
    description: str
    required: bool = False
    place: str = "query"

    def described(self) -> Json:
        return {
            "name": self.name,
            "in": self.place,
            "required": self.required,
            "description": self.description,
            "schema": self.schema,
        }


def array(of: Json) -> Json:
    return {"type": "array", "items": of}


def record(**fields: Json) -> Json:
    """An object that has all of these fields; more may come with later releases."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def by_name(of: Json) -> Json:
    """An object with any names, all of one kind."""
    return {"type": "object", "additionalProperties": of}


def success(data: Json) -> Json:
    """The answer of Prometheus' API that carries the data."""
    notes = {name: array(TEXT) for name in ("warnings", "infos")}
    return {
        "type": "object",
        "properties": {"status": {"const": "success"}, "data": data, **notes},
        "required": ["status", "data"],
    }


FAILURE = record(status={"const": "error"}, errorType=TEXT, error=TEXT)
"""The answer of Prometheus' API that says what is wrong."""


def answer(description: str, media_type: str = "", schema: Json | None = None) -> Json:
    """One response; without a media type it has no body."""
    return (
        {"description": description, "content": {media_type: {"schema": schema or {}}}}
        if media_type
        else {"description": description}
    )


def failures(reasons: Mapping[int, str]) -> Json:
    """Responses in the form of Prometheus' API, by status."""
    return {str(status): answer(reason, "application/json", FAILURE) for status, reason in reasons.items()}


def operation(
    summary: str, responses: Json, parameters: Sequence[Parameter] = (), body: Json | None = None
) -> Json:
    """What one method of a path does. body: its content by media type."""
    described: Json = {"summary": summary, "responses": responses}
    if parameters:
        described["parameters"] = [parameter.described() for parameter in parameters]
    if body is not None:
        described["requestBody"] = {"content": body, "required": True}
    return described


def form(parameters: Sequence[Parameter]) -> Json:
    """The body that says these parameters."""
    schema: Json = {"type": "object", "properties": {p.name: p.schema for p in parameters}}
    if required := [p.name for p in parameters if p.required]:
        schema["required"] = required
    return {"application/x-www-form-urlencoded": {"schema": schema}}
