"""The import rules of docs/architecture.md, enforced on every import that the source spells out.

Imports inside functions count: a layer crossed late is crossed.  Imports for type checkers count as
well: a name that only an annotation needs still couples two packages for whoever reads them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
EDGE = ROOT / "edge"
SOURCES = sorted(EDGE.rglob("*.py"))

GROUND = {"errors", "outcome", "settings", "clock", "telemetry"}
LANGUAGE = {"http", "model"}
CAPABILITIES = {"stores", "upstream", "catalogue"}
SURFACES = {"server", "admin"}
COMPOSITION = {
    "__main__", "cli", "client", "compile_main", "control", "dev", "dispatch", "hostmodules",
    "local", "metering", "platform", "preflight", "process_log", "rollout", "serving", "supervisor",
    "testing", "transfer", "watch", "worker",
}  # fmt: skip

# What a package or module directly under `edge` may import besides itself and the bare `edge`,
# which is the version.  Composition may import anything; so it has no entry.
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(LANGUAGE, GROUND),
    **dict.fromkeys(CAPABILITIES, GROUND | LANGUAGE),
    "abi": GROUND | LANGUAGE | CAPABILITIES,
    "runtime": GROUND | LANGUAGE | {"abi"},
    **dict.fromkeys(SURFACES, GROUND | LANGUAGE | CAPABILITIES),
}

# Packages of the family of a guest: `runtime` is given a list of hostcall modules and knows none.
DIALECTS = ("edge.abi.fastly", "edge.abi.wasi", "edge.abi.component")

# Third parties, and the only places that may know them.
HOMES: dict[str, tuple[str, ...]] = {
    "wasmtime": ("edge.runtime",),
    "ctypes": ("edge.runtime.capi",),
    "_ctypes": (),
    "cffi": (),
    "httptools": ("edge.server.opinion",),
    "uvloop": ("edge.cli", "edge.dev.cli", "edge.testing.thread", "edge.worker"),
    "yaml": ("edge.model.yaml_lines",),
    "prometheus_client": ("edge.telemetry",),
    "lmdb": ("edge.stores",),
    "maxminddb": ("edge.stores.mmdb",),
    "h2": ("edge.upstream",),
    "hpack": ("edge.upstream",),
    "pytest": ("edge.testing",),
    "nacl": ("edge.catalogue", "edge.admin.fastly"),
    "sqlite3": ("edge.catalogue", "edge.stores"),
    "click": ("edge.client",),
    "rich": ("edge.client",),
    "httpx": ("edge.client",),
}

# The language layer is values: it opens nothing, waits for nothing outside the process and starts
# nothing.  An asyncio Future is a value; so is the text of an address that `socket` packs.
NEVER_IN_LANGUAGE = {
    "http.client", "http.server", "httptools", "io", "multiprocessing", "os", "select", "selectors",
    "shutil", "signal", "socketserver", "ssl", "subprocess", "tempfile", "threading", "uvloop",
}  # fmt: skip
VALUES_OF = {
    "asyncio": {"CancelledError", "Future", "get_running_loop"},
    "socket": {"AF_INET", "AF_INET6", "inet_ntop", "inet_pton"},
}
FILE_METHODS = {
    "mkdir", "open", "read_bytes", "read_text", "rename", "rmdir", "stat", "touch", "unlink",
    "write_bytes", "write_text",
}  # fmt: skip


class Import(NamedTuple):
    """One imported name, as deep as it can be known, and the line that names it."""

    name: str
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in SOURCES}


def imports(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            base = node.module or ""
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno)


def unit_of(name: str) -> str:
    """`edge.http.body` -> `http`; `edge` and a name in it that is no module -> the empty string."""
    parts = name.split(".")
    inside = len(parts) > 1 and ".".join(parts[:2]) in MODULES
    return parts[1] if inside else ""


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def broken_rules(module: str, tree: ast.AST) -> list[str]:
    """Every import of a module that a rule forbids, as `line N: ...`."""
    unit, found = unit_of(module), []
    allowed = MAY_IMPORT.get(unit)
    for name, line in imports(tree):
        if is_in(name, "edge"):
            other = unit_of(name)
            if other in ("", unit):
                continue
            if allowed is not None and other not in allowed:
                found.append(f"line {line}: {unit} may not import {name}")
            if unit == "runtime" and any(is_in(name, dialect) for dialect in DIALECTS):
                found.append(f"line {line}: runtime is given its hostcalls; it imports {name}")
        homes = HOMES.get(name.partition(".")[0])
        if homes is not None and not any(is_in(module, home) for home in homes):
            found.append(f"line {line}: {name} belongs into {' or '.join(homes) or 'no module'}")
        if is_in(name, "wasmtime._ffi") and module != "edge.runtime.capi":
            found.append(f"line {line}: only edge.runtime.capi may import {name}")
    return found


def impure_uses(tree: ast.AST) -> list[str]:
    """Files, sockets, transports and processes in a module of the language layer."""
    found = []
    for name, line in imports(tree):
        if any(is_in(name, banned) for banned in NEVER_IN_LANGUAGE):
            found.append(f"line {line}: import of {name}")
        base, _, member = name.partition(".")
        if base in VALUES_OF and member and member not in VALUES_OF[base]:
            found.append(f"line {line}: import of {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            values = VALUES_OF.get(node.value.id)
            if values is not None and node.attr not in values:
                found.append(f"line {node.lineno}: {node.value.id}.{node.attr}")
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in ("open", "__import__"):
                found.append(f"line {node.lineno}: {function.id}()")
            elif isinstance(function, ast.Attribute) and function.attr in FILE_METHODS:
                found.append(f"line {node.lineno}: .{function.attr}()")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    assert broken_rules(module_name(path), ast.parse(path.read_text())) == []


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {unit_of(module) for module in MODULES} - {""}
    assert parts == MAY_IMPORT.keys() | COMPOSITION


def test_nothing_imports_composition_but_composition() -> None:
    # Said once more on its own: the table above could be edited without this being noticed.
    for unit, allowed in MAY_IMPORT.items():
        assert not allowed & COMPOSITION, unit


def test_layers_have_no_cycle() -> None:
    done: set[str] = set()
    waiting = {unit: allowed - {unit} for unit, allowed in MAY_IMPORT.items()}
    for unit in GROUND:  # ground modules may know each other
        waiting[unit] = set()
    while waiting:
        ready = {unit for unit, needs in waiting.items() if needs <= done}
        assert ready, f"a circle among {sorted(waiting)}"
        done |= ready
        for unit in ready:
            del waiting[unit]


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if unit_of(module_name(path)) in LANGUAGE], ids=module_name
)
def test_the_language_layer_does_no_io(path: Path) -> None:
    assert impure_uses(ast.parse(path.read_text())) == []


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_module_is_imported_by_a_computed_name(path: Path) -> None:
    # What the rules above cannot see must not exist.
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.id if isinstance(node, ast.Name) else ""
        name = node.attr if isinstance(node, ast.Attribute) else name
        assert name not in ("__import__", "import_module"), f"line {getattr(node, 'lineno', 0)}"


def test_tasks_are_not_made_and_forgotten() -> None:
    """A task is kept by a group or by an owner that cancels it: its result goes into a name."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                function = node.value.func
                if isinstance(function, ast.Attribute) and function.attr in (
                    "create_task",
                    "ensure_future",
                ):
                    owner = ast.unparse(function.value)
                    assert "group" in owner or owner == "tasks", f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edge.server.connection", "from edge.runtime import driver"),
        ("edge.server.connection", "from edge.admin.app import AdminApp"),
        ("edge.admin.app", "def f():\n    import edge.abi.sandbox"),
        ("edge.abi.codec", "import wasmtime"),
        ("edge.abi.codec", "from ctypes import c_char"),
        ("edge.runtime.engine", "import ctypes"),
        ("edge.runtime.engine", "from wasmtime import _ffi"),
        ("edge.runtime.driver", "from edge.abi.fastly.modules import FASTLY_MODULES"),
        ("edge.compile_main", "import wasmtime"),
        ("edge.stores.config_store", "if TYPE_CHECKING:\n    from edge.upstream import pool"),
        ("edge.stores.config_store", "from edge.abi.sandbox import Sandbox"),
        ("edge.http.body", "from edge.model.limits import Limits"),
        ("edge.telemetry.shared", "from edge import serving"),
        ("edge.settings", "from edge.model.units import write_bytes"),
    ],
)
def test_a_broken_rule_is_found(module: str, source: str) -> None:
    assert broken_rules(module, ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "import ssl",
        "from asyncio import Protocol",
        "import asyncio\nasyncio.start_server(f, '')",
        "open('x')",
        "from pathlib import Path\nPath('x').read_text()",
        "import socket\nsocket.socket()",
    ],
)
def test_io_in_the_language_layer_is_found(source: str) -> None:
    assert impure_uses(ast.parse(source))


def test_the_table_in_the_documentation_is_the_one_enforced() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\w+) \| ((?:`\w+`,? ?)+) \|", page, re.MULTILINE)
    table = {layer: set(re.findall(r"`(\w+)`", names)) for layer, names in rows}
    assert table == {
        "composition": COMPOSITION,
        "surfaces": SURFACES,
        "execution": {"runtime"},
        "abi": {"abi"},
        "capabilities": CAPABILITIES,
        "language": LANGUAGE,
        "ground": GROUND,
    }
