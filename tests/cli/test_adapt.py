"""The command `adapt`: table, JSON, exit codes."""

import json
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli.adapt import _choose_next
from spear_deploy.cli.app import main
from spear_deploy.interchange.snn_file import write_snn
from tests.pipeline.test_adapt import small_map_network


def run(*args):
    return CliRunner().invoke(main, ["adapt", *map(str, args)])


def test_exact_replacements_print_a_table_and_write_files(tmp_path):
    path = tmp_path / "net.snn"
    write_snn(small_map_network(), path)
    result = run(path, "--chip", "brainscales2", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (
        "Conv2d" in result.stdout and "exact" in result.stdout and ": adapted.snn, adapt.json" in " ".join(result.stdout.split())
    )
    assert json.loads((tmp_path / "out" / "adapt.json").read_text())["chip"] == "brainscales2"


def test_the_next_command_writes_the_file_for_the_chip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_snn(small_map_network(), "net.snn")
    result = run("net.snn", "--chip", "brainscales2", "--out", "my out/")
    command = result.stderr.splitlines()[-1].removeprefix("next, the file to load: spear-deploy ")
    assert command == "export 'my out/adapted.snn' --to nir --chip brainscales2 --out chip/net.nir"
    assert CliRunner().invoke(main, shlex.split(command)).exit_code == 0 and (tmp_path / "chip" / "net.nir").is_file()


def test_pruning_after_an_adaptation_takes_the_same_data():
    facts = {"verdict": "does_not_fit", "files": {"adapted": "adapted.snn"}}
    command, purpose = _choose_next(facts, "odin", "odin", "--data 'my data.npz'", "out")
    assert command == "spear-deploy prune out/adapted.snn --chip odin --data 'my data.npz' --out pruned"
    assert purpose == "make it smaller, until it fits"


def test_without_data_what_has_to_be_learnt_is_missing_and_the_exit_code_is_3(tmp_path):
    path = tmp_path / "net.snn"
    write_snn(small_map_network(), path)
    result = run(path, "--chip", "speck2f", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert facts["replaced"] == [] and len(facts["missing"]) == 2
    assert set(facts) >= {"replaced", "accuracy", "verdict", "missing", "waterfall", "tool_version", "network_digest"}
    text = run(path, "--chip", "speck2f", "--out", tmp_path / "out")
    assert "missing: layer 'conv': LIF" in text.stdout and "give data to learn from" in " ".join(text.stdout.split())


def test_a_chip_that_has_all_says_that_nothing_is_replaced(tmp_path):
    path = tmp_path / "net.snn"
    write_snn(small_map_network(), path)
    result = run(path, "--chip", "loihi2", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "nothing is replaced" in result.stdout


@pytest.mark.parametrize("words", ["nothing is kept; `{}` begins anew", "learning alone is kept; `{}` goes on from there"])
def test_an_adaptation_that_is_stopped_says_what_is_kept(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_snn(small_map_network(), "net.snn")
    x = np.random.default_rng(0).integers(0, 2, (60, 4, *small_map_network().input_shape))
    np.savez("data.npz", x=x, y=np.arange(60) % 3)

    def stop(_):
        if words.startswith("learning"):
            Path("out", f"learning-{'0' * 12}-{'1' * 32}.npz").touch()
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("spear_deploy.pipeline.adapt.adapt_network", stop)
    result = run("net.snn", "--chip", "speck2f", "--data", "data.npz", "--out", "out", "--quiet")
    assert result.exit_code == 143, result.output
    before, after = words.split("{}")
    assert result.stderr.startswith(f"interrupted; files are written when all is learnt, so {before}")
    assert result.stderr.endswith(f"{after}; a smaller --epochs ends sooner\n")
    assert not list((tmp_path / "out").glob("*.snn"))


def test_options_of_learning_without_data_are_a_usage_error(tmp_path):
    for option in (("--epochs", "2"), ("--device", "cpu"), ("--workers", "2")):
        result = run("digits", "--chip", "speck2f", *option, "--out", tmp_path / "out")
        assert result.exit_code == 2 and f"{option[0]} goes with --data, to learn from" in result.stderr


def test_epochs_below_one_are_a_usage_error(tmp_path):
    result = run("digits", "--chip", "speck2f", "--data", "digits", "--epochs", "0", "--out", tmp_path)
    assert result.exit_code == 2 and "epochs" in result.stderr
