"""Requests whose guest has ended: they are made, the answer is thrown away, and there are few."""

from __future__ import annotations

import asyncio

import pytest

from edge.upstream import unattended
from edge.upstream.fetch import Cause, UpstreamFailed
from tests.support.backends_h1 import Peer, answering, fetching
from tests.support.serving import run


async def settled(done: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await done.wait()


def test_a_request_is_made_although_nobody_waits_for_it() -> None:
    async def main() -> None:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.head()
            asked.set()
            await answered.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await peer.gone()

        async with fetching(script) as f:
            pending = f.send()
            f.upstream.leave(pending)
            await settled(asked)
            over = asyncio.Event()
            pending.watch(over.set)
            answered.set()
            await settled(over)
            assert f.client.statistics().responses == 1
            assert not len(f.upstream._unattended)

    run(main())


def test_a_failure_of_one_is_nobodys_problem() -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.head()
            peer.reset()

        async with fetching(script) as f:
            pending = f.send()
            over = asyncio.Event()
            pending.watch(over.set)
            f.upstream.leave(pending)
            await settled(over)
            assert not len(f.upstream._unattended)
            assert sum(f.client.statistics().failures.values()) == 1

    run(main())


def test_those_beyond_the_bound_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "MOST", 2)

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.gone()

        async with fetching(script) as f:
            several = [f.send() for _ in range(3)]
            for pending in several:
                f.upstream.leave(pending)
            assert [pending.is_ready for pending in several] == [False, False, True]
            with pytest.raises(UpstreamFailed) as caught:
                several[2].result()
            assert caught.value.cause is Cause.CONNECTION_TERMINATED

    run(main())


def test_one_that_gets_no_answer_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unattended, "SECONDS", 0.05)

    async def main() -> None:
        gone = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.gone()
            gone.set()

        async with fetching(script) as f:
            f.upstream.leave(f.send())
            await settled(gone)
            assert not len(f.upstream._unattended)

    run(main())


def test_versions_of_one_service_share_the_bound_and_other_services_do_not() -> None:
    async def main() -> None:
        async with fetching(answering()) as f:
            older, newer = f.client.for_service("shop"), f.client.for_service("shop")
            assert older._unattended is newer._unattended
            assert f.client.for_service("cart")._unattended is not newer._unattended
            del older, newer
            assert set(f.client.unattended) <= {"s"}, "services that are gone leave nothing"

    run(main())
