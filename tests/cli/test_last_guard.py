"""Unexpected exceptions, signals, full disks and poor terminals end in a sentence and the right exit code."""

import errno
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli import last_guard, main
from spear_deploy.cli.app import LEARNING
from spear_deploy.errors import GraphError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.util.extras import PACKAGES
from tests.support.seeds import few_first

NETWORK = chain([Layer(name="fc", synapse=Dense(weight=np.ones((3, 4))), neuron=IF())], input_shape=(4,))


def run_failing(error, *arguments, monkeypatch):
    """Run `check` where loading the network raises `error`."""
    from spear_deploy.pipeline import api

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(api, "load", fail)
    return CliRunner().invoke(main, [*arguments, "check", "net.snn", "--chip", "loihi2", "--json"])


@pytest.mark.expects_fault
def test_an_unexpected_exception_is_one_sentence_and_a_line_to_report(monkeypatch):
    done = run_failing(ZeroDivisionError("division by zero"), monkeypatch=monkeypatch)
    sentence, report = done.stderr.splitlines()
    assert done.exit_code == 1 and done.stdout == ""
    assert sentence.startswith(f"error: {last_guard.FAULT}: ZeroDivisionError: division by zero at cli/inputs.py:")
    assert report.startswith("report: spear-deploy 0.") and "ZeroDivisionError at cli/inputs.py:" in report


@pytest.mark.expects_fault
def test_debug_shows_the_traceback_before_the_sentence(monkeypatch):
    lines = run_failing(ValueError("odd"), "--debug", monkeypatch=monkeypatch).stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-2].startswith("error: fault in spear-deploy: ValueError")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ModuleNotFoundError("No module named 'networkx'", name="networkx.algorithms"),
            "this needs the package 'networkx'",
        ),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "this needs the package 'PyYAML'"),
        (MemoryError(), "memory is full (cli/inputs.py:"),
        (ImportError("numpy.so: failed to map segment from shared object"), "memory is full (cli/inputs.py:"),
        (OSError(errno.ENOSPC, "No space left on device", "a.snn"), "file 'a.snn' cannot be written (the disk is full)"),
        (
            OSError(errno.ENAMETOOLONG, "?", "a" * 300),
            f"file '{'a' * 77}...' cannot be opened (file name too long); check its name",
        ),
        (OSError(errno.EIO, "?"), "a file cannot be opened (input/output error)"),
        (OSError(errno.ENOSPC, "No space left on device"), "output cannot be written (the disk is full)"),
    ],
)
def test_missing_packages_and_full_memory_or_disks_are_no_fault(error, sentence, monkeypatch):
    done = run_failing(error, monkeypatch=monkeypatch)
    assert done.exit_code == 1 and done.stderr.startswith(f"error: {sentence}") and len(done.stderr.splitlines()) == 1


def test_errors_show_control_characters_escaped(monkeypatch):
    done = run_failing(GraphError("layer 'a\x1b[2J\u202e\udc80'"), monkeypatch=monkeypatch)
    assert done.stderr == "error: layer 'a\\x1b[2J\\u202e\\udc80'\n"


@pytest.mark.parametrize("package", few_first(["h5py", "torch", "sklearn", "networkx", "nir", "onnx", "norse", "scipy"], 3))
def test_each_missing_package_is_named_in_one_sentence(package, tmp_path):
    write_snn(NETWORK, tmp_path / "net.snn")
    np.savez(tmp_path / "in.npz", spikes=np.ones((2, 1, 4), bool))
    command = {
        "networkx": ["rank", "net.snn"],
        "nir": ["export", "net.snn", "--to", "nir", "--out", "a.nir"],
        "h5py": ["export", "net.snn", "--to", "netx", "--out", "a.net", "--input", "in.npz"],
        "onnx": ["export", "net.snn", "--to", "onnx", "--out", "a.onnx"],
        "sklearn": ["count", "digits", "--data", "digits"],
        "torch": ["prune", "digits", "--chip", "loihi2", "--data", "digits", "--synops", "50%", "--out", "o"],
        "norse": ["prune", "digits", "--chip", "loihi2", "--data", "digits", "--synops", "50%", "--out", "o"],
        "scipy": ["count", "digits", "--data", "digits"],
    }[package]
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"from spear_deploy.cli import main\nmain({command!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "Traceback" not in done.stderr and last_guard.FAULT not in done.stderr, done.stderr
    assert done.returncode in (0, 1, 3)
    if done.returncode == 1:
        name = PACKAGES.get(package, package)
        assert f"package '{name}'" in done.stderr, done.stderr


