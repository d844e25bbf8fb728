"""Sweeps: all combinations, taken up again, on workers, killed, and wrong files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("gymnasium")

import nir
import numpy as np

import hardware_profiles
from spear_deploy import load
from spear_deploy.cli import main
from spear_deploy.errors import BudgetError, DataError, FileError, WorkerError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF
from spear_deploy.pipeline.sweep import CELL, _load_networks, find_front, read_sweep, sweep
from spear_deploy.pruning import time_steps
from spear_deploy.report import write_report
from spear_deploy.training.fit import train
from spear_deploy.util.workers import Workers
from tests.training.test_fit import quick, toy_data, toy_network

PLAN = """
networks = ["net.snn"]
chips = ["loihi2"]
budgets = ["70%", 1]
methods = ["uniform"]
seeds = [0, 1]
data = "data.npz"
epochs = 1
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    data = toy_data()
    write_snn(train(toy_network(hidden=16), data, recipe=quick(6)), folder / "net.snn")
    splits = (data.train, data.val, data.test)
    np.savez(folder / "data.npz", x=np.concatenate([s.x for s in splits]), y=np.concatenate([s.y for s in splits]))
    (folder / "sweep.toml").write_text(PLAN)
    return folder


def facts_of(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def swept(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("swept") / "out"
    before = os.getcwd()
    os.chdir(inputs)
    try:
        return out, sweep("sweep.toml", out=out)
    finally:
        os.chdir(before)


def test_files_are_named_relative_to_the_sweep_file(inputs, swept, tmp_path, monkeypatch):
    out, result = swept
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = sweep(os.path.relpath(inputs / "sweep.toml"), out=out)
    assert again["taken"] == 4 and again["cells"] == result["cells"]  # the cells are the same, from any folder
    (tmp_path / "two").mkdir()
    chips = PLAN.replace('"loihi2"', '"chip.yaml", "xylo_audio2"').replace("[0, 1]", "[0]").replace("net.snn", "../two/net.snn")
    (tmp_path / "two" / "sweep.toml").write_text(chips.replace('"70%", 1', '"70%"'))
    for name in ("net.snn", "data.npz"):
        shutil.copy(inputs / name, tmp_path / "two" / name)
    shutil.copy(Path(hardware_profiles.__file__).parent / "loihi2.yaml", tmp_path / "two" / "chip.yaml")
    cells = sweep("../two/sweep.toml", out=tmp_path / "out")["cells"]
    assert [(cell["chip"], cell.get("verdict")) for cell in cells] == [("chip.yaml", "fits"), ("xylo_audio2", None)]
    assert "spear-deploy adapt ../two/../two/net.snn --chip xylo_audio2 --data ../two/data.npz" in cells[1]["error"]
    (tmp_path / "two" / "net.snn").unlink()
    write_snn(toy_network(), "net.snn")  # beside the command, not beside the file
    (tmp_path / "two" / "sweep.toml").write_text(PLAN)
    with pytest.raises(FileError, match=r"file '../two/net.snn': there is no such network file"):
        sweep("../two/sweep.toml", out=tmp_path / "third")


def test_every_combination_is_pruned_or_says_why_not(swept):
    out, result = swept
    cells = result["cells"]
    assert [(cell["budget"], cell["seed"]) for cell in cells] == [("70%", 0), ("70%", 1), (1, 0), (1, 1)]
    assert all(cell["synops"]["quantised"] <= cell["synops"]["budget"] * 1.05 and "error" not in cell for cell in cells[:2])
    assert all("SynOps budget 1 is below" in cell["error"] for cell in cells[2:])
    assert set(result["front"]) <= {cell["folder"] for cell in cells[:2]} and result["front"]
    assert json.loads((out / "sweep.json").read_text())["cells"] == cells
    page = (out / "sweep.html").read_text()
    assert "net.snn on loihi2" in page and "2 seeds" in page
    assert page.count("SynOps budget 1 is below") == len({cell["error"] for cell in cells[2:]})  # each reason once
    assert all(page.count(f"{cell['folder']}<") == 1 for cell in cells[2:])
    assert (out / cells[0]["folder"] / "pruned.snn").is_file()


def test_networks_are_read_with_the_options_that_they_take(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    plan = read_sweep("sweep.toml")
    ones = np.ones(3)
    nodes = {
        "input": nir.Input({"input": np.array([4])}),
        "fc": nir.Linear(weight=np.ones((3, 4))),
        "lif": nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=ones),
        "output": nir.Output({"output": np.array([3])}),
    }
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes=nodes, edges=[("input", "fc"), ("fc", "lif"), ("lif", "output")]))
    both = plan.model_copy(update={"networks": ["net.snn", str(tmp_path / "net.nir")], "source": "norse", "reset": "subtract"})
    stored, read = _load_networks(both).values()
    assert stored == load("net.snn") and {layer.neuron.reset for layer in read.layers if layer.spikes} == {"subtract"}
    assert read == load(tmp_path / "net.nir", source="norse", reset="subtract")
    with pytest.raises(DataError, match="sweep: no network takes 'dt_s', since each states its own; leave the key out"):
        sweep(plan.model_copy(update={"dt_s": 1e-3}), out=tmp_path / "out")
    (tmp_path / "dt.toml").write_text(PLAN + "dt_s = 0\n")
    with pytest.raises(FileError, match=r"key 'dt_s': input should be greater than 0"):
        read_sweep(tmp_path / "dt.toml")
    (tmp_path / "shape.toml").write_text(PLAN + "input_shape = [1, 8]\nreset = 'none'\n")
    assert read_sweep(tmp_path / "shape.toml").reading == {"input_shape": (1, 8), "reset": "none"}


