"""Results of verbs in a list or a notebook: one line each, but for the text of a check."""

from pathlib import Path

import numpy as np
import pytest

import spear_deploy as sd
from spear_deploy.pipeline import api
from spear_deploy.pipeline.api import LintReport
from spear_deploy.pipeline.deployment import Deployment
from spear_deploy.pipeline.verification.verify import Verification


@pytest.fixture(scope="module")
def digits():
    return sd.load("digits")


def test_chips_of_a_ranking_and_a_check(digits):
    report = sd.check(digits, "loihi2")
    assert repr(sd.rank(digits, ["loihi2"])) == f"[Ranked({report.headline})]"
    assert report.headline.startswith("FITS loihi2: 3 of 120 cores") and "\n" not in report.headline
    assert repr(report) == str(report) == report.to_text()
    assert repr(api.profile("loihi2")) == "HardwareProfile('loihi2': Intel Loihi 2)"
    assert repr(api.profile("loihi2").core).startswith("CoreLimits(neurons=Limit(value=4095")  # blocks keep their facts


def test_counts(digits):
    spikes = np.ones((2, 1, *digits.input_shape), np.uint8)
    assert repr(sd.simulate(digits, spikes).counts).startswith("SpikeCounts(1 sample, 2 steps; input 128, conv1 ")
    assert (
        repr(sd.count(digits, spikes))
        == f"Count({sd.count(digits, spikes).synops_total:,.0f} SynOps per inference; 1 sample, 2 steps)"
    )
    macs = sd.count(digits, spikes.astype(np.float32), kind="current")
    assert f" and {macs.macs_first_layer:,.0f} MACs of the first layer; 1 sample, 2 steps)" in repr(macs)


def test_a_deployment_its_verification_and_findings_of_a_file(digits):
    report = sd.check(digits, "loihi2")
    shared = {"steps": {}, "norse": {}, "lava": {}, "report": report, "widths": {}, "files": {}, "seconds": {}, "seed": 0}
    deployment = Deployment(chip="loihi2", accuracy={}, synops={}, failures=["a spike differs"], **shared)
    assert repr(deployment) == f"Deployment(NOT PROVEN (1 proof failed), {report.headline})"
    verified = Verification(folder=Path("out"), checked=3, lava_samples=0, failures=(), notes=())
    assert repr(verified) == "Verification('out': 3 values compared, all hold)"
    differing = Verification(folder=Path("out"), checked=1, lava_samples=0, failures=({"file": "a"},), notes=())
    assert repr(differing) == "Verification('out': 1 value compared, 1 difference)"
    assert repr(LintReport(file="a.net", findings=())) == "LintReport('a.net': loads in lava-dl, 0 findings)"
