"""Answers that must not change: the form of data and networks, names of classes, order of channels, folders, workers.

And numbers of one verb that another one has to give for the file that the first wrote.
"""

import json
import re
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

import spear_deploy as sd
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.cli import main
from spear_deploy.data import from_arrays
from spear_deploy.errors import SpearError
from spear_deploy.hardware.catalog import list_profiles, read_profile_text
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF
from spear_deploy.pipeline.inputs import quantize_for_chip
from spear_deploy.training.fit import train
from tests.support.deployments import arrays, network
from tests.support.seeds import few_first

SAMPLES = 300
NAMES = ("seconds", "command", "network_digest", "made", "evaluations")
"""Keys of results that state names and times."""
PRUNE = ("--chip", "loihi2", "--synops", "60%", "--method", "uniform", "--epochs", "3", "--quiet", "--json")


def drawn():
    """Return samples with a split of their own, a word for each."""
    words = np.array(["train", "train", "val", "test"])
    return {**arrays(0, SAMPLES), "split": words[np.random.default_rng(9).integers(0, 4, SAMPLES)]}


def run(*words, codes=(0,)):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code in codes, (done.exit_code, done.stderr, done.exception)
    return json.loads(done.stdout)


def prune(folder, *, net="net.snn", data="data.npz", options=PRUNE):
    facts = run("prune", net, "--data", data, "--out", folder, *options)
    return {name: value for name, value in facts.items() if name not in NAMES}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a trained network and its data, and the results of pruning it there."""
    folder = tmp_path_factory.mktemp("made")
    net = train(network(IF(), hidden=12), from_arrays(drawn(), name="d"), epochs=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_snn(net, "net.snn")
        np.savez("data.npz", **drawn())
        yield folder, net, prune("out")


@pytest.fixture
def inside(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return made


def store(content):
    """Write `content` as the file other.npz, and return its name."""
    np.savez("other.npz", **content)
    return "other.npz"


def as_types(dtype):
    return store({**drawn(), "x": drawn()["x"].astype(dtype)})


def as_parts():
    content = drawn()
    places = {which: np.flatnonzero(content["split"] == which) for which in ("train", "val", "test")}
    return store({f"{key}_{which}": content[key][place] for which, place in places.items() for key in "xy"})


def as_function():
    Path("functions_of_data.py").write_text("import numpy as np\ndef load():\n    return dict(np.load('data.npz'))\n")
    return "functions_of_data:load"


def as_other_file_order():
    """Samples of one split beside each other: the order within a split is the same."""
    content = drawn()
    order = np.argsort(content["split"], kind="stable")
    return store({key: value[order] for key, value in content.items()})


FORMS = {
    "float32": partial(as_types, np.float32), "parts": as_parts, "function": as_function, "order of splits": as_other_file_order,
    "bool": partial(as_types, bool), "float64": partial(as_types, np.float64), "int64": partial(as_types, np.int64),
}  # fmt: skip


@pytest.mark.parametrize("form", few_first(FORMS, 2))
def test_the_form_of_the_data_changes_no_answer(inside, tmp_path, form):
    assert prune(tmp_path, data=FORMS[form]()) == inside[2]


def test_neither_folder_nor_file_of_the_network_changes_an_answer(inside, tmp_path, monkeypatch):
    run("export", "net.snn", "--to", "nir", "--out", "net.nir", "--json")
    folder, _, facts = inside
    assert prune(tmp_path / "nir", net="net.nir", options=(*PRUNE, "--dt-s", "1e-3")) == facts
    monkeypatch.chdir(tmp_path)
    assert prune("<b> ü", net=folder / "net.snn", data=folder / "data.npz") == facts


def test_names_of_classes_and_order_of_channels_change_no_answer(inside, tmp_path):
    _, net, facts = inside
    first, out = net["fc"], net["out"]
    classes, channels = np.array([2, 0, 1]), np.random.default_rng(1).permutation(12)
    synapse = replace(out.synapse, weight=out.synapse.weight[np.argsort(classes)])
    write_snn(net.with_layers({"out": replace(out, synapse=synapse)}), tmp_path / "classes.snn")
    assert prune(tmp_path / "a", net=tmp_path / "classes.snn", data=store({**drawn(), "y": classes[drawn()["y"]]})) == facts
    moved = {
        "fc": replace(first, synapse=replace(first.synapse, **{
            key: getattr(first.synapse, key)[channels] for key in ("weight", "bias")
        })),
        "out": replace(out, synapse=replace(out.synapse, weight=out.synapse.weight[:, channels])),
    }  # fmt: skip
    write_snn(net.with_layers(moved), tmp_path / "channels.snn")
    permuted = prune(tmp_path / "b", net=tmp_path / "channels.snn")
    assert permuted["widths"] == facts["widths"] and permuted["synops"]["dense"] == facts["synops"]["dense"]
    assert permuted["accuracy"]["dense"] == facts["accuracy"]["dense"]


def test_groups_move_the_margin_and_no_spike(inside, tmp_path):
    plain = inside[2]
    grouped = prune(tmp_path, data=store({**drawn(), "group": np.array([f"{i} of {w}" for i, w in enumerate(drawn()["split"])])}))
    assert grouped["margin"] != plain["margin"] and grouped["met"]
    for part in ("accuracy", "synops"):
        assert grouped[part]["dense"] == plain[part]["dense"]
    assert grouped["synops"]["budget"] == plain["synops"]["budget"]


def test_check_count_and_simulate_give_the_numbers_of_prune_for_the_file_that_it_wrote(inside):
    facts, content = inside[2], drawn()
    test = content["split"] == "test"
    np.savez("in.npz", spikes=np.moveaxis(content["x"][test], 1, 0), y=content["y"][test])
    pruned = ("out/pruned.snn", "--json")
    checked = run("check", *pruned, "--chip", "loihi2")
    assert (checked["verdict"], checked["cores_used"]) == (facts["verdict"], facts["cores_used"])
    assert run("count", *pruned, "--input", "in.npz")["synops_total"] == facts["synops"]["achieved"]
    assert run("count", "net.snn", "--input", "in.npz", "--json")["synops_total"] == facts["synops"]["dense"]
    steps = run("simulate", *pruned, "--chip", "loihi2", "--explain", "--data", "data.npz")["explain"]["steps"]
    assert steps[0]["accuracy"] == facts["accuracy"]["pruned"] and steps[-1]["accuracy"] == facts["accuracy"]["quantised"]
    assert sum(step["accuracy_change"] for step in steps) == pytest.approx(steps[-1]["accuracy"] - steps[0]["accuracy"])
    run("simulate", *pruned, "--input", "in.npz", "--out", "run.npz")
    with np.load("run.npz") as recording:
        decided = recording["output"].mean(axis=0).argmax(axis=-1)
    assert np.mean(decided == content["y"][test]) == facts["accuracy"]["pruned"]


@pytest.mark.slow
def test_a_larger_budget_allows_more_and_none_is_exceeded(inside, tmp_path):
    rows = [
        prune(tmp_path / str(share), options=(*PRUNE, "--synops", f"{share}%"))
        for share in (30, 50, 70, 90, 110)
    ]  # fmt: skip
    for smaller, larger in pairwise(rows):
        assert smaller["synops"]["budget"] < larger["synops"]["budget"]
        assert smaller["synops"]["achieved"] <= larger["synops"]["achieved"]
    for row in rows:
        used = max(row["synops"]["achieved"], row["synops"]["quantised"])
        assert row["met"] and used <= row["synops"]["budget"] and row["synops"]["dense"] == rows[0]["synops"]["dense"]


def test_the_order_of_budgets_and_the_number_of_workers_change_no_row_of_a_front(inside, tmp_path):
    options = ("--chip", "loihi2", "--method", "uniform", "--epochs", "2", "--quiet", "--json")
    fronts = [
        {row["wanted"]: {key: row[key] for key in row if key not in NAMES}
         for row in prune(tmp_path / str(name), options=("--budgets", budgets, *options, *more))["front"]}
        for name, budgets, more in ((0, "80%,50%", ()), (1, "50%,80%", ("--workers", "2")))
    ]  # fmt: skip
    assert set(fronts[0]) == {"50% SynOps", "80% SynOps"} and fronts[0] == fronts[1]


@pytest.mark.parametrize("chip", list_profiles())
def test_the_name_of_a_chip_decides_nothing(inside, tmp_path, chip):
    own = tmp_path / "own.yaml"
    own.write_text(re.sub(r"^name: .*$", "name: own", read_profile_text(chip), flags=re.MULTILINE))
    graph, answers = inside[1], []
    for profile in (load_profile(chip), load_profile(str(own))):
        report = sd.check(graph, profile, activity=0.1)
        facts = [report.verdict, report.rows, report.unsupported, report.notes, report.energy, report.latency]
        steps = [(step.replacement.what, step.replacement.by) for step in make_plans(graph, profile)[0].steps]
        try:
            integers: object = [np.asarray(layer.synapse.weight).tolist() for layer in quantize_for_chip(graph, profile).layers]
        except SpearError as error:
            integers = str(error)
        answers.append(re.sub(rf"\b({chip}|own)\b", "CHIP", str((facts, steps, integers))))
    assert answers[0] == answers[1]
