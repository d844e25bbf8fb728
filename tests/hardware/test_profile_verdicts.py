"""Verdicts of shipped profiles at and one beyond each published limit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, SumPool
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain

IAF = IF(reset="subtract")
XYLO = CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01, reset="subtract")
ANALOG = CubaLIF(tau_mem_s=0.02, tau_syn_s=0.01)


def mlp(*widths: int, neuron: Any = IAF, last: Any = None, sign: float = -1.0) -> SNNGraph:
    """A dense network of weights 1, the first of each layer `sign`."""
    layers = []
    for n, (i, o) in enumerate(pairwise(widths), start=1):
        weight = np.ones((o, i), np.float32)
        weight[0, 0] = sign
        layers.append(
            Layer(name=f"fc{n}", synapse=Dense(weight=weight), neuron=last if last and n == len(widths) - 1 else neuron)
        )
    return chain(layers, input_shape=(widths[0],))


def recurrent(inputs: int, hidden: int, outputs: int, fan_out: int) -> SNNGraph:
    """A hidden layer of which each neuron reaches the `fan_out` next ones."""
    loop = np.zeros((hidden, hidden), np.float32)
    for n in range(hidden):
        loop[(n + 1 + np.arange(fan_out)) % hidden, n] = 1
    layers = (
        Layer(name="into", synapse=Dense(weight=np.ones((hidden, inputs), np.float32))),
        Layer(name="back", synapse=Dense(weight=loop)),
        Layer(name="hidden", neuron=XYLO),
        Layer(name="out", synapse=Dense(weight=np.ones((outputs, hidden), np.float32)), neuron=XYLO),
    )
    edges = (
        Edge(source=INPUT, target="into"),
        Edge(source="into", target="hidden"),
        Edge(source="hidden", target="back", delay=1),
        Edge(source="back", target="hidden"),
        Edge(source="hidden", target="out"),
    )
    return SNNGraph(layers=layers, edges=edges, input_shape=(inputs,))


def cnn(
    channels: int, kernel: int = 3, stride: int = 1, padding: int = 1, size: int = 16, pool: int = 0, inputs: int = 2,
    neuron: Any = IAF,
) -> SNNGraph:  # fmt: skip
    """A convolution, a pool if one is asked for, and a dense layer of ten."""
    synapse = Conv2d(weight=np.ones((channels, inputs, kernel, kernel), np.float32), stride=(stride,) * 2, padding=(padding,) * 2)
    layers, shape = [Layer(name="conv", synapse=synapse, neuron=neuron)], synapse.output_shape((inputs, size, size))
    if pool:
        layers.append(Layer(name="pool", synapse=SumPool(kernel_size=(pool, pool))))
        shape = (shape[0], shape[1] // pool, shape[2] // pool)
    layers += [
        Layer(name="flat", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=np.ones((10, int(np.prod(shape))), np.float32)), neuron=neuron),
    ]
    return chain(layers, input_shape=(inputs, size, size))


def over(report: BudgetReport) -> set[str]:
    return {row.resource for row in report.rows if row.status == "over"}


FITS = {
    "16 inputs, all hidden and output neurons": ("xylo_audio2", mlp(16, 1000, 8, neuron=XYLO)),
    "a readout that integrates": ("xylo_audio2", mlp(16, 60, 8, neuron=XYLO, last=CubaLI(tau_mem_s=0.02, tau_syn_s=0.01))),
    "a fan-out of 64": ("xylo_audio2", mlp(16, 64, 64, 8, neuron=XYLO)),
    "the whole recurrent memory": ("xylo_audio2", recurrent(16, 1000, 8, 32)),
    "128 neurons at input and output": ("xylo_audio3", mlp(16, 128, 128, 32, neuron=XYLO)),
    "31,232 of 31,744 recurrent words": ("xylo_imu", mlp(16, 128, 60, 128, 124, 16, neuron=XYLO)),
    "a crossbar's axons and neurons": ("truenorth", mlp(256, 256, 10, neuron=IF())),
    "rows for signed weights": ("brainscales2", mlp(128, 200, neuron=ANALOG)),
    "rows for unsigned weights": ("brainscales2", mlp(256, 256, neuron=ANALOG, sign=1.0)),
    "512 circuits": ("brainscales2", mlp(256, 256, 256, neuron=ANALOG, sign=1.0)),
    "a core of Catalyst N1": ("catalyst_n1", mlp(16, 1000, 16, neuron=IF())),
    "ReckOn's three layers": ("reckon", mlp(256, 256, 16, neuron=LIF(tau_s=0.02), last=LI(tau_s=0.02))),
    "256 neurons and rows": ("odin", mlp(100, 156, 100, neuron=IF(), sign=1.0)),
    "nine cores": ("speck2f", mlp(*[20] * 10)),
    "pools of 4": ("speck2f", cnn(8, pool=4)),
    "16 Ki words of kernels and 64 Ki of neurons, then 64 Ki of kernels": ("speck2f", cnn(16, inputs=64, size=64, pool=4)),
    "a chip's cores of 256": ("spinnaker1", mlp(300, 16 * 256, 10, neuron=LIF(tau_s=0.02))),
    "everything": ("generic45nm", mlp(1000, 3000, 3000, neuron=LIF(tau_s=0.02))),
}

TOO_MUCH = {
    "17 inputs": ("xylo_audio2", mlp(17, 60, 8, neuron=XYLO), {"input_channels"}),
    "9 outputs": ("xylo_audio2", mlp(16, 60, 9, neuron=XYLO), {"output_channels", "neurons"}),
    "1001 hidden neurons": ("xylo_audio2", mlp(16, 1001, 8, neuron=XYLO), {"neurons", "input_reaches", "output_reads"}),
    "a fan-out of 65": ("xylo_audio2", mlp(16, 64, 65, 8, neuron=XYLO), {"fan_out"}),
    "a mean fan-out of 33": ("xylo_audio3", recurrent(16, 992, 32, 33), {"fan_out_mean", "input_reaches", "output_reads"}),
    "an input that reaches 129": ("xylo_audio3", mlp(16, 129, 128, 32, neuron=XYLO), {"input_reaches"}),
    "an output that reads 129": ("xylo_imu", mlp(16, 128, 129, 16, neuron=XYLO), {"output_reads"}),
    "a reset to a value": ("xylo_imu", mlp(16, 60, 8, neuron=ANALOG), {"reset"}),
    "a convolution": ("xylo_imu", cnn(2, size=4), {"layer_kind", "neuron_model", "input_channels"}),
    "257 axons": ("truenorth", mlp(257, 256, neuron=IF()), {"axons_in", "fan_in"}),
    "257 targets": ("truenorth", mlp(100, 100, 257, neuron=IF()), {"fan_out"}),
    "129 signed weights": ("brainscales2", mlp(129, 200, neuron=ANALOG), {"fan_in"}),
    "257 unsigned weights": ("brainscales2", mlp(257, 200, neuron=ANALOG, sign=1.0), {"fan_in"}),
    "513 circuits": ("brainscales2", mlp(256, 256, 257, neuron=ANALOG, sign=1.0), {"cores"}),
    "two cores of Catalyst N1": ("catalyst_n1", mlp(16, 1000, 32, neuron=IF()), {"fan_out_remote"}),
    "connections to other cores": ("catalyst_n1", mlp(8, 1100, 9, neuron=IF()), {"fan_out_remote"}),
    "257 recurrent neurons": ("reckon", mlp(256, 257, 16, neuron=LIF(tau_s=0.02), last=LI(tau_s=0.02)), {"neurons"}),
    "17 outputs": ("reckon", mlp(256, 256, 17, neuron=LIF(tau_s=0.02), last=LI(tau_s=0.02)), {"output_channels"}),
    "257 neurons": ("odin", mlp(50, 150, 107, neuron=IF(), sign=1.0), {"cores"}),
    "257 rows": ("odin", mlp(101, 156, 100, neuron=IF(), sign=1.0), {"cores"}),
    "signs that differ": ("odin", mlp(50, 50, neuron=IF()), {"weight_sign"}),
    "ten layers": ("speck2f", mlp(*[20] * 11), {"cores"}),
    "a pool of 3": ("speck2f", cnn(8, size=18, pool=3), {"layer_kind"}),
    "a kernel of 17": ("speck2f", cnn(4, kernel=17, padding=7, size=32), {"layer_kind"}),
    "a stride of 3": ("speck2f", cnn(4, stride=3), {"layer_kind"}),
    "a padding of 8": ("speck2f", cnn(4, padding=8), {"layer_kind"}),
    "an exponential leak": ("speck2f", mlp(20, 20, neuron=LIF(tau_s=0.02)), {"neuron_model"}),
    "17 channels, which count as 32": ("speck2f", cnn(17, inputs=64, size=64), {"neuron_memory"}),
    "more than 17 cores": ("spinnaker1", mlp(300, 17 * 256, 10), {"cores"}),
    "padding that is not 'same'": ("akd1500", cnn(8, padding=0), {"layer_kind"}),
    "a kernel of 2": ("akd1500", cnn(8, kernel=2, padding=0), {"layer_kind"}),
    "a leak": ("akd1000", mlp(20, 20, neuron=LIF(tau_s=0.02)), {"time_constant"}),
    "57,335 inputs": ("akd1500", mlp(57335, 2), {"dense_inputs"}),
}


@pytest.mark.parametrize("case", FITS)
def test_a_network_within_every_limit_fits(case: str) -> None:
    chip, net = FITS[case]
    report = check(net, load_profile(chip))
    assert (over(report), report.unsupported) == (set(), ()), report.headline
    assert {row.resource for row in report.rows if row.status == "unchecked"} <= {"weight_palette"}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_a_network_one_beyond_a_limit_does_not_fit(case: str) -> None:
    chip, net, resources = TOO_MUCH[case]
    report = check(net, load_profile(chip))
    assert report.verdict == "does_not_fit"
    assert resources <= over(report), report.headline


def test_an_unpublished_limit_is_unchecked() -> None:
    """Akida says nothing about resets, SpiNNaker 2 nothing about its synapses; a user who knows says so."""
    net = cnn(8, neuron=LIF(tau_s=1e-3, reset="subtract"))
    akida = load_profile("akd1500")
    assert check(net, akida).verdict == "unchecked"
    assert check(net, override_facts(akida, {"neuron.resets": "[subtract]"})).verdict == "fits"
    assert check(mlp(20, 20), load_profile("spinnaker2")).verdict == "unchecked"
