"""netx: lava-dl's files spike as lava-dl says, and ours are what lava-dl loads."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError
from spear_deploy.graph import Edge, SNNGraph, chain
from spear_deploy.interchange.netx_file import read_netx, write_netx
from spear_deploy.interchange.pool_folding import through_pool
from spear_deploy.layers import (
    AvgPool,
    Conv1d,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    SumPool,
)
from spear_deploy.linear import apply
from spear_deploy.simulator import simulate
from tests.conftest import shared
from tests.reference import random_spikes


def loihi(**more) -> LoihiLIF:
    return LoihiLIF(**{"decay_u": 4096, "decay_v": 400, "v_threshold": 60, **more})


def net(*layers, shape, **more) -> SNNGraph:
    return chain(layers, input_shape=shape, **more)


def dense(name, weight, **neuron) -> Layer:
    return Layer(name=name, synapse=Dense(weight=np.asarray(weight)), neuron=loihi(**neuron))


def same_runs(a: SNNGraph, b: SNNGraph, *, steps: int = 12, seed: int = 0) -> None:
    """Check that two networks spike alike in every layer that both have, and give the same output."""
    x = random_spikes(a, seed, steps=steps)
    one = simulate(a, x, record=("spikes",))
    two = simulate(b, x.reshape(*x.shape[:2], *b.input_shape), record=("spikes",))
    assert np.array_equal(one.output, two.output)
    for name, spikes in one.spikes.items():
        assert np.array_equal(spikes.ravel(), two.spikes[name].ravel()), name


# ------------------------------------------------------------------------------------------------- lava-dl's networks


def test_tinynet_spikes_as_lava_dl_says():
    """The stored arrays are (1, C, H, W, T) and start one step earlier; the input layer is driven by a bias (W, H, C) alone."""
    graph = read_netx(shared("conformance/netx_tinynet/tiny.net"))
    assert str(graph).splitlines()[1:] == [
        "layer0: input -> Scale + LoihiLIF -> 3 x 16 x 16",
        "layer1: layer0 -> Conv2d + LoihiLIF -> 24 x 6 x 6",
        "layer2: layer1 -> Conv2d + LoihiLIF -> 36 x 1 x 1",
    ]
    bias = np.load(shared("conformance/netx_tinynet/input_bias.npy")).transpose(2, 1, 0)
    current = np.broadcast_to((bias - 34) / 36, (15, 1, 3, 16, 16))  # the layer makes round(36 · current + 34) of it
    run = simulate(graph, current, kind="current", record=("spikes",))
    for layer, name in (("layer0", "input"), ("layer1", "layer1"), ("layer2", "output")):
        truth = np.moveaxis(np.load(shared(f"conformance/netx_tinynet/{name}.npy"))[0], -1, 0)[1:16]
        assert np.array_equal(run.spikes[layer][:, 0], truth), layer
        assert truth.any()


def test_kernels_are_not_transposed():
    stored = np.load(shared("conformance/netx_tinynet/layer1_kernel.npy"))  # Lava's order: (O, kW, kH, I), flipped
    graph = read_netx(shared("conformance/netx_tinynet/tiny.net"))
    weight = graph["layer1"].synapse.weight
    assert np.array_equal(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1), stored)
    assert not np.array_equal(weight, weight.transpose(0, 1, 3, 2))


def test_oxford_layer_is_the_dense_reference():
    graph = read_netx(shared("conformance/netx_oxford/network.net"))
    spikes = np.load(shared("conformance/netx_dense/in.npz"))["a"].T[:, None]
    truth = np.load(shared("conformance/netx_dense/out.npz"))["a"].T
    run = simulate(graph, spikes, record=("spikes",))
    assert np.array_equal(run.spikes["layer0"][:-1, 0], truth[1:])  # out[:, t + 1] is the spike of step t
    assert run.spikes["layer0"].sum() == truth.sum() == 1826
    assert graph["layer0"].neuron == LoihiLIF(decay_u=4096, decay_v=415, v_threshold=6)


def test_pilotnet_has_ten_layers_of_the_right_shapes():
    graph = read_netx(shared("conformance/netx_pilotnet_lif/network.net"))
    assert [graph.shape_of(layer.name) for layer in graph.layers] == [
        (3, 66, 200),
        (24, 32, 99),
        (36, 15, 49),
        (48, 7, 24),
        (64, 4, 22),
        (64, 2, 20),
        (100,),
        (50,),
        (10,),
        (1,),
    ]
    assert [layer.name for layer in graph.layers] == [f"layer{n}" for n in (0, 1, 2, 3, 4, 5, 7, 8, 9, 10)]
    assert graph["layer10"].neuron.v_threshold == 131071
    assert graph["layer1"].neuron.bias_exponent == 6  # netx means 64 · bias


# ------------------------------------------------------------------------------------------------------ small files


def raw(path, *layers, **simulation):
    """Write layers as plain HDF5."""
    with h5py.File(path, "w") as file:
        for n, layer in enumerate(layers):
            for key, value in layer.items():
                file[f"layer/{n}/{key}"] = value
        for key, value in simulation.items():
            file[f"simulation/{key}"] = value
    return path


NEURON = {"neuron/type": "CUBA", "neuron/iDecay": 4096, "neuron/vDecay": 0, "neuron/vThMant": 10}


def row(kind, shape, **more):
    return {"type": np.array([kind.encode()]), "shape": np.array(shape), **NEURON, **more}


def bare(kind, shape, **more):
    return {"type": kind, "shape": np.array(shape), **more}


def test_delays_per_neuron_per_input_and_per_synapse(tmp_path):
    """One input spike reaches each neuron after its delay."""
    weight = np.full((3, 2), 20.0)
    x = np.zeros((9, 1, 2), bool)
    x[0, 0, 0] = True
    for delay, expected in (
        (2, [2, 2, 2]),
        (np.array([0.0, 3.0, 5.0], np.float32), [0, 3, 5]),
        (np.array([4, 1]), [4, 4, 4]),
        (np.array([[1, 0], [6, 0], [2, 0]]), [1, 6, 2]),
    ):
        graph = read_netx(raw(tmp_path / "a.net", row("dense", [3], weight=weight, delay=delay)))
        spikes = simulate(graph, x).output[:, 0]
        assert [int(np.flatnonzero(spikes[:, n])[0]) for n in range(3)] == expected
        assert spikes.sum() == 3


def test_recurrent_weights_act_one_step_later(tmp_path):
    fields = row("dense_rec", [2], weight=np.array([[20.0], [0.0]]), weight_rec=np.array([[0.0, 20.0], [20.0, 0.0]]))
    graph = read_netx(raw(tmp_path / "a.net", fields))
    x = np.zeros((6, 1, 1), bool)
    x[0] = True
    assert simulate(graph, x).output[:, 0].astype(int).tolist() == [[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]


def test_pool_flatten_average_and_layers_without_neurons(tmp_path):
    graph = read_netx(
        raw(
            tmp_path / "a.net",
            bare("input", [2, 4, 4]),
            row("pool", [2, 2, 2], weight=np.full((1, 1, 2, 2, 1), 6.0), stride=2, padding=0, dilation=1),
            bare("flatten", [8, 1, 1]),
            bare("dense", [4, 1, 1], weight=np.arange(32.0), bias=np.ones(4)),
            bare("average", [2, 1, 1]),
            Ts=1,
        )
    )
    assert graph.metadata["assumptions"] == ["'layer4' sums 2 neurons into one instead of averaging them"]
    x = random_spikes(graph, 0, rate=0.8)
    run = simulate(graph, x, record=("spikes",))
    count = x.reshape(6, 2, 2, 2, 2, 2, 2).sum(axis=(4, 6))
    v = np.zeros((2, 2, 2, 2))
    for t in range(6):
        v = v + 6 * count[t]
        spikes = v > 10
        assert np.array_equal(run.spikes["layer1"][t], spikes)
        v[spikes] = 0
        values = spikes.reshape(2, 8) @ np.arange(32.0).reshape(4, 8).T + 1
        assert np.array_equal(run.output[t], values.reshape(2, 2, 2).sum(axis=2))


def test_a_pool_without_weights_sums(tmp_path):
    graph = read_netx(raw(tmp_path / "a.net", bare("input", [1, 4, 4]), row("pool", [1, 2, 2], kernelSize=[2, 2])))
    assert graph["layer1"].synapse == Conv2d(weight=np.ones((1, 1, 2, 2), np.int32), stride=(2, 2))


def test_scalars_names_and_decays_per_channel(tmp_path):
    conv = row("conv", [2, 3, 3], weight=np.ones((2, 1, 2, 2, 1)), bias=np.float32(3), stride=1, padding=0, dilation=1, groups=1)
    conv |= {"neuron/vDecay": np.array([1, 2]), "neuron/refDelay": 3, "name": "first", "neuron/vThMant": 131072}
    graph = read_netx(raw(tmp_path / "a.net", conv, Ts=2))
    neuron = graph["first"].neuron
    assert neuron.decay_v.shape == (2, 1, 1) and neuron.refractory_steps == 2 and neuron.bias == 192
    assert neuron.v_threshold is None  # 64 · 2^17 is out of reach: the membrane is the output
    assert graph.input_shape == (1, 4, 4) and graph.dt_s == 2e-3  # the shape in front follows from the convolution
    wide = row("dense", [1, 1, 1], weight=np.ones(5), bias=8192.0)
    neuron = read_netx(raw(tmp_path / "b.net", wide))["layer0"].neuron
    assert neuron.bias == 64 * 8192 and neuron.bias_exponent == 7  # 13 bits hold it with one shift more
    kept = read_netx(raw(tmp_path / "c.net", row("dense", [1], weight=np.ones(5), bias=8191.0)))
    assert kept["layer0"].neuron.bias == 64 * 8191 and "a bias of 8191 is beyond the 13 bits" in kept.metadata["assumptions"][0]


def test_bias_per_neuron_lies_as_w_h_c(tmp_path):
    bias = np.arange(24).reshape(4, 3, 2)
    conv = row("conv", [2, 3, 4], weight=np.ones((2, 1, 1, 1)), bias=bias)
    neuron = read_netx(raw(tmp_path / "a.net", bare("input", [1, 3, 4]), conv))["layer1"].neuron
    assert np.array_equal(neuron.bias, 64 * bias.transpose(2, 1, 0))


def test_what_is_kept_and_said(tmp_path):
    fields = row("dense", [2], weight=np.full((2, 2), 300.0), delay=99) | {"neuron/wgtExp": 1}
    graph = read_netx(raw(tmp_path / "a.net", fields))
    assert graph["layer0"].synapse.weight_exponent == 1
    said = " ".join(graph.metadata["assumptions"])
    assert "lava-dl would clip them" in said and "cut to 62" in said and "2^1 times" in said


GEOMETRY = {"stride": 2, "padding": 0, "dilation": 1}
BAD = [
    (row("dense", [2], weight=np.full((2, 2), np.nan)), GraphError, "layer 0: 'weight' holds NaN or infinite values"),
    (row("dense", [2], weight=np.full((2, 2), 0.5)), GraphError, "layer 0: 'weight' holds 0.5, expected whole numbers"),
    (row("dense", [2]), GraphError, "layer 0: 'weight' is missing or holds no numbers"),
    (row("dense", [3], weight=np.ones(4)), GraphError, "layer 0: 4 weights for 3 neurons do not divide"),
    (
        row("dense", [2], weight=np.ones((2, 2)), bias=np.ones(3)),
        GraphError,
        "layer 0: 'bias' of shape .3,. for neurons of shape .2,.",
    ),
    (row("dense", [2], weight=np.ones((2, 2)), delay=-1), GraphError, "layer 0: a delay of -1 steps, expected 0..62"),
    (row("dense", [2], weight=np.ones((2, 2)), delay=np.arange(3)), GraphError, "layer 0: delays of shape .3,. for weights"),
    (row("dense", [2], weight=np.ones((2, 2))) | {"neuron/wgtExp": 9}, GraphError, "layer 0: 'wgtExp' of 9"),
    (row("dense", [2], weight=np.ones((2, 2))) | {"neuron/iDecay": 5000}, GraphError, "layer 0: LoihiLIF.decay_u"),
    (
        row("dense", [2], weight=np.ones((2, 2))) | {"neuron/type": "SDNN"},
        UnsupportedError,
        "layer 0: sigma-delta neurons have no",
    ),
    (row("dense", [2], weight=np.ones((2, 2))) | {"neuron/type": "RF"}, UnsupportedError, "layer 0: 'RF' neurons have no"),
    (
        row("dense", [2], weight=np.ones((2, 2))) | {"neuron/gradedSpike": True},
        UnsupportedError,
        "layer 0: graded spikes between",
    ),
    (
        bare("dense", [2], weight=np.ones((2, 2)), delay=np.array([0, 1])),
        UnsupportedError,
        "layer 0: delays that differ need a neuron",
    ),
    (row("dense", [2]) | {"weight/real": 1.0}, UnsupportedError, "layer 0: complex weights have no counterpart"),
    (
        row("dense_rec", [2], weight=np.ones((2, 2)), weight_rec=np.ones((2, 3))),
        GraphError,
        "layer 0: recurrent weights of shape .2, 3.",
    ),
    (row("conv", [2, 3, 3], weight=np.ones((2, 3))), GraphError, "layer 0: kernel of shape .2, 3., expected"),
    (
        row("conv", [2, 3, 3], weight=np.ones((2, 1, 3, 3)), **GEOMETRY),
        UnsupportedError,
        "layer 0: a strided convolution in front",
    ),
    (
        row("conv", [2, 9, 9], weight=np.ones((2, 1, 3, 3)), stride=[1, 2, 3]),
        GraphError,
        "layer 0: sizes .1, 2, 3., expected one or two",
    ),
    (
        row("conv", [2, 9, 9], weight=np.ones((2, 1, 3, 3)), stride=0),
        GraphError,
        "layer 0: 'stride' is missing or no whole number from 1",
    ),
    (row("pool", [2, 3, 3], kernelSize=2), UnsupportedError, "layer 0: a pool in front tells no input shape"),
    (bare("average", [2]), GraphError, "layer 0: averages 0 neurons into 2"),
    (bare("concat", [2]), UnsupportedError, "layer 0: type 'concat' has no counterpart; known are input, dense"),
    (bare("input", [2, 2]), GraphError, "there is no layer behind the input"),
    ({"shape": [2]}, UnsupportedError, "layer 0: type 'none' has no counterpart"),
    ({"type": "dense"}, GraphError, "layer 0: 'shape' is missing or no whole number from 1"),
]


@pytest.mark.parametrize(("fields", "error", "match"), BAD)
def test_what_cannot_be_read_names_its_layer(fields, error, match, tmp_path):
    with pytest.raises(error, match=match) as caught:
        read_netx(raw(tmp_path / "a.net", fields))
    assert str(caught.value).startswith(f"file '{tmp_path / 'a.net'}': ")


def test_layers_that_contradict_each_other(tmp_path):
    first, second = row("dense", [2], weight=np.ones((2, 3))), row("dense", [2], weight=np.ones((2, 3)))
    with pytest.raises(GraphError, match="layer 1: .*Dense takes 3 inputs, got 2"):
        read_netx(raw(tmp_path / "a.net", first, second))
    conv = row("conv", [2, 4, 4], weight=np.ones((2, 1, 3, 3)))
    with pytest.raises(GraphError, match="layer 1: states a shape of .2, 4, 4., its weights give .2, 3, 3."):
        read_netx(raw(tmp_path / "b.net", bare("input", [1, 5, 5]), conv))
    with pytest.raises(UnsupportedError, match="layer 1: an input layer behind others has no counterpart"):
        read_netx(raw(tmp_path / "c.net", first, row("input", [2])))
    raw(tmp_path / "d.net", first, second)
    with h5py.File(tmp_path / "d.net", "a") as file:
        del file["layer/0"]
        file["layer/2/type"] = "dense"
    with pytest.raises(GraphError, match="layer 0 is missing, 2 layers are there"):
        read_netx(tmp_path / "d.net")


def test_files_that_are_no_netx(tmp_path):
    bad = tmp_path / "a.net"
    bad.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(FileError, match="file '.*a.net': is damaged"):
        read_netx(bad)
    with h5py.File(bad, "w") as file:
        file["node/type"] = "NIRGraph"
    with pytest.raises(FileError, match="holds no netx network; expected groups 'layer/0', 'layer/1'"):
        read_netx(bad)
    data = raw(bad, row("dense", [2], weight=np.ones((2, 2)))).read_bytes()
    for end in range(1, len(data), len(data) // 60):
        bad.write_bytes(data[:end])
        with pytest.raises(SpearError) as caught:
            read_netx(bad)
        assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- writing


def random_chain(seed: int) -> SNNGraph:
    """A random chain: convolutions, sum pools with and without neurons, dense layers, a delay or a recurrent layer."""
    rng = np.random.default_rng(seed)

    def weight(*shape):
        return 2 * rng.integers(-60, 61, shape)

    def neuron(shape, **more):
        bias = rng.integers(-20, 60, (shape[0], *(1 for _ in shape[1:]))) if rng.random() < 0.5 else 0
        values = {"decay_u": int(rng.choice([4096, 2000, 1])), "decay_v": int(rng.integers(0, 4097)), "v_threshold": 90}
        return LoihiLIF(**values, bias_mantissa=bias, bias_exponent=6, **more)

    shape = tuple(int(n) for n in rng.integers([1, 6, 6], [4, 10, 10]))
    given, layers = shape, []
    for n in range(int(rng.integers(1, 4))):
        if min(shape[1:]) < 2:
            break
        pooled = bool(layers) and layers[-1].neuron is None
        kind = rng.choice(["conv", "pool", "pool with neurons"])
        if kind == "conv":
            kernel = tuple(int(min(s, k)) for s, k in zip(shape[1:], rng.integers(1, 4, 2), strict=True))
            conv = Conv2d(
                weight=weight(int(rng.integers(1, 5)), shape[0], *kernel),
                stride=tuple(int(s) for s in rng.integers(1, 3, 2)),
                padding=(0, 0) if pooled else tuple(int(p) for p in rng.integers(0, 2, 2)),
            )
            shape = conv.output_shape(shape)
            layers.append(Layer(name=f"conv{n}", synapse=conv, neuron=neuron(shape)))
        else:
            pool = SumPool(kernel_size=(2, 2), stride=tuple(int(s) for s in rng.integers(1, 3, 2)))
            shape = pool.output_shape(shape)
            layers.append(Layer(name=f"pool{n}", synapse=pool, neuron=neuron(shape) if kind != "pool" else None))
    layers.append(Layer(name="flat", synapse=Flatten()))
    inputs = int(np.prod(shape))
    loop = seed % 3 == 0
    layers.append(Layer(name="fc", synapse=Dense(weight=weight(7, inputs)), neuron=None if loop else neuron((7,))))
    if loop:
        layers += [Layer(name="cells", neuron=neuron((7,)))]
    out = Layer(name="out", synapse=Dense(weight=weight(4, 7)), neuron=neuron((4,)))
    layers.append(out if seed % 4 else replace(out, neuron=replace(out.neuron, v_threshold=None)))
    graph = net(*layers, shape=given)
    if loop:
        again = Layer(name="loop", synapse=Dense(weight=weight(7, 7)))
        edges = (*graph.edges, Edge(source="cells", target="loop", delay=1), Edge(source="loop", target="cells"))
        return replace(graph, layers=(*graph.layers, again), edges=edges)
    if seed % 3 == 1:
        return replace(graph, edges=tuple(replace(e, delay=3) if e.target == "out" else e for e in graph.edges))
    return graph


@pytest.mark.parametrize("seed", range(15))
def test_random_chains_come_back_equal(seed, tmp_path):
    graph = random_chain(seed)
    try:
        assert write_netx(graph, tmp_path / "a.net") == []
    except UnsupportedError as error:
        assert "weights of" in str(error)  # overlapping windows may add up to more than a synapse holds
        return
    again = read_netx(tmp_path / "a.net")
    same_runs(graph, again, seed=seed)
    assert again.output == graph.output


def test_layout_is_lava_dls(tmp_path):
    """Field by field what lava-dl's own exporter writes, and what its reader asks for."""
    graph = net(
        Layer(
            name="conv",
            synapse=Conv2d(weight=np.arange(18).reshape(2, 1, 3, 3), stride=(1, 2), padding=(1, 0)),
            neuron=loihi(bias_mantissa=np.array([3, -4]).reshape(2, 1, 1), bias_exponent=6, refractory_steps=1),
        ),
        dense("fc", np.arange(36).reshape(2, 18) - 9),
        shape=(1, 3, 7),
        dt_s=1e-3,
    )
    write_netx(graph, tmp_path / "a.net")
    found = {}
    with h5py.File(tmp_path / "a.net") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        assert file["layer/1/weight"].dtype == np.float32 and file["layer/1/type"].dtype == "S10"
    assert [found[f"layer/{n}/type"].tolist() for n in range(4)] == [[b"input"], [b"conv"], [b"flatten"], [b"dense"]]
    assert [found[f"layer/{n}/shape"].tolist() for n in range(4)] == [[1, 3, 7], [2, 3, 3], [18, 1, 1], [2]]
    assert "layer/0/neuron/type" not in found  # a shape alone, lava-dl takes it for the shape of what is fed in
    conv = {key.removeprefix("layer/1/"): value for key, value in found.items() if key.startswith("layer/1/")}
    assert conv["weight"].shape == (2, 1, 3, 3) and conv["stride"].tolist() == [1, 2] and conv["padding"].tolist() == [1, 0]
    assert conv["kernelSize"].tolist() == [3, 3] and conv["groups"] == 1 and conv["inChannels"] == 1 and conv["outChannels"] == 2
    assert conv["bias"].tolist() == [3, -4]
    neuron = {key: conv[f"neuron/{key}"] for key in ("type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike")}
    assert neuron == {"type": b"CUBA", "iDecay": 4096, "vDecay": 400, "vThMant": 60, "refDelay": 2, "gradedSpike": False}
    assert found["layer/3/inFeatures"] == 18 and found["layer/3/outFeatures"] == 2 and found["simulation/Ts"] == 1


