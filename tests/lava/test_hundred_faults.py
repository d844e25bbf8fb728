"""141 faults in Lava runs: no hang, no rest, the cause named.

An exception, one that cannot be pickled, a silent exit or a crash, in each of Lava's processes, while it is built or in a step;
and each process of a run killed or stopped from outside. Reference model and fast model.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from spear_deploy.errors import BackendError
from spear_deploy.lava.run import run_lava
from tests.support.lava_hazards import during_a_run, fault, network, prompt_s, the, traces

__all__ = ["fault", "traces"]  # fixtures

pytestmark = [pytest.mark.lava, pytest.mark.slow, pytest.mark.timeout(600)]

WHAT = {
    "raise": ("exception", "ValueError: this synapse is broken"),
    "raise unknown": ("died", "ended with exit code 1"),
    "exit": ("died", "ended with exit code 3"),
    "sys.exit": ("died", "ended with exit code 4"),
    "sys.exit 0": ("died", "ended with exit code 0"),
    "segfault": ("died", "killed by SIGSEGV"),
}
MODELS = {
    "PySendModelFixed": "reference",
    "PyDenseModelBitAcc": "reference",
    "PyLifResetModelBitAcc": "reference",
    "PyPortRecorder": "reference",
    "PyNetwork": "fast",
}
STEPS = {"reference": ("init", "1", "3", "60"), "fast": ("init", "1", "3", "7")}
FAULTS = [(actor, step, what) for actor, model in MODELS.items() for step in STEPS[model] for what in WHAT]


def test_the_lists_have_141_faults():
    assert len(FAULTS) + len(KILLED) + len(HANGS) == 120 + 16 + 5


@pytest.mark.parametrize(("actor", "step", "what"), FAULTS)
def test_a_fault_inside_is_named_within_two_seconds(traces, fault, actor, step, what):
    set_fault, since = fault
    set_fault(f"{actor}:{step}:{what}")
    model, (cause, message) = MODELS[actor], WHAT[what]
    with pytest.raises(BackendError, match=message) as caught:
        run_lava(*network(100 if model == "reference" else 1000), model=model, timeout_s=100)
    assert since() < prompt_s()
    assert caught.value.cause == cause
    traces.assert_none()


KILLED = [("reference", which) for which in ("worker", *range(1, 10))] + [("fast", which) for which in ("worker", *range(1, 4))]
KILLED += [("reference", "all"), ("fast", "all")]
"""Processes of a run by the order of their start: the worker, the manager of shared memory, Lava's processes, its service."""


@pytest.mark.parametrize(("model", "which"), KILLED)
def test_a_killed_process_is_named_within_two_seconds(traces, model, which):
    def act(processes):
        for pid in sorted(processes, reverse=True) if which == "all" else [the(processes, which)]:
            os.kill(pid, signal.SIGKILL)

    error, seconds = during_a_run(traces, act, model=model)
    assert error.cause == "died" and "SIGKILL" in str(error)
    assert seconds < prompt_s()
    traces.assert_none()


HANGS = [(actor, what) for actor in ("PyDenseModelBitAcc", "PyNetwork") for what in ("spin", "sleep")] + [("stopped", "")]


@pytest.mark.parametrize(("actor", "what"), HANGS)
def test_a_hang_ends_at_the_time_limit(traces, fault, actor, what):
    begin, limit_s = time.monotonic(), 15
    if actor == "stopped":
        stop = lambda processes: os.kill(the(processes, 5), signal.SIGSTOP)  # noqa: E731
        error, _ = during_a_run(traces, stop, timeout_s=limit_s, steps=5_000)
    else:
        fault[0](f"{actor}:3:{what}")
        with pytest.raises(BackendError) as caught:
            model = MODELS[actor]
            run_lava(*network(100 if model == "reference" else 1000), model=model, timeout_s=limit_s)
        error = caught.value
    assert time.monotonic() - begin < limit_s + prompt_s()
    assert error.cause == "timeout" and f"not done after {limit_s} s" in str(error)
    traces.assert_none()
