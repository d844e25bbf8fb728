"""Neurons without a gradient: equal to Norse's steps to the bit."""

import numpy as np
import pytest
import torch

from spear_deploy.network import IF, LI, LIF, BatchNorm, Conv2d, CubaLI, CubaLIF, Layer
from spear_deploy.network.graph import chain
from spear_deploy.norse import fused_cells
from spear_deploy.norse.cells import NeuronModule
from spear_deploy.norse.layers import share_equal_steps
from spear_deploy.norse.network import to_norse

SHAPE = (5, 4, 3)
SPIKING = (IF, LIF, CubaLIF)


def drawn(kind, rng, per_neuron, levels, reset):
    def draw(low, high):
        return rng.uniform(low, high, SHAPE if per_neuron else ()).astype(np.float32)

    parts = {"r": draw(0.5, 2)}
    if kind in (LIF, LI):
        parts["tau_s"] = draw(2e-3, 2e-2)
    if kind in (CubaLIF, CubaLI):
        parts |= {"tau_mem_s": draw(2e-3, 2e-2), "tau_syn_s": draw(2e-3, 2e-2), "w_in": draw(0.5, 5)}
    if kind in SPIKING:
        parts |= {"v_threshold": draw(0.1, 0.5), "reset": reset} | ({"v_reset": draw(-0.2, 0.05)} if levels else {})
    if levels and kind is not IF:
        parts["v_leak"] = draw(-0.1, 0.1)
    return kind(**parts)


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("levels", [False, True], ids=["zero", "levels"])
@pytest.mark.parametrize("per_neuron", [False, True], ids=["one", "each"])
@pytest.mark.parametrize("kind", [*SPIKING, LI, CubaLI])
def test_every_neuron_is_that_of_norse_to_the_bit(kind, per_neuron, levels, reset, monkeypatch):
    monkeypatch.setattr(fused_cells, "_loaded", [None])
    rng = np.random.default_rng(len(kind.__name__) + 2 * per_neuron + 4 * levels)
    neuron = drawn(kind, rng, per_neuron, levels, reset)
    module = NeuronModule(neuron, SHAPE, 1e-3, surrogate="triangle", alpha=1.0)
    drive = torch.from_numpy(rng.normal(1.0, 3.0, (12, 7, *SHAPE)).astype(np.float32))
    drive[:, :, 0] = (drive[:, :, 0] > 1).float()  # spikes too: sums that are exact, potentials that meet a threshold
    before = drive.clone()
    by_norse = module(drive)
    with torch.no_grad():
        in_place = module(drive)
    assert torch.equal(in_place, by_norse) and torch.equal(drive, before)
    assert 0 < float(in_place.count_nonzero()) < in_place.numel() if kind in SPIKING else in_place.std() > 0
    with torch.no_grad():
        assert torch.equal(module(drive), by_norse)  # nothing was left behind


def image_network(seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(6, 2, 3, 3)).astype(np.float32)
    norm = BatchNorm(weight=np.ones(6), bias=np.zeros(6), mean=np.zeros(6), var=np.ones(6))
    return chain([Layer(name="conv", synapse=Conv2d(weight=weight), norm=norm, neuron=LIF(tau_s=2e-3))], input_shape=(2, 8, 8))


@pytest.mark.parametrize("training", [False, True])
def test_an_image_is_weighed_once_where_that_changes_nothing(training):
    network = to_norse(image_network()).train(training)
    image = torch.randn(1, 9, 2, 8, 8)
    weighed = []
    network.module_of("conv").synapse.register_forward_hook(lambda _, x, y: weighed.append(len(y)))
    with torch.no_grad():
        network.module_of("conv").norm.momentum = 0.0
        once = network(image.repeat(5, 1, 1, 1, 1))
    often = network(image.repeat(5, 1, 1, 1, 1))
    assert weighed == [45 if training else 9, 45]  # the variance of a batch counts its samples
    assert torch.equal(once, often) and 0 < once.mean() < 1


def test_what_changes_is_not_steady():
    x = torch.randn(4, 2, 3)
    assert share_equal_steps(x) is x and share_equal_steps(x[:1]).stride(0) != 0
    assert share_equal_steps(x[:1].repeat(4, 1, 1)).stride(0) == 0
    nearly = x[:1].repeat(4, 1, 1)
    nearly[3, 1, 2] += 1e-3
    assert share_equal_steps(nearly) is nearly
    assert share_equal_steps(torch.full((3, 2), torch.nan)).stride(0) != 0  # a NaN equals nothing
