"""Tokens of the control API: made once, remembered only as a digest.

The text is `edge_` and 40 random characters of base 62.  The first 12 are the public id by which
it is looked up; the other 28 are 166 bits that nobody can guess, so SHA-256 is enough: a slow hash
is for what people make up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.catalogue.checks import read_text
from edge.catalogue.durable import replace_file
from edge.catalogue.ids import new_text
from edge.catalogue.records import Page, Scope, Token
from edge.errors import ApiRefused, ConfigError, Problem, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

PREFIX = "edge_"
_RANDOM_CHARS, _ID_CHARS = 40, 12
_TEXT = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_CHARS}}}", re.ASCII)
_TOUCH_SECONDS = 60.0
_NO_DIGEST = bytes(32)
_LATEST = 253_402_300_799.0  # the last second of the year 9999; no calendar tells a later one
BOOTSTRAP = "bootstrap"


def create(
    tx: Transaction,
    name: str,
    scopes: Iterable[Scope],
    *,
    service_id: str = "",
    expires_at: float | None = None,
) -> tuple[Token, str]:
    """The token, and its text, which nobody can be told again.  INVALID, NOT_FOUND, LIMIT."""
    read_text("the name of a token", name, 255)
    allowed = frozenset(scopes)
    if not allowed:
        raise ApiRefused(Refusal.INVALID, "a token allows something: name at least one scope")
    if expires_at is not None and expires_at <= tx.now:
        raise ApiRefused(Refusal.INVALID, "the token would have expired already")
    if expires_at is not None and not expires_at <= _LATEST:
        raise ApiRefused(Refusal.INVALID, "the token would expire after the year 9999")
    if service_id and tx.one("SELECT 1 FROM service WHERE id = ?", service_id) is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no service with the id {service_id!r}")
    # Expired ones make room first.
    tx.run("DELETE FROM token WHERE expires_at <= ?", tx.now)
    if tx.count("SELECT count(*) FROM token") >= tx.limits.tokens:
        raise ApiRefused(Refusal.LIMIT, f"there are {tx.limits.tokens} tokens; revoke some")
    text = PREFIX + new_text(_RANDOM_CHARS)
    tx.run(
        "INSERT INTO token (id, name, scopes, service, digest, created_at, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        _id_of(text), name, " ".join(sorted(scope.value for scope in allowed)),
        service_id or None, _digest(text), tx.now, expires_at,
    )  # fmt: skip
    made = get(tx, _id_of(text))
    tx.record("token.create", f"tokens/{made.id}", None, _facts(made))
    return made, text


def get(tx: Transaction, token: str) -> Token:
    """By id.  ApiRefused NOT_FOUND."""
    row = tx.one("SELECT * FROM token WHERE id = ?", token)
    if row is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"there is no token with the id {token[:64]!r}")
    return _token(row)


def authenticate(tx: Transaction, text: str) -> Token | None:
    """The token of that text, unless it has expired.  Takes the same time for any wrong secret."""
    if not _TEXT.fullmatch(text):
        return None
    row = tx.one("SELECT * FROM token WHERE id = ?", _id_of(text))
    same = hmac.compare_digest(_NO_DIGEST if row is None else row["digest"], _digest(text))
    if row is None or not same:
        return None
    expires = row["expires_at"]
    return None if expires is not None and expires <= tx.now else _token(row)


def listing(tx: Transaction, page: Page) -> list[Token]:
    """By id."""
    rows = tx.all("SELECT * FROM token WHERE id > ? ORDER BY id LIMIT ?", page.after, page.limit)
    return [_token(row) for row in rows]


def revoke(tx: Transaction, token: str) -> Token:
    """It is no good from now on.  NOT_FOUND; IN_USE for the last that may administer."""
    found = get(tx, token)
    if _may_administer(found) and not _administrators(tx, besides=token):
        raise ApiRefused(
            Refusal.IN_USE, "this is the last token with the scope admin; make another first"
        )
    tx.run("DELETE FROM token WHERE id = ?", token)
    tx.record("token.revoke", f"tokens/{found.id}", _facts(found), None)
    return found


def touch(tx: Transaction, token: str) -> bool:
    """Remember that it was used; at most once a minute.  Not in the audit log: nothing changed."""
    touched = tx.run(
        "UPDATE token SET last_used_at = ?1 "
        "WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at <= ?1 - ?3)",
        tx.now, token, _TOUCH_SECONDS,
    )  # fmt: skip
    return touched > 0


def bootstrap(tx: Transaction, path: Path) -> Token | None:
    """Where no token may administer, make one, and write it to a file that only we can read.

    The file is on the disk before the token is committed: after a crash between the two it holds
    a text that is good for nothing, and the next start writes another.  Raises ConfigError.
    """
    if _administrators(tx):
        return None
    made, text = create(tx, BOOTSTRAP, [Scope.ADMIN, Scope.PURGE])
    try:
        replace_file(path, f"{text}\n".encode("ascii"))
    except OSError as error:
        raise ConfigError(
            Problem("state_dir", f"{path} cannot be written: {error.strerror}")
        ) from error
    return made


def _administrators(tx: Transaction, besides: str = "") -> bool:
    """Whether any token of all services has the scope admin and does not expire."""
    rows = tx.all(
        "SELECT scopes FROM token WHERE id <> ? AND service IS NULL AND expires_at IS NULL", besides
    )
    return any(Scope.ADMIN.value in row["scopes"].split() for row in rows)


def _may_administer(token: Token) -> bool:
    return Scope.ADMIN in token.scopes and not token.service_id and token.expires_at is None


def _id_of(text: str) -> str:
    return text[len(PREFIX) : len(PREFIX) + _ID_CHARS]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()


def _facts(token: Token) -> dict[str, object]:
    return {
        "name": token.name,
        "scopes": sorted(scope.value for scope in token.scopes),
        "service": token.service_id,
        "expires_at": token.expires_at,
    }


def _token(row: sqlite3.Row) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        scopes=frozenset(map(Scope, row["scopes"].split())),
        service_id=row["service"] or "",
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )
