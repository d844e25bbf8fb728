"""netx joins, recurrence, transposed weights and delays against loops over neurons."""

import numpy as np
import pytest

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.netx.connections import MAX_DERIVED
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.network import Conv2d
from spear_deploy.simulator import simulate
from tests.support.netx_files import NEURON, bare, raw, row
from tests.support.reference import loihi_step, random_spikes

RNG = np.random.default_rng(5)
W0, W1, W2 = (RNG.integers(-20, 40, shape) * 2.0 for shape in ((4, 3), (5, 4), (2, 9)))


def stepwise(drive_of, neurons, steps, *, threshold=10):
    """Run integer neurons without decay of v, current of a step only; `drive_of(t, spikes so far)` gives their input."""
    u, v, spikes = np.zeros(neurons, int), np.zeros(neurons, int), np.zeros((steps, neurons), bool)
    for t in range(steps):
        drive = drive_of(t, spikes)
        for n in range(neurons):
            u[n], v[n], spikes[t, n] = loihi_step(
                int(u[n]), int(v[n]), int(drive[n]), decay_u=4096, decay_v=0, threshold=threshold, bias=0
            )
    return spikes


def test_a_skip_joins_the_spikes_of_two_layers(tmp_path):
    """`concat` puts the entry before first, then the listed ones; the layer behind adds up both."""
    graph = read_netx(
        raw(
            tmp_path / "a.net",
            row("dense", [4], weight=W0),
            row("dense", [5], weight=W1),
            bare("concat", [9], layers=np.array([0])),
            row("dense", [2], weight=W2),
        )
    )
    assert "'layer2' joins 'layer1', 'layer0' along the channels, in this order" in graph.metadata["assumptions"]
    x = random_spikes(graph, 1, steps=30, rate=0.4)
    run = simulate(graph, x, record=("spikes",))
    first = stepwise(lambda t, _: W0 @ x[t, 0], 4, 30)
    second = stepwise(lambda t, _: W1 @ first[t], 5, 30)
    last = stepwise(lambda t, _: W2 @ np.concatenate([second[t], first[t]]), 2, 30)
    for name, truth in (("layer0", first), ("layer1", second), ("layer3", last)):
        assert np.array_equal(run.spikes[name][:, 0], truth) and truth.any(), name