def test_readout_and_input_layer_come_back(tmp_path):
    graph = net(
        Layer(name="in", synapse=Scale(weight=np.array(36.0), bias=np.array(-3)), neuron=loihi()),
        dense("out", np.ones((2, 6), int), v_threshold=None),
        shape=(6,),
    )
    write_netx(graph, tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net") as file:
        assert file["layer/1/neuron/vThMant"][()] == 131071 and file["layer/0/weight"].shape == ()
    again = read_netx(tmp_path / "a.net")
    assert again["out"].neuron.v_threshold is None
    x = np.random.default_rng(0).random((20, 2, 6)) * 3
    one, two = (simulate(g, x, kind="current", record=("spikes",)) for g in (graph, again))
    assert np.array_equal(one.output, two.output) and one.spikes["in"].any()


def test_one_dimensional_convolution_and_single_weights(tmp_path):
    graph = net(
        Layer(
            name="c",
            synapse=Conv1d(weight=np.arange(12).reshape(2, 2, 3), stride=(2,), padding=(1,)),
            neuron=loihi(v_threshold=9),
        ),
        Layer(name="scale", synapse=Scale(weight=np.array([[7], [9]])), neuron=loihi(v_threshold=8)),
        Layer(name="straight", neuron=loihi(v_threshold=0)),
        dense("fc", np.ones((2, 8), int), v_threshold=2),
        Layer(name="gain", synapse=Scale(weight=np.array(5)), neuron=loihi(v_threshold=4)),
        shape=(2, 8),
    )
    write_netx(graph, tmp_path / "a.net")
    again = read_netx(tmp_path / "a.net")
    assert again.input_shape == (2, 1, 8)
    same_runs(graph, again)


def test_a_layer_that_feeds_itself_through_its_own_weights(tmp_path):
    graph = net(dense("fc", np.array([[20, -20], [20, 20]])), shape=(2,))
    graph = replace(graph, edges=(*graph.edges, Edge(source="fc", target="fc", delay=1)))
    write_netx(graph, tmp_path / "a.net")
    same_runs(graph, read_netx(tmp_path / "a.net"), steps=30)


def test_delays_per_neuron_come_back(tmp_path):
    fields = row("dense", [3], weight=np.arange(1.0, 7.0).reshape(3, 2) * 3, delay=np.array([0, 2, 5]))
    graph = read_netx(raw(tmp_path / "a.net", fields))
    assert write_netx(graph, tmp_path / "b.net") == []
    same_runs(graph, read_netx(tmp_path / "b.net"), steps=30)


def test_dead_layers_are_written_so_that_lava_dl_loads_them(tmp_path):
    graph = net(
        dense("dead", np.zeros((3, 2), int), bias_mantissa=[5, 0, -1], bias_exponent=6),
        dense("out", np.ones((2, 3), int)),
        shape=(2,),
    )
    notes = write_netx(graph, tmp_path / "a.net")
    assert notes == ["layer 'dead': all weights are zero, which lava-dl cannot load; neuron 1, always silent, got a weight of -1"]
    again = read_netx(tmp_path / "a.net")
    assert again["dead"].synapse.weight.tolist() == [[0, 0], [-1, 0], [0, 0]]
    same_runs(graph, again, steps=60)
    loud = net(dense("dead", np.zeros((1, 2), int), bias_mantissa=5, bias_exponent=6), shape=(2,))
    with pytest.raises(UnsupportedError, match="layer 'dead': all weights are zero, which lava-dl cannot load; remove the layer"):
        write_netx(loud, tmp_path / "b.net")


def test_bias_off_the_grid_is_refused_or_rounded(tmp_path):
    graph = net(dense("fc", np.ones((2, 2), int), bias_mantissa=[640, 70]), shape=(2,))
    with pytest.raises(UnsupportedError, match="layer 'fc': a bias of 70, netx holds multiples of 64; allow rounding"):
        write_netx(graph, tmp_path / "a.net")
    assert write_netx(graph, tmp_path / "a.net", round_bias=True) == ["layer 'fc': biases are rounded to multiples of 64"]
    assert read_netx(tmp_path / "a.net")["fc"].neuron.bias.tolist() == [640, 64]


def test_more_bias_than_the_chip_holds_is_said(tmp_path):
    graph = net(dense("a", [[1, 2]], bias_mantissa=4096, bias_exponent=6), shape=(2,))
    (note,) = write_netx(graph, tmp_path / "a.net")
    assert note == "layer 'a': a bias of 4096 is beyond the 13 bits of Loihi with netx's exponent of 6; Lava on a CPU takes it"
    same_runs(graph, read_netx(tmp_path / "a.net"))


def test_more_than_lavas_groups_is_said(tmp_path):
    conv = Conv2d(weight=np.ones((128, 1, 1, 1), int), groups=128)
    notes = write_netx(net(Layer(name="d", synapse=conv, neuron=loihi()), shape=(128, 1, 1)), tmp_path / "a.net")
    assert notes == ["layer 'd': 128 groups; Lava 0.10 on a CPU computes at most 127 right"]


def conv(**more):
    return Conv2d(**{"weight": np.ones((2, 2, 3, 3), int), **more})


def branching(*edges, **more):
    layers = (dense("a", np.eye(2, dtype=int)), dense("b", np.eye(2, dtype=int)), dense("c", np.eye(2, dtype=int)))
    return SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t, delay=d) for s, t, d in edges), input_shape=(2,), **more)


