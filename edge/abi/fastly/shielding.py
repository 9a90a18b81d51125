"""`fastly_shielding`: other installations that stand between this one and the origins.

Sites are the operator's word: a backend for one obeys no egress policy, and a guest can name only
what the operator has written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from edge.abi.codec import U32, Bits, OutBytes, Str
from edge.abi.fastly.backend import add_backend, find_backend
from edge.abi.fastly.dynamic import LEAST_TIMEOUT, MAX_SECONDS
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.memory import GuestMemory
from edge.abi.sandbox import Sandbox
from edge.errors import BufferTooSmall, InvalidArgument, Unsupported
from edge.model.backend import Backend
from edge.model.backend_reader import read_origin

abi = HostModule("fastly_shielding", FASTLY)

_CACHE_KEY, _FIRST_BYTE, _BETWEEN_BYTES = 1 << 1, 1 << 2, 1 << 3
MAX_CACHE_KEY = 64 * 1024

ShieldOptions = Annotated[int, Bits(known=_CACHE_KEY | _FIRST_BYTE | _BETWEEN_BYTES)]


@abi.hostcall
def shield_info(box: Sandbox, name: Str, info: OutBytes) -> U32:
    """Whether this is the site of that name (one byte), and the URLs of the site.

    Each URL, the unencrypted one first, is followed by a NUL; both are empty for this site. INVAL
    when no site has that name; a short buffer is told no size.
    """
    site = box.capabilities.shield_sites.get(name)
    if site is None:
        raise InvalidArgument(f"no shield site {name[:64]!r}")
    return info.fill(
        b"%c%s\0%s\0" % (site.local, site.unencrypted.encode(), site.encrypted.encode())
    )


@abi.hostcall
def backend_for_shield(
    box: Sandbox, target: Str, options: ShieldOptions, config: U32, name: OutBytes
) -> U32:
    """The name of a backend that leads to a site: by its name, or by a URL of `shield_info`.

    A cache key is read and not used: it is for the cache of a site. INVAL for what is no site, or
    this one.
    """
    if box.capabilities.upstream is None:
        raise Unsupported("nothing here sends requests to backends")
    backend = _configured(box.memory, _backend(box, target), options, config)
    encoded = backend.name.encode()
    if len(encoded) > name.capacity:
        raise BufferTooSmall(f"{len(encoded)} bytes, the guest offered {name.capacity}")
    if not _has(box, backend):
        add_backend(box, backend, 0)
    return name.fill(encoded)


def _backend(box: Sandbox, target: str) -> Backend:
    for site_name, site in box.capabilities.shield_sites.items():
        if site.local:
            continue
        # The SDKs ask for one of the URLs; by name, the one that nobody can read along.
        if target in (site_name, site.encrypted):
            return Backend(f"shield {site_name} (TLS)", read_origin(site.encrypted))
        if target == site.unencrypted:
            return Backend(f"shield {site_name}", read_origin(site.unencrypted))
    raise InvalidArgument(f"no other shield site is {target[:64]!r}")


def _has(box: Sandbox, backend: Backend) -> bool:
    try:
        return find_backend(box, backend.name) == backend
    except InvalidArgument:
        return False


def _configured(memory: GuestMemory, backend: Backend, options: int, config: int) -> Backend:
    """With the timeouts of `shield_backend_config`; the name tells backends with others apart."""
    if options & _CACHE_KEY:
        at, length = memory.u32(config), memory.u32(config + 4)
        if length > MAX_CACHE_KEY:
            raise InvalidArgument(f"a cache key of {length} bytes; {MAX_CACHE_KEY} are the most")
        try:
            memory.read(at, length).decode()
        except UnicodeDecodeError:
            raise InvalidArgument("expected UTF-8") from None
    first, between = backend.first_byte_timeout, backend.between_bytes_timeout
    if options & _FIRST_BYTE:
        first = _seconds(memory.u32(config + 8))
    if options & _BETWEEN_BYTES:
        between = _seconds(memory.u32(config + 12))
    name = backend.name
    if options & (_FIRST_BYTE | _BETWEEN_BYTES):
        name += f" {first}/{between}"
    return replace(
        backend,
        name=name,
        first_byte_timeout=first,
        between_bytes_timeout=between,
        named_by_guest=True,
    )


def _seconds(milliseconds: int) -> float:
    return max(LEAST_TIMEOUT, min(milliseconds / 1000, MAX_SECONDS))
