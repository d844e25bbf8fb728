"""Neurons that share weights or a threshold: other units even out what differs, with the same spikes."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.network import IF, LI, LIF, Conv1d, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import chain
from spear_deploy.quantize import quantize
from spear_deploy.quantize.even_neurons import SHARED, Uneven, average_shared, even_neurons, find_uneven
from spear_deploy.quantize.explain.attribution import explain
from spear_deploy.quantize.explain.stages import build_stages
from spear_deploy.quantize.rounding import read_rounding
from spear_deploy.simulator import simulate
from tests.support.seeds import few_first

SHAPE = (3, 4, 4)


def conv_network(neuron, *, weight=None, bias=None):
    weight = np.random.default_rng(0).integers(-3, 4, (3, 1, 3, 3)) if weight is None else weight
    conv = Layer(name="c", synapse=Conv2d(weight=np.asarray(weight, np.float32), padding=(1, 1), bias=bias), neuron=neuron)
    return chain([conv], input_shape=(1, 4, 4))


def names_of(graph, sharing, format=""):
    uneven = find_uneven(graph, graph["c"], sharing, format)
    return () if uneven is None else uneven.names


def random_spikes(seed, steps=20):
    return (np.random.default_rng(seed).random((steps, 2, 1, 4, 4)) < 0.4).astype(np.uint8)


def spikes_of(graph, x):
    return simulate(graph, x, record=("spikes",), dtype=np.float64).spikes["c"]


def uneven(seed, model):
    """Return a neuron with constants of its own for each place of the map."""
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return rng.uniform(low, high, SHAPE).astype(np.float32)

    common = {"r": draw(1, 3), "v_threshold": draw(1, 4), "reset": ("value", "subtract")[seed % 2]}
    if common["reset"] == "value":
        common["v_reset"] = draw(-0.5, 0.5)
    if model is IF:
        return IF(**common)
    common |= {"v_leak": draw(-0.3, 0.3), "v_init": draw(-0.3, 0.3)} | ({"reset_delay": 1} if seed % 4 == 1 else {})
    if model is LIF:
        return LIF(tau_s=draw(2e-3, 9e-3), **common)
    return CubaLIF(tau_mem_s=draw(2e-3, 9e-3), tau_syn_s=draw(2e-3, 9e-3), w_in=draw(1, 2), **common)


@pytest.mark.parametrize("model", few_first([LIF, IF, CubaLIF], 1))
def test_even_gains_keep_the_spikes_of_random_neurons(model):
    """In 64 bits a potential may meet its threshold on one side alone: of 300 networks none does."""
    fired = 0
    for seed in range(100):
        graph, x = conv_network(uneven(seed, model)), random_spikes(seed)
        for format in ("loihi", "spinnaker", "reckon"):
            evened = even_neurons(graph, format)
            assert evened["c"].neuron.r.dtype == np.float64
            before, after = spikes_of(graph, x), spikes_of(evened, x)
            np.testing.assert_array_equal(before, after, err_msg=f"{format} {seed}")
            fired += int(before.sum())
    assert fired > 10_000


@pytest.mark.parametrize(("format", "reset"), [("loihi", "value"), ("loihi", "subtract"), ("truenorth", "value")])
def test_integers_hold_gains_of_their_own_exactly(format, reset):
    """Gains and thresholds that are powers of two, and whole weights, have integers without rounding: 0 spikes differ."""
    rng = np.random.default_rng(1)
    fired = 0
    for seed in range(20):
        neuron = IF(r=2.0 ** rng.integers(-1, 2, SHAPE), v_threshold=2.0 ** rng.integers(1, 4, SHAPE), reset=reset)
        weight = np.broadcast_to(rng.choice([-2, -1, 1, 2], (3, 1, 1, 1)), (3, 1, 3, 3))
        graph, x = conv_network(neuron, weight=weight), random_spikes(seed)
        wanted = spikes_of(graph, x)
        np.testing.assert_array_equal(wanted, spikes_of(quantize(graph, format=format, calibration=x), x))
        fired += int(wanted.sum())
    assert fired > 1000


def test_a_dense_layer_and_even_constants_stay_as_they_are():
    dense = Layer(name="c", synapse=Dense(weight=np.ones((4, 3))), neuron=IF(r=np.arange(1.0, 5.0)))
    graph = chain([dense], input_shape=(3,))
    assert even_neurons(graph, "loihi")["c"].neuron is dense.neuron
    by_channel = conv_network(IF(r=np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)))
    assert even_neurons(by_channel, "loihi")["c"].neuron is by_channel["c"].neuron


def test_a_gain_of_zero_or_below_is_refused_as_before():
    r = np.ones(SHAPE)
    r[0, 0, 0] = 0
    with pytest.raises(UnsupportedError, match="layer 'c': time constants, thresholds or r differ inside a channel"):
        quantize(conv_network(IF(r=r)), format="loihi")


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_speck_takes_gains_and_thresholds_that_differ_alike(reset):
    """r and θ of a neuron that grow together are one neuron in other units: 0 spikes differ from those without."""
    factor = 2.0 ** np.random.default_rng(2).integers(-2, 3, SHAPE)
    even, alike = (conv_network(IF(r=f, v_threshold=4 * f, reset=reset)) for f in (np.ones(()), factor))
    x = random_spikes(3)
    integers = [quantize(graph, format="speck") for graph in (even, alike)]
    np.testing.assert_array_equal(*(spikes_of(integer, x) for integer in integers))
    np.testing.assert_array_equal(integers[0]["c"].synapse.weight, integers[1]["c"].synapse.weight)
    assert names_of(alike, "channel") == ()


def test_pairs_of_a_dense_layer_take_one_threshold_by_their_weights():
    dense = Layer(name="c", synapse=Dense(weight=np.ones((3, 2))), neuron=LIF(tau_s=0.01, v_threshold=np.array([1.0, 3.0, 5.0])))
    graph = chain([dense], input_shape=(2,))
    neuron = even_neurons(graph, "reckon")["c"].neuron
    assert neuron.v_threshold.tolist() == [2.0, 2.0, 5.0]
    np.testing.assert_allclose(neuron.r, [2.0, 2 / 3, 1.0])
    integer = quantize(graph, format="reckon")
    assert integer["c"].neuron.v_threshold[0] == integer["c"].neuron.v_threshold[1]


def test_what_still_differs_is_named_and_averaged():
    theta = np.tile([1.0, 3.0], 24).reshape(SHAPE)
    graph = conv_network(IF(v_threshold=theta, reset="subtract"))
    assert names_of(graph, "channel") == ("v_threshold",)
    assert names_of(graph, "pair") == ("v_threshold",)
    assert names_of(graph, "neuron") == ()
    shared = average_shared(graph, graph["c"], Uneven(names=("v_threshold",), sharing="channel"))
    assert shared.v_threshold.shape == (3, 1, 1) and (shared.v_threshold == 2).all()
    np.testing.assert_allclose(shared.r, (2 / 1 + 2 / 3) / 2)  # the mean of r / θ, times the mean threshold
    taus = np.arange(48.0).reshape(SHAPE) * 1e-3 + 8e-3
    leaky = conv_network(LIF(tau_s=taus))
    assert names_of(leaky, "pair") == ("tau_s",)
    np.testing.assert_allclose(
        average_shared(leaky, leaky["c"], Uneven(names=("tau_s",), sharing="pair")).tau_s.ravel()[:4],
        [8.5e-3, 8.5e-3, 10.5e-3, 10.5e-3],
    )


def test_channels_behind_a_flatten_and_weights_of_each_value():
    theta = np.repeat([1.0, 2.0, 3.0], 16)
    conv = Layer(name="conv", synapse=Conv2d(weight=np.ones((3, 1, 3, 3)), padding=(1, 1)))

    def behind_flatten(thresholds):
        return chain([conv, Layer(name="c", synapse=Flatten(), neuron=IF(v_threshold=thresholds))], input_shape=(1, 4, 4))

    by_channel, by_neuron = behind_flatten(theta), behind_flatten(theta * np.arange(1, 49))
    assert names_of(by_channel, "channel") == ()
    assert names_of(by_neuron, "channel") == ("v_threshold",)
    scale = Layer(
        name="c", synapse=Scale(weight=np.ones((1, 4, 4))), neuron=IF(v_threshold=np.arange(1.0, 17.0).reshape(1, 4, 4))
    )
    own = chain([scale], input_shape=(1, 4, 4))
    assert names_of(own, "channel") == ()


@pytest.mark.parametrize("format", ["speck", "akida", "reckon"])
def test_gains_that_differ_by_the_rounding_of_float32_are_one(format):
    """Pruning moves thresholds by a factor, in float32: gains in proportion to them stay so but for the last digit."""
    theta = np.random.default_rng(2).uniform(1, 2, SHAPE).astype(np.float32)
    threshold = (1.0037 * theta.astype(np.float64)).astype(np.float32)
    assert len(np.unique(threshold / theta.astype(np.float64))) > 1
    models = {
        "speck": IF(r=theta, v_threshold=threshold, reset="subtract"),
        "akida": LIF(tau_s=1e-3, r=theta, v_threshold=threshold, max_spikes=15),
        "reckon": LIF(tau_s=0.02, r=theta, v_threshold=threshold),
    }
    graph = conv_network(models[format])
    assert names_of(graph, "pair" if format == "reckon" else "channel") == ()
    neuron = quantize(graph, format=format, calibration=random_spikes(2))["c"].neuron
    rows = np.broadcast_to(neuron.v_threshold, SHAPE).reshape(3, -1)
    assert (rows == rows[:, :1]).all()


def test_a_bias_and_currents_of_their_own_on_spinnaker():
    """The bias reaches v through another gain than a spike's current does: both are those of each neuron.

    A bias acts from the first step on the chip, and through the current in the network: they differ until that has risen.
    """
    neuron = CubaLIF(tau_mem_s=0.01, tau_syn_s=np.linspace(2e-3, 9e-3, 48).reshape(SHAPE), w_in=5.0, r=2.0)
    graph, x = conv_network(neuron, bias=np.array([0.05, 0.2, -0.1], np.float32)), random_spikes(4, steps=60)
    integer = quantize(graph, format="spinnaker", calibration=x)
    before, after = spikes_of(graph, x)[30:], spikes_of(integer, x)[30:]
    assert before.mean() > 0.05 and np.mean(before != after) < 0.003


def test_a_constant_input_inside_a_channel_is_refused_on_akida():
    neuron = LIF(tau_s=1e-3, v_leak=np.linspace(0, 1, 48).reshape(SHAPE), max_spikes=15)
    with pytest.raises(UnsupportedError, match="layer 'c': v_leak differs inside a channel, a filter of Akida has one"):
        quantize(conv_network(neuron), format="akida")


def test_explain_counts_from_the_potentials_of_the_network_as_stored():
    neuron = LIF(tau_s=np.linspace(4e-3, 9e-3, 48).reshape(SHAPE), r=3.0, reset="subtract")
    graph, x = conv_network(neuron), random_spikes(5)
    integer = quantize(graph, format="loihi", calibration=x)
    stages = {stage.name: stage for stage in build_stages(graph, integer, x)}
    factor, level = stages["potentials"].units["c"]
    potentials = [simulate(g, x, record=("v",), dtype=np.float64).v["c"] for g in (graph, stages["potentials"].graph)]
    np.testing.assert_allclose(potentials[0], potentials[1] / factor + level, rtol=1e-9)
    assert stages["scale"].units is stages["input"].units
    assert "potentials" in [cost.step for cost in explain(graph, integer, x).costs]


def test_learning_with_rounding_quantises_to_the_integers_that_it_learnt_with():
    neuron = LIF(tau_s=np.linspace(4e-3, 9e-3, 48).reshape(SHAPE).astype(np.float32), r=3.0, reset="subtract")
    graph, x = conv_network(neuron, weight=np.random.default_rng(6).normal(size=(3, 1, 3, 3))), random_spikes(6)
    integer = quantize(graph, format="loihi", calibration=x)
    again = quantize(read_rounding(graph, integer).graph, format="loihi", calibration=x)
    np.testing.assert_array_equal(integer["c"].synapse.weight, again["c"].synapse.weight)
    np.testing.assert_array_equal(integer["c"].neuron.v_threshold, again["c"].neuron.v_threshold)
    np.testing.assert_array_equal(spikes_of(integer, x), spikes_of(again, x))


def test_formats_share_what_the_profiles_of_their_chips_say():
    for name in list_profiles():
        profile = load_profile(name)
        assert SHARED.get(profile.meta.family, "neuron") == (profile.neuron.constants_of.value or "neuron"), name


READOUT_TAUS = np.linspace(8e-3, 30e-3, 48).reshape(SHAPE).astype(np.float32)


READOUT = {
    "loihi": LI(tau_s=READOUT_TAUS, v_leak=0.1 * READOUT_TAUS),
    "spinnaker": CubaLI(tau_mem_s=0.01, tau_syn_s=READOUT_TAUS, v_leak=0.1 * READOUT_TAUS),
}


@pytest.mark.parametrize("format", READOUT)
def test_a_readout_whose_weights_cannot_hold_its_gains_is_named_and_averaged(format):
    graph = conv_network(READOUT[format])
    uneven = find_uneven(graph, graph["c"], "neuron", format)
    assert uneven is not None and len(uneven.names) == 1 and uneven.sharing == "channel"
    with pytest.raises(UnsupportedError, match="layer 'c': time constants, thresholds or r differ inside a channel"):
        quantize(graph, format=format)
    shared = average_shared(graph, graph["c"], uneven)
    assert getattr(shared, uneven.names[0]).shape == (3, 1, 1) and shared.v_leak.shape == SHAPE, "leaks stay those of each neuron"
    assert quantize(conv_network(shared), format=format).is_integer


def test_parameters_of_a_readout_that_differ_by_rounding_are_named_where_no_other_makes_its_gains_uneven():
    """Each differs by less than what counts as one value; together their gains differ by more."""
    ends = np.where(np.arange(48).reshape(SHAPE) % 2, 1.0, -1.0)
    far = LI(tau_s=READOUT_TAUS, r=1 + 4e-7 * ends)
    assert names_of(conv_network(far), "neuron", "loihi") == ("tau_s",)
    near = LI(tau_s=0.01 * (1 - 4e-7 * ends), r=1 + 4e-7 * ends)
    assert names_of(conv_network(near), "neuron", "loihi") == ("tau_s", "r")


def test_a_readout_of_dense_weights_or_with_even_gains_holds_its_constants():
    dense = Layer(name="c", synapse=Dense(weight=np.ones((4, 3))), neuron=LI(tau_s=np.array([8e-3, 9e-3, 10e-3, 11e-3])))
    assert names_of(chain([dense], input_shape=(3,)), "neuron", "loihi") == ()
    even = conv_network(LI(tau_s=READOUT_TAUS, r=READOUT_TAUS))  # mem · r is one number but for its rounding
    assert names_of(even, "neuron", "loihi") == () and quantize(even, format="loihi").is_integer
    assert names_of(even, "neuron", "spinnaker2") == (), "its weights take no gain"


def test_time_constants_that_differ_by_rounding_are_one_integer_of_a_pair():
    """2^15 (1 − dt / tau) lies on a half where one tau of a pair is a float32 further: two numbers, were they rounded alone."""
    tau = np.full((3, 4, 4), np.float32(1e-3 * 2**15 / 1000.5))
    pairs = tau.reshape(-1, 2).copy()
    below, above = (np.nextafter(pairs[0, 0], np.float32(end)) for end in (0, 1))
    pairs[:, 0], pairs[:, 1] = below, above
    neuron = LIF(tau_s=pairs.reshape(SHAPE), v_threshold=2.0)
    alone = np.rint(2**15 * (1 - 1e-3 / np.asarray([below, above], np.float64)))
    assert alone[0] != alone[1]
    graph = conv_network(neuron)
    assert names_of(graph, "pair", "reckon") == ()
    keep = np.broadcast_to(quantize(graph, format="reckon")["c"].neuron.keep, SHAPE).reshape(-1, 2)
    assert (keep[:, 0] == keep[:, 1]).all()


@pytest.mark.parametrize("format", ["speck", "akida"])
@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_the_threshold_that_a_channel_shares_is_measured_from_the_reset(format, reset):
    """Reset to a value: θ − v_reset is one in a channel; by subtraction: θ, whatever v_reset is."""
    thresholds = np.linspace(1, 2, 48).reshape(SHAPE).astype(np.float32)
    resets = np.linspace(0.5, -0.5, 48).reshape(SHAPE).astype(np.float32)
    given = IF(v_threshold=thresholds, v_reset=resets, reset=reset)
    neuron = even_neurons(conv_network(given), format)["c"].neuron
    height = (neuron.v_threshold - neuron.v_reset if reset == "value" else neuron.v_threshold).reshape(3, -1)
    first = (thresholds - resets if reset == "value" else thresholds).reshape(3, -1)
    np.testing.assert_allclose(height, np.broadcast_to(first.mean(axis=1, keepdims=True), height.shape), rtol=1e-6)
    assert np.ptp(neuron.r) > 0.1


def test_thresholds_at_the_reset_stay_as_they_are():
    """A neuron that spikes at rest has no height that another unit could change."""
    thresholds = np.linspace(1, 2, 48).reshape(SHAPE).astype(np.float32)
    given = IF(v_threshold=thresholds, v_reset=np.where(thresholds > 1.5, thresholds, 0).astype(np.float32), reset="value")
    with np.errstate(all="raise"):
        assert even_neurons(conv_network(given), "speck")["c"].neuron == given


def test_constants_of_a_pair_that_differ_in_their_last_digit_become_equal():
    first, second = np.float32(3e-3), np.float32(7e-3)
    taus = np.array([first, np.nextafter(first, np.float32(1)), second, np.nextafter(second, np.float32(0))])
    layer = Layer(name="c", synapse=Dense(weight=np.ones((4, 3), np.float32)), neuron=LIF(tau_s=taus))
    tau = even_neurons(chain([layer], input_shape=(3,)), "reckon")["c"].neuron.tau_s
    assert tau[0] == tau[1] and tau[2] == tau[3]
    np.testing.assert_allclose(tau, taus, rtol=1e-6)
    integers = quantize(chain([replace(layer, neuron=LIF(tau_s=9e-3))], input_shape=(3,)), format="reckon")
    assert even_neurons(integers, "reckon") == integers


def test_a_channel_of_two_positions_shares_its_gain_and_its_mean():
    gains = np.array([[1, 2], [1, 1], [3, 3]], np.float32)
    layer = Layer(name="c", synapse=Conv1d(weight=np.ones((3, 1, 1), np.float32)), neuron=IF(r=gains))
    graph = chain([layer], input_shape=(1, 2))
    assert names_of(graph, "channel", "speck") == ("r",)
    mean = average_shared(graph, graph["c"], find_uneven(graph, graph["c"], "channel", "speck")).r
    assert mean.tolist() == [[1.5], [1.0], [3.0]]


def test_neurons_behind_pools_alone_have_constants_of_their_own():
    """A pool of the input, or of spikes, has no weights that neurons could share."""
    uneven_pool = IF(v_threshold=np.linspace(1, 2, 12).reshape(3, 2, 2).astype(np.float32))
    pool = Layer(name="c", synapse=SumPool(kernel_size=(2, 2)), neuron=uneven_pool)
    spiking = Layer(name="a", synapse=Conv2d(weight=np.ones((3, 1, 1, 1), np.float32)), neuron=IF())
    for graph in (chain([pool], input_shape=(3, 4, 4)), chain([spiking, pool], input_shape=(1, 4, 4))):
        assert names_of(graph, "channel", "speck") == ()


def test_gains_that_differ_by_more_than_their_parameters_name_these():
    """r and tau are each one value within 1e-6, their quotient is not: nothing was named, and `adapt` ended in a ValueError."""
    off = 1 + 0.4e-6 * np.where(np.arange(16) < 8, 1, -1).reshape(1, 4, 4)
    assert names_of(conv_network(LI(tau_s=0.01 / off, r=off)), "neuron", "reckon") == ("tau_s", "r")
    assert names_of(conv_network(LI(tau_s=0.01, r=off)), "neuron", "reckon") == ()
