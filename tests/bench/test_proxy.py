"""The proxy benchmark's own arithmetic, and that what it compares does answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import nginx, proxy
from tests.bench.measure import Sample
from tests.bench.proxy import Both, main, peers, table, verdicts
from tests.support.toolchain import MissingTool


def both(*, cpu: float = 50e-6, p50: float = 100e-6) -> Both:
    busy = Sample(10_000.0, p50=0.001, p99=0.002, cpu_per_request=cpu, client_busy=0.5)
    quiet = Sample(5_000.0, p50=p50, p99=0.001, cpu_per_request=cpu, client_busy=0.1)
    return Both(busy, quiet)


def test_added_latency_is_that_of_one_connection_over_the_bare_front_end() -> None:
    results = {"edge-front": [both(p50=100e-6)], "edge-pass": [both(p50=240e-6)]}
    assert "edge-pass, median latency added to edge-front: 140 µs (target 150: met)" in verdicts(
        results
    )
    results["edge-pass"] = [both(p50=260e-6)]
    assert "160 µs (target 150: NOT met)" in verdicts(results)[0]


def test_processor_time_is_compared_with_the_same_work_of_nginx() -> None:
    results = {"nginx-pass": [both(cpu=14e-6)], "edge-pass": [both(cpu=70e-6)]}
    assert verdicts(results) == ["edge-pass / nginx-pass, CPU: 5.00 (target 2.5: NOT met)"]
    results["edge-pass"] = [both(cpu=28e-6)]
    assert verdicts(results) == ["edge-pass / nginx-pass, CPU: 2.00 (target 2.5: met)"]


def test_both_sides_of_a_comparison_are_of_one_round() -> None:
    # A round in which the machine was slow for everybody says the same as one in which it was not.
    front = [both(p50=100e-6), both(p50=1000e-6), both(p50=101e-6)]
    through = [both(p50=200e-6), both(p50=1100e-6), both(p50=201e-6)]
    assert "100 µs" in verdicts({"edge-front": front, "edge-pass": through})[0]


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert verdicts({"edge-pass": [both()], "edge-kvget": [both()]}) == []


def test_the_table_tells_busy_from_quiet() -> None:
    text = table({"nginx-pass": [both(cpu=14e-6, p50=150e-6)]}, peers(1))
    assert "| nginx-pass | 10,000 (10,000-10,000) | 14.0 (14.0-14.0) | 2.00" in text
    assert "| 150 (150-150) | nginx, proxy, log off |" in text


def test_an_unknown_peer_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--peers", "haproxy"])
    assert "nginx-pass" in capsys.readouterr().err


def test_without_nginx_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with pytest.raises(MissingTool, match="apt-get install nginx-light"):
        nginx.binary()


def test_nginx_keeps_its_connections_and_logs_as_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nginx, "binary", lambda: "nginx")
    nginx.proxy(18102, log=False)(tmp_path, 18101)
    quiet = (tmp_path / "nginx.conf").read_text()
    assert "server 127.0.0.1:18102; keepalive 64;" in quiet
    assert "access_log off;" in quiet
    nginx.proxy(18102, log=True)(tmp_path, 18101)
    assert f"access_log {tmp_path}/access.log;" in (tmp_path / "nginx.conf").read_text()


def test_every_verdict_is_about_a_peer_that_exists() -> None:
    everything = {name: [both()] for name in proxy.peers(1)}
    assert len(verdicts(everything)) == 7
