"""Each verb exits 3 where the chip lacks what the network needs, and 1 where pruning has nothing to remove."""

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import main
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import LI, Dense, Layer
from spear_deploy.network.graph import chain

VERBS = (
    ("check", "digits", "--chip", "CHIP"),
    ("rank", "digits", "--chip", "CHIP"),
    ("prune", "digits", "--chip", "CHIP", "--data", "digits", "--out", "o"),
    ("prune", "digits", "--chip", "CHIP", "--data", "digits", "--synops", "50%", "--out", "o"),
    ("deploy", "digits", "--chip", "CHIP", "--data", "digits", "--out", "o"),
    ("demo", "--chip", "CHIP", "--out", "o"),
    ("simulate", "digits", "--chip", "CHIP", "--input", "in.npz", "--out", "run.npz"),
    ("compare", "digits", "digits", "--chip-b", "CHIP", "--input", "in.npz"),
    ("export", "digits", "--to", "netx", "--chip", "CHIP", "--out", "a.net"),
)


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb[:1]))
@pytest.mark.parametrize("chip", ["xylo_audio2", "brainscales2"])
def test_a_chip_that_lacks_what_the_network_needs_is_exit_code_3(verb, chip, tmp_path, monkeypatch):
    if verb[0] == "deploy" and chip == "brainscales2":
        chip = "generic45nm"  # brainscales2 is within reach of the adaptation that a deployment begins with
    monkeypatch.chdir(tmp_path)
    np.savez("in.npz", spikes=np.ones((2, 1, 1, 8, 8), np.uint8))
    done = CliRunner().invoke(main, [chip if word == "CHIP" else word for word in verb])
    assert done.exit_code == 3, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and len([line for line in done.stderr.splitlines() if "error: " in line]) <= 1


@pytest.mark.parametrize(("bits", "code"), [("7", 3), ("32", 3), ("0", 1), ("77", 1), ("conv1=77", 1), ("many", 1)])
def test_bits_that_the_chip_lacks_are_exit_code_3_and_bits_that_no_weight_has_are_wrong_input(bits, code):
    done = CliRunner().invoke(main, ["check", "digits", "--chip", "loihi2", "--bits", bits])
    assert done.exit_code == code and done.stderr.startswith("error: bits") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [("--synops", "50%"), ("--budgets", "50%,20%"), ("--memory", "50")])
def test_a_network_without_hidden_layer_has_nothing_to_prune(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    readout = Layer(name="out", synapse=Dense(weight=rng.normal(size=(10, 64)).astype(np.float32)), neuron=LI(tau_s=2e-3))
    write_snn(chain([readout], input_shape=(64,), dt_s=1e-3), tmp_path / "one.snn")
    done = CliRunner().invoke(
        main, ["prune", "one.snn", "--chip", "loihi2", "--data", "digits", "--out", "o", "--quiet", *options]
    )
    assert done.exit_code == 1
    assert "error: the network has no channels that could be removed: 'out' cannot be pruned: it is" in done.stderr
