"""Faults in Lava end the run within seconds and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.errors import BackendError
from spear_deploy.lava import worker_process
from spear_deploy.lava.run import run_lava
from spear_deploy.lava.worker.guard import remove_shared_memory
from spear_deploy.network import Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain
from tests.support.lava_hazards import during_a_run, fault, network, prompt_s, the, traces

__all__ = ["fault", "traces"]  # fixtures

pytestmark = pytest.mark.lava


def slow(*values):
    """Mark parameters that the default run leaves out; they take seconds each and resemble another."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("what", "cause", "message"),
    [
        ("PySendModelFixed:3:raise", "exception", r"input/from step 0: ValueError: this synapse is broken"),
        slow("PyDenseModelBitAcc:3:raise", "exception", r"(first|last)/from (input|first): ValueError: this synapse is broken"),
        slow("PyPortRecorder:3:raise", "exception", r"(first|last)/spikes: ValueError: this synapse is broken"),
        ("PyLifResetModelBitAcc:3:raise unknown", "died", r"(first|last): ended with exit code 1"),  # it cannot be sent
        slow("PyLifResetModelBitAcc:init:raise", "exception", r"ValueError: this synapse is broken"),
        slow("PyLifResetModelBitAcc:3:exit", "died", r"(first|last): ended with exit code 3"),
        ("PyDenseModelBitAcc:init:exit", "died", r"(first|last)/from (input|first): ended with exit code 3"),
        slow("PySendModelFixed:3:sys.exit", "died", r"input/from step 0: ended with exit code 4"),
        slow("PyDenseModelBitAcc:3:segfault", "died", r"(first|last)/from (input|first): killed by SIGSEGV"),
    ],
)
def test_a_fault_in_a_lava_process_ends_the_run(traces, fault, what, cause, message):
    set_fault, since = fault
    set_fault(what)
    with pytest.raises(BackendError, match=message) as caught:
        run_lava(*network(100))
    assert since() < prompt_s()
    assert caught.value.cause == cause
    if "raise" in what:
        assert "go_wrong" in str(caught.value.__cause__)  # the traceback of the Lava process
    traces.assert_none()


@pytest.mark.parametrize(
    ("what", "cause", "message"),
    [
        ("PyNetwork:2:raise", "exception", r"network: ValueError: this synapse is broken"),
        slow("PyNetwork:init:raise", "exception", r"ValueError: this synapse is broken"),
        slow("PyNetwork:2:segfault", "died", r"network: killed by SIGSEGV"),
        slow("PyNetwork:2:sys.exit 0", "died", r"network: ended with exit code 0"),
        slow("PyNetwork:2:spin", "timeout", r"not done after 4 s"),
    ],
)
def test_a_fault_in_the_fast_model_ends_the_run(traces, fault, what, cause, message):
    set_fault, _ = fault
    set_fault(what)
    begin = time.monotonic()
    with pytest.raises(BackendError, match=message) as caught:
        run_lava(*network(1000), model="fast", timeout_s=4 if cause == "timeout" else None)
    assert caught.value.cause == cause
    assert cause != "timeout" or time.monotonic() - begin < 4 + prompt_s()
    traces.assert_none()


@pytest.mark.parametrize(
    "what", ["PyLifResetModelBitAcc:3:sleep", slow("PyDenseModelBitAcc:3:spin"), slow("PySendModelFixed:init:sleep")]
)
def test_a_hang_ends_at_the_time_limit(traces, fault, what):
    set_fault, _ = fault
    set_fault(what)
    begin = time.monotonic()
    with pytest.raises(BackendError, match=r"not done after 4 s; give it a longer timeout_s") as caught:
        run_lava(*network(100), timeout_s=4)
    assert time.monotonic() - begin < 4 + prompt_s()
    assert caught.value.cause == "timeout"
    traces.assert_none()


