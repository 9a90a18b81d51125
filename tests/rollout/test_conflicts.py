"""Names and routes have one owner, in the file or in the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import ApiRefused, ConfigError, Refusal
from edge.model.route import Route
from edge.model.service import Role, Service, Version
from edge.rollout.conflicts import check_file, refuse_foreign_hosts, refuse_taken, shared_hosts


def service(name: str, *hosts: str) -> Service:
    return Service(name, Path("/module"), tuple(map(Route, hosts)))


def version(name: str, *hosts: str, id: str = "", role: Role = Role.ACTIVE) -> Version:  # noqa: A002
    return Version(service(name, *hosts), 1, "a" * 64, Path("/code"), id=id, role=role)


def why(versions: list[Version], present: list[Version]) -> Refusal | None:
    try:
        refuse_taken("mine", versions, present)
    except ApiRefused as error:
        return error.refusal
    return None


@pytest.mark.parametrize(
    ("wanted", "present", "refusal"),
    [
        (version("a", "a.test", id="mine"), version("b", "b.test"), None),
        (version("a", "a.test", id="mine"), version("a", "b.test"), Refusal.OWNED_BY_FILE),
        (version("a", "a.test", id="mine"), version("b", "a.test"), Refusal.ROUTE_CONFLICT),
        (
            version("a", "a.test", id="mine"),
            version("b", "a.test", id="theirs"),
            Refusal.ROUTE_CONFLICT,
        ),
        # Its own versions of before are no others.
        (version("a", "a.test", id="mine"), version("a", "a.test", id="mine"), None),
        # Only active versions have routes.
        (version("a", "a.test", id="mine", role=Role.STAGED), version("b", "a.test"), None),
        (
            version("a", "a.test", id="mine"),
            version("b", "a.test", id="theirs", role=Role.CANARY),
            None,
        ),
    ],
)
def test_what_belongs_to_another_is_refused(
    wanted: Version, present: Version, refusal: Refusal | None
) -> None:
    assert why([wanted], [present]) is refusal


def test_every_route_that_is_taken_is_named_with_its_owner() -> None:
    with pytest.raises(ApiRefused) as caught:
        refuse_taken(
            "mine",
            [version("a", "a.test", "b.test", "c.test", id="mine")],
            [version("b", "b.test"), version("c", "c.test", id="theirs")],
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "routes[1]: b.test / belongs to service b of the configuration file",
        "routes[2]: c.test / belongs to service c",
    ]


@pytest.mark.parametrize(
    ("routes", "refused"),
    [
        ([Route("a.test")], False),
        ([Route("b.test", "/login")], True),
        ([Route("www.wild.test")], True),
        ([Route("*.deep.wild.test")], True),
        ([Route("wild.test")], False),  # `*.wild.test` does not have it
        ([Route("*.test")], False),  # what nobody else names
        ([Route("*", "/login")], True),
        ([Route("Mine.wild.test".lower())], False),  # its name below `deploy.domain`
        ([Route("b.test", "/mine"), Route("b.test", "/mine/too")], True),
        ([Route("b.test", "/mine")], False),  # an operator gave it that
    ],
)
def test_a_token_of_one_service_takes_no_part_of_a_host_that_others_have(
    routes: list[Route], refused: bool
) -> None:
    other = Service("b", Path("/b"), (Route("b.test"), Route("*.wild.test"), Route("*")))
    own = Service("Mine", Path("/m"), (Route("b.test", "/mine"),))
    present = [Version(other, 1, "b" * 64, Path("/b")), Version(own, 1, id="mine")]
    wanted = Version(Service("Mine", Path("/m"), tuple(routes)), 2, id="mine")
    if refused:
        with pytest.raises(ApiRefused) as caught:
            refuse_foreign_hosts("mine", [wanted], present, "wild.test")
        assert caught.value.refusal is Refusal.ROUTE_CONFLICT
        assert "belongs to service b" in str(caught.value.problems[0])
    else:
        refuse_foreign_hosts("mine", [wanted], present, "wild.test")


def test_a_name_below_the_domain_is_not_its_own_when_another_service_names_it() -> None:
    other = Version(Service("b", Path("/b"), (Route("mine.wild.test", "/api"),)), 1)
    wanted = version("mine", "mine.wild.test", id="mine")
    with pytest.raises(ApiRefused):
        refuse_foreign_hosts("mine", [wanted], [other], "wild.test")


def test_whoever_shares_a_host_is_told_with_whom() -> None:
    other = Version(Service("b", Path("/b"), (Route("a.test", "/api"), Route("*"))), 1)
    wanted = version("a", "a.test", "x.test", id="mine")
    present = [other, wanted]
    assert shared_hosts("mine", [wanted], present) == (
        "the host a.test is shared with service b of the configuration file: the longest path "
        "decides",
    )
    canary = version("a", "a.test", id="mine", role=Role.CANARY)
    assert shared_hosts("mine", [canary], present) == ()


def test_a_document_that_claims_a_name_and_a_route_is_told_of_both() -> None:
    file = [service("shop", "other.test"), service("blog", "x.test", "shop.test")]
    with pytest.raises(ConfigError) as caught:
        check_file(file, [("shop", (Route("shop.test"),)), ("news", (Route("news.test"),))])
    assert [problem.path for problem in caught.value.problems] == [
        "services.shop",
        "services.blog.routes[1]",
    ]


def test_a_name_of_which_several_versions_are_served_is_told_once() -> None:
    deployed = [("shop", (Route("shop.test"),)), ("shop", ())]  # a canary has no routes
    with pytest.raises(ConfigError) as caught:
        check_file([service("shop", "other.test")], deployed)
    assert [problem.path for problem in caught.value.problems] == ["services.shop"]


def test_a_document_that_claims_nothing_of_others_is_good() -> None:
    check_file([service("shop", "a.test")], [("news", (Route("news.test"),))])
