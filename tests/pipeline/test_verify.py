"""Verification of a deployment: what was written holds, and all kinds of tampering tried are found."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.errors import BackendError, DataError, FileError, MissingPackageError, SpearError
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network.channel_groups import list_prunable_groups
from spear_deploy.pipeline.adapt_stage import read_adaptation
from spear_deploy.pipeline.deployment import DeploySettings
from spear_deploy.pipeline.stage_cache import RESULT, STAGES, CachedStage, read_stages
from spear_deploy.pipeline.verification import files as files_module
from spear_deploy.pipeline.verification import verify as verify_module
from spear_deploy.pipeline.verification.pruning import measure_widths, read_pruning, recover_pruning
from spear_deploy.pipeline.verification.results import derive
from spear_deploy.pipeline.verification.verify import compare_with_derived
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.report import write_report
from spear_deploy.report.folder import read_network_digest
from spear_deploy.util.digests import hash_file
from spear_deploy.util.files import read_arrays, write_json
from tests.support.deployments import OPTIONS, arrays, dense, deployed, task

pytestmark = pytest.mark.lava


@pytest.fixture(scope="module")
def derived():
    """Return what the deployment should hold, with all of its samples on Lava again."""
    settings = DeploySettings(**OPTIONS)
    return derive(deployed()[1], settings=settings, data=task(), chip="loihi2", full=True)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(deployed()[1], tmp_path / "out")
    return tmp_path / "out"


def read(folder, name):
    return json.loads((folder / name).read_text())


def seal(folder):
    """Write all digests, and the page, as a careful forger would: digests alone find nothing then."""
    provenance = read(folder, "provenance.json")
    provenance["sha256"] = {name: hash_file(folder / name) for name in provenance["sha256"]}
    write_json(folder / "provenance.json", provenance)
    write_report(folder)
    known, _ = read_stages(folder / STAGES)
    sealed = {}
    for name, stage in known.items():
        files = {file: hash_file(folder / file) for file in stage.files if (folder / file).exists()}
        sealed[name] = stage.model_copy(update={"files": files}).sealed().model_dump()
    write_json(folder / STAGES, sealed)


def change(folder, name, path, value):
    """Set the value at a path of keys of a JSON file; a function maps the old value."""
    content = read(folder, name)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value(place[path[-1]]) if callable(value) else value
    write_json(folder / name, content)


def more(value):
    return value + 1


FIGURES = [
    ("deployment.json", ("accuracy", "dense"), 0.999),
    ("deployment.json", ("accuracy", "pruned"), 0.999),
    ("deployment.json", ("accuracy", "quantised"), 0.999),
    ("deployment.json", ("accuracy", "lava"), 0.999),
    ("deployment.json", ("synops", "dense"), more),
    ("deployment.json", ("synops", "budget"), lambda v: v * 1.001),
    ("deployment.json", ("synops", "achieved"), lambda v: v * 0.999),
    ("deployment.json", ("norse", "samples"), more),
    ("deployment.json", ("norse", "spikes_compared"), more),
    ("deployment.json", ("norse", "spike_mismatches"), more),
    ("deployment.json", ("lava", "samples"), 24),
    ("deployment.json", ("lava", "spikes_compared"), more),
    ("deployment.json", ("lava", "spike_mismatches"), more),
    ("deployment.json", ("lava", "value_mismatches"), more),
    ("deployment.json", ("lava", "first_difference"), {"layer": "fc"}),
    ("deployment.json", ("verdict",), "does_not_fit"),
    ("deployment.json", ("cores_used",), more),
    ("deployment.json", ("cores_limit",), more),
    ("deployment.json", ("neuron_ops",), more),
    ("deployment.json", ("energy", "total"), 1e-9),
    ("deployment.json", ("latency_interval_s",), [0.0, 1e-9]),
    ("deployment.json", ("widths", "fc"), [8, 2]),
    ("deployment.json", ("files", "nir"), "nir/other.nir"),
    ("deployment.json", ("steps", "deployed"), more),
    ("deployment.json", ("levers", 1, "synops"), more),
    ("deployment.json", ("notes",), lambda v: [*v, "all is well"]),
    ("deployment.json", ("chip",), "loihi1"),
    ("deployment.json", ("seed",), 7),
    ("deployment.json", ("seconds", "prune"), 0.001),
    ("layers.json", ("dense", "layers", 0, "synops"), more),
    ("layers.json", ("quantised", "layers", 0, "weights"), more),
    ("layers.json", ("pruned", "layers", 0, "spikes"), more),
    ("layers.json", ("quantised", "accuracy"), 1.0),
    ("check.json", ("rows", 0, "used"), more),
    ("check.json", ("rows", 0, "limit"), lambda v: (v or 0) + 1),
    ("check.json", ("rows", 0, "status"), "over"),
    ("check.json", ("headline",), "FITS everything"),
    ("cores.json", ("cores", 0, "parts", 0, 1, 0), [0, 1]),
    ("cores.json", ("chips",), more),
    ("lava.json", ("samples",), more),
    ("lava.json", ("accuracy",), 0.999),
    ("lava.json", ("spike_mismatches",), more),
    ("onnx/certificate.json", ("mismatches",), more),
    ("onnx/certificate.json", ("sha256",), "0" * 64),
    ("nir/certificate.json", ("input", "samples"), more),
    ("nir/certificate.json", ("layers", 0, "spikes"), more),
    ("provenance.json", ("data", "digest"), "0" * 64),
    ("provenance.json", ("data", "samples", "test"), more),
    ("provenance.json", ("network", "digest"), "0" * 64),
    ("provenance.json", ("chip", "digest"), "0" * 64),
    ("provenance.json", ("chip", "facts", 0, "value"), 7),
    ("search.json", ("accuracy",), 0.999),
    ("search.json", ("synops",), lambda v: v * 0.999),
    ("search.json", ("widths", "fc"), [8, 2]),
    ("search.json", ("plan", "fc", 0), more),
    ("search.json", ("budget",), lambda v: v * 1.001),
    ("search.json", ("aim",), lambda v: v * 1.001),
    ("search.json", ("unused",), 0.0),
    ("search.json", ("met",), False),
    ("search.json", ("margin",), 0.0),
    ("search.json", ("budgets", "synops", "used"), lambda v: v * 0.999),
    ("search.json", ("budgets", "synops", "aim"), lambda v: v * 1.001),
    ("search.json", ("method",), "evolution"),
    ("search.json", ("interrupted",), True),
    ("search.json", ("batches", "all"), more),
    ("search.json", ("levers", 0, "accuracy"), 0.999),
    ("search.json", ("levers", 2, "synops"), more),
    ("search.json", ("levers",), lambda v: v[:-1]),
    ("stages.json", ("evaluate", "value", "layers", "accuracy"), 0.999),
    ("stages.json", ("prune", "value", "batches", "all"), more),
    ("stages.json", ("lava", "value", "spikes_compared"), more),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "value"), FIGURES, ids=[f"{name}-{path[-1]}" for name, path, _ in FIGURES])
def test_an_edited_figure_is_found_though_all_digests_were_written_again(folder, derived, name, path, value):
    change(folder, name, path, value)
    seal(folder)
    failures = compare_with_derived(folder, derived).failures
    key = next(part for part in path if isinstance(part, str))
    assert any(row["file"] == name and key in row["where"] for row in failures), failures


def narrower(folder):
    graph = read_snn(folder / "pruned.snn")
    group = list_prunable_groups(graph)[0]
    write_snn(prune(graph, PruningPlan(kept={group.name: tuple(range(group.channels - 1))})), folder / "pruned.snn")


def other_spikes(folder, name):
    with np.load(folder / name) as file:
        held = {key: file[key] for key in file.files}
    key = next(key for key, array in held.items() if array.ndim)
    held[key] = held[key].copy()
    held[key].flat[0] = 1 - np.minimum(held[key].flat[0], 1)
    np.savez_compressed(folder / name, **held)


def other_weights(folder):
    """Replace the integers by those of the unpruned network."""
    write_snn(read_snn(folder / "dense.snn"), folder / "quantised.snn")


FILES = {
    "quantised.snn": other_weights,
    "activity.npz": lambda folder: other_spikes(folder, "activity.npz"),
    "raster.npz": lambda folder: other_spikes(folder, "raster.npz"),
    "onnx/network.onnx": lambda folder: (folder / "onnx/network.onnx").write_bytes(b"another"),
    "nir/network.nir": lambda folder: (folder / "nir/network.nir").write_bytes(b"another"),
}


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_found_though_all_digests_were_written_again(folder, derived, name):
    FILES[name](folder)
    seal(folder)
    assert any(row["file"] == name for row in compare_with_derived(folder, derived).failures)


UNSEALED = {
    "report.html": lambda folder: (folder / "report.html").write_text((folder / "report.html").read_text() + " "),
    "search.json": lambda folder: change(folder, "search.json", ("interrupted",), True),
    "provenance.json": lambda folder: change(folder, "provenance.json", ("command",), "spear-deploy deploy another"),
    "stages.json": lambda folder: change(folder, STAGES, ("lava", "value", "accuracy"), 0.999),
    "dense.snn": lambda folder: (folder / "dense.snn").unlink(),
    "pruned.snn": narrower,
}


@pytest.mark.parametrize("name", UNSEALED)
def test_a_changed_file_is_found_by_the_digests(folder, derived, name):
    UNSEALED[name](folder)
    assert any(row["file"] == name for row in compare_with_derived(folder, derived).failures)


def test_a_result_without_digests_is_found(folder, derived):
    content = read(folder, STAGES)
    del content[RESULT]
    write_json(folder / STAGES, content)
    failures = compare_with_derived(folder, derived).failures
    assert [row["where"] for row in failures] == [RESULT]


@pytest.mark.parametrize(
    ("digests", "where"), [(1.5, "sha256"), ([1], "sha256"), ({"x" * 5000: "0"}, "digest in"), ({"\0": "0"}, "digest in")]
)
def test_digests_that_are_none_are_found(folder, digests, where):
    change(folder, "provenance.json", ("sha256",), digests)
    assert any(row["where"].startswith(where) for row in compare_with_derived(folder, None).failures)


def test_the_page_states_the_kinds_of_tampering_that_are_tried():
    kinds = len(FIGURES) + len(FILES) + len(UNSEALED) + 1  # a result without digests
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert kinds >= 30 and f"{kinds} kinds, {kinds} found" in page


@pytest.mark.slow
def test_a_network_that_pruning_left_as_it_was_holds(tmp_path):
    sd.deploy(dense(), "loihi2", task(), out=tmp_path, **{**OPTIONS, "synops": "150%"})
    assert read(tmp_path, "search.json")["levers"] == []
    result = sd.verify(tmp_path, data=task())
    assert result.holds, result.failures
    change(tmp_path, "search.json", ("levers",), [{"lever": "trained", "synops": 1.0, "accuracy": 1.0, "batches": 0}])
    seal(tmp_path)
    assert "levers" in [row["where"] for row in sd.verify(tmp_path, data=task()).failures]


@pytest.mark.parametrize(
    "content",
    [
        [], 3, {}, {"budgets": 1, "levers": 2, "batches": 3}, {"levers": [1, None, []], "budgets": {"synops": []}},
        {"levers": [{"lever": ["trained"]}], "batches": {"all": True}}, {"levers": [{}, {}, {"lever": "rates"}]},
    ],
)  # fmt: skip
def test_a_search_of_another_form_is_found(folder, derived, content):
    write_json(folder / "search.json", content)
    assert any(row["file"] == "search.json" for row in compare_with_derived(folder, derived).failures)


def test_other_code_may_keep_another_margin_but_not_another_accuracy(folder, derived):
    change(folder, "provenance.json", ("code",), "0" * 64)
    for key in ("margin", "aim"):
        change(folder, "search.json", (key,), 0.5)
    change(folder, "search.json", ("accuracy",), 0.999)
    seal(folder)
    result = compare_with_derived(folder, derived)
    assert [row["where"] for row in result.failures if row["file"] == "search.json"] == ["accuracy"]
    assert result.notes[0].endswith("verify it with the code that wrote it")


def test_other_code_may_write_other_words_and_know_more_of_the_chip_but_no_other_numbers(folder, derived):
    change(folder, "provenance.json", ("code",), "0" * 64)
    facts = read(folder, "provenance.json")["chip"]["facts"]
    number = next(i for i, row in enumerate(facts) if row["key"] == "core.neurons")
    change(folder, "provenance.json", ("chip", "facts", number, "source"), "in an earlier file, the same table")
    change(
        folder, "provenance.json", ("chip", "facts"), lambda rows: [row for row in rows if row["key"] != "timing.neuron_ns_range"]
    )
    change(folder, "provenance.json", ("chip", "digest"), "0" * 64)
    notes = read(folder, "check.json")["notes"]
    packing = next(i for i, note in enumerate(notes) if note.startswith("packing: "))
    change(folder, "check.json", ("notes", packing), lambda note: note.replace("packing:", "cores as packed:"))
    seal(folder)
    result = compare_with_derived(folder, derived)
    of_derived = "sha256.check.json"  # `derived` comes from the folder before it was edited, with the digests of its files
    assert [row["where"] for row in result.failures] == [of_derived]
    change(folder, "check.json", ("notes", packing), lambda note: note.replace("1", "2"))
    change(folder, "provenance.json", ("chip", "facts", number, "value"), 4096)
    seal(folder)
    failures = compare_with_derived(folder, derived).failures
    assert [row["where"] for row in failures] == [f"notes[{packing}]", "chip.facts.core.neurons.value", of_derived]


def test_the_same_code_must_know_the_same_of_the_chip_in_the_same_words(folder, derived):
    change(folder, "provenance.json", ("chip", "unpublished"), lambda keys: keys[1:])
    change(folder, "provenance.json", ("chip", "facts", 0, "source"), lambda source: source + " in other words")
    first = read(folder, "provenance.json")["chip"]["facts"][0]["key"]
    seal(folder)
    failures = compare_with_derived(folder, derived).failures
    assert [row["where"] for row in failures] == [f"chip.facts.{first}.source", "chip.unpublished"]
    assert failures[1]["stated"] == "[]" and failures[1]["derived"].count('"') == 2


def test_a_page_that_other_code_made_holds_by_its_digest_and_one_made_again_by_its_files(folder, derived):
    """Today's page in a folder of other code is no tampering; an edited one is, whichever code wrote the folder."""
    change(folder, "provenance.json", ("code",), "0" * 64)
    seal(folder)
    page = folder / "report.html"
    today = page.read_text()
    page.write_text(today.replace("</body>", "<p>as another release wrote it</p></body>"))
    known, _ = read_stages(folder / STAGES)
    files = {**known[RESULT].files, "report.html": hash_file(page)}
    result = known[RESULT].model_copy(update={"files": files}).sealed()
    write_json(folder / STAGES, {name: (result if name == RESULT else stage).model_dump() for name, stage in known.items()})
    notes = compare_with_derived(folder, derived)
    assert notes.holds, notes.failures
    assert len(notes.notes) == 1
    write_report(folder)
    again = compare_with_derived(folder, derived)
    assert again.holds, again.failures
    assert again.notes[0].startswith("report.html was made again by `report`") and page.read_text() == today
    page.write_text(today.replace("</body>", "<p>99.9 %</p></body>"))
    assert [row["file"] for row in compare_with_derived(folder, derived).failures] == ["report.html"]


