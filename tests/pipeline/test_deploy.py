"""Deployment on a task of seconds: results, resuming and refusals."""

import html
import io
import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.cli.tables import show_deployment
from spear_deploy.data import from_arrays
from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import BackendError, BudgetError, ChipError, DataError, UnsupportedError
from spear_deploy.hardware.profile import hash_profile, load_profile, override_facts
from spear_deploy.interchange.chip_files import has_simulator
from spear_deploy.interchange.snn_file import hash_network, read_snn
from spear_deploy.interchange.speck import reader as speck
from spear_deploy.lava import run as lava
from spear_deploy.network import IF, LIF, Dense, Layer
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pipeline import api, export_stage, stage_cache, stages
from spear_deploy.pipeline.deploy import make_advice, open_cache
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.result import tool_version
from spear_deploy.pipeline.stage_cache import STAGES as STAGES_FILE
from spear_deploy.pipeline.stage_cache import StageCache, StageOutput
from spear_deploy.pipeline.stages import compare_with_lava, compare_with_norse
from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.report import write_report
from spear_deploy.report.page import find_shown
from spear_deploy.simulator import simulate
from spear_deploy.simulator.recordings import read_counts, write_counts
from spear_deploy.simulator.synops import count_synops
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.learning_store import list_learning
from spear_deploy.util.digests import hash_file
from tests.support.deployments import OPTIONS, arrays, dense, deployed, network, task
from tests.support.reference import random_spikes

STAGES = ["evaluate", "prune", "quantise", "lava", "check", "export"]


def without_seconds(facts):
    return {name: value for name, value in facts.items() if name != "seconds"}


def again(folder, **changed):
    return sd.deploy(dense(), "loihi2", task(), out=folder, **{**OPTIONS, **changed})


@pytest.fixture(autouse=True)
def lava_runs_once(keep):
    """Run Lava once on the same integers and samples: a second run has the same spikes, and takes more than a second."""
    keep(lava, "run_lava")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(deployed()[1], tmp_path / "out"))


# ------------------------------------------------------------------------------------------------------- what it gives


@pytest.mark.lava
def test_deploy_states_what_it_measured():
    result, folder, stages = deployed()
    facts = result.to_json()
    assert facts == json.loads((folder / "deployment.json").read_text())
    assert set(facts["accuracy"]) == {"dense", "pruned", "quantised", "lava"}
    assert facts["synops"]["budget"] == pytest.approx(0.7 * facts["synops"]["dense"])
    assert facts["lava"]["samples"] == 4 and facts["lava"]["spike_mismatches"] == facts["lava"]["value_mismatches"] == 0
    assert facts["norse"]["spike_mismatches"] == 0
    assert list(facts["seconds"]) == STAGES
    checks = ["load data", "check the network against the chip"]
    assert [s["stage"] for s in stages if not s.get("of") and "note" not in s] == [*checks, *STAGES, "report"]
    for name in facts["files"].values():
        assert (folder / name).stat().st_size > 0, name
    named = {folder / name for name in facts["files"].values()} | {folder / STAGES_FILE}
    assert {path for path in folder.rglob("*") if path.is_file()} == named


@pytest.mark.lava
def test_deployed_files_give_the_stated_numbers():
    result, folder, _ = deployed()
    test = task().test
    networks = {name: api.load(folder / f"{name}.snn") for name in ("dense", "pruned", "quantised")}
    for name, graph in networks.items():
        assert evaluate(graph, test).accuracy == result.accuracy[name]
    counts = simulate(networks["quantised"], np.moveaxis(test.x, 0, 1)).counts
    assert count_synops(networks["quantised"], counts).total == pytest.approx(result.synops["achieved"])
    before, after = result.widths["fc"]
    assert (before, after) == (8, networks["pruned"].shape_of("fc")[0]) and after < before