TWO = {"shape": (2, 6, 6)}
REFUSED = [
    (
        net(Layer(name="a", synapse=Dense(weight=np.ones((1, 2)))), shape=(2,)),
        "netx holds integer networks; quantise this one first",
    ),
    (branching(("input", "a", 0), ("a", "b", 0), ("a", "c", 0), ("b", "c", 0)), "layer 'a': feeds 'b', 'c', netx is a chain"),
    (branching(("input", "a", 0), ("a", "b", 0), ("b", "c", 0), output="b"), "layer 'c': lies beside the chain"),
    (branching(("input", "a", 0), ("a", "b", 0), ("b", "c", 0), ("c", "b", 1)), "layer 'b': several inputs add up"),
    (branching(("input", "a", 0), ("a", "a", 2), ("a", "b", 0), ("b", "c", 0)), "layer 'a': feeds itself 2 steps later"),
    (net(Layer(name="a", synapse=conv(), neuron=loihi(reset="subtract")), **TWO), "layer 'a': reset by subtraction has no place"),
    (net(Layer(name="a", synapse=conv(), neuron=loihi(v_init=1)), **TWO), "layer 'a': starts away from 0"),
    (net(dense("a", np.ones((2, 2), int), decay_v=[1, 2]), shape=(2,)), "layer 'a': vDecay differs between neurons"),
    (net(Layer(name="a", synapse=conv(bias=np.ones(2)), neuron=loihi()), **TWO), "layer 'a': a bias on the current has no place"),
    (
        net(Layer(name="a", synapse=conv(weight_exponent=-1), neuron=loihi()), **TWO),
        "layer 'a': its sum is shifted down by 1 bits",
    ),
    (net(dense("a", np.full((2, 2), 300)), shape=(2,)), "layer 'a': weights of 300..300, synapses hold -255..255"),
    (net(dense("a", [[255, -1]]), shape=(2,)), "layer 'a': weights of -1..255, synapses hold -256..254"),
    (net(dense("a", [[201, -2]]), shape=(2,)), "layer 'a': odd weights beyond -128..127 of both signs lose their lowest bit"),
    (
        net(Layer(name="a", synapse=Scale(weight=np.array([1, 2])), neuron=loihi()), shape=(2,)),
        "layer 'a': the input's weight must be one",
    ),
    (
        net(Layer(name="a", synapse=Scale(weight=np.array(0.5)), neuron=loihi()), shape=(2,)),
        "layer 'a': the input's weight must be one",
    ),
    (
        net(Layer(name="a", synapse=Scale(weight=np.array(1)), neuron=loihi(decay_u=9)), shape=(2,)),
        "layer 'a': input neurons take a current",
    ),
    (
        net(dense("a", [[1, 2]]), Layer(name="b", synapse=Scale(weight=np.array(0.5)), neuron=loihi()), shape=(2,)),
        "layer 'b': scales by fr",
    ),
    (
        net(
            Layer(name="s", synapse=SumPool(kernel_size=2)),
            Layer(name="a", synapse=Scale(weight=np.arange(9).reshape(1, 3, 3)), neuron=loihi()),
            **TWO,
        ),
        "layer 'a': weights per position have no place",
    ),
    (net(Layer(name="a", synapse=AvgPool(kernel_size=2), neuron=loihi()), **TWO), "layer 'a': AvgPool has no place in netx"),
    (net(Layer(name="a", synapse=Dense(weight=np.ones((2, 2), int))), shape=(2,)), "netx holds integer networks"),
    (
        net(dense("a", [[1, 2]]), Layer(name="b", synapse=Dense(weight=np.ones((2, 1), int))), shape=(2,)),
        "layer 'b': netx layers end in integer",
    ),
    (
        net(Layer(name="a", synapse=Dense(weight=np.ones((1, 16), int)), neuron=loihi()), shape=(2, 2, 2, 2)),
        "layer 'a': 4 axes, netx has",
    ),
    (
        replace(net(Layer(name="a", synapse=conv(), neuron=loihi()), **TWO), edges=(Edge(source="input", target="a", delay=1),)),
        "layer 'a': lava-dl passes over the delay of a convolution",
    ),
    (
        replace(net(dense("a", [[1, 2]]), shape=(2,)), edges=(Edge(source="input", target="a", delay=63),)),
        "layer 'a': delays up to 63 steps",
    ),
    (
        net(
            Layer(name="p", synapse=SumPool(kernel_size=3, stride=2)),
            Layer(name="a", synapse=conv(padding=(1, 1)), neuron=loihi()),
            shape=(2, 9, 9),
        ),
        "layer 'a': pads behind a pool whose windows overlap or leave a rest",
    ),
]


