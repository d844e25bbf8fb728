"""Networks and traces of other tools: equal, or different by a convention.

They run through the calls of a user. A convention that makes a difference is named and measured.
"""

import gzip
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.lava.run import Job, run_jobs
from spear_deploy.network import IF, LOIHI_UNIT, AvgPool, Conv2d, Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.simulator.spike_comparison import compare_arrays
from spear_deploy.simulator.synapse_math import apply_synapse
from tests.conftest import shared
from tests.support import framework_environments
from tests.support.framework_environments import NotInstalled, install

ON_LAVA = [pytest.param(name, marks=pytest.mark.lava) for name in ("lava", "lava-fast")]


# -------------------------------------------------------------------------------------------------------- netx and Lava


@pytest.mark.parametrize("backend", ["fast", *ON_LAVA])
def test_a_dense_layer_of_lava_dl_spike_for_spike(backend):
    """`out[:, t + 1]` is the spike of step t: the recording was made behind a synapse, which takes a step."""
    folder = shared("conformance/netx_dense")
    weight, x, recorded = (np.load(folder / f"{name}.npz")["a"] for name in ("weight", "in", "out"))
    layer = Layer(name="layer0", synapse=Dense(weight=weight), neuron=LoihiLIF(decay_u=4096, decay_v=415, v_threshold=6))
    run = api.simulate(chain([layer], input_shape=(200,)), x.T[:, None], backend=backend)
    result = compare_arrays("layer0", run.spikes["layer0"], recorded.T[:, None] > 0)
    assert result.mismatches > 0 and result.shift == 1
    assert run.spikes["layer0"].sum() == 1826


def test_the_oxford_file_holds_the_recorded_dense_layer():
    folder = shared("conformance/netx_dense")
    weight, x = (np.load(folder / f"{name}.npz")["a"] for name in ("weight", "in"))
    oxford = read_netx(shared("conformance/netx_oxford/network.net"))
    layer = Layer(name="own", synapse=Dense(weight=weight), neuron=LoihiLIF(decay_u=4096, decay_v=415, v_threshold=6))
    own = chain([layer, oxford["layer1"]], input_shape=(200,))
    result = api.compare(own, oxford, x.T[:500, None], states=("v", "u"))
    assert [(layer.layer, layer.what) for layer in result[:3]] == [("own", "spikes"), ("own", "v"), ("own", "u")]
    assert sum(layer.mismatches for layer in result) == 0


@pytest.mark.parametrize("backend", ["fast", *ON_LAVA])
def test_a_convolutional_network_of_lava_dl_layer_by_layer(backend):
    """The input layer is driven by its recorded bias alone; the stored outputs have no delay between layers."""
    folder = shared("conformance/netx_tinynet")
    bias = np.load(folder / "input_bias.npy").transpose(2, 1, 0)
    current = np.broadcast_to((bias - 34) / 36, (15, 1, 3, 16, 16))  # the layer makes round(36 · current + 34) of it
    run = api.simulate(read_netx(folder / "tiny.net"), current, kind="current", backend=backend)
    for layer, name in (("layer0", "input"), ("layer1", "layer1"), ("layer2", "output")):
        truth = np.moveaxis(np.load(folder / f"{name}.npy")[0], -1, 0)[1:16]
        assert truth.any() and compare_arrays(layer, run.spikes[layer][:, 0], truth > 0).mismatches == 0


LAVA_CONV = [0, 1, 3, 4, 5]
DIGIT_BITS = 6


def convolution_of_lava(case):
    """Lava's images are (W, H, C) and its kernels flipped: all pairs are reversed, `weights[:, ::-1, ::-1]`."""
    given = np.load(shared(f"conformance/lava_conv/gt_conv_paris_{case}.npz"))
    conv = Conv2d(
        weight=given["weights"][:, ::-1, ::-1].transpose(0, 3, 2, 1),
        groups=int(given["groups"]),
        **{name: tuple(int(n) for n in given[name][::-1]) for name in ("stride", "padding", "dilation")},
    )
    return conv, given["input"].transpose(2, 1, 0), given["out_gt"].transpose(2, 1, 0)


@pytest.mark.parametrize("case", LAVA_CONV)
def test_convolutions_with_stride_padding_dilation_and_groups(case):
    conv, x, recorded = convolution_of_lava(case)
    floating = replace(conv, weight=conv.weight.astype(np.float64))
    np.testing.assert_allclose(apply_synapse(floating, x[None])[0], recorded, rtol=1e-5, atol=1e-3)


