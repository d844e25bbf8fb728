"""Integers and counts, read a second time by software of others; the table of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spear_deploy.network import Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain
from spear_deploy.simulator import simulate
from tests.benchmarks.second_readings import MADE, PAGE, READERS, Reading, read_all, run_in_snn_mlir, write_table
from tests.support.framework_environments import NotInstalled


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", READERS)
def test_a_second_reading_agrees_on_every_spike_and_stands_on_the_page(name: str, tmp_path: Path) -> None:
    try:
        rows = READERS[name](tmp_path)
    except NotInstalled as reason:
        pytest.skip(f"{name}: {reason}")
    page = PAGE.read_text(encoding="utf-8")
    for row in rows:
        assert row.differ == 0, row
        assert row.networks >= 20 and row.spikes > 1000, row
        assert f"| {row.by.split()[0]}" not in page or f"| {row.what} | {row.by.split()[0]}" in page, row


@pytest.mark.slow
def test_a_leak_below_zero_rounds_down_in_snn_mlir_and_towards_zero_on_loihi(tmp_path: Path) -> None:
    """Why the networks of the Loihi family have either a leak or weights below 0: one unit of 1/4096, for as long as v < 0."""
    weight = np.array([[-2, 0], [126, 0]])
    neuron = LoihiLIF(decay_u=4096, decay_v=2048, v_threshold=None)
    graph = chain([Layer(name="v", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(2,))
    x = np.zeros((12, 1, 2), bool)
    x[0, 0, 0] = True
    try:
        (there,) = run_in_snn_mlir([(graph, x)], tmp_path)[0]
    except NotInstalled as reason:
        pytest.skip(f"snn-mlir: {reason}")
    ours = simulate(graph, x, record=("v",)).v["v"][:, 0, 0]
    assert ours.tolist() == [-128, -64, -32, -16, -8, -4, -2, -1, 0, 0, 0, 0]
    assert there[:, 0].tolist() == [-128, -64, -32, -16, -8, -4, -2, -1, -1, -1, -1, -1]


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SPEAR_TEST_MLIR", raising=False)
    rows, skipped = read_all(["snn-mlir"])
    assert rows == []
    (text,) = skipped
    assert text.startswith("snn-mlir: not installed (no snn-opt, mlir-opt, mlir-translate, llc, gcc on the path; SPEAR_TEST_MLIR")


def test_the_table_replaces_that_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MADE[0]}\nold\n{MADE[1]}\nafter\n", encoding="utf-8")
    write_table([Reading("a", "b", 3, 12345, 0)], page)
    text = page.read_text(encoding="utf-8")
    assert "| a | b | 3 | 12,345 spikes | 0 |" in text and "old" not in text
    assert text.startswith("before\n") and text.endswith("after\n")
    write_table([Reading("a", "b", 3, 12345, 1), Reading("c", "d", 2, 5, 0)], page, keep=True)
    write_table([Reading("a", "b", 4, 12345, 0)], page, keep=True)
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    assert rows == ["| a | b | 4 | 12,345 spikes | 0 |", "| c | d | 2 | 5 spikes | 0 |"]


def test_software_that_cannot_be_installed_is_skipped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package index and with an empty cache: no row, and a sentence for each."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SPEAR_TEST_ENVIRONMENTS", raising=False)
    rows, skipped = read_all(["neurobench", "nengo-loihi"])
    assert rows == []
    assert [text.split(":")[0] for text in skipped] == ["neurobench", "nengo-loihi"]
    assert all("not installed" in text for text in skipped)
