"""What Akida 1.0 computes over time steps, and the refusal of an export that rests on it."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import main
from spear_deploy.errors import UnsupportedError
from spear_deploy.network import IF, LIF, Dense, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.simulator import simulate
from tests.support.framework_environments import NotInstalled, install

SCRIPT = Path(__file__).parents[1] / "support" / "akida_semantics.py"
PAGE = Path(__file__).parents[2] / "docs" / "vendor_agreement.md"
NETWORKS, STEPS = 20, 60


def random_network(seed: int) -> tuple[list[Any], list[Any], Any]:
    """Return weights of 4 bits and whole thresholds of two dense layers, and input spikes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 24, 3)
    weights = [rng.integers(-7, 8, (b, a)) for a, b in itertools.pairwise(sizes)]
    return weights, [rng.integers(0, 8, len(w)) for w in weights], rng.random((STEPS, sizes[0])) < 0.4


def build(weights: list[Any], thresholds: list[Any], *, memory: bool) -> SNNGraph:
    """Return the network: with a membrane that integrates, or with one that forgets all in a step."""
    layers = []
    for k, (weight, threshold) in enumerate(zip(weights, thresholds, strict=True)):
        level = threshold.astype(np.float32)
        neuron = IF(v_threshold=level) if memory else LIF(tau_s=1e-3, v_threshold=level)
        layers.append(Layer(name=f"l{k}", synapse=Dense(weight=weight.astype(np.float32)), neuron=neuron))
    return chain(layers, input_shape=(weights[0].shape[1],), dt_s=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_akida_equals_networks_without_memory_and_no_others(tmp_path: Path) -> None:
    """The figures of the page: spikes that differ, without and with a membrane between the steps."""
    try:
        python, environment = install("akida", tmp_path)
    except NotInstalled as reason:
        pytest.skip(f"akida: {reason}")
    jobs: dict[str, Any] = {}
    networks = [random_network(seed) for seed in range(NETWORKS)]
    for n, (weights, thresholds, x) in enumerate(networks):
        jobs[f"{n}.x"] = x
        jobs |= {f"{n}.weights{k}": value for k, value in enumerate(weights)}
        jobs |= {f"{n}.thresholds{k}": value for k, value in enumerate(thresholds)}
    np.savez(tmp_path / "jobs.npz", **jobs)
    command = [python, SCRIPT, tmp_path / "jobs.npz", tmp_path / "spikes.npz"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    differ = {True: 0, False: 0}
    total = 0
    with np.load(tmp_path / "spikes.npz") as theirs:
        for n, (weights, thresholds, x) in enumerate(networks):
            for memory in differ:
                ours = simulate(build(weights, thresholds, memory=memory), x[:, None]).output[:, 0].astype(bool)
                differ[memory] += int((ours != theirs[f"{n}.spikes"]).sum())
            total += int(theirs[f"{n}.spikes"].sum())
    assert differ[False] == 0 and total > 1000
    page = PAGE.read_text(encoding="utf-8")
    assert f"of {total:,} spikes {differ[False]} differ" in page and f"IF neurons, {differ[True]:,} differ" in page


def test_an_export_to_akida_is_refused_with_the_reason(tmp_path: Path) -> None:
    message = r"export to akida: .*Akida's neurons keep no potential from one time step to the next, .* IF and LIF .*do; "
    with pytest.raises(UnsupportedError, match=message):
        api.export("digits", tmp_path / "net.fbz", to="akida", force=True)
    result = CliRunner().invoke(main, ["export", "digits", "--to", "akida", "--out", str(tmp_path / "net.fbz")])
    assert result.exit_code == 1 and "keep no potential" in result.output
    assert not list(tmp_path.iterdir())