@pytest.mark.lava
def test_layers_json_holds_the_counted_synops_spikes_and_weights():
    result, folder, _ = deployed()
    reported = json.loads((folder / "layers.json").read_text())
    test = task().test
    for name, key in (("dense", "dense"), ("quantised", "achieved")):
        graph = api.load(folder / f"{name}.snn")
        counts = simulate(graph, np.moveaxis(test.x, 0, 1)).counts
        assert sum(row["synops"] or 0 for row in reported[name]["layers"]) == pytest.approx(result.synops[key])
        (row,) = [row for row in reported[name]["layers"] if row["name"] == "fc"]
        assert row["spikes"] == pytest.approx(counts.sent["fc"].sum() / len(test))
        assert row["rate"] == pytest.approx(counts.sent["fc"].sum() / len(test) / 6 / row["neurons"])
        assert row["weights"] == np.count_nonzero(graph["fc"].synapse.weight)
        assert reported[name]["input"]["spikes"] == pytest.approx(test.x.sum() / len(test))


@pytest.mark.lava
def test_the_raster_is_of_one_sample_of_the_three_runs():
    _, folder, _ = deployed()
    pruned, integer = (api.load(folder / f"{name}.snn") for name in ("pruned", "quantised"))
    with np.load(folder / "raster.npz", allow_pickle=False) as kept:
        sample = int(kept["sample"])
        x = np.moveaxis(task().test.x[[sample]], 0, 1)
        assert kept["y"] == task().test.y[sample]
        for graph, sides in ((pruned, ["norse"]), (integer, ["fixed", "lava"])):
            spikes = simulate(graph, x, record=("spikes",)).spikes["fc"][:, 0]
            for side in sides:
                np.testing.assert_array_equal(kept[f"fc.{side}"], spikes)


@pytest.mark.lava
def test_a_format_that_cannot_hold_the_network_is_a_note():
    result, folder, messages = deployed()
    note = "no netx file can be written of the network as it is: layer 'fc'"
    told = [n for n, facts in enumerate(messages) if note in facts.get("note", "")]
    assert len(told) == 1 and all("epoch" not in facts and "fine-tune" not in facts["stage"] for facts in messages[: told[0]])
    assert told[0] < [facts["stage"] for facts in messages].index("evaluate")  # before anything is run or learnt
    assert "netx" not in result.files and not (folder / "netx").exists()
    assert any(note.startswith("no netx file: layer 'fc': a bias on the current") for note in result.notes)
    for to in ("nir", "onnx"):
        certificate = json.loads((folder / result.files[f"{to}_certificate"]).read_text())
        assert certificate["mismatches"] == 0 and certificate["first_difference"] is None


@pytest.mark.lava
def test_provenance_names_digests_versions_and_what_the_user_supplied(folder):
    result = again(folder, overrides={"energy.synop_pj": 23.6})
    assert result.resumed == ("evaluate", "lava")  # also the exported files are of this chip alone
    reported = json.loads((folder / "provenance.json").read_text())
    for name, digest in reported["sha256"].items():
        assert digest == hash_file(folder / name), name
    assert [fact["key"] for fact in reported["chip"]["facts"] if fact["evidence"] == "user"] == ["energy.synop_pj"]
    assert all(fact["source"] for fact in reported["chip"]["facts"])
    assert {"python", "torch", "lava-nc", "spear-deploy"} <= set(reported["versions"])
    assert reported["command"] is None and reported["data"]["samples"] == {"train": 82, "val": 14, "test": 24}
    assert "synapse" not in json.loads((folder / "deployment.json").read_text())["energy"]["missing"]


def test_prune_writes_the_plan_that_gives_the_pruned_network(tmp_path):
    facts = sd.prune(network(IF()), "loihi2", task(), out=tmp_path, synops="60%", method="uniform")
    pruned = api.load(tmp_path / facts["files"]["pruned"])
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert facts["widths"]["fc"] == [8, pruned.shape_of("fc")[0]]
    assert len(plan["fc"]) == pruned.shape_of("fc")[0]
    assert facts["accuracy"]["pruned"] == evaluate(pruned, task().test).accuracy
    assert facts["synops"]["budget"] == pytest.approx(0.6 * facts["synops"]["dense"])
    assert json.loads((tmp_path / "search.json").read_text())


# --------------------------------------------------------------------------------------------- a proof finds a difference


