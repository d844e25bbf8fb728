"""Decision rule, exact evaluation, SynOps penalty and repeatable learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import Dataset, Split, load_data
from spear_deploy.errors import DataError, UnsupportedError
from spear_deploy.network import LI, LIF, AvgPool, BatchNorm, Conv2d, Dense, Layer, LoihiLIF
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.one_sign import ONE_SIGN, list_one_sign_layers
from spear_deploy.pipeline.demo import digits_network
from spear_deploy.placement.weight_bits import count_mixed_sign_inputs
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import decide
from spear_deploy.simulator.synops import count_synops, synops_per_spike
from spear_deploy.training import evaluation, losses, synops_penalty
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fine_tune, fit, train
from spear_deploy.training.recipe import Recipe
from spear_deploy.training.synops_penalty import SynOpsPenalty
from tests.support.reference import random_graph, random_spikes


def toy_network(seed: int = 0, hidden: int = 12):
    """Six inputs, two layers of hidden neurons, two classes."""
    rng = np.random.default_rng(seed)

    def dense(outputs, inputs):
        return Dense(weight=rng.normal(0, 1.5 / np.sqrt(inputs), (outputs, inputs)).astype(np.float32))

    layers = (
        Layer(name="hidden", synapse=dense(hidden, 6), neuron=LIF(tau_s=1.5e-3)),
        Layer(name="second", synapse=dense(hidden, hidden), neuron=LIF(tau_s=1.5e-3)),
        Layer(name="out", synapse=dense(2, hidden), neuron=LI(tau_s=2e-3)),
    )
    return chain(layers, input_shape=(6,))


def quick(epochs: int) -> Recipe:
    return Recipe(epochs=epochs, batch_size=16)


def toy_data(seed: int = 0, steps: int = 5):
    """Class 0 spikes on the first three inputs, class 1 on the others, with noise."""
    rng = np.random.default_rng(seed)

    def split(n):
        y = np.arange(n) % 2
        rate = np.where((np.arange(6) < 3)[None] == (y == 0)[:, None], 0.7, 0.15)
        return Split(x=(rng.random((n, steps, 6)) < rate[:, None]).astype(np.uint8), y=y)

    return Dataset(name="toy", train=split(120), val=split(60), test=split(60), classes=2)


# ------------------------------------------------------------------------------------------------------ decide, count


def test_decision_is_the_largest_mean_over_time_and_the_first_of_equals():
    rng = np.random.default_rng(0)
    output = rng.normal(size=(7, 20, 3, 1, 1))
    np.testing.assert_array_equal(decide(output), output.mean(axis=0).reshape(20, 3).argmax(axis=1))
    assert decide(np.zeros((4, 2, 5), bool)).tolist() == [0, 0]
    big = np.full((3, 1, 2), 2**62, np.int64) // 3
    big[:, :, 1] += 1
    assert decide(big).tolist() == [1]  # integers are not rounded to floating point


@pytest.mark.parametrize("seed", range(12))
def test_synops_per_spike_times_spikes_is_the_synops_count(seed):
    graph = random_graph(seed)
    counts = simulate(graph, random_spikes(graph, seed)).counts
    cost = synops_per_spike(graph)
    priced = sum(float((counts.sent[name] * cost[name]).sum()) for name in cost) / counts.samples
    delayed = [edge for edge in graph.edges if edge.delay]
    if delayed:  # the last spikes over a delay do not arrive within the run, and are not counted
        assert priced >= count_synops(graph, counts).total
        counts = replace(counts, delivered={edge: counts.sent[edge.source] for edge in delayed if edge.source in counts.sent})
    assert priced == pytest.approx(count_synops(graph, counts).total, rel=1e-12)


def test_evaluation_is_exact_whatever_the_batches(monkeypatch):
    graph, data = digits_network(0), digits_like(90)
    monkeypatch.setattr(evaluation, "BATCH", 90)
    whole = evaluate(graph, data)
    monkeypatch.setattr(evaluation, "BATCH", 7)
    parts = evaluate(graph, data)
    assert whole.synops == parts.synops and whole.accuracy == parts.accuracy
    np.testing.assert_allclose(whole.synops_per_sample.mean(), whole.synops.total, rtol=1e-12)
    first = evaluate(graph, data.take(np.array([5])))
    assert first.synops.total == pytest.approx(whole.synops_per_sample[5])
    assert whole.accuracy == np.mean(decide(simulate(graph, np.moveaxis(data.x, 0, 1)).output) == data.y)


def digits_like(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return Split(x=(rng.random((n, 4, 1, 8, 8)) < 0.3).astype(np.uint8), y=np.arange(n) % 10)


def test_a_current_counts_as_macs_not_synops():
    graph = toy_network()
    x = np.random.default_rng(0).random((8, 5, 6)).astype(np.float32)
    result = evaluate(graph, Split(x=x, y=np.zeros(8, int), kind="current"))
    assert result.synops.macs_first_layer > 0
    assert result.synops.per_layer["hidden"] == 0
    assert result.synops_per_sample.mean() == pytest.approx(result.synops.total)


def test_evaluate_refuses_labels_and_emptiness():
    data = toy_data().test
    with pytest.raises(DataError, match=r"labels go up to 7, the network has outputs 0\.\.1"):
        evaluate(toy_network(), Split(x=data.x, y=np.full(60, 7)))
    with pytest.raises(DataError, match="the split is empty"):
        evaluate(toy_network(), data.head(0))


def test_the_demo_network_has_the_documented_shapes():
    graph = digits_network(3)
    assert [graph.shape_of(layer.name) for layer in graph.layers] == [(16, 8, 8), (16, 4, 4), (32, 4, 4), (32, 2, 2), (10,)]
    assert graph == digits_network(3) and graph != digits_network(4)


# ----------------------------------------------------------------------------------------------------------- learning


def test_it_learns_and_leaves_its_start_untouched():
    pytest.importorskip("torch")
    start, data = toy_network(), toy_data()
    copy = toy_network()
    learnt = train(start, data, recipe=quick(12))
    assert start == copy
    assert evaluate(learnt, data.test).accuracy >= 0.9 > evaluate(start, data.test).accuracy


def test_it_repeats_under_one_seed_and_not_under_another():
    pytest.importorskip("torch")
    data = toy_data()
    first, again, other = (train(toy_network(), data, epochs=2, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_it_leaves_the_global_random_state_and_the_threads_alone():
    torch = pytest.importorskip("torch")
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train(toy_network(), toy_data(), epochs=1)
    assert torch.equal(before, torch.random.get_rng_state()) and torch.get_num_threads() == threads


def test_a_norse_network_is_trained_too():
    pytest.importorskip("torch")
    from spear_deploy.norse.network import to_norse

    graph, data = toy_network(), toy_data()
    assert train(to_norse(graph), data, epochs=2) == train(graph, data, epochs=2)


def test_history_and_progress_have_a_row_each_epoch():
    pytest.importorskip("torch")
    reported = []
    data = toy_data()
    result = fit(toy_network(), data, Recipe(epochs=3), progress=reported.append)
    assert [row["epoch"] for row in result.history] == [1, 2, 3] == [facts["done"] for facts in reported]
    assert reported[-1]["of"] == 3 and result.history[-1]["loss"] < result.history[0]["loss"]
    exact = evaluate(result.graph, data.val)
    assert any(row["accuracy"] == exact.accuracy and row["synops"] == pytest.approx(exact.synops.total) for row in result.history)


@pytest.mark.parametrize("share", [0.9, 0.6])
def test_fine_tuning_keeps_a_synops_budget_and_the_accuracy(share):
    pytest.importorskip("torch")
    data = toy_data()
    dense = train(toy_network(), data, recipe=quick(12))
    before = evaluate(dense, data.val)
    inputs = before.synops.per_layer["hidden"]
    budget = inputs + share * (before.synops.total - inputs)  # what the inputs cost cannot be learnt away
    after = evaluate(fine_tune(dense, data, recipe=replace(quick(24), synops_budget=budget)), data.val)
    # here the splits differ by chance; pruning.prune_to_budget holds a budget on every split
    assert after.synops.total <= 1.03 * budget < before.synops.total
    assert after.accuracy >= before.accuracy - 0.05


def test_a_silent_layer_spikes_again_after_fine_tuning():
    pytest.importorskip("torch")
    graph, data = toy_network(), toy_data()
    quiet = graph.with_layers({"hidden": replace(graph["hidden"], synapse=Dense(weight=graph["hidden"].synapse.weight * 0.3))})
    assert evaluate(quiet, data.val).counts.rates()["hidden"] == 0
    lively = fine_tune(quiet, data, recipe=replace(quick(12), synops_budget=1e6))
    assert evaluate(lively, data.val).counts.rates()["hidden"] > 0.005


def test_the_dual_variable_rises_above_the_limit_and_falls_below_it():
    torch = pytest.importorskip("torch")
    graph, data = toy_network(), toy_data()
    x, _ = next(data.train.batches(32))
    from spear_deploy.norse.network import to_norse

    output, spikes = to_norse(graph)(x, record=True)
    assert output.shape == (5, 32, 2)
    counts = simulate(graph, x).counts
    measured = count_synops(graph, counts).total
    tight = SynOpsPenalty(graph, measured / 2)
    loss = tight.loss(torch.from_numpy(x), spikes)
    assert tight.dual == pytest.approx(synops_penalty.DUAL_RATE * 1.0)
    floor = sum(max(0.0, 1 - rate / synops_penalty.RATE_FLOOR) for rate in counts.rates().values())
    assert float(loss.detach()) - floor == pytest.approx(synops_penalty.CURVATURE * 1.0 * 2.0, rel=1e-5)
    wide = SynOpsPenalty(graph, measured * 2, dual=1.0)
    wide.loss(torch.from_numpy(x), spikes)
    assert wide.dual == pytest.approx(1.0 - synops_penalty.DUAL_RATE * 0.5)


def test_the_penalty_pulls_towards_fewer_spikes():
    torch = pytest.importorskip("torch")
    from spear_deploy.norse.network import to_norse

    graph, data = toy_network(), toy_data()
    network = to_norse(graph)
    x, _ = next(data.train.batches(64))
    start = count_synops(graph, simulate(graph, x).counts).total
    optimiser = torch.optim.SGD(network.parameters(), 0.05)
    for _ in range(40):
        _, spikes = network(x, record=True)
        loss = SynOpsPenalty(graph, start * 0.7, dual=1.0).loss(torch.from_numpy(x), spikes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    from spear_deploy.norse.network import to_graph

    assert count_synops(graph, simulate(to_graph(network), x).counts).total < 0.95 * start


@pytest.mark.parametrize("stated", [None, "hidden", ["hidden"], ["hidden", "none", 3]])
def test_sources_keep_the_sign_that_the_network_states(stated):
    pytest.importorskip("torch")
    graph = toy_network()
    weight = np.asarray(graph["hidden"].synapse.weight)
    one_sign = weight * (np.sign(weight) == np.sign(weight.sum(axis=0)))
    layer = replace(graph["hidden"], synapse=replace(graph["hidden"].synapse, weight=one_sign.astype(np.float32)))
    metadata = {} if stated is None else {ONE_SIGN: stated}
    graph = graph.with_layers({"hidden": layer}, metadata=metadata)
    learnt = fit(graph, toy_data(), replace(quick(2), learning_rate=0.1)).graph
    is_kept = isinstance(stated, list)
    assert list_one_sign_layers(graph) == (("hidden",) if is_kept else ())
    assert (count_mixed_sign_inputs(learnt["hidden"].synapse.weight) == 0) == is_kept
    assert count_mixed_sign_inputs(learnt["second"].synapse.weight)


def test_data_that_does_not_fit_is_refused():
    pytest.importorskip("torch")
    with pytest.raises(DataError, match="samples are 6 a step, the network takes 1 x 8 x 8"):
        train(digits_network(0), toy_data(), epochs=1)


def test_integers_are_not_trained():
    pytest.importorskip("torch")
    layers = (Layer(name="a", synapse=Dense(weight=np.ones((2, 6), int)), neuron=LoihiLIF(decay_u=0, decay_v=0, v_threshold=1)),)
    with pytest.raises(UnsupportedError, match="an integer network has no gradient"):
        train(chain(layers, input_shape=(6,)), toy_data(), epochs=1)


def test_synops_per_spike_through_a_pool_are_those_of_the_fused_synapse():
    conv = Conv2d(weight=np.ones((3, 1, 2, 2), np.float32))
    layers = (Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))), Layer(name="conv", synapse=conv, neuron=LIF(tau_s=2e-3)))
    cost = synops_per_spike(chain(layers, input_shape=(1, 4, 4)))
    np.testing.assert_array_equal(cost[INPUT], np.full((1, 4, 4), 3.0))
    assert not cost["conv"].any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_are_learnt(seed):
    pytest.importorskip("torch")
    data = load_data("digits", seed=seed)
    assert evaluate(train(digits_network(seed), data, seed=seed), data.test).accuracy >= 0.98


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": 1, "batch_size": 1}, {"epochs": 1, "learning_rate": 0.0}])
def test_a_recipe_out_of_range_is_refused(wrong):
    with pytest.raises(DataError, match="recipe: . epochs, batches of .*; expected at least 1, at least 2"):
        Recipe(**wrong)


def test_epochs_of_hundreds_of_digits_are_refused():
    with pytest.raises(DataError, match=r"recipe: 10{56}\.\.\. epochs given, expected at most 1000000000; give fewer"):
        Recipe(epochs=10**400)


# ------------------------------------------------------------------------------------------------------- a teacher


def test_distance_to_a_teacher_is_the_softened_divergence():
    import torch

    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 8, 5)).astype(np.float32) / 5

    def softened(mean):
        values = np.exp(evaluation.LOGIT_SCALE / losses.HINT_TEMPERATURE * mean)
        return values / values.sum(axis=1, keepdims=True)

    p, q = softened(teacher), softened(student)
    expected = losses.HINT_TEMPERATURE**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert float(losses.distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher))) == pytest.approx(
        expected, rel=1e-4
    )
    assert float(losses.distillation_loss(torch.from_numpy(student), torch.from_numpy(student))) == pytest.approx(0, abs=1e-6)


def test_hints_are_the_mean_outputs_of_the_teacher():
    network, data = toy_network(), toy_data()
    output = simulate(network, np.moveaxis(data.train.x, 0, 1)).output
    np.testing.assert_allclose(losses.score_outputs(network, data.train), output.mean(axis=0), rtol=1e-5)


def test_with_random_labels_a_network_agrees_with_its_teacher():
    """With labels drawn at random there is nothing to learn but what the teacher knows."""
    data = toy_data()
    teacher = train(toy_network(), data, recipe=quick(8))
    noise = np.random.default_rng(0).integers(0, 2, len(data.train))
    random = replace(data, train=Split(x=data.train.x, y=noise))
    taught = fit(toy_network(1), random, quick(8), hints=losses.score_outputs(teacher, random.train)).graph
    alone = fit(toy_network(1), random, quick(8)).graph
    known = evaluate(teacher, data.test).labels
    agreement = [float(np.mean(evaluate(graph, data.test).labels == known)) for graph in (taught, alone)]
    assert agreement[0] > 0.9 and agreement[0] > agreement[1]


# ------------------------------------------------------------------------------------------------------- cut short


def test_steps_end_learning_before_the_epochs_are_over():
    pytest.importorskip("torch")
    data = toy_data()  # 120 samples: 8 batches of 16 an epoch
    result = fit(toy_network(), data, replace(quick(5), steps=11))
    assert [row["epoch"] for row in result.history] == [1, 2] and result.last.accuracy == result.history[-1]["accuracy"]
    assert result.graph == fit(toy_network(), data, replace(quick(2), steps=11)).graph
    with pytest.raises(DataError, match="recipe: 0 steps given, expected at least 1"):
        Recipe(epochs=1, steps=0)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_warm_up_of_one_step_or_less_is_one(steps):
    pytest.importorskip("torch")
    result = fit(toy_network(), toy_data(), replace(quick(2), steps=steps, warm_up=0.1))  # 10 steps warm up for exactly one
    assert 0 < result.last.certainty < 1


def test_ctrl_c_keeps_the_best_epoch_of_an_interruptible_recipe():
    pytest.importorskip("torch")
    data, seen = toy_data(), []

    def stop(facts):
        seen.append(facts)
        if facts["done"] == 4:
            raise KeyboardInterrupt

    result = fit(toy_network(), data, replace(quick(12), interruptible=True), progress=stop)
    assert result.interrupted and len(result.history) == 4
    best = max(seen, key=lambda facts: (facts["accuracy"], facts["done"]))
    assert evaluate(result.graph, data.val).accuracy == best["accuracy"]
    with pytest.raises(KeyboardInterrupt):
        fit(toy_network(), data, quick(12), progress=stop)


def test_a_network_whose_weights_do_not_reach_its_output_is_refused():
    pytest.importorskip("torch")
    side = Layer(name="side", synapse=Dense(weight=np.ones((2, 6), np.float32)), neuron=LIF(tau_s=2e-3))
    edges = (Edge(source=INPUT, target="side"), Edge(source=INPUT, target="out"))
    with pytest.raises(DataError, match="no weight of the network changes its output within 5 steps, and nothing can be learnt"):
        fit(
            SNNGraph(layers=(side, Layer(name="out", neuron=LI(tau_s=2e-3))), edges=edges, input_shape=(6,), output="out"),
            toy_data(),
            quick(1),
        )
    with pytest.raises(DataError, match="the network has no weights, so that nothing can be learnt; give one that has some"):
        fit(chain([Layer(name="out", neuron=LI(tau_s=2e-3))], input_shape=(6,)), toy_data(), quick(1))


def test_a_batch_norm_without_eps_is_refused():
    pytest.importorskip("torch")
    one = np.ones(2, np.float32)
    norm = BatchNorm(weight=one, bias=one, mean=one, var=one, eps=0.0)
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((2, 6), np.float32)), norm=norm, neuron=LIF(tau_s=2e-3))
    with pytest.raises(
        UnsupportedError, match="layer 'fc': batch norm with eps 0, which learning divides by .* set an eps above 0"
    ):
        fit(chain([layer], input_shape=(6,)), toy_data(), quick(1))


def test_the_price_follows_the_weights_that_are_left():
    import torch

    graph = toy_network()

    def thin_layer(layer):
        weight = np.where(np.abs(layer.synapse.weight) < 0.4, 0, layer.synapse.weight).astype(np.float32)
        return replace(layer, synapse=replace(layer.synapse, weight=weight))

    thin = graph.with_layers(thin_layer)
    x = torch.from_numpy(toy_data().val.x[:8].swapaxes(0, 1).astype(np.float32))
    spikes = {"hidden": torch.ones(5, 8, 12), "second": torch.ones(5, 8, 12)}
    prices = {}
    for name, start, later in (("graph", graph, None), ("thin", thin, None), ("priced anew", graph, thin)):
        penalty = SynOpsPenalty(start, 10.0, dual=1.0)
        if later is not None:
            penalty.price_spikes(later)
        prices[name] = float(penalty.loss(x, spikes))
    assert prices["priced anew"] == prices["thin"] < prices["graph"]
