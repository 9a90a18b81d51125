"""docs/wasi.md says what the declarations say."""

from __future__ import annotations

from pathlib import Path

from edge.abi.wasi.preview1 import WASI_PREVIEW1
from edge.abi.wasi.reference import render

PAGE = Path(__file__).parents[3] / "docs" / "wasi.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(), "run: python -m edge.abi.wasi.reference > docs/wasi.md"


def test_every_function_says_what_it_answers() -> None:
    assert all(call.doc.endswith(".") for call in WASI_PREVIEW1.hostcalls.values())
