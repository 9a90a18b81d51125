"""`POST /v1/services/{service}/versions/{number}/invoke`: one request, off the public port."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from edge.admin import schema
from edge.admin.api import JSON, Call, Operation, Reply, Route
from edge.admin.around import Around
from edge.admin.control import InvokeAnswer, InvokeRequest
from edge.admin.documents import json_reply, read_fields
from edge.admin.v1.finding import file_service, number_of
from edge.admin.v1.versions import ONE, ONE_PARAMS
from edge.catalogue import services, versions
from edge.catalogue.records import Scope
from edge.errors import ApiRefused, Refusal

MAX_REQUEST: Final = 2 * 1024 * 1024  # bytes of the document
_FIELD: Final[schema.Schema] = {**schema.array(schema.text(0, 8192), 2), "minItems": 2}
_HEADERS: Final[schema.Schema] = {
    "anyOf": [
        {"type": "object", "additionalProperties": schema.text(0, 8192)},
        schema.array(_FIELD, 200),
    ],
    "description": "An object, or a list of [name, value] where a name occurs twice.",
}
_REQUEST: Final = schema.obj(
    optional={
        "method": schema.text(1, 32, r"^[A-Z]+$", "GET unless told."),
        "path": schema.text(1, 8192, r"^/[!-~]*$", "Path and query; / unless told."),
        "host": schema.text(1, 255, about="The Host field; `localhost` unless told."),
        "headers": _HEADERS,
        "body": schema.text(about="As text."),
        "body_base64": schema.text(about="As bytes; instead of `body`."),
    }
)
_ANSWER: Final = schema.obj(
    {
        "status": schema.number(kind="integer"),
        "headers": schema.array(schema.array(schema.text())),
        "truncated": schema.YES_OR_NO,
        "outcome": schema.text(about="`ok`, `trap`, `cpu_limit` ...: as in the metrics."),
        "detail": schema.text(),
        "request": schema.text(about="Its id in logs."),
        "cpu_ms": schema.number(),
        "wall_ms": schema.number(),
        "logs": schema.array({"type": "object", "additionalProperties": True}),
    },
    {"body": schema.text(), "body_base64": schema.text()},
)


def routes(around: Around) -> list[Route]:
    """One."""
    its = _Invocations(around)
    return [
        Route(
            "POST",
            ONE + "/invoke",
            its.invoke,
            Scope.DEPLOY,
            service="service",
            max_body=MAX_REQUEST,
            operation=Operation(
                "invoke_version",
                "Run one request in a version, whether it serves or not",
                "watching",
                request={JSON: _REQUEST},
                body_required=False,
                responses={200: _ANSWER},
                refusals=(404, 409, 413, 422),
                params=ONE_PARAMS,
            ),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Invocations:
    around: Around

    async def invoke(self, call: Call) -> Reply:
        name, number = call.params["service"], number_of(call)
        fields = await read_fields(call, _REQUEST, optional=True)
        if file_service(self.around, name) is None:
            name = await self.around.catalogue.read(
                lambda tx: versions.get(tx, services.find(tx, name).id, number).service_id
            )
        answer = await self.around.control.invoke(call.actor, name, number, _request_of(fields))
        return json_reply(_answer_view(answer))


def _request_of(fields: dict[str, object]) -> InvokeRequest:
    headers = fields.get("headers", {})
    pairs = headers.items() if isinstance(headers, dict) else headers
    assert isinstance(pairs, list) or hasattr(pairs, "__iter__")
    found = [(str(name), str(value)) for name, value in pairs]
    if "host" in fields:
        found.insert(0, ("host", str(fields["host"])))
    return InvokeRequest(
        str(fields.get("method", "GET")), str(fields.get("path", "/")), found, _body_of(fields)
    )


def _body_of(fields: dict[str, object]) -> bytes:
    if "body" in fields and "body_base64" in fields:
        raise ApiRefused(Refusal.INVALID, "give body or body_base64, not both")
    if "body_base64" not in fields:
        return str(fields.get("body", "")).encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(str(fields["body_base64"]), validate=True)
    except (binascii.Error, ValueError):
        raise ApiRefused(Refusal.INVALID, "body_base64 is not base64") from None


def _answer_view(answer: InvokeAnswer) -> dict[str, object]:
    facts: dict[str, object] = {
        "status": answer.status,
        "headers": [list(field) for field in answer.headers],
        "truncated": answer.truncated,
        "outcome": answer.outcome,
        "detail": answer.detail,
        "request": answer.request_id,
        "cpu_ms": round(answer.cpu_seconds * 1000, 3),
        "wall_ms": round(answer.seconds * 1000, 3),
        "logs": list(answer.lines),
    }
    try:
        facts["body"] = answer.body.decode()
    except UnicodeDecodeError:
        facts["body_base64"] = base64.b64encode(answer.body).decode()
    return facts
