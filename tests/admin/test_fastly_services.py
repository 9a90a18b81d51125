"""Fastly's API for services, without its CLI: forms and JSON, pages, refusals, uploads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from edge.admin.control import FileService
from edge.admin.fastly import routes
from edge.admin.fastly.packages import read_field
from edge.catalogue import definition
from edge.catalogue.database import STARTUP
from edge.catalogue.records import Scope
from edge.errors import ApiRefused
from tests.support.api_server import Answer, ApiServer, api_server

HELLO = b"\0asm\x01\0\0\0"
FORM = {"content-type": "application/x-www-form-urlencoded"}
BORDER = "multipart/form-data; boundary=xyz"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path, make_routes=routes) as running:
        yield running


def made(server: ApiServer, name: str = "hello") -> str:
    """The id of a new service."""
    answer = server.ask("POST", "/service", f"name={name}".encode(), headers=FORM)
    assert answer.status == 200, answer
    return str(answer.json["id"])


def multipart(data: bytes, name: str = "package") -> bytes:
    head = f'--xyz\r\ncontent-disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
    return head.encode() + data + b"\r\n--xyz--\r\n"


def upload(server: ApiServer, service: str, data: bytes, version: int = 1) -> Answer:
    path = f"/service/{service}/version/{version}/package"
    return server.ask("PUT", path, multipart(data), headers={"content-type": BORDER})


def test_a_form_and_a_json_object_say_the_same(server: ApiServer) -> None:
    one = server.ask("POST", "/service", b"name=one&comment=a%20b", headers=FORM).json
    two = server.ask("POST", "/service", {"name": "two", "comment": "a b"}).json
    assert set(one) == set(two)
    assert (one["comment"], two["comment"]) == ("a b", "a b")
    assert one["versions"][0]["number"] == 1
    assert one["created_at"].endswith("Z")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"name=\xff", "application/x-www-form-urlencoded"),
        (b"name=%ff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a=1" for _ in range(300)), "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
def test_bodies_that_cannot_be_read_are_bad_requests(
    server: ApiServer, body: bytes, kind: str
) -> None:
    answer = server.ask("POST", "/service", body, headers={"content-type": kind})
    assert (answer.status, set(answer.json)) == (400, {"msg", "detail"})


def test_a_name_that_the_file_owns_is_not_given_out(server: ApiServer) -> None:
    server.control.files = (FileService("theirs", 1, "ab", "active", "", ()),)
    refused = server.ask("POST", "/service", {"name": "theirs"})
    assert (refused.status, refused.json["msg"]) == (
        409,
        "The configuration file owns this service",
    )
    service = made(server)
    assert server.ask("PUT", f"/service/{service}", {"name": "theirs"}).status == 409


def test_pages_have_links_to_the_next_and_the_last(server: ApiServer) -> None:
    ids = [made(server, f"s{number}") for number in range(5)]
    first = server.ask("GET", "/service?per_page=2&sort=created&direction=ascend")
    assert [item["id"] for item in first.json] == ids[:2]
    assert first.headers["link"] == (
        '</service?per_page=2&sort=created&direction=ascend&page=2>; rel="next", '
        '</service?per_page=2&sort=created&direction=ascend&page=3>; rel="last"'
    )
    last = server.ask("GET", "/service?per_page=2&page=3&sort=created&direction=descend")
    assert [item["id"] for item in last.json] == ids[:1]
    assert "link" not in last.headers
    assert server.ask("GET", "/service?page=9").json == []
    for query in ("page=0", "page=x", "per_page=5000"):
        assert server.ask("GET", f"/service?{query}").status == 422


def test_details_tell_the_active_the_staged_and_the_latest_version(server: ApiServer) -> None:
    service = made(server)
    path = f"/service/{service}"
    assert server.ask("GET", f"{path}/details").json["active_version"] is None
    assert upload(server, service, HELLO).status == 200
    for verb in ("activate", "clone", "clone"):
        assert server.ask("PUT", f"{path}/version/1/{verb}").status == 200
    assert server.ask("PUT", f"{path}/version/2/activate/staging").json["staging"] is True
    found = server.ask("GET", f"{path}/details").json
    assert (found["active_version"]["number"], found["version"]["number"]) == (1, 3)
    assert [one["number"] for one in found["versions"]] == [1, 2, 3]
    active = server.ask("GET", f"{path}/details?filter%5Bversions.active%5D=true").json
    assert [one["number"] for one in active["versions"]] == [1]
    staged = server.ask("GET", f"{path}/details?filter%5Bversions.staged%5D=true").json
    assert (staged["version"]["number"], staged["version"]["staging"]) == (2, True)
    listed = server.ask("GET", "/service").json[0]
    assert [one["number"] for one in listed["versions"]] == [1, 2, 3]
    assert listed["version"] == 1


@pytest.mark.parametrize("number", ["0", "x", "-1", "9", "9" * 15, "9" * 40])
def test_a_version_that_is_none_is_not_found(server: ApiServer, number: str) -> None:
    service = made(server)
    for path in ("", "/validate", "/package", "/domain", "/backend/x"):
        answer = server.ask("GET", f"/service/{service}/version/{number}{path}")
        assert answer.status == 404, path


def test_only_what_is_active_or_staged_can_be_ended(server: ApiServer) -> None:
    service = made(server)
    for path in ("deactivate", "deactivate/staging"):
        assert server.ask("PUT", f"/service/{service}/version/1/{path}").status == 422


def test_a_service_is_deleted_while_none_of_its_versions_is_active(server: ApiServer) -> None:
    service = made(server)
    upload(server, service, HELLO)
    version = f"/service/{service}/version/1"
    server.ask("PUT", f"{version}/activate")
    refused = server.ask("DELETE", f"/service/{service}")
    assert (refused.status, refused.json["msg"]) == (422, "The version is being served")
    server.ask("PUT", f"{version}/deactivate")
    assert server.ask("PUT", f"{version}/activate/staging").json["staging"] is True
    assert server.ask("DELETE", f"/service/{service}").json == {"status": "ok"}
    assert server.ask("GET", f"/service/{service}").status == 404


def test_a_version_without_a_package_is_not_activated(server: ApiServer) -> None:
    service = made(server)
    refused = server.ask("PUT", f"/service/{service}/version/1/activate")
    assert (refused.status, refused.json["msg"]) == (409, "The version has no package")
    found = server.ask("GET", f"/service/{service}/version/1/validate").json
    assert (found["status"], found["msg"]) == ("error", "version 1 has no package")
    assert server.ask("GET", f"/service/{service}/version/1/package").status == 404


def test_a_token_of_one_service_sees_and_changes_no_other(server: ApiServer) -> None:
    mine, other = made(server, "mine"), made(server, "other")
    token = server.token(Scope.DEPLOY, service_id=mine)
    assert [one["id"] for one in server.ask("GET", "/service", token=token).json] == [mine]
    assert server.ask("GET", "/service/search?name=other", token=token).status == 404
    assert server.ask("GET", "/verify", token=token).json["services"] == {mine: "mine"}
    for path in ("", "/details", "/version", "/version/1/domain"):
        assert server.ask("GET", f"/service/{mine}{path}", token=token).status == 200
        assert server.ask("GET", f"/service/{other}{path}", token=token).status == 403
    assert server.ask("DELETE", f"/service/{other}", token=token).status == 403
    assert server.ask("POST", "/service", {"name": "new"}, token=token).status == 403


def test_a_token_that_reads_changes_nothing_and_says_so(server: ApiServer) -> None:
    service, token = made(server), server.token(Scope.READ)
    assert server.ask("GET", f"/service/{service}", token=token).status == 200
    for method, path in (
        ("PUT", ""), ("DELETE", ""), ("POST", "/version"), ("PUT", "/version/1/activate"),
        ("PUT", "/version/1/package"), ("POST", "/purge_all"), ("POST", "/version/1/backend"),
    ):  # fmt: skip
        refused = server.ask(method, f"/service/{service}{path}", token=token)
        assert (refused.status, "read" in refused.json["detail"]) == (403, True), path
    for path in ("/tokens", "/sudo"):
        assert server.ask("POST", path, {"name": "x"}, token=token).status == 403


def test_what_clients_ask_before_a_token_is_answered_without_one(server: ApiServer) -> None:
    for path in ("", "/realms/fastly"):
        answer = server.ask("GET", f"{path}/.well-known/openid-configuration", token="")
        assert answer.status == 200
        assert answer.json["issuer"] == f"http://127.0.0.1:{server.port}"
    assert server.ask("GET", "/service", token="").status == 401


def test_scopes_and_times_of_tokens(server: ApiServer) -> None:
    def create(**fields: object) -> Answer:
        return server.ask("POST", "/tokens", {"name": "t", **fields})

    made_token = create(scope="global:read purge_all", expires_at="2999-01-01T00:00:00Z").json
    assert (made_token["scope"], made_token["expires_at"]) == (
        "global:read purge_all",
        "2999-01-01T00:00:00Z",
    )
    own = server.ask("GET", "/tokens/self", token=made_token["access_token"]).json
    assert own["id"] == made_token["id"]
    assert "access_token" not in own
    assert create(scope="root").status == 422
    assert create(expires_at="soon").status == 422
    assert create(expires_at="2000-01-01T00:00:00Z").status == 422
    assert create(services=[made(server, "a"), made(server, "b")]).status == 422
    assert create(services=["nobody"]).status == 404
    assert server.ask("DELETE", f"/tokens/{made_token['id']}").status == 204
    assert server.ask("GET", "/tokens/self", token=made_token["access_token"]).status == 401


def test_purges_name_what_they_purge(server: ApiServer) -> None:
    service = made(server)
    keys = {"surrogate-key": "a b"}
    assert set(server.ask("POST", f"/service/{service}/purge", headers=keys).json) == {"a", "b"}
    body = {"surrogate_keys": ["c"]}
    assert set(server.ask("POST", f"/service/{service}/purge", body).json) == {"c"}
    assert server.ask("POST", f"/service/{service}/purge").status == 422
    assert server.ask("POST", f"/service/{service}/purge/one").json["status"] == "ok"
    assert server.ask("POST", "/service/nobody/purge_all").status == 404
    assert server.ask("POST", "/purge/https://a.example//x/y").json["status"] == "ok"


def test_domains_are_hosts_and_nothing_else(server: ApiServer) -> None:
    service = made(server)
    path = f"/service/{service}/version/1/domain"
    assert server.ask("POST", path, {"name": "A.example"}).json["name"] == "a.example"
    assert server.ask("POST", path, {"name": "a.example"}).status == 409
    changed = server.ask("PUT", f"{path}/a.example", {"comment": "why"}).json
    assert (changed["name"], changed["comment"]) == ("a.example", "why")
    for name in ("", "a b", "a.example:80", "https://a.example", "a.*.example", "é.example"):
        assert server.ask("POST", path, {"name": name}).status == 422, name


def test_a_token_of_one_service_adds_no_domain_of_anothers_host(server: ApiServer) -> None:
    service = made(server)
    server.control.taken_hosts = ("*.other.example",)
    path = f"/service/{service}/version/1/domain"
    token = server.token(Scope.DEPLOY, service_id=service)
    assert server.ask("POST", path, {"name": "mine.example"}, token=token).status == 200
    refused = server.ask("POST", path, {"name": "*.other.example"}, token=token)
    assert refused.status == 409
    assert "belongs to service other" in refused.json["detail"]
    changed = server.ask("PUT", f"{path}/mine.example", {"name": "*.other.example"}, token=token)
    assert changed.status == 409
    assert [one["name"] for one in server.ask("GET", path).json] == ["mine.example"]
    assert server.ask("POST", path, {"name": "*.other.example"}).status == 200


def test_routes_with_paths_of_our_own_api_are_domains_that_keep_them(server: ApiServer) -> None:
    service = made(server)
    routes = [{"host": "a.example", "path": "/api"}, {"host": "a.example", "path": {"exact": "/"}}]
    server.run(
        lambda: server.around.catalogue.write(
            STARTUP, lambda tx: definition.write(tx, service, 1, {"routes": routes})
        )
    )
    path = f"/service/{service}/version/1/domain"
    names = [one["name"] for one in server.ask("GET", path).json]
    assert names == ["a.example/api", "a.example=/"]
    for name in names:
        changed = server.ask("PUT", f"{path}/{quote(name, safe='')}", {"comment": "why"}).json
        assert (changed["name"], changed["comment"]) == (name, "why")
    moved = server.ask("PUT", f"{path}/a.example%2Fapi", {"name": "b.example"}).json
    assert moved["name"] == "b.example/api"


def test_a_private_key_rests_sealed_and_is_used_by_clones(server: ApiServer) -> None:
    service = made(server)
    pem = "-----BEGIN {0}-----\nVERYSECRET\n-----END {0}-----"
    fields = {
        "name": "x", "address": "a.example", "port": 443,
        "ssl_client_cert": pem.format("CERTIFICATE").replace("VERYSECRET", "AA"),
        "ssl_client_key": pem.format("PRIVATE KEY"),
    }  # fmt: skip
    path = f"/service/{service}/version/1/backend"
    assert "VERYSECRET" not in server.ask("POST", path, fields).body.decode()
    assert server.ask("PUT", f"{path}/x", {"weight": 4}).json["weight"] == 4
    server.ask("PUT", f"/service/{service}/version/1/clone")
    assert "VERYSECRET" not in server.ask("GET", f"{path}/x").body.decode()
    served = server.run(
        lambda: server.around.catalogue.read(lambda tx: definition.fields(tx, service, 2))
    )
    assert "VERYSECRET" in str(served)
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"VERYSECRET" in path.read_bytes()]


def test_a_module_without_an_archive_is_a_package_too(server: ApiServer) -> None:
    service = made(server)
    found = upload(server, service, HELLO)
    assert found.status == 200
    assert found.json["metadata"]["size"] == len(HELLO)
    assert server.ask("GET", f"/service/{service}/version/1/package").json == found.json


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"garbage", b"\x1f\x8b\x08garbage"])
def test_what_is_no_program_is_refused_and_leaves_no_file(server: ApiServer, data: bytes) -> None:
    service = made(server)
    refused = upload(server, service, data)
    assert (refused.status, refused.json["msg"]) == (422, "The package cannot be used")
    assert server.ask("GET", f"/service/{service}/version/1/package").status == 404
    assert not [path for path in (server.folder / "packages").rglob("*") if path.is_file()]


def test_a_program_that_cannot_be_served_is_refused_and_leaves_no_file(server: ApiServer) -> None:
    service = made(server)
    refused = upload(server, service, HELLO + b"refuse me")
    assert (refused.status, refused.json["msg"]) == (422, "The program cannot be served")
    assert "imports env.gone" in refused.json["detail"]
    assert not [path for path in (server.folder / "packages").rglob("*") if path.is_file()]


def test_a_package_that_is_too_large_is_refused(server: ApiServer) -> None:
    service = made(server)
    assert upload(server, service, HELLO + bytes(1100 * 1024)).status == 413
    assert upload(server, service, HELLO + bytes(3 << 20)).status == 413


def test_an_upload_for_what_does_not_change_is_refused_before_it_is_looked_at(
    server: ApiServer,
) -> None:
    service = made(server)
    assert upload(server, "nobody", HELLO).status == 404
    assert upload(server, service, HELLO, version=2).status == 404
    server.ask("PUT", f"/service/{service}/version/1/lock")
    assert upload(server, service, HELLO).status == 422
    assert server.control.inspected == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (multipart(HELLO), "application/octet-stream"),
        (multipart(HELLO), "multipart/form-data"),
        (multipart(HELLO, "other"), BORDER),
        (multipart(HELLO)[:-12], BORDER),
        (multipart(HELLO)[4:], BORDER),
        (b"--xyz", BORDER),
        (b"--xyz\r\n", BORDER),
        (b"--xyz--", BORDER),
        (b"", BORDER),
        (b"--xyz\r\na: b\r\n\r\n" * 3 + b"\r\n--xyz--", BORDER),
        (b"".join(multipart(b"", "a")[:-8] + b"\r\n" for _ in range(40)), BORDER),
        (b"--xyz\r\n" + b"a" * 20_000 + multipart(HELLO), BORDER),
    ],
)
def test_a_form_without_the_field_is_a_bad_request(body: bytes, kind: str) -> None:
    with pytest.raises(ApiRefused, match="the form cannot be read"):
        read_field(body, kind)


def test_the_field_is_found_behind_others_and_with_a_quoted_boundary() -> None:
    body = multipart(b"1", "other")[:-4] + b"\r\n" + multipart(b"a\r\n--xy\r\n\r\nb")[0:]
    body = body.replace(b"\r\n--xyz\r\n--xyz\r\n", b"\r\n--xyz\r\n")
    assert read_field(body, 'Multipart/Form-Data; boundary="xyz"') == b"a\r\n--xy\r\n\r\nb"