def test_memory_is_removed_even_if_the_resource_tracker_is_killed_with_the_worker(traces):
    """The resource tracker of multiprocessing removes shared memory, unless it is killed as well."""

    def act(processes):
        for pid in sorted(processes, reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    error, _ = during_a_run(traces, act)
    assert error.cause == "died"
    traces.assert_none()


@pytest.mark.parametrize("which", [slow("1"), slow("2"), "5", slow("9"), slow("-1")])
def test_a_killed_lava_process_ends_the_run(traces, which):
    error, seconds = during_a_run(traces, lambda processes: os.kill(the(processes, which), signal.SIGKILL))
    assert error.cause == "died"
    assert "killed by SIGKILL" in str(error)
    assert seconds < prompt_s()
    traces.assert_none()


@pytest.mark.parametrize(
    ("number", "cause", "message"),
    [
        (signal.SIGKILL, "died", "the worker was killed by SIGKILL"),
        (signal.SIGTERM, "interrupted", "the worker got SIGTERM"),
    ],
)
def test_a_killed_worker_ends_the_run(traces, number, cause, message):
    error, seconds = during_a_run(traces, lambda processes: os.kill(the(processes, "worker"), number))
    assert error.cause == cause
    assert message in str(error)
    assert seconds < prompt_s()
    traces.assert_none()


CALLER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started under
sys.path.insert(0, {root!r})
from tests.support.lava_hazards import network
from spear_deploy.lava.run import run_lava
try:
    run_lava(*network(60_000), timeout_s=600)
except KeyboardInterrupt:
    sys.exit(99)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM), slow(signal.SIGKILL)])
def test_no_process_or_file_survives_the_caller(traces, number):
    caller = subprocess.Popen([sys.executable, "-c", CALLER.format(root=str(Path(__file__).parents[2]))])
    traces.callers.append(caller.pid)
    traces.wait_for_processes(11)
    time.sleep(0.5)
    caller.send_signal(number)
    begin = time.monotonic()
    code = caller.wait(10)
    assert code == (99 if number == signal.SIGINT else -number)
    traces.assert_none(within_s=prompt_s())
    assert time.monotonic() - begin < prompt_s()


@pytest.mark.parametrize("model", ["reference", "fast"])
def test_a_successful_run_leaves_no_process_file_or_memory(traces, model):
    run_lava(*network(3), model=model)
    traces.assert_none()


@pytest.mark.parametrize("model", ["reference", slow("fast")])
def test_all_shared_memory_of_a_run_carries_its_name(traces, model):
    """What has no name any more (Lava's semaphores, right after they are made) cannot be left."""
    mapped, named = set(), []

    def act(processes):
        mapped.update(traces.mapped())
        named.extend(traces.shared_memory())
        os.kill(the(processes, "worker"), signal.SIGTERM)

    during_a_run(traces, act, model=model)
    kept = {name for name in mapped if not name.endswith("(deleted)")}
    assert kept and kept < mapped and all(map(traces.ours, kept))
    assert kept <= set(named)
    traces.assert_none()


KILLED_WITH_MEMORY = """
import multiprocessing, os, signal, sys
from multiprocessing import shared_memory
from spear_deploy.lava.worker.guard import name_shared_memory
name_shared_memory(sys.argv[1])
segment = shared_memory.SharedMemory(create=True, size=8)
semaphore = multiprocessing.get_context("spawn").Semaphore()  # which keeps its name, unlike Lava's
os.killpg(0, signal.SIGKILL)  # and with it multiprocessing's resource tracker
"""


def test_segments_and_semaphores_of_one_run_are_removed_and_no_others(traces):
    one, other = (f"spear-lava-{os.getpid()}-{name}" for name in ("one", "other"))
    for run in (one, other):
        subprocess.run([sys.executable, "-c", KILLED_WITH_MEMORY, run], start_new_session=True, check=False)
    remove_shared_memory(one)
    left = sorted(traces.shared_memory())
    remove_shared_memory(other)
    assert [name.rpartition("-")[0] for name in left] == [f"sem.{other}", other]
    traces.assert_none(within_s=10.0)  # the resource trackers, killed but not waited for, may take a moment to go


