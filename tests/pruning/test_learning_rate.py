"""The learning rate of pruning: all learning keeps its ratio to the peak, which results, checkpoints and commands state."""

import json
import math
import re
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("gymnasium")

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.errors import BudgetError, FileError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.sweep import read_sweep, sweep
from spear_deploy.pruning import layer_bits, short_learning, time_steps
from spear_deploy.pruning.prune_to_budget import prune_to_budget
from spear_deploy.pruning.search import recipe_builder
from spear_deploy.pruning.search.choose import get_search
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.time_steps import choose_steps
from spear_deploy.pruning.tune import fine_tuning, rounded_learning
from spear_deploy.pruning.tune.measure import deploy_float
from spear_deploy.training.fit import train
from spear_deploy.training.trainer import Trainer
from tests.pipeline.test_deploy import network
from tests.pipeline.test_deploy import task as deploy_task
from tests.pipeline.test_sweep import PLAN as SWEEP
from tests.pruning.test_layer_bits import learn_toy_task
from tests.pruning.test_levers import low_bits
from tests.pruning.test_workers import HALVING
from tests.support.seeds import few_first
from tests.training.test_fit import quick, toy_data, toy_network

PEAKS = {
    short_learning.PEAK, short_learning.ROUNDED_PEAK, recipe_builder.LATER_PEAK, fine_tuning.LATER_PEAK, fine_tuning.CALM_PEAK,
    rounded_learning.PEAK,
}  # fmt: skip
SLOW = PruneSettings(synops="30%", learning_rate=1e-3)
WRONG = [0, -0.01, math.nan, math.inf, 1.5, True, "fast"]


@pytest.fixture(scope="module")
def task():
    data = toy_data()
    return train(toy_network(hidden=16), data, recipe=quick(12)), data


@pytest.fixture
def rates(monkeypatch):
    """Return the list to which each learning adds its learning rate."""
    taken = []

    def note(graph, dataset, recipe, *more):
        taken.append(recipe.learning_rate)
        return Trainer(graph, dataset, recipe, *more)

    monkeypatch.setattr(import_module("spear_deploy.training.fit"), "Trainer", note)  # the package has a function of this name
    return taken


def is_scaled(rates, scale):
    """Return whether each rate is one of `PEAKS`, scaled."""
    return all(any(math.isclose(rate, scale * peak) for peak in PEAKS) for rate in rates)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("recipe", {"levers": "channels,weights"}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("evolution", {"episodes": 4}), ("uniform", {}), ("spear", {"episodes": 3}),
                ("recipe", {"levers": "channels,weights", "episodes": 3}), ("rl", {"episodes": 2}),
            ]
        ),
    ],
)  # fmt: skip
def test_all_learning_of_a_method_keeps_its_ratio_to_the_peak(task, rates, method, more):
    settings = PruneSettings(synops="40%", method=method, epochs=8, **more)
    default = prune_to_budget(*task, settings)
    first = list(rates)
    assert first and is_scaled(first, 1.0) and default.learning_rate == default.to_json()["learning_rate"] == 0.01
    rates.clear()
    low = prune_to_budget(*task, replace(settings, learning_rate=1e-3))
    assert is_scaled(rates, 0.1) and max(rates) == pytest.approx(1e-3) and rates[0] == pytest.approx(0.1 * first[0])
    assert low.learning_rate == low.to_json()["learning_rate"] == 1e-3 and low.graph != default.graph


def test_learning_with_rounding_keeps_it_too(task, rates, monkeypatch):
    monkeypatch.setattr(rounded_learning, "MUCH", 1.0)  # at no time as fast as fine-tuning
    settings = PruneSettings(synops="30%", method="uniform", epochs=6, seed=1, learning_rate=9e-3)
    result = prune_to_budget(*task, settings, deployed=(deploy_float, low_bits(*task, 3)))
    assert result.batches["bits"] > 0 and is_scaled(rates, 0.9) and rates[-1] == pytest.approx(0.9 * rounded_learning.PEAK)


@pytest.mark.slow
def test_trials_of_bits_and_of_time_steps_keep_it_too(rates, monkeypatch, tmp_path):
    for module, name in ((layer_bits, "BATCHES"), (layer_bits, "ROUNDED_BATCHES"), (time_steps, "BATCHES")):
        monkeypatch.setattr(module, name, 4)
    graph, data = learn_toy_task()
    rates.clear()
    assert choose_steps(graph, {n: partial(keep_steps, data, n) for n in (data.steps, data.steps - 2)}, SLOW).rows
    assert rates == pytest.approx([1e-3, 1e-3])
    rates.clear()
    options = {"memory": "40%", "levers": "channels,bits", "method": "uniform", "epochs": 1, "learning_rate": 1e-3}
    assert sd.prune(graph, "loihi1", data, out=tmp_path, **options)["batches"]["layer_bits"] > 0
    assert rates[:2] == pytest.approx([1e-3, 3e-4]) and is_scaled(rates, 0.1)


def keep_steps(data, steps):
    """Return the data on their first time steps."""
    if steps == data.steps:
        return data
    splits = {name: getattr(data, name) for name in ("train", "val", "test")}
    return replace(data, full=data, **{name: replace(split, x=split.x[:, :steps]) for name, split in splits.items()})


