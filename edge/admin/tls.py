"""TLS of the control API: its certificate and key, read at the start and again at each reload."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from edge.errors import ConfigError, Problem
from edge.settings import AdminTls


class ServerTls:
    """One context for all connections: what is loaded anew holds for those that come later."""

    def __init__(self, settings: AdminTls) -> None:
        """Reads nothing before `load`.  Both files must be named."""
        assert settings.certificate is not None
        assert settings.key is not None
        self._certificate, self._key = settings.certificate, settings.key
        self.context = _context()

    def load(self) -> None:
        """Read both files.  Blocks.  Raises ConfigError, with what was loaded before still good."""
        # A context that fails half way has the new certificate and the old key: try another first.
        _load(_context(), self._certificate, self._key)
        _load(self.context, self._certificate, self._key)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for setting, path in (("admin.tls.certificate", certificate), ("admin.tls.key", key)):
        try:
            path.read_bytes()  # whose fault it is, OpenSSL does not say
        except OSError as error:
            raise ConfigError(
                Problem(setting, f"cannot read {path}: {error.strerror or error}")
            ) from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise ConfigError(
            Problem("admin.tls.key", f"{key} is encrypted, and nobody is there to be asked")
        ) from None
    except ssl.SSLError as error:
        raise ConfigError(
            Problem(
                "admin.tls",
                f"{certificate} and {key} are not a PEM certificate and its key: "
                f"{error.reason or error}",
            )
        ) from None


class _Encrypted(Exception):
    """OpenSSL asked for a password."""


def _no_password() -> NoReturn:
    raise _Encrypted
