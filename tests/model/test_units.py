"""Durations, sizes and shares: what is read, what is refused, and that writing reads back."""

from __future__ import annotations

import pytest

from edge.model.units import (
    read_bytes,
    read_count,
    read_duration,
    read_share,
    read_switch,
    write_bytes,
    write_duration,
    write_share,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50ms", 0.05),
        ("2s", 2.0),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1ns", 1e-9),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("0", 0.0),
        ("2 s", 2.0),
    ],
)
def test_a_duration_has_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["50", "", "ms", "-1s", "1e3s", "5 minutes", "0x10s", "1MS", "٣s"])
def test_a_duration_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="50ms"):
        read_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128MiB", 128 * 2**20),
        ("69KB", 69_000),
        ("64KiB", 65536),
        ("1GB", 10**9),
        ("1.5KiB", 1536),
        ("512B", 512),
        ("0", 0),
    ],
)
def test_sizes_tell_thousands_from_1024s(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["128", "1M", "1k", "", "-1B", "1.5B", "1TiB", "1" * 40 + "B"])
def test_an_ambiguous_or_broken_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_bytes(text)


def test_a_unit_in_the_wrong_case_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean MiB"):
        read_bytes("128mib")


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 0.0015, 0.05, 0.1, 1.0, 75.0, 3600.0, 1.2345])
def test_a_written_duration_reads_back(seconds: float) -> None:
    assert read_duration(write_duration(seconds)) == seconds


@pytest.mark.parametrize("size", [0, 1, 1000, 1024, 69_000, 8192, 2**20, 2**30, 3 * 2**30 + 1])
def test_a_written_size_reads_back(size: int) -> None:
    assert read_bytes(write_bytes(size)) == size


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.7, 1.0])
def test_a_written_share_reads_back(share: float) -> None:
    assert read_share(write_share(share)) == share


def test_writers_choose_the_shortest_exact_form() -> None:
    assert (write_duration(0.05), write_duration(120.0)) == ("50ms", "120s")
    assert (write_bytes(128 * 2**20), write_bytes(69_000)) == ("128MiB", "69KB")
    assert write_share(0.5) == "50%"


@pytest.mark.parametrize("text", ["0.5", "50", "%", "50 percent"])
def test_a_share_is_a_percentage(text: str) -> None:
    with pytest.raises(ValueError, match="50%"):
        read_share(text)


@pytest.mark.parametrize("text", ["-1", "1.0", "1_000", "0x10", "", "٣"])
def test_a_count_is_plain_digits(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        read_count(text)


@pytest.mark.parametrize("text", ["yes", "on", "True", "1", ""])
def test_a_switch_is_true_or_false_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="neither true nor false"):
        read_switch(text)
