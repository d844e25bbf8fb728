"""Threads: a small network gives the same numbers with any number of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("threadpoolctl")
pytest.importorskip("torch")

import threadpoolctl
import torch

from spear_deploy.training import threads
from spear_deploy.training.threads import limit_threads
from tests.training.test_fit import toy_network

PRINT_HINTS = """
import hashlib
import spear_deploy as sd
from spear_deploy.data import load_data
from spear_deploy.training.losses import score_outputs
print(hashlib.sha256(score_outputs(sd.load("digits"), load_data("digits").train).tobytes()).hexdigest())
"""


PRINT_THREADS = """
import spear_deploy as sd
from spear_deploy.pruning import prune_to_budget as module
from spear_deploy.pruning.settings import PruneSettings
def stop(*_):
    import torch
    print(torch.get_num_threads())
    raise SystemExit(0)
module.BudgetMonitor = stop
module.prune_to_budget(sd.load("digits"), None, PruneSettings(synops="50%"))
"""


def count_blas_threads():
    """Threads of numpy's linear algebra; scipy, which another test may have loaded, brings one of its own."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    own = [pool for pool in pools if "numpy" in pool["filepath"]]
    return {pool["num_threads"] for pool in own or pools}


@pytest.mark.slow
def test_the_outputs_of_a_teacher_do_not_depend_on_the_number_of_threads():
    found = set()
    for number in ("1", "2"):  # with these, products of numpy differ in the last digits
        env = {**os.environ, "OPENBLAS_NUM_THREADS": number, "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
        done = subprocess.run([sys.executable, "-c", PRINT_HINTS], env=env, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_a_small_network_has_one_thread_and_gives_back_the_others():
    graph = toy_network(hidden=16)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            outside = count_blas_threads()
            with limit_threads(graph):
                assert count_blas_threads() == {1} and torch.get_num_threads() == 1
            assert count_blas_threads() == outside and torch.get_num_threads() == 2
            with pytest.raises(ValueError, match="stop"), limit_threads(graph):
                raise ValueError("stop")
            assert count_blas_threads() == outside and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_pruning_has_one_thread_of_torch_though_nothing_has_loaded_it_before():
    """As where a deployment is resumed: its search measured with all threads, that of a run without interruption with one."""
    env = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", PRINT_THREADS], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_large_network_keeps_its_threads(monkeypatch):
    graph = toy_network(hidden=16)
    monkeypatch.setattr(threads, "SMALL_NEURONS", graph.neurons)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with limit_threads(graph):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
