"""Resources of small networks on each chip, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import BudgetRow
from spear_deploy.budget.report import BudgetReport
from spear_deploy.hardware.profile import HardwareProfile, load_profile
from spear_deploy.network import IF, LIF, AvgPool, Conv2d, CubaLIF, Dense, Flatten, LoihiLIF, SumPool
from spear_deploy.network.graph import Edge, Layer, SNNGraph, chain
from tests.support.chips import conv, dense_net, small_chip

RNG = np.random.default_rng(0)
SPECK = load_profile("speck2f")


def row(report: BudgetReport, resource: str, where: str) -> BudgetRow:
    return next(r for r in report.rows if (r.resource, r.where) == (resource, where))


def over(report: BudgetReport) -> set[tuple[str, str]]:
    return {(r.resource, r.where) for r in report.rows if r.status == "over"}


def dense(o: int, i: int) -> Dense:
    return Dense(weight=np.ones((o, i), np.float32))


# --------------------------------------------------------------------------------------------------------------- Speck


@pytest.mark.parametrize(
    ("kernel", "into", "out", "words"),
    [(3, 2, 32, 1024), (3, 2, 33, 2048), (1, 16, 16, 256), (5, 8, 10, 4096), (4, 1, 1, 16), (2, 3, 5, 96)],
)
def test_speck_kernel_words(kernel: int, into: int, out: int, words: int) -> None:
    """c · 2^(ceil log2(kx ky) + ceil log2 f): 3 x 3 costs 16, f = 33 costs 64."""
    net = chain([Layer(name="c", synapse=conv(RNG, out, into, kernel), neuron=IF())], input_shape=(into, 12, 12))
    assert row(check(net, SPECK), "synapse_memory", "c").used == words


@pytest.mark.parametrize(("size", "words"), [(32, 8 * 1024), (33, 8 * 4096), (64, 8 * 4096), (17, 8 * 1024)])
def test_speck_neuron_words_are_counted_before_a_pool(size: int, words: int) -> None:
    """f · 2^(ceil log2 fy + ceil log2 fx) of the map that the convolution makes."""
    net = chain(
        [
            Layer(name="c", synapse=conv(RNG, 8, 1, 3, padding=(1, 1)), neuron=IF()),
            Layer(name="p", synapse=SumPool(kernel_size=(2, 2))),
            Layer(name="d", synapse=conv(RNG, 4, 8, 3), neuron=IF()),
        ],
        input_shape=(1, size, size),
    )
    report = check(net, SPECK)
    assert row(report, "neuron_memory", "c").used == words
    # the pool is the first core's: the second kernel is 3 x 3, not 6 x 6
    assert row(report, "synapse_memory", "d").used == 8 * 2 ** (4 + 2)
    assert (row(report, "input_map", "d").used, row(report, "output_map", "c").used) == (size // 2, size)


def test_speck_turns_a_dense_layer_into_a_convolution_of_its_map() -> None:
    """10 outputs from 8 maps of 4 x 4: c = 8, a kernel of 16 positions, f = 10 costs 16: 8 · 2^(4 + 4) = 2048 words."""
    net = chain(
        [
            Layer(name="c", synapse=conv(RNG, 8, 1, 5), neuron=IF()),
            Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="f", synapse=Flatten()),
            Layer(name="fc", synapse=dense(10, 128), neuron=IF()),
            Layer(name="out", synapse=dense(3, 10), neuron=IF()),
        ],
        input_shape=(1, 12, 12),
    )
    report = check(net, SPECK)
    assert report.verdict == "fits" and report.cores_used == 3
    assert row(report, "synapse_memory", "fc").used == 2048
    assert row(report, "neuron_memory", "fc").used == 10
    assert row(report, "synapse_memory", "out").used == 10 * 2**2


def test_speck_bias_words_and_destinations() -> None:
    bias = Conv2d(weight=np.ones((6, 2, 3, 3)), bias=np.ones(6))
    layers = [Layer(name="a", synapse=bias, neuron=IF())]
    layers += [Layer(name=name, synapse=conv(RNG, 2, 6, 3), neuron=IF()) for name in "bcd"]
    edges = [Edge(source="input", target="a"), *(Edge(source="a", target=name) for name in "bcd")]
    net = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2, 12, 12), output="d")
    report = check(net, SPECK)
    assert row(report, "bias_memory", "a").used == 6 and row(report, "bias_memory", "b").used == 0
    assert over(report) == {("destinations", "a"), ("fan_out_cores", "a")}
    assert row(report, "destinations", "a").remedy.startswith("let a feed at most 2 layers")
    two = SNNGraph(layers=tuple(layers[:3]), edges=tuple(edges[:3]), input_shape=(2, 12, 12), output="c")
    assert check(two, SPECK).verdict == "fits"


@pytest.mark.parametrize(
    ("synapse", "shape", "what"),
    [
        (Conv2d(weight=np.ones((2, 2, 3, 5))), (2, 9, 9), "Conv2d with kernel 3 x 5"),
        (Conv2d(weight=np.ones((2, 2, 17, 17))), (2, 20, 20), "Conv2d with kernel 17"),
        (Conv2d(weight=np.ones((2, 2, 3, 3)), stride=(3, 3)), (2, 9, 9), "Conv2d with stride 3 x 3"),
        (Conv2d(weight=np.ones((2, 2, 3, 3)), padding=(8, 8)), (2, 9, 9), "Conv2d with padding 8"),
        (Conv2d(weight=np.ones((2, 2, 3, 3)), dilation=(2, 2)), (2, 9, 9), "Conv2d with dilation 2"),
        (Conv2d(weight=np.ones((2, 1, 3, 3)), groups=2), (2, 9, 9), "Conv2d with groups 2"),
        (SumPool(kernel_size=(3, 3)), (2, 9, 9), "SumPool of 3 x 3"),
        (SumPool(kernel_size=(2, 2), stride=(1, 1)), (2, 9, 9), "SumPool of 2 x 2 at stride 1 x 1"),
        (Dense(weight=np.ones((2, 2 * 17 * 17))), (2, 17, 17), "Dense behind a map of 17 x 17, a convolution with kernel 17"),
    ],
)
def test_speck_cannot_map(synapse: Any, shape: tuple[int, ...], what: str) -> None:
    pools = isinstance(synapse, SumPool)  # neurons behind it get weights of their own
    layers = [Layer(name="c", synapse=synapse, neuron=None if pools else IF())]
    layers += [Layer(name="n", synapse=conv(RNG, 2, 2, 1), neuron=IF())] if pools else []
    report = check(chain(layers, input_shape=shape), SPECK)
    assert [u.what for u in report.unsupported] == [what]
    kind = row(report, "layer_kind", "c")
    assert (kind.used, kind.limit, kind.status) == (1, 0, "over") and what in kind.detail and kind.remedy


def test_speck_maps_and_channels() -> None:
    net = chain(
        [Layer(name="c", synapse=conv(RNG, 2, 1, 3, padding=(1, 1), stride=(2, 2)), neuron=IF())], input_shape=(1, 130, 130)
    )
    report = check(net, SPECK)
    assert over(report) == {("input_map", "c"), ("output_map", "c")}
    wide = chain([Layer(name="c", synapse=conv(RNG, 1025, 1, 1), neuron=IF())], input_shape=(1, 1, 1))
    assert over(check(wide, SPECK)) == {("channels", "c")}
    assert "split c into 2 layers of 513 channels" in row(check(wide, SPECK), "channels", "c").remedy


def test_speck_has_no_leak_and_holds_no_spike_back() -> None:
    net = chain([Layer(name="fc", synapse=dense(2, 3), neuron=LIF(tau_s=0.01))], input_shape=(3,))
    assert over(check(net, SPECK)) == {("neuron_model", "fc")}
    layers = tuple(Layer(name=name, synapse=dense(2, 2), neuron=IF()) for name in "abc")
    ways = [("input", "a", 0), ("a", "b", 0), ("b", "c", 0), ("a", "c", 0), ("c", "a", 1)]
    for extra, verdict in ((0, "fits"), (1, "does_not_fit")):
        edges = tuple(Edge(source=s, target=t, delay=d + extra * (s == "a" and t == "c")) for s, t, d in ways)
        report = check(SNNGraph(layers=layers, edges=edges, input_shape=(2,), output="c"), SPECK)
        assert report.verdict == verdict, report.rows


# ---------------------------------------------------------------------------------------------------------------- Xylo


def xylo_net(inputs: int, *widths: int) -> SNNGraph:
    """Fully connected layers of CubaLIF neurons that reset by subtraction."""
    neuron = CubaLIF(tau_mem_s=0.02, tau_syn_s=0.02, reset="subtract")
    layers, before = [], inputs
    for n, width in enumerate(widths):
        layers.append(Layer(name=f"fc{n}", synapse=dense(width, before), neuron=neuron))
        before = width
    return chain(layers, input_shape=(inputs,))


@pytest.mark.parametrize(
    ("name", "inputs", "hidden", "outputs"),
    [("xylo_audio2", 16, 1000, 8), ("xylo_audio3", 16, 992, 32), ("xylo_imu", 16, 496, 16)],
)
def test_xylo_to_the_unit(name: str, inputs: int, hidden: int, outputs: int) -> None:
    chip = load_profile(name)
    reach = chip.connectivity.input_reaches.value
    hidden = min(hidden, reach)  # what the input reaches is the tighter limit of the newer ones
    assert check(xylo_net(inputs, hidden, outputs), chip).verdict == "fits"
    assert over(check(xylo_net(inputs + 1, hidden, outputs), chip)) == {("input_channels", "input")}
    too_wide = over(check(xylo_net(inputs, hidden + 1, outputs), chip))
    # the readout's memory holds one word for each hidden neuron it may read and each output
    expected = {("input_reaches", "input"), ("output_reads", "fc1"), ("synapse_memory", "fc1")}
    assert too_wide == (expected | {("neurons", "fc0")} if name == "xylo_audio2" else expected)
    assert over(check(xylo_net(inputs, hidden, outputs + 1), chip)) >= {("neurons", "fc1"), ("output_channels", "fc1")}


def test_xylo_hidden_layers_share_the_neurons_and_fan_out_counts_hidden_targets() -> None:
    chip = load_profile("xylo_audio2")
    assert check(xylo_net(16, 500, 64, 8), chip).verdict == "fits"
    report = check(xylo_net(16, 900, 64, 60, 8), chip)
    assert ("neurons", "fc0 + fc1 + fc2") in over(report) and row(report, "neurons", "fc0 + fc1 + fc2").used == 1024
    assert row(report, "neurons", "fc0 + fc1 + fc2").remedy.startswith("drop 24 of 900 channels of fc0")
    assert row(report, "fan_out", "fc0").used == 64 and row(report, "fan_out", "fc2").used == 0
    wide = check(xylo_net(16, 100, 65, 8), chip)
    assert over(wide) == {("fan_out", "fc0")}
    assert row(wide, "fan_out", "fc0").remedy.startswith("drop 1 of 65 channels of fc1")


def test_xylo_counts_existing_weights_only() -> None:
    """The budget of the chip: a fan-out list of 32,000 recurrent synapses; a word each."""
    chip, net = load_profile("xylo_audio2"), xylo_net(16, 100, 60, 8)
    weight = net["fc1"].synapse.weight.copy()
    weight[::2] = 0
    layers = (net.layers[0], Layer(name="fc1", synapse=Dense(weight=weight), neuron=net.layers[1].neuron), net.layers[2])
    half = SNNGraph(layers=layers, edges=net.edges, input_shape=(16,))
    for graph, synapses in ((net, 6000), (half, 3000)):
        report = check(graph, chip)
        budget = row(report, "fan_out_mean", "chip")
        assert (budget.used, budget.limit) == (synapses, 32000)
        assert row(report, "synapse_memory", "fc0 + fc1").used == 16 * 100 + synapses
        assert row(report, "fan_out", "fc0").used == synapses / 100


def test_xylo_refuses_convolutions_waits_and_resets_to_a_value() -> None:
    net = chain(
        [Layer(name="c", synapse=conv(RNG, 2, 1, 3), neuron=CubaLIF(tau_mem_s=0.02, tau_syn_s=0.02))], input_shape=(1, 4, 4)
    )
    report = check(net, load_profile("xylo_audio2"))
    lacking = [("c", "Conv2d"), ("c", "reset by value"), ("c", "an output layer that reads the input")]
    assert [(u.layer, u.what) for u in report.unsupported] == lacking
    assert row(report, "layer_kind", "c").remedy == "use a Dense of the same weights, written out, as `adapt` does"
    assert row(report, "reset", "c").remedy == "train with reset='subtract'"


# ----------------------------------------------------------------------------------------------------------- crossbars


def test_truenorth_crossbars() -> None:
    """256 axons to 256 neurons; 300 outputs take two cores of 150, so each of their sources stands on its core twice."""
    chip = small_chip("truenorth", connectivity__weight_palette="unlimited")
    report = check(dense_net(256, 256), chip)
    assert (report.verdict, report.cores_used) == ("fits", 1)
    assert row(report, "synapse_memory", "fc1").used == 65536
    report = check(dense_net(100, 100, 300), chip)
    parts = report.placement.slices
    assert [(p.layer, p.neurons, p.copies) for p in parts] == [("fc1", 100, 2), ("fc2", 150, 1), ("fc2", 150, 1)]
    assert row(report, "neurons", "fc1").used == 200 and row(report, "fan_out_cores", "fc1").used == 1
    over_by_one = check(dense_net(257, 10), chip)
    assert over(over_by_one) == {("axons_in", "fc1"), ("fan_in", "fc1"), ("synapse_memory", "fc1")} - {("synapse_memory", "fc1")}
    assert row(over_by_one, "fan_in", "fc1").remedy == "prune 1 of 257 inputs"


def test_truenorth_palette() -> None:
    """Four weights a neuron, zero is no synapse; floating-point weights have no palette yet."""
    chip = small_chip("truenorth", neuron__models=None)
    neuron = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1)
    for values, status in (([[0, 1, -2, 3, 4, 1]], "ok"), ([[5, 1, -2, 3, 4, 1]], "over")):
        net = chain([Layer(name="fc", synapse=Dense(weight=np.array(values)), neuron=neuron)], input_shape=(6,))
        result = row(check(net, chip), "weight_palette", "fc")
        assert (result.used, result.limit, result.status) == (4 + (status == "over"), 4, status)
    floating = row(check(dense_net(6, 2), chip), "weight_palette", "fc1")
    assert (floating.used, floating.status) == (
        None,
        "unchecked",
    ) and "quantise each neuron's weights to 4 values" in floating.remedy


def test_brainscales2_takes_two_cells_for_a_weight_with_a_sign() -> None:
    chip, neuron = small_chip("brainscales2"), CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005)
    for sign, cells in ((1, 1), (-1, 2)):
        weight = np.ones((256, 128), np.float32)
        weight[0, 0] = sign
        net = chain([Layer(name="fc", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(128,))
        report = check(net, chip)
        assert row(report, "synapse_memory", "fc").used == 128 * 256 * cells
        assert row(report, "fan_in", "fc").used == 128 * cells
    signed = np.full((10, 129), -1, np.float32)
    report = check(chain([Layer(name="fc", synapse=Dense(weight=signed), neuron=neuron)], input_shape=(129,)), chip)
    assert over(report) == {("fan_in", "fc")} and row(report, "fan_in", "fc").used == 258


def test_odin_has_one_sign_for_each_source() -> None:
    chip = load_profile("odin")
    net = chain([Layer(name="fc", synapse=Dense(weight=np.array([[1.0, -1], [1, 1], [2, -3]])), neuron=IF())], input_shape=(2,))
    report = check(net, chip)
    assert [u.what for u in report.unsupported] == ["1 source with weights of both signs"]
    assert "send each twice" in row(report, "weight_sign", "fc").remedy
    assert check(dense_net(200, 256), chip).verdict != "does_not_fit"
    assert ("cores", "chip") in over(check(dense_net(200, 257), chip))


# ------------------------------------------------------------------------------------------------------------ the others


def test_akida_packs_shared_filters() -> None:
    """16 filters of 3 x 3 from 8 channels at the default bits, spread over as few NPUs as hold them."""
    chip = load_profile("akd1500")
    bits = chip.weights.default_bits.value
    net = chain([Layer(name="c", synapse=conv(RNG, 16, 8, 3, padding=(1, 1)), neuron=IF())], input_shape=(8, 10, 10))
    report = check(net, chip)
    assert row(report, "synapse_memory", "c").used == -(-16 * 72 * bits // chip.synapse_memory.word_bits.value)
    wide = chain([Layer(name="fc", synapse=dense(1000, 5000), neuron=IF())], input_shape=(5000,))
    report = check(wide, chip)
    each = report.placement.slices[0].neurons * 5000 * bits / chip.synapse_memory.word_bits.value
    assert each <= chip.core.synapse_memory.value and report.passes == 1
    assert report.cores_used == -(
        -1000 // (chip.core.synapse_memory.value * chip.synapse_memory.word_bits.value // (5000 * bits))
    )


def test_spinnaker_rows() -> None:
    """A row for each source and target core: 3 words of header and a word a synapse, borders of a convolution left out."""
    chip = load_profile("spinnaker1")
    report = check(dense_net(100, 50), chip)
    assert row(report, "synapse_memory", "chip").used == 100 * (3 + 50)
    net = chain([Layer(name="c", synapse=conv(RNG, 2, 1, 3, padding=(1, 1)), neuron=IF())], input_shape=(1, 4, 4))
    pairs = 4 * 4 + 8 * 6 + 4 * 9
    assert row(check(net, chip), "synapse_memory", "chip").used == 16 * 3 + 2 * pairs


def test_spinnaker2_stores_synapses_in_a_format_that_is_not_public() -> None:
    report = check(dense_net(100, 50), load_profile("spinnaker2"))
    assert report.verdict == "unchecked"
    assert row(report, "synapse_memory", "fc1").status == "unchecked"


@pytest.mark.parametrize(
    ("net", "resource", "used", "status"),
    [
        (dense_net(4200, 50), "axons_in", 4200, "over"),  # forum.nengo.ai/t/927: "Input axons (4200) exceeded max (4096)"
        (dense_net(4096, 1), "axons_in", 4096, "tight"),
        (dense_net(3, 1024), "neurons", 1024, "tight"),
        (dense_net(3, 1025), "neurons", 513, "ok"),
    ],
)
def test_loihi1_limits_of_nengo_loihi(net: SNNGraph, resource: str, used: int, status: str) -> None:
    result = row(check(net, load_profile("loihi1")), resource, "fc1")
    assert (result.used, result.status) == (used, status)


def test_an_unlimited_limit_has_no_row_and_an_unpublished_one_is_unchecked() -> None:
    net = dense_net(10, 20, 5)
    for key, where in (("fan_in", "fc1"), ("fan_out", "fc1"), ("fan_out_mean", "chip"), ("input_channels", "input")):
        chip = small_chip("loihi2", **{f"connectivity__{key}": None})
        report = check(net, chip)
        assert report.verdict == "unchecked", key
        assert row(report, key, where).status == "unchecked"
        unlimited: HardwareProfile = small_chip("loihi2", **{f"connectivity__{key}": "unlimited"})
        assert check(net, unlimited).verdict == "fits"
        assert key not in {r.resource for r in check(net, unlimited).rows}


def test_recurrence_where_the_chip_has_none() -> None:
    net = SNNGraph(
        layers=(Layer(name="a", synapse=dense(3, 3), neuron=IF()),),
        edges=(Edge(source="input", target="a"), Edge(source="a", target="a", delay=1)),
        input_shape=(3,),
    )
    report = check(net, small_chip("loihi2", connectivity__recurrent=False))
    assert [(u.layer, u.what) for u in report.unsupported] == [("a", "feedback from 'a'")]
    assert row(report, "recurrent", "a").used == 1
    assert check(net, small_chip("loihi2")).verdict == "fits"


def test_unpublished_geometry_is_unchecked() -> None:
    net = chain(
        [Layer(name="c", synapse=Conv2d(weight=np.ones((2, 2, 3, 3)), dilation=(2, 2)), neuron=IF())], input_shape=(2, 9, 9)
    )
    report = check(net, small_chip("loihi2", layers__conv_dilation_max=None))
    assert report.verdict == "unchecked"
    assert row(report, "layer_kind", "c").detail == "dilation 2: loihi2 publishes no limit"
