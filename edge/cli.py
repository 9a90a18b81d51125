"""The command line: `edge-server --config FILE`.  Reads files; everything else is the supervisor's.

Exit status: 0 after an orderly end or a configuration that checks out, 2 for one that does not.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import edge
from edge import preflight
from edge.errors import ConfigError, Problem
from edge.model.parse import Config, parse_config
from edge.model.yaml_lines import MAX_DOCUMENT_BYTES

EXIT_OK: Final = 0
EXIT_CONFIG: Final = 2
MAX_FILE_BYTES: Final = 32 * 1024 * 1024  # 200,000 entries of an access list


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `edge-server`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="edge-server", description="Serves WebAssembly services, each request in a sandbox."
    )
    parser.add_argument("--config", type=Path, required=True, help="the YAML configuration file")
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="read the configuration, print every problem, and exit 0 or 2",
    )
    parser.add_argument("--version", action="version", version=f"edge-server {edge.__version__}")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        if options.check_config:
            for problem in preflight.absent_programs(config):
                # Not an error: the others are served, and a start must not fail for it.
                print(f"{options.config}: {problem}; it would be refused", file=sys.stderr)
            return EXIT_OK
        return _serve(config, options.config)
    except ConfigError as error:
        for problem in error.problems:
            print(f"{options.config}: {problem}", file=sys.stderr)
        return EXIT_CONFIG


def load(path: Path) -> Config:
    """Read, parse and try a configuration file.  Raises ConfigError with every problem."""
    path = path.absolute()
    try:
        text = _read(path, MAX_DOCUMENT_BYTES + 1).decode()
    except OSError as error:
        raise ConfigError(Problem("", f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise ConfigError(Problem("", f"not UTF-8 at byte {error.start}")) from error
    config = parse_config(
        text, source=str(path), base=path.parent, env=os.environ, read_file=_read_named
    )
    preflight.check(config)
    return config


def _serve(config: Config, path: Path) -> int:
    # Not at the top: checking a configuration needs none of it.
    import uvloop

    from edge.supervisor.run import Supervisor

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Supervisor(config, lambda: load(path)).run())


def _read_named(path: Path) -> bytes:
    """What the document names: a secret, a certificate, an access list.  Raises OSError."""
    data = _read(path, MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


if __name__ == "__main__":
    sys.exit(main())
