"""Lower bound of v of an IF neuron: the property in the simulator, in Norse, in files, in pruning and in integers."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.norse.network import to_norse
from spear_deploy.pipeline import api
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate

STEPS = 40


def random_network(seed: int, bound: float | None = None, *, whole: bool = False) -> tuple[SNNGraph, Any]:
    """Return two dense layers of IF neurons whose weights inhibit as often as they excite, and their input."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 9, 3)
    layers = []
    for n, (a, b) in enumerate(itertools.pairwise(sizes)):
        weight = rng.integers(-64, 65, (b, a)) / 64  # sums of them round nowhere
        threshold = np.float32(1.0) if seed % 3 else rng.integers(32, 96, b).astype(np.float32) / 64
        v_min = None if bound is None else bound * threshold
        if whole:
            weight, threshold, v_min = weight * 64, np.float32(64), None if bound is None else np.float32(64 * bound)
        neuron = IF(v_threshold=threshold, v_min=v_min, reset="value" if seed % 2 else "subtract")
        layers.append(Layer(name=f"n{n}", synapse=Dense(weight=weight), neuron=neuron))
    x = rng.random((STEPS, 3, sizes[0])) < 0.4
    return chain(layers, input_shape=(int(sizes[0]),)), x


def loop_over_time(graph: SNNGraph, x: Any) -> Any:
    """Return the output spikes by the equations as they stand in the docstring, one neuron at a time."""
    result = np.zeros((len(x), x.shape[1], *graph.shape_of("n1")), bool)
    for sample in range(x.shape[1]):
        potentials: dict[tuple[str, int], float] = {}
        for t in range(len(x)):
            before = x[t, sample].astype(float)
            for name in ("n0", "n1"):
                neuron: Any = graph[name].neuron
                after = np.zeros(graph.shape_of(name))
                for k, drive in enumerate(graph[name].synapse.weight @ before):  # type: ignore[union-attr]
                    threshold, v_min = (float(np.broadcast_to(a, after.shape)[k]) for a in (neuron.v_threshold, neuron.v_min))
                    v = max(potentials.get((name, k), 0.0) + drive, v_min)
                    if v > threshold:
                        after[k] = 1
                        v = v - threshold if neuron.reset == "subtract" else 0.0
                    potentials[name, k] = v
                before = after
            result[t, sample] = before
    return result


@pytest.mark.parametrize("seed", range(8))
def test_the_simulator_and_norse_bound_v_as_a_loop_over_the_equation_does(seed: int) -> None:
    graph, x = random_network(seed, -1.0)
    truth = loop_over_time(graph, x)
    np.testing.assert_array_equal(simulate(graph, x).output, truth)
    network = to_norse(graph)
    with torch.no_grad():
        fast = network(torch.from_numpy(x.astype(np.float32))).numpy()
    slow = network(torch.from_numpy(x.astype(np.float32))).detach().numpy()  # with a gradient: Norse's cells
    np.testing.assert_array_equal(fast, truth)
    np.testing.assert_array_equal(slow, truth)


def test_the_bound_changes_spikes_and_the_lowest_potential() -> None:
    graph, x = random_network(1, -1.0)
    free, _ = random_network(1)
    bounded, unbounded = (simulate(net, x, record=("v",)) for net in (graph, free))
    assert bounded.v["n0"].min() == -1.0 and unbounded.v["n0"].min() < -1.0
    assert (bounded.output != unbounded.output).any()


def test_a_gradient_passes_where_v_lies_above_the_bound() -> None:
    graph, x = random_network(1, -1.0)
    network = to_norse(graph)
    network(torch.from_numpy(x.astype(np.float32))).sum().backward()
    grads = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert len(grads) == 2 and all(torch.isfinite(grad).all() for grad in grads) and any(grad.any() for grad in grads)


@pytest.mark.parametrize("ending", ["snn", "nir", "onnx"])
@pytest.mark.parametrize("seed", range(3))
def test_files_carry_the_bound(ending: str, seed: int, tmp_path: Path) -> None:
    graph, x = random_network(seed, -0.5)
    path = tmp_path / f"net.{ending}"
    if ending == "snn":
        write_snn(graph, path)
        assert read_snn(path).layers == graph.layers
        return
    certificate = api.export(graph, path, to=ending, x=x)  # type: ignore[arg-type]
    assert (certificate["mismatches"], certificate["ties"]) == (0, 0) and simulate(graph, x).output.any()
    if ending == "nir":
        back = read_nir(path)
        assert [layer.neuron.v_min for layer in back.layers if layer.neuron is not None] == [  # type: ignore[union-attr]
            pytest.approx(layer.neuron.v_min)  # type: ignore[union-attr]
            for layer in graph.layers
        ]


def test_a_network_without_a_bound_is_stored_as_before(tmp_path: Path) -> None:
    """Files of earlier releases have no such field; files without a bound stay readable by them."""
    graph, _ = random_network(0)
    write_snn(graph, tmp_path / "net.snn")
    assert b"v_min" not in (tmp_path / "net.snn").read_bytes()
    assert read_snn(tmp_path / "net.snn").layers[0].neuron.v_min is None  # type: ignore[union-attr]


