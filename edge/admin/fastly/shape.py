"""How Fastly's API speaks: forms in, JSON with its names out, times in ISO 8601, lists by page.

What is written here is what the official CLI decodes; keys that no client of ours can use have the
value that Fastly gives to what is not set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from edge.admin.api import SMALL_BODY, Call, Endpoint, Reply, Route
from edge.catalogue.records import Scope, ServiceRecord, VersionRecord
from edge.errors import ApiRefused, Refusal

T = TypeVar("T")

CUSTOMER_ID: Final = "edgeserver00000000cust"  # there are no customers here; clients want an id
MAX_FIELDS: Final = 200  # of one form
MAX_PER_PAGE: Final = 1000
_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_SWITCHES: Final = {"1": True, "true": True, "0": False, "false": False, "": False}


class Form:
    """The fields of a body, form-encoded or JSON.

    ApiRefused INVALID for values of another kind than is asked for.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """A text; what is null is empty."""
        value = self._values.get(name, default)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _invalid(name, value, "a text")
        return str(value)

    def given(self, name: str) -> str | None:
        """A text; None where there is no such field."""
        return self.text(name) if name in self._values else None

    def number(self, name: str) -> int | None:
        """A whole number, not negative; None where it is absent, null or empty."""
        text = self.text(name)
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise _invalid(name, text, "a whole number")
        return int(text)

    def switch(self, name: str) -> bool | None:
        """Yes or no, as `1`, `true` or JSON's own; None where it is absent or null."""
        value = self._values.get(name)
        if value is None or isinstance(value, bool):
            return value
        found = _SWITCHES.get(str(value).lower())
        if found is None:
            raise _invalid(name, value, "0, 1, true or false")
        return found

    def texts(self, name: str) -> list[str]:
        """A list: `name[]` repeated, or JSON's own."""
        value = self._values.get(f"{name}[]", self._values.get(name, []))
        texts: list[str] = []
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str):
                raise _invalid(name, value, "a list of texts")
            texts.append(one)
        return texts


async def read_form(call: Call) -> Form:
    """The body of a call.  ApiRefused BAD_REQUEST for what is neither a form nor a JSON object."""
    data = await call.body.read()
    kind = (call.headers("content-type") or "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return Form(_json_object(data))
    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        raise ApiRefused(
            Refusal.BAD_REQUEST,
            f"the body is not a form of at most {MAX_FIELDS} fields; send "
            "application/x-www-form-urlencoded or application/json",
        ) from None
    values: dict[str, object] = {}
    for name, value in pairs:
        if name.endswith("[]"):
            several = values.setdefault(name, [])
            assert isinstance(several, list)
            several.append(value)
        else:
            values[name] = value
    return Form(values)


def answer(value: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Reply:
    """JSON, compact."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Reply(status, body.encode("utf-8", "backslashreplace") + b"\n", headers=headers)


def done() -> Reply:
    """What Fastly answers when there is nothing to show."""
    return answer({"status": "ok"})


def endpoint(
    method: str,
    pattern: str,
    work: Endpoint,
    scope: Scope | None = Scope.READ,
    *,
    confined: bool = False,
    max_body: int = SMALL_BODY,
) -> Route:
    """A route of Fastly's API; `{service}` in it is what a token of one service is held to."""
    service = "service" if "/{service}" in pattern else ""
    return Route(method, pattern, work, scope, service, confined, max_body, fastly=True)


def timestamp(at: float | None) -> str | None:
    """ISO 8601 in UTC, to the second."""
    if at is None:
        return None
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def times(created_at: float, updated_at: float) -> dict[str, object]:
    """The three times that every thing of Fastly's has."""
    return {
        "created_at": timestamp(created_at),
        "updated_at": timestamp(updated_at),
        "deleted_at": None,
    }


def version_number(call: Call) -> int:
    """The `{number}` of the path.  ApiRefused NOT_FOUND for what is none."""
    text = call.params["number"]
    if not _NUMBER.fullmatch(text) or int(text) == 0:
        raise ApiRefused(Refusal.NOT_FOUND, f"{text[:40]!r} is not the number of a version")
    return int(text)


def version_shape(version: VersionRecord) -> dict[str, object]:
    """A version."""
    environments = []
    if version.staged:
        environments.append(
            {
                "id": "staging",
                "name": "staging",
                "service_id": version.service_id,
                "active_version": version.number,
            }
        )
    return {
        "number": version.number,
        "active": version.active,
        "locked": version.locked,
        "staging": version.staged,
        "testing": False,
        "deployed": version.active,
        "comment": version.comment,
        "service_id": version.service_id,
        "environments": environments,
        **times(version.created_at, version.updated_at),
    }


def service_shape(service: ServiceRecord, versions: Iterable[VersionRecord]) -> dict[str, object]:
    """A service.  `version` is the active one or, where there is none, the latest."""
    return {
        "id": service.id,
        "name": service.name,
        "type": "wasm",
        "customer_id": CUSTOMER_ID,
        "comment": service.comment,
        "paused": False,
        "version": service.active or service.latest,
        "versions": [version_shape(version) for version in versions],
        "environments": [],
        **times(service.created_at, service.updated_at),
    }


def one_page(
    call: Call, items: Sequence[T], write: Callable[[T], object], *, default: int = MAX_PER_PAGE
) -> Reply:
    """The part of a list that is asked for."""
    shown, headers = part_of(call, items, default=default)
    return answer([write(item) for item in shown], headers=headers)


def part_of(
    call: Call, items: Sequence[T], *, default: int = MAX_PER_PAGE
) -> tuple[Sequence[T], list[tuple[str, str]]]:
    """The part of a list that `page` and `per_page` ask for, and a Link to the next and the last.

    ApiRefused INVALID for pages that are none.
    """
    page = _count(call, "page", 1, 1_000_000)
    size = _count(call, "per_page", default, MAX_PER_PAGE)
    last = max(1, -(-len(items) // size))
    links = []
    if page < last:
        asked = {name: call.asked(name) for name in call.query}
        for relation, number in (("next", page + 1), ("last", last)):
            query = urlencode({**asked, "page": number, "per_page": size})
            links.append(f'<{call.path}?{query}>; rel="{relation}"')
    headers = [("link", ", ".join(links))] if links else []
    return items[(page - 1) * size : page * size], headers


def _count(call: Call, name: str, default: int, most: int) -> int:
    text = call.asked(name) or str(default)
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise ApiRefused(Refusal.INVALID, f"{name} is a number from 1 to {most}")
    return int(text)


def _json_object(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise ApiRefused(Refusal.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise ApiRefused(Refusal.BAD_REQUEST, "the body is not a JSON object")
    return found


def _invalid(name: str, value: object, wanted: str) -> ApiRefused:
    # What is nested is not quoted: it may be a private key that was sent in a list.
    shown = "nested" if isinstance(value, list | dict) else repr(value)[:80]
    return ApiRefused(Refusal.INVALID, f"{name[:64]} is {shown}; it must be {wanted}")
