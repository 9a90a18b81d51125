"""What was uploaded, unpacked and looked at: the first half of every deploy."""

from __future__ import annotations

import asyncio

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


async def unpack(around: Around, body: bytes, progress: Progress) -> Upload:
    """Raises ApiRefused PACKAGE_INVALID or TOO_LARGE."""
    progress("received", {"bytes": len(body)})
    most = around.settings.admin.package_bytes
    upload = await asyncio.to_thread(read_upload, body, max_module=most)
    package = upload.package
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


async def store(around: Around, upload: Upload) -> None:
    """Put the module where versions find it, durably."""
    await asyncio.to_thread(around.packages.put, upload.module)