@pytest.mark.parametrize(
    ("python", "cause", "message"),
    [
        (
            "/nowhere/python",
            "refused",
            r"'/nowhere/python' does not start \(No such file or directory\); set SPEAR_LAVA",
        ),
        ("/bin/false", "exception", r"the worker ended with exit code 1"),
        ("without lava", "exception", r"No module named 'lava'; install lava-nc==0.10.0, or set SPEAR_LAVA_PYTHON"),
    ],
)
def test_a_python_that_cannot_run_lava_is_named(traces, monkeypatch, tmp_path, python, cause, message):
    if python == "without lava":
        (tmp_path / "lava.py").write_text("raise ModuleNotFoundError(\"No module named 'lava'\")\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        python = sys.executable
    monkeypatch.setenv(worker_process.PYTHON_VARIABLE, python)
    with pytest.raises(BackendError, match=message) as caught:
        run_lava(*network(3))
    assert caught.value.cause == cause
    traces.assert_none()


# --------------------------------------------------------------------------------------------- refused before it starts


def test_too_little_shared_memory_is_refused(traces, monkeypatch):
    monkeypatch.setattr(worker_process, "free_shared_memory", lambda: 100_000)
    with pytest.raises(BackendError, match=r"channels need \d+ KiB of /dev/shm, 97 KiB are free; enlarge it") as caught:
        run_lava(*network(3))
    assert caught.value.cause == "refused"
    traces.assert_none()


def test_little_shared_memory_makes_channels_small(monkeypatch):
    graph, x = network(3)
    full = run_lava(graph, x, record=("v",))
    monkeypatch.setattr(worker_process, "free_shared_memory", lambda: 400_000)
    tight = run_lava(graph, x, record=("v",))
    assert all(np.array_equal(full.v[name], tight.v[name]) for name in full.v)


def test_too_many_processes_are_refused(traces):
    neuron = LoihiLIF(decay_u=4096, decay_v=100, v_threshold=50)
    deep = chain(
        [Layer(name=f"fc{i}", synapse=Dense(weight=np.ones((2, 2), int)), neuron=neuron) for i in range(50)], input_shape=(2,)
    )
    with pytest.raises(BackendError, match=r"takes 154 operating-system processes in Lava, 120 are allowed") as caught:
        run_lava(deep, np.ones((2, 1, 2), bool))
    assert caught.value.cause == "refused"
    traces.assert_none()


@pytest.mark.parametrize(("timeout_s", "allowed"), [(None, "1800 s"), (5.0, "5 s")])
def test_a_run_that_would_take_too_long_is_refused(traces, timeout_s, allowed):
    with pytest.raises(BackendError, match=rf"would take about \d+ s, {allowed} are allowed; use fewer samples") as caught:
        run_lava(*network(5_000_000), timeout_s=timeout_s)
    assert caught.value.cause == "refused"
    traces.assert_none()


def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(BackendError, match=r"cannot be written \(No space left on device\); set TMPDIR"):
        run_lava(*network(3))


@pytest.mark.slow
def test_a_stopped_worker_is_ended_by_the_caller(traces):
    """Its guard is stopped with it, so this side has to notice, and the shared memory still has to go."""
    caught = []

    def work():
        try:
            run_lava(*network(2_000), timeout_s=12)
        except BackendError as error:
            caught.append((error, time.monotonic()))

    thread = threading.Thread(target=work)
    begin = time.monotonic()
    thread.start()
    traces.wait_for_processes(10)
    os.kill(the(traces.processes(), "worker"), signal.SIGSTOP)
    thread.join(40)
    assert caught[0][0].cause == "timeout"
    assert caught[0][1] - begin < 12 + 2 * prompt_s()
    traces.assert_none()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="a /dev/shm of its own takes root and unshare")
@pytest.mark.parametrize(
    ("size", "width", "message"), [("128k", 3, "No space left on device"), ("512k", 4000, "SIGBUS; /dev/shm may")]
)
def test_shared_memory_that_fills_up_during_a_run(tmp_path, size, width, message):
    """Mount a small /dev/shm, say that it is large, and see the run end with a cause all the same."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from tests.support.lava_hazards import network\n"
        "from spear_deploy.errors import BackendError\n"
        "from spear_deploy.lava import worker_process\n"
        "from spear_deploy.lava.run import run_lava\n"
        "worker_process.free_shared_memory = lambda: 1 << 30\n"
        "try:\n"
        f"    run_lava(*network(30, {width}), timeout_s=20)\n"
        "except BackendError as error:\n"
        "    print(error.cause, error)\n"
    )
    command = f"mount -t tmpfs -o size={size} none /dev/shm && {sys.executable} {script}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=60)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mount here: {done.stderr.strip()}")
    assert message in done.stdout, done.stdout + done.stderr