def test_an_activity_without_names_holds_where_other_code_wrote_it(folder):
    arrays = read_arrays(folder / "activity.npz")
    np.savez(folder / "activity.npz", **{name: value for name, value in arrays.items() if name != "counts"})
    seal(folder)
    derived = derive(folder, settings=DeploySettings(**OPTIONS), data=task(), chip="loihi2", full=True)
    (missing,) = compare_with_derived(folder, derived).failures
    assert (missing["file"], missing["where"], missing["stated"]) == ("activity.npz", "counts", "missing")
    change(folder, "provenance.json", ("code",), "0" * 64)
    seal(folder)
    assert compare_with_derived(folder, derived).holds


def test_what_was_written_holds_on_all_samples(folder, derived):
    result = compare_with_derived(folder, derived)
    assert result.holds and result.lava_samples == OPTIONS["lava_samples"] and result.checked > 500 and not result.notes


def test_the_command_verifies_and_lists_what_does_not_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(deployed()[1], "out")
    np.savez("task.npz", **arrays())

    def run(*options, code):
        done = CliRunner().invoke(main, ["verify", "out", "--data", "task.npz", *options])
        assert done.exit_code == code, done.output + done.stderr
        return done.stdout

    provenance = read(tmp_path / "out", "provenance.json")
    stated = run(code=1)  # the folder names the data otherwise than the file
    assert stated.splitlines()[1:] == ["  provenance.json data.name: states task, derived task.npz"]
    provenance["data"]["name"] = "task.npz"
    write_json("out/provenance.json", provenance)
    seal(tmp_path / "out")
    assert run(code=0).startswith("HOLDS out: ")
    assert json.loads(run("--json", "--out", "facts.json", code=0)) == json.loads(Path("facts.json").read_text())
    run("--out", "out/check.json", code=2)
    narrower(tmp_path / "out")
    Path("out/search.json").chmod(0)
    closed = set() if os.access("out/search.json", os.R_OK) else {"search.json"}  # root reads it nevertheless
    facts = json.loads(run("--json", code=1))
    assert not facts["holds"] and closed | {"layers.json", "deployment.json", "quantised.snn", "pruned.snn"} <= {
        row["file"] for row in facts["failures"]
    }
    (tmp_path / "out" / "pruned.snn").write_bytes(b"no network")
    assert "  out inputs: cannot be read and run: file 'out/pruned.snn': is not a complete .snn file" in run(code=1)
    (tmp_path / "out" / "pruned.snn").unlink()
    assert "cannot be read and run: file 'out/pruned.snn': there is no such file of a deployment" in run(code=1)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "gone": lambda path: path.unlink(),
    "of another type": lambda path: path.write_text("[3]"),
    "without its keys": lambda path: path.write_text("{}"),
}
DAMAGED = [
    (name, how)
    for name in ("search.json", "cores.json", "raster.npz", "check.json", "layers.json", "deployment.json")
    for how in DAMAGE
    if (name, how) != ("deployment.json", "gone")  # a folder without it holds no deployment
]


