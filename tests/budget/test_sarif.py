"""SARIF 2.1.0 logs of budget reports."""

from __future__ import annotations

import json

import numpy as np
from click.testing import CliRunner

from spear_deploy.budget.budget_file import UserLimits
from spear_deploy.budget.check import check
from spear_deploy.budget.sarif import to_sarif
from spear_deploy.cli import main
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import LIF, Dense
from spear_deploy.network.graph import Layer, chain
from tests.support.chips import dense_net, small_chip

LEVEL = {"over": "error", "tight": "warning", "unchecked": "note"}


def test_one_result_for_each_finding_with_its_layer() -> None:
    soft = Layer(name="soft", synapse=Dense(weight=np.ones((4, 8))), neuron=LIF(tau_s=2e-3, reset="subtract"))
    report = check(chain([soft], input_shape=(8,)), small_chip("loihi1", core__neurons=2, chip__usable_cores=1))
    log = to_sarif(report, "models/my net.snn")
    results = log["runs"][0]["results"]
    rows = [row for row in report.rows if row.status in LEVEL]
    assert [r["level"] for r in results] == ["error"] * len(report.unsupported) + [LEVEL[row.status] for row in rows]
    assert results[0]["ruleId"] == "not_on_this_chip" and "soft" in results[0]["message"]["text"]
    assert results[0]["locations"][0]["logicalLocations"][0]["name"] == "soft"
    assert results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "models/my%20net.snn"
    cores = next(r for r in results if r["ruleId"] == "cores")
    assert cores["message"]["text"].startswith("chip: cores 2 core, loihi1 allows 1")


def test_every_rule_is_declared_once_and_the_log_is_json() -> None:
    report = check(dense_net(8, 3000, 10), load_profile("loihi1"), limits=UserLimits(synops=5))
    log = json.loads(json.dumps(to_sarif(report, "net.snn"), allow_nan=False))
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert log["version"] == "2.1.0" and len(rules) == len(set(rules))
    assert {result["ruleId"] for result in run["results"]} == set(rules)
    synops = next(r for r in run["results"] if r["ruleId"] == "synops")
    assert synops["level"] == "note" and "not counted" in synops["message"]["text"]
    assert run["properties"]["verdict"] == report.verdict


def test_the_command_writes_it_beside_the_verdict(tmp_path) -> None:
    write_snn(dense_net(8, 3000, 10), tmp_path / "net.snn")
    command = ["check", str(tmp_path / "net.snn"), "--chip", "loihi1", "--cores", "1", "--sarif", str(tmp_path / "out.sarif")]
    assert CliRunner().invoke(main, [*command, "--no-budget"]).exit_code == 3
    log = json.loads((tmp_path / "out.sarif").read_text())
    assert [r["level"] for r in log["runs"][0]["results"] if r["ruleId"] == "cores"] == ["error"]
