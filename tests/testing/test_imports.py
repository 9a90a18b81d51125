"""What importing the library and its plugin costs those who do not use it, and needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import edge.testing


def python(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_plugin_alone_loads_no_engine() -> None:
    python(
        "import sys, edge.testing.plugin\n"
        "heavy = {'wasmtime', 'uvloop', 'httptools', 'asyncio', 'edge.local'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


def test_neither_the_server_nor_the_library_needs_pytest() -> None:
    python(
        "import sys\nsys.modules['pytest'] = None\n"
        "import edge.cli, edge.worker, edge.dev.cli, edge.supervisor.run\n"
        "from edge.testing import *\nassert Edge"
    )


@pytest.mark.parametrize("name", edge.testing.__all__)
def test_each_name_is_there(name: str) -> None:
    assert getattr(edge.testing, name).__name__ == name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(edge.testing, "Egde")
