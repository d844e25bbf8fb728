"""Several spikes of a neuron in one step: in the simulator, in Norse, in files, on chips, in replacements and in counts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spear_deploy.adaptation.neurons import convert_neuron, find_several_spikes
from spear_deploy.budget.check import check
from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.interchange.nir.reader import read_nir
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.onnx.model_file import run_onnx, write_onnx
from spear_deploy.interchange.pynn.document import write_pynn
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LI, LIF, CubaLIF, Dense, Layer, find_max_spikes
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.norse.network import to_norse
from spear_deploy.norse.run import run_on_norse
from spear_deploy.pipeline import api
from spear_deploy.pruning.plan import PruningPlan, prune
from spear_deploy.quantize import quantize
from spear_deploy.quantize.explain import explain
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops

STEPS, DT_S = 30, 1e-3


def random_network(seed: int, most: int | None = None, *, model: type = IF) -> tuple[SNNGraph, Any]:
    """Return two dense layers with weights in 64ths and thresholds in 16ths, and their input, some of it several spikes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 8, 3)
    layers = []
    for n, (a, b) in enumerate(itertools.pairwise(sizes)):
        weight = rng.integers(-48, 97, (b, a)) / 64
        options: dict[str, Any] = {"v_threshold": rng.integers(4, 20, b) / 16, "max_spikes": most}
        options["reset"] = ("subtract", "value", "none")[seed % 3]
        if model is LIF:
            options |= {"tau_s": np.asarray(4 * DT_S), "r": np.asarray(4.0)}  # an input counts in full
        elif model is CubaLIF:
            options |= {"tau_mem_s": np.asarray(4 * DT_S), "tau_syn_s": np.asarray(2 * DT_S), "w_in": np.asarray(2.0)}
        layers.append(Layer(name=f"n{n}", synapse=Dense(weight=weight), neuron=model(**options)))
    return chain(layers, input_shape=(int(sizes[0]),), dt_s=DT_S), rng.integers(0, 3, (STEPS, 2, sizes[0]))


def loop_over_time(graph: SNNGraph, x: Any) -> Any:
    """Return the spikes of the last layer by the rule as it stands in the docstring, one neuron and one threshold at a time."""
    result = np.zeros((len(x), x.shape[1], *graph.shape_of("n1")), int)
    for sample in range(x.shape[1]):
        v = {name: np.zeros(graph.shape_of(name)) for name in ("n0", "n1")}
        for t in range(len(x)):
            sent = x[t, sample].astype(float)
            for name in ("n0", "n1"):
                neuron: Any = graph[name].neuron
                drive, after = graph[name].synapse.weight @ sent, np.zeros(graph.shape_of(name))  # type: ignore[union-attr]
                for k in range(len(after)):
                    potential = v[name][k] + drive[k] if isinstance(neuron, IF) else 0.75 * v[name][k] + drive[k]
                    while potential > (after[k] + 1) * neuron.v_threshold[k] and after[k] != neuron.max_spikes:
                        after[k] += 1
                    if after[k]:
                        left = {"subtract": potential - after[k] * neuron.v_threshold[k], "value": 0.0, "none": potential}
                        potential = left[neuron.reset]
                    v[name][k] = potential
                sent = after
            result[t, sample] = sent
    return result


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("model", [IF, LIF])
@pytest.mark.parametrize("seed", range(3))
def test_the_simulator_counts_as_a_loop_over_the_thresholds_does(seed: int, model: type, most: int | None) -> None:
    graph, x = random_network(seed, most, model=model)
    run = simulate(graph, x, dtype=np.float64)
    np.testing.assert_array_equal(run.output, loop_over_time(graph, x))
    assert run.output.dtype == np.int64 and run.output.max() == (most or run.output.max()) > 1


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("model", [IF, LIF, CubaLIF])
@pytest.mark.parametrize("seed", range(3))
def test_norse_counts_alike_with_and_without_a_gradient(seed: int, model: type, most: int | None) -> None:
    graph, x = random_network(seed, most, model=model)
    ours = simulate(graph, x, record=("spikes",))
    theirs = run_on_norse(graph, x, record=("spikes",))
    learnt = to_norse(graph)(torch.from_numpy(x.astype(np.float32)))
    for name in ("n0", "n1"):
        np.testing.assert_array_equal(ours.spikes[name], theirs.spikes[name])
        np.testing.assert_array_equal(ours.counts.sent[name], theirs.counts.sent[name])
    np.testing.assert_array_equal(learnt.detach().numpy(), ours.output)
    learnt.sum().backward()


