"""Lava on each supported Python: the same spikes, and faults that end.

`SPEAR_LAVA_PYTHON` names the worker's interpreter, and the tests themselves run in another. For every version an
environment with lava-nc and its dependencies is made once, in the folder `SPEAR_TEST_ENVIRONMENTS` (default: a temporary one).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spear_deploy.errors import BackendError
from spear_deploy.lava.run import run_jobs, run_lava
from spear_deploy.lava.worker_process import PYTHON_VARIABLE
from tests.lava.test_equality import JOBS
from tests.support.lava_hazards import during_a_run, fault, network, prompt_s, the, traces
from tests.support.lava_networks import differences, random_jobs, simulated

__all__ = ["fault", "traces"]  # fixtures

pytestmark = [pytest.mark.lava, pytest.mark.slow, pytest.mark.timeout(1200)]

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
NEEDS = ("lava-nc==0.10.0", "numpy<2.4", "networkx<3", "scipy")


def interpreter(version):
    """Return a Python of this version: of the PATH, or one that pyenv has installed; None if there is none that runs."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *sorted(root.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        asked = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(asked, capture_output=True, text=True)
        if answer.stdout.strip() == version:
            return str(candidate)
    return None


@pytest.fixture(scope="module", params=VERSIONS)
def python(request, tmp_path_factory):
    """Return the interpreter of an environment with Lava; skip, and say so, where the version is not there."""
    python_path = interpreter(request.param)
    if python_path is None:
        pytest.skip(f"Python {request.param} is not tested: there is none on the PATH or in pyenv")
    uv = shutil.which("uv") or Path(sys.prefix) / "bin" / "uv"
    folder = os.environ.get("SPEAR_TEST_ENVIRONMENTS") or tmp_path_factory.mktemp("pythons")
    environment = Path(folder) / request.param
    made = environment / "bin" / "python"
    if not made.exists():
        for command in (
            [python_path, "-m", "venv", str(environment)],
            [str(uv), "pip", "install", "-q", "--python", str(made), *NEEDS],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                shutil.rmtree(environment, ignore_errors=True)
                pytest.skip(f"Python {request.param} is not tested: {done.stderr.strip().splitlines()[-1]}")
    return str(made)


@pytest.mark.parametrize("model", ["reference", "fast"])
def test_the_same_spikes(monkeypatch, python, model):
    monkeypatch.setenv(PYTHON_VARIABLE, python)
    jobs = [*JOBS.values(), *random_jobs(500, 6)]
    for job, run in zip(jobs, run_jobs(jobs, model=model), strict=True):
        assert not differences(run, simulated(job)), str(job.graph)


@pytest.mark.parametrize(
    ("what", "model", "cause", "message"),
    [
        ("PySendModelFixed:3:raise", "reference", "exception", "ValueError: this synapse is broken"),
        ("PyLifResetModelBitAcc:3:raise unknown", "reference", "died", "ended with exit code 1"),
        ("PyDenseModelBitAcc:init:exit", "reference", "died", "ended with exit code 3"),
        ("PyPortRecorder:3:segfault", "reference", "died", "killed by SIGSEGV"),
        ("PyNetwork:1:raise", "fast", "exception", "ValueError: this synapse is broken"),
    ],
)
def test_a_fault_ends_the_run(monkeypatch, traces, python, request, what, model, cause, message):
    monkeypatch.setenv(PYTHON_VARIABLE, python)
    set_fault, since = request.getfixturevalue("fault")
    set_fault(what)
    with pytest.raises(BackendError, match=message) as caught:
        run_lava(*network(100), model=model)
    assert since() < prompt_s()
    assert caught.value.cause == cause
    traces.assert_none()


def test_a_killed_process_ends_the_run(monkeypatch, traces, python):
    monkeypatch.setenv(PYTHON_VARIABLE, python)
    error, seconds = during_a_run(traces, lambda processes: os.kill(the(processes, 5), signal.SIGKILL))
    assert error.cause == "died" and "killed by SIGKILL" in str(error)
    assert seconds < prompt_s()
    traces.assert_none()
