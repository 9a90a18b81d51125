"""The pytest plugin: fixtures that start services and end them with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge.testing import Edge, ServiceUnderTest


@pytest.fixture
def edge() -> Iterator[Edge]:
    """Starts services; see `edge.testing.Edge`."""
    # Here, because a plugin is imported in every run of pytest, in this project or another.
    from edge.testing import Edge

    with Edge() as made:
        yield made


@pytest.fixture
def edge_service(edge: Edge) -> Callable[..., ServiceUnderTest]:
    """`edge.service`, for tests that need nothing else of it."""
    return edge.service
