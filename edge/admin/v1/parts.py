"""Parts of versions as `/v1` handles them: domains as text, and all parts of one version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge.catalogue import parts
from edge.catalogue.database import Transaction
from edge.catalogue.records import Part, PartKind
from edge.errors import ApiRefused, Refusal
from edge.model.names import read_host, read_path


@dataclass(frozen=True, slots=True)
class Domain:
    """A part of kind DOMAIN that is to be."""

    name: str
    data: Mapping[str, object]


def domain_part(text: str) -> Domain:
    """`HOST` or `HOST/PATH`.  Raises ApiRefused INVALID."""
    host, slash, path = text.partition("/")
    try:
        host, path = read_host(host), read_path(slash + path) if slash else "/"
    except ValueError as error:
        raise ApiRefused(Refusal.INVALID, f"the domain {error}") from None
    name = host if path == "/" else host + path
    return Domain(name, {"host": host, "path": path, "exact": False, "comment": ""})


def every_part(tx: Transaction, service: str, number: int) -> list[Part]:
    """All parts of a version, of every kind."""
    return [part for kind in PartKind for part in parts.listing(tx, service, number, kind)]


def with_domains(present: Iterable[Part], domains: Sequence[Domain]) -> tuple[Part, ...]:
    """Parts with other domains; with none given, as they are."""
    if not domains:
        return tuple(present)
    others = [part for part in present if part.kind is not PartKind.DOMAIN]
    made = [Part("", PartKind.DOMAIN, one.name, one.data, 0.0, 0.0) for one in domains]
    return (*others, *made)
