"""Reading the command line: what is told of a wrong one, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import edge
from edge.dev.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What is said about a command line that is not taken."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.wasm"
    path.write_bytes(b"\0asm\1\0\0\0")
    return path


def test_the_version_has_the_form_that_the_official_cli_parses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    name, version = capsys.readouterr().out.split(" ")
    assert name == "edge-dev"
    assert version.strip() == edge.__version__
    assert len(version.split(".")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the program"),
        (["serve"], "name the program"),
        (["absent.wasm"], "absent.wasm: no such file"),
        (["--addr", "7676", "x.wasm"], "has no IP address"),
        (["--addr", "localhost:1", "x.wasm"], "is not an IP address"),
        (["--unknown-import-behavior", "zero-or-null", "x.wasm"], "invalid choice"),
        (["--profile=perfmap", "x.wasm"], "only guest profiles"),
        (["--profile=guest,d,1", "x.wasm"], "not between 10 and 100000"),
        (["--profile=guest,d,x", "x.wasm"], "not a number of us"),
        (["--nonsense", "x.wasm"], "unrecognized arguments"),
        (["adapt", "x.wasm"], "nothing to adapt"),
    ],
)
def test_a_wrong_command_line_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    assert said in refused(capsys, *arguments)


def test_one_program_is_served(capsys: pytest.CaptureFixture[str], app: Path) -> None:
    assert "not also other.wasm" in refused(capsys, app, "other.wasm")
    assert "not also x" in refused(capsys, app, "--", "x")
