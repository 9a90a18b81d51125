"""`edge.testing` with what guests reach: backends that are functions, faults, stores with seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.testing import Cause, Edge, Ending, Fault, Reply, Request
from tests.support.guests import build


def origin(request: Request) -> Reply:
    """Answers with the path that it was asked for."""
    return Reply(200, request.target, {"content-type": "text/plain"})


def test_a_guest_fetches_from_python_functions(edge: Edge) -> None:
    service = edge.service(build("js/fetch"), backends={"origin": origin})
    response = service.get("/three")
    assert response.text == "/a+/b+/c"
    seen = response.wait()
    assert (seen.outcome.ending, seen.subrequests) == (Ending.OK, 3)
    assert sorted(r.target for r in service.backends["origin"].requests) == ["/a", "/b", "/c"]
    assert "fastly_http_req.send_async" in {call.name.removesuffix("_v2") for call in seen.calls}


def test_one_backend_serves_several_services(edge: Edge) -> None:
    backend = edge.backend(origin)
    first = edge.service(build("js/fetch"), backends={"origin": backend})
    second = edge.service(build("js/fetch"), backends={"origin": backend.url})
    assert first.get("/three").text == second.get("/three").text
    assert len(backend.requests) == 6


@pytest.mark.parametrize("cause", [Cause.CONNECTION_REFUSED, Cause.DNS_ERROR])
def test_a_backend_fails_as_it_is_told(edge: Edge, cause: Cause) -> None:
    service = edge.service(
        build("js/fetch"),
        backends={"origin": origin},
        faults={"origin": Fault(error_rate=1.0, cause=cause)},
    )
    response = service.get("/three")
    assert response.status == 502
    assert service.backends["origin"].requests == []


def test_a_fault_comes_and_goes_while_the_service_runs(edge: Edge) -> None:
    service = edge.service(build("js/fetch"), backends={"origin": origin})
    assert service.get("/three").status == 200
    service.inject(origin=Fault(error_rate=1.0))
    assert service.get("/three").status == 502
    service.inject(origin=Fault(latency=0.15))
    slow = service.get("/three")
    assert slow.status == 200
    assert slow.wait().wall_ns >= 0.15e9
    service.inject()
    assert service.get("/three").status == 200


def test_stores_have_their_seeds_and_keep_what_a_guest_writes(edge: Edge) -> None:
    service = edge.service(
        build("js/stores"),
        kv_stores={"cart": {"apple": ("green", '{"n":1}'), "raw": b"\x00\xff"}},
        config_stores={"flags": {"banner": "blue"}},
        secret_stores={"keys": {"api": "s3cret"}},
    )
    assert "blue" in service.get("/config/banner").text
    assert service.get("/kv/apple").text == "green"
    assert service.request("PUT", "/kv/pear", body="ripe").status < 300
    assert service.kv("cart", "pear") == b"ripe"
    assert service.kv("cart", "raw") == b"\x00\xff"
    assert service.kv("cart", "absent") is None
    assert service.get("/kv/apple").header("x-metadata") == '{"n":1}'
    assert "s3cret" in service.get("/secret/api").text


def test_a_fastly_toml_is_served_as_edge_dev_would(edge: Edge, tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "flags.json").write_text(json.dumps({"banner": "red"}))
    (folder / "fastly.toml").write_text(
        """
        manifest_version = 3
        [local_server.config_stores.flags]
        format = "json"
        file = "flags.json"
        """
    )
    service = edge.fastly_toml(folder / "fastly.toml", build("js/stores"))
    assert "red" in service.get("/config/banner").text
