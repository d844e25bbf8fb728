"""Readout on the host in plans: strides for its pools, one frame, all neurons of a crossbar; weights fitted to spikes."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.crossbar import find_hidden_layer
from spear_deploy.adaptation.frames import find_frames
from spear_deploy.adaptation.host import (
    _compute_logits,
    _weigh_spikes,
    can_move_readout,
    find_host,
    fit_readouts,
    measure_kernels,
)
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.adaptation.pools import find_pools
from spear_deploy.adaptation.reach import find_reach, name_replacements
from spear_deploy.budget.check import check
from spear_deploy.data import Split
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, AvgPool, BatchNorm, Conv2d, CubaLI, Dense, Layer
from spear_deploy.network.classes import count_classes, count_per_class, score_classes, state_decision, state_outputs_per_class
from spear_deploy.network.fixed_weights import FIXED_WEIGHTS, list_fixed_layers
from spear_deploy.network.graph import chain
from spear_deploy.network.host_readout import join_readout, merge_weights, move_to_host, read_host_readout, replace_weights
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide, read_on_host
from spear_deploy.training.evaluation import evaluate

RNG = np.random.default_rng(0)


def network(neuron=None, classes=4):
    """Return a convolution that spikes, a pool, and a readout."""
    rng = np.random.default_rng(1)
    conv = Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(3, 1, 3, 3)), padding=(1, 1)), neuron=LIF(tau_s=0.002))
    readout = Layer(
        name="out", synapse=Dense(weight=rng.normal(size=(classes, 12)), bias=rng.normal(size=classes)), neuron=neuron
    )
    return chain([conv, Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))), readout], input_shape=(1, 4, 4))


LEAKY = LI(tau_s=0.003, v_leak=0.1)


def test_the_replacement_names_what_leaves_the_chip():
    offer = find_host(network(LEAKY))
    assert (offer.layers, offer.what, offer.kind) == (("out",), "LI", "exact")
    assert offer.by == "integrated by the host, from the spikes in front of it"
    assert find_host(network()).what == "a weighted sum"
    assert [layer.name for layer in offer.rewrite(network(LEAKY)).layers] == ["conv"]
    assert can_move_readout(network(LEAKY)) and not can_move_readout(network(IF()))


@pytest.mark.parametrize("decision", ["mean", "last", "maximum", "each"])
@pytest.mark.parametrize("neuron", [LEAKY, LI(tau_s=0.001 * np.array([2.0, 2.0, 3.0, 3.0])), None], ids=["LI", "by class", "sum"])
def test_the_host_has_one_output_for_those_of_a_class(neuron, decision):
    graph, rng = network(neuron), np.random.default_rng(2)
    norm = BatchNorm(weight=rng.random(4) + 0.5, bias=rng.random(4), mean=rng.random(4), var=rng.random(4) + 0.5, eps=1e-5)
    graph = graph.with_layers({"out": replace(graph["out"], norm=norm)})
    together = state_decision(state_outputs_per_class(graph, 2), decision)
    moved = find_host(together).rewrite(together)
    assert (count_classes(moved), count_per_class(moved)) == (2, 1)
    x = rng.integers(0, 2, (7, 20, 1, 4, 4))
    scores = score_classes(simulate(together, x, dtype=np.float64).output, together)
    theirs = score_classes(read_on_host(moved, simulate(moved, x, dtype=np.float64).output), moved)
    np.testing.assert_allclose(theirs, scores, rtol=1e-5, atol=1e-5)
    assert np.ptp(scores) > 0.1


def test_outputs_of_a_class_that_differ_in_their_time_constants_stay_on_the_chip():
    graph = state_outputs_per_class(network(LI(tau_s=0.001 * np.array([2.0, 3.0, 2.0, 3.0]))), 2)
    with pytest.raises(UnsupportedError, match="readout by the host: the outputs of a class of 'out' differ in tau_s, so that"):
        find_host(graph)
    assert not can_move_readout(graph)


def test_a_pool_of_the_host_becomes_a_stride_where_the_chip_is_too_small():
    moved = move_to_host(network(LEAKY))
    small = override_facts(load_profile("brainscales2"), {"core.neurons": 20})
    assert not list(find_pools(moved, small))
    offers = {offer.option: offer for offer in find_pools(moved, small, all_pools=True)}
    assert set(offers) == {"mean of currents", "stride before"}
    strided = offers["stride before"].rewrite(moved)
    assert strided.shape_of("conv") == (3, 2, 2) and strided["conv"].synapse.stride == (2, 2)
    host = read_host_readout(strided)
    assert [layer.name for layer in host.layers] == ["out"] and host.input_shape == (3, 2, 2)
    best = make_plans(moved, small)[0]
    assert not best.lacking and any(step.replacement.topic == "pool" for step in best.steps)


def test_one_frame_is_integrated_in_one_step():
    (offer,) = find_frames(move_to_host(network(LEAKY)), load_profile("akd1000"))
    framed = offer.rewrite(move_to_host(network(LEAKY)))
    (readout,) = read_host_readout(framed).layers[1:]
    assert framed["conv"].neuron.max_spikes == 15 and float(readout.neuron.tau_s) == framed.dt_s
    assert float(readout.neuron.r) == pytest.approx(1 / 3)


def test_a_hidden_layer_that_the_host_reads_has_all_neurons_and_rows():
    graph = chain(
        [
            Layer(name="fc", synapse=Dense(weight=RNG.normal(size=(30, 64))), neuron=LIF(tau_s=0.002)),
            Layer(name="out", synapse=Dense(weight=RNG.normal(size=(10, 30))), neuron=LEAKY),
        ],
        input_shape=(64,),
    )
    odin = load_profile("odin")
    on_chip, on_host = (next(find_hidden_layer(each, odin)).rewrite(each) for each in (graph, move_to_host(graph)))
    assert on_chip.shape_of("hidden") == (128,) and on_host.shape_of("hidden") == (256,)
    assert [layer.name for layer in on_host.layers] == ["hidden"] and check(on_host, odin).verdict != "does_not_fit"
    (readout,) = read_host_readout(on_host).layers
    assert readout.synapse.weight.shape == (10, 256) and readout.neuron == LEAKY
    wide = replace(network(LEAKY), input_shape=(1, 4, 4))
    image = chain(
        [replace(wide.layers[0]), replace(wide.layers[2], synapse=Dense(weight=RNG.normal(size=(4, 3 * 16 * 16))))],
        input_shape=(1, 16, 16),
    )
    assert "windows of 2 x 2" in next(find_hidden_layer(image, odin)).by
    assert "windows of 1 x 2" in next(find_hidden_layer(move_to_host(image), odin)).by  # no other source needs rows


@pytest.mark.parametrize(
    "neuron",
    [LEAKY, CubaLI(tau_mem_s=0.004, tau_syn_s=0.002), LI(tau_s=0.001 * np.array([2.0, 3.0, 2.0, 5.0]), r=2.0), None],
    ids=["LI", "CubaLI", "each its own", "sum"],
)
@pytest.mark.parametrize("decision", ["mean", "last", "maximum", "each"])
def test_what_decides_of_the_readout_is_linear_in_the_weighed_spikes(neuron, decision):
    import torch

    moved = state_decision(move_to_host(network(neuron)), decision)
    split = Split(x=RNG.integers(0, 2, (20, 7, 1, 4, 4)).astype(np.uint8), y=np.zeros(20, np.int64), kind="spikes")
    host = read_host_readout(moved)
    weight, bias = (np.array(value) for value in merge_weights(host))
    kernels, level = measure_kernels(host.layers[-1], host, 7, decision)
    assert len(kernels) == (7 if decision in ("maximum", "each") else 1)
    columns, which = np.unique(kernels, axis=2, return_inverse=True)
    assert columns.shape[2] == (3 if neuron is not None and np.size(getattr(neuron, "tau_s", 0)) > 1 else 1)
    features = _weigh_spikes(moved, split, columns)
    logits = _compute_logits(features, which.ravel(), kernels, level, torch.from_numpy(weight), torch.from_numpy(bias), decision)
    values = read_on_host(moved, simulate(moved, np.moveaxis(split.x, 0, 1)).output)
    np.testing.assert_allclose(logits.numpy(), score_classes(values, moved), atol=1e-5)


@pytest.mark.parametrize("decision", ["mean", "last", "maximum", "each"])
@pytest.mark.parametrize("neuron", [LEAKY, None], ids=["LI", "sum"])
def test_weights_fitted_to_spikes_tell_classes_apart_again(neuron, decision):
    """Fitted to the mean, the weighted sum of the last step would tell 88 % apart."""
    rng = np.random.default_rng(4)
    moved = state_decision(move_to_host(network(neuron)), decision)
    x = rng.integers(0, 2, (200, 7, 1, 4, 4)).astype(np.uint8)
    labels = decide(simulate(moved, np.moveaxis(x, 0, 1)).output, moved)
    split = Split(x=x, y=labels, kind="spikes")
    weight, _ = merge_weights(read_host_readout(moved))
    lost = replace_weights(moved, weight + 3 * rng.normal(size=weight.shape).astype(np.float32), np.zeros(4, np.float32))
    assert evaluate(lost, split).accuracy < 0.9
    fitted = fit_readouts(lost, lost, split)
    assert len(fitted) == 3 and max(evaluate(graph, split).accuracy for graph in fitted) > 0.95
    assert all(graph["conv"] == moved["conv"] for graph in fitted)


def test_a_fitted_readout_is_no_more_one_of_fixed_weights():
    """Votes that the host counts have other weights then, and what votes may lose channels again."""
    votes = replace(network(), metadata={FIXED_WEIGHTS: ["out"]})
    moved = move_to_host(votes)
    assert list_fixed_layers(join_readout(moved)) == ("out",)
    split = Split(x=RNG.integers(0, 2, (20, 3, 1, 4, 4)).astype(np.uint8), y=np.arange(20) % 4, kind="spikes")
    assert [list_fixed_layers(join_readout(graph)) for graph in fit_readouts(moved, moved, split)] == [()] * 3


def test_a_remedy_names_the_host_where_it_could_integrate():
    speck = load_profile("speck2f")
    for neuron, named in ((LEAKY, True), (IF(), False)):
        graph = network(neuron)
        report = name_replacements(check(graph, speck), find_reach(graph, speck))
        remedies = [row.remedy or "" for row in report.rows if row.where == "out" and row.status == "over"]
        assert (
            any("or with `--readout host` the host integrates the spikes in front of it (exact)" in r for r in remedies) is named
        )
