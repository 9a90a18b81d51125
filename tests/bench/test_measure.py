"""The benchmark's own arithmetic: what it reads from wrk and from /proc, and how it tells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.bench import measure
from tests.bench.measure import Sample, Unfit
from tests.bench.run import main, ratios, table

REPORT = """Running 4s test @ http://127.0.0.1:18101/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   456.00us   98.00us   3.10ms   88.00%
    Req/Sec    35.40k     1.20k   37.00k    70.00%
  Latency Distribution
     50%  441.00us
     75%  470.00us
     90%  0.55ms
     99%    1.02ms
  141211 requests in 4.00s, 18.99MB read
Requests/sec:  35299.12
Transfer/sec:      4.75MB
"""


def sample(rate: float) -> Sample:
    return Sample(rate, p50=0.0004, p99=0.001, cpu_per_request=28e-6, client_busy=0.3)


def test_a_report_of_wrk_is_read_with_its_units() -> None:
    report = measure.parse_wrk(REPORT)
    assert (report.requests, report.requests_per_second) == (141211, 35299.12)
    assert report.p50 == pytest.approx(441e-6)
    assert report.p99 == pytest.approx(1.02e-3)


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 7", "  Socket errors: connect 0, read 3, write 0"]
)
def test_a_run_with_errors_is_not_believed(line: str) -> None:
    with pytest.raises(Unfit, match=line.split()[0]):
        measure.parse_wrk(REPORT + line + "\n")


def test_a_cut_off_report_is_not_believed() -> None:
    with pytest.raises(Unfit, match="Requests/sec"):
        measure.parse_wrk(REPORT.partition("Requests/sec")[0])


def test_processor_time_includes_children_that_ended() -> None:
    before = measure.tree_seconds(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert measure.tree_seconds(os.getpid()) - before >= 0.18


def test_ratios_say_whether_a_target_was_met() -> None:
    results = {"edge-off": [sample(30_000.0)], "wasmtime-tuned": [sample(15_000.0)]}
    assert ratios(results) == ["edge-off / wasmtime-tuned: 2.00 (target 1.5: met)"]
    results["wasmtime-tuned"] = [sample(25_000.0), sample(1.0), sample(26_000.0)]
    assert "1.20 (target 1.5: NOT met)" in ratios(results)[0]


def test_the_table_shows_median_and_both_ends() -> None:
    text = table({"workerd": [sample(1_000.0), sample(3_000.0), sample(2_500.0)]})
    assert "| workerd | 2,500 (1,000-3,000) |" in text


def test_an_unknown_peer_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--peers", "nginx"])
    assert "edge-off" in capsys.readouterr().err