def flip_one_spike(monkeypatch):
    """Let Lava's runs differ from what Lava gave in one spike of layer 'fc'."""

    def differing(*arguments, run=lava.run_lava, **options):
        result = run(*arguments, **options)
        spikes = {name: value.copy() for name, value in result.spikes.items()}
        spikes["fc"][2, 1, 0] ^= True
        return replace(result, spikes=spikes)

    monkeypatch.setattr(lava, "run_lava", differing)


@pytest.mark.lava
def test_a_proof_that_finds_a_difference_leads_verdict_and_page_in_red_and_exits_with_1(folder, monkeypatch):
    flip_one_spike(monkeypatch)
    export = api.export
    monkeypatch.setattr(api, "export", lambda *a, to, **k: {**export(*a, to=to, **k), "mismatches": 2 * (to == "onnx")})
    (folder / "onnx" / "network.onnx").unlink()
    result = again(folder, lava_samples=3)
    compared = result.lava["spikes_compared"]
    on_lava = f"Lava and the simulator differ in 1 of {compared} spikes; first in layer 'fc', step 2, sample 1"
    assert result.failures == [on_lava, "the onnx file differs in 2 values when it is read back"]
    assert result.headline.startswith("NOT PROVEN (2 proofs failed), FITS loihi2: ") and result.report.verdict == "fits"
    assert json.loads((folder / "deployment.json").read_text())["failures"] == result.failures
    assert json.loads((folder / "check.json").read_text())["headline"] == result.headline
    page = html.unescape((folder / "report.html").read_text())
    assert "<h1>Not proven: fits Intel Loihi 2</h1>" in page and '<div class="verdict bad">' in page
    assert all(f'<p class="lead bad">{failure}.</p>' in page for failure in result.failures)
    assert '<dt>Lava against our simulator</dt><dd class="bad">1 differ</dd>' in page

    screen = io.StringIO()
    show_deployment(Console(file=screen, force_terminal=True, width=200), result, "built")
    bold_red = "\x1b[1;31m"
    assert f"{bold_red}NOT PROVEN" in screen.getvalue() and f"{bold_red}1 differ" in screen.getvalue()

    bare = chain([Layer(name="0", synapse=Dense(weight=np.ones((3, 2), np.float32)), neuron=IF())], input_shape=(2,))
    show_deployment(Console(file=screen, width=200), replace(result, network=bare, widths={"0": (3, 2)}), "built")
    assert "0 Dense-IF 3: 3→2" in screen.getvalue() and "its integers count" not in screen.getvalue()
    show_deployment(Console(file=screen, width=200), replace(result, floating_point_counts=False), "built")
    assert screen.getvalue().count("in floating point, which this chip does not compute: its integers count") == 2

    monkeypatch.setattr("spear_deploy.pipeline.deploy.deploy", lambda *a, **k: result)
    command = ["deploy", str(folder / "dense.snn"), "--chip", "loihi2", "--data", "digits", "--out", str(folder)]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 1 and [f"error: {failure}" in run.stderr for failure in result.failures] == [True, True]


@pytest.mark.lava
def test_a_page_of_an_earlier_release_shows_lavas_difference_in_red(folder):
    path = folder / "deployment.json"
    facts = json.loads(path.read_text())
    del facts["failures"]
    facts["lava"] |= {"spike_mismatches": 1952, "first_difference": None}
    path.write_text(json.dumps(facts))
    page = write_report(folder).read_text()
    assert "<h1>Not proven: fits Intel Loihi 2</h1>" in page and '<dd class="bad">1,952 differ</dd>' in page


@pytest.mark.lava
def test_simulate_on_lava_is_repeated_on_the_simulator(tmp_path, monkeypatch):
    out = tmp_path / "run.npz"
    command = ["simulate", str(deployed()[1] / "quantised.snn"), "--backend", "lava", "--input", str(tmp_path / "in.npz")]
    command += ["--record", "v", "--out", str(out), "--json"]
    np.savez(tmp_path / "in.npz", spikes=np.moveaxis(task().test.x[:3], 0, 1))
    run = CliRunner().invoke(main, command)
    facts = json.loads(run.stdout)
    assert run.exit_code == 0 and facts["failures"] == [] and facts["lava"]["spikes_compared"] > 0
    assert facts["lava"]["spike_mismatches"] == facts["lava"]["value_mismatches"] == 0
    assert {name for name in np.load(out).files if name.endswith(".spikes")} == {"input.spikes"}
    flip_one_spike(monkeypatch)
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 1 and json.loads(run.stdout)["lava"]["spike_mismatches"] == 1
    assert "error: Lava and the simulator differ in 1 of" in run.stderr


