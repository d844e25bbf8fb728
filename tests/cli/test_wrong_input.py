"""Wrong input as a user gives it: one sentence with what is, what may be and what to do, and nothing half written.

A missing extra is in `tests/util/test_extras.py`.
"""

import re

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.errors import FileError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain

MODULES = """
import torch
from torch import nn
import snntorch as snn

class Settings:
    pass

settings = Settings()

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(64, 10), snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        current = self.fc(x)
        return self.lif(current * 2 if current.sum() > 0 else current)

class WithoutHidden(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(64, 10), snn.Leaky(beta=0.9, threshold=0.3)

    def forward(self, x):
        membrane, spikes = self.lif.init_leaky(), []
        for _ in range(5):
            spike, membrane = self.lif(self.fc(x), membrane)
            spikes.append(spike)
        return torch.stack(spikes)
"""
DATA = ("--data", "digits", "--encoding", "direct", "--steps", "5")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong_models.py").write_text(MODULES)
    np.savez("small.npz", x=np.zeros((60, 7, 7), np.float32), y=np.arange(60) % 10)
    np.savez("small_input.npz", spikes=np.zeros((4, 2, 1, 7, 7), np.uint8))
    return tmp_path


def refuse(folder, *command):
    """Run a command that must fail with one sentence, and return the sentence."""
    before = sorted(path.name for path in folder.iterdir())
    done = CliRunner().invoke(main, [*command])
    errors = re.findall(r"^error: (.+)$", done.stderr, re.MULTILINE)
    assert done.exit_code == 1 and done.stdout == "" and len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    after = sorted(path.name for path in folder.iterdir() if path.name not in ("__pycache__", "o"))
    assert after == before and not {"pruned.snn", "report.html", "prune.html"} & {path.name for path in folder.glob("o/*")}
    return errors[0]


@pytest.mark.parametrize("verb", [("check", "--chip", "loihi2"), ("rank",), ("prune", "--chip", "loihi2", *DATA, "--out", "o")])
def test_an_object_of_no_known_framework(verb, folder):
    pytest.importorskip("snntorch", exc_type=ImportError)
    name, *options = verb
    sentence = refuse(folder, name, "wrong_models:settings", *options, "--input-shape", "64")
    assert sentence == "'wrong_models:settings' gives Settings, expected a torch module or (torch module, input shape)"


@pytest.mark.parametrize("verb", [("check", "--chip", "loihi2"), ("rank",), ("prune", "--chip", "loihi2", *DATA, "--out", "o")])
def test_a_forward_that_branches_on_data(verb, folder):
    pytest.importorskip("snntorch", exc_type=ImportError)
    name, *options = verb
    sentence = refuse(folder, name, "wrong_models:Branching", *options, "--input-shape", "64")
    assert "cannot be traced" in sentence and "without branches on values" in sentence
    assert "or export it: snntorch.export_nir.export_to_nir(net, sample), and give the file with --source snntorch" in sentence


@pytest.mark.parametrize("verb", ["prune", "deploy"])
def test_a_network_without_hidden_layer_and_with_analogue_input(verb, folder):
    pytest.importorskip("snntorch", exc_type=ImportError)
    options = ("--chip", "loihi2", *DATA, "--input-shape", "64", "--synops", "50%", "--out", "o", "--quiet")
    sentence = refuse(folder, verb, "wrong_models:WithoutHidden", *options)
    assert sentence.startswith("SynOps budget 0.5 of what the network takes: it takes none on these data; give data on which")


@pytest.mark.parametrize("verb", ["prune", pytest.param("deploy", marks=pytest.mark.slow)])
def test_a_network_without_synops_meets_an_amount_of_them(verb, folder):
    pytest.importorskip("snntorch", exc_type=ImportError)
    options = ("--chip", "loihi2", *DATA, "--input-shape", "64", "--synops", "900", "--out", "o", "--quiet")
    done = CliRunner().invoke(main, [verb, "wrong_models:WithoutHidden", *options])
    assert done.exit_code == 0 and re.search("fits", done.stdout, re.IGNORECASE), done.stderr


