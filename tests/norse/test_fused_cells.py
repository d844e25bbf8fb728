"""All steps of a layer in compiled loops: outputs and gradients equal to Norse's cells to the bit."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from spear_deploy.network import IF, LI, LIF, CubaLI, CubaLIF
from spear_deploy.norse import fused_cells
from spear_deploy.norse.cells import NeuronModule
from spear_deploy.norse.network import to_norse
from tests.norse.test_inference import SHAPE, SPIKING, drawn, image_network

compiled_cells = pytest.importorskip("spear_deploy.norse.compiled_cells", reason="numba is not installed")
BY_NORSE, COMPILED = None, compiled_cells
CELLS = [
    *((kind, reset, 0) for kind in SPIKING for reset in ("value", "subtract", "none")),
    (LIF, "subtract", 1), (CubaLIF, "subtract", 1), (LI, "value", 0), (CubaLI, "value", 0),
]  # fmt: skip


def learn(module, drive, gradient, loops, monkeypatch):
    monkeypatch.setattr(fused_cells, "_loaded", [loops])
    x = drive.clone().requires_grad_()
    emitted = module(x)
    emitted.backward(gradient)
    return type(emitted.grad_fn).__name__, emitted.detach(), x.grad


@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("levels", [False, True], ids=["zero", "levels"])
@pytest.mark.parametrize("per_neuron", [False, True], ids=["one", "each"])
@pytest.mark.parametrize(("kind", "reset", "delay"), CELLS)
def test_outputs_and_gradients_are_norses_to_the_bit(kind, reset, delay, per_neuron, levels, alpha, monkeypatch):
    rng = np.random.default_rng(len(kind.__name__) + 2 * per_neuron + 4 * levels)
    neuron = drawn(kind, rng, per_neuron, levels, reset)
    neuron = replace(neuron, reset_delay=1) if delay else neuron
    module = NeuronModule(neuron, SHAPE, 1e-3, surrogate="triangle", alpha=alpha)
    drive = torch.from_numpy(rng.normal(1.0, 3.0, (12, 7, *SHAPE)).astype(np.float32))
    drive[:, :, 0] = (drive[:, :, 0] > 1).float()  # spikes too: potentials that meet a threshold
    gradient = torch.from_numpy(rng.normal(size=drive.shape).astype(np.float32))
    before = drive.clone()
    _, expected, norses = learn(module, drive, gradient, BY_NORSE, monkeypatch)
    operation, emitted, ours = learn(module, drive, gradient, COMPILED, monkeypatch)
    assert operation == "_AllStepsBackward" and torch.equal(drive, before)
    assert torch.equal(emitted, expected) and torch.equal(ours, norses)
    assert float(ours.abs().max()) > 0 and (kind not in SPIKING or 0 < float(emitted.mean()) < 1)
    with torch.no_grad():
        assert torch.equal(module(drive), expected)


def test_more_neurons_than_a_tile_and_one_step(monkeypatch):
    rng = np.random.default_rng(0)
    shape = (2 * compiled_cells.TILE + 3,)
    level = rng.uniform(0.1, 0.5, shape).astype(np.float32)
    module = NeuronModule(LIF(tau_s=3e-3, v_threshold=level), shape, 1e-3, surrogate="triangle", alpha=1.0)
    for steps in (1, 5):
        drive = torch.from_numpy(rng.normal(0.5, 1, (steps, 3, *shape)).astype(np.float32))
        gradient = torch.ones_like(drive)
        found = [learn(module, drive, gradient, loops, monkeypatch)[1:] for loops in (BY_NORSE, COMPILED)]
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_network_learns_the_same_weights(monkeypatch):
    x, y = torch.rand(5, 9, 2, 8, 8), torch.arange(9) % 6
    learnt = []
    for loops in (BY_NORSE, COMPILED):
        monkeypatch.setattr(fused_cells, "_loaded", [loops])
        network = to_norse(image_network())
        optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(network(x).mean((0, 3, 4)), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        learnt.append([p.detach().clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*learnt, strict=True))
    start = torch.tensor(image_network()["conv"].synapse.weight)
    assert not torch.equal(learnt[0][0], start)


@pytest.mark.parametrize("case", ["surrogate", "float64", "bound", "no numba"])
def test_norses_steps_remain_where_the_loops_cannot(case, monkeypatch):
    monkeypatch.setattr(fused_cells, "_loaded", [None if case == "no numba" else COMPILED])
    neuron = IF(v_threshold=0.5, v_min=-0.2) if case == "bound" else IF(v_threshold=0.5)
    surrogate = "super" if case == "surrogate" else "triangle"
    module = NeuronModule(neuron, (3,), 1e-3, surrogate=surrogate, alpha=1.0)
    drive = torch.rand(4, 2, 3, dtype=torch.float64 if case == "float64" else torch.float32, requires_grad=True)
    emitted = module(drive)
    assert type(emitted.grad_fn).__name__ == "StackBackward0" and 0 < float(emitted.detach().mean()) < 1


def test_the_loops_are_loaded_once_a_process_has_learnt_enough(monkeypatch):
    monkeypatch.setattr(fused_cells, "_loaded", [])
    monkeypatch.setattr(fused_cells, "_done", 0)
    module = NeuronModule(IF(v_threshold=0.5), (3,), 1e-3, surrogate="triangle", alpha=1.0)
    drive = torch.rand(4, 2, 3)
    monkeypatch.setattr(fused_cells, "PAYS_BACK", 2 * drive.numel())
    module(drive)  # learns nothing
    names = [type(module(drive.clone().requires_grad_()).grad_fn).__name__ for _ in range(3)]
    assert names == ["StackBackward0", "_AllStepsBackward", "_AllStepsBackward"]


def test_without_numba_norses_steps_do_it(monkeypatch):
    monkeypatch.setattr(fused_cells, "_loaded", [])
    monkeypatch.setattr(fused_cells, "_done", 0)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "spear_deploy.norse.compiled_cells")
    monkeypatch.delattr("spear_deploy.norse.compiled_cells", raising=False)
    monkeypatch.delitem(sys.modules, "spear_deploy.simulator.compiled_kernels")
    monkeypatch.delattr("spear_deploy.simulator.compiled_kernels", raising=False)
    assert fused_cells._load_loops(fused_cells.PAYS_BACK - 1) is None and fused_cells._loaded == []
    assert fused_cells._load_loops(1) is None and fused_cells._loaded == [None]
