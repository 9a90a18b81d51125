"""The tree as a whole: sizes, openings, links, and nothing in it that only its authors have."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
MAX_LINES: Final = 500

# Longer files, each with its reason.
LONGER: Final = {
    "docs/hostcalls.md": "generated: one row for each of 300 functions",
    "tests/bench/package-lock.json": "written by npm",
    "tests/toolchain/package-lock.json": "written by npm",
}

# Split so that this file does not hold what it looks for.
FOREIGN: Final = {
    "a directory of one machine": re.compile(r"(?<![\w.])/(?:work|home/\w+|Users/\w+|root)/\w"),
    "a path beside the repository": re.compile(r"\.\./" + "shared"),
    "a package server": re.compile(
        r"\b(?:pypi|npmjs|pythonhosted)\." + r"org\b|\bproxy\.golang\." + r"org\b"
    ),
    "an index setting": re.compile(
        r"--(?:extra-)?index" + r"-url\b|_auth" + r"Token|npm_config_" + "registry"
    ),
}
TEXT: Final = {
    "", ".c", ".capnp", ".go", ".js", ".json", ".md", ".mjs", ".py", ".service", ".toml", ".ts",
    ".txt", ".wat", ".wit", ".yaml", ".yml", ".zig",
}  # fmt: skip
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH: Final = re.compile(r"`((?:edge|tests|docs|config|deploy|requirements)/[\w./-]+)(?:::(\w+))?`")
SELF: Final = re.compile(r"`(test_\w+)`")


def tracked() -> list[Path]:
    """What a clone has, and what will be in the next commit."""
    # The checkout may belong to another user than the one who tests, as in a container.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sorted(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


FILES: Final = tracked()
PAGES: Final = [path for path in FILES if path.suffix == ".md"]
PYTHON: Final = [path for path in FILES if path.suffix == ".py"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def anchors(page: Path) -> set[str]:
    """The fragments a renderer makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_the_list_of_files_is_not_empty() -> None:
    assert len(PYTHON) > 200
    assert ROOT / "README.md" in PAGES


def test_no_file_is_longer_than_500_lines_without_a_reason() -> None:
    lines = {
        relative(path): len(path.read_text().splitlines()) for path in FILES if path.suffix in TEXT
    }
    assert {
        name: count for name, count in lines.items() if count > MAX_LINES and name not in LONGER
    } == {}


def test_no_reason_outlives_its_file() -> None:
    assert [name for name in LONGER if not (ROOT / name).is_file()] == []


def test_nothing_names_what_only_its_authors_have() -> None:
    found = []
    for path in FILES:
        if path.suffix not in TEXT:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for what, pattern in FOREIGN.items():
                if pattern.search(line):
                    found.append(f"{relative(path)}:{number}: {what}: {line.strip()[:100]}")
    assert found == []


def test_every_python_file_says_what_it_is_first() -> None:
    found = []
    for path in PYTHON:
        if path.name == "__init__.py" and not path.read_text().strip():
            continue
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        if not first.endswith((".", "?", "!", ":", "`")) and len(first) < 20:
            found.append(relative(path))
    assert found == []


def test_test_directories_are_no_packages_except_the_shared_ones() -> None:
    # Under importlib's import mode two files of one name may then stand in two directories.
    packages = {relative(path.parent) for path in PYTHON if path.name == "__init__.py"}
    assert {name for name in packages if name.startswith("tests")} <= {
        "tests", "tests/support", "tests/bench",
    }  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (fragment and fragment not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_file_and_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    missing = []
    for name, function in PATH.findall(text):
        path = ROOT / name
        if not path.exists() or (function and function not in functions_in(path)):
            missing.append(f"{name}::{function}" if function else name)
    assert missing == []


def test_every_test_that_a_page_names_alone_exists() -> None:
    known = set().union(*(functions_in(path) for path in PYTHON if path.name.startswith("test_")))
    missing = {
        f"{relative(page)}: {name}"
        for page in PAGES
        for name in SELF.findall(page.read_text())
        if name not in known and not any(path.stem == name for path in PYTHON)
    }
    assert missing == set()


def test_every_make_command_of_the_documentation_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`|^ {4}(.+)$", page.read_text(), re.MULTILINE):
            for name in re.findall(r"(?:^|PYTHON=\S+ )make ([a-z]+)", "".join(code)):
                assert name in targets, f"{relative(page)}: make {name}"


def test_every_command_of_the_makefile_explains_itself() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony
    explained = set(re.findall(r"^## make ([a-z]+)", text, re.MULTILINE))
    assert set(phony[1].split()) - {"help"} == explained


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in LINK.findall(page.read_text()):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.is_dir():
                waiting += sorted(path.glob("*.md"))
            elif path.suffix == ".md" and path.is_file():
                waiting.append(path)
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {relative(page) for page in pages - reached} == set()