# ------------------------------------------------------------------------------------------------- going on from there


@pytest.mark.lava
def test_check_takes_the_spikes_of_a_deployment_for_its_integers():
    folder = deployed()[1]
    stated = json.loads((folder / "check.json").read_text())
    asked = ["check", str(folder / "quantised.snn"), "--chip", "loihi2", "--activity", str(folder / "activity.npz"), "--json"]
    value = json.loads(CliRunner().invoke(main, asked).stdout)
    assert value["synops"] == stated["synops"] and value["energy"] == stated["energy"] and value["verdict"] == "fits"
    assert sd.check(folder / "quantised.snn", "loihi2", activity=folder / "activity.npz").synops == stated["synops"]


@contextmanager
def failing_lava(monkeypatch):
    """Let every run on Lava fail, as one does that takes longer than its limit."""

    def fail(*_):
        raise BackendError("Lava hangs", cause="timeout")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "compare_with_lava", fail)
        yield


@pytest.mark.parametrize("other", ["prune.json", "front.json", "sweep.json"])
@pytest.mark.lava
def test_a_deployment_beside_results_of_another_command_has_its_own_page(folder, other):
    (folder / other).write_text('{"front": []}')
    (folder / "report.html").unlink()
    assert again(folder).resumed == ("evaluate", "prune", "quantise", "lava", "export")
    assert (folder / "report.html").is_file()
    assert find_shown(folder) == ("sweep.json" if other == "sweep.json" else "deployment.json")
    os.utime(folder / other, (2e9, 2e9))
    assert find_shown(folder) == other


@pytest.mark.lava
def test_a_second_run_takes_all_five_stages_from_the_first(folder):
    result = again(folder)
    assert result.resumed == ("evaluate", "prune", "quantise", "lava", "export")
    assert "taken from an earlier run with the same inputs: evaluate, prune, quantise" in result.resumed_note
    assert without_seconds(result.to_json()) == without_seconds(deployed()[0].to_json())
    assert {name: result.seconds[name] for name in result.resumed} == {
        name: deployed()[0].seconds[name] for name in result.resumed
    }


@pytest.mark.lava
def test_a_failed_stage_keeps_the_stages_before_and_the_next_run_goes_on(tmp_path, monkeypatch):
    kept = r"Lava hangs; what is done \(evaluate, prune, quantise\) is kept in '.*out', and `go` goes on"
    with failing_lava(monkeypatch), pytest.raises(BackendError, match=kept):
        again(tmp_path / "out", command="go")
    kept = {name: hash_file(tmp_path / "out" / name) for name in ("dense.snn", "pruned.snn", "quantised.snn")}
    assert not (tmp_path / "out" / "deployment.json").exists()
    result = again(tmp_path / "out")
    assert result.resumed == ("evaluate", "prune", "quantise")
    assert {name: hash_file(tmp_path / "out" / name) for name in kept} == kept
    assert without_seconds(result.to_json()) == without_seconds(deployed()[0].to_json())


def stopping(stage, done):
    """Return what is told progress and presses Ctrl-C there."""

    def tell(facts):
        if (facts["stage"], facts.get("done")) == (stage, done):
            raise KeyboardInterrupt

    return tell


@pytest.mark.lava
@pytest.mark.parametrize("stage, done", [("estimate", 2), ("fine-tune", 3)])
def test_a_search_stopped_by_ctrl_c_ends_in_the_result_of_an_uninterrupted_run(tmp_path, stage, done):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt, match=r"what is done \(evaluate\) is kept in .*, and the same call goes on from there"):
        again(out, progress=stopping(stage, done))
    assert not (out / "pruned.snn").exists() and not (out / "lava.json").exists()  # nothing is learnt that is not used
    assert len(list(out.glob("checkpoint-*.json"))) == 1
    assert len(list_learning(out)) == (stage == "fine-tune")
    result = again(out)
    assert result.resumed == ("evaluate",)
    assert without_seconds(result.to_json()) == without_seconds(deployed()[0].to_json())
    assert not list(out.glob("checkpoint-*.json")) and not list_learning(out)


