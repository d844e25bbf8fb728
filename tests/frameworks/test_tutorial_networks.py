"""Tutorial networks, trained on MNIST: their spikes there, here, pruned, and back in their framework."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import shared
from tests.support.framework_environments import NotInstalled, install

FILES = {"Tutorial6MaxPool", "CsnnIf", "CsnnLif", "RockpoolRecurrent"}
"""Networks that their framework's own exporter refuses or writes without a part."""


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
    root = Path(__file__).parents[2]
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=7200, check=False)
    assert completed.returncode == 0, completed.stderr[-3000:]
    rows = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    rows = {name: row for name, row in rows.items() if row["framework"] == framework}
    assert rows
    for name, row in rows.items():
        assert row["module"]["differ"] == 0 and row["module"]["spikes"] > 1000, (name, row)
        assert row["accuracy"] == pytest.approx(row["accuracy_there"], abs=0.011), (name, row)
        assert name in FILES or row["file"]["differ"] == 0, (name, row)
        assert row["back"]["differ"] == 0 and row["home"]["differ"] == 0, (name, row)
