"""Command line as a tool: help, completion, colours, width, start-up time."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import main, options
from spear_deploy.hardware.profile import list_profiles
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LIF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.pruning.search.settings import DEFAULT_METHOD, METHODS
from tests.support.seeds import few_first

PROGRAM = Path(sys.executable).with_name("spear-deploy")
SMALL = str(Path(__file__).parents[2] / "examples" / "smallchip.yaml")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def run(*arguments, code=0, **options):
    done = CliRunner().invoke(main, [str(a) for a in arguments], **options)
    assert done.exit_code == code, done.output + done.stderr
    return done


def complete(shell, line):
    """Return the completions of the program, called as by the shell's function."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_SPEAR_DEPLOY_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    if shell == "fish":
        environment["COMP_CWORD"] = words[-1]
    return subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("rank digits --chip a", "plain,all\nplain,akd1000\nplain,akd1500\n"),
        ("check digits --chip al", "file,al\n"),
        pytest.param("rank digits --chip al", "plain,all\n", marks=pytest.mark.slow),
        pytest.param("rank digits --chip my", "file,my\n", marks=pytest.mark.slow),
    ],
)
def test_rank_completes_the_word_for_all_chips(words, completed):
    assert complete("bash", f"spear-deploy {words}") == completed


def test_each_command_is_one_whole_line_of_the_help():
    lines = run("--help", terminal_width=80).output.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(main.commands)
    assert all(len(line) <= 80 and line.endswith((".", "?")) and "..." not in line for line in lines)


def test_the_package_runs_as_a_module_too():
    """Usage and the commands that it prints name the program, which is where the shell finds it."""
    done = subprocess.run([sys.executable, "-m", "spear_deploy", "chek"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Usage: spear-deploy " in done.stderr and "Did you mean 'check'?" in done.stderr


def test_the_methods_in_the_help_are_those_of_the_search():
    assert options.METHODS[0] == DEFAULT_METHOD and sorted(options.METHODS) == sorted(METHODS)
    refused = run("prune", "digits", "--chip", "loihi2", "--data", "digits", "--out", "o", "--method", "speer", code=2)
    assert "'speer' is not one of 'evolution', 'recipe', 'rl', 'spear'" in refused.stderr


@pytest.mark.parametrize("name", list(main.commands))
def test_the_example_in_a_help_can_be_parsed(name):
    examples = re.findall(r"^Example: spear-deploy (.+)$", inspect.cleandoc(main.commands[name].help), re.MULTILINE)
    assert examples
    for example in examples:
        command, *arguments = shlex.split(example)
        assert command == name
        main.commands[name].make_context(name, arguments)  # raises where an option or a value is unknown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell, tmp_path):
    script = run("completion", shell).stdout
    assert f"_SPEAR_DEPLOY_COMPLETE={shell}_complete" in script
    facts = json.loads(run("completion", shell, "--out", tmp_path / "c", "--json").stdout)
    assert facts["script"] == script == (tmp_path / "c").read_text() and facts["shell"] == shell


def test_bash_completes_with_the_script_itself(tmp_path):
    (tmp_path / "mine.nir").touch()
    script = run("completion", "bash").stdout
    ask = "COMP_WORDS=(spear-deploy check digits --chip loi); COMP_CWORD=4; _spear_deploy_completion spear-deploy; "
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{ask} printf "%s\\n" "${{COMPREPLY[@]}}"'], capture_output=True, text=True, check=True,
        cwd=tmp_path, env={**os.environ, "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert {"loihi1", "loihi2"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("spear-deploy com", {"plain,compare", "plain,completion"}),
        ("spear-deploy check dig", {"plain,digits"}),
        ("spear-deploy rank digits --chip loihi2:", {"plain,loihi2:kapoho_point"}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("spear-deploy check mine", {"file,mine"}),
                ("spear-deploy count digits --data d", {"plain,digits"}),
                ("spear-deploy export digits --to n", {"plain,nir", "plain,netx"}),
                ("spear-deploy compare digits digits --chip-b xylo_i", {"plain,xylo_imu"}),
            ]
        ),
    ],
)
def test_completion_of_networks_chips_data_and_formats(line, wanted):
    assert wanted <= set(complete("bash", line).split())


