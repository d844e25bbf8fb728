"""Files that version 0.1.0 wrote, which every later version reads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.budget.budget_file import read_budget
from spear_deploy.cli import main
from spear_deploy.errors import FileError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.pruning.candidates import Checkpoint, tool_version
from spear_deploy.report.folder import read_folder

CORPUS = Path(__file__).parents[1] / "data" / "corpus_0.1.0"
EXPECTED = json.loads((CORPUS / "expected.json").read_text(encoding="utf-8"))
"""By network: its digest, and of integers the spikes of each layer on the input of `spikes`; what `check` said."""


def spikes(graph):
    return np.random.default_rng(0).random((8, 4, *graph.input_shape)) < 0.3


def describe(path):
    """Return what must stay true of a network file."""
    graph = sd.load(path)
    sent = sd.simulate(graph, spikes(graph)).counts.sent if graph.is_integer else {}  # floats round by the processor
    return {"digest": hash_network(graph), "sent": {name: int(np.sum(count)) for name, count in sent.items()}}


@pytest.mark.parametrize("name", sorted(EXPECTED["networks"]))
def test_networks_are_read_with_their_digest_and_spikes(name):
    assert describe(CORPUS / name) == EXPECTED["networks"][name]


def test_the_profile_is_read_with_its_verdict():
    report = sd.check(CORPUS / "digits.snn", CORPUS / "chip.yaml", activity=0.05)
    assert load_profile(CORPUS / "chip.yaml").name == "loihi2"
    assert {"verdict": report.verdict, "cores": report.cores_used} == EXPECTED["check"]


def test_the_project_file_is_read():
    stated = read_budget(CORPUS / "spear.toml")
    assert stated.chip == str(CORPUS / "chip.yaml") and stated.limits.cores == 8 and stated.limits.synops == 100_000
    assert stated.overrides == {"energy.synop_pj": 30.0} and stated.network == {"dt_s": 0.001}
    assert stated.data == {"steps": 8, "encoding": "rate"} and stated.activity == 0.05


def test_the_deployment_is_read_and_its_page_written_again(tmp_path):
    folder = shutil.copytree(CORPUS / "deployment", tmp_path / "out")
    assert read_folder(folder).deployment["verdict"] == "fits"
    done = CliRunner().invoke(main, ["report", str(folder), "--json"])
    facts = json.loads(done.stdout)
    assert done.exit_code == 0 and facts["network_digest"] == EXPECTED["networks"]["deployment/dense.snn"]["digest"]
    assert "loihi2" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_checkpoint_is_read_by_its_version_and_refused_by_others(tmp_path):
    content = json.loads((CORPUS / "checkpoint.json").read_text(encoding="utf-8"))
    path = tmp_path / "checkpoint.json"
    path.write_text(json.dumps({**content, "version": tool_version()}))
    assert Checkpoint(path, content["of"]).rows == content["measured"]
    path.write_text(json.dumps({**content, "version": "0.0.9"}))
    with pytest.raises(FileError, match=r"was written by version 0\.0\.9, this is .*; choose another folder, or remove the file"):
        Checkpoint(path, content["of"])