@pytest.mark.parametrize("method", few_first(("recipe", "evolution", "rl"), 1))
def test_a_checkpoint_holds_measurements_of_one_rate_alone(task, tmp_path, method):
    """A search at another rate takes none of them, and one at the same rate goes on from them to the same network."""
    details = {"evolution": HALVING, "recipe": None, "rl": None}[method]
    more = {"search": details} if details else {"episodes": 2, "levers": "channels,weights"}
    settings = PruneSettings(synops="40%", method=method, epochs=8, **more)
    low = replace(settings, learning_rate=1e-3)
    find, path = get_search(method), tmp_path / "checkpoint.json"
    alone, other = find(*task, low), find(*task, settings, checkpoint=path)
    kept = set(json.loads(path.read_text())["measured"])
    beside = find(*task, low, checkpoint=path)
    assert (beside.graph, beside.history, beside.batches) == (alone.graph, alone.history, alone.batches)
    learnt = {key for key in json.loads(path.read_text())["measured"] if key.split()[0] in ("tune", "recipe", "rl")}
    assert len(learnt - kept) == len(learnt & kept) > 0 and alone.graph != other.graph
    again = find(*task, low, checkpoint=path)
    assert (again.graph, again.history) == (alone.graph, alone.history)
    assert set(json.loads(path.read_text())["measured"]) == kept | learnt
    stated = find(*task, replace(settings, learning_rate=short_learning.PEAK), checkpoint=path)
    assert stated.graph == other.graph and set(json.loads(path.read_text())["measured"]) == kept | learnt


@pytest.mark.slow
def test_results_of_prune_and_deploy_state_it_and_another_one_prunes_again(tmp_path):
    net, data = network(IF(), hidden=12), deploy_task(samples=300)
    options = {"synops": "70%", "method": "uniform", "learning_rate": 3e-3}
    facts = sd.prune(net, "loihi1", data, out=tmp_path / "p", epochs=3, **options)
    written = json.loads((tmp_path / "p" / "prune.json").read_text())["front"][0]
    assert facts["learning_rate"] == written["learning_rate"] == 3e-3
    out = tmp_path / "d"
    first = sd.deploy(net, "speck2f", data, out=out, **options)
    assert json.loads((out / "search.json").read_text())["learning_rate"] == 3e-3
    assert json.loads((out / "provenance.json").read_text())["options"]["learning_rate"] == 3e-3
    assert sd.deploy(net, "speck2f", data, out=out, **options).resumed[:3] == ("adapt", "evaluate", "prune")
    default = sd.deploy(net, "speck2f", data, out=out, **{**options, "learning_rate": None})
    assert "prune" not in default.resumed and not first.resumed
    assert json.loads((out / "search.json").read_text())["learning_rate"] == 0.01


@pytest.mark.parametrize("wrong", WRONG)
def test_a_rate_out_of_its_range_is_refused(wrong):
    for make in (PruneSettings, DeploySettings):
        with pytest.raises(BudgetError, match="learning rate .* given; expected a number above 0 and at most 1, such as 0.01"):
            make(learning_rate=wrong)


@pytest.mark.parametrize("verb", ["prune", "deploy"])
@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "1.5", "fast"])
def test_the_command_line_refuses_it_in_one_sentence(verb, wrong, tmp_path):
    words = [verb, "digits", "--chip", "loihi2", "--data", "digits", "--out", str(tmp_path / "out"), "--learning-rate", wrong]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and not (tmp_path / "out").exists()
    last = done.stderr.strip().splitlines()[-1]
    assert "Invalid value for '--learning-rate'" in last and wrong.removesuffix(".0") in last


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "1.5", "'fast'"])
def test_a_sweep_file_with_a_wrong_rate_is_refused(wrong, tmp_path):
    (tmp_path / "sweep.toml").write_text(f"{SWEEP}learning_rate = {wrong}")
    with pytest.raises(FileError, match=r"key 'learning_rate': input should be (less than or equal|greater|a finite|a valid)"):
        read_sweep(tmp_path / "sweep.toml")


@pytest.mark.slow
def test_a_sweep_prunes_with_the_rate_of_its_file(task, tmp_path, monkeypatch, rates):
    graph, data = task
    monkeypatch.chdir(tmp_path)
    write_snn(graph, "net.snn")
    splits = (data.train, data.val, data.test)
    np.savez("data.npz", x=np.concatenate([s.x for s in splits]), y=np.concatenate([s.y for s in splits]))
    text = SWEEP.replace('["70%", 1]', '["70%"]').replace("[0, 1]", "[0]")
    for rate, scale in (("", 1.0), ("learning_rate = 1e-3", 0.1)):
        (tmp_path / "sweep.toml").write_text(text + rate)
        rates.clear()
        (row,) = sweep(tmp_path / "sweep.toml", out=tmp_path / "out")["cells"]  # the cell of another rate is not taken
        assert rates and is_scaled(rates, scale)
        facts = json.loads((tmp_path / "out" / row["folder"] / "prune.json").read_text())["front"][0]
        assert facts["learning_rate"] == pytest.approx(0.01 * scale)


def test_commands_that_go_on_repeat_it(tmp_path, monkeypatch):
    """After Ctrl-C, and after a budget that cannot be reached, with one that can."""
    from spear_deploy.pipeline import prune as pipeline_prune

    def stop(*_, out, settings, **__):
        assert settings.learning_rate == 3e-3
        Path(out).mkdir()
        (Path(out) / "checkpoint.json").write_text("{}")
        raise KeyboardInterrupt

    rest = ["digits", "--chip", "loihi2", "--data", "digits", "--learning-rate", "3e-3"]
    monkeypatch.setattr(pipeline_prune, "prune", stop)
    done = CliRunner().invoke(main, ["prune", *rest, "--synops", "50%", "--out", str(tmp_path / "p")])
    assert "--learning-rate 3e-3 --synops 50%" in done.stderr and "goes on from its checkpoint.json" in done.stderr
    done = CliRunner().invoke(main, ["deploy", *rest, "--synops", "1", "--out", str(tmp_path / "d")])
    assert done.exit_code == 1 and re.search(r"spear-deploy deploy .*--learning-rate 3e-3 .*--synops \d+", done.stderr)