def test_a_finished_sweep_is_taken_whole_and_an_edited_cell_runs_again(inputs, swept, monkeypatch):
    out, result = swept
    monkeypatch.chdir(inputs)
    again = sweep("sweep.toml", out=out)
    assert again["taken"] == 4 and again["cells"] == result["cells"]
    cell = out / result["cells"][0]["folder"] / CELL
    content = json.loads(cell.read_text())
    content["row"]["accuracy"]["quantised"] = 1.0
    cell.write_text(json.dumps(content))
    mended = sweep("sweep.toml", out=out)
    assert mended["taken"] == 3 and facts_of(mended["cells"]) == facts_of(result["cells"])


def test_workers_of_a_sweep_are_a_number_or_refused_before_it_begins(inputs, swept, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    with pytest.raises(WorkerError, match="workers 'many': expected a number of processes"):
        sweep("sweep.toml", out=tmp_path / "out", workers="many")
    assert not (tmp_path / "out").exists()
    assert facts_of(sweep("sweep.toml", out=swept[0], workers=2)["cells"]) == facts_of(swept[1]["cells"])


@pytest.mark.slow
def test_two_workers_sweep_to_the_same_results(inputs, swept, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    parallel = sweep("sweep.toml", out=tmp_path / "out", workers=Workers(count=2))
    assert facts_of(parallel["cells"]) == facts_of(swept[1]["cells"]) and parallel["front"] == swept[1]["front"]
    assert len(list((tmp_path / "out/logs").glob("worker-*.log"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_a_sweep_whose_processes_are_killed_goes_on_to_the_same_results(inputs, swept, tmp_path, options):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "spear_deploy.cli", "sweep", "sweep.toml", "--out", str(out), "--quiet", *options]
    killed = subprocess.Popen(command, cwd=inputs, env=environment, start_new_session=True)
    while not list(out.glob(f"*/{CELL}")) and killed.poll() is None:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run([*command, "--json"], cwd=inputs, env=environment, capture_output=True, text=True, check=False)
    assert not list(temporary.glob("spear-*"))
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["taken"] >= 1
    assert facts_of(result["cells"]) == facts_of(swept[1]["cells"])


def test_ctrl_c_in_a_sweep_names_the_command_that_goes_on(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    monkeypatch.setattr("spear_deploy.pipeline.sweep.prune", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    result = CliRunner().invoke(main, ["sweep", "sweep.toml", "--out", str(tmp_path / "out")])
    assert result.exit_code == 130 and f"finished cells are in '{tmp_path / 'out'}', and `" in result.stderr
    assert "` goes on" in result.stderr and not list(tmp_path.glob("out/*/*"))


def test_ctrl_c_in_fine_tuning_completes_no_network_and_the_same_sweep_goes_on(inputs, swept, tmp_path, monkeypatch):
    def stop_in_fine_tuning(facts):
        if facts["stage"].endswith(": fine-tune") and facts.get("done"):
            raise KeyboardInterrupt

    monkeypatch.chdir(inputs)
    with pytest.raises(KeyboardInterrupt):
        sweep("sweep.toml", out=tmp_path, progress=stop_in_fine_tuning)
    (learning,) = tmp_path.glob("*/learning-*.npz")
    assert {path.name for path in tmp_path.glob("*/*")} == {"checkpoint.json", learning.name}
    assert facts_of(sweep("sweep.toml", out=tmp_path)["cells"]) == facts_of(swept[1]["cells"])
    assert not list(tmp_path.glob("*/learning-*"))


def test_a_combination_that_cannot_be_leaves_no_learning(inputs, tmp_path, monkeypatch):
    def refuse(*_, out, **__):
        out.mkdir()
        (out / f"learning-{'0' * 12}-{'1' * 32}.npz").touch()
        raise BudgetError("budget: out of reach")

    monkeypatch.chdir(inputs)
    monkeypatch.setattr("spear_deploy.pipeline.sweep.prune", refuse)
    assert {row["error"] for row in sweep("sweep.toml", out=tmp_path)["cells"]} == {"budget: out of reach"}
    assert {path.name for path in tmp_path.glob("*/*")} == {CELL}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nan" * 3])
def test_damaged_results_of_a_sweep_are_refused(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(FileError, match=r"sweep.json': is damaged \(.*\); run the sweep again"):
        write_report(tmp_path)


def test_the_command_prints_means_and_names_cells_without_result(inputs, swept, monkeypatch):
    monkeypatch.chdir(inputs)
    result = CliRunner().invoke(main, ["sweep", "sweep.toml", "--out", str(swept[0])])
    assert result.exit_code == 1
    assert "note: 4 of 4 cells are taken from an earlier run" in result.output and "sweep.html" in result.output
    assert "SynOps budget 1 is below" in result.output


def test_a_chip_without_integers_is_swept_in_floating_point_and_a_refusal_names_what_adapts(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    plan = PLAN.replace('["loihi2"]', '["generic45nm", "speck2f"]').replace('["70%", 1]', '["70%"]').replace("[0, 1]", "[0]")
    (inputs / "others.toml").write_text(plan)
    result = sweep("others.toml", out=tmp_path / "out")
    floating, refused = result["cells"]
    assert floating["accuracy"]["quantised"] is None and result["front"] == [floating["folder"]]
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert "in floating point" in page and "as integers" not in page
    assert "; or let `spear-deploy adapt net.snn --chip speck2f --data data.npz --out adapted` replace" in refused["error"]


def test_the_front_holds_what_no_other_cell_beats():
    def cell(folder, accuracy, synops, chip="a"):
        return {
            "folder": folder, "network": "n", "chip": chip, "accuracy": {"quantised": accuracy}, "synops": {"quantised": synops}
        }  # fmt: skip

    rows = [cell("best", 0.9, 10), cell("small", 0.8, 5), cell("beaten", 0.8, 10), cell("alone", 0.1, 99, chip="b")]
    assert find_front([*rows, {"folder": "none", "network": "n", "chip": "a", "error": "x"}]) == ["best", "small", "alone"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("networks = [", "is not TOML"),
        (PLAN + "chip = 'x'", "key 'chip': extra inputs are not permitted; the keys are networks, chips, budgets"),
        (PLAN.replace("[0, 1]", "[]"), "key 'seeds': list should have at least 1 item"),
        (PLAN.replace("[0, 1]", "[-1]"), "key 'seeds.0': input should be greater than or equal to 0"),
        (PLAN.replace('data = "data.npz"', ""), "key 'data': field required"),
        (PLAN.replace("[0, 1]", str([*range(3000)])).replace('["70%", 1]', "[1, 2, 3, 4]"), "makes 12000 cells, at most 10000"),
        (PLAN.replace("[0, 1]", str([*range(9999)])).replace('["70%", 1]', str([*range(1, 9999)])), "makes 99970002 cells"),
    ],
)  # fmt: skip
def test_wrong_sweep_files_are_refused(tmp_path, text, message):
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(FileError, match=f"sweep file '.*sweep.toml'.*{message}"):
        read_sweep(tmp_path / "sweep.toml")
    with pytest.raises(FileError, match="there is no such sweep file"):
        read_sweep(tmp_path / "none.toml")


@pytest.mark.slow
def test_a_sweep_without_methods_has_those_of_prune(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(time_steps, "BATCHES", 4)
    spiking = toy_network(hidden=16).with_layers(lambda layer: replace(layer, neuron=IF()))
    write_snn(spiking, tmp_path / "spiking.snn")
    text = PLAN.replace('methods = ["uniform"]\n', "").replace('["loihi2"]', '["loihi2", "truenorth"]')
    text = text.replace("net.snn", "spiking.snn").replace("data.npz", str(inputs / "data.npz"))
    (tmp_path / "sweep.toml").write_text(text.replace("[0, 1]", "[0]").replace('["70%", 1]', '["70%"]') + 'steps = "1..5"\n')
    rows = sweep(tmp_path / "sweep.toml", out=tmp_path / "out")["cells"]
    assert not [row["error"] for row in rows if "error" in row]
    assert [(row["chip"], row["method"]) for row in rows] == [("loihi2", "evolution"), ("truenorth", "recipe")]
    assert not [row["error"] for row in rows if "error" in row]
    for row in rows:
        assert json.loads((tmp_path / "out" / row["folder"] / "prune.json").read_text())["front"][0]["steps"]["trained"] == 5
    (tmp_path / "sweep.toml").write_text(text + 'steps = "9..2"\n')
    with pytest.raises(DataError, match="is an empty range"):
        read_sweep(tmp_path / "sweep.toml")


def test_budgets_and_methods_are_checked_before_anything_runs(tmp_path):
    for before, after, message in (('"70%"', '"half"', "half"), ('"uniform"', '"best"', "method 'best'")):
        (tmp_path / "sweep.toml").write_text(PLAN.replace(before, after))
        with pytest.raises(BudgetError, match=message):
            read_sweep(tmp_path / "sweep.toml")