def test_a_file_that_fits_two_frameworks(folder):
    import nir

    nodes = {
        "input": nir.Input({"input": np.array([16])}),
        "fc": nir.Linear(weight=np.ones((4, 16), np.float32)),
        "if": nir.IF(r=np.ones(4), v_threshold=np.ones(4), v_reset=np.zeros(4)),
        "output": nir.Output({"output": np.array([4])}),
    }
    nir.write("two.nir", nir.NIRGraph(nodes=nodes, edges=[("input", "fc"), ("fc", "if"), ("if", "output")]))
    done = CliRunner().invoke(main, ["check", "two.nir", "--chip", "loihi2"])
    assert done.exit_code == 0
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert any("Norse" in note and "sinabs" in note and "--source" in note and "NIR's" in note for note in notes), notes
    named = CliRunner().invoke(main, ["check", "two.nir", "--chip", "loihi2", "--source", "sinabs"])
    assert named.exit_code == 0 and "Norse" not in named.stderr


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            ("count", "digits", "--data", "small.npz"),
            r"data 'small.npz': 'x' has shape \(60, 7, 7\), the network takes .*; check",
        ),
        (
            ("prune", "digits", "--chip", "loihi2", "--data", "small.npz", "--out", "o"),
            r"data 'small.npz': 'x' has shape \(60, 7",
        ),
        (
            ("deploy", "digits", "--chip", "loihi2", "--data", "small.npz", "--out", "o"),
            r"data 'small.npz': 'x' has shape \(60, 7",
        ),
        (
            ("count", "digits", "--input", "small_input.npz"),
            r"file 'small_input.npz': input has shape \(4, 2, 1, 7, 7\), the net",
        ),
        (("simulate", "digits", "--input", "small_input.npz", "--out", "run.npz"), r"file 'small_input.npz': input has shape"),
        (("compare", "digits", "digits", "--input", "small_input.npz"), r"file 'small_input.npz': input has shape"),
        (
            ("export", "digits", "--to", "nir", "--input", "small_input.npz", "--out", "a.nir"),
            r"file 'small_input.npz': input has",
        ),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, tuple) else "",
)
def test_data_of_another_shape(command, sentence, folder):
    assert re.match(sentence, refuse(folder, *command))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("adapt", "--chip", "speck2f"), "adapted.snn"),
        (("prune", "--chip", "loihi2", "--data", "digits"), "pruned.snn"),
        (("prune", "--chip", "loihi2", "--data", "digits", "--budgets", "50%, 30%"), "30/pruned.snn"),
        (("deploy", "--chip", "loihi2", "--data", "digits"), "quantised.snn"),
    ],
)
def test_a_network_that_a_result_would_replace_is_refused_and_stays(command, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    write_snn(chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3), np.float32)), neuron=IF())], input_shape=(3,)), path)
    before = path.read_bytes()
    shown = CliRunner().invoke(main, [command[0], f"out/{name}", *command[1:], "--out", "out"])
    assert shown.exit_code == 1 and shown.stderr.startswith(f"error: file 'out/{name}': is read, and the result '{name}'")
    assert "would replace it; choose another folder" in shown.stderr and path.read_bytes() == before
    verb = {"adapt": sd.adapt, "prune": sd.prune, "deploy": sd.deploy}[command[0]]
    if "--budgets" not in command:
        with pytest.raises(FileError, match="would replace it"):
            verb(path, command[2], "digits", out="out")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_proof_beside_an_exported_script_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("net.npz", spikes=np.zeros((3, 1, 1, 8, 8), np.uint8))
    before = (tmp_path / "net.npz").read_bytes()
    shown = CliRunner().invoke(main, ["export", "digits", "--to", "pynn", "--input", "net.npz", "--out", "net.py", "--force"])
    assert shown.exit_code == 1 and "the result 'net.npz' in folder '.' would replace it" in shown.stderr
    assert (tmp_path / "net.npz").read_bytes() == before and not (tmp_path / "net.py").exists()
