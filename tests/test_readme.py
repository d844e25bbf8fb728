"""README: its commands and Python block run, its claims have tests."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spear_deploy import weights_into
from spear_deploy.cli import main
from spear_deploy.hardware.profile import list_profiles
from spear_deploy.interchange.nir.writer import write_nir
from tests.benchmarks import demo
from tests.cli.test_commands import network
from tests.support.reference import random_spikes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert 0.5 < float(printed[0]) <= 1
    assert printed[1].startswith("{'conv1': ")
    assert printed[2].startswith("FITS loihi2: 3 of 120 cores")
    assert printed[-1] == "0"


def command_lines():
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("spear-deploy ")]


MY_SNN = """
import snntorch as snn
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        def neurons():
            return snn.Leaky(beta=0.9, init_hidden=True)
        super().__init__(nn.Linear(64, 40), neurons(), nn.Linear(40, 10), neurons())

def trained():
    net = Net()
    net.load_state_dict(torch.load("net.pt"))
    return net
"""


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize(
    "line",
    [pytest.param(line, marks=[pytest.mark.slow] * (" prune " in line)) for line in command_lines() if " deploy " not in line],
)
def test_commands_run(line, tmp_path, monkeypatch):
    if "my_snn" in line:
        pytest.importorskip("snntorch", exc_type=ImportError)
        (tmp_path / "my_snn.py").write_text(MY_SNN)
        assert MY_SNN.split("def trained")[1].strip() in README
        monkeypatch.syspath_prepend(tmp_path)
        torch.save(importlib.import_module("my_snn").Net().state_dict(), tmp_path / "net.pt")
    monkeypatch.chdir(tmp_path)
    graph = network()
    monkeypatch.setenv("COLUMNS", "200")
    write_nir(graph, "net.nir")
    write_nir(graph, "other.nir")
    np.savez("in.npz", spikes=random_spikes(graph, 0))
    result = CliRunner().invoke(main, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output + result.stderr
    if " prune " in line:
        sizes = [tuple(layer.weight.shape) for layer in weights_into(__import__("my_snn").Net(), "pruned/pruned.snn")[::2]]
        assert sizes[0][0] == sizes[1][1] < 40


def test_every_command_of_the_readme_exists():
    assert len(command_lines()) == 11
    for line in command_lines():
        assert shlex.split(line)[1] in main.commands


def test_the_test_command_is_the_one_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text()
    assert "<!-- test command -->" in ci and "<!-- test command -->" in README


def test_the_bounds_of_the_demo_are_those_of_its_benchmark():
    words = " ".join(README.split())
    bounds = re.search(r"accuracy is at least (\d+) % dense and at most ([\d.]+) points lower on Lava", words)
    assert [float(bound) / 100 for bound in bounds.groups()] == [demo.DENSE_ACCURACY, demo.LOSS_ON_LAVA]
    assert demo.SECONDS == 3 * 60 and words.count("at most three minutes") == 2


def test_the_printed_figures_of_the_demo_are_within_the_spread_and_the_bounds():
    words = README.replace(",", "")
    dense, lava = (float(re.search(rf"accuracy {what} +│ +([\d.]+)%", words)[1]) for what in ("dense", "on Lava"))
    (budget, synops) = (int(re.search(rf"SynOps {what} +│ +(\d+)", words)[1]) for what in ("budget", "achieved"))
    low, high, lava_low, lava_high = map(
        float, re.search(r"accuracy was ([\d.]+) to ([\d.]+) % dense and ([\d.]+) to ([\d.]+) % on\s+Lava", words).groups()
    )
    least, most = map(int, re.search(r"SynOps were (\d+) to (\d+)", words).groups())
    assert 100 * demo.DENSE_ACCURACY <= low <= round(dense, 1) <= high and lava_low <= round(lava, 1) <= lava_high
    assert least <= synops <= min(most, budget) and "0 differ" in words


@pytest.mark.usefixtures("planned_once")
def test_two_commands_lead_from_a_nir_file_to_a_chip_and_a_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = README.split("## You have a .nir file")[1].split("\n## ")[0]
    first, second = (shlex.split(line, comments=True)[1:] for line in re.findall(r"^spear-deploy .*", section, re.MULTILINE))
    write_nir(network(hidden=600), "net.nir")
    ranked = CliRunner().invoke(main, first, env={"COLUMNS": "200"})
    assert ranked.exit_code == 0 and re.search(r"^loihi2 .*fits", ranked.stdout, re.MULTILINE)
    assert re.search(r"^odin .*does not fit .*\w.*\n.*→ adapt \(", ranked.stdout, re.MULTILINE)
    assert ranked.stderr.splitlines()[-1].startswith("next, each limit, and what to change: spear-deploy check net.nir --chip ")
    assert CliRunner().invoke(main, second).stdout.startswith("FITS loihi2")
    small = str(ROOT / "examples" / "smallchip.yaml")
    refused = CliRunner().invoke(main, [*second[:-1], small])
    assert refused.exit_code == 3 and re.search("over +cores of chip", refused.stdout) and "→ drop" in refused.stdout


def test_each_claim_names_a_test_file():
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| (`tests/.+`) \|$", README, re.MULTILINE)
    assert len(rows) == 10
    for name in re.findall(r"`(tests/\w+\.py)`", " ".join(rows)):
        assert "\ndef test_" in (ROOT / name).read_text(), name


def test_there_are_16_profiles():
    assert "Sixteen chips are\ndescribed" in README and "16 profiles" in README
    assert len(list_profiles()) == 16


def test_74_cores_of_pilotnet_are_tested():
    assert "PilotNet LIF: 74 cores" in README
    assert "== 74" in (Path(__file__).parent / "placement" / "test_place.py").read_text()


def test_links_to_files_exist():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.*)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert target[1:] in anchors if target.startswith("#") else (ROOT / target).exists(), target


def test_the_leads_of_the_methods_are_those_of_the_tables():
    search, levers = ((ROOT / "docs" / "benchmarks" / f"{name}.md").read_text() for name in ("search", "levers"))
    section = README.split("## How it prunes")[1].split("\n## ")[0]
    first, equal, recipe = (line for line in section.splitlines() if " ahead" in line and line.startswith("| "))
    for line, names in ((first, ("spear", "uniform")), (equal, ("spear+40", "uniform+40"))):
        for cell, name in zip(line.split("|")[2:4], names, strict=True):
            lead, error = (float(x) for x in re.search(rf"\| {re.escape(name)} \| 48 \| \+([\d.]+) ± ([\d.]+) ", search).groups())
            assert f"{lead:.1f} ± {error:.1f}" in cell
    assert "in 0.42 of its time" in first and re.search(r"\| spear \| 48 .* 0\.42 \|", search)
    for cell, name in zip(recipe.split("|")[2:4], ("spear", "uniform"), strict=True):
        lead, rows = re.search(
            rf"^- of `{name}`, on seeds run after all choices: ([\d.]+ ± [\d.]+) \((\d+ rows)", levers, re.M
        ).groups()
        assert f"{lead} ahead" in cell and rows in cell


def test_there_are_no_placeholders():
    assert not re.search(r"\b[A-Z]{3,}_[A-Z_]{3,}\b", re.sub(r"`[^`]*`", "", README))
