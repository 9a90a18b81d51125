"""Finding the service that a path names, whoever owns it."""

from __future__ import annotations

from edge.admin.api import Call
from edge.admin.around import Around
from edge.admin.control import FileService
from edge.catalogue import services
from edge.catalogue.records import ServiceRecord
from edge.errors import ApiRefused, Refusal


def file_service(around: Around, name: str) -> FileService | None:
    """The service of the configuration file that has this name."""
    for service in around.control.file_services():
        if service.name == name:
            return service
    return None


def refuse_file_service(around: Around, name: str) -> None:
    """Raises ApiRefused OWNED_BY_FILE for a service that is changed in the file only."""
    if file_service(around, name) is not None:
        raise ApiRefused(
            Refusal.OWNED_BY_FILE,
            f"the service {name} is in the configuration file: change it there and send SIGHUP, or "
            "deploy under another name",
        )


async def find_service(around: Around, call: Call) -> ServiceRecord:
    """The service of the catalogue that `{service}` names.

    Raises ApiRefused NOT_FOUND; OWNED_BY_FILE, because nothing but its description is here.
    """
    name = call.params["service"]
    refuse_file_service(around, name)
    return await around.catalogue.read(lambda tx: services.find(tx, name))


async def counted_name(around: Around, named: str) -> str:
    """By which name lines and numbers of a service of the catalogue are known.

    Raises ApiRefused NOT_FOUND; OWNED_BY_FILE when that name is one of the file's by now: what is
    known under it is that service's, and not for whoever has a token of this one.
    """
    name = (await around.catalogue.read(lambda tx: services.find(tx, named))).name
    refuse_file_service(around, name)
    return name


def number_of(call: Call) -> int:
    """The version that `{number}` names; its schema has made sure that it is one."""
    return int(call.params["number"])


def describing_number(record: ServiceRecord) -> int:
    """The version that says most about a service: the one that serves, else the newest; 0: none."""
    return record.active or record.latest
