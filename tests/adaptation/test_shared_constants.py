"""Thresholds and time constants that the neurons of a chip share: named by a check, replaced by their mean, taken by integers."""

import numpy as np
import pytest

from spear_deploy.adaptation.plan import make_plans
from spear_deploy.adaptation.shared_constants import find_shared_constants
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LIF, Conv2d, Dense, Flatten, Layer, ReckonLIF
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api


def network(neuron, *, out=None):
    rng = np.random.default_rng(0)
    conv = Layer(name="c", synapse=Conv2d(weight=rng.normal(size=(4, 1, 3, 3)).astype(np.float32), padding=(1, 1)), neuron=neuron)
    end = Dense(weight=rng.normal(size=(3, 64)).astype(np.float32))
    layers = [conv, Layer(name="flat", synapse=Flatten()), Layer(name="end", synapse=end, neuron=out or IF(reset="subtract"))]
    return chain(layers, input_shape=(1, 4, 4))


def of_each(low, high):
    return np.random.default_rng(1).uniform(low, high, (4, 4, 4)).astype(np.float32)


CASES = {
    "thresholds": (IF(v_threshold=of_each(1, 2), reset="subtract"), "speck2f", "thresholds that differ inside a channel"),
    "gains": (IF(r=of_each(1, 2), reset="subtract"), "speck2f", "gains that differ inside a channel"),
    "resets": (IF(v_reset=of_each(0, 0.5)), "speck2f", "reset potentials that differ inside a channel"),
    "akida": (LIF(tau_s=1e-3, v_threshold=of_each(1, 2), max_spikes=15), "akd1000", "thresholds that differ inside a channel"),
    "pairs": (LIF(tau_s=of_each(0.01, 0.03)), "reckon", "time constants that differ inside a pair of neurons"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_differs_is_named_replaced_and_gone(case):
    neuron, chip, what = CASES[case]
    out = LIF(tau_s=1e-3, max_spikes=15) if chip == "akd1000" else LIF(tau_s=0.02) if chip == "reckon" else None
    graph, profile = network(neuron, out=out), load_profile(chip)
    report = check(graph, profile)
    (row,) = [row for row in report.rows if row.resource == "neuron_constants"]
    assert (row.where, row.status, report.verdict) == ("c", "over", "does_not_fit") and row.detail.startswith(what)
    plan = make_plans(graph, profile)[0]
    (step,) = [step for step in plan.steps if step.replacement.topic == "constants"]
    assert (step.replacement.what, step.replacement.kind, step.replacement.layers) == (what, "learnt", ("c",))
    assert not [row for row in check(plan.graph, profile).rows if row.resource == "neuron_constants"]
    assert not list(find_shared_constants(plan.graph, profile)) and not plan.lacking
    integer = api.quantize_for_chip(plan.graph, profile)
    assert not [row for row in check(integer, profile).rows if row.resource == "neuron_constants"]


def test_the_advice_of_a_check_goes_on():
    report = api.check(network(CASES["thresholds"][0]), "speck2f")
    (row,) = [row for row in report.rows if row.resource == "neuron_constants"]
    assert (
        "speck2f has one for each channel" in row.detail
        and "`adapt` puts in its place: their mean over a channel (learnt)" in row.remedy
    )


@pytest.mark.parametrize("chip", ["loihi1", "loihi2", "spinnaker1", "xylo_audio3"])
def test_chips_whose_neurons_have_constants_of_their_own_keep_them(chip):
    graph = network(LIF(tau_s=of_each(0.01, 0.03), r=of_each(1, 2)))
    assert not list(find_shared_constants(graph, load_profile(chip)))


def test_a_network_with_one_value_for_a_channel_has_nothing_to_replace():
    graph = network(IF(v_threshold=np.arange(1.0, 5.0).reshape(4, 1, 1), reset="subtract"))
    for chip in ("speck2f", "reckon"):
        assert not list(find_shared_constants(graph, load_profile(chip)))


@pytest.mark.parametrize(("thresholds", "rows"), [([5, 5, 7, 7], 0), ([5, 6, 7, 7], 1)])
def test_integers_with_two_thresholds_in_a_pair_do_not_fit_reckon(thresholds, rows):
    neuron = ReckonLIF(keep=np.array(30000), v_threshold=np.array(thresholds))
    integer = chain([Layer(name="c", synapse=Dense(weight=np.ones((4, 3), np.int32)), neuron=neuron)], input_shape=(3,))
    report = check(integer, load_profile("reckon"))
    assert len([row for row in report.rows if row.resource == "neuron_constants"]) == rows
