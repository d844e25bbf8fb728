"""Page of an adaptation: a row a step, what is missing, and which of several results a folder's page shows."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from spear_deploy.cli.app import main
from spear_deploy.errors import FileError
from spear_deploy.report import write_report
from tests.report.test_page import ADAPTATION, Reader
from tests.support.deployments import deployed

FACTS = {
    **ADAPTATION,
    "labels": {"fc": "fc Dense 8"},
    "accuracy": {"trained": 0.95, "adapted": 0.9, "integers": 0.89},
    "waterfall": [
        *ADAPTATION["waterfall"],
        {"after": "integers of xylo_audio3", "kind": "", "layers": [], "accuracy": 0.89,
         "differs": {"layer": "fc", "step": 2, "share": 0.25}},
    ],
    "missing": [],
    "notes": ["layer 'fc': a note"],
    "verdict": "fits",
    "headline": "FITS xylo_audio3",
    "files": {"adapted": "adapted.snn", "integers": "integers.snn", "facts": "adapt.json", "report": "adapt.html"},
}  # fmt: skip


def read(folder, **changes):
    """Write facts, make the page, and return its text."""
    (folder / "adapt.json").write_text(json.dumps({**FACTS, **changes}))
    path = write_report(folder)
    assert path == folder / "adapt.html"
    page = Reader(path.read_text(encoding="utf-8"))
    return " ".join(" ".join(page.text).split())


def test_each_step_stands_with_its_accuracy_its_points_and_the_spikes_that_it_changed(tmp_path):
    text = read(tmp_path)
    assert "Fits xylo_audio3 What xylo_audio3 lacks was replaced in 2 places (1 exact, 1 learnt)." in text
    assert "Accuracy, trained 95.00 %" in text and "Accuracy, integers 89.00 %" in text
    assert "As trained 95.00 % LIF → CubaLIF exact: out 95.00 %" in text
    assert "Integers of xylo_audio3 spikes differ first: fc Dense 8 from step 2 (25.0 %) 89.00 % −1.0 points" in text
    assert "fc Dense 8: sums over windows of 2 x 2 inputs, which the host forms." in text
    assert "LIF → CubaLIF <b> exact: v loses at most 1/64" in text
    assert "layer 'fc' (Dense 8): a note" in text and "integers.snn the network as it lies on the chip" in text


def test_the_page_says_when_and_how_it_was_made(tmp_path):
    made = {"made": "2026-11-29T09:00:00+00:00", "tool_version": "0.1.0"}
    text = read(tmp_path, **made, command="spear-deploy adapt a.nir --chip xylo_audio3 --data 'my <data>' --out out")
    assert "Command spear-deploy adapt a.nir --chip xylo_audio3 --data 'my <data>' --out out Made 2026-11-29T09:00:00" in text
    assert "by spear-deploy 0.1.0" in text and "Command a call from Python" in read(tmp_path, **made, command=None)
    assert "Origin" not in read(tmp_path)  # of a file that an earlier release wrote


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missing": ["layer 'out': LI"]}, "A part is missing on xylo_audio3"),
        ({"verdict": "does_not_fit"}, "Does not fit xylo_audio3"),
        ({"verdict": "unchecked"}, "Fits xylo_audio3 as far as is published"),
        ({"verdict": "tight"}, "Fits xylo_audio3, tightly"),
        ({"replaced": []}, "Nothing was replaced: the chip has each part that the network needs."),
        ({"replaced": [], "verdict": "does_not_fit"}, "each part that the network needs, but not the room."),
        ({"replaced": [], "missing": ["layer 'out': LI"]}, "Nothing was replaced: what is missing stands below."),
    ],
)
def test_the_head_says_what_came_out(tmp_path, changes, words):
    assert words in read(tmp_path, **changes)


def test_without_data_there_are_no_steps_and_it_says_why(tmp_path):
    none = dict.fromkeys(("trained", "adapted", "integers"))
    text = read(tmp_path, accuracy=none, waterfall=[], missing=["layer 'out': LI, to be replaced after learning by IF"])
    assert "Without data, accuracy is not measured." in text and "Accuracy, trained" not in text
    assert "missing layer 'out': LI" in text and "Accuracy after each step" not in text


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "adapt.json").write_text("{}")
    with pytest.raises(FileError, match="has no 'chip', it is of another version or foreign; adapt again"):
        write_report(tmp_path)
    (tmp_path / "adapt.json").write_text("{")
    with pytest.raises(FileError, match="adapt.json': is damaged .*; adapt again"):
        write_report(tmp_path)
    (tmp_path / "adapt.json").write_text(json.dumps({**FACTS, "verdict": "new"}))
    with pytest.raises(FileError, match="its files do not go together"):
        write_report(tmp_path)
    assert not (tmp_path / "adapt.html").exists()


def test_the_page_is_of_the_newest_results_and_of_a_deployment_where_there_is_one(tmp_path):
    assert "Fits" in read(tmp_path)
    (tmp_path / "prune.json").write_text("{}")
    os.utime(tmp_path / "prune.json", ns=(1, 1))
    assert write_report(tmp_path).name == "adapt.html"
    os.utime(tmp_path / "adapt.json", ns=(0, 0))
    with pytest.raises(FileError, match="prune|front|do not go together"):
        write_report(tmp_path)
    folder = tmp_path / "deployed"
    shutil.copytree(deployed()[1], folder)
    (folder / "adapt.json").write_text(json.dumps(FACTS))
    assert write_report(folder).name == "report.html"
    shown = json.loads(CliRunner().invoke(main, ["report", str(folder), "--json"]).stdout)
    assert shown["network_digest"] == json.loads((folder / "provenance.json").read_text())["network"]["digest"]


def test_the_command_writes_it_again(tmp_path):
    read(tmp_path)
    (tmp_path / "adapt.html").unlink()
    (tmp_path / "adapt.json").write_text(json.dumps({**FACTS, "network_digest": "d1"}))
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "adapt.html").exists() and json.loads(result.stdout)["network_digest"] == "d1"


def test_without_data_no_accuracy_is_shown_and_commands_are_code(tmp_path):
    nothing = {"accuracy": dict.fromkeys(FACTS["accuracy"]), "waterfall": []}
    note = "layer '<b>': give data; or `spear-deploy adapt NET --data DATA --out adapted`"
    (tmp_path / "adapt.json").write_text(json.dumps({**FACTS, **nothing, "notes": [note]}))
    text = write_report(tmp_path).read_text()
    assert "Accuracy, trained" not in text and 'class="figures"' not in text
    option = '<span class="option">{}</span>'.format
    assert f"<code>spear-deploy adapt NET {option('--data')} DATA {option('--out')} adapted</code>" in text
    assert "layer &#39;&lt;b&gt;&#39;: give data" in text
    (tmp_path / "adapt.json").write_text(json.dumps(FACTS))
    assert "Accuracy, trained" in write_report(tmp_path).read_text()
