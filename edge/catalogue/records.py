"""What the catalogue gives out: rows as frozen values, and who asked for a change.

Times are seconds since 1970.  `revision` grows with every change of the thing itself and is what
an ETag is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class StoreKind(Enum):
    """Kinds of named data that services are linked to.  Contents of KV stores live elsewhere."""

    CONFIG = "config"
    KV = "kv"
    SECRET = "secret"  # noqa: S105 - the kind of a store
    ACL = "acl"
    DICTIONARY = "dictionary"  # a config store that one service owns, declared by its versions
    SERVICE_ACL = "service_acl"  # the same for an access control list


class PartKind(Enum):
    """What a version consists of besides its package and its settings."""

    DOMAIN = "domain"
    BACKEND = "backend"
    HEALTH_CHECK = "healthcheck"
    LINK = "link"  # the name by which a program opens a store
    DICTIONARY = "dictionary"
    ACL = "acl"


class Scope(Enum):
    """What a token allows; each includes those before it, but PURGE stands alone."""

    READ = "read"
    DEPLOY = "deploy"
    PURGE = "purge"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for a change, for the audit log."""

    name: str  # of the token; `startup`, `canary` where nobody asked
    token_id: str = ""
    remote: str = ""  # address of the client
    request_id: str = ""
    service_id: str = ""  # a token of this service only; empty: of all


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that a share of a service's clients get."""

    number: int
    share: int  # clients in 10,000
    since: float
    max_error_rate: float  # of its requests, 0 to 1; above, it is rolled back
    max_limit_rate: float
    min_requests: int  # before which no rate is believed


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One service."""

    id: str  # 22 characters of base 62, as Fastly's are
    name: str  # as `edge.model.names.read_service_name` has it; unique
    comment: str
    created_at: float
    updated_at: float
    revision: int
    active: int | None  # number of the version that is served
    staged: int | None
    canary: Canary | None
    latest: int  # highest number of a version; 0: none yet


@dataclass(frozen=True, slots=True)
class Package:
    """What was deployed: a module by its content, and what its author says of it."""

    sha256: str  # of the module's bytes: where it lies, and what is compiled
    size: int  # bytes of the module
    name: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    language: str = ""
    archive_sha512: str = ""  # of the .tar.gz it came in; of the module where it came bare
    files_hash: str = ""  # SHA-512 over the files in it, as the Fastly CLI computes it


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One numbered version of a service."""

    service_id: str
    number: int
    locked: bool  # it was activated or locked, and will not change again
    active: bool
    staged: bool
    comment: str
    package: Package | None
    settings: Mapping[str, object]  # keys of a service in the configuration that are no parts
    created_at: float
    updated_at: float
    revision: int


@dataclass(frozen=True, slots=True)
class Part:
    """One thing of a version.  `id` stays the same when a version is cloned.

    `data` by kind.  DOMAIN: host, path ("/"), exact (bool), comment; its name is the host, followed
    by the path where that is not "/".  BACKEND: the keys of a backend in the configuration, and
    under `fastly` what only the Fastly API knows of it.  HEALTH_CHECK: the keys of a
    `health_check`, and `fastly`.  LINK: store (its id).  DICTIONARY, ACL: store (its id).
    """

    id: str
    kind: PartKind
    name: str
    data: Mapping[str, object]
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Store:
    """A named store; names are unique within a kind, of DICTIONARY and SERVICE_ACL in a service."""

    id: str
    kind: StoreKind
    name: str
    owner: str  # id of the service that alone may link it; empty: any
    created_at: float
    updated_at: float
    revision: int
    entries: int  # how many it has; 0 for KV


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a store.  `value` is empty for secrets, which only `entries.reveal` opens."""

    store_id: str
    id: str  # of ACL entries, 22 characters; otherwise empty
    key: str  # for ACLs the network, `192.0.2.0/24`
    value: bytes = field(repr=False)  # for ACLs JSON: {action} or {negated, comment}
    created_at: float
    updated_at: float
    digest: bytes = b""  # of a secret: keyed, so that it tells equality and nothing else


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is remembered: never itself."""

    id: str
    name: str
    scopes: frozenset[Scope]
    service_id: str  # empty: all services
    created_at: float
    expires_at: float | None
    last_used_at: float | None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change: who, what, from where, before and after.  Secrets are never in it."""

    id: int
    at: float
    actor: str
    token_id: str
    remote: str
    request_id: str
    action: str  # `version.activate`, `store.create` ...
    subject: str  # `services/hello/versions/3`
    before: object  # plain JSON, or None
    after: object


@dataclass(frozen=True, slots=True)
class Activation:
    """One time at which another version began to serve."""

    service_id: str
    number: int | None  # None: deactivated
    at: float
    actor: str
    reason: str  # activate, rollback, canary, canary_rollback, deactivate


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: entries after `after` in order of key or number, at most `limit`."""

    limit: int = 100
    after: str = ""
