"""The supervisor: owns sockets, worker processes, reloads and the control API; serves nothing."""

from __future__ import annotations
