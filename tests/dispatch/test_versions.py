"""Several versions of one service in one worker: who gets which, and what a new snapshot keeps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.abi.capabilities import Capabilities
from edge.errors import ConfigError
from edge.model.limits import DEFAULT_LIMITS
from edge.model.route import Route
from edge.model.service import Role, Service, Version
from edge.outcome import Ending
from edge.server.exchange import Exchange
from edge.telemetry.service_block import ServiceBlock
from tests.support.downstream import FIRST_SERIES, Town, outcome_of, status_of, town
from tests.support.reusing import (
    ANSWER,
    BODY,
    COUNT,
    OUT,
    fetch,
    live,
    load,
    must,
    on,
    said,
    serving,
    settle,
)
from tests.support.transport import Driven

# A guest that waits for the content of its request, and a request whose content is yet to come.
READ = must("http_body.read", load(BODY), 128, 64, OUT)
POST = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n"
LIMITS = replace(DEFAULT_LIMITS, slots=1.0)
CLIENTS = [f"203.0.113.{number}" for number in range(60)]


class Place:
    """A town, and versions of `shop` that answer with the letter of their module."""

    def __init__(self, there: Town, folder: Path) -> None:
        self.there = there
        self._folder = folder
        self.equipped: list[str] = []
        self.loaded: list[str] = []
        linker = there.dispatcher._linker
        equip, load_template = linker._equip, there.dispatcher.runtime.load

        def noted(version: Version, block: ServiceBlock) -> Capabilities:
            self.equipped.append(version.label)
            return equip(version, block)

        def counted(path: str, **options: object) -> object:
            self.loaded.append(Path(path).stem)
            return load_template(path, **options)  # type: ignore[arg-type]

        linker._equip = noted
        there.dispatcher.runtime.load = counted  # type: ignore[method-assign, assignment]

    def version(
        self, number: int, name: str = "shop", *, act: str = "", **parts: object
    ) -> Version:
        letter = 64 + number
        digit = f"(i32.add {load(COUNT)} (i32.const 48))"
        answer = ANSWER.replace(digit, f"(i32.const {letter})")
        assert answer != ANSWER
        artifact = self._folder / f"{name}{number}.artifact"
        if not artifact.exists():
            self.there.compile(artifact, serving(act, answer=answer))
        service = Service(name, Path(f"{name}.wasm"), (Route(host=name),), LIMITS)
        made = Version(
            service, number, f"{name}{number}", artifact, id=f"id-{name}",
            series=FIRST_SERIES + number + (6 if name != "shop" else 0),
        )  # fmt: skip
        return replace(made, **parts)  # type: ignore[arg-type]  # fields by name

    def fetch(self, remote: str = "192.0.2.7", name: str = "shop") -> bytes:
        client = self.there.ask(name, remote=remote)
        self.there.until(client)
        return said(client)

    def invoke(self, name: str, number: int) -> Driven:
        found: list[bool] = []

        def handler(exchange: Exchange) -> None:
            found.append(self.there.dispatcher.handle_invoke(exchange, name, number))
            if not found[0]:
                exchange.respond_error(404, "No such version.", "none")

        client = self.there.ask("no.route", handler=handler)
        self.there.until(client)
        return client


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with town() as made:
        yield Place(made, tmp_path)


def test_a_canary_gets_some_clients_always_the_same_and_the_active_version_the_others(
    place: Place,
) -> None:
    canary = place.version(2, role=Role.CANARY, share=3000)
    place.there.serve(place.version(1), canary)
    first = {client: place.fetch(client) for client in CLIENTS}
    assert set(first.values()) == {b"A", b"B"}
    assert first == {client: place.fetch(client) for client in CLIENTS}
    place.there.serve(place.version(1), replace(canary, share=6000))
    more = {client: place.fetch(client) for client in CLIENTS}
    before = {client for client, answer in first.items() if answer == b"B"}
    assert before < {client for client, answer in more.items() if answer == b"B"}
    place.there.serve(place.version(1))
    assert {place.fetch(client) for client in CLIENTS} == {b"A"}


def test_a_canary_has_clients_of_its_own_service_alone(place: Place) -> None:
    canary = place.version(2, role=Role.CANARY, share=10_000)
    place.there.serve(place.version(1), canary, place.version(3, "other"))
    assert place.fetch() == b"B"
    assert place.fetch(name="other") == b"C"


def test_requests_are_counted_with_the_version_that_served_them(place: Place) -> None:
    canary = place.version(2, role=Role.CANARY, share=5000)
    place.there.serve(place.version(1), canary)
    answers = [place.fetch(client) for client in CLIENTS]
    place.there.dispatcher.draining = True
    for number, letter in ((1, b"A"), (2, b"B")):
        count = place.there.count_series(FIRST_SERIES + number, Ending.OK)
        assert count == answers.count(letter)


@pytest.mark.parametrize("why", ["quarantined", "refused"])
def test_a_canary_that_cannot_run_takes_nobody(place: Place, why: str) -> None:
    canary = place.version(2, role=Role.CANARY, share=10_000)
    if why == "quarantined":
        canary = replace(canary, quarantined=True)
    else:
        canary = replace(canary, refused="no", artifact=None)
    place.there.serve(place.version(1), canary)
    assert {place.fetch(client) for client in CLIENTS} == {b"A"}


def test_a_staged_version_is_reached_by_invocation_alone(place: Place) -> None:
    place.there.serve(place.version(1), place.version(2, role=Role.STAGED))
    assert {place.fetch(client) for client in CLIENTS} == {b"A"}
    assert said(place.invoke("shop", 2)) == b"B"
    assert said(place.invoke("shop", 1)) == b"A"
    assert status_of(place.invoke("shop", 3)) == 404
    assert status_of(place.invoke("other", 1)) == 404


def test_an_invocation_of_what_cannot_run_says_why(place: Place) -> None:
    place.there.serve(place.version(1, quarantined=True))
    client = place.invoke("shop", 1)
    assert (status_of(client), outcome_of(client)) == (503, "quarantined")


def test_a_snapshot_that_changes_one_service_leaves_the_others_as_they_are(place: Place) -> None:
    one, two = place.version(1), place.version(2, "other")
    place.there.serve(one, two)
    assert place.fetch(name="other") == b"B"
    assert live(place.there) == 1, "it waits for a further request"
    kept = place.there.dispatcher._deployed[1]
    place.equipped.clear()
    place.loaded.clear()
    place.there.serve(place.version(3), two, keep=True)
    assert place.equipped == ["shop"]
    assert place.loaded == ["shop3"]
    assert place.there.dispatcher._deployed[1] is kept
    assert live(place.there) == 1
    assert place.fetch() == b"C"


def test_what_equips_all_services_has_changed_so_all_are_equipped_again(place: Place) -> None:
    one, two = place.version(1), place.version(2, "other")
    place.there.serve(one, two)
    place.equipped.clear()
    place.loaded.clear()
    place.there.serve(one, two, keep=False)
    assert place.equipped == ["shop", "other"]
    assert place.loaded == [], "their programs have not changed"


def test_another_role_or_content_of_a_number_needs_no_second_template(place: Place) -> None:
    canary = place.version(2, role=Role.CANARY, share=10_000)
    place.there.serve(place.version(1), canary)
    assert place.fetch() == b"B"
    place.loaded.clear()
    active = replace(
        canary,
        role=Role.ACTIVE,
        share=0,
        service=replace(canary.service, config_stores={"flags": {"on": "1"}}),
    )
    assert not place.there.dispatcher.needs_artifact(active)
    place.there.serve(active, keep=True)
    assert place.loaded == []
    assert place.fetch() == b"B"


def test_a_request_under_way_ends_in_its_version_though_others_stay_as_they_are(
    place: Place,
) -> None:
    slow = place.version(1, act=on(1, READ))
    other = place.version(2, "other")
    place.there.serve(slow, other)
    client = place.there.ask("shop", POST)
    place.there.serve(place.version(3), other, keep=True)
    assert place.fetch() == b"C"
    place.there.say(client, b"x")
    place.there.until(client)
    assert said(client) == b"A"


def test_a_canary_that_ends_is_forgotten_by_an_active_version_that_stays(place: Place) -> None:
    active = place.version(1)
    place.there.serve(active, place.version(2, role=Role.CANARY, share=10_000))
    assert place.fetch() == b"B"
    place.there.serve(active, keep=True)
    assert place.fetch() == b"A"
    place.there.serve(active, place.version(3, role=Role.CANARY, share=10_000), keep=True)
    assert place.fetch() == b"C"


def test_a_version_that_does_not_load_is_named_by_its_label(place: Place, tmp_path: Path) -> None:
    broken = place.version(2, role=Role.CANARY, share=1)
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"nonsense")
    place.there.serve(place.version(1))
    with pytest.raises(ConfigError, match=r"services\.shop@2"):
        place.there.serve(place.version(1), replace(broken, artifact=nonsense))
    assert place.fetch() == b"A"


def test_sandboxes_of_a_version_that_was_replaced_are_not_used_again(place: Place) -> None:
    place.there.serve(place.version(1))
    fetch(place.there, "shop")
    assert live(place.there) == 1
    place.there.serve(place.version(1), keep=True)  # an equal version, and another object
    place.there.settle()
    place.there.arena.turns(20)
    assert live(place.there) == 0


def test_all_versions_of_a_service_share_its_slots_those_that_leave_included(
    place: Place,
) -> None:
    half = replace(LIMITS, slots=0.25)  # 4 of 16

    def narrow(number: int, role: Role = Role.ACTIVE) -> Version:
        made = place.version(number, act=on(1, READ), role=role)
        return replace(made, service=replace(made.service, limits=half))

    place.there.serve(narrow(1))
    first = [place.there.ask("shop", POST) for _ in range(3)]
    place.there.serve(narrow(2))  # three requests of the first are still under way
    second = [place.there.ask("shop", POST) for _ in range(2)]
    place.there.serve(narrow(3), narrow(4, Role.STAGED))
    third = place.there.ask("shop", POST)
    assert live(place.there) == 4
    for client in (*first, *second, third):
        place.there.say(client, b"x")
    place.there.until(*first, *second, third)
    assert [said(client) for client in first] == [b"A"] * 3
    assert [said(client) for client in second] == [b"B"] * 2
    assert said(third) == b"C"
    settle(place.there)
    place.there.dispatcher.draining = True
    settle(place.there)
    assert live(place.there) == 0
    assert [each.tenant.active for each in place.there.dispatcher._deployed] == [0, 0]


def test_a_version_that_rests_gives_its_slot_to_another_of_its_service(place: Place) -> None:
    single = replace(LIMITS, slots=1 / 16)

    def narrow(number: int, role: Role = Role.ACTIVE) -> Version:
        made = place.version(number, role=role)
        return replace(made, service=replace(made.service, limits=single))

    place.there.serve(narrow(1), narrow(2, Role.STAGED), place.version(3, "other"))
    assert place.fetch(name="other") == b"C"
    assert place.fetch() == b"A"
    settle(place.there)
    assert live(place.there) == 2, "both wait for a further request"
    assert said(place.invoke("shop", 2)) == b"B"
    settle(place.there)
    others = place.there.dispatcher._deployed[2]
    assert len(others.idle) == 1, "and no other service lost its sandbox for it"


class Contents(dict[str, dict[str, str]]):
    """Stores that can be referred to weakly."""


def test_what_a_version_could_reach_is_gone_as_soon_as_it_is_not_served(place: Place) -> None:
    def with_stores() -> weakref.ref[Contents]:
        stores = Contents(flags={"banner": "blue"})
        made = place.version(1)
        made = replace(made, service=replace(made.service, config_stores=stores))
        place.there.serve(made)
        return weakref.ref(stores)

    gc.collect()
    gc.disable()  # which would come, but on a quiet server after hours
    try:
        left = with_stores()
        assert left() is not None
        place.there.serve(place.version(2))
        assert left() is None
    finally:
        gc.enable()
