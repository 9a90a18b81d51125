"""Parts of versions as `/v1` handles them: domains as text, and all parts of one version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge.catalogue import parts
from edge.catalogue.database import Transaction
from edge.catalogue.definition import Named, domain_part
from edge.catalogue.records import Part, PartKind
from edge.errors import ApiRefused, Refusal
from edge.model.names import read_host, read_path
from edge.model.route import Route


def read_domain(text: str) -> Named:
    """`HOST` or `HOST/PATH` as a part that is to be.  Raises ApiRefused INVALID."""
    host, slash, path = text.partition("/")
    try:
        return domain_part(Route(read_host(host), read_path(slash + path) if slash else "/"))
    except ValueError as error:
        raise ApiRefused(Refusal.INVALID, f"the domain {error}") from None


def every_part(tx: Transaction, service: str, number: int) -> list[Part]:
    """All parts of a version, of every kind."""
    return [part for kind in PartKind for part in parts.listing(tx, service, number, kind)]


def with_domains(present: Iterable[Part], domains: Sequence[Named]) -> tuple[Part, ...]:
    """Parts with other domains; with none given, as they are."""
    if not domains:
        return tuple(present)
    others = [part for part in present if part.kind is not PartKind.DOMAIN]
    made = [Part("", PartKind.DOMAIN, name, data, 0.0, 0.0) for name, data in domains]
    return (*others, *made)