@pytest.mark.parametrize(("name", "how"), DAMAGED)
def test_a_damaged_file_is_a_row_and_the_others_are_compared(folder, derived, name, how):
    DAMAGE[how](folder / name)
    change(folder, "lava.json", ("samples",), more)
    result = compare_with_derived(folder, derived)
    assert {name, "lava.json", "report.html"} <= {row["file"] for row in result.failures}
    assert result.checked > 100 and not any("states cannot" in row["sentence"] for row in result.failures)


@pytest.mark.parametrize("name", ["search.json", "cores.json", "report.html", "deployment.json", "activity.npz", "dense.snn"])
@pytest.mark.parametrize("how", ["pipe", "circle", "nowhere", "other folder", "folder"])
def test_what_is_no_file_of_the_folder_is_a_row_and_is_not_waited_for(folder, derived, tmp_path, name, how):
    """A link out of the folder is named first, since none of the digests in stages.json is taken then."""
    path, other = folder / name, tmp_path / f"other-{name}"
    shutil.copy(path, other)
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to({"circle": path, "nowhere": tmp_path / "none", "other folder": other}[how])
    rows = compare_with_derived(folder, derived).failures
    if how in ("nowhere", "other folder"):
        assert rows[0]["file"] == name and rows[0]["sentence"] == f"is a link to '{os.path.realpath(path)}', outside the folder"
    else:
        assert name in {row["file"] for row in rows if "missing" in row["sentence"] or "expected a file" in row["sentence"]}