@pytest.mark.parametrize("reset", ["subtract", "value", "none"])
def test_millions_of_spikes_are_counted_and_subtracted_in_float32(reset: str, tmp_path: Path) -> None:
    """float32 holds no product of the threshold 0.875 and a large count: the one rounding is the same in every run."""
    weight = np.array([[3606835.5], [412087.5], [2e6], [-7.5]])
    neuron = IF(v_threshold=0.875, reset=reset, max_spikes=None)
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(1,))
    x = np.ones((8, 1, 1), bool)
    ours, theirs = simulate(graph, x, record=("spikes", "v")), run_on_norse(graph, x, record=("spikes",))
    v, sent, threshold = np.zeros(4, np.float32), [], np.float32(0.875)
    for _ in range(8):
        v = v + weight[:, 0].astype(np.float32)
        nearest = np.minimum(np.maximum(np.rint(v / threshold), np.float32(1)), np.float32(2**24))
        count = nearest - (v <= nearest * threshold).astype(np.float32)
        sent.append(count)
        lowered = v - count * threshold
        v = {"subtract": lowered, "value": np.where(count > 0, np.float32(0), v), "none": v}[reset]
        assert v.dtype == np.float32
    np.testing.assert_array_equal(ours.spikes["a"][:, 0], sent)
    np.testing.assert_array_equal(ours.v["a"][-1, 0], v)
    np.testing.assert_array_equal(theirs.spikes["a"], ours.spikes["a"])
    certificate = api.export(graph, tmp_path / "a.onnx", to="onnx", x=x)
    assert certificate["mismatches"] == 0 and certificate["layers"][0]["largest_bound"] == 0


