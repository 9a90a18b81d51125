"""Dispatch: from a request to a guest and back to an outcome.  Where everything meets."""

from __future__ import annotations

from edge.dispatch.dispatcher import Dispatcher
from edge.dispatch.linking import Prepared

__all__ = ["Dispatcher", "Prepared"]
