"""One hidden layer on a small crossbar: where it is offered, its size and signs, and that it learns in the chip's integers."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.crossbar import find_hidden_layer
from spear_deploy.adaptation.learn import LearnSettings
from spear_deploy.adaptation.learn_anew import is_anew, learn_anew
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.data import load_data
from spear_deploy.data.input_sums import sum_inputs
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, Conv2d, Dense, Flatten, Layer
from spear_deploy.network.classes import count_classes, read_decision, state_decision
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.host_readout import move_to_host
from spear_deploy.norse.chip_cells import use_chip_neurons
from spear_deploy.norse.network import to_norse
from spear_deploy.norse.straight_through import round_values
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.quantize import quantize
from spear_deploy.quantize.rounding import read_rounding
from spear_deploy.simulator import simulate

DIGITS, ODIN = shipped_network("digits"), load_profile("odin")


def images(side: int):
    """A convolution on one map of so many pixels a side, and a class for each of two outputs."""
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=rng.standard_normal((2, 1, 3, 3)), padding=(1, 1)), neuron=IF()),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=rng.standard_normal((2, 2 * side * side))), neuron=IF()),
    ]
    return chain(layers, input_shape=(1, side, side))


def test_all_rows_of_the_chip_are_inputs_of_both_signs_and_hidden_neurons():
    plan = make_plans(DIGITS, ODIN)[0]
    assert is_anew(plan) and not plan.lacking and plan.report.verdict == "fits"
    ((layers, by),) = {(step.replacement.layers, step.replacement.by) for step in plan.steps}
    assert layers == ("conv1", "conv2", "readout") and by.startswith("one hidden layer of 128 neurons; each input sent on two")
    hidden, output = plan.graph.layers
    assert hidden.synapse.weight.shape == (128, 128) and output.synapse.weight.shape == (10, 128)
    signs = [np.sign(layer.synapse.weight) for layer in plan.graph.layers]
    assert (signs[0][:, ::2] >= 0).all() and (signs[0][:, 1::2] <= 0).all()
    assert (signs[1][:, ::2] >= 0).all() and (signs[1][:, 1::2] <= 0).all()


def test_first_weights_are_those_that_the_chip_stores():
    graph = make_plans(DIGITS, ODIN)[0].graph
    integer = quantize(graph, format="odin")
    for layer in graph.layers:
        stored = integer[layer.name]
        assert stored.neuron.v_threshold == 30 and 4 <= np.abs(stored.synapse.weight).max() <= 7
        np.testing.assert_allclose(stored.synapse.weight, layer.synapse.weight * 16, atol=1e-5)


@pytest.mark.parametrize(("side", "window", "inputs"), [(8, None, 64), (16, [2, 2], 64), (32, [4, 4], 64), (64, [8, 8], 64)])
def test_the_host_sums_what_would_take_more_than_half_of_the_rows(side, window, inputs):
    (offer,) = find_hidden_layer(images(side), ODIN)
    graph = offer.rewrite(images(side))
    assert graph.metadata.get("input_sums") == window and graph.input_shape == (2 * inputs,)
    assert ("sums over windows" in offer.by) is (window is not None)


@pytest.mark.parametrize(
    ("graph", "facts", "why"),
    [
        (DIGITS, {"weights.sign": "synapse"}, "a source has weights of both signs"),
        (DIGITS, {"chip.cores": 2, "chip.usable_cores": 2}, "several crossbars"),
        (DIGITS, {"neuron.models": ["LIF"]}, "no integrator"),
        (DIGITS, {"core.axons_in": 17}, "16 rows of hidden neurons are too many beside 2 of inputs"),
        (images(17), {}, "an odd side has no windows, and too many pixels"),
        (images(128), {}, "windows of 8 x 8 are too many"),
        (images(16), {"neuron.max_input_events_per_step": 3}, "a sum has up to 4 events"),
        (make_plans(DIGITS, ODIN)[0].graph, {}, "it is one already"),
        (chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 8))), neuron=IF())], input_shape=(8,)), {}, "one sign"),
    ],
)
def test_no_hidden_layer_where_it_is_not_needed_or_has_no_room(graph, facts, why):
    assert list(find_hidden_layer(graph, override_facts(ODIN, facts))) == [], why


def adds_currents(kind: str, sign: float) -> SNNGraph:
    """Return hidden neurons driven by the input and by a loop or a skip, all weights of one sign a source unless sign is -1."""
    rng = np.random.default_rng(0)
    weights = {"in": (6, 4), "more": (6, 6 if kind == "loop" else 4), "out": (2, 6)}
    dense = {name: Dense(weight=rng.uniform(0.1, 1, shape)) for name, shape in weights.items()}
    dense["in"] = Dense(weight=dense["in"].weight * np.array([[sign], *[[1.0]] * 5]))
    layers = (
        Layer(name="in", synapse=dense["in"]),
        Layer(name="more", synapse=dense["more"]),
        Layer(name="hidden", neuron=IF()),
        Layer(name="out", synapse=dense["out"], neuron=IF()),
    )
    first = ("hidden", "more", 1) if kind == "loop" else (INPUT, "more", 0)
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), first, ("more", "hidden", 0), ("hidden", "out", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    return SNNGraph(layers=layers, edges=edges, input_shape=(4,), output="out")


@pytest.mark.parametrize("kind", ["loop", "skip"])
def test_currents_that_add_up_have_no_integers_there_and_one_hidden_layer_stands_in(kind):
    graph = adds_currents(kind, sign=1.0)
    with pytest.raises(
        UnsupportedError, match="layer 'hidden': currents of in, more that add up, ODIN's neurons take each spike"
    ):
        quantize(graph, format="odin")
    (offer,) = find_hidden_layer(graph, ODIN)
    assert offer.what == "currents of several layers of weights that add up" and offer.layers == ("in", "more", "out")
    plan = make_plans(graph, ODIN)[0]
    assert is_anew(plan) and not plan.lacking and quantize(plan.graph, format="odin").is_integer


def test_a_network_that_decides_in_each_step_is_learnt_anew_for_a_host_alone():
    """Output neurons that are learnt anew count spikes over all steps; a host integrates them, and has an answer in each."""
    graph = state_decision(adds_currents("loop", sign=1.0), "each")
    graph = graph.with_layers({"out": replace(graph["out"], neuron=LI(tau_s=0.003))})
    assert not list(find_hidden_layer(graph, ODIN))
    (offer,) = find_hidden_layer(move_to_host(graph), ODIN)
    anew = offer.rewrite(move_to_host(graph))
    assert read_decision(anew) == "each" and count_classes(anew) == count_classes(graph)
    assert quantize(anew, format="odin").is_integer


def test_a_replaced_network_is_named_by_what_it_has():
    single = chain([Layer(name="fc", synapse=Dense(weight=np.array([[1.0, 2.0], [-1.0, 1.0]])), neuron=IF())], input_shape=(2,))
    named = [next(find_hidden_layer(graph, ODIN)).what for graph in (single, adds_currents("loop", sign=-1.0))]
    assert named == ["a layer whose inputs have weights of both signs", "layers whose sources have weights of both signs"]


def test_it_learns_in_the_integers_that_it_quantises_to():
    whole, graph = load_data("digits", seed=0), make_plans(DIGITS, ODIN)[0].graph
    data = replace(whole, train=whole.train.head(160), val=whole.val.head(100))

    def round_network(network):
        return read_rounding(network, quantize(network, format="odin"))

    learnt, batches = learn_anew(graph, DIGITS, data, LearnSettings(epochs=2), round_network)
    assert batches == 5 * 5
    x = np.moveaxis(sum_inputs(data, learnt).train.x[:16], 0, 1)
    integer = quantize(learnt, format="odin", calibration=x)
    for layer in integer.layers:
        np.testing.assert_allclose(layer.synapse.weight, learnt[layer.name].synapse.weight * 16, atol=1e-4)
        assert not ((layer.synapse.weight > 0).any(axis=0) & (layer.synapse.weight < 0).any(axis=0)).any()
    assert not any(np.array_equal(learnt[layer.name].synapse.weight, layer.synapse.weight) for layer in graph.layers)
    rounding = round_network(learnt)
    network = to_norse(rounding.latent)
    round_values(network, rounding.grids)
    use_chip_neurons(network, rounding.neurons)
    output, spikes = network(x, record=True)
    run = simulate(integer, x, record=("spikes",))
    for name, sent in run.spikes.items():
        np.testing.assert_array_equal(spikes[name].detach().numpy(), sent)
    output.sum().backward()
    assert run.output.max() > 1 and all(bool(weight.grad.any()) for weight in network.parameters())