def test_every_chip_is_completed():
    items = set(complete("bash", "spear-deploy profiles ").split())
    assert {f"plain,{name}" for name in list_profiles()} <= items


def test_no_colour_with_NO_COLOR_or_in_a_pipe(tmp_path, monkeypatch):
    colour = run(
        "check", "digits", "--chip", SMALL, code=3, env={"FORCE_COLOR": "1", "TERM": "xterm-256color"}, color=True
    ).stdout
    assert "\x1b[1;31m" in colour  # exceeded limits are red
    plain = {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm-256color"}
    bare = run("check", "digits", "--chip", SMALL, code=3, env=plain, color=True).stdout
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", bare)
    assert ESCAPE.sub("", bare) == ESCAPE.sub("", colour)
    assert "\x1b" not in run("check", "digits", "--chip", SMALL, code=3).stdout  # a pipe is no terminal


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize(
    "arguments", [("check", "digits", "--chip", SMALL), ("rank", "digits"), ("profiles",), ("profiles", "loihi2")]
)
def test_tables_keep_to_the_width_and_keep_every_row(arguments, width):
    done = CliRunner().invoke(main, list(arguments), env={"COLUMNS": str(width)})
    assert done.exit_code in (0, 3)
    assert all(len(line) <= width for line in done.stdout.splitlines())
    if arguments[0] == "rank" and width >= 80:
        heads = "".join(done.stdout.split("━")[0].split())
        assert "missing→remedy" in heads
        assert {line.split()[0] for line in done.stdout.splitlines()} >= set(list_profiles())


WIDE = {
    "rank": ("rank", "digits", "--activity", "0.1"),
    "explain": ("simulate", "digits", "--chip", "loihi2", "--explain", "--data", "digits", "--samples", "20"),
}


@pytest.mark.usefixtures("planned_once")
@pytest.mark.parametrize("name", WIDE)
def test_a_narrow_terminal_cuts_no_word_and_no_number(name):
    """Tables whose columns do not fit become a paragraph for each row."""

    def words(width):
        done = CliRunner().invoke(main, list(WIDE[name]), env={"COLUMNS": str(width)})
        assert done.exit_code == 0 and all(len(line) <= width for line in done.stdout.splitlines())
        return {word.strip(":;,") for word in re.sub("[┃│━╇]", " ", done.stdout).split()} - {"energy", "inference", "energy/"}

    whole = words(400)
    assert len(whole) > 60
    for width in (30, 60, 80):
        assert whole - words(width) <= {"energy/inference", "chip", "step", "layer"}, width  # heads


@pytest.mark.usefixtures("planned_once")
def test_the_next_command_is_printed_on_stderr_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    over = run("check", "digits", "--chip", SMALL, code=3)
    smaller, lacking, other = (
        f"next, {purpose}: spear-deploy"
        for purpose in ("make it smaller, until it fits", "replace what the chip lacks", "which chip takes it")
    )
    assert over.stderr == f"{smaller} prune digits --chip {SMALL} --data DATA --out pruned\n"
    limits = ("--cores", "2", "--synops", "1000", "--energy-uj", "1", "--latency-ms", "0.001")
    command = f"{smaller} prune digits --chip loihi2 --cores 2 --synops 1000 --energy-uj 1 --latency-ms 0.001"
    assert f"{command} --data" in run("check", "digits", "--chip", "loihi2", *limits, "--activity", "0.1", code=3).stderr
    adapt = f"{lacking} adapt digits --chip truenorth --data DATA --out adapted\n"
    assert run("check", "digits", "--chip", "truenorth", code=3).stderr == adapt
    partly = run("check", "digits", "--chip", "brainscales2", "--set", "neuron.models=null", code=3)  # its integers refuse LIF
    assert "replaces a part" in partly.stdout and partly.stderr == f"{other} rank digits\n"
    foreign = run("check", "digits", "--chip", "xylo_audio2", code=3)  # 8 outputs
    assert foreign.stderr == f"{other} rank digits\n"
    assert run("check", "digits", "--chip", "loihi2").stderr == ""
    quiet = run("check", "digits", "--chip", SMALL, "--json", code=3)
    assert quiet.stderr == "" and json.loads(quiet.stdout)["verdict"] == "does_not_fit"


def test_the_next_command_keeps_the_options_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=LIF(tau_s=2e-3))
    write_nir(chain([layer], input_shape=(4,)), "my net.nir")
    suggestion = run("rank", "my net.nir", "--dt-s", "1e-3", "--reset", "subtract").stderr.splitlines()[-1]
    assert re.fullmatch(r"next, each .*: spear-deploy check 'my net.nir' --dt-s 1e-3 --reset subtract --chip \w+", suggestion)
    chip = suggestion.split("--chip ")[1].split()[0]
    assert run("check", "my net.nir", "--dt-s", "0.001", "--reset", "subtract", "--chip", chip).stdout.startswith(
        ("FITS", "UNCHECKED")
    )


