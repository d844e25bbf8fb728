"""Devices of learning: names, absence, reduced precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

import torch

import spear_deploy as sd
from spear_deploy.cli import main
from spear_deploy.errors import DataError
from spear_deploy.network import WEIGHTED
from spear_deploy.norse.run import run_on_norse
from spear_deploy.pipeline import api
from spear_deploy.simulator import simulate
from spear_deploy.training.device import choose_device, note_device
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from tests.training.test_fit import quick, toy_data, toy_network

HAS_CUDA = torch.cuda.is_available()


def weights_of(graph):
    return np.concatenate([layer.synapse.weight.ravel() for layer in graph.layers if isinstance(layer.synapse, WEIGHTED)])


def test_auto_takes_what_is_there_and_the_processor_is_always_there():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if HAS_CUDA else "mps" if torch.backends.mps.is_available() else "cpu")
    assert note_device("cpu") == [] and "the same seed may give another plan" in note_device("cuda")[0]


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "mps:0", "", "cuda:-1"])
def test_names_that_are_no_devices_are_refused(name):
    with pytest.raises(DataError, match=f"device '{name}': expected one of cpu, cuda, mps, auto, or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "mps", *([] if HAS_CUDA else ["cuda"])])
def test_a_device_that_is_not_there_is_a_sentence(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(DataError, match=f"device '{name}': torch .+ sees .+ device.* on this machine; take 'cpu', or 'auto'"):
        choose_device(name)


NAMED = ("digits", "--chip", "loihi2", "--data", "digits")


@pytest.mark.parametrize(
    "command",
    [("prune", *NAMED, "--synops", "50%"), ("deploy", *NAMED), ("adapt", *NAMED), ("demo",)],
    ids=lambda words: words[0],
)
def test_every_verb_that_learns_refuses_a_device_that_is_not_there_before_it_writes(command, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(main, [*command, "--device", "cuda:99", "--workers", "2", "--out", str(out)])
    assert result.exit_code == 1 and "error: device 'cuda:99': torch" in result.output and not out.exists()


def test_the_network_of_the_demo_learns_on_the_device_too(tmp_path, monkeypatch):
    def note(*_, recipe, progress):
        raise DataError(f"trains on {recipe.device}")

    monkeypatch.setattr("spear_deploy.pipeline.demo.choose_device", lambda name: f"{name}:0")
    monkeypatch.setattr("spear_deploy.pipeline.demo.train", note)
    with pytest.raises(DataError, match="trains on cuda:0"):
        sd.demo(out=tmp_path / "out", device="cuda")


def test_sums_in_bfloat16_learn_and_leave_float32_weights():
    graph, data = toy_network(hidden=16), toy_data()
    exact, reduced = (fit(graph, data, replace(quick(12), precision=precision)) for precision in ("float32", "bfloat16"))
    a, b = weights_of(exact.graph), weights_of(reduced.graph)
    assert a.dtype == b.dtype == np.float32 and not np.array_equal(a, b)
    before = evaluate(graph, data.test).accuracy
    assert evaluate(reduced.graph, data.test).accuracy > before + 0.2
    assert np.array_equal(a, weights_of(fit(graph, data, quick(12)).graph))  # the processor learns in float32


@pytest.mark.skipif(not HAS_CUDA, reason="this machine has no CUDA device")
def test_a_cuda_device_learns_as_the_processor_does():
    graph, data = toy_network(hidden=16), toy_data()
    here, there = (fit(graph, data, replace(quick(12), device=device, precision="float32")) for device in ("cpu", "cuda"))
    assert abs(evaluate(here.graph, data.test).accuracy - evaluate(there.graph, data.test).accuracy) < 0.1
    assert np.abs(weights_of(here.graph) - weights_of(there.graph)).max() < 0.5
    assert evaluate(fit(graph, data, replace(quick(12), device="cuda")).graph, data.test).accuracy > 0.5


def count_inputs():
    return (np.random.default_rng(0).random((6, 3, *toy_network(hidden=16).input_shape)) < 0.4), toy_network(hidden=16)


def test_counting_on_a_device_that_is_not_there_is_a_sentence():
    x, graph = count_inputs()
    with pytest.raises(DataError, match="device 'cuda:99': torch .+ sees"):
        api.count(graph, x, device="cuda:99")
    result = CliRunner().invoke(main, ["count", "digits", "--data", "digits", "--device", "cuda:99"])
    assert result.exit_code == 1 and "error: device 'cuda:99'" in result.output


def test_torch_counts_what_the_simulator_counts():
    x, graph = count_inputs()
    ours, theirs = simulate(graph, x).counts, run_on_norse(graph, x, device="cpu").counts
    assert ours.steps == theirs.steps and ours.samples == theirs.samples
    assert all(np.abs(ours.sent[name] - theirs.sent[name]).sum() <= 1 for name in ours.sent)


@pytest.mark.skipif(not HAS_CUDA, reason="this machine has no CUDA device")
def test_a_cuda_device_counts_as_the_processor_does():
    x, graph = count_inputs()
    here, there = api.count(graph, x), api.count(graph, x, device="cuda")
    assert there.synops_total == pytest.approx(here.synops_total, rel=0.02)
