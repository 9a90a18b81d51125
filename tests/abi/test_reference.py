"""The hostcall reference is what the source says."""

from __future__ import annotations

from pathlib import Path

from edge.abi.fastly.modules import FASTLY_MODULES
from edge.abi.reference import render

PAGE = Path(__file__).parents[2] / "docs" / "hostcalls.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(), "run: python -m edge.abi.reference > docs/hostcalls.md"


def test_the_page_names_every_function_and_every_reason() -> None:
    page = render()
    for module in FASTLY_MODULES:
        assert f"## `{module.name}`" in page
        for name, call in module.hostcalls.items():
            assert f"`{name}`" in page
            assert call.unsupported in page
