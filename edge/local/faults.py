"""Backends that are slow or fail on purpose: what a service does when its origin is ill."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge.model.backend import Backend
from edge.upstream.fetch import (
    Cause,
    Health,
    Pending,
    Upstream,
    UpstreamFailed,
    UpstreamRequest,
    UpstreamResponse,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the requests of one backend.  Times in seconds."""

    latency: float = 0.0  # before it is sent, or fails
    jitter: float = 0.0  # at most so much more
    error_rate: float = 0.0  # share of requests that are not sent and fail
    cause: Cause = Cause.CONNECTION_REFUSED


class FaultyUpstream:
    """An upstream whose named backends have faults; the others are as they were."""

    def __init__(
        self, upstream: Upstream, faults: Mapping[str, Fault], dice: random.Random
    ) -> None:
        """`faults` by the name of a backend of the document; dynamic backends have none."""
        self._upstream = upstream
        self._faults = faults
        self._dice = dice

    def leave(self, pending: Pending) -> None:
        self._upstream.leave(pending)

    def send(self, request: UpstreamRequest) -> Pending:
        backend = request.backend
        fault = None if backend.dynamic else self._faults.get(backend.name)
        if fault is None:
            return self._upstream.send(request)
        failure = None
        if self._dice.random() < fault.error_rate:
            failure = UpstreamFailed(
                fault.cause,
                f"backend {backend.name}: failed as local_server.backends.{backend.name}.inject "
                "asks for",
            )
        delay = fault.latency + fault.jitter * self._dice.random()
        return _Delayed(delay, request, self._upstream.send, failure)

    def health(self, backend: Backend) -> Health:
        return self._upstream.health(backend)


class _Delayed:
    """A pending request that is sent, or fails, after a while."""

    def __init__(
        self,
        delay: float,
        request: UpstreamRequest,
        send: Callable[[UpstreamRequest], Pending],
        failure: UpstreamFailed | None,
    ) -> None:
        self._request = request
        self._send = send
        self._failure = failure
        self._inner: Pending | None = None
        self._failed = False
        self._watchers: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        if delay > 0:
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)
        else:
            self._due()

    def _due(self) -> None:
        self._timer = None
        watchers, self._watchers = self._watchers, []
        if self._failure is not None:
            self._failed = True
            self._request.body.discard()
            for callback in watchers:
                callback()
            return
        inner = self._inner = self._send(self._request)
        for callback in watchers:
            if inner.is_ready:
                callback()
            else:
                inner.watch(callback)

    @property
    def is_ready(self) -> bool:
        return self._failed or (self._inner is not None and self._inner.is_ready)

    def watch(self, callback: Callable[[], None]) -> None:
        if self._inner is not None:
            self._inner.watch(callback)
        else:
            self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if self._inner is not None:
            self._inner.unwatch(callback)
        elif callback in self._watchers:
            self._watchers.remove(callback)

    def result(self) -> UpstreamResponse:
        if self._failed:
            assert self._failure is not None
            raise self._failure
        assert self._inner is not None
        return self._inner.result()

    def abandon(self) -> None:
        self._watchers.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._request.body.discard()
        if self._inner is not None:
            self._inner.abandon()