def test_lists_that_are_pipes_are_not_waited_for(folder):
    for name in (STAGES, "provenance.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    assert read_stages(folder / STAGES) == ({}, []) and read_network_digest(folder) is None
    with pytest.raises(FileError, match=r"provenance.json': is a device or a pipe, expected a file of a deployment"):
        sd.verify(folder)


@pytest.mark.parametrize("same_code", [True, False])
def test_a_stage_that_is_gone_is_a_row_whichever_code_wrote_it(folder, derived, same_code, monkeypatch):
    known = read(folder, STAGES)
    del known["export"]
    write_json(folder / STAGES, known)
    if not same_code:
        monkeypatch.setattr(files_module, "hash_code", lambda: "other")
    rows = compare_with_derived(folder, derived).failures
    assert ("stages.json", "export", "is missing or damaged") in {(row["file"], row["where"], row["sentence"]) for row in rows}


def test_files_that_are_damaged_stand_before_what_cannot_be_run_for_it(folder):
    (folder / "pruned.snn").write_bytes(b"no network")
    files = [row["file"] for row in sd.verify(folder, data=task()).failures]
    assert files[0] == "pruned.snn" and files[-1] == str(folder)


def test_figures_of_the_search_are_derived_from_its_stage_where_its_file_is_damaged(folder):
    stated = read(folder, "search.json")
    for text in ("{", json.dumps({"levers": 3})):
        (folder / "search.json").write_text(text)
        assert recover_pruning(folder) == {key: stated[key] for key in ("levers", "budgets", "notes")}
    change(folder, STAGES, ("prune", "value"), {"levers": 3})
    known, _ = read_stages(folder / STAGES)
    assert "prune" not in known and recover_pruning(folder) == {"levers": [], "budgets": {}, "notes": []}
    write_json(folder / STAGES, {"prune": CachedStage(key="", files={}, value=3, seconds=0.0).sealed().model_dump()})
    assert recover_pruning(folder) == {"levers": [], "budgets": {}, "notes": []}


def test_the_call_lists_damaged_files_and_what_else_does_not_hold(folder, monkeypatch):
    for name in ("search.json", "raster.npz"):
        (folder / name).write_text("{")
    change(folder, "lava.json", ("samples",), more)
    monkeypatch.setattr(verify_module, "derive", lambda *_, **__: None)
    result = sd.verify(folder, data=task())
    assert {"search.json", "raster.npz", "lava.json"} <= {row["file"] for row in result.failures} and not result.holds


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(b"another"), "is another file than the networks of the deployment give"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_another_file_and_one_that_is_gone_are_said_in_words(folder, derived, spoil, sentence):
    spoil(folder / "nir/network.nir")
    rows = [row for row in compare_with_derived(folder, derived).failures if row["file"] == "nir/network.nir"]
    assert [row["sentence"] for row in rows if not row["where"]] == [sentence]
    by_digest = next(row["sentence"] for row in rows if row["where"] == "digest in stages.json")
    assert by_digest.startswith("states ") and ("the file is missing" in by_digest) == (sentence == "is missing")


@pytest.mark.parametrize("same_code", [True, False])
def test_a_deployment_of_earlier_code_holds_without_the_file_of_the_chips_own_tool(folder, derived, same_code, monkeypatch):
    deployment = derived.files["deployment.json"]
    own = {"speck": "speck/network.json", "speck_certificate": "speck/certificate.json"}
    notes = [*deployment["notes"], "speck/network.json: sinabs is not installed here"]
    later = replace(
        derived,
        files={
            **derived.files, "deployment.json": {**deployment, "files": deployment["files"] | own, "notes": notes},
            "speck/certificate.json": {"mismatches": 0},
        },
        digests={**derived.digests, "speck/network.json": "0" * 64},
    )  # fmt: skip
    if not same_code:
        monkeypatch.setattr(files_module, "hash_code", lambda: "other")
    missed = {row["file"] for row in compare_with_derived(folder, later).failures}
    assert missed == ({"speck/network.json", "speck/certificate.json", "deployment.json"} if same_code else set())


def test_data_that_has_no_name_is_asked_for(folder):
    with pytest.raises(DataError, match="does not name its data, which was an object; give it with --data"):
        sd.verify(folder)


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ({"data": "gone:load"}, "data 'gone:load': cannot import 'gone' .*; or give the data of the deployment with --data$"),
        ({"data": "gone.npz"}, "gone.npz.*; or give the data of the deployment with --data$"),
        ({"data": "digits"}, "the network takes .*; or give the data of the deployment with --data$"),
        ({"data": "digits", "chip": "gone.yaml"}, "gone.yaml.*; or give the chip of the deployment with --chip$"),
    ],
)
def test_an_input_that_is_not_on_this_machine_is_asked_for_and_is_no_failure_of_the_deployment(folder, sources, sentence):
    change(folder, "provenance.json", ("options", "sources"), sources)
    with pytest.raises(SpearError, match=sentence):
        sd.verify(folder)


