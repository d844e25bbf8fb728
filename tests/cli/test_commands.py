"""Commands: output, exit codes, errors of one sentence."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import main
from spear_deploy.interchange.snn_file import hash_network, read_snn, write_snn
from spear_deploy.lava.worker_process import MIN_TIMEOUT_S, TIMEOUT_FACTOR
from spear_deploy.network import IF, LI, Conv2d, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline.api import quantize_for_chip
from spear_deploy.pruning.search.settings import METHODS, default_settings
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.conftest import shared
from tests.support.reference import random_spikes


def network(hidden=20, outputs=3):
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=rng.normal(size=(4, 1, 3, 3)).astype(np.float32)), neuron=IF()),
        Layer(name="fc", synapse=Dense(weight=rng.normal(size=(hidden, 144)).astype(np.float32) / 4), neuron=IF()),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(outputs, hidden)).astype(np.float32)), neuron=LI(tau_s=0.002)),
    ]
    return chain(layers, input_shape=(1, 8, 8))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = network()
    write_snn(graph, "net.snn")
    write_snn(quantize(graph), "int.snn")
    write_snn(network(outputs=10), "ten.snn")
    write_snn(network(hidden=21), "wide.snn")
    np.savez("in.npz", spikes=random_spikes(graph, 0, steps=8, batch=3))
    np.savez("wrong_y.npz", spikes=random_spikes(graph, 0, steps=8, batch=3), y=np.array([0, 1]))

    def call(*arguments, code=0):
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == code, result.output + result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_help_of_every_command_has_an_example(run):
    listed = run("--help").output
    for name in main.commands:
        assert name in listed
        assert f"Example: spear-deploy {name}" in run(name, "--help").output


def test_help_states_the_defaults_of_the_search_and_of_lava_and_where_bits_may_be_alone(run):
    text = " ".join(run("prune", "--help").output.split())
    episodes = {method: default_settings(method).episodes for method in METHODS}
    assert episodes == {**dict.fromkeys(METHODS, 60), "evolution": 24, "recipe": 1, "rl": 8}
    assert "[default: 24 of evolution, 1 of recipe, 8 of rl, else 60] [x>=1]" in text
    assert f"Epochs of the first fine-tuning. [default: {PruneSettings().epochs}] [x>=1]" in text
    alone = [name for name in ("prune", "deploy", "demo") if "bits, also alone:" in " ".join(run(name, "--help").output.split())]
    assert alone == ["prune"]  # a deployment has a budget of SynOps, which bits do not change
    limit = f"[default: {TIMEOUT_FACTOR:g} times what is expected, at least {MIN_TIMEOUT_S:g}] [x>0]"
    assert all(limit in " ".join(run(name, "--help").output.split()) for name in ("simulate", "compare"))


def test_check_holds_a_limit_of_time_against_its_interval(run):
    """By option and by budget file: within the limit exit 0, an interval that holds the limit exit 0 and unchecked, over it 3."""
    asked = ("check", "net.snn", "--chip", "loihi2", "--activity", "0.2", "--json")
    low, high = (1e3 * end for end in json.loads(run(*asked).stdout)["latency_interval_s"])
    for limit, verdict, code in ((2 * high, "fits", 0), ((low + high) / 2, "unchecked", 0), (low / 2, "does_not_fit", 3)):
        report = json.loads(run(*asked, "--latency-ms", limit, code=code).stdout)
        assert report["verdict"] == verdict
        Path("spear.toml").write_text(f"[budget]\nlatency_ms = {limit}\n")
        assert json.loads(run(*asked, code=code).stdout)["verdict"] == verdict
        Path("spear.toml").unlink()


def test_profiles_lists_and_shows(run):
    names = [p["name"] for p in json.loads(run("profiles", "--json").stdout)["profiles"]]
    assert {"loihi1", "loihi2"} <= set(names)
    numbers = json.loads(run("profiles", "loihi2", "--json").stdout)["numbers"]
    assert {"key", "value", "unit", "source", "evidence"} <= set(numbers[0])
    assert "not publi" in run("profiles", "loihi2").output
    words = " ".join(run("profiles", "loihi2").output.split())
    assert "│ value, subtract │" in words and "Dense, Conv1d, Conv2d" in words  # a list of words has no unit
    assert "subtract resets" not in words and "kinds" not in words.replace("layers.kinds", "")
    assert "did you mean 'loihi2'?" in run("profiles", "loihi22", code=1).stderr
    assert run("profiles", "loihi2:kapoho_point").stdout == run("profiles", "loihi2").stdout  # as `check --chip` takes it
    assert "there is no board 'kapoho'; known are" in run("profiles", "loihi2:kapoho", code=1).stderr


@pytest.mark.parametrize("what", [(), ("loihi2",), ("--keys",), ("--schema",)], ids=lambda what: " ".join(what))
def test_profiles_also_writes_its_json(what, run):
    stated = json.loads(run("profiles", *what, "--json", "--out", "a/p.json").stdout)
    assert json.loads(Path("a/p.json").read_text()) == stated
    assert "--new and --out are one file" in run("profiles", "--new", "b.yaml", "--out", "b.yaml", code=2).stderr
    assert not Path("b.yaml").exists()


def test_a_budget_file_that_is_stated_is_never_left_out(run, tmp_path):
    """Without a name, as from an unset variable of a build, as a folder, as a link to nothing, with a byte order mark."""
    stated = ("check", "net.snn", "--chip", "loihi2")
    assert "the name is empty, expected that of a budget file (TOML)" in run(*stated, "--budget", "", code=1).stderr
    budget = Path("spear.toml")
    budget.mkdir()
    assert "file 'spear.toml': is a folder, expected a budget file (TOML)" in run(*stated, code=1).stderr
    budget.rmdir()
    budget.symlink_to("gone.toml")
    assert "file 'spear.toml': there is no such budget file (TOML)" in run(*stated, code=1).stderr
    run(*stated, "--no-budget")
    budget.unlink()
    budget.write_bytes("[budget]\r\nmax_cores = 1\r\n".encode("utf-8-sig"))
    run(*stated, code=3)
    budget.write_bytes("# für den Chip".encode("latin-1"))
    assert "is not text in UTF-8, expected a budget file (TOML); save it as UTF-8" in run(*stated, code=1).stderr


def test_check_prints_the_verdict_fits(run):
    facts = json.loads(run("check", "int.snn", "--chip", "loihi2", "--json").stdout)
    assert set(facts) >= {
        "profile", "verdict", "cores_used", "cores_limit", "rows", "synops", "energy", "latency_s", "unsupported",
    }  # fmt: skip
    assert facts["verdict"] in ("fits", "unchecked") and facts["cores_used"] == 3
    assert set(facts["rows"][0]) == {"resource", "where", "used", "limit", "unit", "status", "remedy"}
    assert {"total", "missing"} <= set(facts["energy"])
    assert run("check", "int.snn", "--chip", "loihi2").output.startswith("FITS loihi2: 3 of 120 cores")


def test_check_lists_exceeded_limits_and_exits_with_3(run):
    facts = json.loads(
        run("check", "int.snn", "--chip", "loihi2", "--synops", 10, "--activity", "in.npz", "--json", code=3).stdout
    )
    assert facts["verdict"] == "does_not_fit"
    (row,) = [row for row in facts["rows"] if row["status"] == "over"]
    assert row["resource"] == "synops" and row["remedy"]
    assert facts["synops"] == row["used"] > 10
    assert "DOES NOT FIT" in run("check", "int.snn", "--chip", "loihi2", "--synops", 10, "--activity", 0.5, code=3).output


def test_a_quantised_network_that_does_not_fit_is_sent_neither_to_prune_nor_from_another_chip_to_rank(run):
    limit = ("--synops", 10, "--activity", 0.5)
    for chip, reason in (("speck2f", "give the floating-point network that it was made of"), ("loihi2", "limit")):
        done = run("check", "int.snn", "--chip", chip, *limit, code=3)
        assert reason in " ".join(done.stdout.split()) and "next, " not in done.output
    assert "until it fits: spear-deploy prune" in run("check", "net.snn", "--chip", "loihi2", *limit, code=3).stderr


def test_check_replaces_facts_by_set(run):
    facts = json.loads(
        run("check", "int.snn", "--chip", "loihi2", "--activity", 0.1, "--set", "energy.synop_pj=23.6", "--json").stdout
    )
    assert "synapse" not in facts["energy"]["missing"]
    assert "expected KEY=VALUE" in run("check", "int.snn", "--chip", "loihi2", "--set", "energy", code=2).stderr


def test_check_writes_its_json(run):
    run("check", "int.snn", "--chip", "loihi1", "--out", "verdict.json")
    assert json.load(open("verdict.json"))["profile"] == "loihi1"


def test_count_over_an_input_and_by_all_rules(run):
    facts = json.loads(run("count", "net.snn", "--input", "in.npz", "--rules", "all", "--json").stdout)
    assert facts["synops_total"] == pytest.approx(sum(facts["synops_per_layer"].values()))
    assert facts["rules"]["exact"] == pytest.approx(facts["synops_total"])
    assert set(facts["rates"]) == {"conv", "fc"} and facts["macs_first_layer"] == 0 and facts["samples"] == 3
    assert "total" in run("count", "net.snn", "--input", "in.npz").output


def test_count_over_all_samples_of_a_dataset(run):
    x = random_spikes(network(), 1, steps=8, batch=40)
    np.savez("data.npz", x=np.moveaxis(x, 1, 0).astype(np.uint8), y=np.arange(40) % 3)
    np.savez("same.npz", spikes=x)
    facts = [json.loads(run("count", "net.snn", *a, "--json").stdout) for a in (("--data", "data.npz"), ("--input", "same.npz"))]
    assert facts[0]["samples"] == 40
    assert facts[0]["synops_total"] == pytest.approx(facts[1]["synops_total"])


def test_simulate_records_the_run_of_the_simulator(run):
    facts = json.loads(
        run("simulate", "net.snn", "--input", "in.npz", "--record", "spikes,v", "--out", "run.npz", "--json").stdout
    )
    assert facts["samples"] == 3 and facts["steps"] == 8
    with np.load("run.npz") as arrays:
        wanted = simulate(network(), np.load("in.npz")["spikes"], record=("spikes", "v"))
        np.testing.assert_array_equal(arrays["fc.spikes"], wanted.spikes["fc"])
        np.testing.assert_array_equal(arrays["conv.v"], wanted.v["conv"])
        np.testing.assert_array_equal(arrays["output"], wanted.output)


def test_simulate_with_a_chip_runs_its_integers(run):
    run("simulate", "net.snn", "--input", "in.npz", "--chip", "loihi2", "--record", "v,u", "--out", "run.npz")
    with np.load("run.npz") as arrays:
        assert arrays["fc.v"].dtype == arrays["fc.u"].dtype == np.int64


def test_integers_that_an_input_file_sets_the_scales_of_have_a_note_and_stored_ones_do_not(run):
    options = ("--input", "in.npz", "--chip", "loihi2", "--out", "run.npz")
    (note,) = json.loads(run("simulate", "net.snn", *options, "--json").stdout)["notes"]
    assert note.startswith("the scales of the integers are chosen on this input, so that a sample may get others in another file")
    assert f"note: {note}" in " ".join(run("simulate", "net.snn", *options).stdout.split())
    for stored in (("int.snn", *options), ("net.snn", "--input", "in.npz", "--out", "run.npz")):
        assert "notes" not in json.loads(run("simulate", *stored, "--json").stdout)


@pytest.mark.slow
@pytest.mark.lava
def test_simulate_on_lava_gives_the_same_recording(run):
    run("simulate", "int.snn", "--input", "in.npz", "--record", "spikes,v,u", "--out", "fast.npz")
    run("simulate", "int.snn", "--input", "in.npz", "--record", "spikes,v,u", "--backend", "lava", "--out", "lava.npz")
    with np.load("fast.npz") as fast, np.load("lava.npz") as lava:
        assert set(fast.files) == set(lava.files)
        for name in fast.files:
            np.testing.assert_array_equal(fast[name], lava[name], err_msg=name)


@pytest.mark.parametrize(("to", "name"), [("nir", "net.nir"), ("netx", "net.net"), ("onnx", "net.onnx")])
def test_export_writes_a_certificate_without_mismatches(run, to, name):
    facts = json.loads(run("export", "net.snn", "--to", to, "--out", f"out/{name}", "--json").stdout)
    header = {name: facts.pop(name) for name in ("tool_version", "schema_version", "network_digest")}
    assert facts == json.load(open("out/certificate.json")) and header["network_digest"] == hash_network(read_snn("net.snn"))
    assert facts["mismatches"] == 0 and facts["first_difference"] is None and facts["reader"] and facts["input"]
    assert os.path.getsize(f"out/{name}") > 0


def test_compare_names_the_first_difference_and_exits_with_0(run):
    facts = json.loads(run("compare", "net.snn", "net.snn", "--input", "in.npz", "--json").stdout)
    same = {"layer": "conv", "mismatches": 0, "first": None, "compared": 8 * 3 * 144, "what": "spikes", "shift": None}
    assert facts["layers"][0] == same
    other = network()
    weight = np.array(other["conv"].synapse.weight) + 0.5
    write_snn(other.with_layers({"conv": Layer(name="conv", synapse=Conv2d(weight=weight), neuron=IF())}), "other.snn")
    facts = json.loads(run("compare", "net.snn", "other.snn", "--input", "in.npz", "--json").stdout)
    assert facts["layers"][0]["mismatches"] > 0 and set(facts["layers"][0]["first"]) == {"step", "sample", "neuron"}
    assert "first" in run("compare", "net.snn", "other.snn", "--input", "in.npz").output


def test_compare_runs_each_side_with_its_own_options(run):
    facts = json.loads(
        run("compare", "net.snn", "net.snn", "--chip-b", "loihi2", "--record", "spikes,v", "--input", "in.npz", "--json").stdout
    )
    assert [layer["what"] for layer in facts["layers"]] == ["spikes", "spikes", "value"]
    assert [(state["layer"], state["what"]) for state in facts["states"]] == [("conv", "v"), ("fc", "v")]
    assert 0 < facts["layers"][2]["largest"] < 3  # in the units of the trained network
    digest = hash_network(read_snn("net.snn"))
    assert facts["b"] == {
        "net": "net.snn", "backend": "fast", "chip": "loihi2", "network_digest": digest, "assumptions": []
    }  # fmt: skip
    write_snn(quantize_for_chip(network(), "loihi2", calibration=np.load("in.npz")["spikes"]), "calibrated.snn")
    same = json.loads(run("compare", "calibrated.snn", "net.snn", "--chip-b", "loihi2", "--input", "in.npz", "--json").stdout)
    assert same["mismatches"] == 0


def test_compare_with_norse_itself(run, tmp_path):
    (tmp_path / "own_model.py").write_text(
        "import torch, norse.torch as nt\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    hidden = torch.nn.Flatten(), torch.nn.Linear(64, 5), nt.LIFBoxCell()\n"
        "    return nt.SequentialState(*hidden, torch.nn.Linear(5, 2), nt.LICell())\n"
    )
    facts = json.loads(
        run("compare", "own_model:net", "own_model:net", "--backend-b", "norse", "--input", "in.npz", "--json").stdout
    )
    assert facts["layers"][0]["mismatches"] == 0 and facts["layers"][1]["largest"] < 1e-6
    text = run("compare", "own_model:net", "own_model:net", "--backend-b", "norse", "--input", "in.npz").stdout
    assert "different" in text


@pytest.mark.lava
def test_compare_with_lava_both_ways(run):
    for backend in ("lava", "lava-fast"):
        facts = json.loads(
            run("compare", "int.snn", "int.snn", "--backend-b", backend, "--record", "v,u", "--input", "in.npz", "--json").stdout
        )
        assert facts["mismatches"] == 0 and len(facts["states"]) == 4
        assert not any(state["mismatches"] for state in facts["states"])


def test_compare_reports_a_shift_of_one_step(run):
    graph = network()
    x = np.load("in.npz")["spikes"]
    early = np.concatenate([x[1:], np.zeros_like(x[:1])])
    np.savez("early.npz", spikes=early)
    edges = [replace(edge, delay=1) if edge.source == "input" else edge for edge in graph.edges]
    write_snn(replace(graph, edges=tuple(edges)), "late.snn")
    facts = json.loads(run("compare", "net.snn", "late.snn", "--input", "in.npz", "--json").stdout)
    assert facts["layers"][0]["mismatches"] > 0
    assert [layer["shift"] for layer in facts["layers"][:2]] == [1, 1]
    text = " ".join(run("compare", "net.snn", "late.snn", "--input", "in.npz").stdout.split())
    assert "layer 'conv': the second spikes 1 step later; under that shift nothing differs" in text


def test_simulate_reports_a_silent_layer(run):
    graph = network()
    silent = graph.with_layers({"fc": replace(graph["fc"], neuron=IF(v_threshold=1e5))})
    write_snn(silent, "silent.snn")
    facts = json.loads(run("simulate", "silent.snn", "--input", "in.npz", "--out", "r.npz", "--json").stdout)
    (silent,) = [finding for finding in facts["findings"] if finding["code"] == "silent_layer"]
    assert silent["layer"] == "fc" and silent["text"].startswith("layer 'fc': not one spike in 3 samples of 8 steps; lower its")
    text = " ".join(run("simulate", "silent.snn", "--input", "in.npz", "--out", "r.npz").stdout.split())
    assert "finding: layer 'fc': not one spike" in text and "written: r.npz" in text


def test_simulate_explains_what_each_step_of_the_lowering_costs(run):
    x = np.load("in.npz")["spikes"]
    np.savez("labelled.npz", spikes=x, y=np.array([0, 1, 2]))
    facts = json.loads(
        run("simulate", "net.snn", "--input", "labelled.npz", "--chip", "loihi2", "--explain", "--out", "r.npz", "--json").stdout
    )
    explanation = facts["explain"]
    names = [step["step"] for step in explanation["steps"]]
    assert names[0] == "trained" and names[-1] == "state_bits" and "weights" in names
    first, last = explanation["steps"][0], explanation["steps"][-1]
    assert sum(s["accuracy_change"] for s in explanation["steps"]) == pytest.approx(last["accuracy"] - first["accuracy"])
    weights = next(step for step in explanation["steps"] if step["step"] == "weights")
    assert weights["layers"]["conv"]["differ"] > 0
    assert set(weights["layers"]["conv"]["first"]) >= {"step", "sample", "layer", "neuron", "why", "margin_before"}
    assert explanation["numbers"]["conv"]["scale"] > 0 and "order" in explanation and isinstance(facts["findings"], list)
    with np.load("r.npz") as recorded:
        spikes = int(recorded["fc.spikes"].sum())
    assert last["layers"]["fc"]["spikes"][1] == spikes == facts["spikes"]["fc"]
    text = run("simulate", "net.snn", "--input", "labelled.npz", "--chip", "loihi2", "--explain", "--quiet").stdout
    assert "What each step to the chip's integers costs (3 samples, 8 steps)" in text and "truncation" in text


def test_an_explanation_on_a_drawn_split_says_so(run):
    rng = np.random.default_rng(0)
    np.savez("drawn.npz", x=rng.integers(0, 2, (60, 5, *network().input_shape)), y=np.arange(60) % 3)
    command = ("simulate", "net.snn", "--chip", "loihi2", "--explain", "--data", "drawn.npz", "--samples", 4, "--quiet")
    (note,) = json.loads(run(*command, "--json").stdout)["notes"]
    assert note.startswith("the data have no test split of their own")
    assert f"note: {note}" in " ".join(run(*command).stdout.split())


def test_simulate_explains_on_labelled_data(run):
    facts = json.loads(
        run("simulate", "ten.snn", "--chip", "loihi2", "--explain", "--data", "digits", "--samples", 20, "--json").stdout
    )
    assert facts["explain"]["samples"] == 20 and 0 <= facts["explain"]["steps"][0]["accuracy"] <= 1


def test_networks_come_from_functions(run, tmp_path, monkeypatch):
    (tmp_path / "mymodel.py").write_text(
        "import torch, norse.torch as nt\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return nt.SequentialState(torch.nn.Flatten(), torch.nn.Linear(64, 5), nt.LIFBoxCell())\n"
        "def conv():\n"
        "    return nt.SequentialState(torch.nn.Conv2d(1, 2, 3), nt.LIFBoxCell())\n"
    )
    given = json.loads(run("count", "mymodel:net", "--input-shape", "1,8,8", "--input", "in.npz", "--json").stdout)
    from_file = json.loads(run("count", "mymodel:net", "--input", "in.npz", "--json").stdout)
    assert given["samples"] == 3 and given == from_file
    assert run("check", "mymodel:net", "--chip", "loihi2").output.startswith("FITS loihi2")  # its linear layer says 64
    assert "give --input-shape" in run("check", "mymodel:conv", "--chip", "loihi2", code=1).stderr
    assert (
        "no such function in mymodel; did you mean 'net'?"
        in run("count", "mymodel:nett", "--input-shape", "1,8,8", "--input", "in.npz", code=1).stderr
    )


def test_a_netx_file_is_checked(run):
    path = shared("conformance/netx_pilotnet_lif/network.net")
    assert run("check", path, "--chip", "loihi2").output.startswith("FITS loihi2: 74 of 120 cores (62 %)")


EXPLAIN = ("simulate", "net.snn", "--chip", "loihi2", "--explain")
PRUNE = ("prune", "ten.snn", "--chip", "loihi2", "--data", "digits", "--out", "d")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("check", "none.snn", "--chip", "loihi2"), 1, "file 'none.snn': there is no such"),
        (("check", "net.snn", "--chip", "lohi2"), 1, "did you mean 'loihi2'?"),
        (("check", "net.snn"), 2, "Missing option '--chip'"),
        (("check", "net.snn", "--chip", "loihi2", "--activity", "2"), 2, "a rate is a number of spikes per neuron and step"),
        (("check", "net.snn", "--chip", "loihi2", "--chips", "0"), 2, "--chips"),
        (("count", "net.snn"), 2, "give either --data or --input"),
        (("count", "net.snn", "--data", "digit"), 1, "did you mean digits"),
        (("count", "net.snn", "--data", "digits"), 0, ""),
        (("simulate", "net.snn", "--input", "in.npz", "--record", "w", "--out", "r.npz"), 2, "expected some of spikes, v, u"),
        (("simulate", "net.snn", "--input", "in.npz", "--backend", "lava", "--out", "r.npz"), 1, "quantise"),
        (("simulate", "net.snn", "--input", "none.npz", "--out", "r.npz"), 1, "file 'none.npz': there is no such"),
        (("simulate", "net.snn", "--input", "in.npz"), 2, "Missing option '--out'"),
        (("simulate", "net.snn", "--out", "r.npz"), 2, "Missing option '--input'"),
        (("simulate", "net.snn", "--input", "in.npz", "--explain"), 2, "--explain needs --chip"),
        ((*EXPLAIN, "--data", "digits", "--out", "r.npz"), 2, "--out needs --input"),
        (("simulate", "net.snn", "--input", "in.npz", "--data", "digits", "--out", "r.npz"), 2, "--data goes with --explain"),
        ((*EXPLAIN, "--input", "in.npz", "--samples", "3"), 2, "--samples goes with --data"),
        ((*EXPLAIN, "--input", "wrong_y.npz"), 1, "y holds whole numbers of shape (2,), expected (3,), one whole number from 0"),
        ((*EXPLAIN, "--data", "digits"), 1, "labels go up to 9, the network has outputs 0..2"),
        (("simulate", "int.snn", "--chip", "loihi2", "--explain", "--input", "in.npz"), 1, "the network is quantised already"),
        (("simulate", "int.snn", "--input", "in.npz", "--backend", "norse", "--out", "r.npz"), 1, "Norse has floating point"),
        (("simulate", "net.snn", "--input", "in.npz", "--backend", "noise", "--out", "r.npz"), 2, "'noise' is not one of"),
        (("compare", "net.snn", "ten.snn", "--input", "none.npz"), 1, "file 'none.npz': there is no such"),
        (("compare", "net.snn", "wide.snn", "--input", "in.npz"), 1, "only equal ones can be compared"),
        (("compare", "net.snn", "int.snn", "--record", "u", "--input", "in.npz"), 1, "keeps u after its decay"),
        (("compare", "net.snn", "int.snn", "--record", "w", "--input", "in.npz"), 2, "expected some of spikes, v, u"),
        (("compare", "net.snn", "net.snn", "--backend-b", "lava-fast", "--input", "in.npz"), 1, "quantise"),
        (("compare", "net.snn", "net.snn", "--backend-a", "norse", "--record", "v", "--input", "in.npz"), 1, "spikes alone"),
        (("compare", "net.snn", "net.snn", "--chip-b", "lohi2", "--input", "in.npz"), 1, "did you mean 'loihi2'?"),
        (("simulate", "net.snn", "--input", "in.npz", "--out", "in.npz/r.npz"), 1, "cannot be written"),
        (("simulate", "net.snn", "--input", "in.npz", "--out", "./in.npz"), 2, "file './in.npz' is read by this command"),
        (("count", "net.snn", "--input", "in.npz", "--out", "net.snn"), 2, "file 'net.snn' is read by this command"),
        (("export", "net.snn", "--to", "pdf", "--out", "x"), 2, "'pdf' is not one of"),
        (("demo", "--levers", "channels,steps"), 2, "steps: the demo has 8 time steps; `spear-deploy deploy digits --steps auto"),
        (("count", "mod:f", "--input", "in.npz"), 1, "mod"),
        (("count", "ends_itself:f", "--input", "in.npz"), 1, "module 'ends_itself' fails on import: SystemExit: 3"),
        (("count", "net.snn", "--input", "in.npz", "--device", ""), 1, "device '': expected one of cpu, cuda, mps, auto"),
        (("count", "net.snn", "--input", "in.npz", "--steps", "3"), 2, "--steps goes with --data; an input file has"),
        (("count", "net.snn", "--input", "in.npz", "--encoding", "rate"), 2, "--encoding goes with --data"),
        (("simulate", "net.snn", "--input", "in.npz", "--out", "r.npz", "--steps", "3"), 2, "--steps goes with --data"),
        (("simulate", "net.snn", "--input", "in.npz", "--out", "r.npz", "--set", "a=1"), 2, "--set needs --chip, whose profile"),
        (("simulate", "net.snn", "--input", "in.npz", "--out", "r.npz", "--timeout-s", "9"), 2, "goes with a run on Lava"),
        (("simulate", "net.snn", "--input", "in.npz", "--out", "r.npz", "--record", ""), 2, "'': expected some of spikes, v, u"),
        (("compare", "net.snn", "net.snn", "--input", "in.npz", "--set", "a=1"), 2, "--set needs --chip-a or --chip-b"),
        (("compare", "net.snn", "net.snn", "--input", "in.npz", "--timeout-s", "9"), 2, "--timeout-s goes with a run on Lava"),
        (("check", "net.snn", "--chip", "loihi2", "--synops", "nan"), 2, "nan is not a finite number above 0"),
        (("check", "net.snn", "--chip", "loihi2", "--latency-ms", "inf"), 2, "inf is not a finite number above 0"),
        (("check", "net.snn", "--chip", "loihi2", "--budget", "a.toml", "--no-budget"), 2, "--no-budget goes without --budget"),
        (("check", "net.snn", "--chip", "loihi2", "--out", "a.json", "--sarif", "./a.json"), 2, "--out are one file"),
        (("check", "net.snn", "--lint", "--sarif", "a.sarif"), 2, "--sarif goes without --lint, which checks a file and no chip"),
        (("check", "net.snn", "--chip", "LOIHI2"), 1, "did you mean 'loihi2'?"),
        (("count", "net.snn", "--input", "in.npz", "--input-shape", "a"), 2, "expected whole numbers such as 1,8,8"),
        (("prune", "int.snn", "--chip", "loihi2", "--data", "digits", "--out", "d"), 1, "a quantised network can be neither"),
        ((*PRUNE, "--synops", "much"), 1, "expected a number of SynOps"),
        ((*PRUNE, "--synops", "-5"), 1, "expected more than 0"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(run, tmp_path, arguments, code, message):
    (tmp_path / "ends_itself.py").write_text("raise SystemExit(3)\n")
    result = run(*arguments, code=code)
    assert message.replace("did you mean digits", "did you mean 'digits'") in result.stderr
    assert "Traceback" not in result.output + result.stderr
    if code == 1:
        lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("[elapsed")]  # of a busy machine
        assert result.stdout == "" and len(lines) == 1


def test_bad_input_leaves_no_files(run, tmp_path):
    before = sorted(os.listdir(tmp_path))
    (tmp_path / "broken.snn").write_bytes((tmp_path / "net.snn").read_bytes()[:-100])
    run("export", "broken.snn", "--to", "nir", "--out", "x/net.nir", code=1)
    run("simulate", "broken.snn", "--input", "in.npz", "--out", "r.npz", code=1)
    run("simulate", "net.snn", "--input", "in.npz", "--backend", "lava", "--out", "r.npz", code=1)
    (tmp_path / "broken.snn").unlink()
    assert sorted(os.listdir(tmp_path)) == before


def test_prints_of_user_functions_go_to_stderr(run, tmp_path):
    (tmp_path / "chatty.py").write_text(
        "import torch, norse.torch as nt\nprint('imported')\n"
        "def net():\n    print('building')\n"
        "    return nt.SequentialState(torch.nn.Flatten(), torch.nn.Linear(64, 5), nt.LIFBoxCell()), (1, 8, 8)\n"
        "def leave():\n    raise SystemExit(5)\n"
    )
    result = run("count", "chatty:net", "--input", "in.npz", "--json")
    assert set(json.loads(result.stdout)) >= {"synops_total", "rates"}
    assert "imported" in result.stderr and "building" in result.stderr
    assert "building" not in run("count", "chatty:net", "--input", "in.npz").stdout
    assert "'chatty:leave' fails: SystemExit: 5" in run("count", "chatty:leave", "--input", "in.npz", code=1).stderr


def test_a_nir_file_is_compared_with_a_file_that_has_its_time_step(run):
    run("export", "net.snn", "--to", "nir", "--out", "net.nir")
    facts = json.loads(run("compare", "net.snn", "net.nir", "--dt-s", "0.001", "--input", "in.npz", "--json").stdout)
    assert facts["mismatches"] == 0
    assert "states its own dt_s" in run("compare", "net.snn", "net.snn", "--dt-s", "1", "--input", "in.npz", code=1).stderr


def test_options_that_a_file_does_not_take_are_refused(run):
    stderr = run("count", "net.snn", "--input", "in.npz", "--input-shape", "1,8,8", code=1).stderr
    assert "states its own input_shape; leave the option out" in stderr


def test_a_chip_of_any_number_of_cores_has_no_limit_beside_the_cores(run):
    """generic45nm counts operations: its column of cores has no "of ?"."""
    printed = run("rank", "net.snn", "--chip", "generic45nm", "--chip", "loihi2").stdout
    assert "3 of 120" in printed and "of ?" not in printed


def test_a_wrong_file_name_is_refused_before_the_network_is_read(run):
    result = run("export", "missing.snn", "--to", "xylo", "--out", "x.json", code=1)
    assert "file 'x.json': a file for xylo ends in .npz" in result.stderr
