"""Tokens: the text is told once, scopes and expiry hold, the first one is written to a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from edge.catalogue import audit, services, tokens
from edge.catalogue.records import Actor, Page, Scope
from edge.errors import ConfigError, Refusal
from tests.support.catalogue import FILE, desk


def test_the_text_of_a_token_is_recognised_and_stands_nowhere(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        scopes = [Scope.READ, Scope.DEPLOY]
        made, text = at.write(lambda tx: tokens.create(tx, "ci", scopes))
        assert text.startswith("edge_")
        assert len(text) == 45
        assert made.scopes == set(scopes)
        assert at.read(lambda tx: tokens.authenticate(tx, text)) == made
        assert text not in repr(at.read(lambda tx: audit.listing(tx, Page())))
    for path in tmp_path.glob(f"{FILE}*"):
        assert text[17:].encode() not in path.read_bytes()


def test_no_other_text_is_recognised(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        _, text = at.write(lambda tx: tokens.create(tx, "ci", [Scope.READ]))
        last = "a" if text[-1] != "a" else "b"
        other = "a" if text[6] != "a" else "b"
        for wrong in ("", text[:-1], text + "a", text[:-1] + last, text[:6] + other + text[7:],
                      text.upper(), "edge_" + "é" * 40, text + "\n"):  # fmt: skip
            assert at.read(tokens.authenticate, wrong) is None


def test_a_token_ends_when_it_expires_or_is_revoked(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        until = at.clock.wall() + 60
        _, short = at.write(lambda tx: tokens.create(tx, "a", [Scope.READ], expires_at=until))
        made, lasting = at.write(lambda tx: tokens.create(tx, "b", [Scope.READ]))
        at.clock.advance(59)
        assert at.read(lambda tx: tokens.authenticate(tx, short))
        at.clock.advance(1)
        assert at.read(lambda tx: tokens.authenticate(tx, short)) is None
        at.write(lambda tx: tokens.revoke(tx, made.id))
        assert at.read(lambda tx: tokens.authenticate(tx, lasting)) is None
        assert at.refused(lambda tx: tokens.revoke(tx, made.id)) is Refusal.NOT_FOUND


def test_what_cannot_be_a_token_is_refused(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        create = tokens.create
        late = at.clock.wall()
        assert at.refused(lambda tx: create(tx, "a", [])) is Refusal.INVALID
        assert at.refused(lambda tx: create(tx, "", [Scope.READ])) is Refusal.INVALID
        past = at.refused(lambda tx: create(tx, "a", [Scope.READ], expires_at=late))
        assert past is Refusal.INVALID
        nobody = at.refused(lambda tx: create(tx, "a", [Scope.READ], service_id="x" * 22))
        assert nobody is Refusal.NOT_FOUND


def test_tokens_are_bounded_and_expired_ones_make_room(tmp_path: Path) -> None:
    desk_of_one = desk(tmp_path, tokens=1)
    with desk_of_one as at:
        until = at.clock.wall() + 60
        at.write(lambda tx: tokens.create(tx, "a", [Scope.READ], expires_at=until))
        assert at.refused(lambda tx: tokens.create(tx, "b", [Scope.READ])) is Refusal.LIMIT
        at.clock.advance(60)
        at.write(lambda tx: tokens.create(tx, "b", [Scope.READ]))
        names = [each.name for each in at.read(lambda tx: tokens.listing(tx, Page()))]
        assert names == ["b"]


def test_the_last_token_that_may_administer_stays(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        service = at.write(lambda tx: services.create(tx, "a")).id
        first, _ = at.write(lambda tx: tokens.create(tx, "a", [Scope.ADMIN]))
        at.write(lambda tx: tokens.create(tx, "b", [Scope.ADMIN], service_id=service))
        until = at.clock.wall() + 60
        at.write(lambda tx: tokens.create(tx, "c", [Scope.ADMIN], expires_at=until))
        assert at.refused(lambda tx: tokens.revoke(tx, first.id)) is Refusal.IN_USE
        at.write(lambda tx: tokens.create(tx, "d", [Scope.ADMIN]))
        at.write(lambda tx: tokens.revoke(tx, first.id))


def test_use_is_remembered_once_a_minute_and_is_no_change(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        made, _ = at.write(lambda tx: tokens.create(tx, "a", [Scope.READ]))
        before = at.read(lambda tx: audit.listing(tx, Page()))
        assert at.write(lambda tx: tokens.touch(tx, made.id))
        at.clock.advance(59)
        assert not at.write(lambda tx: tokens.touch(tx, made.id))
        at.clock.advance(1)
        assert at.write(lambda tx: tokens.touch(tx, made.id))
        assert at.read(lambda tx: tokens.get(tx, made.id)).last_used_at == at.clock.wall()
        assert at.read(lambda tx: audit.listing(tx, Page())) == before


def test_the_first_start_writes_a_token_that_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    with desk(tmp_path) as at:
        made = at.write(lambda tx: tokens.bootstrap(tx, path))
        assert made is not None
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text().strip()
        found = at.read(lambda tx: tokens.authenticate(tx, text))
        assert found == made
        assert Scope.ADMIN in found.scopes
        assert at.write(lambda tx: tokens.bootstrap(tx, path)) is None
        assert path.read_text().strip() == text
    with desk(tmp_path) as at:
        assert at.write(lambda tx: tokens.bootstrap(tx, path)) is None
        assert at.read(lambda tx: tokens.authenticate(tx, text)) == made


def test_a_bootstrap_token_that_was_not_committed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    with desk(tmp_path) as at:

        def crash(tx: object) -> None:
            tokens.bootstrap(tx, path)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            at.write(crash)
        useless = path.read_text().strip()
        assert at.read(lambda tx: tokens.authenticate(tx, useless)) is None
        at.write(lambda tx: tokens.bootstrap(tx, path))
        text = path.read_text().strip()
        assert at.read(lambda tx: tokens.authenticate(tx, text))


def test_a_token_file_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        with pytest.raises(ConfigError, match=r"admin\.token cannot be written"):
            at.write(lambda tx: tokens.bootstrap(tx, tmp_path / "gone" / "admin.token"))
        assert at.read(lambda tx: tokens.listing(tx, Page())) == []


def test_a_tenant_pushes_nothing_out_of_the_audit_log_but_its_own(tmp_path: Path) -> None:
    with desk(tmp_path, audit_records=200) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        tenant = Actor("theirs", service_id=made.id)
        for number in range(400):
            comment = str(number)
            change = partial(services.update, service=made.id, comment=comment)
            at.catalogue.write_now(tenant, change)
        found = at.read(lambda tx: audit.listing(tx, Page(1000)))
        assert found[-1].action == "service.create"
        assert len(found) <= 1 + 20 + 64
        assert found[0].after == {"name": "a", "comment": "399"}


def test_the_audit_log_forgets_the_oldest(tmp_path: Path) -> None:
    with desk(tmp_path, audit_records=100) as at:
        made = at.write(lambda tx: services.create(tx, "a"))
        for number in range(150):
            at.write(services.update, made.id, comment=str(number))
        found = at.read(lambda tx: audit.listing(tx, Page(1000)))
        assert 100 <= len(found) <= 164  # the oldest go a few dozen late
        assert found[0].after == {"name": "a", "comment": "149"}
        after = str(found[9].id)
        assert at.read(lambda tx: audit.listing(tx, Page(5, after))) == found[10:15]
        assert at.read(lambda tx: audit.listing(tx, Page(), subject_prefix="services/b")) == []
        assert at.read(lambda tx: audit.listing(tx, Page(), actor="bob")) == []
        page = Page(2, "no number")
        assert at.read(lambda tx: audit.listing(tx, page, actor="alice")) == found[:2]