WAIT = """
import signal, time, click
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started under
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from spear_deploy.cli import main
@main.command("wait")
def wait():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what is done is kept") from None
main(["wait"])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ctrl_c_term_and_hup_end_alike(number, code):
    process = subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code and stderr == "interrupted; what is done is kept\n"


WORK_ON = """
import signal, sys, time, click
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started under
from spear_deploy.cli import last_guard, main
last_guard.GRACE_S, last_guard.COMPLETING = 0.3, sys.argv[2:]
@main.command("work")
def work():
    for part in ("search", "fine-tune"):  # each ends early after an interrupt, as those of pruning do
        try:
            print(part, flush=True)
            time.sleep(60 if part == "search" else float(sys.argv[1]))
        except KeyboardInterrupt:
            continue
    print("done", flush=True)
    time.sleep(float(sys.argv[1]))
main(["work"])
"""


def work_on(seconds, completing=("work",)):
    command = [sys.executable, "-c", WORK_ON, str(seconds), *completing]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "search\n"
    return process


def test_work_that_goes_on_after_ctrl_c_says_so_and_is_completed():
    process = work_on(0.8)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0 and stdout == "fine-tune\ndone\n" and stderr == f"{last_guard.STILL_AT_WORK}\n"


@pytest.mark.parametrize(("numbers", "code"), [((signal.SIGTERM,), 143), ((signal.SIGINT, signal.SIGINT), 130)])
def test_work_that_goes_on_is_stopped_again_after_term_and_a_second_ctrl_c(numbers, code):
    process = work_on(60)
    for number in numbers:
        process.send_signal(number)
        if len(numbers) > 1:
            assert process.stdout.readline() in ("fine-tune\n", "done\n")
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code and stderr.removeprefix(f"{last_guard.STILL_AT_WORK}\n") == "interrupted\n"


def test_a_command_that_completes_nothing_ends_though_its_first_ctrl_c_is_lost():
    process = work_on(60, completing=())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stderr == "interrupted\n"


LOSE = """
import ctypes, os, signal, sys, time, click
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started under
from spear_deploy.cli import last_guard, main
last_guard.GRACE_S, last_guard.COMPLETING = 60, sys.argv[2:]
@ctypes.CFUNCTYPE(None)
def call_back():  # as LLVM calls numba
    signal.raise_signal(signal.SIGINT)
    time.sleep(60)
@main.command("work")
def work():
    call_back()
    if sys.argv[1] == "fails":
        raise RuntimeError("no compiled object yet")
    time.sleep(60)