@pytest.mark.parametrize(("graph", "match"), REFUSED)
def test_what_netx_cannot_say_is_refused_before_anything_is_written(graph, match, tmp_path):
    with pytest.raises(UnsupportedError, match=match):
        write_netx(graph, tmp_path / "a.net")
    assert list(tmp_path.iterdir()) == []


def gathering(*parts, cells=("cells",)):
    """Neurons that several dense layers add up in: (name, source, delay, weight, bias)."""
    layers = [Layer(name=n, synapse=Dense(weight=np.asarray(w), bias=b)) for n, _, _, w, b in parts] + [
        Layer(name="cells", neuron=loihi())
    ]
    edges = [Edge(source=s, target=n, delay=d) for n, s, d, _, _ in parts] + [Edge(source=n, target="cells") for n, *_ in parts]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2,), output="cells")


ONE = np.ones((2, 2), int)


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        (gathering(("a", "input", 0, ONE, None), ("b", "input", 1, ONE, None)), "layer 'cells': one synapse has two delays"),
        (gathering(("a", "input", 0, ONE, None), ("b", "cells", 2, ONE, None)), "layer 'cells': feeds itself 2 steps later"),
        (gathering(("a", "input", 0, ONE, None), ("b", "input", 1, ONE, np.ones(2))), "layer 'cells': several inputs add up"),
        (
            gathering(
                ("a", "input", 0, np.eye(2, dtype=int), None),
                ("b", "input", 1, 1 - np.eye(2, dtype=int), None),
                ("c", "cells", 1, ONE, None),
            ),
            "layer 'cells': delays up to 1 steps, netx holds 62, and none with recurrence",
        ),
    ],
)
def test_sums_of_layers_that_netx_cannot_say(graph, match, tmp_path):
    with pytest.raises(UnsupportedError, match=match):
        write_netx(graph, tmp_path / "a.net")