def test_a_wrong_input_of_the_call_is_refused_in_its_own_words(folder):
    with pytest.raises(DataError, match="check the name and the working folder$"):
        sd.verify(folder, data="gone:load")
    (folder / "dense.snn").write_bytes(b"no network")
    result = sd.verify(folder, data="gone:load")  # of a folder without its network more is known
    assert result.failures[0]["file"] == "dense.snn" and "dense.snn" in result.failures[-1]["derived"]


@pytest.mark.parametrize("error", [MissingPackageError("package 'nir' is missing"), BackendError("Lava died", cause="died")])
def test_a_machine_that_cannot_run_it_says_nothing_of_the_deployment(folder, error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(verify_module, "derive", fail)
    with pytest.raises(type(error)):
        sd.verify(folder, data=task())


def test_a_folder_without_a_deployment_and_damaged_options_are_refused(folder, tmp_path):
    with pytest.raises(FileError, match="there is no such folder"):
        sd.verify(tmp_path / "none")
    change(folder, "provenance.json", ("options",), {"chip": "loihi2"})
    with pytest.raises(FileError, match="its options are damaged .*; run the deployment again"):
        sd.verify(folder, data=task())


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"levers": 3}', '{"notes": [1]}', "\x00"])
def test_damaged_results_of_a_search_are_refused(text, tmp_path):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(FileError, match=r"search.json': is damaged \(.*\); run the deployment again with --fresh"):
        read_pruning(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"chip": 3}, {"replaced": [{}]}, {"replaced": None}, {"accuracy": {"trained": "1", "adapted": 1.0}}, {"accuracy": 1}],
)
def test_a_damaged_list_of_replaced_parts_is_refused(change, tmp_path):
    facts = {"chip": "loihi2", "replaced": [{"kind": "exact"}], "accuracy": {"trained": 0.5, "adapted": 0.5}, "plans": []}
    assert read_adaptation(tmp_path) is None
    (tmp_path / "adapt.json").write_text(json.dumps(facts))
    assert read_adaptation(tmp_path) == facts
    (tmp_path / "adapt.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(FileError, match=r"adapt.json': is damaged \(.*\); run the deployment again with --fresh"):
        read_adaptation(tmp_path)


def test_widths_are_those_of_the_networks():
    graph = dense()
    group = list_prunable_groups(graph)[0]
    pruned = prune(graph, PruningPlan(kept={group.name: tuple(range(3))}))
    assert measure_widths(graph, pruned) == {group.name: [8, 3]}