main(["work"])
"""


@pytest.mark.parametrize("completing", [(), ("work",)])
@pytest.mark.parametrize("library", ["goes on", "fails"])
def test_a_ctrl_c_that_a_callback_loses_ends_the_command_at_once(library, completing):
    """Python printed a traceback and went on; numba without its compiled function passed for a fault of ours."""
    done = subprocess.run(
        [sys.executable, "-c", LOSE, library, *completing], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_other_exceptions_in_a_callback_are_shown_as_before():
    program = LOSE.replace("signal.raise_signal(signal.SIGINT)", "os.fspath(1)").replace("time.sleep(60)", "pass")
    done = subprocess.run([sys.executable, "-c", program, "goes on"], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0 and "Exception ignored" in done.stderr and "TypeError" in done.stderr


def test_a_second_ctrl_c_while_libraries_clean_up_shows_no_traceback():
    program = WAIT.replace(
        'main(["wait"])', "import atexit, sys\natexit.register(time.sleep, 1)\nsys.argv = ['x', 'wait']\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "interrupted; what is done is kept\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stderr == ""


@pytest.mark.parametrize("kept", [False, True])
def test_ctrl_c_in_prune_names_the_command_that_goes_on(kept, tmp_path, monkeypatch):
    """A second Ctrl-C, which ends the fine-tuning of the best plan too."""

    def stop(*_, out, **__):
        if kept:
            (tmp_path / out / "checkpoint.json").touch()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spear_deploy.pipeline.prune.prune", stop)
    command = ["prune", "digits", "--chip", "loihi2", "--data", "digits", "--synops", "50%", "--out", ".", "--quiet"]
    done = CliRunner().invoke(main, command)
    words = "; what was measured is in '.', and `" if kept else f"; run `spear-deploy {shlex.join(command)}` again\n"
    assert done.exit_code == 130 and f"interrupted{words}" in done.stderr
    assert ("goes on from its checkpoint.json" in done.stderr) == kept


@pytest.mark.parametrize("name", LEARNING)
def test_ctrl_c_before_a_command_learns_names_the_command(name, tmp_path, monkeypatch):
    """While it reads its network: nothing was begun that could be kept."""
    monkeypatch.chdir(tmp_path)
    command = [name, "digits", "--chip", "loihi2", "--data", "digits", "--out", "a b"]
    command = {"demo": ["demo", "--out", "a b"], "sweep": ["sweep", "file.toml", "--out", "a b"]}.get(name, command)
    monkeypatch.setattr(f"spear_deploy.cli.{name}.display", lambda *_: signal.raise_signal(signal.SIGINT))
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 130 and "interrupted; " in done.stderr
    assert f"`spear-deploy {shlex.join(command)}`" in done.stderr


def test_ctrl_c_in_a_short_command_names_none(monkeypatch):
    done = run_failing(KeyboardInterrupt(), monkeypatch=monkeypatch)
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def test_a_hangup_that_is_ignored_stays_ignored():
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with last_guard.stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, handler)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


PROGRAM = [sys.executable, "-m", "spear_deploy.cli"]


def test_an_ascii_terminal_shows_what_it_lacks_as_escapes(tmp_path):
    write_snn(NETWORK, tmp_path / "größe.snn")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}  # of the file's name
    for arguments in (["check", "größe.snn", "--chip", "loihi2"], ["check", "größe", "--chip", "loihi2"], ["profiles", "loihi2"]):
        done = subprocess.run([*PROGRAM, *arguments], env=environment, capture_output=True, cwd=tmp_path, check=False)
        assert done.returncode == int("größe" in arguments) and b"Traceback" not in done.stderr
        assert "error: file 'größe'" in done.stderr.decode() or done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_or_closed_stdout_is_a_sentence(tmp_path):
    write_snn(NETWORK, tmp_path / "net.snn")
    checking = ["check", "net.snn", "--chip", "loihi2"]
    for arguments in (checking, [*checking, "--json"], ["--help"], ["--version"]):
        with open("/dev/full", "w") as full:
            command = [*PROGRAM, *arguments]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 1
        assert done.stderr == "error: output cannot be written (the disk is full); free some space, and run the command again\n"
    done = subprocess.run(
        ["sh", "-c", '"$0" -m spear_deploy.cli check net.snn --chip loihi2 >&-', sys.executable],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and last_guard.FAULT not in done.stderr


def test_a_closed_stderr_changes_nothing_else(tmp_path):
    """Python has no stderr then; a command ended with code 1, without a word."""
    write_snn(NETWORK, tmp_path / "net.snn")
    done = [
        subprocess.run(
            ["sh", "-c", f'"$0" -m spear_deploy.cli check net.snn --chip loihi2 2>{target}', sys.executable],
            stdout=subprocess.PIPE, cwd=tmp_path, check=False,
        )
        for target in ("&-", "/dev/null")
    ]  # fmt: skip
    assert done[0].returncode == done[1].returncode == 0 and done[0].stdout == done[1].stdout != b""


SMALL_DISK = """
mount -t tmpfs -o size=$1k none "$2" && cd "$2" || exit 99
shift 2
"$@" > /dev/null
code=$?
echo "left: $(ls -A)" >&2
exit $code
"""


@pytest.mark.parametrize(
    ("kilobytes", "command"),
    [
        (40, ["export", "../net.snn", "--to", "nir", "--out", "a.nir"]),
        (40, ["simulate", "../net.snn", "--input", "../in.npz", "--out", "a.npz"]),
        *(
            pytest.param(kilobytes, command, marks=pytest.mark.slow)
            for kilobytes, command in [
                (4, ["export", "../net.snn", "--to", "nir", "--out", "a.nir"]),
                (16, ["export", "../net.snn", "--to", "onnx", "--out", "a.onnx"]),
                (4, ["profiles", "--new", "a.yaml"]),
            ]
        ),
    ],
    ids=["nir-40", "simulate-40", "nir-4", "onnx-16", "profile-4"],
)
def test_a_full_disk_is_a_sentence_and_nothing_is_left(kilobytes, command, tmp_path):
    """On a disk of a few kilobytes, which a process may mount in a name space of its own."""
    rng = np.random.default_rng(0)
    layer = Layer(name="fc", synapse=Dense(weight=rng.normal(size=(40, 400)).astype(np.float32)), neuron=IF())
    write_snn(chain([layer], input_shape=(400,)), tmp_path / "net.snn")
    np.savez(tmp_path / "in.npz", spikes=rng.random((100, 20, 400)) < 0.5)
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(kilobytes), str(tmp_path / "disk"), *PROGRAM, *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("no name space with a disk of its own")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[elapsed")]  # progress, on a busy machine
    assert done.returncode == 1 and lines[-1] == "left: " and len(lines) == 2
    assert lines[0].startswith(f"error: file '{command[-1]}': cannot be written (No space left on device)")


@pytest.mark.parametrize("megabytes", [60, 100, 140])
def test_little_memory_is_a_sentence(megabytes, tmp_path):
    """Libraries that find no room fail on import, in words of the system's loader."""
    write_snn(NETWORK, tmp_path / "net.snn")
    program = ["sh", "-c", f'ulimit -v {1000 * megabytes} && exec "$@"', "sh", *PROGRAM, "check", "net.snn", "--chip", "loihi2"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # OpenBLAS waits for threads that it could not start
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0 or (done.returncode == 1 and done.stderr.startswith("error: memory is full ("))
    assert len(done.stderr.splitlines()) <= 1 and (megabytes > 60 or done.returncode == 1)


CRASH_AT_THE_END = """
import atexit, os, sys
from importlib.abc import MetaPathFinder

class Full(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "spear_deploy.hardware.schema":
            raise MemoryError

sys.meta_path.insert(0, Full())
atexit.register(os.abort)
sys.argv = ["spear-deploy", "check", "net.snn", "--chip", "loihi2"]
from spear_deploy.cli.app import main
main()
"""


def test_a_library_that_is_loaded_in_part_cannot_hide_the_exit_code(tmp_path):
    """One crashed while Python ended, and the exit code was that of a segmentation fault."""
    write_snn(NETWORK, tmp_path / "net.snn")
    done = subprocess.run([sys.executable, "-c", CRASH_AT_THE_END], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: memory is full (") and len(done.stderr.splitlines()) == 1
