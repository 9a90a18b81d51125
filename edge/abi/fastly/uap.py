"""`fastly_uap`: which program a User-Agent names."""

from __future__ import annotations

from typing import Annotated

from edge.abi.codec import Out, Text
from edge.abi.fastly.status import FASTLY
from edge.abi.hostcall import HostModule
from edge.abi.sandbox import Sandbox
from edge.errors import BufferTooSmall
from edge.stores.user_agent import MAX_USER_AGENT, parse_user_agent

abi = HostModule("fastly_uap", FASTLY)

UserAgentText = Annotated[str, Text(limit=MAX_USER_AGENT)]


@abi.hostcall
def parse(
    box: Sandbox, user_agent: UserAgentText, family: Out, major: Out, minor: Out, patch: Out
) -> None:
    """Family and version of a User-Agent of at most 8 KiB; `Other` when it names no product."""
    agent = parse_user_agent(user_agent)
    short: BufferTooSmall | None = None
    # All four are tried before failing, so that a guest learns all the sizes it needs at once.
    for out, text in (
        (family, agent.family),
        (major, agent.major),
        (minor, agent.minor),
        (patch, agent.patch),
    ):
        try:
            out.fill(text.encode())
        except BufferTooSmall as error:
            short = error
    if short is not None:
        raise short
