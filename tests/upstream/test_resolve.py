"""Names to addresses: one lookup per name, a small cache, and threads that guests cannot use up."""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_address

import pytest

from edge.clock import SystemClock
from edge.upstream import resolve
from edge.upstream.fetch import Cause, UpstreamFailed
from edge.upstream.resolve import LANES, MAX_NAMES, MAX_WAITING, RESERVED, Resolver
from tests.support.backends import backend, on_uvloop
from tests.support.clock import SteppedClock
from tests.support.loop import turns
from tests.support.serving import until


class Names:
    """A lookup that answers from a table; a name beginning with `slow` waits for `release`."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table
        self.asked: list[str] = []
        self.release = threading.Event()

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        if name.startswith("slow"):
            self.release.wait(10)
        if name.endswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name.endswith("broken"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self.table.get(name, ["93.184.216.34"])


@on_uvloop
async def test_a_name_gives_its_addresses_in_order_without_repeats() -> None:
    names = Names(many=["2606:4700::1", "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1"])
    resolver = Resolver(SystemClock(), lookup=names)
    found = await resolver.resolve(backend("http://many:80"))
    assert found == (ip_address("2606:4700::1"), ip_address("10.0.0.1"))
    resolver.close()


@on_uvloop
async def test_an_address_is_not_looked_up() -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    for text in ("0x7f.1", "2130706433", "127.0.0.1.", "::ffff:127.0.0.1"):
        made = backend(f"http://[{text}]:80")
        assert await resolver.resolve(made) == (ip_address("127.0.0.1"),)
    assert not names.asked
    resolver.close()


@on_uvloop
async def test_an_answer_is_good_for_ten_seconds_and_a_failure_for_two() -> None:
    names, clock = Names(), SteppedClock()
    resolver = Resolver(clock, lookup=names)
    good, bad = backend("http://a.example:80"), backend("http://missing:80")
    for _ in range(2):
        await resolver.resolve(good)
        with pytest.raises(UpstreamFailed) as caught:
            await resolver.resolve(bad)
        assert caught.value.cause is Cause.DNS_ERROR
        assert caught.value.dns_rcode == 3
    assert names.asked == ["a.example", "missing"]
    clock.advance(2.1)
    await resolver.resolve(good)
    with pytest.raises(UpstreamFailed):
        await resolver.resolve(bad)
    assert names.asked == ["a.example", "missing", "missing"]
    clock.advance(8)
    await resolver.resolve(good)
    assert names.asked[3:] == ["a.example"]
    assert resolver.statistics().lookups == 4
    assert resolver.statistics().failures == 2
    resolver.close()


@on_uvloop
async def test_a_server_that_fails_is_a_dns_error_without_a_code() -> None:
    resolver = Resolver(SystemClock(), lookup=Names())
    with pytest.raises(UpstreamFailed, match="Temporary failure") as caught:
        await resolver.resolve(backend("http://broken:80"))
    assert caught.value.cause is Cause.DNS_ERROR
    assert caught.value.dns_rcode is None
    resolver.close()


@on_uvloop
async def test_a_name_without_addresses_is_a_dns_error() -> None:
    resolver = Resolver(SystemClock(), lookup=Names(empty=[]))
    with pytest.raises(UpstreamFailed, match="no address"):
        await resolver.resolve(backend("http://empty:80"))
    resolver.close()


@pytest.mark.parametrize(
    "name", ["a b", "bücher.example", "-x.example", "a..b", "x" * 64, "a.%s" % ("b." * 130), "a\n"]
)
@on_uvloop
async def test_what_is_no_name_is_not_looked_up(name: str) -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    with pytest.raises(UpstreamFailed, match="not a name"):
        await resolver.resolve(backend(f"http://{name}:80"))
    assert not names.asked
    resolver.close()


@on_uvloop
async def test_many_who_ask_for_a_name_share_one_lookup() -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    made = backend("http://slow.example:80")
    waiting = [asyncio.ensure_future(resolver.resolve(made)) for _ in range(50)]
    await until(lambda: names.asked)
    waiting[0].cancel()
    await turns()
    names.release.set()
    found = await asyncio.gather(*waiting[1:])
    assert names.asked == ["slow.example"]
    assert set(found) == {(ip_address("93.184.216.34"),)}
    assert waiting[0].cancelled()
    resolver.close()


@on_uvloop
async def test_an_answer_that_nobody_waited_for_is_kept_for_the_next() -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    made = backend("http://slow.example:80")
    impatient = asyncio.ensure_future(resolver.resolve(made))
    await until(lambda: names.asked)
    impatient.cancel()
    await turns()
    patient = asyncio.ensure_future(resolver.resolve(made))  # joins the lookup that still runs
    await turns()
    patient.cancel()
    names.release.set()
    await until(lambda: resolver.statistics().cached)
    await resolver.resolve(made)
    assert names.asked == ["slow.example"]
    resolver.close()


@on_uvloop
async def test_guests_cannot_take_the_last_threads() -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    hostile = [
        asyncio.ensure_future(resolver.resolve(backend(f"http://slow{i}:80", dynamic=True)))
        for i in range(LANES + 10)
    ]
    await until(lambda: resolver.statistics().running == LANES - RESERVED)
    await turns()
    found = await resolver.resolve(backend("http://good.example:80"))
    assert found == (ip_address("93.184.216.34"),)
    assert len(names.asked) == LANES - RESERVED + 1
    names.release.set()
    await asyncio.gather(*hostile)
    resolver.close()


@on_uvloop
async def test_the_line_for_threads_has_an_end_and_who_leaves_it_costs_nothing() -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)

    def ask(name: str) -> asyncio.Future[object]:
        return asyncio.ensure_future(resolver.resolve(backend(f"http://{name}:80", dynamic=True)))

    waiting = [ask(f"slow{i}") for i in range(LANES - RESERVED + MAX_WAITING)]
    await turns()
    with pytest.raises(UpstreamFailed, match="calls wait") as caught:
        await ask("slow-too-many")
    assert caught.value.cause is Cause.DNS_ERROR
    for each in waiting[LANES - RESERVED :]:
        each.cancel()
    await turns()
    late = ask("late")
    names.release.set()
    await late
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(names.asked) == LANES - RESERVED + 1, "a lookup ran that nobody waited for"
    resolver.close()


@on_uvloop
async def test_the_cache_is_bounded() -> None:
    resolver = Resolver(SystemClock(), lookup=Names())
    for i in range(MAX_NAMES + 5):
        await resolver.resolve(backend(f"http://n{i}.example:80"))
    assert resolver.statistics().cached == MAX_NAMES
    resolver.close()


@on_uvloop
async def test_names_of_guests_and_of_the_operator_have_answers_of_their_own() -> None:
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    await resolver.resolve(backend("http://a.example:80"))
    await resolver.resolve(backend("http://a.example:80", dynamic=True))
    assert names.asked == ["a.example", "a.example"]
    resolver.close()


@on_uvloop
async def test_closing_frees_who_waits_and_ends_the_threads() -> None:
    before = set(threading.enumerate())
    names = Names()
    resolver = Resolver(SystemClock(), lookup=names)
    waiting = [
        asyncio.ensure_future(resolver.resolve(backend(f"http://slow{i}:80", dynamic=True)))
        for i in range(LANES)
    ]
    await until(lambda: resolver.statistics().running == LANES - RESERVED)
    resolver.close()
    for freed in await asyncio.gather(*waiting[LANES - RESERVED :], return_exceptions=True):
        assert isinstance(freed, UpstreamFailed)
    names.release.set()
    await asyncio.gather(*waiting[: LANES - RESERVED])
    await until(lambda: set(threading.enumerate()) <= before)


@on_uvloop
async def test_without_threads_a_name_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    resolver = Resolver(SystemClock(), lookup=Names())
    with pytest.raises(UpstreamFailed, match="no thread"):
        await resolver.resolve(backend("http://a.example:80"))


@on_uvloop
async def test_the_systems_resolver_knows_localhost() -> None:
    resolver = Resolver(SystemClock())
    found = await resolver.resolve(backend("http://localhost:80"))
    assert ip_address("127.0.0.1") in found or ip_address("::1") in found
    resolver.close()


def test_a_name_goes_to_the_system_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def getaddrinfo(host: object, port: object, **_: object) -> list[object]:
        asked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolve.system_lookup("xn--bcher-kva.example")
    assert asked == [b"xn--bcher-kva.example"]