def test_a_pruned_network_keeps_the_bounds_of_its_channels() -> None:
    graph, x = random_network(0, -1.0)  # thresholds, and so bounds, differ by neuron
    kept = (0, 2)
    pruned = prune(graph, PruningPlan(kept={"n0": kept}))
    neuron: Any = pruned["n0"].neuron
    np.testing.assert_array_equal(neuron.v_min, graph["n0"].neuron.v_min[list(kept)])  # type: ignore[union-attr]
    masked = np.zeros_like(graph["n1"].synapse.weight)  # type: ignore[union-attr]
    masked[:, list(kept)] = graph["n1"].synapse.weight[:, list(kept)]  # type: ignore[union-attr]
    other = graph.with_layers({"n0": graph["n0"], "n1": replace(graph["n1"], synapse=Dense(weight=masked))})
    np.testing.assert_array_equal(simulate(pruned, x).output, simulate(other, x).output)


@pytest.mark.parametrize(("bound", "stored"), [(None, -1.0), (-1.0, -1.0), (-0.25, -0.25), (-2.0, -2.0), (0.0, 0.0)])
def test_speck_takes_the_bound_of_the_network_and_minus_the_threshold_without_one(bound: float | None, stored: float) -> None:
    graph, _ = random_network(1, bound, whole=True)
    for layer in quantize(graph, format="speck").layers:
        neuron: Any = layer.neuron
        assert int(neuron.v_min) == pytest.approx(stored * int(neuron.v_threshold), abs=2)
        assert bound is not None or neuron.v_min == -neuron.v_threshold


def test_speck_s_integers_spike_as_the_network_with_the_same_bound() -> None:
    """Whole weights, of which no sum reaches two thresholds: with the bound no spike differs, without it some do."""
    differ: dict[float | None, int] = {}
    for bound in (-1.0, -0.5, None):
        differ[bound] = 0
        for seed in range(6):
            rng = np.random.default_rng(seed)
            neuron = IF(v_threshold=np.float32(63.5), v_min=None if bound is None else np.float32(63.5 * bound))
            layers = [Layer(name=name, synapse=Dense(weight=rng.integers(-15, 16, (4, 4))), neuron=neuron) for name in "ab"]
            graph, x = chain(layers, input_shape=(4,)), rng.random((300, 2, 4)) < 0.8
            x[:, :, :2] &= (np.arange(300) // 30 % 2 == 0)[:, None, None]  # so that a neuron is inhibited, then excited
            ours, trained = (simulate(net, x, record=("spikes",)) for net in (quantize(graph, format="speck"), graph))
            differ[bound] += sum(int((ours.spikes[name] != trained.spikes[name]).sum()) for name in "ab")
    assert differ[-1.0] == differ[-0.5] == 0 and differ[None] > 0


def test_a_layer_with_different_bounds_takes_the_lowest_and_reports_the_others() -> None:
    weight = np.array([[100.0, -50.0], [-100.0, 50.0]])
    neuron = IF(v_threshold=np.array(100.0), v_min=np.array([-100.0, -20.0]), reset="subtract")
    integer = quantize(chain([Layer(name="a", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(2,)), format="speck")
    stored: Any = integer["a"].neuron
    (finding,) = integer.metadata["quantization"]["findings"]
    assert -int(stored.v_min) in (int(stored.v_threshold), int(stored.v_threshold) - 1)
    assert (finding["what"], finding["given"], finding["stored"]) == ("v_min", -20.0, pytest.approx(-100, rel=0.02))


def test_loihi_s_integers_leave_the_bound_out_and_say_so() -> None:
    graph, _ = random_network(1, -1.0)
    integer = quantize(graph, format="loihi")
    findings = integer.metadata["quantization"]["findings"]
    assert [(row["layer"], row["what"], row["given"]) for row in findings] == [("n0", "v_min", -1.0), ("n1", "v_min", -1.0)]
    assert all(row["stored"] < -100 for row in findings)
    note = "lower bound: 'n0' and 'n1' keep v at or above v_min, the integers for loihi2 do not; "
    for net in (graph, integer):
        assert any(line.startswith(note) for line in check(net, load_profile("loihi2")).notes)
    assert not any(line.startswith("lower bound") for line in check(random_network(1)[0], load_profile("loihi2")).notes)
    assert not any(line.startswith("lower bound") for line in check(graph, load_profile("speck2f")).notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"v_min": 0.5, "reset": "subtract"}, r"IF.v_min: 0.5 given, expected at most 0, where v starts or lies after a spike"),
        ({"v_min": -1.0, "v_reset": -2.0}, r"IF.v_min: -1 given, expected at most -2, where v starts"),
        ({"v_min": np.nan}, r"IF.v_min: holds NaN or infinite values"),
    ],
)
def test_bounds_above_the_start_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        IF(**values)
