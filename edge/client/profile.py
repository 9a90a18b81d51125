"""Which server to talk to and with which token: options, environment, saved profiles, a state file.

A token goes to the server it was given with and to no other: one from a profile is not sent to an
address that came from somewhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge.client.failures import Unusable

DEFAULT_SERVER: Final = "http://127.0.0.1:8090"
# beside an edge.yaml, and where `make run` keeps it
DEFAULT_STATE_DIRS: Final = (Path("var"), Path("config/var"))
DEFAULT_PROFILE: Final = "default"
TOKEN_FILE: Final = "admin.token"  # noqa: S105 - the name of a file
_MAX_FILE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says; empty is not said."""

    server: str = ""
    token: str = field(default="", repr=False)
    state_dir: Path | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what it is shown."""

    server: str  # http://HOST:PORT
    token: str = field(repr=False)  # empty: none was found
    warning: str = ""

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves this machine."""
        return _is_local(self.server)


@dataclass(frozen=True, slots=True)
class Profile:
    """A server that was logged in to."""

    server: str
    token: str = field(repr=False)


def find_target(given: Given, env: Mapping[str, str]) -> Target:
    """The first of: options, `EDGE_SERVER` and `EDGE_TOKEN`, the profile, a server's state_dir.

    Raises Unusable for an address that is none, and for files that cannot be trusted.
    """
    profiles = read_profiles(env)
    name = given.profile or env.get("EDGE_PROFILE", "")
    if name and name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise Unusable(f"there is no profile {name!r}; there are {known}. `edge login` makes one")
    profile = profiles.get(name or DEFAULT_PROFILE)
    explicit = given.server or ("" if given.profile else env.get("EDGE_SERVER", ""))
    saved = profile.server if profile is not None and given.state_dir is None else ""
    server = read_server(explicit or saved or DEFAULT_SERVER)
    token = given.token or ("" if given.profile else env.get("EDGE_TOKEN", ""))
    if not token and given.state_dir is not None:
        token = _token_of(given.state_dir, required=True)
    if not token and profile is not None and profile.server == server:
        token = profile.token
    if not token and _is_local(server):
        found = (_token_of(one, required=False) for one in DEFAULT_STATE_DIRS)
        token = next(filter(None, found), "")
    warning = ""
    if token and server.startswith("http:") and not _is_local(server):
        warning = f"{server} is not TLS: whoever is on the way can read the token"
    return Target(server, token.strip(), warning)


def read_server(text: str) -> str:
    """`http://HOST:PORT` in its normal form; a bare `HOST:PORT` is http on this machine only."""
    if "://" not in text:
        text = f"http://{text}" if _is_local(f"http://{text}") else f"https://{text}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise Unusable(f"{text!r} is not the address of a server; write http://127.0.0.1:8090")
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise Unusable(f"{text!r} has more than a host and a port; write http://127.0.0.1:8090")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def profiles_path(env: Mapping[str, str]) -> Path:
    """The file that profiles are kept in."""
    base = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME") or Path.home()) / ".config")
    return Path(base) / "edge" / "profiles.json"


def read_profiles(env: Mapping[str, str]) -> dict[str, Profile]:
    """Every saved profile.  Raises Unusable when others can read the file."""
    path = profiles_path(env)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise Unusable(f"others can read the tokens in {path}; chmod 600 it")
            document = json.loads(file.read(_MAX_FILE))
        return {
            str(name): Profile(str(one["server"]), str(one["token"]))
            for name, one in document["profiles"].items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unusable(f"{path} is damaged; remove it and use `edge login` again") from None


def write_profiles(env: Mapping[str, str], profiles: Mapping[str, Profile]) -> Path:
    """Replace the file, readable by its owner alone; returns where it is."""
    path = profiles_path(env)
    document = {
        "profiles": {
            name: {"server": one.server, "token": one.token} for name, one in profiles.items()
        }
    }
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(fresh, flags, 0o600), "w") as file:
            json.dump(document, file, indent=2)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise Unusable(f"{path} cannot be written: {error.strerror}") from None
    return path


def _token_of(state_dir: Path, *, required: bool) -> str:
    """The token that a server on this machine has written; empty when there need not be one."""
    path = state_dir / TOKEN_FILE
    try:
        with path.open() as file:
            return file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        if not required:
            return ""
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Unusable(f"{path} cannot be read: {why}") from None


def _is_local(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
