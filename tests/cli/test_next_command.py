"""Commands that a command names repeat its options that decide the network, the data and the chip."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import main
from spear_deploy.cli.command import GIVEN
from spear_deploy.cli.next_command import repeat_adapting
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import LIF, Conv2d, Dense, Layer
from spear_deploy.network.graph import chain

SMALL = Path(__file__).parents[2] / "examples" / "smallchip.yaml"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a network file that states its steps, one that does not, still images and a profile."""
    import nir

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_nir(
        chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4)) / 9), neuron=LIF(tau_s=2e-3))], input_shape=(4,)), "a.nir"
    )
    foreign = nir.read("a.nir")
    for node in (foreign, *foreign.nodes.values()):
        node.metadata.clear()
    nir.write("foreign.nir", foreign)
    np.savez("still.npz", x=rng.random((60, 4)), y=np.arange(60) % 3)
    Path("small.yaml").write_text(SMALL.read_text())
    return tmp_path


def run(line):
    """Return the exit code, and the command that the last line on stderr names."""
    done = CliRunner().invoke(main, shlex.split(line))
    lines = done.stderr.splitlines()
    return done.exit_code, lines[-1].split(": ", 1)[-1] if lines and lines[-1].startswith("next, ") else done.stderr


def test_options_stand_in_the_next_command_as_they_were_written(folder):
    code, command = run("rank a.nir --dt-s 1e-3 --chip small.yaml --chip loihi1 --activity 5e-2 --set core.neurons=9")
    assert code == 0 and command.startswith("spear-deploy check a.nir --dt-s 1e-3 --chip ")
    assert command.endswith(" --set core.neurons=9 --activity 5e-2")
    assert run(command.removeprefix("spear-deploy "))[0] == 0


@pytest.mark.usefixtures("planned_once")
def test_rank_names_a_chip_by_its_file_and_its_board(folder):
    assert run("rank digits --chip small.yaml")[1] == "spear-deploy check digits --chip small.yaml"
    assert run("rank digits --chip loihi1:kapoho_bay")[1] == "spear-deploy check digits --chip loihi1:kapoho_bay"
    assert re.fullmatch(r"spear-deploy check digits --chip \w+", run("rank digits")[1])


def test_check_repeats_what_its_budget_file_states_and_no_other_command_reads(folder):
    facts = "[set]\n'chip.cores' = 2\n'chip.usable_cores' = 2\n"
    Path("mine.toml").write_text(f"chip = 'small.yaml'\nactivity = 0.25\n[network]\nsource = 'snntorch'\ndt_s = 1e-3\n{facts}")
    code, command = run("check digits --budget mine.toml")
    pruning = "spear-deploy prune digits --chip small.yaml --set chip.cores=2 --set chip.usable_cores=2 --data DATA --out pruned"
    assert (code, command) == (3, pruning)
    Path("mine.toml").write_text("chip = 'xylo_audio2'\nactivity = 0.25\n")
    assert run("check digits --budget mine.toml")[1] == "spear-deploy rank digits --activity 0.25"
    assert run("check digits --budget mine.toml --activity 0.1")[1] == "spear-deploy rank digits --activity 0.1"
    Path("mine.toml").write_text(
        "[network]\nreset = 'subtract'\ndt_s = 1e-3\n[set]\n'core.neurons' = 1\n'chip.cores' = 2\n'chip.usable_cores' = 1\n"
    )
    code, command = run("check foreign.nir --budget mine.toml --chip small.yaml --dt-s 2e-3")
    assert code == 3
    assert command.startswith("spear-deploy prune foreign.nir --reset subtract --dt-s 2e-3 --chip small.yaml --set ")
    assert run("check a.nir --budget mine.toml --chip small.yaml")[1].startswith("spear-deploy prune a.nir --chip small.yaml")