def test_a_join_with_a_later_layer_is_recurrence(tmp_path):
    graph = read_netx(
        raw(
            tmp_path / "a.net",
            row("dense", [4], weight=W0),
            bare("concat", [6], layers=np.array([2])),
            row("dense", [2], weight=W2[:, :6]),
        )
    )
    assert "'layer1' joins 'layer0', 'layer2' one step later" in " ".join(graph.metadata["assumptions"])
    x = random_spikes(graph, 1, steps=30, rate=0.4)
    first = stepwise(lambda t, _: W0 @ x[t, 0], 4, 30)
    before = np.zeros(2)
    last = stepwise(lambda t, own: W2[:, :6] @ np.concatenate([first[t], own[t - 1] if t else before]), 2, 30)
    assert np.array_equal(simulate(graph, x).output[:, 0], last) and last.any()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_pools_and_flattens_behind_a_join(groups, tmp_path):
    """The same network with the join made by hand: one convolution over the stacked channels."""
    rng = np.random.default_rng(groups)
    kernels = rng.integers(-20, 40, (2, 2, 3, 3)) * 2.0, rng.integers(-20, 40, (4, 4 // groups, 3, 3)) * 2.0
    same = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1}
    entries = (
        bare("input", [2, 4, 4]),
        row("conv", [2, 4, 4], weight=kernels[0], **same),
        bare("concat", [4, 4, 4], layers=np.array([0])),
        row("conv", [4, 4, 4], weight=kernels[1], **same | {"groups": groups}),
        bare("concat", [6, 4, 4], layers=np.array([1])),
        row("pool", [6, 2, 2], weight=np.full((1, 1, 2, 2), 4.0), **same | {"stride": 2, "padding": 0}),
        bare("concat", [8, 2, 2], layers=np.array([5, 7])),
        bare("flatten", [32, 1, 1]),
        row("dense", [3], weight=rng.integers(-20, 40, (3, 32)) * 2.0),
    )
    with pytest.raises(GraphError, match="layer 6: joins .*which differ in more than their channels"):
        read_netx(raw(tmp_path / "a.net", *entries))
    entries = (*entries[:6], bare("flatten", [24, 1, 1]), row("dense", [3], weight=rng.integers(-20, 40, (3, 24)) * 2.0))
    graph = read_netx(raw(tmp_path / "a.net", *entries))
    x = random_spikes(graph, 3, steps=12, rate=0.4)
    run = simulate(graph, x, record=("spikes",))
    stacked = np.concatenate([run.spikes["layer1"], x], axis=2).reshape(12, -1, 4, 4, 4)
    alone = read_netx(raw(tmp_path / "b.net", bare("input", [4, 4, 4]), entries[3]))
    assert np.array_equal(simulate(alone, stacked).output, run.spikes["layer3"]) and run.spikes["layer3"].any()
    stacked = np.concatenate([run.spikes["layer3"], run.spikes["layer1"]], axis=2)
    alone = read_netx(raw(tmp_path / "c.net", bare("input", [6, 4, 4]), *entries[5:]))
    assert np.array_equal(simulate(alone, stacked).output, run.output) and run.output.any()


def test_a_join_is_flattened_channel_by_channel(tmp_path):
    """The listed entry is a flatten itself, which its own reader would have left to the dense layer."""
    graph = read_netx(
        raw(
            tmp_path / "a.net",
            bare("input", [2, 1, 2]),
            bare("flatten", [4, 1, 1]),
            row("dense", [5], weight=W1),
            bare("concat", [9], layers=np.array([1])),
            bare("average", [3]),
        )
    )
    x = random_spikes(graph, 3, steps=12, rate=0.4)
    run = simulate(graph, x, record=("spikes",))
    joined = np.concatenate([run.spikes["layer2"], x.reshape(12, -1, 4)], axis=2)
    assert np.array_equal(run.output, joined.reshape(12, -1, 3, 3).sum(axis=3))


@pytest.mark.parametrize("delay", [2, np.array([0, 3])])
def test_delays_of_a_recurrent_layer_act_on_its_own_spikes_too(delay, tmp_path):
    inputs, own = np.array([[20.0], [0.0]]), np.array([[0.0, 20.0], [20.0, 0.0]])
    graph = read_netx(raw(tmp_path / "a.net", row("dense_rec", [2], weight=inputs, weight_rec=own, delay=delay)))
    x = np.zeros((14, 1, 1), bool)
    x[0] = True
    late = np.broadcast_to(delay, 2)

    def drive(t, spikes):
        past = [spikes[t - 1 - d] if t >= 1 + d else np.zeros(2) for d in late]
        arrived = [x[t - d, 0] if t >= d else np.zeros(1) for d in late]
        return np.array([inputs[n] @ arrived[n] + own[n] @ past[n] for n in range(2)])

    truth = stepwise(drive, 2, 14)
    assert np.array_equal(simulate(graph, x).output[:, 0], truth) and truth.sum() > 3


def test_a_delay_of_a_convolution_acts_and_is_noted_as_ignored_by_lava_dl(tmp_path):
    fields = row("conv", [1, 3, 3], weight=np.full((1, 1, 1, 1), 20.0), stride=1, padding=0, dilation=1, groups=1, delay=2)
    graph = read_netx(raw(tmp_path / "a.net", fields))
    x = np.zeros((4, 1, 1, 3, 3), bool)
    x[0] = True
    assert simulate(graph, x).output[:, 0].all(axis=(1, 2, 3)).tolist() == [False, False, True, False]
    assert "lava-dl's loader passes over the delay of a convolution" in " ".join(graph.metadata["assumptions"])


def test_transposed_weights_are_transposed_back_with_a_note(tmp_path):
    upright = read_netx(raw(tmp_path / "a.net", row("dense", [4], weight=W0)))
    turned = read_netx(raw(tmp_path / "b.net", row("dense", [4], weight=W0.T)))
    assert turned["layer0"].synapse == upright["layer0"].synapse
    assert "weights of shape (3, 4) for 4 neurons are taken as (inputs, outputs), transposed" in " ".join(
        turned.metadata["assumptions"]
    )
    kernel = np.arange(30.0).reshape(1, 2, 3, 5)
    stated = {"inChannels": 2, "outChannels": 1, "kernelSize": np.array([3, 5]), "stride": 1, "padding": 0, "dilation": 1}
    entries = [row("conv", [1, 2, 2], groups=1, weight=k, **stated) for k in _transpose_kernel(kernel)]
    for n, entry in enumerate(entries):
        graph = read_netx(raw(tmp_path / f"{n}.net", bare("input", [2, 4, 6]), entry))
        assert graph["layer1"].synapse == Conv2d(weight=kernel.astype(np.int32)), n
        assert ("taken transposed" in " ".join(graph.metadata["assumptions"])) == (n > 0)


def _transpose_kernel(kernel):
    """Return a kernel as torch, width first, Lava, channels last, and TensorFlow store it."""
    return [kernel.transpose(order) for order in ((0, 1, 2, 3), (0, 1, 3, 2), (0, 3, 2, 1), (0, 2, 3, 1), (2, 3, 1, 0))]


def test_odd_ways_to_store_names_and_sizes_are_taken_with_a_note(tmp_path):
    letters = np.frombuffer(b"dense", np.uint8)
    graph = read_netx(raw(tmp_path / "a.net", {**row("dense", [4], weight=W0 + 1e-6), "type": letters}))
    assert np.array_equal(graph["layer0"].synapse.weight, W0)
    fields = {key: value for key, value in row("dense", [4], weight=W0).items() if key != "neuron/type"}
    graph = read_netx(raw(tmp_path / "b.net", fields))
    assert "'layer0': states no type of neuron: CUBA is taken, the format's default" in graph.metadata["assumptions"]
    entry = row("conv", [4, 3, 2], weight=np.ones((2, 1, 2, 2)))
    graph = read_netx(raw(tmp_path / "c.net", bare("input", [1, 4, 5]), entry))
    assert "'layer1': states no stride, padding, dilation, groups: 1, 0, 1, 1 is taken" in graph.metadata["assumptions"]
    assert "'layer1': states its shape of (2, 3, 4) the other way round" in graph.metadata["assumptions"]


def test_a_pool_with_a_kernel_for_each_channel(tmp_path):
    kernel = np.arange(8.0).reshape(2, 1, 2, 2) * 4
    entries = bare("input", [2, 4, 4]), row("pool", [2, 2, 2], weight=kernel, stride=2, padding=0, dilation=1)
    graph = read_netx(raw(tmp_path / "a.net", *entries))
    assert graph["layer1"].synapse == Conv2d(weight=kernel.astype(np.int32), stride=(2, 2), groups=2)
    graph = read_netx(raw(tmp_path / "b.net", entries[0], row("pool", [2, 2, 2], weight=kernel[:1], padding=0, dilation=1)))
    assert np.array_equal(graph["layer1"].synapse.weight, kernel[[0, 0]])
    assert "'layer1': states no stride: its window is taken" in graph.metadata["assumptions"]


def test_fractions_of_an_input_layer_are_kept_with_a_note(tmp_path):
    entries = row("input", [3], weight=np.array([36.5]), bias=np.array([2.0])), row("dense", [4], weight=W0)
    graph = read_netx(raw(tmp_path / "a.net", *entries))
    assert "'layer0': weight 36.5 of the input are kept; lava-dl cuts fractions off" in graph.metadata["assumptions"]
    run = simulate(graph, np.full((1, 1, 3), 1.0), kind="current", record=("u",))
    assert (run.u["layer0"] == 64 * np.rint(38.5)).all()


def test_refractory_steps_are_kept_with_a_note(tmp_path):
    graph = read_netx(raw(tmp_path / "a.net", row("dense", [4], weight=W0) | {"neuron/refDelay": 3}))
    assert graph["layer0"].neuron.refractory_steps == 2
    assert "'layer0': rests 2 steps after a spike (refDelay); lava-dl's loader passes over it" in graph.metadata["assumptions"]


BAD = [
    (
        (row("dense", [4], weight=W0), bare("concat", [8], layers=[7]), row("dense", [2], weight=W2)),
        GraphError,
        "layer 1: joins entry 7",
    ),
    (
        (row("dense", [4], weight=W0), bare("concat", [8], layers=[1]), row("dense", [2], weight=W2)),
        GraphError,
        "layer 1: joins entry 1",
    ),
    (
        (
            row("dense", [4], weight=W0),
            row("dense", [5], weight=W1),
            bare("concat", [8], layers=[0]),
            row("dense", [2], weight=W2),
        ),
        GraphError,
        "layer 2: states a shape of .8,., it joins .5,., .4,.",
    ),
    (
        (row("dense", [4], weight=W0), row("dense", [5], weight=W1), bare("concat", [9], layers=[0])),
        UnsupportedError,
        "layer 2: a join at the end has no counterpart",
    ),
    (
        (
            row("dense", [4], weight=W0),
            row("dense", [5], weight=W1),
            bare("concat", [9], layers=[0]),
            bare("dense", [2], weight=W2, bias=np.ones(2)),
        ),
        UnsupportedError,
        "layer 3: delays that differ need a neuron, and a bias behind a join too",
    ),
    (
        (row("dense_rec", [4], weight=W0, weight_rec=np.eye(4), delay=np.array([0, 1, 2])),),
        UnsupportedError,
        "layer 0: delays that differ by input, on 3 inputs, leave open what delays its own spikes",
    ),
    (
        (row("dense", [4], weight=W0.reshape(2, 6)),),
        GraphError,
        "layer 0: weights of shape .2, 6. for 4 neurons, expected .outputs",
    ),
    (
        (row("dense", [4], weight=W0), bare("concat", [9], layers=[7])),
        GraphError,
        "layer 1: joins entry 7, there are entries 0..1 besides itself",
    ),
    ((bare("input", [2**30, 4]),), GraphError, "layer 0: 'shape' of .* is 4294967296 neurons, at most 2147483648 are read"),
    (
        (bare("input", [1, 9, 9]), bare("pool", [1, 1, 1], kernelSize=[2**14, 2**9])),
        GraphError,
        f"layer 1: 'layer1': stands for {2**23} weights, at most {MAX_DERIVED} are made from sizes alone",
    ),
    (
        (bare("input", [3, 4, 4]), row("pool", [3, 2, 2], weight=np.ones((2, 1, 2, 2)))),
        GraphError,
        "layer 1: a pool's kernel of shape .2, 1, 2, 2. for 3 channels, expected one, or one a channel",
    ),
    ((row("dense", [4], weight=W0 * 1e9),), GraphError, "layer 0: 'weight' holds .*, expected whole numbers of 32 bits"),
    (
        (row("dense", [4], weight=W0) | {"neuron/refDelay": np.array([1, 2, 1, 1])},),
        UnsupportedError,
        "layer 0: 'refDelay' of 1..2 in one layer has no counterpart; give all neurons one",
    ),
]


@pytest.mark.parametrize(("entries", "error", "match"), BAD)
def test_an_unreadable_entry_raises_with_its_layer(entries, error, match, tmp_path):
    with pytest.raises(error, match=match):
        read_netx(raw(tmp_path / "a.net", *entries))


def test_more_than_1000_layers_raise(tmp_path):
    with pytest.raises(GraphError, match="holds 1001 layers, at most 1000 are read"):
        read_netx(raw(tmp_path / "a.net", *({"type": "flatten"} for _ in range(1001))))


def test_more_than_5000_sets_of_delayed_weights_raise(tmp_path):
    late = row("dense", [62], weight=np.ones((62, 62)), delay=np.arange(62))
    with pytest.raises(GraphError, match="layer 79: 5040 sets of weights, one for each delay, at most 5000 are read"):
        read_netx(raw(tmp_path / "a.net", *[late] * 90))


def test_a_neuron_group_is_needed_for_nothing_but_neurons(tmp_path):
    assert NEURON["neuron/type"] == "CUBA"
    graph = read_netx(raw(tmp_path / "a.net", bare("dense", [4], weight=W0)))
    assert graph["layer0"].neuron is None
