"""Plain WASI programs that answer in the CGI manner: body on stdin, response on stdout.

Composition puts `box.extras["cgi"] = Cgi(box)` before such a program starts and calls `finish`
after its end.  What stdout means is decided here; the bytes go on through the response body.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.abi.sandbox import Sandbox
from edge.abi.wasi.cgi_head import CgiProblem, end_of_head, request_variables, response_head
from edge.abi.wasi.environment import StringBlock, cgi_environment
from edge.abi.wasi.errno import Errno, WasiError
from edge.abi.wasi.streams import COMMON_RIGHTS, BodyInput, Rights, Stream
from edge.errors import Incomplete, LimitExceeded
from edge.http.body import Body
from edge.http.message import ResponseHead

# A response waits for this much of its body, the guest's waiting or its end, so that most are
# complete when they are handed over and go out with a Content-Length and in one piece.
HOLD_BACK = 16 * 1024


class CgiOutput(Stream):
    """A stdout that is a CGI response."""

    __slots__ = ("_body", "_box", "_closed", "_head", "_pending", "problem", "sent")

    rights = COMMON_RIGHTS | Rights.FD_WRITE

    def __init__(self, box: Sandbox) -> None:
        super().__init__()
        self._box = box
        self._pending = bytearray()  # the header block until it is complete
        self._head: ResponseHead | None = None
        self._body = Body(box.account, live=True)
        self._closed = False
        self.sent = False  # the response was handed over
        self.problem = ""  # why the output is no CGI response

    @property
    def write_ready(self) -> bool:
        return not self._body.is_full or self._body.error is not None

    async def wait_write(self) -> None:
        self.push()
        await self._body.wait_room()

    def watch(self, callback: Callable[[], None]) -> None:
        self._body.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        self._body.unwatch(callback)

    def write(self, data: bytes) -> int:
        if self.problem:
            raise WasiError(Errno.IO, self.problem)
        if self._body.error is not None:
            raise WasiError(Errno.PIPE, "the client is gone")
        if self._head is None:
            self._collect(data)
        else:
            self._body.write(data)
        if self._body.held >= HOLD_BACK:
            self.push()
        return len(data)

    def _collect(self, data: bytes) -> None:
        """Add to the header block, and go over to the body behind it."""
        pending, limits = self._pending, self._box.limits
        searched = len(pending)
        pending += data
        try:
            end = end_of_head(pending, searched)
            if (len(pending) if end < 0 else end) > limits.head_bytes:
                raise CgiProblem(
                    f"header fields of more than {limits.head_bytes} bytes (limits.head_bytes)"
                )
            if end < 0:
                self._box.hold(len(data))
                return
            head = response_head(bytes(pending[:end]), max_fields=limits.head_fields)
            self._body.write(bytes(pending[end:]))
        except LimitExceeded:  # nothing was taken: the guest may free something and try again
            del pending[searched:]
            raise
        except CgiProblem as problem:
            del pending[searched:]
            self._drop_pending()
            self.problem = str(problem)
            raise WasiError(Errno.IO, self.problem) from None
        del pending[searched:]
        self._drop_pending()
        self._head = head

    def _drop_pending(self) -> None:
        self._box.hold(-len(self._pending))
        self._pending.clear()

    def push(self) -> None:
        """Hand the response over, once its head is complete."""
        if self._head is not None and not self.sent:
            self.sent = True
            self._box.downstream.respond(self._head, self._body)

    def close(self) -> None:
        """The guest says that this is all."""
        self._closed = True
        self.finish(clean=True)

    def finish(self, *, clean: bool) -> None:
        """End the response; `clean` is false when the guest did not live to complete it."""
        complete = clean or self._closed
        if self._head is None:
            if clean and not self.problem:
                self.problem = (
                    "its output ended before the blank line that ends the header fields"
                    if self._pending
                    else "it wrote no response to stdout"
                )
            self._drop_pending()
        elif complete:
            self._body.finish()
            self.push()
        elif self.sent:
            self._body.fail(Incomplete("the program ended before its response did"))
        else:
            self._body.discard()


class Cgi:
    """One request to a CGI program."""

    __slots__ = ("_box", "stdin", "stdout")

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self.stdin = BodyInput(box.downstream.body)
        self.stdout = CgiOutput(box)

    def environment(self) -> StringBlock:
        """The program's variables for this request."""
        return cgi_environment(self._box, request_variables(self._box))

    def finish(self, *, clean: bool) -> str:
        """The guest has ended, `clean` with exit code 0: complete its response or break it off.

        Gives what was wrong with the output, "" if nothing was.  Whether a response is on its way
        is `downstream.responded`: an unclean end before anything was sent sends nothing.
        """
        self.stdout.finish(clean=clean)
        return self.stdout.problem