@pytest.mark.parametrize("reset", ["subtract", "value", "none"])
def test_onnx_sends_no_spike_where_a_runaway_potential_is_undefined(reset: str, tmp_path: Path) -> None:
    weight = np.array([[3e38, -3e38]])
    neuron = IF(v_threshold=0.875, reset=reset, max_spikes=None)
    graph = chain([Layer(name="a", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(2,))
    x = np.repeat([[2, 0], [0, 2], [2, 0]], 3, axis=0)[:, None].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        run = simulate(graph, x, kind="current", record=("spikes", "v"))
    assert np.isnan(run.v["a"]).any() and run.output.max() == 2**24
    write_onnx(graph, tmp_path / "a.onnx")
    np.testing.assert_array_equal(run_onnx(tmp_path / "a.onnx", x)["a.spikes"], run.spikes["a"])


def test_the_gradient_is_that_of_one_spike_at_each_threshold() -> None:
    """`v` comes from one weight; the gradient by it repeats with the threshold, and is one spike's up to the first."""

    def gradient(v: float, most: int | None) -> float:
        neuron = IF(v_threshold=np.asarray(0.5), reset="subtract", max_spikes=most)
        network = to_norse(chain([Layer(name="a", synapse=Dense(weight=np.array([[v]])), neuron=neuron)], input_shape=(1,)))
        network(torch.ones(1, 1, 1)).sum().backward()
        return float(next(network.parameters()).grad)  # type: ignore[arg-type]

    for v in (0.3, 0.45, 0.55, 0.7):
        assert gradient(v, None) == gradient(v, 1) > 0
        assert gradient(v + 2.0, None) == pytest.approx(gradient(v, 1), rel=1e-5)
    assert gradient(2.3, 2) < gradient(2.3, None)


def test_a_spike_of_n_is_n_synaptic_operations() -> None:
    neuron = IF(reset="subtract", max_spikes=None)
    layers = [
        Layer(name="a", synapse=Dense(weight=np.array([[3.5]])), neuron=neuron),
        Layer(name="b", synapse=Dense(weight=np.ones((4, 1))), neuron=LI(tau_s=np.asarray(DT_S))),
    ]
    graph, x = chain(layers, input_shape=(1,)), np.ones((1, 1, 1), bool)
    run = simulate(graph, x)
    assert run.counts.sent["a"].tolist() == [3] and run.output.ravel().tolist() == [3.0] * 4
    assert count_synops(graph, run.counts).per_layer == {"a": 1.0, "b": 12.0}


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("ending", ["snn", "nir", "onnx"])
@pytest.mark.parametrize("model", [IF, LIF])
def test_files_carry_the_number(model: type, ending: str, most: int | None, tmp_path: Path) -> None:
    for seed in range(3):
        graph, x = random_network(seed, most, model=model)
        path = tmp_path / f"net{seed}.{ending}"
        if ending == "snn":
            write_snn(graph, path)
            assert read_snn(path).layers == graph.layers
            continue
        certificate = api.export(graph, path, to=ending, x=x)  # type: ignore[arg-type]
        assert certificate["mismatches"] == 0 and simulate(graph, x).output.max() > 1
        if ending == "nir":
            assert [find_max_spikes(layer.neuron) for layer in read_nir(path).layers] == [most, most]


def test_a_network_of_single_spikes_is_stored_as_before(tmp_path: Path) -> None:
    """Files of earlier releases have no such field; files without it stay readable by them."""
    write_snn(random_network(0, 1)[0], tmp_path / "net.snn")
    assert b"max_spikes" not in (tmp_path / "net.snn").read_bytes()
    assert find_max_spikes(read_snn(tmp_path / "net.snn").layers[0].neuron) == 1


def test_a_pruned_network_sends_several_too() -> None:
    graph, x = random_network(0)
    pruned = prune(graph, PruningPlan(kept={"n0": (0, 1)}))
    assert pruned["n0"].neuron.max_spikes is None and simulate(pruned, x).output.max() > 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("framework", "message"),
    [("snntorch", "several spikes in a step, snnTorch's neurons one"), ("spikingjelly", "SpikingJelly's"), ("norse", "Norse's")],
)
def test_importers_of_neurons_with_one_spike_are_refused(framework: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=message):
        write_dialect(random_network(1)[0], tmp_path / "net.nir", framework=framework)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("framework", "most", "statement"),
    [
        ("sinabs", None, ""), ("sinabs", 3, "spike_fn = MaxSpike(3)"), ("sinabs", 1, "spike_fn = SingleSpike"),
        ("rockpool", None, ""), ("rockpool", 3, "max_spikes_per_dt = m.max_spikes_per_dt.new_tensor(3)"),
    ],
)  # fmt: skip
def test_importers_of_neurons_with_several_spikes_are_told_the_number(
    framework: str, most: int | None, statement: str, tmp_path: Path
) -> None:
    graph, _ = random_network(0, most, model=IF if framework == "sinabs" else CubaLIF)
    statements = "\n".join(write_dialect(graph, tmp_path / "net.nir", framework=framework).statements)
    assert statement in statements and ("spike_fn" in statements or "max_spikes" in statements) == bool(statement)
    assert [find_max_spikes(layer.neuron) for layer in read_nir(tmp_path / "net.nir").layers if layer.spikes] == [most, most]


def test_pynn_is_refused(tmp_path: Path) -> None:
    graph, _ = random_network(1, model=LIF)  # reset to a value
    with pytest.raises(UnsupportedError, match="layer 'n0': sends several spikes in a step, sPyNNaker's neurons one"):
        write_pynn(graph, tmp_path / "net.npz")


