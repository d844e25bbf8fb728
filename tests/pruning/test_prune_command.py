"""The verb `prune`: budgets, fitting, fronts, settings and refusals."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.cli.prune import _show
from spear_deploy.cli.tables import show_aims
from spear_deploy.data import from_arrays
from spear_deploy.errors import BudgetError, ChipError, FileError, UnsupportedError
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.interchange.snn_file import hash_network, write_snn
from spear_deploy.network import IF, LIF
from spear_deploy.pipeline import api
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.inputs import merge_options
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pipeline.prune import prune_front, require_fit
from spear_deploy.pruning.chip_costs import build_chip_costs
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.report import write_report
from spear_deploy.training.evaluation import evaluate
from tests.pipeline.test_deploy import network, task
from tests.support.seeds import few_first

FAST = {"method": "uniform", "epochs": 3}


def test_budgets_of_several_kinds_hold_and_unprunable_groups_are_named(tmp_path):
    net, data = network(IF(), hidden=12), task(samples=300)
    facts = sd.prune(net, "loihi1", data, out=tmp_path, synops="70%", parameters=120, energy_uj="95%", **FAST)
    pruned = api.load(tmp_path / "pruned.snn")
    assert facts["met"] and set(facts["budgets"]) == {"synops", "parameters", "energy_j"}
    assert evaluate(pruned, data.test).synops.total == facts["synops"]["achieved"] <= facts["synops"]["budget"]
    assert facts["synops"]["quantised"] <= facts["synops"]["budget"]
    assert facts["budgets"]["parameters"]["used"] <= 120 and "test" not in facts["budgets"]["parameters"]
    dense, fewer = (sd.check(graph, "loihi1", activity=evaluate(graph, data.test).counts) for graph in (net, pruned))
    on_test = facts["budgets"]["energy_j"]["test"]
    assert on_test["budget"] == pytest.approx(0.95 * dense.energy.total) and on_test["used"] >= fewer.energy.total
    assert facts["met"] == on_test["met"] == (on_test["used"] <= on_test["budget"])
    assert facts["budgets"]["synops"]["test"]["used"] == max(facts["synops"]["achieved"], facts["synops"]["quantised"])
    assert facts["not_prunable"] == ["'out' cannot be pruned: it is the network's output"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    sliced = prune(net, PruningPlan(kept=plan))
    assert [sliced.shape_of(layer.name) for layer in sliced.layers] == [pruned.shape_of(layer.name) for layer in pruned.layers]


def test_an_energy_budget_that_unseen_samples_exceed_is_not_met(tmp_path):
    net, data = network(IF(), hidden=12), task(samples=300)
    busy = replace(data, test=replace(data.test, x=np.ones_like(data.test.x)))
    facts = sd.prune(net, "loihi1", busy, out=tmp_path, energy_uj=0.33, **FAST)
    row = facts["budgets"]["energy_j"]
    assert row["met"] and row["test"]["used"] > row["test"]["budget"] == row["budget"] == pytest.approx(0.33e-6)
    assert not row["test"]["met"] and not facts["met"]
    console = Console(record=True, width=200, file=io.StringIO())
    show_aims(console, facts["budgets"])
    assert "; on the test split " in (shown := console.export_text()) and "above the budget" in shown


def test_without_a_budget_a_network_that_fits_is_not_changed(tmp_path):
    net = network(IF())
    facts = sd.prune(net, "loihi2", task(), out=tmp_path)
    assert api.load(tmp_path / "pruned.snn") == net and facts["verdict"] == "fits"
    assert "the network fits the chip as it is: nothing was changed" in facts["notes"] and facts["synops"]["budget"] is None


def test_without_a_budget_a_network_that_does_not_fit_is_pruned_until_it_fits(tmp_path):
    net = network(IF(), hidden=20)
    small = {"core.neurons": "6", "chip.usable_cores": "3"}  # 12 hidden neurons on two cores, the readout on the third
    facts = sd.prune(net, "loihi2", task(), out=tmp_path, overrides=small, **FAST)
    assert facts["verdict"] == "fits" and facts["cores_used"] == 3 and facts["widths"] == {"fc": [20, 12]}
    with pytest.raises(BudgetError, match="does not fit with one channel left in every layer"):
        sd.prune(net, "loihi2", task(), out=tmp_path / "b", overrides={"chip.usable_cores": "1"}, **FAST)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "options",
    few_first(
        [
            {"method": "recipe", "levers": "channels,weights"}, {"method": "uniform"},
            {"method": "rl", "levers": "channels,weights"},
        ],
        1,
    ),
)  # fmt: skip
def test_weights_of_zero_stay_zero_such_as_those_of_a_convolution_written_out(options, tmp_path):
    whole, data = network(IF(), hidden=20), task(samples=300)
    kept = np.arange(whole["fc"].synapse.weight.size).reshape(whole["fc"].synapse.weight.shape) % 5 == 0
    synapse = replace(whole["fc"].synapse, weight=whole["fc"].synapse.weight * kept)
    net = whole.with_layers({"fc": replace(whole["fc"], synapse=synapse)})
    facts = sd.prune(net, "loihi2", data, out=tmp_path, synops="70%", epochs=3, **options)
    pruned = api.load(tmp_path / "pruned.snn")["fc"].synapse.weight
    rows = json.loads((tmp_path / "plan.json").read_text())
    (channels,) = [part for part in rows.values() if len(part) == len(pruned)]
    assert facts["met"] and len(pruned) < 20 and not np.any(pruned[~kept[channels]])
    history = json.loads((tmp_path / "search.json").read_text())["fine_tune"]
    assert all(row["synops"] <= facts["synops"]["dense"] for row in history)


def test_prune_writes_a_page_for_one_budget(tmp_path):
    facts = sd.prune(network(IF(), hidden=20), "loihi2", task(), out=tmp_path, synops="60%", **FAST)
    page = (tmp_path / facts["files"]["report"]).read_text()
    assert facts["files"]["report"] == "prune.html" and "Accuracy within the budget" in page and "60% SynOps" in page
    assert f"{100 * facts['accuracy']['pruned']:.2f}\u00a0%" in page and "Reward of each evaluation" in page
    assert write_report(tmp_path) == tmp_path / "prune.html" and (tmp_path / "prune.html").read_text() == page
    again = json.loads(CliRunner().invoke(main, ["report", str(tmp_path), "--json"]).stdout)
    assert again["network_digest"] == facts["network_digest"] == hash_network(network(IF(), hidden=20))
    enough = sd.prune(network(IF(), hidden=20), "loihi2", task(), out=tmp_path / "whole", **FAST)
    assert "what fits loihi2" in (tmp_path / "whole" / enough["files"]["report"]).read_text()


def test_one_search_serves_several_budgets(tmp_path):
    write_snn(network(IF(), hidden=12), tmp_path / "net.snn")
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = (rng.random((240, 6, 10)) < (rng.random((3, 10)) * 0.8)[y][:, None]).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    result = CliRunner().invoke(
        main,
        ["prune", str(tmp_path / "net.snn"), "--chip", "loihi2", "--data", str(tmp_path / "data.npz"), "--budgets", "80%,60%",
         "--method", "random", "--episodes", "6", "--epochs", "2", "--out", str(tmp_path / "out"), "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    front = json.loads(result.stdout)["front"]
    assert [row["wanted"] for row in front] == ["80% SynOps", "60% SynOps"]
    for row in front:
        measured = evaluate(api.load(tmp_path / "out" / row["files"]["pruned"]), from_arrays({"x": x, "y": y}, name="d").test)
        assert measured.synops.total == row["synops"]["achieved"] <= row["synops"]["budget"]
    again = json.loads(CliRunner().invoke(main, ["report", str(tmp_path / "out"), "--json"]).stdout)
    assert again["network_digest"] == json.loads(result.stdout)["network_digest"] == hash_network(network(IF(), hidden=12))
    page = (tmp_path / "out" / "front.html").read_text()
    assert "<code>spear-deploy prune " in page and "--budgets 80%,60%" in page
    for row in front:
        assert f"{100 * row['accuracy']['pruned']:.2f}\u00a0%" in page and f"<h2>The search for {row['wanted']}</h2>" in page
    assert "<script" not in page and CliRunner().invoke(main, ["report", str(tmp_path / "out")]).exit_code == 0
    assert (tmp_path / "out" / "front.html").read_text() == page
    (tmp_path / "out" / "80" / "search.json").write_text("{")
    with pytest.raises(FileError, match="search.json': is damaged .*; prune again"):
        write_report(tmp_path / "out")
    (tmp_path / "out" / "80" / "search.json").write_text("{}")
    with pytest.raises(FileError, match="its files do not go together"):
        write_report(tmp_path / "out")
    assert front[1]["evaluations"] <= 3 + 2 * 2 and json.loads((tmp_path / "out" / "front.json").read_text())["front"] == front


def test_budgets_that_the_network_keeps_as_it_is_are_a_front_without_plans(tmp_path):
    graph = network(IF(), hidden=12)
    facts = prune_front(graph, "loihi2", task(), ("200%", "100%"), out=tmp_path / "out", method="random", epochs=1)
    assert all("nothing was changed" in row["notes"][-1] and row["batches"]["all"] == 0 for row in facts["front"])
    page = (tmp_path / "out" / "front.html").read_text()
    assert "Every plan of the search" not in page and "Accuracy against SynOps, test split" in page


def test_synops_and_budgets_together_are_a_usage_error():
    result = CliRunner().invoke(
        main, ["prune", "digits", "--chip", "loihi2", "--data", "digits", "--synops", "5", "--budgets", "5%", "--out", "o"]
    )
    assert result.exit_code == 2 and "--budgets and --synops do not go together; give one of them" in result.stderr


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    sd.prune(network(IF()), "loihi2", task(), out=tmp_path, synops="70%", **FAST)
    with pytest.raises(FileError, match="is of another network, other data or other settings; choose another folder, or remove"):
        sd.prune(network(IF(), seed=1), "loihi2", task(), out=tmp_path, synops="70%", **FAST)


def test_a_chip_without_the_neuron_is_refused_whatever_the_size_of_the_network(tmp_path):
    net, profile = network(LIF(tau_s=0.002)), api.profile("speck2f")
    inputs = CheckedInputs(network=net, profile=profile, chips=1, dataset=task())
    with pytest.raises(
        UnsupportedError, match="chip 'speck2f' lacks what this network needs, and pruning does not help: layer 'fc'"
    ):
        require_fit(PruneSettings(), inputs, build_chip_costs(net, profile))


# ------------------------------------------------------------------------------------------------------------ settings


def test_settings_and_keywords_give_the_same_network_and_keywords_come_on_top(tmp_path):
    net, data = network(IF()), task()
    settings = PruneSettings(synops="70%", seed=1, **FAST)
    first = sd.prune(net, "loihi2", data, out=tmp_path / "a", settings=settings)
    again = sd.prune(net, "loihi2", data, out=tmp_path / "b", settings=replace(settings, synops="40%"), synops="70%")
    plain = sd.prune(net, "loihi2", data, out=tmp_path / "c", synops="70%", seed=1, **FAST)
    for facts in (first, again, plain):
        facts.pop("seconds")
    assert first == again == plain
    assert api.load(tmp_path / "a" / "pruned.snn") == api.load(tmp_path / "c" / "pruned.snn")


def test_an_option_that_is_none_keeps_the_default():
    assert merge_options(PruneSettings(), {"method": None, "epochs": None, "synops": "50%"}, "prune") == PruneSettings(
        synops="50%"
    )


@pytest.mark.parametrize(
    ("verb", "arguments"), [("prune", ("digits", "loihi2", "digits")), ("deploy", ("digits", "loihi2", "digits")), ("demo", ())]
)
def test_a_misspelt_option_is_refused_with_the_one_that_is_meant(tmp_path, verb, arguments):
    message = rf"{verb}: there is no option 'sinops'; expected .*synops.*; did you mean 'synops'\?"
    with pytest.raises(TypeError, match=message):
        getattr(sd, verb)(*arguments, out=tmp_path / "out", sinops="50%")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"epochs": -1}, {"epochs": 1.5}, {"epochs": 10**10}, {"episodes": True}])
def test_other_than_a_whole_number_of_episodes_or_epochs_is_refused(wrong):
    with pytest.raises(BudgetError, match=r"pruning settings, ep\w+: \S+ given, expected a whole number of 1 to 1000000000"):
        PruneSettings(**wrong)


def test_settings_with_an_invalid_budget_or_method_are_refused():
    with pytest.raises(BudgetError, match="energy budget 'much': expected a number of µJ or a share such as 50%"):
        PruneSettings(energy_uj="much")
    for endless in ("nan%", "1e400", "inf"):
        with pytest.raises(BudgetError, match=f"memory budget '{endless}': expected a number of words or a share such as 50%"):
            PruneSettings(memory=endless)
    for make in (PruneSettings, DeploySettings):
        with pytest.raises(BudgetError, match="method 'speer': expected one of spear, ddpg, .*; did you mean 'spear'"):
            make(method="speer")
        with pytest.raises(BudgetError, match="SynOps budget '0': expected more than 0"):
            make(synops="0")


@pytest.mark.parametrize("synops", [[], ()])
def test_a_front_without_budgets_is_refused(tmp_path, synops):
    with pytest.raises(BudgetError, match="budgets: none given, expected at least one such as 50%"):
        prune_front(network(IF()), "loihi2", task(), synops, out=tmp_path)


@pytest.mark.parametrize("chip", ["generic45nm", "mine"])
def test_a_chip_whose_integers_are_not_known_is_pruned_for_in_floating_point(chip, tmp_path):
    """The profile of a new chip, and the one of no chip: budgets hold, and what would need integers says that there are none."""
    loihi = load_profile("loihi2")
    mine = loihi.model_copy(update={"name": "mine", "meta": loihi.meta.model_copy(update={"family": "mine"})})
    profile = mine if chip == "mine" else load_profile(chip)
    net, data = network(LIF(tau_s=0.002), hidden=12), task(samples=300)
    facts = sd.prune(net, profile, data, out=tmp_path / "a", synops="60%", method="uniform", epochs=4)
    pruned = api.load(tmp_path / "a" / "pruned.snn")
    assert facts["met"] and facts["synops"]["achieved"] <= facts["synops"]["budget"] < facts["synops"]["dense"]
    assert facts["accuracy"]["quantised"] is None is facts["synops"]["quantised"]
    assert evaluate(pruned, data.test).accuracy == facts["accuracy"]["pruned"] and facts["widths"]["fc"][1] < 12
    console = Console(file=io.StringIO(), width=200)
    _show(console, facts, facts["labels"], str(tmp_path))
    assert "(no integers of this chip are known), SynOps" in console.file.getvalue()
    front = prune_front(net, profile, data, ["80%", "60%"], out=tmp_path / "b", method="uniform", epochs=1)
    assert [row["accuracy"]["quantised"] for row in front["front"]] == [None, None]
    assert "<small>–</small>" in (tmp_path / "b" / "front.html").read_text()
    with pytest.raises(ChipError, match="no integers of the family '(generic|mine)' are known; .* stay in floating point"):
        sd.deploy(net, profile, data, out=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_chip_without_integers_that_lacks_a_part_of_the_network_is_refused_with_any_budget(tmp_path):
    loihi = load_profile("loihi2")
    mine = loihi.model_copy(update={"name": "mine", "meta": loihi.meta.model_copy(update={"family": "mine"})})
    mine = override_facts(mine, {"neuron.models": ["IF"]})
    with pytest.raises(ChipError, match="chip 'mine' lacks what this network needs, and pruning does not help: layer 'fc'"):
        sd.prune(network(LIF(tau_s=0.002)), mine, task(), out=tmp_path / "a", synops="60%")
    assert not (tmp_path / "a").exists()
