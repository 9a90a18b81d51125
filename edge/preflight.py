"""Tries what a configuration names before anything is started or changed: data files, TLS settings.

What cannot be used is the operator's to mend, and is told like any other mistake in the document.
Not here: the programs themselves, which are refused one by one while the others serve.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

from edge.errors import ConfigError, Problem
from edge.model.backend import Backend
from edge.model.parse import Config
from edge.stores.devices import Devices
from edge.stores.geo import Geo
from edge.upstream import tls


def check(config: Config) -> None:
    """Reads files and blocks for it.  Raises ConfigError with everything that cannot be used."""
    problems = [*_data(config), *_tls(config)]
    if problems:
        raise ConfigError(*problems)


def absent_programs(config: Config) -> Iterator[Problem]:
    """Services that would be refused because their program cannot be opened."""
    for service in config.services:
        try:
            with service.module.open("rb"):
                pass
        except OSError as error:
            why = error.strerror or errno.errorcode.get(error.errno or 0, "cannot be opened")
            yield Problem(f"services.{service.name}.module", f"{service.module}: {why}")


def _data(config: Config) -> Iterator[Problem]:
    for load in (
        lambda: Geo.load(config.settings.geolocation),
        lambda: Devices.load(config.settings.device_detection),
    ):
        try:
            load()
        except ConfigError as error:
            yield from error.problems


def _tls(config: Config) -> Iterator[Problem]:
    """Only what the operator has written: the system's roots take 20 ms for each backend."""
    for service in config.services:
        for backend in service.backends.values():
            if backend.url.tls and _has_material(backend):
                rootless = backend.ca_certificate is None
                try:
                    tls.build(replace(backend, verify=False) if rootless else backend)
                except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                    path = f"services.{service.name}.backends.{backend.name}"
                    yield Problem(path, f"TLS settings: {tls.words(error)}")


def _has_material(backend: Backend) -> bool:
    return (
        backend.ca_certificate is not None
        or backend.client_certificate is not None
        or backend.ciphers is not None
    )
