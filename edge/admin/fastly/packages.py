"""The package of a version: `PUT` takes what the CLI uploads, looks at it and keeps it.

The program is compiled before it is accepted, so that activating takes no time and a program that
cannot be served is refused here, with the reason.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from edge.admin.api import Call, Reply, Route
from edge.admin.around import Around
from edge.admin.control import no_progress
from edge.admin.fastly.shape import answer, endpoint, times, version_number
from edge.admin.fastly.version_parts import VERSION
from edge.admin.v1 import uploads
from edge.admin.v1.settings import module_needs
from edge.catalogue import services, versions
from edge.catalogue.records import Package, Scope, VersionRecord
from edge.catalogue.upload import Upload
from edge.errors import ApiRefused, Refusal

if TYPE_CHECKING:
    from edge.catalogue.database import Transaction

FIELD: Final = "package"
_MAX_PARTS: Final = 16  # of a form; the CLI sends one
_MAX_HEAD: Final = 8 * 1024  # bytes of the fields before a part
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'\bname="?([^";\r\n]*)"?', re.IGNORECASE)


def routes(around: Around) -> list[Route]:
    """The endpoints."""
    here = _Packages(around)
    most = around.settings.admin.package_bytes + uploads.PACKAGE_MARGIN
    pattern = f"{VERSION}/package"
    return [
        endpoint("GET", pattern, here.describe),
        endpoint("PUT", pattern, here.upload, Scope.DEPLOY, max_body=most),
    ]


class _Packages:
    def __init__(self, around: Around) -> None:
        self._around = around

    async def describe(self, call: Call) -> Reply:
        """What is known of it; the CLI compares `files_hash` and leaves out an upload."""
        number = version_number(call)

        def read(tx: Transaction) -> VersionRecord:
            return versions.get(tx, services.find(tx, call.params["service"]).id, number)

        return answer(_shape(await self._around.catalogue.read(read)))

    async def upload(self, call: Call) -> Reply:
        """A multipart form with the field `package`."""
        number = version_number(call)

        def changeable(tx: Transaction) -> tuple[str, VersionRecord]:
            found = services.find(tx, call.params["service"])
            return found.name, versions.changeable(tx, found.id, number)

        name, draft = await self._around.catalogue.read(changeable)
        upload = await self._unpack(call)
        inspection = await uploads.look(
            self._around,
            upload,
            no_progress,
            module_needs(self._around, name, draft.settings),
            label=name,
        )
        uploads.refuse_unfit(inspection)

        def write(tx: Transaction) -> VersionRecord:
            return versions.set_package(tx, draft.service_id, number, upload.package)

        async with uploads.stored(self._around, upload):
            return answer(_shape(await self._around.catalogue.write(call.actor, write)))

    async def _unpack(self, call: Call) -> Upload:
        """What was sent; of its forms on the way nothing is kept while it is compiled."""
        form = call.headers("content-type") or ""
        data = await asyncio.to_thread(read_field, await call.body.read(), form)
        return await uploads.unpack(self._around, call, data, no_progress)


def read_field(body: bytes, content_type: str) -> bytes:
    """The field `package` of a multipart form (RFC 7578).  ApiRefused BAD_REQUEST."""
    kind = content_type.partition(";")[0].strip().lower()
    found = _BOUNDARY.search(content_type)
    if kind != "multipart/form-data" or found is None:
        raise _bad("send a multipart/form-data body with the field `package`")
    border = b"--" + (found[1] or found[2]).encode("latin-1")
    if not body.startswith(border):
        raise _bad("it does not begin with its boundary")
    at = len(border)
    for _ in range(_MAX_PARTS):
        if body.startswith(b"--", at):
            raise _bad(f"there is no field {FIELD!r} in it")
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_HEAD)
        end = body.find(b"\r\n" + border, head_end + 2)
        if head_end < 0 or end < 0:
            raise _bad("it ends before its last boundary, or has a part without a head")
        name = _NAME.search(body, at, head_end)
        if name is not None and name[1] == FIELD.encode():
            return body[head_end + 4 : end]
        at = end + 2 + len(border)
    raise _bad(f"it has more than {_MAX_PARTS} parts")


def _shape(version: VersionRecord) -> dict[str, object]:
    package = version.package
    if package is None:
        raise ApiRefused(Refusal.NOT_FOUND, f"version {version.number} has no package")
    return {
        "id": package.sha256[:22],
        "service_id": version.service_id,
        "version": version.number,
        "metadata": _metadata(package),
        **times(version.created_at, version.updated_at),
    }


def _metadata(package: Package) -> dict[str, object]:
    return {
        "name": package.name,
        "description": package.description,
        "authors": list(package.authors),
        "language": package.language,
        "size": package.size,
        "hashsum": package.archive_sha512,
        "files_hash": package.files_hash,
    }


def _bad(what: str) -> ApiRefused:
    return ApiRefused(Refusal.BAD_REQUEST, f"the form cannot be read: {what}")
