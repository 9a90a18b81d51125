"""Answers for whoever asks whether the server lives and whether to send it traffic."""

from __future__ import annotations

from edge.admin.status import Status


def live() -> tuple[int, str]:
    """Status code and text: the supervisor's loop turns, or nobody would answer."""
    return 200, "ok\n"


def ready(status: Status) -> tuple[int, str]:
    """Status code and text: 503 while draining, and until every worker serves what is published.

    A refused or quarantined service does not make the server unready: the others are served.
    """
    if status.draining:
        return 503, "draining\n"
    if not status.ready:
        behind = [w for w in status.workers if w.generation != status.generation]
        return 503, f"waiting for workers: {len(behind)} of {len(status.workers)} are not ready\n"
    return 200, "ok\n"
