"""What is tried of a configuration before anything starts: here its TLS settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import preflight
from edge.errors import ConfigError
from edge.model.parse import Config, parse_config
from tests.support.backends import authority, identity


def config(backend: str, files: dict[str, bytes] | None = None) -> Config:
    text = f"services: {{a: {{module: a.wasm, routes: [{{}}], backends: {{b: {{{backend}}}}}}}}}"
    found = files or {}
    return parse_config(
        text, source="test", base=Path("/"), env={}, read_file=lambda path: found[path.name]
    )


CA = authority().cert_pem.bytes()
LEAF, OTHER = identity("a.example"), identity("b.example")
FILES = {
    "ca.pem": CA,
    "cert.pem": LEAF.cert_chain_pems[0].bytes(),
    "key.pem": LEAF.private_key_pem.bytes(),
    "other.pem": OTHER.private_key_pem.bytes(),
    "torn.pem": CA[: len(CA) // 2],
}
IDENTITY = "client_certificate: {certificate: {file: cert.pem}, key: {file: %s}}"


def test_what_openssl_takes_is_no_problem() -> None:
    preflight.check(config("url: 'https://x', ca_certificate: {file: ca.pem}", FILES))
    preflight.check(config(f"url: 'https://x', {IDENTITY % 'key.pem'}", FILES))
    preflight.check(config("url: 'https://x'"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("ca_certificate: {file: torn.pem}", "TLS settings: "),
        (IDENTITY % "other.pem", "belongs to another certificate"),
        ("ciphers: NOPE", "No cipher can be selected"),
    ],
)
def test_what_openssl_does_not_take_is_named_with_its_backend(keys: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight.check(config(f"url: 'https://x', {keys}", FILES))
    (problem,) = caught.value.problems
    assert problem.path == "services.a.backends.b"
    assert said in problem.message
    assert "_ssl.c" not in problem.message
    assert "PRIVATE KEY" not in problem.message
