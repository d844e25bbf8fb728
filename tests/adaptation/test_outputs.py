"""Several output neurons a class in place of a readout: where, with which weights, and what they bring."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation.neurons import find_models
from spear_deploy.adaptation.outputs import COPIES, ONE, SEVERAL, SPREAD, can_copy, copy_outputs
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, BatchNorm, Dense, Layer, SparseMatrix
from spear_deploy.network.classes import count_classes, count_per_class
from spear_deploy.network.graph import Edge, chain
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.simulator import simulate

DIGITS = shipped_network("digits")
SPARSE = SparseMatrix(data=np.ones(3), indices=np.arange(3), indptr=np.arange(4), shape=(3, 8))


def readout(outputs=3, **changes):
    """Return hidden neurons and a readout of them."""
    rng = np.random.default_rng(0)
    hidden = Layer(name="hidden", synapse=Dense(weight=rng.normal(size=(8, 4))), neuron=IF())
    last = Layer(
        name="out", synapse=Dense(weight=rng.normal(size=(outputs, 8)), bias=rng.normal(size=outputs)), neuron=LI(tau_s=0.01)
    )
    return chain([hidden, replace(last, **changes)], input_shape=(4,))


@pytest.mark.parametrize(
    ("chip", "per_class"),
    [
        ("spinnaker2", 4),
        pytest.param("truenorth", 4, marks=pytest.mark.slow),
        ("speck2f", 4),
        ("catalyst_n1", 4),
        ("odin", 1),
        ("loihi2", 1),
    ],
)
def test_the_profile_decides_how_many_outputs_a_class_has(chip, per_class):
    graph = make_plans(DIGITS, load_profile(chip))[0].graph
    assert (count_per_class(graph), count_classes(graph)) == (per_class, 10)


def test_a_chip_with_few_outputs_keeps_one_a_class():
    few = override_facts(load_profile("spinnaker2"), {"connectivity.output_channels": 39})
    enough = override_facts(load_profile("spinnaker2"), {"connectivity.output_channels": 40})
    assert not can_copy(DIGITS, few) and can_copy(DIGITS, enough)


def test_a_core_too_small_for_several_takes_one_and_the_plan_fits():
    chip = load_profile("spinnaker2")
    (several,) = make_plans(readout(), chip)
    assert [step.replacement.option for step in several.steps if step.replacement.topic == "readout"] == [SEVERAL]
    narrow = override_facts(chip, {"chip.usable_cores": 2, "core.neurons": 200, "connectivity.fan_out": 3})
    (plan,) = make_plans(readout(), narrow)
    assert [step.replacement.option for step in plan.steps if step.replacement.topic == "readout"] == [ONE]
    assert count_per_class(plan.graph) == 1 and plan.report.verdict != "does_not_fit"


def test_copies_have_weights_of_several_sizes_and_parameters_of_their_own():
    taus = np.array([0.01, 0.02, 0.03])
    graph = readout(neuron=LIF(tau_s=taus))
    copied, before = copy_outputs(graph)["out"], graph["out"]
    factors = SPREAD ** ((np.arange(COPIES) + 0.5) / COPIES - 0.5)
    for number in range(3):
        part = slice(COPIES * number, COPIES * (number + 1))
        np.testing.assert_allclose(copied.synapse.weight[part], factors[:, None] * before.synapse.weight[number])
        np.testing.assert_allclose(copied.synapse.bias[part], factors * before.synapse.bias[number])
        assert set(copied.neuron.tau_s[part]) == {taus[number]}


def test_outputs_with_a_norm_of_their_own_have_no_copies():
    ones, zeros = np.ones(3), np.zeros(3)
    norm = BatchNorm(weight=ones, bias=zeros, mean=zeros, var=ones)
    assert not can_copy(readout(norm=norm), load_profile("spinnaker2"))


def test_copies_of_sparse_weights_are_those_of_the_same_weights_written_out():
    sparse, dense = (readout(synapse=Dense(weight=weight), neuron=IF()) for weight in (SPARSE, np.asarray(SPARSE)))
    assert can_copy(sparse, load_profile("spinnaker2"))
    copies = [copy_outputs(graph)["out"].synapse.weight for graph in (sparse, dense)]
    assert isinstance(copies[0], SparseMatrix)
    np.testing.assert_array_equal(np.asarray(copies[0]), copies[1])


def test_outputs_that_neurons_read_have_no_copies():
    graph = readout(outputs=4)
    loop = replace(graph, edges=(*graph.edges, Edge(source="out", target="hidden", delay=1)))
    assert can_copy(graph, load_profile("spinnaker2")) and not can_copy(loop, load_profile("spinnaker2"))


def test_copies_count_finer_than_one_neuron():
    """A neuron driven by a constant counts whole spikes; four of different weights have more sums than one has counts."""
    drives = np.linspace(0.05, 0.95, 40)
    layer = Layer(name="out", synapse=Dense(weight=np.ones((1, 1))), neuron=IF(reset="subtract"))
    graph = chain([layer], input_shape=(1,))
    x = np.broadcast_to(drives[None, :, None], (6, 40, 1)).astype(np.float32)
    counts = [simulate(each, x, kind="current").output.sum(axis=(0, 2)) for each in (graph, copy_outputs(graph))]
    one, several = (len(np.unique(each)) for each in counts)
    assert several > 2 * one
    assert (np.diff(counts[1].astype(int)) >= 0).all()


def test_several_and_one_are_offered_with_their_numbers():
    offers = [offer for offer in find_models(DIGITS, load_profile("spinnaker2")) if offer.topic == "readout"]
    assert [(offer.option, offer.by) for offer in offers] == [
        (SEVERAL, "spikes of 4 LIF output neurons a class, counted"), (ONE, "spikes of LIF output neurons, counted")
    ]  # fmt: skip
