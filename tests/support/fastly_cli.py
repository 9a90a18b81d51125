"""The unmodified Fastly CLI, run against a server of ours as its users do: by its environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import toolchain

SECONDS = 120.0  # for one command; it does nothing for long but wait for the server


@dataclass(frozen=True, slots=True)
class Ran:
    """One command that is over."""

    code: int
    output: str  # both streams


@dataclass(frozen=True, slots=True)
class FastlyCli:
    """Commands in one working directory, which is also the home directory."""

    folder: Path
    endpoint: str  # http://127.0.0.1:PORT
    token: str

    def __call__(
        self, *words: str, env: Mapping[str, str] | None = None, given: bytes = b""
    ) -> str:
        """What a command prints; it must succeed."""
        ran = self.run(*words, env=env, given=given)
        assert ran.code == 0, f"fastly {' '.join(words)}: exit code {ran.code}\n{ran.output}"
        return ran.output

    def json(self, *words: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self(*words, "--json", "--quiet"))

    def refused(self, *words: str) -> str:
        """What a command prints that must fail."""
        ran = self.run(*words)
        assert ran.code != 0, f"fastly {' '.join(words)} succeeded:\n{ran.output}"
        return ran.output

    def run(self, *words: str, env: Mapping[str, str] | None = None, given: bytes = b"") -> Ran:
        """One command, whatever comes of it; `given` is what it reads from its standard input."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTLY_")}
        done = subprocess.run(
            [toolchain.fastly_cli(), *words],
            cwd=self.folder,
            env={
                **kept,
                "HOME": str(self.folder),
                "XDG_CONFIG_HOME": str(self.folder / ".config"),
                "FASTLY_API_ENDPOINT": self.endpoint,
                "FASTLY_ACCOUNT_ENDPOINT": self.endpoint,
                "FASTLY_API_TOKEN": self.token,
                # It would look for tools on the network, and annotate the module with them.
                "FASTLY_WASM_METADATA_DISABLE": "true",
                **(env or {}),
            },
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(errors="replace"))


def write_project(
    folder: Path, module: bytes, *, name: str = "hello", setup: str = "", build: str = "true"
) -> None:
    """A project whose build leaves `module` in `bin/main.wasm`; `setup` is more of its manifest."""
    (folder / "built.wasm").write_bytes(module)
    (folder / "fastly.toml").write_text(
        f'manifest_version = 3\nname = "{name}"\ndescription = "a test"\n'
        'authors = ["somebody@example.com"]\nlanguage = "other"\n'
        f'[scripts]\nbuild = "{build} && mkdir -p bin && cp built.wasm bin/main.wasm"\n{setup}'
    )
