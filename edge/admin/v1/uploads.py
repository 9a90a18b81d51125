"""What was uploaded, unpacked and looked at: the first half of every deploy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge.admin.api import Call
from edge.admin.around import Around
from edge.admin.control import Inspection, Progress
from edge.admin.v1.settings import ModuleNeeds
from edge.catalogue.upload import Upload, read_upload
from edge.errors import ApiRefused, Problem, Refusal

PACKAGE_MARGIN = 1024 * 1024  # bytes of a package besides its module
BINARY = {"type": "string", "format": "binary"}
FORMS = {  # what clients say it is; the bytes decide
    "application/wasm": BINARY,
    "application/octet-stream": BINARY,
    "application/gzip": BINARY,
    "text/plain": {"type": "string"},
}


async def unpack(around: Around, call: Call, data: bytes, progress: Progress) -> Upload:
    """What `data`, the body of `call` or a part of it, is.

    Raises ApiRefused PACKAGE_INVALID, TOO_LARGE, and BUSY when too many programs are held already:
    a package of kilobytes may hold a hundred megabytes, and waits for its turn to be compiled.
    """
    progress("received", {"bytes": len(data)})
    most = around.settings.admin.package_bytes
    upload = await asyncio.to_thread(read_upload, data, max_module=most)
    package = upload.package
    if upload.module is not await call.body.read():
        call.body.hold(package.size)
    progress(
        "unpacked",
        {"bytes": package.size, "sha256": package.sha256, "language": package.language},
    )
    return upload


async def look(
    around: Around,
    upload: Upload,
    progress: Progress,
    needs: ModuleNeeds,
    *,
    label: str,
) -> Inspection:
    """Compile it, and compare it with what we have and allow."""
    return await around.control.inspect(
        upload.module,
        limits=needs.limits,
        trap_unknown=needs.trap_unknown,
        label=label,
        progress=progress,
    )


def refuse_unfit(inspection: Inspection) -> None:
    """Raises ApiRefused MODULE_REFUSED when there is a problem."""
    if inspection.problems:
        raise ApiRefused(
            Refusal.MODULE_REFUSED,
            inspection.problems[0],
            problems=tuple(Problem("", text) for text in inspection.problems),
        )


@asynccontextmanager
async def stored(around: Around, upload: Upload) -> AsyncIterator[None]:
    """The module is where versions find it, durably; give it one before this ends."""
    with around.packages.holding(upload.package.sha256):
        await asyncio.to_thread(around.packages.put, upload.module)
        yield