@pytest.mark.lava
def test_lavas_convolution_gives_the_recorded_values():
    """The recorded input is no whole numbers: its digits to base 64 are, and go through as samples that are added up again."""
    cases, jobs = [convolution_of_lava(case) for case in LAVA_CONV], []
    for conv, x, _ in cases:
        digits = [np.floor(np.ldexp(x, DIGIT_BITS * (i + 1))) % (1 << DIGIT_BITS) for i in range(4)]
        readout = LoihiLIF(decay_u=4096, decay_v=4096, v_threshold=None)
        graph = chain([Layer(name="conv", synapse=conv, neuron=readout)], input_shape=x.shape)
        jobs.append(Job(graph=graph, x=np.array(digits, np.int64)[None]))
    for (_, _, recorded), run in zip(cases, run_jobs(jobs), strict=True):
        assert run.overflows == {}
        result = sum(np.ldexp(run.output[0, i] / LOIHI_UNIT, -DIGIT_BITS * (i + 1)) for i in range(4))
        np.testing.assert_allclose(result, recorded, rtol=1e-5, atol=1e-3)


# --------------------------------------------------------------------------------- one LIF neuron on eleven platforms

PLATFORMS = {
    # platform: (spikes that differ from ours step against step, shift under which none does)
    "exact": (0, None),  # the solution of the differential equation
    "norse": (0, None),  # forward Euler, as here
    "nengo": (0, None),  # exact leak over a step, input as if constant in it
    "snntorch": (0, None),  # forward Euler in units of 1 / 0.04
    "spinnaker2": (0, None),  # the same on the chip
    "lava_cpu_float": (8, 1),  # a synapse takes a step: all four spikes come one step later
    "lava_cpu_fixed": (8, 1),
    "lava_loihi_fixed": (8, 1),
    "spyx": (8, 1),  # spikes by the potential of the step before
    "rockpool": (4, None),  # exact leak with Euler's input: two spikes come ten steps early
    "sinabs": (4, None),
}
LEAK = float(np.exp(-0.04))
"""exp(−dt / tau); Euler's is 1 − dt / tau = 0.96."""


def trace(platform):
    return np.loadtxt(shared(f"conformance/nir_lif/lif_{platform}.csv"), delimiter=",").T


def ours():
    return api.simulate(
        shared("conformance/nir_lif/lif_norse.nir"), trace("norse")[0][:, None, None], kind="current", record=("spikes", "v")
    )


