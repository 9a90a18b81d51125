"""`edge.testing` with what guests reach: backends that are functions, faults, stores with seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.testing import Cause, Edge, Ending, Fault, Reply, Request
from tests.support.guests import build
from tests.support.runtime import program


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


def test_places_devices_and_access_lists_are_those_of_the_test(edge: Edge) -> None:
    service = edge.service(
        build("js/stores"),
        acls={"blocked": [("192.0.2.0/24", "BLOCK")]},
        geolocation={"198.51.100.7": {"city": "Lund"}},
        device_detection={"My Phone": {"device": {"name": "mine", "is_mobile": True}}},
    )
    assert "BLOCK" in service.get("/acl/192.0.2.9").text
    assert "Lund" in service.get("/geo/198.51.100.7").text
    assert "San Francisco" in service.get("/geo/127.0.0.1").text
    phone = service.get("/device/", headers={"user-agent": "My Phone"})
    assert phone.json()["mobile"] is True


@pytest.mark.parametrize(("key", "valid"), [("right", 1), ("wrong", 0), ("", 0), ("right ,", 0)])
def test_keys_are_valid_that_the_test_says_are(
    edge: Edge, tmp_path: Path, key: str, valid: int
) -> None:
    # It ends with the answer of both spellings as its exit code.
    body = """
      (call $must (call $http_req.body_downstream_get (i32.const 0) (i32.const 4)))
      (call $must (call $http_req.fastly_key_is_valid (i32.const 8)))
      (call $must (call $http_downstream.fastly_key_is_valid
        (i32.load (i32.const 0)) (i32.const 12)))
      (call $wasi.proc_exit (i32.add (i32.load (i32.const 8)) (i32.load (i32.const 12))))
    """
    imports = (
        "http_req.body_downstream_get", "http_req.fastly_key_is_valid",
        "http_downstream.fastly_key_is_valid", "wasi.proc_exit",
    )  # fmt: skip
    module = tmp_path / "app.wat"
    module.write_text(program(body, *imports))
    outcome = (
        edge.service(module, valid_keys=["right"]).get(headers={"fastly-key": key}).wait().outcome
    )
    if valid:
        assert outcome.detail == "the guest left with exit code 2"
    else:
        assert outcome.ending is Ending.OK


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