@pytest.mark.lava
@pytest.mark.parametrize("stage", ["check", "export"])
def test_ctrl_c_between_two_stages_names_what_is_kept(folder, stage):
    with pytest.raises(
        KeyboardInterrupt, match=r"what is done \(evaluate, .*\) is kept in .*, and the same call goes on from there"
    ):
        again(folder, progress=stopping(stage if stage == "check" else f"{stage} (of an earlier run)", 0))
    assert again(folder).resumed == ("evaluate", "prune", "quantise", "lava", "export")


@pytest.mark.lava
def test_other_options_reuse_equal_stages_and_remove_the_old_results(folder, monkeypatch):
    with failing_lava(monkeypatch), pytest.raises(BackendError, match="Lava hangs"):
        again(folder, lava_samples=2)
    left = {path.name for path in folder.iterdir()}
    assert {"dense.snn", "pruned.snn", "search.json", "quantised.snn"} <= left
    assert not left & {"deployment.json", "report.html", "check.json", "provenance.json", "lava.json", "raster.npz"}


@pytest.mark.lava
def test_a_changed_file_is_made_again(folder):
    with open(folder / "quantised.snn", "ab") as file:
        file.write(b"x")
    result = again(folder)
    assert result.resumed == ("evaluate", "prune", "lava", "export")
    assert without_seconds(result.to_json()) == without_seconds(deployed()[0].to_json())


@pytest.mark.lava
def test_the_command_resumes_and_notes_it_on_stderr(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("task.npz", **arrays())
    arguments = ["deploy", "out/dense.snn", "--chip", "loihi2", "--data", "task.npz", "--out", "out"]
    arguments += ["--synops", "70%", "--method", "uniform", "--lava-samples", "4", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output + result.stderr
    assert "note: taken from an earlier run with the same inputs: evaluate, prune, quantise, lava, export" in result.stderr
    printed = json.loads(result.stdout)
    assert printed.pop("network_digest") == hash_network(read_snn(Path("out/dense.snn")))
    assert [printed.pop(name) for name in ("assumptions", "schema_version", "tool_version")] == [[], 1, tool_version()]
    assert without_seconds(printed) == without_seconds(deployed()[0].to_json())
    reported = json.loads(Path("out/provenance.json").read_text())
    assert reported["command"] == " ".join(["spear-deploy", *arguments])


def open_stage_cache(folder, **options):
    return StageCache(folder, **{"fresh": False, "advice": lambda error: "the same call", "progress": None, **options})


def writing(folder, name, text):
    def work():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        return StageOutput(files=(name,), value=text)

    return work


def unreachable():
    raise AssertionError("the stage ran")


def test_a_stage_runs_again_if_inputs_or_files_change_or_if_fresh(tmp_path):
    first = open_stage_cache(tmp_path).run("one", {"seed": 0}, writing(tmp_path, "a/x.txt", "0"))
    assert open_stage_cache(tmp_path).run("one", {"seed": 0}, unreachable) == first
    assert open_stage_cache(tmp_path).run("one", {"seed": 1}, writing(tmp_path, "a/x.txt", "1")).value == "1"
    assert open_stage_cache(tmp_path, fresh=True).run("one", {"seed": 1}, writing(tmp_path, "b.txt", "2")).value == "2"
    assert not (tmp_path / "a").exists()  # what the stage wrote before is gone
    (tmp_path / "b.txt").unlink()
    assert open_stage_cache(tmp_path).run("one", {"seed": 1}, writing(tmp_path, "b.txt", "3")).value == "3"


def test_a_fresh_run_that_was_stopped_takes_none_of_the_stages_before_it(tmp_path):
    for name in ("one", "two"):
        open_stage_cache(tmp_path).run(name, {}, writing(tmp_path, f"{name}.txt", "old"))
    new = open_stage_cache(tmp_path, fresh=True).run("one", {}, writing(tmp_path, "one.txt", "new"))
    later = open_stage_cache(tmp_path)
    assert later.run("one", {}, unreachable) == new
    assert later.run("two", {}, writing(tmp_path, "2.txt", "new")).value == "new"
    assert not (tmp_path / "two.txt").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_fresh_run_begins_searches_and_learning_anew(tmp_path, fresh):
    unfinished = ["checkpoint-0f.json", "checkpoint-0f.steps.json", "checkpoint-bits.json", f"learning-{'a' * 12}-{'b' * 32}.npz"]
    for name in unfinished:
        (tmp_path / name).touch()
    open_cache(tmp_path, DeploySettings(fresh=fresh), None)
    assert [(tmp_path / name).exists() for name in unfinished] == [not fresh] * 4


def test_what_goes_on_from_a_fresh_run_is_the_command_without_it():
    fresh = make_advice("spear-deploy deploy a.snn --fresh --out b --freshly", fresh=True)
    assert fresh(None) == "`spear-deploy deploy a.snn --out b --freshly`"
    assert make_advice("spear-deploy demo --fresh", fresh=True)(None) == "`spear-deploy demo`"
    assert make_advice(None, fresh=True)(None) == "the same call without `fresh`"


def test_stages_of_other_code_are_other_stages(tmp_path, monkeypatch):
    open_stage_cache(tmp_path).run("one", {}, writing(tmp_path, "x.txt", "old"))
    monkeypatch.setattr(stage_cache, "hash_code", lambda: "other")
    assert open_stage_cache(tmp_path).run("one", {}, writing(tmp_path, "x.txt", "new")).value == "new"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"one": 3}', '{"one": {"key": "k"}}', '{"one": {"key": "k", "files": [], "value": 0, "seconds": 0}}']
)
def test_a_damaged_stage_cache_holds_no_stages(tmp_path, text):
    (tmp_path / STAGES_FILE).write_text(text)
    assert open_stage_cache(tmp_path).run("one", {}, writing(tmp_path, "x.txt", "new")).value == "new"