@pytest.mark.parametrize("seed", range(20))
def test_folding_a_pool_into_weights_is_exact(seed):
    """Against the pool and the weights one after the other, on whole numbers."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(6, 11)), int(rng.integers(6, 11)))
    kernel, stride, padding = (tuple(int(n) for n in rng.integers(low, high, 2)) for low, high in ((1, 4), (1, 4), (0, 2)))
    pool = SumPool(kernel_size=kernel, stride=stride, padding=padding)
    pooled = pool.output_shape(shape)
    sizes = [int(rng.integers(1, min(3, n) + 1)) for n in pooled[1:]]
    conv = Conv2d(weight=rng.integers(-9, 10, (2, shape[0], *sizes)), stride=tuple(int(s) for s in rng.integers(1, 3, 2)))
    whole = Dense(weight=rng.integers(-9, 10, (3, int(np.prod(pooled)))))
    x = rng.integers(0, 5, (2, *shape)).astype(np.float64)
    for synapse in (conv, whole):
        expected = apply(synapse, apply(pool, x))
        assert np.array_equal(apply(through_pool("layer", synapse, pool, shape), x), expected)


def test_folding_keeps_padding_where_windows_fill_the_picture():
    pool, conv2 = SumPool(kernel_size=2), conv(padding=(1, 1))
    x = np.random.default_rng(0).integers(0, 5, (1, 2, 8, 6)).astype(np.float64)
    assert np.array_equal(apply(through_pool("a", conv2, pool, (2, 8, 6)), x), apply(conv2, apply(pool, x)))
