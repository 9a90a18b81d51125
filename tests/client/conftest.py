"""Commands of `edge` run here against a fake API, in a directory and a home of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.client.cli import main
from tests.support.fake_api import FakeApi

Run = Callable[..., int]


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing of the developer's own is found."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("EDGE_SERVER", "EDGE_TOKEN", "EDGE_PROFILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(api: FakeApi, home: Path) -> Run:
    """Run `edge` with these words; returns its exit status."""
    return lambda *words: main([str(word) for word in words], transport=api.transport)
