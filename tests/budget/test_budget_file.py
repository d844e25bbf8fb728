"""Budget files: reading, errors, and enforcement by `check`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from spear_deploy.budget.budget_file import BudgetFile, UserLimits, read_budget
from spear_deploy.cli import main
from spear_deploy.errors import DataError, FileError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.pipeline import api
from tests.support.chips import dense_net

FULL = """
chip = "loihi1"
chips = 2
activity = 0.5
[budget]
max_cores = 3
synops = 1_000
energy_uj = 20
latency_ms = 5.5
[set]
"energy.synop_pj" = 9
packing.tile_axes = ["x", "y"]
"""


def write(tmp_path, text: str, name: str = "spear.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read(tmp_path) -> None:
    path = write(tmp_path, FULL)
    assert read_budget(path) == BudgetFile(
        path=path, chip="loihi1", chips=2, activity=0.5,
        limits=UserLimits(cores=3, synops=1000, energy_j=pytest.approx(20e-6), latency_s=pytest.approx(5.5e-3)),
        overrides={"energy.synop_pj": 9, "packing.tile_axes": ["x", "y"]},
    )  # fmt: skip


def test_files_are_named_relative_to_the_budget_file(tmp_path) -> None:
    budget = read_budget(write(tmp_path, 'chip = "own.yaml"\nactivity = "in.npz"\n'))
    assert (budget.chip, budget.activity) == (str(tmp_path / "own.yaml"), str(tmp_path / "in.npz"))
    for end in ("own.yaml:duo", "own.yml@wide", "own.yaml@wide:duo", "a.yaml.yaml"):
        assert read_budget(write(tmp_path, f'chip = "chips/{end}"\n')).chip == str(tmp_path / "chips" / end)
    for name in ("loihi2:kapoho_point", "loihi2@2023"):
        assert read_budget(write(tmp_path, f'chip = "{name}"\n')).chip == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[budget]\nmax_core = 3",
            r"spear.toml': unknown key 'budget.max_core'; there are budget.max_cores, .*; did you mean 'max_cores'\?$",
        ),
        (
            "chp = 'loihi2'",
            r"unknown key 'chp'; there are chip, chips, activity, budget, network, data.*; did you mean 'chip'\?$",
        ),
        ("budget = 3", "key 'budget': 3 given, expected a table; correct it or leave it out"),
        ("chip = 3", "key 'chip': 3 given, expected a text"),
        ("chips = 0", "key 'chips': 0 given, expected a whole number of 1 to 9007199254740992"),
        ("chips = true", "key 'chips': true given, expected a whole number"),
        ("chips = 1" + "0" * 400, r"key 'chips': 10{56}\.\.\. given, expected a whole number of 1 to 9007199254740992"),
        ("[budget]\nmax_cores = 1" + "0" * 400, r"key 'budget.max_cores': 10{56}\.\.\. given, expected a whole number"),
        ("[budget]\nsynops = 1" + "0" * 400, r"key 'budget.synops': 10{56}\.\.\. given, expected a number above 0"),
        ("[network]\ndt_s = 1" + "0" * 400, r"key 'network.dt_s': 10{56}\.\.\. given, expected a number above 0"),
        ("activity = 1.5", r"key 'activity': 1.5 given, expected a rate of 0..1 or the name of a file"),
        ("[budget]\nsynops = -1", "key 'budget.synops': -1 given, expected a number above 0"),
        ("[budget]\nenergy_uj = inf", "key 'budget.energy_uj': inf given, expected a number above 0"),
        ("[budget]\nmax_cores = 2.5", "key 'budget.max_cores': 2.5 given, expected a whole number"),
        ("[budget", "is not TOML"),
        ("x=" + "[" * 5000 + "]" * 5000, "is not TOML"),
        ("chips=" + "9" * 5000, r"is not TOML \(Exceeds the limit"),
        ("[set]\na=" + "{a=" * 2000 + "1" + "}" * 2000, "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_file_and_key(tmp_path, text: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_budget(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(FileError, match="there is no such budget file .TOML.; check the path"):
        read_budget(tmp_path / "spear.toml")


def test_check_enforces_the_file_and_arguments_override_it(tmp_path) -> None:
    net = dense_net(8, 2000, 10)
    budget = write(
        tmp_path, 'chip = "loihi1"\nactivity = 0.5\n[budget]\nmax_cores = 2\nsynops = 1\n[set]\n"energy.synop_pj" = 9\n'
    )
    report = api.check(net, budget=budget)
    assert report.profile == "loihi1" and report.verdict == "does_not_fit"
    limits = {row.resource: row.limit for row in report.rows if row.where == "chip" and row.status == "over"}
    assert limits == {"cores": 2, "synops": 1}
    assert next(term for term in report.energy.terms if term.name == "synapse").evidence == "user"
    looser = api.check(net, budget=budget, synops=1e9, cores=100)
    assert not looser.over
    assert api.check(net, "loihi2", budget=budget).profile == "loihi2"


def test_a_check_without_a_chip_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no chip is named; give one, e.g. loihi2, or name it in the budget file"):
        api.check(dense_net(3, 2), budget=write(tmp_path, "[budget]\nsynops = 5\n"))


def test_the_command_uses_spear_toml_unless_no_budget_is_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_snn(dense_net(8, 2000, 10), "net.snn")
    runner = CliRunner()
    write(tmp_path, 'chip = "loihi1"\n[budget]\nmax_cores = 1\n')
    result = runner.invoke(main, ["check", "net.snn", "--json"])
    assert result.exit_code == 3 and "limits of spear.toml apply too (--no-budget ignores them)" in result.stderr
    assert json.loads(result.stdout)["profile"] == "loihi1"
    assert runner.invoke(main, ["check", "net.snn", "--chip", "loihi1", "--no-budget"]).exit_code == 0
    missing = runner.invoke(main, ["check", "net.snn", "--no-budget"])
    assert missing.exit_code == 2 and "Missing option '--chip'; or name the chip in a spear.toml." in missing.stderr
    limit = runner.invoke(main, ["check", "net.snn", "--chip", "loihi1", "--no-budget", "--cores", "1"])
    assert limit.exit_code == 3


def test_a_key_of_3000_parts_is_one_key(tmp_path) -> None:
    (tmp_path / "spear.toml").write_text("set." + ".".join("a" * 3000) + " = 1")
    assert list(read_budget(tmp_path / "spear.toml").overrides) == [".".join("a" * 3000)]
