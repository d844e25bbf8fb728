"""Examples: each runs alone, prints its results and writes a picture."""

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from spear_deploy import load
from tests.conftest import shared
from tests.support.seeds import few_first

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))

# script: its arguments after the folder, and a pattern of its output
OUTPUTS = {
    "check_and_rank": (
        [],
        r"loihi2 +fits[\s\S]*FITS loihi2: 3 of 120 cores[\s\S]*xylo_audio2: neurons of conv1 .*: 1,536 of 1,000",
    ),
    "compare_backends": ([], r"Norse, floating point: conv2: 0 of[\s\S]*Lava, integers of loihi2: conv2: 0 of [\s\S]*first at"),
    "count_synops": ([], r"conv2 +107,796[\s\S]*rule exact +132,249"),
    "export_onnx": ([], r"onnxruntime \S+: 0 spikes differ[\s\S]*9\d\.\d\d% of 64"),
    "import_nir": ([], r"assumed: the time step is 0\.0001 s, as snntorch[\s\S]*loihi2 +fits"),
    "own_chip": ([], r"DOES NOT FIT smallchip: 12 of 4 cores[\s\S]*2,048 words a core: 4 cores"),
    "recurrent_network": ([], r"NIR read back: 0 spikes differ[\s\S]*layer 0: 0 spikes differ"),
    "residual_network": ([], r"pruned together: stem, 8 channels[\s\S]*FITS loihi2[\s\S]*\n0 spikes differ"),
}
SLOW_OUTPUTS = {
    "prune_to_budget": (["50%", "8", "2"], r"widths .*\nSynOps 131,798 → [\d,]+ \((\d\d\.\d)%\)\naccuracy 98\.89%"),
    "prune_to_fit": (["2"], r"DOES NOT FIT smallchip[\s\S]*\nFITS smallchip: [1-4] of 4 cores[\s\S]*\nwidths"),
}


def run_example(name, folder, arguments, monkeypatch, capsys):
    """Run a script in this process, so that imports are shared, and return its output."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(folder), *arguments])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    output = capsys.readouterr().out
    (picture,) = re.findall(r"^picture: (.+)$", output, re.MULTILINE)
    assert Path(picture).parent == Path(folder)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    return output


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("name", few_first(sorted(OUTPUTS, key=lambda name: name == "residual_network"), len(OUTPUTS) - 1))
def test_example_prints_its_results(name, tmp_path, monkeypatch, capsys):
    arguments, pattern = OUTPUTS[name]
    output = run_example(name, tmp_path / "out", arguments, monkeypatch, capsys)
    assert re.search(pattern, output), output


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW_OUTPUTS))
def test_example_prunes(name, tmp_path, monkeypatch, capsys):
    arguments, pattern = SLOW_OUTPUTS[name]
    output = run_example(name, tmp_path / "out", arguments, monkeypatch, capsys)
    match = re.search(pattern, output)
    assert match, output
    assert not match.groups() or float(match[1]) <= 50


@pytest.mark.parametrize(
    ("name", "variable", "message"),
    [
        ("event_camera", "NMNIST", "give the folder of N-MNIST"),
        ("ecg_waves", "QTDB", "give QTDB_train.mat as the first argument"),
    ],
)
def test_an_example_asks_for_its_recordings(name, variable, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


@pytest.mark.slow
def test_event_camera_reaches_60_percent(tmp_path, monkeypatch, capsys):
    path = shared("data/nmnist/nmnist_train1000.npz")
    monkeypatch.setattr(sys, "argv", ["event_camera.py", str(path), str(tmp_path), "3"])
    runpy.run_path(str(FOLDER / "event_camera.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert float(re.search(r"accuracy (\d+\.\d)%", output)[1]) > 60
    assert (tmp_path / "events.png").exists()


@pytest.mark.slow
def test_ecg_waves_names_most_steps_rightly_with_half_of_the_synops(tmp_path, monkeypatch, capsys):
    path = shared("data/ecg_qtdb/QTDB_train.mat")
    monkeypatch.setattr(sys, "argv", ["ecg_waves.py", str(path), str(tmp_path)])
    runpy.run_path(str(FOLDER / "ecg_waves.py"), run_name="__main__")
    output = capsys.readouterr().out
    trained, share, pruned, integers = (float(found) for found in re.findall(r"(\d+\.\d)%", output))
    assert trained > 55 and share <= 50.5 and pruned > trained - 4 and integers > pruned - 2
    assert (tmp_path / "waves.png").exists()


@pytest.mark.slow
def test_the_included_network_is_reproduced_by_its_script(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_digits.py", str(tmp_path / "digits.snn")])
    runpy.run_path(str(FOLDER / "train_digits.py"), run_name="__main__")
    accuracy = float(re.search(r"(\d+\.\d+)% on the test split", capsys.readouterr().out)[1])
    assert accuracy == pytest.approx(100 * load("digits").metadata["test_accuracy"], abs=1.5)  # rounding differs by machine
    assert (tmp_path / "digits.snn").stat().st_size <= 200_000


@pytest.mark.parametrize(
    ("name", "pattern", "file"),
    [
        ("count_synops", OUTPUTS["count_synops"][1], "synops.png"),
        pytest.param("norse_to_loihi", r"FITS loihi2[\s\S]*0 spikes differ", "network.net", marks=pytest.mark.slow),
    ],
)
def test_a_script_runs_by_itself(name, pattern, file, tmp_path):
    """As a person runs it: a process of its own, in a folder of its own."""
    command = [sys.executable, FOLDER / f"{name}.py", tmp_path / "out"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env={**os.environ, "MPLBACKEND": "Agg"}
    )
    assert done.returncode == 0, done.stderr
    assert re.search(pattern, done.stdout), done.stdout
    assert (tmp_path / "out" / file).exists()


def test_every_example_is_run():
    elsewhere = {"norse_to_loihi", "event_camera", "ecg_waves", "train_digits"}
    assert {path.stem for path in EXAMPLES} == set(OUTPUTS) | set(SLOW_OUTPUTS) | elsewhere


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_say_how_to_run_them(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 60
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(text))
