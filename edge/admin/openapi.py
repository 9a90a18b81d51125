"""The OpenAPI 3.1 document, made from the declared routes: what is not declared is not promised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

import edge
from edge.admin.api import JSON, PROBLEM, Call, Operation, Parameter, Reply, Route
from edge.admin.problems import PROBLEM_SCHEMA

# Refusals that every operation may answer with.
_ALWAYS: Final = frozenset((400, 401, 403, 422, 429, 503))
_WITHOUT_TOKEN: Final = frozenset((400, 422, 503))
_TITLES: Final[Mapping[int, str]] = {
    200: "Done",
    201: "Made",
    202: "Begun",
    204: "Done; there is nothing to tell",
    400: "The request cannot be understood",
    401: "A valid token is needed",
    403: "The token does not allow this",
    404: "There is no such thing",
    409: "It is in the way of something that exists",
    412: "It has changed in the meantime",
    413: "More bytes than are taken",
    422: "A value is not allowed",
    429: "Too many attempts",
    501: "This server does not have that feature",
    503: "Too much at once, or stopping; try again",
    507: "It could not be stored",
}


def document(routes: Iterable[Route]) -> dict[str, object]:
    """The whole document."""
    paths: dict[str, dict[str, object]] = {}
    tags: dict[str, None] = {}
    for route in routes:
        if route.operation is None:
            continue
        tags[route.operation.tag] = None
        item = paths.setdefault(route.pattern, {})
        item[route.method.lower()] = _operation(route, route.operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edge-server control API",
            "version": edge.__version__,
            "description": "Deploys services to an edge server and watches them.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"key": []}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": {"Problem": PROBLEM_SCHEMA},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "Fastly-Key"},
            },
        },
    }


def document_route(routes: Iterable[Route]) -> Route:
    """`/v1/openapi.json` for these routes and itself."""
    listed = list(routes)
    rendered: list[bytes] = []

    async def answer(call: Call) -> Reply:
        if not rendered:
            rendered.append(json.dumps(document([*listed, route]), indent=1).encode() + b"\n")
        return Reply(body=rendered[0])

    route = Route(
        "GET",
        "/v1/openapi.json",
        answer,
        scope=None,
        confined=True,
        operation=Operation(
            "openapi",
            "This document",
            "server",
            responses={200: {"type": "object"}},
            refusals=(422,),
        ),
    )
    return route


def _operation(route: Route, operation: Operation) -> dict[str, object]:
    found: dict[str, object] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            *(_path_parameter(name, operation) for name in _names(route.pattern)),
            *map(_query_parameter, operation.query),
        ],
        "responses": _responses(route, operation),
    }
    if route.scope is None:
        found["security"] = []
    else:
        found["description"] = f"Needs a token with the scope `{route.scope.value}`."
    if operation.request:
        found["requestBody"] = {
            "content": {kind: {"schema": rule} for kind, rule in operation.request.items()},
            "required": operation.body_required,
        }
    return found


def _responses(route: Route, operation: Operation) -> dict[str, object]:
    found: dict[str, object] = {}
    for status, rule in operation.responses.items():
        entry: dict[str, object] = {"description": _TITLES.get(status, "Done")}
        if rule is not None:
            assert isinstance(rule, Mapping)
            others = operation.media.get(status, {})
            entry["content"] = {
                str(rule.get("contentMediaType", JSON)): {"schema": rule},
                **{kind: {"schema": other} for kind, other in others.items()},
            }
        found[str(status)] = entry
    for status in sorted(_refusals(route, operation) - set(operation.responses)):
        found[str(status)] = {
            "description": _TITLES.get(status, "Refused"),
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    # Answered by the HTTP layer, before anybody knows what is asked.
    found["414"] = {
        "description": "The URL is longer than is taken",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return found


def _refusals(route: Route, operation: Operation) -> set[int]:
    """Statuses of problems: those that are declared, and those that go without saying."""
    found = {*operation.refusals, *(_WITHOUT_TOKEN if route.scope is None else _ALWAYS)}
    if operation.request:
        found.add(413)
    if "{" in route.pattern:
        found.add(404)
    if route.method != "GET":
        found.add(507)
    return found


def _path_parameter(name: str, operation: Operation) -> dict[str, object]:
    rule = operation.params.get(name, {"type": "string", "minLength": 1})
    return {"name": name, "in": "path", "required": True, "schema": rule}


def _query_parameter(parameter: Parameter) -> dict[str, object]:
    rule: Mapping[str, object] = parameter.schema
    if parameter.many:
        rule = {"type": "array", "items": rule}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.summary,
        "schema": rule,
    }


def _names(pattern: str) -> list[str]:
    return [part[1:-1] for part in pattern.split("/") if part.startswith("{")]
