"""nginx as Debian ships it, for the benchmark: the backend that all proxies ask, and a proxy.

One worker, one process below its master, as our server has one worker below its supervisor.  It
keeps connections to clients and to the backend as long as it may: neither proxy pays for new ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.bench.peers import BODY
from tests.support.toolchain import MissingTool

# More than a connection sees in a run; nginx's own default (1,000) would have it reconnect.
FOR_EVER = 1_000_000_000
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def binary() -> str:
    """Where nginx is.  Raises MissingTool: it is often outside the search path of users."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        raise MissingTool("nginx is missing: apt-get install nginx-light")
    return found


def constant(folder: Path, port: int) -> list[str]:
    """A server that answers each request with the benchmark's body."""
    text = BODY.decode().encode("unicode_escape").decode()
    return _command(
        folder, f'listen 127.0.0.1:{port}; location / {{ return 200 "{text}"; }}', access="off"
    )


def proxy(backend_port: int, *, log: bool) -> Callable[[Path, int], list[str]]:
    """A proxy in front of the backend; `log`: with the access log as shipped, a write each."""

    def command(folder: Path, port: int) -> list[str]:
        server = (
            f"listen 127.0.0.1:{port};"
            " location / { proxy_pass http://origin; proxy_http_version 1.1;"
            ' proxy_set_header Connection ""; }'
        )
        upstream = (
            f"upstream origin {{ server 127.0.0.1:{backend_port};"
            f" keepalive 64; keepalive_requests {FOR_EVER}; }}"
        )
        access = f"{folder}/access.log" if log else "off"
        return _command(folder, server, access=access, upstream=upstream)

    return command


def _command(folder: Path, server: str, *, access: str, upstream: str = "") -> list[str]:
    lines = [
        "daemon off;",
        "worker_processes 1;",
        f"pid {folder}/nginx.pid;",
        f"error_log {folder}/error.log warn;",
        # As root it would become a user who cannot write here.
        *(["user root;"] if os.geteuid() == 0 else []),
        "events { worker_connections 4096; }",
        "http {",
        *(f"  {name}_temp_path {folder}/{name};" for name in _TEMPORARY),
        "  default_type text/plain;",
        f"  keepalive_requests {FOR_EVER};",
        f"  access_log {access};",
        f"  {upstream}",
        f"  server {{ {server} }}",
        "}",
    ]
    config = folder / "nginx.conf"
    config.write_text("\n".join(lines) + "\n")
    return [binary(), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