def test_a_stage_that_was_edited_runs_again(tmp_path):
    open_stage_cache(tmp_path).run("one", {}, writing(tmp_path, "x.txt", "0.5"))
    ledger = json.loads((tmp_path / STAGES_FILE).read_text())
    for key, value in (("value", "0.999"), ("seconds", 9.0), ("digest", "")):
        edited = {"one": {**ledger["one"], key: value}}
        (tmp_path / STAGES_FILE).write_text(json.dumps(edited))
        assert open_stage_cache(tmp_path).run("one", {}, writing(tmp_path, "x.txt", "0.5")).value == "0.5"
        assert json.loads((tmp_path / STAGES_FILE).read_text())["one"]["value"] == "0.5"


def test_500_damaged_stage_caches_hold_nothing_but_what_was_written(tmp_path):
    open_stage_cache(tmp_path).run("one", {}, writing(tmp_path, "x.txt", "0.5"))
    whole = (tmp_path / STAGES_FILE).read_bytes()
    dropped = 0
    for seed in range(500):
        rng, content = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            content[place] = rng.integers(256)
        (tmp_path / STAGES_FILE).write_bytes(content)
        stages, _ = stage_cache.read_stages(tmp_path / STAGES_FILE)
        dropped += "one" not in stages
        assert "one" not in stages or stages["one"].value == "0.5"
    assert dropped >= 300


