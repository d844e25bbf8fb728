"""Faults of the Lava worker on demand, and checks for leftovers."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from spear_deploy.errors import BackendError
from spear_deploy.lava import worker_process
from spear_deploy.lava.run import run_lava
from spear_deploy.network import Dense, Layer, LoihiLIF
from spear_deploy.network.graph import chain


def prompt_s():
    """Return how long may pass from the fault to the caller's error: two seconds, and more on a machine that is overloaded."""
    return 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def network(steps, width=3):
    """Return a small network and an input; Lava takes about a millisecond a step."""
    neuron = LoihiLIF(decay_u=4096, decay_v=100, v_threshold=50)
    weight = np.full((3, 3), 30) if width == 3 else 30 * np.eye(width, dtype=int)
    layers = [Layer(name=name, synapse=Dense(weight=weight), neuron=neuron) for name in ("first", "last")]
    return chain(layers, input_shape=(width,)), np.ones((steps, 1, width), bool)


class Traces:
    """What the runs of one test leave: processes that carry its mark, shared memory, semaphores, temporary folders.

    Other tests, and other programs, may run Lava on the same machine at the same time.
    """

    def __init__(self, monkeypatch, folder):
        self.callers = [os.getpid()]
        self.mark = f"SPEAR_TEST_MARK={uuid.uuid4().hex}"
        self.folder = folder
        monkeypatch.setenv(*self.mark.split("="))
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)

    def shared_memory(self):
        """Return the names of the segments and semaphores that runs of our callers left in /dev/shm."""
        return [name for name in os.listdir("/dev/shm") if self.ours(name)]

    def ours(self, name):
        """Return whether a segment or semaphore carries the name of a run of ours; a run is named after its caller's number."""
        return name.removeprefix("sem.").startswith(tuple(f"spear-lava-{pid}-" for pid in self.callers))

    def mapped(self):
        """Return the names of the files in /dev/shm that our processes have in their memory, as the kernel writes them."""
        result = set()
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it ended meanwhile
                for line in Path("/proc", str(pid), "maps").read_text().splitlines():
                    result |= {line.partition("/dev/shm/")[2]} - {""}
        return result

    def processes(self):
        """Return the ids of living processes that inherited the mark, by what they run; the test itself is not one."""
        result = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if self.mark in (entry / "environ").read_text(errors="replace"):
                        result[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
                except OSError:
                    continue
        return result

    def wait_for_processes(self, number):
        end = time.monotonic() + 20
        while len(self.processes()) < number and time.monotonic() < end:
            time.sleep(0.02)
        assert len(self.processes()) >= number

    def assert_none(self, within_s=0.0):
        end = time.monotonic() + within_s
        while self.left() and time.monotonic() < end:
            time.sleep(0.02)
        assert not self.left()

    def left(self):
        return [*self.processes().values(), *self.shared_memory(), *os.listdir(self.folder)]


@pytest.fixture
def traces(monkeypatch, tmp_path):  # tmp_path: before TMPDIR changes
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Traces(monkeypatch, folder)


@pytest.fixture
def fault(monkeypatch, tmp_path):
    """Return a function that makes Lava fail, and one that tells how long ago it did."""
    python = os.environ.get(worker_process.PYTHON_VARIABLE, sys.executable)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{python}" "{Path(__file__).with_name("lava_fault.py")}" "$@"\n')
    script.chmod(0o755)
    stamp = tmp_path / "stamp"
    monkeypatch.setenv("SPEAR_TEST_STAMP", str(stamp))

    def set_fault(what):
        monkeypatch.setenv("SPEAR_TEST_FAULT", what)
        monkeypatch.setenv(worker_process.PYTHON_VARIABLE, str(script))

    return set_fault, lambda: time.time() - float(stamp.read_text())


def during_a_run(traces, act, *, timeout_s=600.0, model="reference", steps=None):
    """Run a network that takes minutes, let `act` do something to its processes, and return the error and the time since."""
    caught = []
    minutes, processes = (60_000, 10) if model == "reference" else (12_000_000, 4)
    steps = steps or minutes

    def work():
        try:
            run_lava(*network(steps), timeout_s=timeout_s, model=model)
        except BackendError as error:
            caught.append((error, time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    traces.wait_for_processes(processes)
    time.sleep(0.5)
    act(traces.processes())
    acted = time.monotonic()
    thread.join(30)
    assert caught
    return caught[0][0], caught[0][1] - acted


def the(processes, what):
    """Return the worker, or one of the processes that Lava forked off it: manager, processes, runtime service."""
    workers = sorted((pid for pid, command in processes.items() if "main.py" in command), key=_read_start)
    if what == "worker":
        return workers[0]
    return workers[int(what)]


def _read_start(pid):
    """Return when a process started, and its id; the ids of later ones are lower where the system begins again with low ones."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19]), pid
    return 0, pid
