"""Report page: built from its folder alone, self-contained, charts equal to the files."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from spear_deploy.budget.check import check as check_graph
from spear_deploy.cli import main
from spear_deploy.errors import FileError
from spear_deploy.hardware.profile import list_profiles, load_target
from spear_deploy.network import IF, Conv2d, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.report_facts import describe_cores
from spear_deploy.quantize.rounding import INTEGERS_COUNT
from spear_deploy.report import tables, write_report
from spear_deploy.report.chart import Rule, Series, choose_ticks, draw_chart
from spear_deploy.report.floor_plan import CELLS, PANELS, color_class, draw_floor_plan
from spear_deploy.report.folder import read_folder
from spear_deploy.report.page import describe_deployment, render_deployment
from spear_deploy.report.raster import NEURONS, STEPS, draw_rasters
from spear_deploy.report.search_charts import draw_search, pareto_front
from spear_deploy.util.printable import has_hidden
from tests.support.deployments import deployed

MAX_BYTES = 1_500_000


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(deployed()[1], tmp_path / "out"))


def changed(folder, name, change):
    """Change one of the files of plain data."""
    value = json.loads((folder / f"{name}.json").read_text())
    value = change(value) or value
    (folder / f"{name}.json").write_text(json.dumps(value))


class Reader(HTMLParser):
    """Requests and scripts of a page as a browser would see them; tags that close out of order raise."""

    EMPTY = ("meta", "link", "br", "wbr")

    def __init__(self, text):
        super().__init__()
        self.fetched, self.tags, self.open, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [(tag, name, value) for name, value in attrs if name in ("src", "href", "srcset", "xlink:href", "action")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


ADAPTATION = {
    "chip": "xylo_audio3",
    "replaced": [
        {"layer": "fc", "what": "64 inputs", "by": "sums over windows of 2 x 2 inputs, which the host forms", "kind": "learnt",
         "bound": "", "neurons": 0},
        {"layer": "out", "what": "LIF", "by": "CubaLIF <b>", "kind": "exact", "bound": "v loses at most 1/64", "neurons": 3},
    ],
    "accuracy": {"trained": 0.95, "adapted": 0.9, "integers": None},
    "waterfall": [
        {"after": "as trained", "kind": "", "layers": [], "accuracy": 0.95},
        {"after": "LIF → CubaLIF", "kind": "exact", "layers": ["out"], "accuracy": 0.95},
        {"after": "learning, 60 batches", "kind": "learnt", "layers": [], "accuracy": 0.9},
    ],
}  # fmt: skip


@pytest.mark.lava
def test_an_adaptation_has_a_section_with_accuracy_after_each_step(folder):
    assert "adaptation" not in render_deployment(read_folder(folder))
    (folder / "adapt.json").write_text(json.dumps(ADAPTATION))
    changed(folder, "deployment", lambda value: value["files"].update(adaptation="adapt.json"))
    page = Reader(render_deployment(read_folder(folder)))
    text = " ".join(" ".join(page.text).split())
    assert "2 replacements (1 exact, 1 learnt) took it from 95.00 % to 90.00 %" in text
    assert "Adapted what the chip has" in text and "Trained the given network" not in text
    assert "LIF → CubaLIF exact: out 95.00 %" in text and "Learning, 60 batches learnt 90.00 %" in text
    assert (
        "sums over windows of 2 x 2 inputs, which the host forms." in text
        and "LIF → CubaLIF <b> exact: v loses at most 1/64" in text
    )
    (folder / "adapt.json").write_text("{}")
    with pytest.raises(FileError, match="has no 'chip', it is of another version or foreign; run the deployment again"):
        read_folder(folder)


# ------------------------------------------------------------------------------------------------------------ the page


@pytest.mark.lava
def test_the_page_is_rebuilt_from_the_folder_byte_for_byte(folder, tmp_path):
    written = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    for name in ("dense.snn", "activity.npz", "stages.json"):
        (folder / name).unlink()
    assert write_report(folder) == folder / "report.html"
    assert (folder / "report.html").read_bytes() == written
    assert write_report(folder, tmp_path / "new" / "page.html").read_bytes() == written


@pytest.mark.lava
def test_the_page_sends_no_request_and_runs_no_script(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    reader = Reader(text)
    assert not reader.open
    assert not {"script", "iframe", "object", "embed", "img", "form"} & set(reader.tags)
    assert all(value.startswith("#") or value == "data:," for _, _, value in reader.fetched)
    anchors = {value[1:] for _, _, value in reader.fetched if value.startswith("#")}
    assert anchors and all(f'id="{name}"' in text for name in anchors)
    assert set(re.findall(r"url\([^)]*\)", text)) <= {"url(#hatch)"} and "@import" not in text
    assert "default-src 'none'" in text and " on" not in {f" {name}" for name in re.findall(r"<[^>]*\s(on)\w+=", text)}
    assert len(text) < MAX_BYTES


@pytest.mark.lava
def test_the_page_begins_with_the_verdict_and_has_every_number_of_the_result(folder):
    result, _, _ = deployed()
    source = (folder / "report.html").read_text()
    assert source.index("<h1>Fits Intel Loihi 2</h1>") < source.index("<h2")
    text = " ".join(" ".join(Reader(source).text).split())
    for stage in ("dense", "pruned", "quantised", "lava"):
        assert f"{result.accuracy[stage]:.2%}".replace("%", " %") in text
    for synops in result.synops.values():
        assert f"{synops:,.3g}" in text or f"{synops:,.0f}" in text
    before, after = result.widths["fc"]
    assert re.search(rf"fc \d+ {before} {after} {100 * after / before:.0f} %", text)
    for note in result.notes:
        assert note.replace("`", "").replace(" ", "") in text.replace(" ", "")  # what is in backticks is set as code
    for row in result.report.rows:
        assert row.resource.replace("_", " ") in text and row.where in text
    provenance = json.loads((folder / "provenance.json").read_text())
    for digest in provenance["sha256"].values():
        assert digest in text
    for fact in provenance["chip"]["facts"]:
        assert " ".join(fact["source"].split()) in text
    for name, version in provenance["versions"].items():
        assert f"{name} {version}" in text


@pytest.mark.lava
def test_the_lead_names_the_resets_that_moved(folder):
    moved = {"what": "a reset one step late", "by": "a reset in the step of the spike"}
    changed(folder, "check", lambda check: check.update(replaced=[{"layer": "fc", **moved}, {"layer": "out", **moved}]))
    text = render_deployment(read_folder(folder))
    assert "fc and out had a reset one step late, here a reset in the step of the spike." in text


@pytest.mark.lava
def test_external_text_is_escaped(folder):
    evil = "<script>alert(1)</script>\"'&"
    changed(folder, "cores", lambda cores: cores.update(layers=[evil for _ in cores["layers"]]))
    changed(folder, "deployment", lambda value: value["notes"].append(evil))
    changed(folder, "provenance", lambda value: value.update(command=evil))
    text = render_deployment(read_folder(folder))
    assert "<script" not in text and text.count("&lt;script&gt;") >= 3


@pytest.mark.lava
def test_facts_supplied_by_the_user_are_listed_apart(folder):
    assert tables.describe_origin(read_folder(folder).provenance, read_folder(folder).deployment)["supplied"] == []
    fact = {"key": "energy.synop_pj", "value": 23.6, "unit": "pJ", "evidence": "user", "source": "supplied by the user"}
    changed(folder, "provenance", lambda value: value["chip"]["facts"].append(fact))
    text = render_deployment(read_folder(folder))
    assert text.index("Facts supplied by the user") < text.index("23.6 pJ") < text.index("All facts of the chip profile")


@pytest.mark.lava
@pytest.mark.parametrize("verdict, word", [("does_not_fit", "Does not fit"), ("unchecked", "Unchecked:")])
def test_a_verdict_other_than_fits_lists_the_obstacles(folder, verdict, word):
    row = {"resource": "neurons", "where": "fc", "used": 12, "limit": 10, "unit": "neuron", "status": "over", "remedy": "prune 2"}
    status = "over" if verdict == "does_not_fit" else "unchecked"
    changed(folder, "check", lambda value: value["rows"].append({**row, "status": status}))
    changed(folder, "deployment", lambda value: value.update(verdict=verdict))
    text = render_deployment(read_folder(folder))
    assert f"<h1>{word} Intel Loihi 2</h1>" in text and "prune 2" in text
    assert ("12 of 10 neurons; prune 2" in text) == (verdict == "does_not_fit")


@pytest.mark.lava
def test_energy_has_a_row_for_each_term_and_keys_for_missing_ones(folder):
    check, provenance = (json.loads((folder / f"{name}.json").read_text()) for name in ("check", "provenance"))
    rows = tables.list_energy(check, provenance["chip"]["unpublished"])
    options = {row["name"]: row["option"] for row in rows["missing"]}
    assert rows["total"] is None and options["synapse"] == "--set energy.synop_pj=…"
    assert options["hop"] == "--set energy.hop_ew_pj=… --set energy.hop_ns_pj=…"
    term = {"name": "synapse", "joules": 2e-6, "evidence": "measured", "source": "paper", "how": "100 SynOps at 20 pJ"}
    energy = {"total": 2e-6, "missing": [], "terms": [term], "measured": []}
    changed(folder, "check", lambda value: value.update(energy=energy))
    assert "2 µJ: published energies per event times counted events" in render_deployment(read_folder(folder))


def test_a_term_whose_power_is_known_asks_for_the_time_and_not_for_the_power():
    missing = ["hop", "static", "active cores", "packets between chips"]
    energy = {"total": None, "missing": missing, "terms": [], "measured": [], "interval_j": None}
    check = {"energy": energy, "latency": {"missing": ["timing.synop_ns", "topology"]}}
    rows = tables.list_energy(check, ["energy.synop_pj", "timing.synop_ns"])["missing"]
    time = "known power, but no time; not published: timing.synop_ns, topology"
    assert [row["why"] for row in rows] == ["not published: topology", time, time, "not published"]
    assert not any(row["option"] for row in rows)
    static = tables.list_energy(check, ["energy.static_w_per_chip"])["missing"][1]
    assert static["option"] == "--set energy.static_w_per_chip=…"


# --------------------------------------------------------------------------------------------------------- the command


@pytest.mark.lava
def test_the_command_rebuilds_the_page(folder, tmp_path):
    done = CliRunner().invoke(main, ["report", str(folder), "--out", str(tmp_path / "page.html"), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["report"] == str(tmp_path / "page.html") and facts["bytes"] == (tmp_path / "page.html").stat().st_size
    assert "report.html" in CliRunner().invoke(main, ["report", str(folder)]).stdout


def test_a_folder_without_a_deployment_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    for name, message in (
        ("none", r"folder '.*none': there is no such folder; give the output folder of `deploy` or another command"),
        ("file", r"folder '.*file': is a file; give the output folder"),
        (".", r"holds no finished deployment \(no deployment.json\); give the output folder of `deploy` or another command"),
    ):
        with pytest.raises(FileError, match=message):
            write_report(tmp_path / name)
    for name, command in (("adapt", "adapt"), ("prune", "prune"), ("front", "prune"), ("sweep", "sweep")):
        (tmp_path / command).mkdir(exist_ok=True)
        (tmp_path / command / f"{name}.json").write_text("{}")
        with pytest.raises(
            FileError, match=f"holds results of `{command}`, no deployment; give the output folder of `deploy` or"
        ):
            read_folder(tmp_path / command)
    for stopped, command in (("a/checkpoint.json", "prune"), ("b/checkpoint-steps.json", "prune"), ("c/x/cell.json", "sweep")):
        (tmp_path / stopped).parent.mkdir(parents=True)
        (tmp_path / stopped).write_text("{}")
        with pytest.raises(FileError, match=f"holds an unfinished `{command}`; run the same command again, which goes on where"):
            write_report(tmp_path / stopped[0])
    (tmp_path / "adapt" / "stages.json").write_text("{}")
    again = r"holds no finished deployment \(no deployment.json\); run `spear-deploy deploy ... --out .*`, which goes on where"
    with pytest.raises(FileError, match=again):  # one that was stopped after its adaptation
        read_folder(tmp_path / "adapt")
    (tmp_path / "beside/pruned").mkdir(parents=True)
    for name in ("checkpoint.json", "prune.json"):
        (tmp_path / "beside/pruned" / name).write_text("{}")
    with pytest.raises(FileError, match="beside': holds no finished deployment"):  # a working folder with results, no sweep
        read_folder(tmp_path / "beside")
    with pytest.raises(FileError, match=r"pruned.snn': is no name of a page; give one that ends in .html"):
        write_report(tmp_path, tmp_path / "pruned.snn")
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 1 and len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "report.html").exists()


@pytest.mark.lava
def test_missing_damaged_and_contradicting_files_are_refused_in_one_sentence(folder):
    before = (folder / "report.html").read_bytes()

    def refuses(name, text, message):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        if text is not None:
            (folder / name).write_text(text)
        with pytest.raises(FileError, match=message):
            write_report(folder)
        (folder / name).write_bytes(kept)

    refuses("search.json", None, r"file '.*search.json': there is no such file of a deployment")
    refuses("search.json", "{", r"file '.*search.json': is damaged \(.*\); run the deployment again")
    refuses("check.json", "[]", r"file '.*check.json': has no 'rows', it is of another version or foreign")
    refuses("raster.npz", "x", r"file '.*raster.npz': cannot be read as .npz .*; run the deployment again$")
    deployment = json.loads((folder / "deployment.json").read_text())
    no_files = json.dumps({**deployment, "files": 3.0})
    refuses("deployment.json", no_files, r"file '.*deployment.json': 'files' is no list of names and paths; run")
    layers = {name: {} for name in ("dense", "pruned", "quantised")}
    refuses("layers.json", json.dumps(layers), r"folder '.*': its files do not go together \(KeyError: .*\); run the command")
    assert (folder / "report.html").read_bytes() == before


# -------------------------------------------------------------------------------------------------------- the floor plan


def convolutional(width, hidden, size=16):
    rng = np.random.default_rng(0)

    def weight(*shape):
        return rng.normal(size=shape).astype(np.float32)

    layers = [
        Layer(name="conv1", synapse=Conv2d(weight=weight(width, 2, 3, 3), padding=(1, 1)), neuron=IF()),
        Layer(name="conv2", synapse=Conv2d(weight=weight(width, width, 3, 3), stride=(2, 2), padding=(1, 1)), neuron=IF()),
        Layer(name="fc", synapse=Dense(weight=weight(hidden, width * (size // 2) ** 2)), neuron=IF()),
        Layer(name="out", synapse=Dense(weight=weight(10, hidden)), neuron=IF()),
    ]
    return chain(layers, input_shape=(2, size, size))


def cores_of(chip, graph, activity=None, *, remedies=False):
    """Return the facts of cores, and the report; remedies take most of its time, and none is drawn."""
    profile, chips = load_target(chip)
    report = check_graph(graph, profile, chips=chips, activity=activity, remedies=remedies)
    return describe_cores(report.placement, profile, report.work), report


def squares(path):
    """Return the corners of the squares of a path."""
    return [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h9v9h-9z", path)]


@pytest.mark.parametrize("chip", [*list_profiles(), "loihi2:kapoho_point", "spinnaker1:spin5"])
@pytest.mark.parametrize("width, hidden", [(4, 20), pytest.param(32, 300, marks=pytest.mark.slow)])
def test_each_core_is_drawn_once_on_the_floor_plan_of_every_chip(chip, width, hidden):
    facts, report = cores_of(chip, convolutional(width, hidden))
    facts = json.loads(json.dumps(facts))
    assert len(facts["cores"]) == report.placement.cores_in_all
    plan = draw_floor_plan(facts)
    drawn = plan["panels"]
    corners = [[corner for cell in panel["cells"] for corner in squares(cell["path"])] for panel in drawn]
    for panel, used in zip(drawn, corners, strict=True):
        everything = [*used, *squares(panel["free"])]
        assert len(set(everything)) == len(everything)
        assert all(x + 9 <= panel["width"] and y + 9 <= panel["height"] for x, y in everything)
        if panel["exists"] and facts["cores_per_chip"]:
            assert len(everything) - panel["beyond"] == facts["cores_per_chip"]
    if not plan["more"]:
        assert sum(map(len, corners)) == len(facts["cores"])
    assert [row["cores"] for row in plan["layers"]] == [
        len({(part.run, part.core) for part in report.placement.slices_of(name)}) for name in report.placement.layers
    ]


def test_of_a_chip_of_a_billion_cores_the_first_are_drawn():
    facts = {**cores_of("loihi2", convolutional(8, 60))[0], "cores_per_chip": 10**9, "mesh": None}
    facts["cores"] = [dict(core) for core in facts["cores"]]
    facts["cores"][0]["place"] = 10**8
    panel = draw_floor_plan(facts)["panels"][0]
    assert panel["beyond"] == 0 and panel["columns"] < 1000
    assert "1,000,000,000 cores" in panel["title"]
    assert len(squares(panel["free"])) == CELLS - (len(facts["cores"]) - 1)


def test_a_floor_plan_is_coloured_by_memory_on_the_published_mesh():
    facts, report = cores_of("loihi1", convolutional(32, 300))
    plan = draw_floor_plan(facts)
    assert plan["mesh"] and plan["measure"] == "synapse memory" and plan["known"]
    (row,) = [row for row in report.rows if row.resource == "synapse_memory" and row.where == "fc"]
    (legend,) = [layer for layer in plan["layers"] if layer["name"] == "fc"]
    assert legend["max"] == pytest.approx(row.used / row.limit)
    panel = plan["panels"][0]
    assert panel["title"] == f"{report.cores_used} of 128 cores in use" and panel["columns"] == 16
    # four cores share a router: the fifth core lies a gap to the right of the first four
    first = [squares(cell["path"])[0] for cell in panel["cells"][:5]]
    assert first == [(0, 0), (10, 0), (0, 10), (10, 10), (23, 0)]
    limit = facts["kinds"][0]["limits"]["synapse_memory"]
    for cell, core in zip(panel["cells"], facts["cores"], strict=True):
        words = core["amounts"][facts["resources"].index("synapse_memory")]
        assert cell["class"] == color_class(words / limit) and f"{words:,} of {limit:,}" in cell["tip"]


@pytest.mark.parametrize("chip", ["loihi1", "loihi2", "speck2f"])
def test_the_core_with_most_work_is_marked_on_the_floor_plan(chip):
    facts, report = cores_of(chip, convolutional(8, 60), activity=0.1)
    plan = draw_floor_plan(facts)
    fullest = facts["cores"][facts["fullest"]]
    loads = [core["work"]["synops"] + report.work.weight * core["work"]["updates"] for core in facts["cores"]]
    assert max(loads) == loads[facts["fullest"]] == report.work.load.max()
    marked = [squares(panel["fullest"]) for panel in plan["panels"]]
    assert sum(map(len, marked)) == 1
    assert marked[0][0] in [squares(cell["path"])[0] for cell in plan["panels"][0]["cells"] if "work of a step: " in cell["tip"]]
    assert plan["work"] == report.work.sentence and fullest["place"] is not None
    without = draw_floor_plan(cores_of(chip, convolutional(8, 60))[0])
    assert without["work"] is None and not without["panels"][0]["fullest"]


def test_cores_beyond_the_available_chips_are_drawn_apart():
    plan = draw_floor_plan(cores_of("loihi2", convolutional(64, 2000))[0])
    absent = [panel for panel in plan["panels"] if not panel["exists"]]
    assert absent and "not available" in absent[0]["title"] and plan["panels"][0]["exists"]
    assert plan["more"] == 0 or len(plan["panels"]) == PANELS


def test_kinds_of_cores_are_named_where_they_differ():
    facts, _ = cores_of("speck2f", convolutional(4, 20))
    panel = draw_floor_plan(facts)["panels"][0]
    assert {label["kind"] for label in panel["labels"]} == {kind["name"].replace("_", " ") for kind in facts["kinds"]}
    assert len(panel["labels"]) == 9 and panel["wide"]


def test_4000_cores_share_one_tooltip_for_each_layer_and_colour():
    facts, _ = cores_of("truenorth", convolutional(4, 20))
    core = facts["cores"][0]
    words = facts["resources"].index("synapse_memory")
    limit = facts["kinds"][0]["limits"]["synapse_memory"]

    def full(place):
        return place % 100 / 100

    facts["cores"] = [
        {
            **core,
            "place": place,
            "parts": [[place // 1500, [[place, place + 1]]]],
            "amounts": [full(place) * limit if n == words else amount for n, amount in enumerate(core["amounts"])],
        }
        for place in range(4000)
    ]
    plan = draw_floor_plan(facts)
    (panel,) = plan["panels"]
    assert panel["title"] == "4,000 of 4,096 cores in use" and len(squares(panel["free"])) == 96
    assert len(panel["cells"]) == 3 * 5  # layers and colours
    assert panel["cells"][0]["tip"] == "conv1: 315 cores, 0 % to 20 % full"
    assert sum(len(squares(cell["path"])) for cell in panel["cells"]) == 4000
    assert [label["text"] for label in panel["labels"]] == ["1", "2", "3"]
    assert len(json.dumps(plan)) < 250_000


# ------------------------------------------------------------------------------------------------------------- rasters


def marks(path, corner):
    return {(round(float(t) - corner[0]), round(float(n) - corner[1])) for t, n in re.findall(r"M([\d.]+) ([\d.]+)h", path)}


@pytest.mark.parametrize("steps, neurons", [(6, 12), (20, 100), (400, 30)])
def test_rasters_mark_each_difference_of_the_drawn_neurons(steps, neurons):
    rng = np.random.default_rng(steps)
    norse = rng.random((steps, neurons)) < 0.1
    fixed = norse ^ (rng.random(norse.shape) < 0.01)
    fixed[steps - 1, neurons - 1] ^= True
    lava = fixed.copy()
    lava[steps - 2, 3] ^= True
    arrays = {
        "fc.norse": norse,
        "fc.fixed": fixed.reshape(steps, -1, 2),
        "fc.lava": lava,
        "sample": np.array(5),
        "y": np.array(2),
    }
    rasters = draw_rasters(arrays)
    (layer,) = rasters["layers"]
    assert (rasters["sample"], rasters["label"]) == (5, 2)
    assert layer["integer_differences"] == (norse != fixed).sum() and layer["lava_differences"] == 1
    assert layer["rows"] == min(neurons, NEURONS) and layer["steps"] == min(steps, STEPS)
    if neurons > NEURONS:
        return
    window = slice(layer["first"], layer["last"] + 1)
    for n, (left, here) in enumerate([(norse, norse), (norse, fixed), (fixed, lava)]):
        wanted = {"same": left & here, "new": here & ~left, "gone": left & ~here}
        for name, spikes in wanted.items():
            corner = (0.14, 0.18) if name == "gone" else (0.1, 0.5)
            slow = {(t, k) for t in range(layer["steps"]) for k in range(neurons) if spikes[window][t, k]}
            assert marks(layer["panels"][n][name], corner) == slow


def test_neurons_that_differ_are_drawn_and_the_page_stays_below_600_kB():
    rng = np.random.default_rng(0)
    busy = rng.random((100, 5000)) < 0.4
    busy[:, 4000] = False
    other = busy.copy()
    other[7, 4000] = True
    runs = {f"l{i}.{side}": run for i in range(12) for side, run in (("norse", busy), ("fixed", other), ("lava", other))}
    rasters = draw_rasters({**runs, "sample": np.array(0), "y": np.array(0)})
    assert all(layer["panels"][1]["new"] and not layer["panels"][2]["new"] for layer in rasters["layers"])
    assert len(json.dumps(rasters)) < 600_000


# ------------------------------------------------------------------------------------------------------------- charts


@given(st.floats(-1e7, 1e7), st.floats(0, 1e7), st.integers(3, 8))
def test_ticks_cover_the_range_evenly(low, width, count):
    ticks = choose_ticks(low, low + width, count)
    scale = max(abs(low), width)
    assert ticks[0] <= low + 1e-8 * scale and ticks[-1] >= low + width - 1e-8 * scale
    assert 2 <= len(ticks) <= count + 3
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-3) and steps[0] > 0


def test_points_of_a_chart_agree_with_its_axes():
    chart = draw_chart(
        "t", x="x", y="y", series=[Series(name="a", kind="dots", points=[(0, 0), (10, 100)])], rules=[Rule(name="r", y=50)]
    )
    (x0, y0, _), (x1, y1, _) = chart["series"][0]["dots"]
    assert (x0, y0) == (chart["left"], chart["bottom"]) and x1 == chart["right"] and y1 < y0
    assert chart["rules"][0]["y1"] == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert dict((label, y) for y, label in chart["y_ticks"])["0"] == y0


@pytest.mark.parametrize("last", range(1, 60))
def test_whole_numbers_have_whole_ticks(last):
    """Epochs and evaluations are counted: there is none between 1 and 2."""
    series = [Series(name="validation", kind="dots", points=[(n, 0.5 + n / 1000) for n in range(1, last + 1)])]
    labels = [label for _, label in draw_chart("t", x="epoch", y="y", series=series)["x_ticks"]]
    assert all(label.isdigit() for label in labels) and 2 <= len(labels) <= 8 and int(labels[-1]) >= last


def test_a_line_of_one_point_has_no_entry_in_the_legend():
    series = [Series(name=kind, kind=kind, points=[(1, 2)]) for kind in ("dots", "line", "steps", "rings")]
    assert [row["name"] for row in draw_chart("t", x="x", y="y", series=series)["series"]] == ["dots", "rings"]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1))
def test_the_pareto_front_equals_brute_force(pairs):
    rows = [{"synops": synops, "accuracy": accuracy} for synops, accuracy in pairs]
    best = {(row["synops"], row["accuracy"]) for row in pareto_front(rows)}
    slow = {
        (s, a) for s, a in pairs if not any((t <= s and b >= a) and (t, b) != (s, a) for t, b in pairs)
    }  # fmt: skip
    assert best == slow


def search_of(**changes):
    row = {"widths": [4], "synops": 90.0, "predicted": 95.0, "feasible": True}
    rows = [{**row, "episode": n + 1, "accuracy": 0.8 + n / 100, "reward": 0.5 + n / 10} for n in range(3)]
    return {
        "budget": 100.0, "aim": 98.0, "synops": 97.0, "search": rows, "fine_tune": [], "lre": None, "method": "spear",
        "evaluations": 3, "widths": {"fc": [8, 4]}, **changes,
    }  # fmt: skip


def test_charts_of_the_search_have_the_best_so_far_and_cross_validated_predictions():
    lre = {"pairs": [[100.0, 110.0], [80.0, 88.0]], "residuals": [0.1, -0.12]}
    view = draw_search(search_of(lre=lre))
    assert [c["title"] for c in view["charts"]] == ["Reward of each evaluation", "SynOps, predicted and measured"]
    assert [one["name"] for one in view["charts"][0]["series"]] == ["plan within the budget", "best so far"]
    tips = [tip for *_, tip in view["charts"][1]["series"][0]["dots"]]
    assert tips == ["measured 110, predicted 100 SynOps", "measured 88, predicted 100 SynOps"]
    (chosen,) = view["charts"][1]["series"][1]["dots"]
    assert chosen[2] == "the chosen network: measured 97, predicted 95 SynOps"


def test_plans_of_several_sizes_have_a_pareto_front():
    rows = [{**row, "synops": 80.0 + n} for n, row in enumerate(search_of()["search"])]
    titles = [c["title"] for c in draw_search(search_of(search=rows))["charts"]]
    assert "Accuracy against SynOps, before fine-tuning" in titles
    assert "Accuracy against SynOps, before fine-tuning" not in [c["title"] for c in draw_search(search_of())["charts"]]


def test_measurements_are_counted_of_the_last_run_since_a_checkpoint_holds_those_of_an_earlier_one():
    sentence = draw_search(search_of(evaluations=0))["summary"][0]
    assert sentence.endswith("; 0 measurements on validation data in the last run, those of the estimator included.")


def test_an_unchanged_network_has_no_charts_of_a_search():
    view = draw_search(search_of(search=[]))
    assert view["charts"] == [] and view["summary"][0].startswith("The unchanged network is within the budget")


def test_budgets_besides_synops_have_a_table():
    budgets = {name: {"budget": 9.0, "aim": 8.0, "used": None, "met": False} for name in ("synops", "latency_s")}
    view = draw_search(search_of(budgets=budgets, budget=None, aim=None))
    assert [row["name"] for row in view["budgets"]] == ["SynOps", "latency"]


@pytest.mark.lava
def test_the_plans_of_successive_halving_are_drawn_by_rung(folder):
    rungs = [{"rung": n, "steps": 20 * n, "widths": [4], "accuracy": 0.8 + n / 20} for n in (1, 2)]
    changed(folder, "search", lambda value: value.update(rungs=rungs))
    (climbed,) = [
        c for c in describe_deployment(read_folder(folder))["search"]["charts"] if "more and more batches" in c["title"]
    ]
    assert [one["kind"] for one in climbed["series"]] == ["line", "dots"]
    changed(folder, "search", lambda value: value.update(rungs=[rungs[0], {**rungs[0], "widths": [5]}]))
    titles = [c["title"] for c in describe_deployment(read_folder(folder))["search"]["charts"]]
    assert "The best plans, fine-tuned for 20 batches" in titles


def test_hidden_characters_of_the_files_are_escaped_on_the_page(folder):
    changed(folder, "cores", lambda value: value.update(title="chip\x1b[2J\u202e"))
    page = render_deployment(read_folder(folder))
    assert r"chip\x1b[2J\u202e" in page and not has_hidden(page.replace("\n", "").replace("\t", ""))


def test_where_the_integers_alone_count_the_accuracies_in_floating_point_say_so(folder):
    plain = describe_deployment(read_folder(folder))["stages"]
    changed(folder, "deployment", lambda value: value.update(floating_point_counts=False))
    stages = describe_deployment(read_folder(folder))["stages"]
    note = "in floating point, which this chip does not compute: its integers count"
    assert [row["note"] for row in stages["rows"]].count(note) >= 1 and note not in [row["note"] for row in plain["rows"]]
    assert "accuracy in its integers is " in stages["sentence"] and "accuracy in its integers is " not in plain["sentence"]
    changed(folder, "deployment", lambda value: value.pop("floating_point_counts") and None)
    changed(folder, "deployment", lambda value: value.update(notes=[INTEGERS_COUNT]))  # as earlier releases wrote it
    assert describe_deployment(read_folder(folder))["stages"] == stages
    changed(folder, "deployment", lambda value: value.update(notes=[]))
    assert describe_deployment(read_folder(folder))["stages"] == plain


def test_layers_that_are_bare_numbers_carry_their_kind(tmp_path):
    """Files of an earlier release, with the names that torch gives."""
    folder = tmp_path / "out"
    shutil.copytree(Path(__file__).parents[1] / "data" / "corpus_0.1.0" / "deployment", folder)
    plain = describe_deployment(read_folder(folder))
    for path in folder.glob("*.json"):
        path.write_text(re.sub(r"""(["'])fc\1""", r"\g<1>10\1", path.read_text()))
    arrays = {re.sub("^fc[.]", "10.", name): value for name, value in np.load(folder / "raster.npz").items()}
    np.savez(folder / "raster.npz", **arrays)
    bits = {"default": 8, "layers": {"10": 4, "out": 2}}
    changed(folder, "deployment", lambda value: value.update(notes=["layer '10': a note"], weight_bits=bits))
    view = describe_deployment(read_folder(folder))
    assert view["verdict"]["notes"] == ["layer '10' (Dense-CubaLIF 8): a note"]
    assert "Weights of 10 Dense-CubaLIF have 4 bits and of out 2; the chip's default is 8." in view["stages"]["sentence"]
    assert "Weights" not in plain["stages"]["sentence"]
    assert [row["name"] for row in view["activity"]["rows"]] == ["10 Dense-CubaLIF", "out"]
    assert [row["name"] for row in view["widths"]] == ["10 Dense-CubaLIF"] and view["widths"][0]["shape"] == [8]
    # what lies on the chip is the pruned network, of 5 neurons
    assert [row["name"] for row in view["plan"]["layers"]] == ["10 Dense-CubaLIF 5", "out"]
    assert view["plan"]["work"].startswith("core 0 ('10' (Dense-CubaLIF 5)) has most in a step")
    assert view["raster"]["layers"][0]["name"] == "10 Dense-CubaLIF 5"
    rows = view["resources"]["all"] or view["resources"]["first"]
    assert {row["where"] for row in rows} == {"chip", "10 Dense-CubaLIF 5", "out"}
    assert plain["resources"]["count"] == view["resources"]["count"]
    assert "10 Dense-CubaLIF 5" in render_deployment(read_folder(folder))


def test_the_tile_of_cores_says_why_a_chip_has_no_number_as_the_verdict_does():
    report = api.check("digits", "generic45nm")
    assert tables._explain_no_limit(report.to_json()["rows"]) == "no limit" and ", no limit" in report.headline
    unpublished = replace(report, rows=tuple(replace(row, status="unchecked") for row in report.rows))
    words = tables._explain_no_limit(unpublished.to_json()["rows"])
    assert words == "number of cores not published" and f", {words}" in unpublished.headline
