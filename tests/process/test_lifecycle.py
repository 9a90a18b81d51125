"""The real server: starting, draining, reloading, refusing.  Each test has its own process."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import DEADLINE, ROOT, Server, config_of, server, service

pytestmark = pytest.mark.process

GUESTS = ROOT / "tests" / "guests" / "wat"
HELLO = GUESTS / "hello.wat"
ECHO = GUESTS / "echo.wat"
HELLO_ONLY = config_of(service("hello", HELLO))


def command(*arguments: str, memory: int = 0) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    return subprocess.run(
        [sys.executable, "-m", "edge", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False, preexec_fn=limit,
    )  # fmt: skip


def test_a_good_configuration_checks_out_with_0(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text(HELLO_ONLY)
    done = command("--config", str(tmp_path / "edge.yaml"), "--check-config")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "var").exists()


def test_a_bad_configuration_is_2_with_every_problem_and_nothing_started(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text(
        'server: {listen: "127.0.0.1:70000", wrokers: 2}\nservices: {a: {module: x.wasm}}\n'
    )
    for arguments in (["--check-config"], []):
        done = command("--config", str(tmp_path / "edge.yaml"), *arguments)
        assert done.returncode == 2
        assert "70000" in done.stderr
        assert "wrokers" in done.stderr
        assert "routes" in done.stderr
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("geolocation: {file: geo.json}", "geolocation: "),
        ("device_detection: {file: geo.json}", "device_detection: "),
    ],
)
def test_a_data_file_that_cannot_be_read_is_2_before_anything_starts(
    tmp_path: Path, more: str, said: str
) -> None:
    (tmp_path / "geo.json").write_text('{"192.0.2.1": ')
    (tmp_path / "edge.yaml").write_text(f"{HELLO_ONLY}\n{more}\n")
    for arguments in (["--check-config"], []):
        done = command("--config", str(tmp_path / "edge.yaml"), *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "geo.json" in done.stderr
    assert not (tmp_path / "var").exists()


def test_a_data_file_that_turns_bad_ends_no_worker(tmp_path: Path) -> None:
    data = tmp_path / "geo.json"
    data.write_text('{"192.0.2.1": {"city": "Paris"}}')
    more = "geolocation: {file: geo.json}\n"
    with server(tmp_path, config_of(service("hello", HELLO), more=more)) as running:
        data.write_text('{"192.0.2.1": ')
        running.reload()
        assert "geo.json" in running.wait_for("not reloaded: ")["message"]
        os.kill(running.worker_pids()[0], signal.SIGKILL)
        line = running.wait_for("until a reload")
        assert (line["level"], "geo.json" in line["message"]) == ("error", True)
        running.wait_for("worker ready")
        assert running.get()[0] == 200


def test_a_program_that_is_not_there_is_told_by_the_check_and_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text(config_of(service("gone", tmp_path / "gone.wasm")))
    done = command("--config", str(tmp_path / "edge.yaml"), "--check-config")
    assert done.returncode == 0
    assert "services.gone.module" in done.stderr
    assert "gone.wasm: No such file or directory" in done.stderr


def test_two_servers_do_not_share_a_state_directory(tmp_path: Path) -> None:
    config = config_of(service("hello", HELLO))
    with server(tmp_path, config):
        done = command("--config", str(tmp_path / "edge.yaml"))
        assert done.returncode == 2
        assert "state_dir" in done.stderr
        assert "in use by another server" in done.stderr


def test_a_configuration_that_cannot_be_read_is_2(tmp_path: Path) -> None:
    done = command("--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "No such file" in done.stderr


def test_the_version_is_told() -> None:
    assert command("--version").stdout.startswith("edge-server ")


def test_an_address_in_use_is_2_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "edge.yaml").write_text(HELLO_ONLY.replace("127.0.0.1:0", address, 1))
        done = command("--config", str(tmp_path / "edge.yaml"))
    assert done.returncode == 2
    assert f"cannot listen on {address}" in done.stderr


def test_a_pool_that_cannot_fit_is_2_in_words(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text(HELLO_ONLY)
    done = command("--config", str(tmp_path / "edge.yaml"), memory=16 << 30)
    assert done.returncode == 2
    assert "pool.slots" in done.stderr


def test_a_refused_service_leaves_the_others_serving(tmp_path: Path) -> None:
    (tmp_path / "bad.wat").write_text("(module (memory i64 1))")
    (tmp_path / "big.wat").write_text(
        "(module "
        + "(global (mut v128) (v128.const i64x2 0 0))" * 70_000
        + '(memory (export "memory") 1) (func (export "_start")))'
    )
    services = (
        service("hello", HELLO)
        + service("bad", tmp_path / "bad.wat", host="bad.test")
        + service("big", tmp_path / "big.wat", host="big.test")
        + service("gone", tmp_path / "gone.wasm", host="gone.test")
    )
    with server(tmp_path, config_of(services)) as running:
        assert running.get()[:2] == (200, b"hello from wasm\n")
        for host in ("bad.test", "big.test", "gone.test"):
            status, _, headers = running.get(host=host)
            assert (status, headers["x-edge-outcome"]) == (503, "unavailable")
        states = {s["name"]: (s["state"], s["reason"]) for s in running.status()["services"]}
        assert states["hello"][0] == "loaded"
        assert "memory64" in states["bad"][1]
        assert states["big"][0] == "refused"  # too large an instance: only a worker can know
        assert "No such file" in states["gone"][1]
        assert running.admin("/readyz")[0] == 200
        assert running.stop() == 0


def test_a_warm_cache_starts_without_compiling(tmp_path: Path) -> None:
    for compiled in (1, 0):
        with server(tmp_path, HELLO_ONLY) as running:
            assert running.get()[0] == 200
            assert running.metric("edge_compile_seconds_count") == compiled
            told = [line["fields"] for line in running.lines if line.get("message") == "compiling"]
            assert [facts["service"] for facts in told] == ["hello"] * compiled
            running.stop()
    # Not ours any more: compiled again, and never mapped.
    (code,) = (tmp_path / "var" / "artifacts").glob("*.code")
    code.write_bytes(b"\x7fELF" + code.read_bytes()[4:-1] + b"!")
    with server(tmp_path, HELLO_ONLY) as running:
        assert running.get()[0] == 200
        assert running.metric("edge_compile_seconds_count") == 1


def test_sigterm_lets_a_request_in_flight_finish(tmp_path: Path) -> None:
    with server(tmp_path, config_of(service("echo", ECHO))) as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
        with client, client.makefile("rb") as answers:
            client.sendall(b"POST / HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 10\r\n\r\nfirst")
            assert b"200" in answers.readline()
            running.process.send_signal(signal.SIGTERM)
            running.wait_for("draining")
            client.sendall(b"-last")
            assert b"first" in (body := answers.read())
            assert b"-last" in body
        assert running.finish() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    config = config_of(service("echo", ECHO)).replace("drain: 5s", "drain: 1h")
    with server(tmp_path, config) as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
        with client, client.makefile("rb") as answers:
            client.sendall(b"POST / HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 10\r\n\r\nfirst")
            assert b"200" in answers.readline()
            running.process.send_signal(signal.SIGINT)
            running.wait_for("draining")
            assert running.admin("/readyz") == (503, b"draining\n")
            running.process.send_signal(signal.SIGINT)
            assert running.finish() == 0


def test_sighup_takes_a_new_configuration_without_dropping_a_connection(tmp_path: Path) -> None:
    with server(tmp_path, HELLO_ONLY) as running:
        client = socket.create_connection(("127.0.0.1", running.port), timeout=DEADLINE)
        with client, client.makefile("rb") as answers:
            for host, word in (("edge.test", b"200"), ("new.test", b"200"), ("edge.test", b"421")):
                client.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
                assert word in answers.readline()
                size = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.startswith(b"content-length"):
                        size = int(line.split()[1])
                answers.read(size)
                if host == "edge.test" and word == b"200":
                    running.reload(config_of(service("other", HELLO, host="new.test")))
                    running.wait_for("reloaded")
        assert running.metric("edge_config_reloads_total", result="ok") == 2


def test_an_invalid_configuration_changes_nothing(tmp_path: Path) -> None:
    with server(tmp_path, HELLO_ONLY) as running:
        running.reload("server: {listen: 1}\nservices: 7\n")
        running.wait_for("not reloaded: ")
        (tmp_path / "bad.wat").write_text("(module")
        running.reload(
            config_of(service("hello", HELLO, host="moved.test"))
            + service("bad", tmp_path / "bad.wat", host="bad.test")
        )
        assert "not valid WebAssembly text" in running.wait_for("not reloaded: bad")["message"]
        running.reload(config_of(service("hello", HELLO, more="limits: {memory: 8GiB}")))
        assert "limits.memory" in running.wait_for("not reloaded: line")["message"]
        assert running.get()[0] == 200
        assert running.get(host="moved.test")[0] == 421
        assert running.metric("edge_config_reloads_total", result="failed") == 3
        assert running.status()["generation"] == 1


def test_a_reload_that_no_worker_can_serve_changes_nothing(tmp_path: Path) -> None:
    big = tmp_path / "big.wat"
    big.write_text(
        "(module "
        + "(global (mut v128) (v128.const i64x2 0 0))" * 70_000
        + '(memory (export "memory") 1) (func (export "_start")))'
    )
    with server(tmp_path, config_of(service("hello", HELLO), workers=2), workers=2) as running:
        pids = running.worker_pids()
        running.reload(config_of(service("hello", big), workers=2))
        assert "hello" in running.wait_for("not reloaded: ")["message"]
        assert running.get()[0] == 200
        assert running.worker_pids() == pids
        assert {w["generation"] for w in running.status()["workers"]} == {1}


def test_unchanged_services_keep_their_version_and_changed_ones_get_the_next(
    tmp_path: Path,
) -> None:
    both = service("hello", HELLO) + service("echo", ECHO, host="echo.test")
    with server(tmp_path, config_of(both)) as running:
        running.reload(config_of(both.replace("echo.test", "echo2.test")))
        running.wait_for("reloaded")
        versions = {s["name"]: s["version"] for s in running.status()["services"]}
        assert versions == {"hello": 1, "echo": 2}
        assert running.get(host="echo2.test", body=b"hi")[1] == b"hi"


def test_sigterm_during_the_first_compilation_ends_it(tmp_path: Path) -> None:
    nested = b"(block " * 4000 + b")" * 4000
    slow = b'(module (memory (export "memory") 1) (func (export "_start"))'
    (tmp_path / "slow.wat").write_bytes(slow + (b"(func " + nested + b")") * 200 + b")")
    starting = Server(tmp_path, config_of(service("slow", tmp_path / "slow.wat")))
    try:
        starting.wait_for("starting")
        assert starting.stop() == 0
    finally:
        starting.close()


def test_the_metrics_address_answers_scrapers_and_probes_only(tmp_path: Path) -> None:
    more = 'metrics: {listen: "127.0.0.1:0"}\n'
    with server(tmp_path, config_of(service("hello", HELLO), more=more)) as running:
        first = next(line for line in running.lines if line["message"] == "starting")
        running.admin_port = int(first["fields"]["metrics"].rpartition(":")[2])
        assert running.admin("/readyz")[0] == 200
        assert b"edge_build_info" in running.admin("/metrics")[1]
        assert running.admin("/v1/status")[0] == 404


def test_no_worker_sees_the_environment_or_the_key(tmp_path: Path) -> None:
    with server(tmp_path, HELLO_ONLY, env={"EDGE_ADMIN_TOKEN": "sesame"}) as running:
        key = (tmp_path / "var" / "artifacts.key").read_bytes()
        (pid,) = running.worker_pids()
        proc = Path("/proc") / str(pid)
        assert b"sesame" not in (proc / "environ").read_bytes()
        assert key.hex().encode() not in (proc / "cmdline").read_bytes()
        names = {os.readlink(fd) for fd in (proc / "fd").iterdir()}
        assert not any(name.endswith("artifacts.key") for name in names)
