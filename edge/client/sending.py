"""A program on its way to the server: progress of the upload, and of what the server then does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from edge.client.api import Answer, Query, part
from edge.client.failures import Refused, Unreachable, Unusable
from edge.client.session import Session

_PIECE: Final = 64 * 1024
_SHOWN: Final[Mapping[str, str]] = {
    "received": "unpacking",
    "unpacked": "looking at the program",
    "queued": "waiting for the compiler",
    "compiling": "compiling",
    "compiled": "storing",
    "linking": "linking in every worker",
    "activated": "activated",
}


def send(session: Session, path: str, file: Path, size: int, query: Query) -> Answer:
    """PUT a file there.  On a terminal the way of it is shown."""
    if not session.is_interactive:
        headers = {"content-length": str(size), "content-type": _TYPE}
        return session.api.call(
            "PUT", path, query=query, content=_pieces(file, _nobody), headers=headers
        )
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(binary_units=True),
    )
    with Progress(*columns, console=session.err, transient=True) as progress:
        upload = progress.add_task("uploading", total=size)
        headers = {"content-length": str(size), "content-type": _TYPE}
        body = _pieces(file, lambda count: progress.advance(upload, count))
        status, found = 200, b""
        for line in session.api.lines("PUT", path, query=query, content=body, headers=headers):
            event = _event(line)
            name = event.pop("event", "")
            if name == "refused":
                raise Refused(event, line)
            if name == "done":
                found = json.dumps(event).encode()
            elif name in _SHOWN:
                progress.update(upload, description=_SHOWN[str(name)])
                if name == "compiling":  # there is no telling how far it is
                    progress.update(upload, total=None)
    if not found:
        raise Unreachable("the server ended its answer early; look at `edge versions`")
    return Answer(status, {}, found)


def service_path(name: str, *rest: str) -> str:
    """`/v1/services/NAME/...`."""
    return "/".join(("/v1/services", part(name), *(part(one) for one in rest)))


_TYPE: Final = "application/octet-stream"  # the bytes decide


def _pieces(file: Path, report: Callable[[int], None]) -> Iterator[bytes]:
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE):
                yield piece
                report(len(piece))
    except OSError as error:
        raise Unusable(f"{file} cannot be read: {error.strerror}") from None


def _nobody(count: int) -> None:
    """For uploads that nobody watches."""


def _event(line: bytes) -> dict[str, object]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise Unreachable("the server's progress is no JSON; is this an edge server?")
    return event
