"""Dispatch: from a request to a guest and back to an outcome.  Where everything meets."""

from __future__ import annotations

from edge.dispatch.dispatcher import Dispatcher, Prepared

__all__ = ["Dispatcher", "Prepared"]
