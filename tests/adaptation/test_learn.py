"""Learning by outcome: rounds until validation is good enough, the trained network as teacher, and how far a network is."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.adaptation import learn as learn_module
from spear_deploy.adaptation.few_values import FewValues, best_unit, find_few_values
from spear_deploy.adaptation.learn import (
    LOSS,
    LOSS_ON_FEW,
    MORE_ROUNDS,
    LearnSettings,
    Reached,
    choose_plan,
    find_loss,
    learn,
    make_hints,
)
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.data import Dataset, Split, load_data
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network import IF, LI, Dense, Layer, make_sparse, write_out
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pipeline.adaptation.task import AdaptSettings
from spear_deploy.pipeline.learn_integers import note_distance
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.quantize import quantize
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.losses import score_outputs
from spear_deploy.util.workers import Workers

RNG = np.random.default_rng(0)
X = RNG.integers(0, 2, (96, 4, 3)).astype(np.uint8)
SPLIT = Split(x=X, y=X.sum(axis=1).argmax(axis=1), kind="spikes")
DATA = Dataset(name="sums", classes=3, train=SPLIT, val=SPLIT, test=SPLIT)


def readout(gain=1.0):
    """Return potentials that hold the sums of the inputs, times a gain."""
    return chain([Layer(name="out", synapse=Dense(weight=gain * np.eye(3)), neuron=LI(tau_s=1.0, r=100.0))], input_shape=(3,))


def counting():
    """Return untrained output neurons that count."""
    weight = np.random.default_rng(3).uniform(0, 0.3, (3, 3))
    return chain([Layer(name="out", synapse=Dense(weight=weight), neuron=IF(reset="subtract"))], input_shape=(3,))


@pytest.fixture
def rounds(monkeypatch):
    """Return the recipes of the rounds that are learnt, as they are."""
    recipes, fit = [], learn_module.fit

    def note(graph, dataset, recipe, **more):
        recipes.append((recipe, more))
        return fit(graph, dataset, recipe, **more)

    monkeypatch.setattr(learn_module, "fit", note)
    return recipes


def test_rounds_end_where_validation_is_as_good_as_before(rounds):
    learnt, batches = learn(counting(), DATA, LearnSettings(epochs=3), aim=0.0)
    assert (rounds, batches) == ([], 0) and learnt == counting()


@pytest.mark.parametrize("keeps_equal", [True, False])
def test_of_equal_networks_the_later_one_is_taken_or_the_one_before_kept(keeps_equal):
    start, recipe, measured = counting(), LearnSettings(epochs=1).recipe(), []

    def measure(network):
        measured.append(network)
        return 0.5

    before = Reached(graph=start, accuracy=0.5, batches=3)
    after = before.learn_on(DATA, recipe, measure=measure, keeps_equal=keeps_equal)
    (learnt,) = measured
    assert learnt != start and after.graph is (start if keeps_equal else learnt)
    assert after.accuracy == 0.5 and after.batches == 3 + 2
    better = replace(before, accuracy=0.4).learn_on(DATA, recipe, measure=measure, keeps_equal=keeps_equal)
    assert better.graph == learnt and better.accuracy == 0.5


def test_an_aim_out_of_reach_takes_all_rounds_with_larger_steps_and_keeps_the_best(rounds):
    learnt, batches = learn(counting(), DATA, LearnSettings(epochs=3, learning_rate=0.01), aim=2.0)
    assert [recipe.epochs for recipe, _ in rounds] == [1, 2, 2] and len(rounds) == 1 + MORE_ROUNDS
    np.testing.assert_allclose([recipe.learning_rate for recipe, _ in rounds], [0.01, 0.03, 0.03])
    assert batches == 10  # 2 an epoch
    assert evaluate(learnt, DATA.val).accuracy >= evaluate(counting(), DATA.val).accuracy


def test_a_network_that_is_close_learns_on_with_smaller_steps(rounds):
    start = evaluate(counting(), DATA.val).accuracy
    learn(counting(), DATA, LearnSettings(epochs=3, learning_rate=1e-7), aim=start + 0.03)
    np.testing.assert_allclose([recipe.learning_rate for recipe, _ in rounds], [1e-7, 1e-7 / 3, 1e-7 / 3])


def test_what_may_be_lost_ends_learning_after_the_second_round(rounds):
    start = evaluate(counting(), DATA.val).accuracy
    learn(counting(), DATA, LearnSettings(epochs=3, learning_rate=1e-7), aim=start + LOSS - 1e-6)
    assert len(rounds) == MORE_ROUNDS


def test_a_stage_before_the_last_has_one_round_and_few_values_two(rounds):
    learn(counting(), DATA, LearnSettings(epochs=3), aim=2.0, is_last=False)
    assert len(rounds) == 1
    learnt, _ = learn(counting(), DATA, LearnSettings(epochs=3), aim=2.0, few=FewValues(levels=1, per_neuron=True))
    assert ["rounding" in more for _, more in rounds[1:]] == [False] * 3 + [True] * 2
    assert all(len(np.unique(np.abs(row))) <= 2 for row in learnt["out"].synapse.weight)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_layers_of_weights_into_the_same_neurons_learn_on_the_same_values(is_sparse):
    """TrueNorth's integers hold them all: four values of a neuron, whichever layer they are in."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(5, 5)) * (rng.random((5, 5)) < 0.7)
    back = Dense(weight=make_sparse(weight) if is_sparse else weight)
    layers = [
        Layer(name="drive", synapse=Dense(weight=3 * rng.normal(size=(5, 7)))),
        Layer(name="back", synapse=back),
        Layer(name="hidden", neuron=IF()),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(3, 5))), neuron=IF()),
    ]
    ways = [("input", "drive", 0), ("drive", "hidden", 0), ("hidden", "back", 1), ("back", "hidden", 0), ("hidden", "out", 0)]
    edges = [Edge(source=a, target=b, delay=delay) for a, b, delay in ways]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(7,), output="out", dt_s=1e-3)
    few = find_few_values(load_profile("truenorth"))
    rounding = few.round_network(graph)
    unit = rounding.grids["drive", "weight"].unit
    np.testing.assert_array_equal(rounding.grids["back", "weight"].unit, unit)
    assert rounding.grids["out", "weight"].unit.shape == (3, 1) and unit.shape == (5, 1)
    np.testing.assert_array_equal(
        rounding.grids["out", "weight"].unit, best_unit(graph["out"].synapse.weight, 2, per_neuron=True)
    )
    integer = quantize(rounding.graph, format="truenorth")
    scale = integer.metadata["quantization"]["scale"]["hidden"]
    for name in ("drive", "back"):
        learnt, stored = (write_out(g[name].synapse.weight) for g in (rounding.graph, integer))
        np.testing.assert_array_equal(stored, np.rint(scale * learnt))
    alone = replace(few, per_neuron=False).round_network(graph)
    for name in ("drive", "back"):
        assert alone.grids[name, "weight"].unit == best_unit(graph[name].synapse.weight, 2, per_neuron=False)


