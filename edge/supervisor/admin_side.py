"""The listeners of the control API and of the metrics alone, on the supervisor's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from edge.admin import fastly, v1
from edge.admin.app import AdminApp
from edge.admin.around import Around
from edge.admin.calls import Calls
from edge.admin.metrics import Render
from edge.admin.tls import ServerTls
from edge.clock import SystemClock
from edge.http.addresses import TrustedProxies
from edge.server.front import Front, HttpLimits
from edge.server.listener import Listener
from edge.server.timers import Sweeper
from edge.settings import Settings
from edge.supervisor.sockets import open_listener

ADMIN_CONNECTIONS: Final = 256
ADMIN_PER_CLIENT: Final = 192  # of one address: it cannot lock operators out with idle ones
# Of a body that was refused: a client that is told before it has sent everything reads the answer
# only if we read on.  The second that this may take bounds it as well.
LINGER_BYTES: Final = 256 * 1024 * 1024
STOP_SECONDS: Final = 2.0  # for the last answers to be taken, once calls have ended
MAX_TARGET: Final = 32 * 1024  # a key of a KV store may take 12 bytes a character in a URL


def open_admin(
    settings: Settings, opened: contextlib.ExitStack
) -> list[tuple[socket.socket, bool]]:
    """Sockets of the control API and of the metrics alone, with whether it is the latter."""
    wanted = [(settings.admin.listen, "admin.listen", False)]
    if settings.metrics.listen is not None:
        wanted.append((settings.metrics.listen, "metrics.listen", True))
    found = []
    for listen, setting, metrics_only in wanted:
        sock = open_listener(listen, setting=setting)
        opened.callback(sock.close)
        found.append((sock, metrics_only))
    return found


def control_app(around: Around, render: Render, loop: asyncio.AbstractEventLoop) -> AdminApp:
    """All of the control API.  `render` makes the metrics, in a thread."""
    app = AdminApp(around.report, render, loop)
    calls = Calls(around, [*v1.routes(around), *fastly.routes(around)], loop)
    app.serve(calls, around.settings.admin.hosts)
    return app


def admin_listeners(
    sockets: list[tuple[socket.socket, bool]],
    app: AdminApp,
    loop: asyncio.AbstractEventLoop,
    *,
    tls: ServerTls | None = None,
) -> list[Listener]:
    """Not started yet.  `tls` is that of the control API; metrics alone are plain.

    Bodies have no bound here: each route has one, and says in its own words what is above it.
    """
    sweeper = Sweeper(loop, SystemClock())
    limits = HttpLimits(
        max_connections=ADMIN_CONNECTIONS,
        max_per_client=ADMIN_PER_CLIENT,
        linger_bytes=LINGER_BYTES,
        max_target=MAX_TARGET,
    )
    return [
        Listener(
            sock,
            Front(
                handler=app.handle_metrics if metrics_only else app.handle,
                loop=loop,
                sweeper=sweeper,
                limits=limits,
                proxies=TrustedProxies(),
                scheme=b"http" if tls is None or metrics_only else b"https",
            ),
            loop,
            None if tls is None or metrics_only else tls.context,
        )
        for sock, metrics_only in sockets
    ]


async def close_admin(listeners: list[Listener], app: AdminApp) -> None:
    """Accept no more, tell the calls that are under way that we stop, and see that they hear it."""
    for listener in listeners:
        listener.drain()
    await app.aclose()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            for listener in listeners:
                await listener.wait_idle()
    for listener in listeners:
        await listener.aclose()


def open_tls(settings: Settings) -> ServerTls | None:
    """The control API's certificate, where it has one.  Blocks; raises ConfigError."""
    if settings.admin.tls.certificate is None:
        return None
    tls = ServerTls(settings.admin.tls)
    tls.load()
    return tls


def address_of(sock: socket.socket) -> str:
    """Where it listens, with the port that the kernel chose."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