def test_a_damaged_number_in_a_file_is_refused(tmp_path: Path) -> None:
    import h5py

    write_nir(random_network(0, 3)[0], tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        places: list[str] = []
        file.visit(lambda name: places.append(name) if name.endswith("metadata/max_spikes") else None)
        file[places[0]][...] = -2
    with pytest.raises(GraphError, match="max_spikes is -2, expected a whole number from 0; export it again"):
        read_nir(tmp_path / "net.nir")


# ------------------------------------------------------------------------------------------------------------- chips


def test_integers_of_speck_send_as_many_and_report_nothing() -> None:
    """Whole weights and thresholds: the chip's integers are the network, spike for spike."""
    rng = np.random.default_rng(0)
    below = np.nextafter(np.float32(100), np.float32(0))  # the chip's neurons spike where v reaches 100
    neuron = IF(v_threshold=below, v_min=-below, reset="subtract", max_spikes=None)
    weight = rng.integers(-60, 128, (2, 5, 5))
    layers = [Layer(name=name, synapse=Dense(weight=w), neuron=neuron) for name, w in zip("ab", weight, strict=True)]
    graph = chain(layers, input_shape=(5,))
    x = rng.random((STEPS, 3, 5)) < 0.7
    integer = quantize(graph, format="speck", calibration=x)
    ours, theirs = (simulate(net, x, record=("spikes",)) for net in (graph, integer))
    assert theirs.spikes["b"].max() > 1
    assert not any(row["what"] in ("max_spikes", "spikes_per_step") for row in integer.metadata["quantization"]["findings"])
    for name in "ab":
        np.testing.assert_array_equal(ours.spikes[name], theirs.spikes[name])


@pytest.mark.parametrize(("chip", "by"), [("loihi2", "one spike"), ("truenorth", "one spike")])
def test_a_chip_of_single_spikes_says_so_and_explain_measures_it(chip: str, by: str) -> None:
    graph, x = random_network(0)
    x, profile = np.minimum(x, 1), load_profile(chip)
    note = f"spikes per step: 'n0' and 'n1' may send several spikes in a step, {chip} sends {by}, which changes spikes; "
    report = check(graph, profile)
    assert any(line.startswith(note) for line in report.notes)
    headline = report.headline
    assert "fewer spikes in a step of 2 layers than trained" in headline and "one step earlier" not in headline
    assert [row.status for row in report.rows if row.resource == "max_spikes_per_step"] == ["ok", "ok"]
    integer = quantize(graph, format="loihi" if chip == "loihi2" else chip, calibration=x)
    rows = [row for row in integer.metadata["quantization"]["findings"] if row["what"] == "max_spikes"]
    assert [(row["layer"], row["given"], row["stored"]) for row in rows] == [("n0", None, 1), ("n1", None, 1)]
    assert any(line.startswith(note) for line in check(integer, profile).notes)
    explanation = explain(graph, integer, x)
    (cost,) = [cost for cost in explanation.costs if cost.step == "max_spikes"]
    assert cost.changed and cost.first.keys() == {"n0", "n1"}
    texts = [finding.text for finding in explanation.findings if finding.code == "fewer_spikes"]
    assert len(texts) == 2 and "any number of spikes in a step, the chip at most 1; train with" in texts[0]


def test_a_chip_of_many_spikes_says_nothing() -> None:
    graph, _ = random_network(0)
    assert not any(line.startswith("spikes per step") for line in check(graph, load_profile("speck2f")).notes)
    (replacement,) = find_several_spikes(random_network(0, 40, model=CubaLIF)[0], load_profile("xylo_audio2"))
    assert (replacement.what, replacement.by) == ("several spikes in a step", "up to 31 spikes in a step")


def test_an_adapted_network_sends_as_many_as_the_chip() -> None:
    graph, x = random_network(0)
    (replacement,) = find_several_spikes(graph, load_profile("truenorth"))
    assert (replacement.layers, replacement.by) == (("n0", "n1"), "one spike in a step")
    assert simulate(replacement.rewrite(graph), x).output.dtype == bool
    assert not list(find_several_spikes(graph, load_profile("speck2f")))
    kept = convert_neuron(graph["n0"].neuron, model=LIF, dt_s=DT_S, profile=load_profile("loihi2"))
    assert kept.max_spikes is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_spikes": 0}, r"LIF.max_spikes: 0 given, expected a whole number from 1, or None for no limit"),
        ({"max_spikes": None, "v_threshold": 0.0}, r"LIF.v_threshold: 0 given, several spikes a step take one above 0"),
        ({"max_spikes": 2, "reset": "subtract", "reset_delay": 1}, r"LIF.reset_delay: 1 is for one spike a step"),
    ],
)
def test_numbers_that_no_neuron_has_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        LIF(tau_s=np.asarray(DT_S), **values)
