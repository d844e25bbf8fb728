"""Tutorial networks, trained on MNIST: their spikes there, here, pruned, and back in their framework."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from spear_deploy.hardware.profile import list_profiles
from tests.conftest import shared
from tests.support.framework_environments import NotInstalled, install
from tests.support.tutorial_networks import make_table

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "docs/benchmarks/tutorials"
LEFT_OUT = {
    "Tutorial6MaxPool": "the exporter refuses MaxPool2d",
    "CsnnIf": "the exporter refuses BatchNorm2d, MaxPool2d",
    "CsnnLif": "the exporter refuses BatchNorm2d, MaxPool2d",
    "SinabsCnn": "the exporter leaves Conv2d.input_shape open, which nir.write refuses",
    "RockpoolRecurrent": "the file lacks 1_LIFTorch.w_rec, 1_LIFTorch.bias, 3_LIFTorch.bias",
}
"""What the framework's own exporter refuses or does not write."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs", "rockpool"])
def test_tutorial_networks_come_home(framework, tmp_path):
    """SPEAR_TUTORIALS names a folder whose finished networks are not run again."""
    shared("data/mnist")
    try:
        python, environment = install(framework, tmp_path)
    except NotInstalled as error:
        pytest.skip(f"{framework} cannot be installed here: {error}")
    out = Path(os.environ.get("SPEAR_TUTORIALS", tmp_path / "out"))
    command = [python, "-W", "ignore", "-m", "tests.support.tutorial_networks", "run", framework, out]
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=7200, check=False)
    assert completed.returncode == 0, completed.stderr[-3000:]
    rows = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    rows = {name: row for name, row in rows.items() if row["framework"] == framework}
    assert rows
    for name, row in rows.items():
        check_row(name, row)


WHOLE = {"LifFc"}
"""Networks without a hidden layer, which go home as they are."""


def check_row(name, row):
    """Check that no spike differs but for ties, in any layer, and that a tie changes accuracy by an image at most."""
    assert sum(counts["spikes"] for counts in row["module"]["layers"].values()) > 1000, (name, row)
    assert row["module"]["accuracy"] == pytest.approx(row["module"]["accuracy_there"], abs=0.011), (name, row)
    assert row["chips"]["ranked"] == len(list_profiles())
    if name in WHOLE:
        assert "the network has no channels that could be removed" in row["pruned"]
    else:
        assert row["pruned"]["parameters"][1] < row["pruned"]["parameters"][0]
    assert row["left_out"] == LEFT_OUT.get(name)
    exported = [key for key in ("file", "graph") if isinstance(row[key], dict) and name != "RockpoolRecurrent"]
    assert exported == {None: ["file", "graph"], LEFT_OUT["SinabsCnn"]: ["graph"]}.get(row["left_out"], [])
    for key in ("module", "own", *exported, "back", "home"):
        layers = row[key].get("layers", row[key])
        assert layers and all(counts["differ"] == 0 for counts in layers.values()), (name, key, row)


def test_the_table_of_the_docs_is_that_of_the_recorded_rows():
    page = (ROOT / "docs/interop.md").read_text()
    shown = re.search("<!-- tutorials -->\n(.*?)\n<!-- end of tutorials -->", page, re.DOTALL)
    assert shown and shown[1] == make_table(ROWS)
    for path in ROWS.glob("*.json"):
        check_row(path.stem, json.loads(path.read_text()))