def test_every_recorded_platform_is_in_the_table():
    files = shared("conformance/nir_lif").glob("lif_*.csv")
    assert {path.stem.removeprefix("lif_") for path in files} == set(PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_neuron_on_eleven_platforms(platform):
    given, _, spikes = trace(platform)
    assert np.array_equal(given != 0, trace("norse")[0] != 0)  # all got the same input spikes
    result = compare_arrays("lif", ours().spikes["1"].reshape(-1, 1), (spikes != 0).reshape(-1, 1))
    assert (result.mismatches, result.shift) == PLATFORMS[platform]


def test_the_potential_is_that_of_norse_and_of_lava_a_step_later():
    v = ours().v["1"].ravel()
    np.testing.assert_allclose(v, trace("norse")[1], rtol=0, atol=1e-7)
    np.testing.assert_allclose(v[:-1], trace("lava_cpu_float")[1][1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("platform", "leak", "gain", "threshold", "atol"),
    [
        ("norse", 0.96, 0.04, 0.1, 1e-7),
        ("nengo", LEAK, (1 - LEAK) * 10, 1.0, 1e-6),  # its threshold is 1
        ("snntorch", 0.96, 1.0, 2.5, 1e-5),
        ("spinnaker2", 0.96, 1.0, 2.5, 1e-3),  # fixed point
        ("rockpool", LEAK, 0.04, 0.1, 0.006),  # spikes are equal; its record of v is of another moment
        ("sinabs", LEAK, 0.04, 0.1, 0.006),
    ],
)
def test_each_convention_is_one_recurrence(platform, leak, gain, threshold, atol):
    """v ← leak · v + gain · input; spike where v > threshold, then v ← 0."""
    _, recorded, spikes = trace(platform)
    v, potentials, result = 0.0, [], []
    for step, x in enumerate(trace("norse")[0]):
        v = leak * v + gain * x
        if v > threshold:
            result.append(step)
            v = 0.0
        potentials.append(v)
    assert np.flatnonzero(spikes).tolist() == result
    np.testing.assert_allclose(potentials, recorded, rtol=0, atol=atol)


def test_spyx_spikes_a_step_later_and_subtracts():
    given, recorded, spikes = trace("spyx")
    v, potentials, result = 0.0, [], []
    for step, x in enumerate(given):
        spiked = v > 0.1
        v = 0.96 * v + 0.04 * x - (0.1 if spiked else 0.0)
        result += [step] if spiked else []
        potentials.append(v)
    assert np.flatnonzero(spikes).tolist() == result == [461, 511, 711, 761]
    np.testing.assert_allclose(potentials, recorded, rtol=0, atol=1e-6)


def test_norse_gives_the_recorded_values():
    x = trace("norse")[0][:, None, None]
    run = api.simulate(shared("conformance/nir_lif/lif_norse.nir"), x, kind="current", backend="norse")
    assert np.flatnonzero(run.spikes["1"]).tolist() == [460, 510, 710, 760]


# ----------------------------------------------------------------------------- a trained network, as spikes, on two chips


def relu_network():
    """The CNN of sinabs' tests as integrate-and-fire neurons: each rate stands for an activation, scaled to at most one."""
    stored = np.load(shared("conformance/sinabs_mnist_cnn/mnist_params.npz"))
    images, labels = digits_of_mnist()
    activation, layers, scale = images.astype(np.float64), [], 1.0
    for index in (0, 3, 6, 10, 12):
        weight = stored[f"w{index}_weight"].astype(np.float64)
        synapse = Conv2d(weight=weight) if weight.ndim == 4 else Dense(weight=weight)
        activation = np.maximum(apply_synapse(synapse, activation), 0)
        largest = float(np.quantile(activation, 0.999))
        scaled = replace(synapse, weight=weight * (scale / largest))
        layers.append(Layer(name=f"w{index}", synapse=scaled, neuron=IF(reset="subtract")))
        scale = largest
        if weight.ndim == 4:
            pool = AvgPool(kernel_size=(2, 2))
            layers.append(Layer(name=f"pool{index}", synapse=pool))
            activation = apply_synapse(pool, activation)
    return chain(layers, input_shape=(1, 28, 28)), images, labels, activation.argmax(axis=1)


def digits_of_mnist(n=60):
    folder = shared("data/mnist")
    images = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 1, 28, 28)[:n] / 255, labels[:n].astype(np.int64)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["speck2f", "loihi2"])
def test_a_converted_network_keeps_its_accuracy_and_reports_the_cost_of_each_step(chip):
    graph, images, labels, decided = relu_network()
    assert np.mean(decided == labels) > 0.97
    x = np.broadcast_to(images, (32, *images.shape))
    result = api.explain(graph, chip, x, kind="current", labels=labels)
    accuracy = [cost.accuracy for cost in result.costs]
    assert accuracy[0] > 0.93 and accuracy[-1] > 0.93
    assert sum(cost.accuracy_change for cost in result.costs) == pytest.approx(accuracy[-1] - accuracy[0])


# ------------------------------------------------------------------------------------------------ NeuroBench and snnTorch


def test_synops_are_neurobenchs_effective_acs_to_the_digit():
    """The baseline for speech commands, of snnTorch's Leaky: a reset one step late is no synapse, so it counts nothing."""
    folder = shared("conformance/neurobench_gsc")
    graph = api.load(folder / "network.nir", source="snntorch")
    synops = api.count(graph, np.load(folder / "input.npz")["spikes"])
    assert synops.synops_total == 6413038.1875 and synops.macs_first_layer == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_synops_of_random_snntorch_networks_are_neurobenchs(tmp_path):
    """60 networks of Leaky and Synaptic neurons, counted by NeuroBench's own harness on the same input."""
    try:
        python, environment = install("neurobench", tmp_path)
    except NotInstalled as error:
        pytest.skip(f"NeuroBench cannot be installed here: {error}")
    command = [python, Path(framework_environments.__file__).with_name("neurobench_networks.py"), tmp_path, "60"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment, check=False)
    assert not completed.returncode, completed.stderr
    results = json.loads(completed.stdout.splitlines()[-1])
    for n, theirs in enumerate(results):
        graph = api.load(tmp_path / f"{n}.nir", source="snntorch")
        ours = api.count(graph, np.load(tmp_path / f"{n}.npz")["spikes"])
        assert (ours.synops_total, ours.macs_first_layer) == (theirs["Effective_ACs"], theirs["Effective_MACs"]), n
    assert len(results) == 60 and all(theirs["Effective_ACs"] for theirs in results)
