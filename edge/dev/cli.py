"""The command line of `edge-dev`: that of Viceroy, which `fastly compute serve` knows how to call.

Exit status: 2 for a command line that cannot be read, 1 when there is nothing to serve; a server
ends by the signal that ended it, a program that was run gives its own status, and 134 for a trap.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import edge
from edge.model import names
from edge.model.service import UnknownImports
from edge.telemetry.log_sink import LogSink

EXIT_USAGE: Final = 2
DEFAULT_ADDRESS: Final = "127.0.0.1:7676"
DEFAULT_PROFILES: Final = "guest-profiles"
# Hostcalls run on the guests' stacks, as in a worker (`edge.worker`).
RECURSION_LIMIT: Final = 200
_COMMANDS: Final = ("serve", "run", "adapt")
# Viceroy's that mean nothing here, and why.
_LEFT_OUT: Final = {
    "debug": "there is no debugger here",
    "adapt": "core modules are served as they are",
    "local_pushpin_proxy_port": "there is no Pushpin here; handing off to it answers UNSUPPORTED",
    "experimental_modules": "there are no experimental modules here",
    "wasm_gc": "the engine does not take garbage-collected modules",
    "wasm_cm_gc": "components are not served",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """`--profile=guest[,DIR[,MICROSECONDS]]`."""

    directory: Path
    interval: float  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `edge-dev`; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, program = _split(given)
    parser = _parser()
    options = parser.parse_intermixed_args(own)
    words: list[str] = options.words
    command = words.pop(0) if words and words[0] in _COMMANDS else "serve"
    if command == "adapt":
        parser.error("components are not served, so there is nothing to adapt a module to")
    if not words:
        parser.error("name the program: edge-dev app.wasm -C fastly.toml")
    if command == "serve" and (len(words) > 1 or program):
        parser.error(f"one program is served, not also {(words[1:] + program)[0]}")
    # The other modules are loaded late: a command line that is wrong needs none of them.
    module = Path(words[0])
    if not module.is_file():
        parser.error(f"{module}: no such file")
    faulthandler.enable()  # before any engine: see `edge.worker`
    if command == "run":
        return _run(module, [str(module), *words[1:], *program], options)
    return _serve(module, options)


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those behind `--`."""
    if "--" not in given:
        return given, []
    at = given.index("--")
    return given[:at], given[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-dev",
        usage="edge-dev [serve] WASM [-C fastly.toml] [options]\n"
        "       edge-dev run WASM [options] [-- ARGUMENT...]",
        description="Serves a Fastly Compute program on this machine, or runs it once.",
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="WASM", help=argparse.SUPPRESS)
    add("-C", "--config", type=Path, metavar="FILE", help="the fastly.toml")
    add(
        "--addr",
        type=_address,
        default=_address(DEFAULT_ADDRESS),
        metavar="IP:PORT",
        help=f"where to listen; {DEFAULT_ADDRESS} if not given, port 0 is the kernel's choice",
    )
    add("-v", dest="verbosity", action="count", default=0, help="say more; -vv traces hostcalls")
    for stream in ("stdout", "stderr"):
        add(
            f"--log-{stream}",
            action="store_true",
            help=f"show the program's {stream} like a log endpoint, with its name",
        )
    add(
        "--unknown-import-behavior",
        choices=("link-error", "trap"),
        default="link-error",
        help="refuse programs that import what there is not, or trap when they call it",
    )
    add(
        "--profile",
        type=_profile,
        metavar="guest[,DIR[,US]]",
        help=f"write a profile of each request for profiler.firefox.com; to {DEFAULT_PROFILES}",
    )
    add("--wasm-exceptions", action="store_true", help="accept WebAssembly exception handling")
    add("--no-reload", action="store_true", help="do not look for changed files")
    add("--version", action="version", version=f"edge-dev {edge.__version__}")
    add("--debug", action="store_true", help=argparse.SUPPRESS)
    add("--adapt", action="store_true", help=argparse.SUPPRESS)
    add("--wasm-gc", action="store_true", help=argparse.SUPPRESS)
    add("--wasm-cm-gc", action="store_true", help=argparse.SUPPRESS)
    add("--local-pushpin-proxy-port", metavar="PORT", help=argparse.SUPPRESS)
    add("--experimental_modules", action="append", metavar="NAME", help=argparse.SUPPRESS)
    return parser


def _address(text: str) -> object:
    try:
        return names.read_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _profile(text: str) -> Profile:
    kind, _, rest = text.partition(",")
    directory, _, interval = rest.partition(",")
    if kind != "guest":
        raise argparse.ArgumentTypeError(f"{kind!r}: only guest profiles can be made")
    try:
        microseconds = float(interval or 50)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{interval!r} is not a number of us") from None
    if not 10 <= microseconds <= 100_000:
        raise argparse.ArgumentTypeError(f"{interval} us is not between 10 and 100000")
    return Profile(Path(directory or DEFAULT_PROFILES), microseconds / 1e6)


def _serve(module: Path, options: argparse.Namespace) -> int:
    import uvloop

    from edge.dev.console import Console
    from edge.dev.manifest import read_manifest
    from edge.dev.serve import Serve, serve
    from edge.local.compiled import default_state_directory

    sink = LogSink(1)
    sink.start()
    prefixed = {name for name in ("stdout", "stderr") if getattr(options, f"log_{name}")}
    console = Console(
        sink,
        colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
        verbosity=options.verbosity,
        prefixed=frozenset(prefixed),
    )
    for name, reason in _LEFT_OUT.items():
        if getattr(options, name):
            console.warn(f"--{name.replace('_', '-')} does nothing: {reason}")
    behaviour = UnknownImports.REFUSE
    if options.unknown_import_behavior == "trap":
        behaviour = UnknownImports.TRAP
    profile: Profile | None = options.profile
    order = Serve(
        read=lambda: read_manifest(
            options.config,
            module,
            os.environ,
            unknown_imports=behaviour,
            exceptions=options.wasm_exceptions,
        ),
        source="" if options.config is None else str(options.config),
        listen=options.addr,
        state_dir=default_state_directory(),
        trace=options.verbosity > 1,
        profile_dir=None if profile is None else profile.directory,
        profile_interval=0.0 if profile is None else profile.interval,
        reload=not options.no_reload,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop()
        _settle()
        status = runner.run(serve(order, console))
    sink.close()
    if status < 0:  # so that whoever started us sees why we ended
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _run(module: Path, arguments: list[str], options: argparse.Namespace) -> int:
    import uvloop

    from edge.dev.run import run_program
    from edge.local.compiled import default_state_directory

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop()
        _settle()
        status = runner.run(
            run_program(module, arguments, options.config, default_state_directory())
        )
    sys.stdout.flush()
    return status


def _settle() -> None:
    """Hostile recursion ends early, in an exception."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