def test_a_project_file_that_the_next_command_reads_too_is_not_repeated(folder):
    facts = "[set]\n'core.neurons' = 1\n'chip.cores' = 2\n'chip.usable_cores' = 1\n"
    Path("spear.toml").write_text(f"chip = 'loihi1:kapoho_bay'\n[network]\ndt_s = 1e-3\n{facts}")
    code, command = run("check a.nir")
    assert code == 3
    cores = "--set core.neurons=1 --set chip.cores=2 --set chip.usable_cores=1"
    assert command == f"spear-deploy prune a.nir --chip loihi1:kapoho_bay {cores} --data DATA --out pruned"


def test_the_command_in_a_report_is_of_the_chip_of_the_budget_file(folder):
    Path("mine.toml").write_text("chip = 'truenorth'\n[set]\n'core.neurons' = 200\n")
    done = CliRunner().invoke(main, ["check", "a.nir", "--budget", "mine.toml"], env={"COLUMNS": "400"})
    assert "`spear-deploy adapt a.nir --chip truenorth --set core.neurons=200 --data DATA --out adapted`" in done.stdout


def test_pruning_after_an_adaptation_learns_on_the_same_steps_encoding_seed_and_device(folder):
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=np.ones((2, 1, 2, 2)) / 3), neuron=LIF(tau_s=5e-3)),
        Layer(name="out", synapse=Dense(weight=np.random.default_rng(0).normal(size=(3, 2))), neuron=LIF(tau_s=5e-3)),
    ]
    write_snn(chain(layers, input_shape=(1, 2, 2)), "net.snn")
    small = "--set core.neurons=2 --set chip.cores=1 --set chip.usable_cores=1"
    learning = "--steps 3 --encoding bernoulli --workers 1 --device cpu --seed 5"
    code, command = run(f"adapt net.snn --chip brainscales2 --data still.npz --keep-widths --epochs 1 --out a {small} {learning}")
    assert code == 3
    assert command == (
        f"spear-deploy prune a/adapted.snn --chip brainscales2 {small} --data still.npz --steps 3 --encoding bernoulli "
        "--workers 1 --device cpu --seed 5 --out pruned"
    )


def test_a_refusal_names_the_command_that_adapts_with_all_that_it_learns_with(folder):
    given = "a.nir --chip speck2f --set core.neurons=100 --data still.npz --out out --dt-s 1e-3 --encoding rate"
    adapting = "a.nir --dt-s 1e-3 --chip speck2f --set core.neurons=100 --data still.npz"
    code, sentence = run(f"prune {given} --steps 3 --workers 1 --device cpu --seed 7")
    assert code == 3
    command = f"`spear-deploy adapt {adapting} --steps 3 --encoding rate --workers 1 --device cpu --seed 7 --out adapted`"
    assert command in sentence
    for name, more, repeated in (
        ("deploy", "--readout host --seed 3 --steps 2", "--steps 2 --encoding rate --seed 3 --readout host"),
        ("prune", "--steps 2..4", "--encoding rate"),  # a range is for pruning
        ("prune", "--steps auto", "--encoding rate"),
    ):
        with main.commands[name].make_context(name, shlex.split(f"{given} {more}")) as context:
            assert repeat_adapting(context.params, "NET --chip speck2f --data DATA") == f"{adapting} {repeated}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("check digits --chip loihi2 --json", {"chip": ["--chip", "loihi2"], "as_json": ["--json"]}),
        ("check digits --chip=a.yaml --set a=1 --set 'b=[x, y]'", {
            "chip": ["--chip", "a.yaml"], "overrides": ["--set", "a=1", "--set", "b=[x, y]"]}),
        ("check digits --chip loihi2 --dt-s 1e-3", {"chip": ["--chip", "loihi2"], "dt_s": ["--dt-s", "1e-3"]}),
    ],
)  # fmt: skip
def test_words_of_a_command_line_are_kept_by_parameter(line, words):
    name, *arguments = shlex.split(line)
    command = main.commands[name]
    with command.make_context(name, arguments) as context:
        assert context.meta[GIVEN] == words
