"""Number of time steps as a lever: chosen, learnt on, stored, counted, deployed and verified."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.data import Dataset, Split, load_data
from spear_deploy.data.time_steps import deployed_steps, take_steps
from spear_deploy.errors import BudgetError, DataError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import CubaLI
from spear_deploy.pipeline import api
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.preflight import check_inputs
from spear_deploy.pipeline.prune import prune_front
from spear_deploy.pruning import time_steps
from spear_deploy.pruning.levers import check_steps
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.time_steps import choose_steps
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import train
from spear_deploy.training.recipe import Recipe
from tests.support.deployments import dense


def images(samples=150, seed=0):
    """Three classes of images of ten intensities."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    level = np.random.default_rng(1).random((3, 10))
    return {"x": np.clip(level[y] + rng.normal(0, 0.08, (samples, 10)), 0, 1).astype(np.float32), "y": y}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with images and a network that was trained on six steps of their rate code."""
    folder = tmp_path_factory.mktemp("steps")
    np.savez(folder / "images.npz", **images())
    data = load_data(folder / "images.npz", steps=6, encoding="rate", input_shape=(10,))
    write_snn(train(dense(), data, recipe=Recipe(epochs=12, learning_rate=3e-2)), folder / "net.snn")
    timed = {f"x_{name}": getattr(data, name).x for name in ("train", "val", "test")}
    np.savez(folder / "recorded.npz", **timed, **{f"y_{name}": getattr(data, name).y for name in ("train", "val", "test")})
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(time_steps, "BATCHES", 12)


def pruned_with(folder, out, data="images.npz", **options):
    """Prune the network on images, coded with six steps, or on their recordings of six steps."""
    settings = {
        "synops": "60%",
        "steps": "2..6",
        "epochs": 4,
        **({"encoding": "rate"} if data == "images.npz" else {}),
        **options,
    }
    return sd.prune(folder / "net.snn", "loihi2", folder / data, out=out, **settings)


@pytest.fixture(scope="module")
def chosen(trained, tmp_path_factory):
    """The result of pruning with a range of steps, and its folder."""
    out = tmp_path_factory.mktemp("pruned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_steps, "BATCHES", 12)
        return pruned_with(trained, out), out


def test_the_number_of_steps_is_chosen_by_learning_and_travels_with_the_network(trained, chosen):
    facts, out = chosen
    net = read_snn(out / "pruned.snn")
    steps = facts["steps"]["deployed"]
    assert facts["steps"] == {"trained": 6, "deployed": steps} and deployed_steps(net) == (steps, 6)
    measured = json.loads((out / "checkpoint-steps.json").read_text())["measured"]
    rows = {int(key.split()[1]): row for key, row in measured.items()}
    assert sorted(rows) == [2, 3, 5, 6] and {row["batches"] for row in rows.values()} == {12}
    assert facts["batches"]["steps"] == 48 and facts["batches"]["all"] == sum(
        count for name, count in facts["batches"].items() if name != "all"
    )
    assert any(note.startswith(f"{steps} time steps were chosen: after 12 batches each") for note in facts["notes"])
    data = api.data(trained / "images.npz", net, encoding="rate")
    assert data.steps == steps
    assert evaluate(net, data.test).synops.total == pytest.approx(facts["synops"]["achieved"])
    assert facts["synops"]["achieved"] <= facts["synops"]["budget"]
    dense_data = load_data(trained / "images.npz", steps=6, encoding="rate", input_shape=(10,))
    before = evaluate(read_snn(trained / "net.snn"), dense_data.test).synops.total
    assert facts["synops"]["budget"] == pytest.approx(0.6 * before)


def test_the_waterfall_shows_fewer_steps_before_the_other_levers(trained, chosen, tmp_path, monkeypatch):
    facts = pruned_with(trained, tmp_path, "recorded.npz", steps="2..3")
    names = [row["lever"] for row in facts["levers"]]
    assert names[:3] == ["trained", "steps", "channels"] and facts["steps"]["deployed"] in (2, 3)
    of = {row["lever"]: row["synops"] for row in facts["levers"]}
    assert of["steps"] < of["trained"] and facts["levers"][1]["batches"] == 24
    assert "<td>steps</td>" in (tmp_path / "prune.html").read_text().replace(' class="name"', "")
    coarse = take_steps(load_data(trained / "recorded.npz", input_shape=(10,)), facts["steps"]["deployed"])
    net = read_snn(trained / "net.snn")
    assert of["steps"] == pytest.approx(evaluate(net, coarse.test).synops.total)
    assert api.data(trained / "recorded.npz", read_snn(tmp_path / "pruned.snn")).steps == facts["steps"]["deployed"]


def test_images_are_encoded_again(trained):
    inputs = check_inputs(trained / "net.snn", "loihi2", trained / "images.npz", steps="2..6", encoding="rate")
    assert inputs.dataset.steps == 6 and list(inputs.list_steps()) == [1, 2, 3, 4, 5, 6]
    fewer = inputs.with_steps(4)
    alone = load_data(trained / "images.npz", steps=4, encoding="rate", input_shape=(10,))
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(fewer.dataset, name).x, getattr(alone, name).x)
        np.testing.assert_array_equal(getattr(fewer.dataset, name).y, getattr(inputs.dataset, name).y)
    assert fewer.dataset.trained is inputs.dataset and fewer.with_steps_of(fewer.network).dataset.steps == 4


def test_a_choice_that_was_stopped_goes_on_to_the_same_network(trained, chosen, tmp_path, monkeypatch):
    facts, out = chosen
    learn, calls = time_steps._learn, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*arguments)

    monkeypatch.setattr(time_steps, "_learn", stopped)
    with pytest.raises(KeyboardInterrupt):
        pruned_with(trained, tmp_path)
    assert len(json.loads((tmp_path / "checkpoint-steps.json").read_text())["measured"]) == 2
    again = pruned_with(trained, tmp_path)
    assert len(calls) == 3 + 2
    assert (tmp_path / "pruned.snn").read_bytes() == (out / "pruned.snn").read_bytes()
    assert again["levers"] == facts["levers"] and again["steps"] == facts["steps"]


def test_data_are_read_for_the_network(trained, chosen):
    net = read_snn(chosen[1] / "pruned.snn")
    timed = replace(net, metadata={**net.metadata, "steps": 3, "trained_steps": 6})
    path = trained / "images.npz"
    for given, expected in ((None, 3), (6, 3), (3, 3), ("2..6", 3), ("auto", 3), (5, 5)):
        assert api.data(path, timed, steps=given, encoding="rate").steps == expected
    rng = np.random.default_rng(0)
    split = Split(x=rng.integers(0, 2, (12, 6, 10)).astype(np.uint8), y=np.arange(12) % 3)
    recorded = Dataset(name="recorded", train=split, val=split, test=split, classes=3)
    coarse = api.data(recorded, timed)
    np.testing.assert_array_equal(coarse.test.x, split.x.reshape(12, 3, 2, 10).sum(axis=2))
    other = replace(net, metadata={**net.metadata, "steps": 4, "trained_steps": 6})
    assert api.data(recorded, other).steps == 6 and api.data(coarse, timed).steps == 3
    inputs = check_inputs(dense(), "loihi2", recorded)
    assert inputs.list_steps() == (1, 2, 3, 6)
    with pytest.raises(DataError, match="samples of 6 time steps cannot be given 4; expected one of 1, 2, 3, 6"):
        inputs.with_steps(4)
    np.savez(trained / "timed.npz", x=split.x, y=split.y)
    assert api.data(trained / "timed.npz", net, steps=6).steps == 6 and api.data(trained / "timed.npz", timed, steps=3).steps == 3
    for graph in (dense(), timed):
        with pytest.raises(DataError, match=r"data 'timed.npz': the samples have 6 time steps of their own, steps 4 given"):
            api.data(trained / "timed.npz", graph, steps=4)
    fewer = inputs.with_steps(2)
    assert fewer.dataset.full is recorded or fewer.dataset.trained.steps == 6
    assert deployed_steps(fewer.network) == (2, 6) and inputs.with_steps_of(fewer.network).dataset.steps == 2
    assert inputs.with_steps_of(dense()) is inputs


def test_a_budget_that_the_network_keeps_leaves_all_steps(trained, tmp_path):
    facts = pruned_with(trained, tmp_path, "recorded.npz", synops="120%", steps="auto")
    assert facts["steps"] == {"trained": 6, "deployed": 6} and "steps" not in facts["batches"]


def test_steps_alone_may_reach_the_budget(trained, tmp_path):
    facts = pruned_with(trained, tmp_path, "recorded.npz", synops="97%", steps="3..3")
    assert facts["steps"]["deployed"] == 3 and facts["met"] and facts["widths"] == {"fc": [8, 8]}
    assert [row["lever"] for row in facts["levers"]][:2] == ["trained", "steps"] and "rates" in [
        r["lever"] for r in facts["levers"]
    ]


def test_numbers_of_steps_whose_samples_the_chip_cannot_take_are_left_out(trained, tmp_path, monkeypatch):
    """Wider bins hold two and three events of a channel; BrainScaleS-2 takes one."""
    tau = {"tau_mem_s": 0.002, "tau_syn_s": 0.002}
    net = read_snn(trained / "net.snn").with_layers(
        lambda layer: replace(layer, neuron=CubaLI(**tau)) if layer.name == "out" else layer
    )
    options = {"synops": "60%", "method": "uniform", "epochs": 1}
    facts = sd.prune(net, "brainscales2", trained / "recorded.npz", out=tmp_path / "a", steps="auto", **options)
    assert facts["steps"] == {"trained": 6, "deployed": 6} and facts["met"] and "steps" not in facts["batches"]
    note = "steps: 3, 2 of 6 are not among those to choose from, since samples then have 2 events of one channel in one step, "
    assert f"{note}brainscales takes 1" in facts["notes"]
    monkeypatch.setattr(time_steps, "_learn", lambda *arguments: pytest.fail("it learns"))
    with pytest.raises(DataError, match=r"steps '2\.\.3': with 3 steps samples have 2 events .* takes 1; name a range with more"):
        sd.prune(net, "brainscales2", trained / "recorded.npz", out=tmp_path / "b", steps="2..3", **options)
    with pytest.raises(DataError, match=r"steps '2\.\.3': with 3 steps samples have .*; name a range with more steps$"):
        sd.deploy(net, "brainscales2", trained / "recorded.npz", out=tmp_path / "c", steps="2..3", synops="60%", method="uniform")
    assert not list((tmp_path / "c").glob("*.snn"))


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["loihi2", pytest.param("xylo_audio2", marks=pytest.mark.slow)])
def test_deploy_exports_and_verifies_the_chosen_steps(trained, tmp_path, chip):
    data = trained / "recorded.npz"
    options = {"synops": "60%", "steps": "2..3", "lava_samples": 2, "method": "uniform"}
    result = sd.deploy(trained / "net.snn", chip, data, out=tmp_path, **options)
    assert not result.failures
    facts = json.loads((tmp_path / "deployment.json").read_text())
    steps = facts["steps"]["deployed"]
    assert facts["steps"]["trained"] == 6 and steps in (2, 3)
    assert deployed_steps(read_snn(tmp_path / "quantised.snn")) == (steps, 6)
    assert json.loads((tmp_path / "nir" / "certificate.json").read_text())["input"]["steps"] == steps
    assert json.loads((tmp_path / "layers.json").read_text())["quantised"]["steps"] == steps
    back = sd.load(tmp_path / "nir" / "network.nir")
    assert deployed_steps(back) == (steps, 6)
    checked = sd.verify(tmp_path)
    assert checked.holds, checked.failures
    again = sd.deploy(trained / "net.snn", chip, data, out=tmp_path, **options)
    assert "prune" in again.resumed
    other = sd.deploy(trained / "net.snn", chip, data, out=tmp_path, **{**options, "steps": "3..3"})
    assert "prune" not in other.resumed
    facts["steps"]["deployed"] = 1
    (tmp_path / "deployment.json").write_text(json.dumps(facts))
    assert any(row["where"] == "steps.deployed" for row in sd.verify(tmp_path).failures)


def test_ranges_and_levers_have_to_agree(trained, tmp_path):
    wrong = [
        ({"levers": "channels"}, BudgetError, "is a range, but steps are not among the levers"),
        ({"levers": "channels,steps", "steps": 6}, BudgetError, "levers: steps are named, but no range of them is given"),
        ({"synops": None, "cores": 1}, BudgetError, "steps: they are chosen by a SynOps budget, and none is given"),
        ({"data": "recorded.npz", "steps": "2..9"}, DataError, "the samples have 6 time steps; name a range up to 6"),
        ({"data": "recorded.npz", "steps": "4..5"}, DataError, "samples of 6 time steps can be given 1, 2, 3, 6; name a range"),
        ({"steps": "7..6"}, DataError, "is an empty range"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            pruned_with(trained, tmp_path / "out", **options)
        assert not (tmp_path / "out" / "pruned.snn").exists()
    with pytest.raises(BudgetError, match="a range is chosen from for one budget, and several are given"):
        prune_front(trained / "net.snn", "loihi2", trained / "images.npz", ["50%"], out=tmp_path / "out", steps="auto")
    with pytest.raises(BudgetError, match="levers: steps are named"):
        DeploySettings(levers="channels,steps")
    with pytest.raises(BudgetError, match="levers: steps alone reaches no budget"):
        check_steps("steps", "auto")
    assert check_steps("steps,channels", "auto") and not check_steps(None, 5) and check_steps(None, "2..3")
    inputs = check_inputs(trained / "net.snn", load_profile("loihi2"), trained / "images.npz", steps=6, encoding="rate")
    with pytest.raises(BudgetError, match="they are chosen by a SynOps budget"):
        choose_steps(inputs.network, {6: lambda: inputs.dataset}, PruneSettings(cores=1))


@pytest.mark.parametrize("readout", ["chip", "host"])
def test_a_range_that_the_data_cannot_give_ends_a_deployment_before_anything_runs(trained, tmp_path, readout):
    """Also before parts are replaced, as a readout that moves to the host is; no stage is kept."""
    for text, message in (("2..9", "name a range up to 6$"), ("4..5", "given 1, 2, 3, 6; name a range with one of these$")):
        options = {"steps": text, "synops": "60%", "readout": readout, "command": "spear-deploy deploy"}
        with pytest.raises(DataError, match=message):
            sd.deploy(trained / "net.snn", "loihi2", trained / "recorded.npz", out=tmp_path / "out", **options)
        assert not list((tmp_path / "out").glob("*.snn")) and not (tmp_path / "out" / "stages.json").exists()


def test_a_budget_that_no_lever_reaches_ends_before_any_learning(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(time_steps, "_learn", lambda *arguments: pytest.fail("it learns"))
    for levers in ("channels,steps", "channels,weights,steps"):
        with pytest.raises(BudgetError, match=r"what the levers can leave; raise .*: 2 time steps \d+, and one channel") as error:
            pruned_with(trained, tmp_path / "out", synops=0.01, levers=levers)
        assert ("0.5% of the weights" in str(error.value)) == ("weights" in levers)
        assert error.value.min_value > 0.01 and not list((tmp_path / "out").glob("*.json"))


def test_the_command_line_takes_a_range(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    run = CliRunner().invoke
    command = ["prune", "net.snn", "--chip", "loihi2", "--data", "images.npz", "--encoding", "rate", "--synops", "60%"]
    out = ["--epochs", "3", "--quiet", "--out", str(tmp_path / "out")]
    done = run(main, [*command, *out, "--steps", "3..3"])
    assert done.exit_code == 0, done.output
    assert "time steps: 6 → 3" not in done.output  # images are read with the most of the range
    for text, message in (("9..2", "is an empty range"), ("some", "expected a number, a range"), ("0", "expected at least 1")):
        wrong = run(main, [*command, *out, "--steps", text])
        assert wrong.exit_code == 2 and message in wrong.output
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "project" / "spear.toml").write_text('[data]\nsteps = "2..6"\nencoding = "rate"\n')
    command[1], command[5] = str(trained / "net.snn"), str(trained / "images.npz")
    done = run(main, [*command, *out[:-1], str(tmp_path / "more")])
    assert done.exit_code == 0 and "time steps were chosen" in done.output
    counted = run(main, ["count", str(tmp_path / "more" / "pruned.snn"), "--data", str(trained / "images.npz"), "--json"])
    assert counted.exit_code == 0
    (tmp_path / "project" / "spear.toml").write_text('[data]\nsteps = "6..2"\n')
    wrong = run(main, [*command, *out])
    assert wrong.exit_code == 1 and "a whole number of at least 1, or for prune and deploy 'auto' or a range" in wrong.output
