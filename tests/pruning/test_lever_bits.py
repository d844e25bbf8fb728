"""Bits of weights in constrained reinforcement learning: chosen with the widths, within memory and cores."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

from gymnasium.utils.env_checker import check_env

from spear_deploy.budget.check import check
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import read_snn
from spear_deploy.network import IF
from spear_deploy.network.layer_bits import read_layer_bits
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.pipeline.preflight import check_inputs
from spear_deploy.pipeline.prune import prune
from spear_deploy.pruning.candidates import Evaluator
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.search.constrained_rl import search_levers
from spear_deploy.pruning.search.lever_bits import choose_plan_bits
from spear_deploy.pruning.search.lever_environment import LeverEnv
from spear_deploy.pruning.search.lever_plan import LeverPlan, LeverSpace, list_layers
from spear_deploy.pruning.search.recipe_builder import RecipeBuilder
from spear_deploy.pruning.search.search import make_evaluator
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.training.losses import score_outputs
from tests.benchmarks.fit import perceptron
from tests.pruning.test_layer_bits import learn_toy_task

LOIHI = load_profile("loihi1")
SETTINGS = PruneSettings(memory="40%", levers="channels,bits", method="rl", epochs=12, episodes=4)


@pytest.fixture(scope="module")
def learnt():
    return learn_toy_task()


def search(learnt, settings=SETTINGS, **options):
    inputs = check_inputs(learnt[0], LOIHI, learnt[1])
    chip = build_chip_costs(learnt[0], LOIHI)
    return search_levers(*learnt, settings, chip=chip, form=inputs.integer_form, **options)


@pytest.fixture(scope="module")
def found(learnt):
    return search(learnt)


def words(graph, widths, bits):
    return build_chip_costs(graph, LOIHI).with_bits(bits).sizes(tuple(widths))["memory_words"]


@pytest.mark.slow
def test_every_plan_takes_all_the_memory_that_its_bits_leave(learnt, found):
    graph, _ = learnt
    limit = found.limits["memory_words"]
    rows = found.history
    assert len(rows) == 4 and len({tuple(row["bits"].values()) for row in rows}) > 1
    for row in rows:
        assert set(row["bits"].values()) <= {4, 5, 6, 8} and row["multipliers"] == {} and row["feasible"]
        assert words(graph, row["widths"], row["bits"]) <= limit
        for place in range(2):
            more = [width + (place == index) for index, width in enumerate(row["widths"])]
            assert max(more) > 24 or more[1] > 20 or words(graph, more, row["bits"]) > limit
    first = rows[0]
    assert min(first["bits"].values()) == 4 and words(graph, (24, 20), first["bits"]) < words(graph, (24, 20), {})
    assert sum(first["widths"]) >= max(sum(row["widths"]) for row in rows) - 2  # the recipe has the fewest bits


def test_the_choice_is_stated_and_its_learning_counted(learnt, found):
    chosen = next(row for row in found.history if tuple(row["widths"]) == found.score.widths)
    choice = found.layer_bits
    assert choice.bits == {name: bits for name, bits in chosen["bits"].items() if bits != 8} == read_layer_bits(found.graph)
    assert choice.episodes == 4 and choice.changed and "chosen with the widths, in 4 episodes that learnt" in choice.note
    assert choice.words == (words(learnt[0], (24, 20), {}), words(learnt[0], (24, 20), chosen["bits"]))
    an_epoch = -(-len(learnt[1].train) // 64)
    assert found.batches == 4 * max(8, 12 * an_epoch // 4 // 4) and found.graph.layers[0].norm == learnt[0].layers[0].norm


def test_a_stopped_search_of_bits_goes_on_to_the_same_network(learnt, found, tmp_path):
    path = tmp_path / "checkpoint.json"

    def stop(facts):
        if facts["done"] == 2:
            raise KeyboardInterrupt

    part = search(learnt, checkpoint=path, progress=stop)
    assert part.interrupted and part.history == found.history[:2]
    for _ in range(2):
        again = search(learnt, checkpoint=path)
        assert (again.graph, again.history, again.batches) == (found.graph, found.history, found.batches)
        assert again.layer_bits == found.layer_bits


def test_the_pruned_network_states_its_bits_in_every_file(learnt, tmp_path):
    graph, data = learnt
    options = {"method": "rl", "levers": "channels,bits", "episodes": 2, "epochs": 4}
    facts = prune(graph, LOIHI, data, out=tmp_path, memory="40%", **options)
    pruned = read_snn(tmp_path / "pruned.snn")
    bits = facts["layer_bits"]["bits"]
    assert bits and read_layer_bits(pruned) == bits == facts["weight_bits"]["layers"] and facts["met"]
    integer = quantize_for_chip(pruned, LOIHI)
    limit, dense = facts["budgets"]["memory_words"]["budget"], words(graph, (24, 20), {})
    costs = build_chip_costs(integer, LOIHI)
    assert limit == pytest.approx(0.4 * dense)
    assert costs.sizes(tuple(group.channels for group in costs.groups))["memory_words"] <= limit
    assert facts["batches"]["layer_bits"] == 0 and facts["batches"]["search"] == 16
    assert [row["lever"] for row in facts["levers"] if row["lever"] != "bits"] == ["trained", "channels", "rates", "fewer bits"]
    rows = json.loads((tmp_path / "search.json").read_text())["search"]
    page = (tmp_path / "prune.html").read_text()
    for row in rows:
        cells = "".join(f'<td class="n">{width}</td>' for width in row["bits"].values())
        assert f"<tr><td>{row['episode']}</td>{cells}" in page
    assert check(pruned, LOIHI).verdict == "fits"


def test_bits_widths_and_densities_are_searched_together(learnt):
    settings = replace(SETTINGS, synops="60%", levers="channels,weights,bits", episodes=2)
    both = search(learnt, settings)
    for row in both.history:
        assert set(row["multipliers"]) == {"synops"} and min(row["densities"].values()) < 1 and min(row["bits"].values()) >= 4
        assert words(learnt[0], row["widths"], row["bits"]) <= both.limits["memory_words"]
    assert both.removal is not None and both.layer_bits.changed


@pytest.mark.slow
def test_bits_stay_where_nothing_asks_for_fewer(learnt, tmp_path):
    for budget in ({"synops": "60%"}, {"synops": "60%", "memory": "100%"}):
        same = search(learnt, replace(SETTINGS, **{"memory": None, **budget}, episodes=1))
        assert same.layer_bits is None and "bits" not in same.history[0]
    options = {"method": "rl", "levers": "channels,bits", "episodes": 1, "epochs": 2}
    facts = prune(learnt[0], LOIHI, learnt[1], out=tmp_path / "a", synops="60%", **options)
    assert facts["layer_bits"] is None
    assert "bits: all layers keep theirs, since no limit of memory or cores is exceeded" in facts["notes"]
    facts = prune(learnt[0], "reckon", learnt[1], out=tmp_path / "b", memory="60%", **options)
    assert facts["layer_bits"] is None and any("has weights of 8 bits alone, so this lever saves no" in n for n in facts["notes"])


@pytest.fixture(scope="module")
def wide(learnt):
    """A network of many outputs, whose memory with one hidden channel a layer depends on its bits."""
    return perceptron(0, (6, 24, 20, 24), IF()), learnt[1]


def narrowest(wide, bits):
    return words(wide[0], (1, 1), dict.fromkeys(("fc1", "fc2", "fc3"), bits))


@pytest.mark.slow
def test_fewer_than_four_bits_only_where_no_widths_are_within_the_limits(wide):
    assert narrowest(wide, 2) < narrowest(wide, 4) < narrowest(wide, 8)
    fours, twos = (search(wide, replace(SETTINGS, memory=narrowest(wide, n), episodes=1)) for n in (4, 2))
    assert min(fours.history[0]["bits"].values()) == 4 and min(twos.history[0]["bits"].values()) == 2
    with pytest.raises(BudgetError, match="what this network costs with one channel left in every layer") as caught:
        search(wide, replace(SETTINGS, memory=narrowest(wide, 2) - 1, episodes=1))
    assert caught.value.min_value == narrowest(wide, 2)


def test_more_bits_than_one_channel_can_have_fall_back_to_the_recipe(wide):
    graph, data = wide
    settings = replace(SETTINGS, memory=narrowest(wide, 4))
    evaluator = make_evaluator(graph, data, settings, build_chip_costs(graph, LOIHI))
    limits = settings.budgets.resolve(evaluator.dense_use())
    builder = RecipeBuilder(evaluator, settings, limits, score_outputs(graph, data.train))
    bits = choose_plan_bits(builder, check_inputs(graph, LOIHI, data).integer_form)
    assert bits is not None and max(bits.options["fc3"]) == 8
    assert bits.keep_reachable(dict.fromkeys(bits.recipe, 8)) == bits.recipe == bits.keep_reachable(bits.recipe)


def test_actions_of_bits_are_factors_to_the_nearest_width(learnt):
    evaluator = Evaluator(*learnt)
    bits = {"fc1": 4, "fc3": 5}
    recipe = LeverPlan(widths=(12, 10), densities={}, bits=bits)
    layers = list_layers(evaluator, {}, bits)
    assert layers == ("fc1", "fc2", "fc3")
    space = LeverSpace(
        evaluator=evaluator, recipe=recipe, layers=layers, levers=("width", "bits"), bits={"fc1": (4, 5, 6, 8), "fc3": (5, 8)}
    )
    assert space.make_plan([(0.0, 0.0)] * 3) == recipe
    assert space.make_plan([(1.0, 1.0), (0.0, 1.0), (0.0, 0.6)]) == LeverPlan(
        widths=(17, 10), densities={}, bits={"fc1": 8, "fc3": 8}
    )
    assert space.make_plan([(0.0, -1.0), (0.0, 0.0), (0.0, 0.2)]).bits == {"fc1": 4, "fc3": 5}
    check_env(LeverEnv(space, lambda actions: (1.0, [1.0]), lambda: []), skip_render_check=True)


def test_a_chip_whose_memory_is_exceeded_is_fitted_by_widths_and_bits(learnt, tmp_path):
    graph, data = learnt
    costs = build_chip_costs(graph, LOIHI)
    largest = max(part.memory_words for part in costs.place((24, 20))[0].slices)
    small = override_facts(LOIHI, {"core.synapse_memory": int(0.7 * largest), "chip.cores": 3, "chip.usable_cores": 3})
    assert check(graph, small).verdict == "does_not_fit"
    facts = prune(graph, small, data, out=tmp_path, levers="channels,bits", method="rl", episodes=2, epochs=2)
    assert facts["verdict"] != "does_not_fit" and facts["layer_bits"]["bits"]
    assert check(read_snn(tmp_path / "pruned.snn"), small).verdict == facts["verdict"]
