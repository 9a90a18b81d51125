"""The catalogue's tables, as steps from one format of the file to the next.

`PRAGMA user_version` counts the steps that a file has taken.  Steps are only ever added.
Statements end with `;;`, because triggers have semicolons of their own.

Conventions: times are seconds since 1970; JSON columns hold what `edge.catalogue.checks.to_json`
writes; an owner or a service that is not set is NULL, never an empty string, so that foreign keys
hold.
"""

from __future__ import annotations

_FIRST = """
CREATE TABLE service (
    id TEXT PRIMARY KEY CHECK (length(id) = 22),
    name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63),
    comment TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1 CHECK (revision >= 1),
    numbers INTEGER NOT NULL DEFAULT 0 CHECK (numbers >= 0), -- given out; never one twice
    active INTEGER,
    staged INTEGER,
    canary INTEGER,
    canary_share INTEGER CHECK (canary_share BETWEEN 1 AND 9999),
    canary_since REAL,
    canary_max_error_rate REAL,
    canary_max_limit_rate REAL,
    canary_min_requests INTEGER,
    FOREIGN KEY (id, active) REFERENCES version (service, number) ON DELETE RESTRICT,
    FOREIGN KEY (id, staged) REFERENCES version (service, number) ON DELETE RESTRICT,
    FOREIGN KEY (id, canary) REFERENCES version (service, number) ON DELETE RESTRICT,
    CHECK ((canary IS NULL) = (canary_share IS NULL)),
    CHECK ((canary IS NULL) = (canary_since IS NULL)),
    CHECK ((canary IS NULL) = (canary_max_error_rate IS NULL)),
    CHECK ((canary IS NULL) = (canary_max_limit_rate IS NULL)),
    CHECK ((canary IS NULL) = (canary_min_requests IS NULL)),
    CHECK (canary IS NULL OR (active IS NOT NULL AND canary <> active))
) STRICT;;
CREATE INDEX service_served ON service (id)
    WHERE active IS NOT NULL OR staged IS NOT NULL OR canary IS NOT NULL;;

CREATE TABLE package (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    size INTEGER NOT NULL CHECK (size >= 0),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    authors TEXT NOT NULL,
    language TEXT NOT NULL,
    archive_sha512 TEXT NOT NULL,
    files_hash TEXT NOT NULL
) STRICT;;
CREATE INDEX package_sha256 ON package (sha256);;

CREATE TABLE version (
    service TEXT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
    number INTEGER NOT NULL CHECK (number >= 1),
    locked INTEGER NOT NULL DEFAULT 0 CHECK (locked IN (0, 1)),
    comment TEXT NOT NULL,
    package INTEGER REFERENCES package (id) ON DELETE RESTRICT,
    settings TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1 CHECK (revision >= 1),
    PRIMARY KEY (service, number)
) STRICT, WITHOUT ROWID;;
CREATE INDEX version_package ON version (package) WHERE package IS NOT NULL;;

-- What serves is whole and does not change, whatever the program above gets wrong.
CREATE TRIGGER served_is_whole BEFORE UPDATE OF active, staged, canary ON service
WHEN EXISTS (
    SELECT 1 FROM version WHERE service = NEW.id
    AND number IN (NEW.active, NEW.staged, NEW.canary) AND (NOT locked OR package IS NULL)
)
BEGIN SELECT RAISE(ABORT, 'a served version is locked and has a package'); END;;
CREATE TRIGGER locked_is_locked BEFORE UPDATE ON version
WHEN OLD.locked AND (
    NOT NEW.locked OR NEW.package IS NOT OLD.package OR NEW.settings <> OLD.settings
)
BEGIN SELECT RAISE(ABORT, 'a locked version does not change'); END;;

CREATE TABLE store (
    id TEXT PRIMARY KEY CHECK (length(id) = 22),
    kind TEXT NOT NULL
        CHECK (kind IN ('config', 'kv', 'secret', 'acl', 'dictionary', 'service_acl')),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    owner TEXT REFERENCES service (id) ON DELETE CASCADE,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1 CHECK (revision >= 1),
    entries INTEGER NOT NULL DEFAULT 0 CHECK (entries >= 0),
    CHECK (owner IS NOT NULL OR kind NOT IN ('dictionary', 'service_acl'))
) STRICT;;
CREATE UNIQUE INDEX store_name ON store (kind, name)
    WHERE kind NOT IN ('dictionary', 'service_acl');;
CREATE UNIQUE INDEX store_owned_name ON store (kind, owner, name)
    WHERE kind IN ('dictionary', 'service_acl');;
CREATE INDEX store_owner ON store (owner) WHERE owner IS NOT NULL;;

-- KV stores whose values, which are in another file, are still to be removed.
CREATE TABLE erasure (store TEXT PRIMARY KEY CHECK (length(store) = 22)) STRICT, WITHOUT ROWID;;
CREATE TRIGGER store_goes AFTER DELETE ON store WHEN OLD.kind = 'kv'
BEGIN INSERT INTO erasure (store) VALUES (OLD.id); END;;

CREATE TABLE part (
    service TEXT NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL
        CHECK (kind IN ('domain', 'backend', 'healthcheck', 'link', 'dictionary', 'acl')),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 2048),
    id TEXT NOT NULL CHECK (length(id) = 22),
    data TEXT NOT NULL,
    -- The store that `data` names, while it exists.
    store TEXT REFERENCES store (id) ON DELETE SET NULL,
    secret BLOB, -- what `data` leaves out, sealed
    sealed_by TEXT NOT NULL DEFAULT '', -- the id of the key in the keyring
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    CHECK ((secret IS NULL) = (sealed_by = '')),
    PRIMARY KEY (service, number, kind, name),
    UNIQUE (service, number, id),
    FOREIGN KEY (service, number) REFERENCES version (service, number) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;;
CREATE TRIGGER locked_gets_no_part BEFORE INSERT ON part
WHEN EXISTS (SELECT 1 FROM version WHERE service = NEW.service AND number = NEW.number AND locked)
BEGIN SELECT RAISE(ABORT, 'a locked version does not change'); END;;
CREATE TRIGGER locked_keeps_its_parts BEFORE DELETE ON part
WHEN EXISTS (SELECT 1 FROM version WHERE service = OLD.service AND number = OLD.number AND locked)
BEGIN SELECT RAISE(ABORT, 'a locked version does not change'); END;;
CREATE TRIGGER locked_has_its_parts BEFORE UPDATE OF service, number, kind, name, id, data ON part
WHEN EXISTS (SELECT 1 FROM version WHERE service = OLD.service AND number = OLD.number AND locked)
BEGIN SELECT RAISE(ABORT, 'a locked version does not change'); END;;
CREATE INDEX part_store ON part (store) WHERE store IS NOT NULL;;
CREATE INDEX part_sealed_by ON part (sealed_by) WHERE sealed_by <> '';;

CREATE TABLE entry (
    place INTEGER PRIMARY KEY,
    store TEXT NOT NULL REFERENCES store (id) ON DELETE CASCADE,
    key TEXT NOT NULL CHECK (length(key) >= 1),
    id TEXT NOT NULL DEFAULT '', -- of an entry of an ACL
    value BLOB NOT NULL, -- of a secret: sealed
    sealed_by TEXT NOT NULL DEFAULT '', -- the id of the key in the keyring
    digest BLOB NOT NULL DEFAULT x'',
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (store, key)
) STRICT;;
CREATE UNIQUE INDEX entry_id ON entry (store, id) WHERE id <> '';;
CREATE INDEX entry_sealed_by ON entry (sealed_by) WHERE sealed_by <> '';;
CREATE TRIGGER entry_comes AFTER INSERT ON entry
BEGIN UPDATE store SET entries = entries + 1 WHERE id = NEW.store; END;;
CREATE TRIGGER entry_goes AFTER DELETE ON entry
BEGIN UPDATE store SET entries = entries - 1 WHERE id = OLD.store; END;;

CREATE TABLE token (
    id TEXT PRIMARY KEY CHECK (length(id) = 12),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    scopes TEXT NOT NULL,
    service TEXT REFERENCES service (id) ON DELETE CASCADE,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    created_at REAL NOT NULL,
    expires_at REAL,
    last_used_at REAL
) STRICT;;
CREATE INDEX token_service ON token (service) WHERE service IS NOT NULL;;

CREATE TABLE activation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    service TEXT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
    number INTEGER, -- NULL: deactivated; the version may be gone since
    whole INTEGER NOT NULL CHECK (whole IN (0, 1)), -- it was given all clients, not a share
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;;
CREATE INDEX activation_service ON activation (service, id);;

-- It outlives what it speaks of: no foreign keys.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    actor TEXT NOT NULL,
    token_id TEXT NOT NULL,
    remote TEXT NOT NULL,
    request_id TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    before TEXT,
    after TEXT,
    tenant TEXT NOT NULL -- id of the service whose own token it was; empty: one for all services
) STRICT;;
CREATE INDEX audit_tenant ON audit (tenant, id);;
"""

# What a store holds is bounded in bytes as well, and to add them up takes 10 ms for a large one.
_STORE_BYTES = """
ALTER TABLE store ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;;
UPDATE store SET bytes = coalesce((SELECT sum(length(CAST(key AS BLOB)) + length(value))
    FROM entry WHERE entry.store = store.id), 0);;
CREATE TRIGGER entry_weighs AFTER INSERT ON entry
BEGIN UPDATE store SET bytes = bytes + length(CAST(NEW.key AS BLOB)) + length(NEW.value)
    WHERE id = NEW.store; END;;
CREATE TRIGGER entry_changes AFTER UPDATE OF key, value ON entry
BEGIN UPDATE store SET bytes = bytes + length(CAST(NEW.key AS BLOB)) + length(NEW.value)
    - length(CAST(OLD.key AS BLOB)) - length(OLD.value) WHERE id = NEW.store; END;;
CREATE TRIGGER entry_unweighs AFTER DELETE ON entry
BEGIN UPDATE store SET bytes = bytes - length(CAST(OLD.key AS BLOB)) - length(OLD.value)
    WHERE id = OLD.store; END;;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _STORE_BYTES)