def test_a_refusal_names_the_command_that_adapts_with_the_file_and_its_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((3, 4)) / 9), neuron=LIF(tau_s=2e-3))
    write_nir(chain([layer], input_shape=(4,)), "my net.nir")
    rng = np.random.default_rng(0)
    np.savez("still.npz", x=rng.random((40, 4)), y=np.arange(40) % 3)
    reading = ("--dt-s", "0.001", "--set", "core.neurons=100", "--chip", "speck2f")
    given = "`spear-deploy adapt 'my net.nir' --dt-s 0.001 --chip speck2f --set core.neurons=100 --data"
    data = ("--data", "still.npz", "--steps", "3", "--encoding", "rate", "--out", "out")
    pruned = run("prune", "my net.nir", *reading, *data, code=3).stderr.replace("\n", " ")
    assert f"{given} still.npz --steps 3 --encoding rate --out adapted` replace what the chip lacks" in pruned
    np.savez("in.npz", spikes=np.zeros((3, 1, 4)))
    simulated = run("simulate", "my net.nir", "--input", "in.npz", *reading, "--out", "run.npz", code=3).stderr
    assert f"{given} DATA --out adapted` replace what the chip lacks" in simulated.replace("\n", " ")
    exported = run("export", "my net.nir", "--dt-s", "0.001", "--to", "speck", "--out", "a.json", code=3).stderr
    command = "`spear-deploy adapt 'my net.nir' --dt-s 0.001 --chip speck2f --data DATA --out adapted`"
    assert f"force the export; or let {command} replace what the chip lacks" in exported.replace("\n", " ")


def test_rank_suggests_nothing_without_a_chip_with_cores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_snn(chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,)), "net.snn")
    assert run("rank", "net.snn", "--chip", "generic45nm").stderr == ""


def measure_cpu_s(command, enough=0.0):
    """Least of five by the processor's clock, so that a loaded machine does not count; of fewer where one takes little enough."""
    import resource

    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.monotonic()
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        spent.append(min(cpu, time.monotonic() - begin))
        if spent[-1] <= enough:
            break
    return min(spent)


@cache
def measure_slowness():
    """Return how many times longer than 0.2 s this processor imports numpy; at least 1."""
    return max(1.0, measure_cpu_s([sys.executable, "-c", "import numpy"]) / 0.2)


@pytest.mark.parametrize(("arguments", "seconds"), [(["--help"], 0.4), (["profiles"], 0.7)])
def test_start_up_takes_at_most_0_4_to_0_7_seconds(arguments, seconds):
    """On a processor that imports numpy in at most 0.2 s; on a slower one in proportion."""
    limit = seconds * measure_slowness()
    assert measure_cpu_s([PROGRAM, *arguments], limit) <= limit


@pytest.mark.parametrize("chosen", few_first([None, "ACTIVE"], 1))
def test_threads_of_a_command_sleep_while_they_wait_unless_the_environment_says_otherwise(chosen):
    code = (
        "import os, sys; from spear_deploy.cli import main; sys.argv = ['spear-deploy', 'profiles']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": chosen} if chosen else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == (chosen or "PASSIVE")


def test_a_command_that_reads_no_network_starts_without_the_checker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spear.toml").write_text('chip = "loihi2"\n')
    code = (
        "import sys; from spear_deploy.cli import main\n"
        "try: main(['profiles'])\n"
        "except SystemExit: pass\n"
        "assert not {'spear_deploy.budget.check', 'spear_deploy.placement', 'torch'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
