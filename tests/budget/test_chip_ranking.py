"""Order of ranked chips, and the obstacles of each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import spear_deploy
from spear_deploy.budget.check import check
from spear_deploy.budget.chip_ranking import Ranked, rank
from spear_deploy.cli import main
from spear_deploy.hardware.profile import list_profiles, load_profile
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import LIF, Dense
from spear_deploy.network.graph import Layer, chain
from spear_deploy.pipeline import api
from spear_deploy.util.workers import Workers
from tests.support.chips import dense_net, small_chip

ORDER = {"fits": 0, "unchecked": 1, "does_not_fit": 2}


def lif_net(*widths: int):
    rng = np.random.default_rng(0)
    layers = [
        Layer(name=f"fc{n}", synapse=Dense(weight=rng.normal(size=(o, i)).astype(np.float32)), neuron=LIF(tau_s=2e-3))
        for n, (i, o) in enumerate(pairwise(widths), start=1)
    ]
    return chain(layers, input_shape=(widths[0],), dt_s=1e-3)


def test_every_profile_gets_the_verdict_of_its_own_check() -> None:
    net = lif_net(40, 60, 10)
    ranking = api.rank(net, activity=0.1)
    assert sorted(ranked.profile for ranked in ranking) == list_profiles()
    for ranked in ranking:
        report = check(net, load_profile(ranked.profile), activity=0.1)
        assert (ranked.verdict, ranked.report.cores_used) == (report.verdict, report.cores_used)
        assert bool(ranked.missing) == (report.verdict != "fits")


def test_files_with_one_name_are_ranked_each_with_its_own_numbers(tmp_path) -> None:
    """A copy of a profile keeps its name: what it reaches, the row and the next command are of the file."""
    text = (Path(spear_deploy.__file__).parents[1] / "hardware_profiles" / "truenorth.yaml").read_text()
    small, net = tmp_path / "truenorth.yaml", tmp_path / "net.snn"
    small.write_text(text.replace("value: 4096, unit: core", "value: 1, unit: core"))
    write_snn(dense_net(40, 60, 600), net)
    ranking = api.rank(net, [small, "truenorth", load_profile("odin")])
    alone = {entry.chip: entry for chip in (small, "truenorth") for entry in api.rank(net, [chip])}
    assert {entry.chip for entry in ranking} == {str(small), "truenorth", "odin"}
    for entry in ranking:
        assert entry.profile == entry.report.profile
        if entry.chip in alone:
            assert (entry.reach, entry.report) == (alone[entry.chip].reach, alone[entry.chip].report)
    assert alone[str(small)].report.cores_limit == 1 and alone["truenorth"].report.cores_limit == 4096
    run = CliRunner().invoke(main, ["rank", str(net), "--chip", str(small), "--chip", "truenorth"], env={"COLUMNS": "300"})
    assert re.search(rf"^{re.escape(str(small))} .*│ *\d+ of 1 ", run.stdout, re.M), run.output
    assert re.search(r"^truenorth .*│ *\d+ of 4,096 ", run.stdout, re.M) and "--chip truenorth" in run.stderr


@pytest.mark.usefixtures("planned_once")
def test_all_stands_for_the_profiles_that_are_included() -> None:
    net = lif_net(40, 60, 10)
    own = small_chip("loihi2", chip__usable_cores=7)
    ranking = api.rank(net, ["all", own, "loihi2:kapoho_point"])
    names = sorted([*list_profiles(), "loihi2", "loihi2:kapoho_point"])
    assert sorted(entry.chip for entry in ranking) == names
    assert sorted(entry.report.cores_limit for entry in ranking if entry.profile == "loihi2") == [7, 120, 960]
    assert [entry.chip for entry in api.rank(net, "all")] == [entry.chip for entry in api.rank(net)]
    assert [entry.chip for entry in api.rank(net, ["loihi1", own, "loihi1", own])].count("loihi1") == 1


def test_the_order_is_verdict_then_reach_then_obstacles_then_share() -> None:
    ranking = api.rank(lif_net(40, 60, 10))

    def reach(entry: Ranked) -> int:
        within = entry.adaptation is not None and entry.adaptation["within_reach"]
        return 2 if not within else 0 if entry.adaptation["verdict"] != "does_not_fit" else 1

    keys = [
        (
            ORDER[r.verdict],
            reach(r) if r.verdict == "does_not_fit" else 0,
            len(r.report.unsupported),
            float("inf") if r.share is None else r.share,
            r.profile,
        )
        for r in ranking
    ]
    assert keys == sorted(keys) and {reach(r) for r in ranking if r.verdict == "does_not_fit"} == {0, 2}


def test_the_share_is_of_cores_where_layers_are_cut_and_of_the_fullest_core_where_they_are_not() -> None:
    by_name = {ranked.profile: ranked for ranked in api.rank(lif_net(16, 600, 8), ["loihi2", "xylo_audio2"])}
    loihi, xylo = by_name["loihi2"], by_name["xylo_audio2"]
    assert (loihi.scarcest, loihi.share) == ("cores", loihi.report.cores_used / 120)
    amounts = [row for row in xylo.report.rows if row.share is not None and row.resource not in ("weight_bits", "delay")]
    assert xylo.share == max(row.share for row in amounts)
    assert xylo.scarcest.split(" of ")[0].replace(" ", "_") in {row.resource for row in amounts if row.share == xylo.share}


def test_obstacles_have_numbers_and_unpublished_limits_stand_once() -> None:
    full = small_chip("loihi1", core__neurons=4, chip__usable_cores=2)
    unknown = small_chip("loihi1", core__synapse_memory=None)
    over, unchecked = rank(dense_net(3, 20, 20), [(full, 1), (unknown, 1)])[::-1]
    assert over.verdict == "does_not_fit" and over.missing == ("cores 10 of 2",)
    assert unchecked.verdict == "unchecked" and unchecked.missing == ("synapse memory not published",)


def test_a_board_has_more_cores() -> None:
    one, eight = (api.rank(dense_net(3, 20), [chip])[0] for chip in ("loihi2", "loihi2:kapoho_point"))
    assert eight.report.cores_limit == 8 * one.report.cores_limit


@pytest.mark.parametrize(("chips", "code"), [((), 0), (("odin",), 3)])
def test_the_rank_command_lists_the_chips_and_exits_by_the_best(tmp_path, chips, code) -> None:
    write_snn(dense_net(30, 400, 10), tmp_path / "net.snn")
    options = [part for chip in chips for part in ("--chip", chip)]
    result = CliRunner().invoke(main, ["rank", str(tmp_path / "net.snn"), *options, "--json"])
    assert result.exit_code == code, result.output
    rows = json.loads(result.stdout)["chips"]
    assert [row["profile"] for row in rows] == list(chips) or len(rows) == len(list_profiles())
    assert {"verdict", "cores_used", "cores_limit", "share", "scarcest", "missing", "energy", "latency_s"} <= set(rows[0])
    table = CliRunner().invoke(main, ["rank", str(tmp_path / "net.snn"), *options])
    assert table.exit_code == code and rows[0]["profile"] in table.stdout


def test_the_rank_command_sorts_by_energy(tmp_path) -> None:
    write_snn(dense_net(30, 400, 10), tmp_path / "net.snn")
    arguments = ["rank", str(tmp_path / "net.snn"), "--chip", "loihi2", "--chip", "loihi1", "--sort", "energy"]
    result = CliRunner().invoke(main, [*arguments, "--activity", "0.1", "--json"])
    rows = json.loads(result.stdout)["chips"]
    assert result.exit_code == 0 and [row["energy_rank"] for row in rows] == sorted(row["energy_rank"] for row in rows)
    assert all(row["energy"]["interval_j"]["dynamic"] and row["latency_interval_s"] and row["latency_evidence"] for row in rows)
    table = CliRunner().invoke(main, [*arguments, "--activity", "0.1"]).stdout
    assert "derived" in table and "simulated" in table
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1 and "'energy' given without activity" in refused.stderr


def test_overrides_hold_for_every_chip() -> None:
    ranking = api.rank(dense_net(3, 20), ["loihi1", "loihi2"], activity=0.5, overrides={"energy.synop_pj": 1})
    for ranked in ranking:
        term = next(term for term in ranked.report.energy.terms if term.name == "synapse")
        assert term.evidence == "user"


def test_rank_imports_neither_torch_nor_lava_nor_norse_nor_matplotlib(tmp_path) -> None:
    write_snn(dense_net(30, 40, 10), tmp_path / "net.snn")
    code = (
        "import sys\nfrom spear_deploy.pipeline import api\n"
        f"api.rank({str(tmp_path / 'net.snn')!r})\n"
        "sys.exit(' '.join(sorted({'torch', 'lava', 'matplotlib', 'norse'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_workers_rank_as_one_process_does() -> None:
    graph = lif_net(40, 60, 10)
    targets = [(load_profile(name), 1) for name in list_profiles()[:5]]
    here = rank(graph, targets, activity=0.1)
    assert [r.to_json() for r in rank(graph, targets, activity=0.1, workers=Workers(count=2))] == [r.to_json() for r in here]
