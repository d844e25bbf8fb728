"""A potential that starts elsewhere than at the leak, as that of Rockpool's neurons with a bias does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spear_deploy.adaptation.neurons import change_reset, convert_neuron
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.pynn.document import write_pynn
from spear_deploy.interchange.pynn.reader import read_pynn, run_populations
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LIF, CubaLIF, Dense, Layer, find_start
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.norse.network import to_norse
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate

STEPS, DT_S = 30, 1e-3
BIAS = np.array([0.25, 0.125, -0.125, 0.5])


def biased_network(*, model: type = LIF, start: Any = 0.0) -> tuple[SNNGraph, Any]:
    """Return a layer whose neurons leak by a quarter of the way towards 4 · bias, and its input."""
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"tau_s": np.asarray(4 * DT_S), "r": np.asarray(4.0)}
    if model is CubaLIF:
        options = {
            "tau_mem_s": np.asarray(4 * DT_S),
            "tau_syn_s": np.asarray(2 * DT_S),
            "w_in": np.asarray(2.0),
            "r": options["r"],
        }
    options |= {"v_leak": 4 * BIAS, "v_init": None if start is None else np.asarray(start), "reset": "subtract"}
    layers = [Layer(name="a", synapse=Dense(weight=rng.integers(0, 32, (4, 3)) / 64), neuron=model(**options))]
    return chain(layers, input_shape=(3,), dt_s=DT_S), rng.random((STEPS, 2, 3)) < 0.5


def test_the_simulator_and_norse_start_there_as_a_loop_does() -> None:
    graph, x = biased_network()
    weight, v, sent = graph["a"].synapse.weight, np.zeros((2, 4)), []  # type: ignore[union-attr]
    for step in x:
        v = 0.75 * v + step @ weight.T + BIAS
        sent.append(v > 1)
        v = v - sent[-1]
    np.testing.assert_array_equal(simulate(graph, x).output, sent)
    network = to_norse(graph)
    learnt = network(torch.from_numpy(x.astype(np.float32)))
    with torch.no_grad():
        fast = network(torch.from_numpy(x.astype(np.float32)))
    np.testing.assert_array_equal(learnt.detach().numpy() > 0, sent)
    np.testing.assert_array_equal(fast.numpy() > 0, sent)
    assert (simulate(biased_network(start=None)[0], x).output != sent).any()  # from v_leak


@pytest.mark.parametrize("ending", ["snn", "nir", "onnx"])
@pytest.mark.parametrize("model", [LIF, CubaLIF])
def test_files_carry_the_start(model: type, ending: str, tmp_path: Path) -> None:
    graph, x = biased_network(model=model, start=0.5)
    path = tmp_path / f"net.{ending}"
    if ending == "snn":
        write_snn(graph, path)
        assert read_snn(path).layers == graph.layers
        return
    certificate = api.export(graph, path, to=ending, x=x)  # type: ignore[arg-type]
    assert certificate["mismatches"] == 0 and simulate(graph, x).output.any()
    if ending == "nir":
        assert find_start(read_nir(path).layers[-1].neuron) == 0.5


def test_a_network_that_starts_at_the_leak_is_stored_as_before(tmp_path: Path) -> None:
    write_snn(biased_network(start=None)[0], tmp_path / "net.snn")
    assert b"v_init" not in (tmp_path / "net.snn").read_bytes()


def test_rockpools_importer_gets_the_bias_and_ours_reads_it_back(tmp_path: Path) -> None:
    graph, x = biased_network(model=CubaLIF)
    keep = np.exp(-DT_S / np.array([0.004, 0.002]))
    neuron = CubaLIF(
        tau_mem_s=DT_S / (1 - keep[0]), tau_syn_s=DT_S / (1 - keep[1]), r=1 / (1 - keep[0]), w_in=keep[1] / (1 - keep[1]),
        v_leak=BIAS / (1 - keep[0]), v_init=np.zeros(()), reset="subtract",
    )  # fmt: skip
    graph = graph.with_layers({"a": Layer(name="a", synapse=graph["a"].synapse, neuron=neuron)})
    write_dialect(graph, tmp_path / "net.nir", framework="rockpool")
    back = read_nir(tmp_path / "net.nir")
    np.testing.assert_array_equal(simulate(back, x).output, simulate(graph, x).output)
    with pytest.raises(UnsupportedError, match="its potential starts at .*, that of Rockpool's neurons at 0; let it start there"):
        write_dialect(biased_network(model=CubaLIF, start=None)[0], tmp_path / "other.nir", framework="rockpool")


def test_pynn_starts_there(tmp_path: Path) -> None:
    graph, x = biased_network()
    neuron = LIF(tau_s=np.asarray(4 * DT_S), v_leak=BIAS, v_init=np.zeros(()))
    graph = graph.with_layers({"a": Layer(name="a", synapse=graph["a"].synapse, neuron=neuron)})
    write_pynn(graph, tmp_path / "net.npz")
    description, arrays = read_pynn(tmp_path / "net.npz")
    assert [row["source"] for row in description["projections"]].count("start") == 1
    np.testing.assert_array_equal(run_populations(description, arrays, x)["a"], simulate(graph, x).output)


def test_integers_start_there() -> None:
    graph, _ = biased_network(model=CubaLIF)
    assert not quantize(graph, format="loihi")["a"].neuron.v_init.any()  # type: ignore[union-attr]
    assert quantize(biased_network(model=CubaLIF, start=None)[0], format="loihi")["a"].neuron.v_init.any()  # type: ignore[union-attr]
    starts = {}
    for start in (0.0, None):
        findings = quantize(biased_network(model=CubaLIF, start=start)[0], format="xylo").metadata["quantization"]["findings"]
        starts[start] = [row for row in findings if row["what"] == "start"]
    assert not starts[0.0] and starts[None]


def test_other_models_and_resets_keep_it() -> None:
    neuron = biased_network(start=0.5)[0]["a"].neuron
    profile = load_profile("loihi2")
    assert find_start(convert_neuron(neuron, model=CubaLIF, dt_s=DT_S, profile=profile)) == 0.5
    assert convert_neuron(neuron, model=IF, dt_s=DT_S, profile=profile).v_reset == 0
    moved = change_reset(LIF(tau_s=np.asarray(DT_S), v_reset=np.asarray(0.25), v_init=np.asarray(0.5)), "subtract")
    assert moved.v_init == 0.25
