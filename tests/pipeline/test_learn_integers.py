"""Learning of an adapted network in its chip's integers: when, how often, and what is kept."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation import learn as module
from spear_deploy.adaptation.learn import SMALLER_STEPS, LearnSettings
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, LIF, CubaLIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline.learn_integers import learn_integers, needs_zeros
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.training import train
from spear_deploy.training.evaluation import BATCH, evaluate
from tests.training.test_fit import quick, toy_data
from tests.training.test_rounding import toy

DATA, LEAKS = toy_data(), {"tau_s": 9.3e-3, "r": 4.0}
SETTINGS = LearnSettings(epochs=4, learning_rate=0.01)


@pytest.fixture(scope="module")
def trained():
    return train(toy(LIF(**LEAKS), LI(**LEAKS), bias=False), DATA, recipe=quick(12))


@pytest.fixture
def rates(monkeypatch):
    """Return the learning rates of the rounds that are learnt, as they are."""
    seen, fit = [], module.fit

    def note(graph, dataset, recipe, **more):
        seen.append(recipe.learning_rate)
        return fit(graph, dataset, recipe, **more)

    monkeypatch.setattr(module, "fit", note)
    return seen


def inputs(network, chip, bits=None):
    changes = {} if bits is None else {"weights.bits": [bits], "weights.default_bits": bits}
    return CheckedInputs(network=network, profile=override_facts(load_profile(chip), changes), chips=1, dataset=DATA)


def test_integers_as_good_as_the_network_are_left_as_they_are(trained, rates):
    result = learn_integers(inputs(trained, "loihi2"), SETTINGS)
    assert rates == [] and result.batches == 0 and result.graph is trained


def test_integers_that_lose_learn_a_round_and_one_with_smaller_steps_only_below_the_aim(trained, rates):
    coarse = inputs(trained, "loihi2", bits=2)
    reached = learn_integers(coarse, SETTINGS)
    assert rates == [0.01]
    before = evaluate(*coarse.deploy_integers(trained, DATA.val)).accuracy
    assert reached.accuracy >= before and (reached.graph is not trained) == (reached.accuracy > before)
    assert reached.batches == 4 * -(-len(DATA.train) // BATCH)
    learn_integers(coarse, SETTINGS, aim=2.0)
    assert rates == [0.01, 0.01, pytest.approx(0.01 * SMALLER_STEPS)]


def test_a_chip_whose_rounding_is_not_learnt_has_the_accuracy_of_its_integers(rates):
    network = train(toy(IF(), IF(), bias=False), DATA, recipe=quick(6))
    chip = inputs(network, "catalyst_n1")
    result = learn_integers(chip, SETTINGS, aim=2.0)
    assert rates == [] and result.graph is network
    assert result.accuracy == evaluate(*chip.deploy_integers(network, DATA.val)).accuracy


def test_a_network_without_integers_of_the_chip_has_its_own_accuracy(trained, rates):
    result = learn_integers(inputs(trained, "truenorth"), SETTINGS, aim=2.0)
    assert rates == [] and result.accuracy == evaluate(trained, DATA.val).accuracy


@pytest.mark.parametrize(("inputs_of_a_neuron", "needed"), [(100, True), (400, False)])
def test_zeros_are_kept_where_the_chip_holds_the_network_by_them_alone(inputs_of_a_neuron, needed):
    profile = load_profile("brainscales2")
    weight = np.zeros((20, 400), np.float32)
    for row, held in enumerate(weight):
        held[row * 10 : row * 10 + inputs_of_a_neuron] = 1
    layer = Layer(name="fc", synapse=Dense(weight=weight), neuron=CubaLIF(tau_mem_s=1e-2, tau_syn_s=1e-2))
    network = chain([layer], input_shape=(400,))
    assert needs_zeros(network, profile) == needed == (check(network, profile).verdict != "does_not_fit")
    full = network.with_layers({"fc": replace(layer, synapse=Dense(weight=np.ones_like(weight)))})
    assert not needs_zeros(full, profile)
