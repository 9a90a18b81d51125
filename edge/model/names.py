"""Hosts, paths, addresses, networks and names as an operator writes them; syntax only, no lookups.

Every reader returns the normal form or raises ValueError saying what is wrong and what to write.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network

from edge.settings import IPNetwork, Listen

# RFC 1123 §2.1 labels, plus the underscore that real names carry in spite of it.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_NAME = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# RFC 3986 §3.3: pchar and "/"; anything else in a path arrives percent-encoded.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*", re.ASCII)

DEFAULT_HOST = "*"


def read_host(text: str) -> str:
    """A host of a route, in lower case: exact, `*.example.com`, or `*` for every other host.

    IPv6 addresses stand in brackets, as in a Host field (RFC 9110 §7.2).
    """
    host = text.lower()
    if host == DEFAULT_HOST:
        return host
    if not host.isascii():
        raise ValueError(
            f"{text!r} is not ASCII; write the IDNA form, such as xn--bcher-kva.example"
        )
    if host.startswith("["):
        return _bracketed(text, host)
    if ":" in host:
        raise ValueError(f"{text!r} has a port or a scheme; a route names the host alone")
    if host.endswith("."):
        raise ValueError(f"{text!r} ends with a dot; leave it out, requests with it match as well")
    name = host.removeprefix("*.")
    if "*" in name:
        raise ValueError(f"{text!r}: a wildcard is a whole first label, as in *.example.com")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{text!r} is not a host name")
    return host


def read_one_host(text: str) -> str:
    """A host that is not a wildcard, in lower case."""
    host = read_host(text)
    if "*" in host:
        raise ValueError(f"{text!r} is a wildcard; write the names out")
    return host


def _bracketed(text: str, host: str) -> str:
    try:
        return f"[{IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv6 address in brackets, without a port") from None


def read_path(text: str) -> str:
    """The path of a route, as it appears in a request: raw, with its percent-encoding."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} does not begin with /")
    if text.endswith("/*"):
        raise ValueError(f"{text!r}: a path is a prefix already; write {text[:-2] or '/'}")
    if not _PATH.fullmatch(text):
        raise ValueError(f"{text!r} is not the path of a URL; percent-encode what is not")
    return text


def read_address(text: str) -> Listen:
    """An IP address and a port: `127.0.0.1:8080`, `[::1]:8080`; port 0 is the kernel's choice."""
    host, colon, port = text.rpartition(":")
    form = "write an IP address and a port, such as 0.0.0.0:8080 or [::]:8080"
    if not colon or not host:
        raise ValueError(f"{text!r} has no {'port' if '.' in text else 'IP address'}; {form}")
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        raise ValueError(f"{port!r} is not a port; {form}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address; {form}") from None
    if (address.version == 6) != (bare != host):
        raise ValueError(f"{text!r}: an IPv6 address, and no other, stands in brackets")
    return Listen(str(address), int(port))


def read_network(text: str) -> IPNetwork:
    """A network in CIDR form, or one address."""
    try:
        return ip_network(text)
    except ValueError as error:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not a network such as 10.0.0.0/8") from None
        raise ValueError(f"{error}; did you mean {meant}?") from None


def read_service_name(text: str) -> str:
    """A service's name: it appears in URLs, log lines, metric labels and file names."""
    if not _SERVICE.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a service name: 1 to 63 letters, digits, '.', '_' or '-', the first "
            "a letter or digit"
        )
    return text


def read_name(text: str) -> str:
    """The name of a store, an endpoint or a secret: 1 to 255 printable ASCII characters."""
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name: 1 to 255 printable ASCII characters")
    return text


def read_variable(text: str) -> str:
    """The name of an environment variable."""
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"{text!r} is not the name of an environment variable")
    return text


def read_word(text: str) -> str:
    """A word of a protocol, such as a host or a method: 1 to 1,024 visible ASCII characters."""
    if not 1 <= len(text) <= 1024 or not all("!" <= letter <= "~" for letter in text):
        raise ValueError(f"{text[:64]!r} is not 1 to 1024 visible ASCII characters")
    return text
