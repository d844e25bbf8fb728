"""netx files of lava-dl spike as in lava-dl; errors name the layer."""

import h5py
import numpy as np
import pytest

from spear_deploy.errors import FileError, GraphError, SpearError, UnsupportedError
from spear_deploy.interchange.netx.reader import read_netx
from spear_deploy.network import Conv2d, LoihiLIF
from spear_deploy.simulator import simulate
from tests.conftest import shared
from tests.support.netx_files import bare, raw, row
from tests.support.reference import random_spikes

# ------------------------------------------------------------------------------------------------- lava-dl's networks


def test_tinynet_spikes_as_in_lava_dl():
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


def test_an_input_shape_that_contradicts_the_file_is_refused(tmp_path):
    sums = row("dense", [2], weight=np.ones((2, 12)))
    images = raw(tmp_path / "images.net", bare("input", [3, 2, 2]), sums)
    assert read_netx(images, input_shape=(3, 2, 2)) == read_netx(images)
    for given in ((3, 3), (12,)):
        with pytest.raises(
            GraphError, match=r"layer 0: the file takes an input of 3 x 2 x 2, input_shape .* given; leave the opt"
        ):
            read_netx(images, input_shape=given)
    for front in ((), (bare("flatten", [12]),)):
        flat = raw(tmp_path / "flat.net", *front, sums)
        assert read_netx(flat).input_shape == (12,) and read_netx(flat, input_shape=(3, 2, 2)).input_shape == (3, 2, 2)
        with pytest.raises(GraphError, match=r"layer 0: the file takes an input of 12, input_shape 3 x 3 given"):
            read_netx(flat, input_shape=(3, 3))
    conv = row("conv", [2, 3, 3], weight=np.ones((2, 1, 2, 2)), stride=1, padding=0, dilation=1, groups=1)
    with pytest.raises(GraphError, match=r"layer 0: .*shape"):
        read_netx(raw(tmp_path / "conv.net", conv), input_shape=(1, 5, 5))


def test_bias_per_neuron_is_stored_as_w_h_c(tmp_path):
    bias = np.arange(24).reshape(4, 3, 2)
    conv = row("conv", [2, 3, 4], weight=np.ones((2, 1, 1, 1)), bias=bias)
    neuron = read_netx(raw(tmp_path / "a.net", bare("input", [1, 3, 4]), conv))["layer1"].neuron
    assert np.array_equal(neuron.bias, 64 * bias.transpose(2, 1, 0))


def test_values_kept_against_lava_dl_are_noted(tmp_path):
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
        row("dense", [2], weight=np.ones((2, 2))) | {"neuron/type": "SDNN", "neuron/activation": "tanh"},
        UnsupportedError,
        "layer 0: sigma-delta neurons around 'tanh' have no",
    ),
    (
        row("dense", [2], weight=np.ones((2, 2)), bias=1) | {"neuron/type": "SDNN", "neuron/sigma_output": True},
        UnsupportedError,
        "layer 0: a bias behind a sum .sigma_output. has no",
    ),
    *(
        (
            row("dense", [2], weight=np.ones((2, 2))) | {"neuron/type": kind},
            UnsupportedError,
            f"layer 0: '{kind}' neurons {what}.* have no counterpart; train with CUBA neurons",
        )
        for kind, what in (("RF_PHASE", "resonate"), ("ALIF", "adapt their threshold"), ("ADRF_PHASE", "resonate and adapt"))
    ),
    (
        row("dense", [2], weight=np.ones((2, 2))) | {"neuron/type": "X"},
        UnsupportedError,
        "layer 0: 'X' neurons have no counterpart",
    ),
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
    (row("pool", [2, 3, 3], kernelSize=2), UnsupportedError, "layer 0: a pool in front leaves the input shape open"),
    (bare("average", [2]), GraphError, "layer 0: averages 0 neurons into 2"),
    (bare("convT", [2]), UnsupportedError, "layer 0: type 'convT' has no counterpart; use conv, or dense"),
    (bare("kwta", [2]), UnsupportedError, "layer 0: type 'kwta' has no counterpart; known are input, dense"),
    (bare("concat", [2]), UnsupportedError, "layer 0: a concat entry in front joins nothing"),
    (bare("input", [2, 2]), GraphError, "there is no layer behind the input"),
    ({"shape": [2]}, UnsupportedError, "layer 0: type 'none' has no counterpart"),
    ({"type": "dense"}, GraphError, "layer 0: 'shape' is missing or no whole number from 1"),
]


@pytest.mark.parametrize(("fields", "error", "match"), BAD)
def test_an_unreadable_entry_raises_with_its_layer(fields, error, match, tmp_path):
    with pytest.raises(error, match=match) as caught:
        read_netx(raw(tmp_path / "a.net", fields))
    assert str(caught.value).startswith(f"file '{tmp_path / 'a.net'}': ")


def test_layers_that_contradict_each_other_raise(tmp_path):
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


def test_files_that_are_no_netx_raise(tmp_path):
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
