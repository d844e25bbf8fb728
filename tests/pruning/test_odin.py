"""Pruning of networks that learn in ODIN's integers from the first batch on."""

from dataclasses import replace

import pytest

import spear_deploy as sd
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.data import Dataset, load_data
from spear_deploy.data.input_sums import sum_inputs
from spear_deploy.hardware.profile import load_profile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.pruning.budgets import Amount, Budgets
from spear_deploy.pruning.tune.fine_tuning import FineTuning
from spear_deploy.pruning.tune.measure import BudgetMonitor
from spear_deploy.pruning.tune.rounded_learning import IntegerForm

DIGITS, ODIN = shipped_network("digits"), load_profile("odin")


def tune(graph: SNNGraph, form: IntegerForm | None) -> FineTuning:
    budgets = Budgets(synops=Amount(value=0.5, relative=True))
    dataset = few_samples(graph)
    return FineTuning(graph, BudgetMonitor(graph, dataset, budgets, () if form is None else (form,)))


def few_samples(graph: SNNGraph) -> Dataset:
    digits = load_data("digits", steps=8)
    few = {part: getattr(digits, part).head(16) for part in ("train", "val", "test")}
    return sum_inputs(replace(digits, **few), graph)


def test_neurons_that_take_spike_by_spike_are_fine_tuned_in_integers_and_a_note_says_which_accuracy_counts():
    pytest.importorskip("torch")
    graph = make_plans(DIGITS, ODIN)[0].graph
    inputs = CheckedInputs(network=graph, profile=ODIN, chips=1, dataset=few_samples(graph))
    form = IntegerForm(deploy=inputs.deploy_integers, rounding=inputs.round_network)
    tuning = tune(graph, form)
    assert tuning.rounding is form.rounding and "the accuracy of the integers counts" in tuning.note_rounding()[0]
    floating = tune(graph, None)
    assert floating.rounding is None and floating.note_rounding() == []
    assert not inputs.floating_point_counts
    assert replace(inputs, network=DIGITS).floating_point_counts
    assert replace(inputs, profile=load_profile("spinnaker1")).floating_point_counts  # its integers are not learnt in


@pytest.mark.slow
def test_digits_on_odin_are_deployed_in_one_command_and_verified(tmp_path):
    pytest.importorskip("norse")
    result = sd.deploy("digits", "odin", "digits", out=tmp_path)
    accuracy = result.accuracy  # of the adapted network, then of half of its SynOps: processors differ by some points in both
    assert accuracy["quantised"] > max(accuracy["dense"] - 0.05, accuracy["pruned"]) and accuracy["dense"] > 0.85
    assert any("the accuracy of the integers counts" in note for note in result.notes)
    assert result.to_json()["floating_point_counts"] is False and not sd.verify(tmp_path).failures
