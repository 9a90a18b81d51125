"""What is installed is pinned, and the pins fit what the package says it needs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.toolchain import ROOT

LOCKS = sorted(ROOT.glob("tests/*/package-lock.json"))


def pins(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(path.parent / line[3:])
        elif line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert re.fullmatch(r"[\w.]+", version), f"{path.name}: {line!r} is not pinned"
            found[canonicalize_name(name)] = version
    return found


def test_every_dependency_of_the_server_is_pinned_to_a_version_it_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins(ROOT / "requirements" / "run.txt")
    for text in project["dependencies"]:
        requirement = Requirement(text)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text} does not accept {version}"


@pytest.mark.parametrize("level", ["run", "test", "bench"])
def test_every_line_of_a_requirements_file_is_an_exact_pin(level: str) -> None:
    assert pins(ROOT / "requirements" / f"{level}.txt")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_npm_packages_are_locked_by_hash_and_name_no_server(lock: Path) -> None:
    content = json.loads(lock.read_text())
    wanted = json.loads((lock.parent / "package.json").read_text())["dependencies"]
    assert content["packages"][""]["dependencies"] == wanted
    for name, entry in content["packages"].items():
        if name:
            assert entry["integrity"].startswith("sha512-"), name
            assert "resolved" not in entry, name