def test_a_stage_cache_removes_no_file_outside_its_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    row = {"key": "k", "files": {"../mine.txt": "0"}, "value": None, "seconds": 0.0}
    (tmp_path / "out" / STAGES_FILE).write_text(json.dumps({"one": row}))
    open_stage_cache(tmp_path / "out").run("one", {}, writing(tmp_path / "out", "x.txt", "new"))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_ctrl_c_and_errors_name_the_kept_stages(tmp_path):
    def stop():
        raise KeyboardInterrupt

    def fail():
        raise BackendError("Lava died", cause="died")

    result = open_stage_cache(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="^no stage is finished; the same call begins anew$"):
        result.run("one", {}, stop)
    result.run("one", {}, writing(tmp_path, "x.txt", "done"))
    with pytest.raises(KeyboardInterrupt, match=r"what is done \(one\) is kept in .*, and the same call goes on from there"):
        result.run("two", {}, stop)
    with pytest.raises(BackendError, match=r"^Lava died; what is done \(one\) is kept") as caught:
        result.run_always("two", fail)
    assert caught.value.cause == "died"

    def refuse():
        raise ChipError("layer 'fc': LIF leaks; use IF", adapting="NET --chip speck2f --data DATA")

    with pytest.raises(ChipError, match=r"^layer 'fc': LIF leaks; use IF; or let `spear-deploy adapt NET .*` replace") as e:
        result.run_always("two", refuse)
    assert "goes on" not in str(e.value)  # the chip refuses the same network again


def test_after_an_unreachable_budget_the_advised_command_has_one_that_can_be_reached():
    advice = make_advice("spear-deploy deploy a.snn --synops=5% --out b")
    assert advice(BudgetError("too low", min_value=812.3)) == "`spear-deploy deploy a.snn --out b --synops 813`"
    assert advice(BudgetError("no number")) == "`spear-deploy deploy a.snn --synops=5% --out b`"
    assert make_advice(None)(None) == "the same call"


def test_digests_tell_data_profiles_and_networks_apart():
    same, other = task(), arrays()
    assert hash_dataset(same) == hash_dataset(task())
    other["x"] = other["x"].copy()
    other["x"][0, 0, 0] ^= 1
    assert hash_dataset(from_arrays(other, name="task")) != hash_dataset(same)
    assert hash_dataset(from_arrays(arrays(), name="renamed")) == hash_dataset(same)
    chip = load_profile("loihi2")
    assert hash_profile(chip) == hash_profile(load_profile("loihi2"))
    assert hash_profile(override_facts(chip, {"energy.synop_pj": 1.0})) != hash_profile(chip)
    assert hash_network(network(IF())) == hash_network(network(IF()))
    assert hash_network(network(IF(), seed=1)) != hash_network(network(IF()))


def test_counts_come_back_from_their_file_delayed_edges_included(tmp_path):
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=name, synapse=Dense(weight=rng.normal(size=shape).astype(np.float32)), neuron=IF())
        for name, shape in (("a.b", (4, 3)), ("back", (4, 4)))
    ]
    edges = (Edge(source="input", target="a.b"), Edge(source="a.b", target="back", delay=2))
    graph = SNNGraph(layers=tuple(layers), edges=edges, input_shape=(3,))
    counts = simulate(graph, random_spikes(graph, 0, steps=6, batch=2)).counts
    result = read_counts(tmp_path / "counts.npz", json.loads(json.dumps(write_counts(counts, tmp_path / "counts.npz"))))
    assert (result.steps, result.samples, result.input_kind) == (6, 2, "spikes")
    assert count_synops(graph, result) == count_synops(graph, counts) and counts.delivered
    for name, sent in counts.sent.items():
        np.testing.assert_array_equal(result.sent[name], sent)


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("text", ["much", "", "%", "0", "-3", "nan", "inf%"])
def test_an_invalid_synops_budget_is_refused(text):
    with pytest.raises(BudgetError, match=f"SynOps budget '{text}': expected"):
        parse_amount(text, "synops")


def test_a_budget_below_an_almost_empty_network_names_what_is_reachable(tmp_path):
    with pytest.raises(
        BudgetError, match=r"SynOps budget 1 is below \d+, what this network costs .*; raise it to that or more"
    ) as caught:
        sd.prune(network(IF()), "loihi2", task(), out=tmp_path / "out", synops="1")
    assert caught.value.min_value > 1 and not (tmp_path / "out").exists()