AKIDA_PLANS = make_plans(shipped_network("digits"), load_profile("akd1000"))[:2]


def choose_for_akida(**options):
    data = load_data("digits")
    few = replace(data, train=data.train.head(128), val=data.val.head(64))
    return choose_plan(AKIDA_PLANS, shipped_network("digits"), few, LearnSettings(epochs=2), **options)


def test_a_plan_is_chosen_by_the_same_trials_on_workers(monkeypatch):
    here, there = [], []
    number = choose_for_akida(progress=lambda facts: here.append(facts))
    assert number == choose_for_akida(workers=Workers(count=2), progress=lambda facts: there.append(facts))
    assert {row["stage"] for row in here} == {"alternative 1 of 2: learn", "alternative 2 of 2: learn", "alternatives"}
    assert {row["stage"] for row in there} == {"alternatives"} and [row["done"] for row in there] == [1, 2]


def test_trials_and_rounds_learn_on_the_device(rounds):
    settings = LearnSettings(epochs=1, device="cpu:0")
    learn(counting(), DATA, settings, aim=1.0)
    assert {recipe.device for recipe, _ in rounds} == {"cpu:0"} == {settings.recipe().device}
    assert AdaptSettings(device="cuda:1").learning.device == "cuda:1"


def test_the_hints_of_each_round_are_those_of_the_teacher(rounds):
    hints = make_hints(readout(), DATA)
    learn(counting(), DATA, LearnSettings(epochs=3), aim=2.0, hints=hints, few=FewValues(levels=1, per_neuron=True))
    assert rounds and all(more["hints"] is hints for _, more in rounds)


@pytest.mark.parametrize("gain", [1e-4, 1.0, 1e4])
def test_hints_do_not_depend_on_the_size_of_the_outputs(gain):
    hints, one = make_hints(readout(gain), DATA), make_hints(readout(), DATA)
    assert hints.shape == (96, 3) and hints.dtype == np.float32
    np.testing.assert_allclose(hints, one, rtol=0.2)  # factors are tried in steps of the square root of 2
    own = score_outputs(readout(gain), DATA.train)
    np.testing.assert_allclose(hints, own * (hints[0, 0] / own[0, 0]), rtol=1e-3, atol=1e-6)


def test_hints_of_a_teacher_that_is_often_wrong_are_soft():
    wrong = replace(SPLIT, y=RNG.permutation(SPLIT.y))
    hints = make_hints(readout(), replace(DATA, val=wrong))
    assert np.abs(hints).max() < 0.2 * np.abs(make_hints(readout(), DATA)).max()


@pytest.mark.parametrize(
    ("chip", "loss"),
    [("truenorth", LOSS_ON_FEW), ("akd1000", LOSS_ON_FEW), ("odin", LOSS_ON_FEW), ("brainscales2", LOSS), ("loihi2", LOSS)],
)
def test_chips_with_four_values_or_four_bits_may_lose_two_points(chip, loss):
    assert find_loss(find_few_values(load_profile(chip))) == loss


def test_the_distance_is_said_only_where_more_is_lost_than_may_be():
    assert note_distance(0.98, 0.99, 0.01) == [] == note_distance(1.0, 0.9, 0.01)
    (note,) = note_distance(0.927, 0.964, 0.02)
    assert "3.7 points below the trained one, 92.7 % of 96.4 %: more than the 2 points" in note
