"""Programs that say which one they are, and a client of `/v1` for process tests."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from tests.support.server import DEADLINE, ROOT, Server

HELLO = ROOT / "tests" / "guests" / "wat" / "hello.wat"
_SAYS = "hello from wasm\\n"
_ROOM = 16  # bytes that the program writes


def program(text: str) -> bytes:
    """A module that answers `text`, which is short."""
    assert len(text) < _ROOM
    padded = text.ljust(_ROOM - 1) + "\\n"
    return HELLO.read_text().replace(_SAYS, padded).encode()


# Answers with what its config store `flags` has under `banner`; ends with a trap without that.
BANNER = (
    HELLO.read_text()
    .replace(
        "(memory",
        """(import "fastly_config_store" "open" (func $open (param i32 i32 i32) (result i32)))
  (import "fastly_config_store" "get"
    (func $get (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory""",
    )
    .replace('"hello from wasm\\n"', '"flagsbanner     "')
    .replace(
        "(call $must (call $downstream",
        """(call $must (call $open (i32.const 96) (i32.const 5) (i32.const 20)))
    (call $must (call $get (i32.load (i32.const 20)) (i32.const 101) (i32.const 6)
      (i32.const 128) (i32.const 64) (i32.const 24)))
    (call $must (call $downstream""",
    )
    .replace("(i32.const 96) (i32.const 16) (i32.const 0)", "(i32.const 128) "
             "(i32.load (i32.const 24)) (i32.const 0)")
    .encode()
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What the control API answered."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The document."""
        return json.loads(self.body)


def call(running: Server, method: str, path: str, body: bytes | object | None = None) -> Answer:
    """One request with the bootstrap token; what is not bytes goes as JSON.

    Raises OSError or HTTPException when the server is gone.
    """
    token = (running.state_dir / "admin.token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    connection = http.client.HTTPConnection("127.0.0.1", running.admin_port, timeout=DEADLINE)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


def deploy(running: Server, name: str, text: str, query: str = "activate=true") -> Any:
    """Deploy a program that answers `text`; the document of the reply."""
    answer = call(running, "PUT", f"/v1/services/{name}?{query}", program(text))
    assert answer.status in (200, 201), answer
    return answer.json


def said(running: Server, host: str) -> str:
    """What a service answers on the public port."""
    status, body, _ = running.get(host=host)
    assert status == 200, (status, body)
    return body.decode().strip()
