"""Every stage of the SPEAR benchmark on a handful of images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.search_tasks import SHARED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason=f"no CIFAR-10 in {SHARED}"),
]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("net", ["vgg16", "resnet18"])
def test_train_prune_tune_and_report_in_slices(net, tmp_path):
    def stage(name, *more):
        command = [sys.executable, "-m", "tests.benchmarks.spear_cifar", "--net", net, "--stage", name, "--out", str(tmp_path)]
        small = ["--limit", "80", "--search-train", "64", "--method", "uniform", "--budget", "50", "--device", "cpu"]
        return subprocess.run([*command, *small, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    folder = tmp_path / f"{net}-0"
    assert "trained 1 of 1 epochs" in stage("train", "--epochs", "1")
    (folder / "train.pt").rename(folder / "one.pt")
    assert "trained 0 of 2 epochs" in stage("train", "--epochs", "2", "--minutes", "0")  # the time is up at once
    (folder / "one.pt").rename(folder / "train.pt")
    assert "trained 2 of 2 epochs" in stage("train", "--epochs", "2")  # goes on from the first
    assert [row["epoch"] for row in json.loads((folder / "dense.json").read_text())["history"]] == [1, 2]

    assert "time is up" in stage("prune", "--minutes", "0") and not (folder / "uniform-50.snn").exists()
    facts = json.loads(stage("prune").strip().splitlines()[-1])
    assert all(after <= before for before, after in facts["widths"].values())
    assert any(after < before for before, after in facts["widths"].values())
    assert json.loads(stage("prune").strip().splitlines()[-1])["evaluations"] == 0  # all of it was measured before

    assert "uniform-50: 1 of 1 epochs" in stage("tune", "--epochs", "1")
    tuned = json.loads((folder / "uniform-50-tuned.json").read_text())
    assert tuned["finished"] and 0 < tuned["params"] < 1 and tuned["share"] > 0
    report = stage("report")
    assert f"| {net} dense | 2 | 100 | 100 |" in report and "| uniform-50 | 1 |" in report
