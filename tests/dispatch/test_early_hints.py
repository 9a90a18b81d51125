"""Early hints (RFC 8297) on their way from a guest to the client's socket."""

from __future__ import annotations

from pathlib import Path

from tests.support.downstream import status_of, town
from tests.support.reusing import ANSWER, CONTENT, RESPONSE, load, must, serving

LINKS = (b"</style.css>; rel=preload; as=style", b"</app.js>; rel=preload; as=script")
NAME_AT, FIRST_LINK_AT = 1024, 1040


def hint(number: int) -> str:
    """Send a 103 with one of the links."""
    return (
        must("http_resp.new", RESPONSE)
        + must("http_resp.status_set", load(RESPONSE), 103)
        + must(
            "http_resp.header_append", load(RESPONSE), NAME_AT, 4,
            FIRST_LINK_AT + 64 * number, len(LINKS[number]),
        )
        + must("http_body.new", CONTENT)
        + must("http_resp.send_downstream", load(RESPONSE), load(CONTENT), 0)
    )  # fmt: skip


def hinting(answer: str = ANSWER) -> str:
    data = f'(data (i32.const {NAME_AT}) "Link")' + "".join(
        f'(data (i32.const {FIRST_LINK_AT + 64 * number}) "{link.decode()}")'
        for number, link in enumerate(LINKS)
    )
    return serving(hint(0) + hint(1) + hint(0), answer=answer, extra=data)


EACH = [b"HTTP/1.1 103 Early Hints\r\nlink: " + LINKS[number] + b"\r\n\r\n" for number in (0, 1, 0)]


def test_every_hint_is_on_the_wire_before_the_response(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "shop", hinting())
        client = there.ask("shop")
        there.until(client)
        hints = b"".join(EACH)
        assert client.received.startswith(hints + b"HTTP/1.1 200 OK\r\n")
        assert client.received.endswith(b"\r\n\r\n1")
        again = there.ask("shop")
        there.until(again)
        assert again.received.startswith(hints), "the next request in the same sandbox has them too"


def test_hints_go_out_while_the_guest_still_works_on_its_response(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "shop", hinting(answer="(loop $for_ever (br $for_ever))"))
        client = there.ask("shop")
        assert client.received == b"".join(EACH)
        there.until(client)
        assert client.received.startswith(b"".join(EACH) + b"HTTP/1.1 503 ")


def test_an_old_client_gets_the_response_alone(tmp_path: Path) -> None:
    with town() as there:
        there.deploy(tmp_path, "shop", hinting())
        client = there.ask("shop", b"GET / HTTP/1.0\r\nHost: shop\r\n\r\n")
        there.until(client)
        assert status_of(client) == 200
        assert b"103" not in client.received