def test_impossible_deployments_are_refused_before_training(tmp_path):
    integer = api.quantize_for_chip(network(IF()), "loihi2")
    with pytest.raises(UnsupportedError, match="a quantised network can be neither searched nor fine-tuned"):
        sd.deploy(integer, "loihi2", task(), out=tmp_path / "out")
    with pytest.raises(UnsupportedError, match="no integers of the family .generic. are known; .* or stay in floating point"):
        sd.deploy(network(IF()), "generic45nm", task(), out=tmp_path / "out")
    five = from_arrays({"x": np.ones((40, 6, 10), np.uint8), "y": np.arange(40) % 5}, name="five")
    with pytest.raises(DataError, match=r"labels go up to 4, the network has outputs 0\.\.2"):
        sd.prune(network(IF()), "loihi2", five, out=tmp_path / "out")
    with pytest.raises(BudgetError, match="SynOps budget 'much'"):
        sd.demo(out=tmp_path / "out", synops="much")
    assert not (tmp_path / "out").exists()


def test_lava_needs_a_sample():
    integer = api.quantize_for_chip(network(IF()), "loihi2")
    with pytest.raises(DataError, match="there is no test sample to run on Lava"):
        compare_with_lava(integer, task().test, 0)


def test_norse_and_our_simulator_agree_on_every_spike():
    result = compare_with_norse(network(LIF(tau_s=0.002, v_threshold=0.2)), task().test)
    assert result == {"samples": 24, "spike_mismatches": 0, "spikes_compared": 24 * 6 * 8}


# ------------------------------------------------------------------------------------------------- chips that Lava is not of


def test_a_speck2f_network_is_deployed_without_a_lava_run(tmp_path, monkeypatch):
    graph = network(IF(reset="subtract"))
    graph = graph.with_layers(lambda layer: replace(layer, neuron=IF(reset="subtract")))
    result = sd.deploy(graph, "speck2f", task(), out=tmp_path, synops="80%", method="uniform")
    assert result.accuracy["lava"] is None and result.lava["samples"] == 0 and result.lava["spike_mismatches"] is None
    assert "Lava's models hold Loihi's integers; those of speck2f ran on our simulator alone" in result.notes
    assert result.report.profile == "speck2f" and (tmp_path / "nir" / "network.nir").exists()
    cores = json.loads((tmp_path / "cores.json").read_text())
    document = json.loads((tmp_path / result.files["speck"]).read_text())
    placed = {cores["layers"][core["parts"][0][0]]: core["place"] for core in cores["cores"]}
    assert {layer["name"]: layer["core"] for layer in document["layers"]} == placed
    digests = json.loads((tmp_path / "provenance.json").read_text())["sha256"]
    assert {"speck/network.json", "speck/certificate.json"} <= set(digests)
    missing = "speck/network.json: sinabs is not installed here; install it to have the file run by it"
    assert (missing in result.notes) is not has_simulator("speck")
    with np.load(tmp_path / "raster.npz") as kept:
        assert {name.rpartition(".")[2] for name in kept.files} - {"sample", "y"} == {"norse", "fixed"}
    text = (tmp_path / "report.html").read_text()
    assert "not run" in text and "Integers on Lava" not in text and "<h1>Fits SynSense Speck2f" in text
    page = text[text.index('<section id="files">') : text.index('<section id="origin">')]
    assert page.index("speck/network.json") < page.index("nir/network.nir")
    assert "<small>certificate: speck/certificate.json</small>" in page

    def run_otherwise(document, x):
        return {name: 1 - spikes for name, spikes in speck.run_document(document, x).items()}

    monkeypatch.setattr(export_stage, "has_simulator", lambda to: True)
    monkeypatch.setattr(speck, "run_sinabs", run_otherwise)
    again = sd.deploy(graph, "speck2f", task(), out=tmp_path, synops="80%", method="uniform")
    assert again.resumed == ("evaluate", "prune", "quantise", "lava")
    assert re.fullmatch(r"the speck file differs in [\d,]+ values when sinabs runs it", again.failures[0])
    monkeypatch.undo()
    verified = sd.verify(tmp_path, data=task())
    notes = ["speck/network.json: its run by sinabs, which is not installed here, is held by digests alone"]
    assert has_simulator("speck") or (verified.holds and list(verified.notes) == notes), verified
    document["layers"][0]["core"] = 8
    (tmp_path / "speck" / "network.json").write_text(json.dumps(document))
    assert ("speck/network.json", "") in [(row["file"], row["where"]) for row in sd.verify(tmp_path, data=task()).failures]
