"""Exports to Xylo: arrays against recordings of xylosim, the network and each refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.errors import FileError, UnsupportedError
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.interchange.xylo.arrays import build_arrays
from spear_deploy.interchange.xylo.reader import read_xylo, run_arrays, values_by_layer
from spear_deploy.interchange.xylo.writer import write_xylo
from spear_deploy.network import LI, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, LoihiLIF, Neuron, SpeckIF, XyloLIF
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.network.spike_paths import find_spike_paths
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.quantize.explain.findings import find_changed_parameters
from spear_deploy.simulator import simulate
from spear_deploy.simulator.run import Simulation
from tests.support.seeds import few_first, seeds
from tests.support.xylo_networks import RECORDED, SEEDS, graph_of, random_network


def cuba(mem: float, syn: float) -> CubaLIF:
    return CubaLIF(tau_mem_s=mem * 1e-3, tau_syn_s=syn * 1e-3, w_in=syn, reset="subtract")


def random_float_network(seed: int) -> SNNGraph:
    """Two hidden layers, the second recurrent, and outputs that spike or are read as a potential; without biases."""
    rng = np.random.default_rng(seed)
    inputs, a, b, out = (int(n) for n in rng.integers(2, 9, 4))
    last: Neuron = cuba(4, 4) if seed % 2 else CubaLI(tau_mem_s=0.004, tau_syn_s=0.004)
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.normal(size=(a, inputs))), neuron=cuba(4, 2)),
        Layer(name="into_b", synapse=Dense(weight=3 * rng.normal(size=(b, a)))),
        Layer(name="back", synapse=Dense(weight=rng.normal(size=(b, b)))),
        Layer(name="b", neuron=cuba(8, 2)),
        Layer(name="out", synapse=Dense(weight=3 * rng.normal(size=(out, b))), neuron=last),
    ]
    ways = [(INPUT, "a", 0), ("a", "into_b", 0), ("into_b", "b", 0), ("b", "back", 1), ("back", "b", 0), ("b", "out", 0)]
    return graph_of(layers, ways, inputs)


def random_biased_network(seed: int) -> SNNGraph:
    """One to three hidden layers with biases, some of which feed themselves or a layer before, and outputs with biases."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(2, 9, int(rng.integers(3, 6)))]
    names = [*(f"h{k}" for k in range(len(sizes) - 2)), "out"]
    layers, ways = [], []

    def connect(name: str, source: str, target: str, shape: tuple[int, int], delay: int, bias: Any) -> None:
        layers.append(Layer(name=name, synapse=Dense(weight=rng.normal(size=shape), bias=bias)))
        ways.extend([(source, name, delay), (name, target, 0)])

    for k, name in enumerate(names):
        o, i = sizes[k + 1], sizes[k]
        connect(f"into_{name}", names[k - 1] if k else INPUT, name, (o, i), 0, rng.normal(size=o) * rng.choice([0, 0.3, 1.0]))
        for j in range(k, len(names) - 1):  # from itself, or from a layer behind
            if rng.random() < 0.4:
                connect(f"{names[j]}_to_{name}", names[j], name, (o, sizes[j + 1]), 1 + j - k, None)
        last: Neuron = CubaLI(tau_mem_s=0.002, tau_syn_s=0.002) if seed % 4 == 1 else cuba(4, 2)
        layers.append(Layer(name=name, neuron=last if name == "out" else cuba(2.0 ** rng.integers(1, 5), 2)))
    return graph_of(layers, ways, sizes[0])


def spikes(graph: SNNGraph, seed: int, rate: float = 0.4) -> Any:
    return np.random.default_rng(seed).random((40, 3, *graph.input_shape)) < rate


def one(shape: tuple[int, int], neuron: Neuron | None = None, name: str = "h", **options: Any) -> Layer:
    weight = np.ones(shape, int)
    return Layer(name=name, synapse=Dense(weight=weight, **options), neuron=xylo() if neuron is None else neuron)


def xylo(**options: Any) -> XyloLIF:
    return XyloLIF(**{"dash_mem": 2, "dash_syn": 1, "v_threshold": 100, **options})


OUT = one((1, 2), xylo(max_spikes=1), "out")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_arrays_do_what_xylosim_recorded(seed: int) -> None:
    """SynSense's simulator ran the same integers: its spikes and potentials, step by step."""
    graph, x = random_network(seed)
    with np.load(RECORDED) as recorded:
        built = build_arrays(graph, all_read=bool(seed % 2))
        runs = run_arrays(built.arrays, x)
        assert built.offsets == {"hidden": 0, "out": 0}
        hidden = runs["hidden"][:, 0][:, built.hidden["hidden"]]
        np.testing.assert_array_equal(hidden, recorded[f"{seed}.hidden.spikes"])
        np.testing.assert_array_equal(runs["out"][:, 0], recorded[f"{seed}.out.spikes"])
        np.testing.assert_array_equal(runs["out_v"][:, 0], recorded[f"{seed}.out.v"])


@pytest.mark.parametrize("chip", few_first(["xylo_audio3", "xylo_imu", "xylo_audio2"], 1))
@pytest.mark.parametrize("seed", seeds(1, 8))
def test_an_export_is_proven_equal_to_the_simulation(chip: str, seed: int, tmp_path: Path) -> None:
    graph = random_float_network(seed)
    x = spikes(graph, seed)
    certificate = api.export(graph, tmp_path / "net.npz", to="xylo", chip=chip, x=x)
    assert (certificate["mismatches"], certificate["does_not_fit"], certificate["chip"]) == (0, [], chip)
    arrays, description = read_xylo(tmp_path / "net.npz")
    assert description["offsets"] == {"a": 0, "b": 1, "out": 2}
    expected = api.simulate(graph, x, chip=chip)
    runs = run_arrays(arrays, np.concatenate([x, np.zeros((2, *x.shape[1:]), bool)]))
    values = values_by_layer(runs, description, len(x))
    np.testing.assert_array_equal(values["b"], expected.spikes["b"])
    np.testing.assert_array_equal(values["out"], expected.output)
    assert expected.spikes["a"].any()
    beside = json.loads((tmp_path / "net.json").read_text())
    assert {name: np.shape(value) for name, value in beside["arrays"].items()} == {n: v.shape for n, v in arrays.items()}
    np.testing.assert_array_equal(beside["arrays"]["weights_rec"], arrays["weights_rec"])


@pytest.mark.parametrize("seed", seeds(1, 6))
def test_a_bias_acts_as_early_in_the_simulation_as_on_the_chip(seed: int, tmp_path: Path) -> None:
    """Layers behind the first run on their biases, and on what these send, before the network's first step."""
    graph = random_biased_network(seed)
    x = spikes(graph, seed)
    certificate = api.export(graph, tmp_path / "net.npz", to="xylo", chip="xylo_audio3", x=x)
    assert certificate["mismatches"] == 0 and not any("biases act" in note for note in certificate["approximations"])
    integer = quantize(graph, format="xylo")
    _, description = read_xylo(tmp_path / "net.npz")
    early = {name: integer[name].neuron.early_steps for name in description["offsets"]}
    is_biased = any(integer[name].neuron.bias.any() for name, offset in description["offsets"].items() if offset)
    assert early == (description["offsets"] if is_biased else dict.fromkeys(early, 0))
    late = integer.with_layers(lambda layer: layer if layer.neuron is None else with_early_steps(layer, 0))
    certificate = api.export(late, tmp_path / "late.npz", to="xylo", chip="xylo_audio3", x=x)
    assert any("biases act" in note for note in certificate["approximations"]) == is_biased
    if seed in (0, 1):
        assert api.export(integer, tmp_path / "net.onnx", to="onnx", x=x)["mismatches"] == 0


def with_early_steps(layer: Layer, steps: int) -> Layer:
    assert isinstance(layer.neuron, XyloLIF)
    return replace(layer, neuron=replace(layer.neuron, early_steps=steps))


def test_early_steps_are_kept_by_a_file_and_are_a_finding(tmp_path: Path) -> None:
    graph = random_biased_network(4)
    integer = quantize(graph, format="xylo")
    write_snn(integer, tmp_path / "a.snn")
    again = api.load(tmp_path / "a.snn")
    assert [layer.neuron for layer in again.layers if layer.neuron][-1].early_steps == 3
    x = spikes(graph, 4)
    np.testing.assert_array_equal(simulate(again, x).output, simulate(integer, x).output)
    late = integer.with_layers(lambda layer: layer if layer.neuron is None else with_early_steps(layer, 0))
    certificate = api.export(late, tmp_path / "late.npz", to="xylo", chip="xylo_audio3", x=x)
    assert certificate["mismatches"] > 100
    texts = [finding.text for finding in find_changed_parameters(integer) if finding.code == "early_steps"]
    assert any("'out': on the chip, where all neurons start at once, its bias acts for 3 steps" in text for text in texts)


def test_samples_and_blocks_of_steps_start_as_one_run_does() -> None:
    integer = quantize(random_biased_network(4), format="xylo")
    x = spikes(integer, 4)
    whole = Simulation(integer, x, record=("spikes",))
    parts = Simulation(integer, x, record=("spikes",), max_steps=7)
    for run in (whole, parts):
        for _ in range(len(run)):
            run.advance()
    assert len(parts) > len(whole)
    for name, values in whole.result().spikes.items():
        np.testing.assert_array_equal(values, parts.result().spikes[name])


def test_neurons_that_input_reaches_come_first_and_those_that_outputs_read_come_last(tmp_path: Path) -> None:
    layers = [
        one((3, 2), name="a"),
        one((4, 3), name="middle"),
        one((2, 4), name="c"),
        one((2, 2), xylo(max_spikes=1), "out"),
    ]
    graph = chain(layers, input_shape=(2,))
    write_xylo(graph, tmp_path / "n.npz", chip="xylo_imu")
    arrays, description = read_xylo(tmp_path / "n.npz")
    assert arrays["weights_in"].shape == (2, 3, 1) and arrays["weights_out"].shape == (2, 2)
    assert description["hidden"] == {"a": [0, 1, 2], "middle": [3, 4, 5, 6], "c": [7, 8]}
    write_xylo(graph, tmp_path / "n.npz", chip="xylo_audio2")
    assert read_xylo(tmp_path / "n.npz")[0]["weights_out"].shape == (9, 2)


def test_a_bias_that_acts_earlier_on_the_chip_than_in_the_network_is_in_the_notes(tmp_path: Path) -> None:
    graph = chain([one((2, 2)), one((1, 2), xylo(max_spikes=1, bias=3), "out")], input_shape=(2,))
    notes = write_xylo(graph, tmp_path / "n.npz")
    assert notes == [
        "every connection between neurons takes a step on the chip: layers act later than in the network, in steps: 'out' 1",
        "biases act before the first input of 'out': 1 steps on the chip, 0 in the network; quantise anew, that sets early_steps",
    ]
    assert len(write_xylo(graph.with_layers({"out": with_early_steps(graph["out"], 1)}), tmp_path / "n.npz")) == 1


def test_shifts_that_differ_become_one_where_8_bits_hold_both() -> None:
    layers = [one((2, 2), name="a", weight_exponent=3), one((2, 2), name="h", weight_exponent=1), OUT]
    ways = [(INPUT, "a", 0), ("a", "h", 0), ("h", "out", 0)]
    built = build_arrays(graph_of([*layers[:1], layers[1], layers[2]], ways, 2), all_read=True)
    assert [int(built.arrays[f"weight_shift_{n}"]) for n in ("in", "rec", "out")] == [3, 1, 0]
    two = [
        one((2, 2), name="a", weight_exponent=3),
        one((2, 2), name="b", weight_exponent=1),
        one((1, 4), xylo(max_spikes=1), "out"),
    ]
    joined = SNNGraph(
        layers=(two[0], two[1], Layer(name="out_a", synapse=Dense(weight=np.ones((1, 2), int))),
                Layer(name="out_b", synapse=Dense(weight=np.ones((1, 2), int), weight_exponent=2)),
                Layer(name="out", neuron=xylo(max_spikes=1))),
        edges=tuple(Edge(source=s, target=t) for s, t in
                    ((INPUT, "a"), (INPUT, "b"), ("a", "out_a"), ("b", "out_b"), ("out_a", "out"), ("out_b", "out"))),
        input_shape=(2,),
        output="out",
    )  # fmt: skip
    built = build_arrays(joined, all_read=True)
    assert int(built.arrays["weight_shift_in"]) == 1 and built.arrays["weights_in"][..., 0].tolist() == [[4, 4, 1, 1]] * 2
    assert int(built.arrays["weight_shift_out"]) == 0 and built.arrays["weights_out"].ravel().tolist() == [1, 1, 4, 4]
    x = np.random.default_rng(0).random((20, 2, 2)) < 0.5
    run = simulate(joined, x)
    runs = run_arrays(built.arrays, np.concatenate([x, np.zeros((1, 2, 2), bool)]))
    np.testing.assert_array_equal(runs["out"][1:], run.output)


REFUSED: dict[str, tuple[Any, str]] = {
    "another chip's neurons": (
        lambda: chain([one((2, 2), SpeckIF(v_threshold=1))], input_shape=(2,)),
        r"layer 'h': SpeckIF neurons, Xylo's arrays hold XyloLIF",
    ),
    "fewer spikes": (
        lambda: chain([one((2, 2), xylo(max_spikes=20)), OUT], input_shape=(2,)),
        r"layer 'h': up to 20 spikes a step, the chip's neurons there send up to 31",
    ),
    "a readout inside": (
        lambda: graph_of(
            [one((2, 2)), one((2, 2), xylo(v_threshold=None), "side"), OUT],
            [(INPUT, "h", 0), ("h", "side", 0), ("h", "out", 0)], 2,
        ),
        r"layer 'side': a readout inside the network",
    ),
    "no output neurons": (
        lambda: chain([one((2, 2)), Layer(name="out", synapse=Dense(weight=np.ones((1, 2), int)))], input_shape=(2,)),
        r"layer 'out': the output layer has no neurons",
    ),
    "a convolution": (
        lambda: chain(
            [Layer(name="c", synapse=Conv2d(weight=np.ones((1, 1, 1, 1), int)), neuron=xylo()),
             Layer(name="f", synapse=Flatten()), one((1, 4), xylo(max_spikes=1), "out")], input_shape=(1, 2, 2),
        ),
        r"layer 'c': Conv2d on its way from 'input'; Xylo has dense weights only",
    ),
    "no weights": (
        lambda: chain([one((2, 2)), Layer(name="g", neuron=xylo()), OUT], input_shape=(2,)),
        r"layer 'g': the way from 'h' needs exactly one dense layer",
    ),
    "a bias of the weights": (
        lambda: chain([one((2, 2), bias=np.ones(2, int)), OUT], input_shape=(2,)),
        r"layer 'h': weights with a bias",
    ),
    "feedback from the output": (
        lambda: graph_of(
            [one((2, 2), name="h"), Layer(name="back", synapse=Dense(weight=np.ones((1, 1), int))),
             Layer(name="into", synapse=Dense(weight=np.ones((1, 2), int))), Layer(name="out", neuron=xylo(max_spikes=1))],
            [(INPUT, "h", 0), ("h", "into", 0), ("into", "out", 0), ("out", "back", 1), ("back", "out", 0)], 2,
        ),
        r"layer 'out': reads the output layer 'out', whose spikes leave the chip",
    ),
    "no hidden layer": (
        lambda: chain([one((2, 2), xylo(max_spikes=1), "out")], input_shape=(2,)),
        r"layer 'out': the input feeds the output layer",
    ),
    "a skip": (
        lambda: graph_of(
            [one((2, 2), name="a"), one((2, 2), name="h"), Layer(name="by", synapse=Dense(weight=np.ones((1, 2), int))),
             Layer(name="on", synapse=Dense(weight=np.ones((1, 2), int))), Layer(name="out", neuron=xylo(max_spikes=1))],
            [(INPUT, "a", 0), ("a", "h", 0), ("a", "by", 0), ("by", "out", 0), ("h", "on", 0), ("on", "out", 0)], 2,
        ),
        r"layer 'out': spikes from '(a|h)' would have to wait or come early; every connection of Xylo takes one step",
    ),
    "wide weights": (
        lambda: chain([Layer(name="h", synapse=Dense(weight=np.full((2, 2), 200)), neuron=xylo()), OUT], input_shape=(2,)),
        r"layer 'h': weights 200..200 at the shift 0 that its kind of weights share, the chip holds -128..127",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_arrays_cannot_hold_is_refused_by_layer(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedError, match=message):
        build_arrays(make(), all_read=True)


def test_ways_of_spikes_refuse_loops_and_values() -> None:
    loop = graph_of([Layer(name="s"), one((2, 2)), OUT], [(INPUT, "s", 0), ("s", "s", 1), ("s", "h", 0), ("h", "out", 0)], 2)
    with pytest.raises(UnsupportedError, match=r"layer 's': a loop without neurons"):
        find_spike_paths(loop)
    value = chain([one((2, 2), xylo(v_threshold=None)), OUT], input_shape=(2,))
    with pytest.raises(UnsupportedError, match=r"layer 'out': the readout 'h' feeds it; let a spiking neuron feed it"):
        find_spike_paths(value)


def test_layers_that_only_feedback_reaches_are_refused() -> None:
    layers = [one((2, 2)), Layer(name="x", synapse=Dense(weight=np.eye(2, dtype=int)), neuron=xylo()), OUT]
    graph = graph_of(layers, [(INPUT, "h", 0), ("h", "out", 0), ("h", "x", 1)], 2)
    assert build_arrays(graph, all_read=True).offsets["x"] == 0
    early = graph_of(layers, [(INPUT, "h", 0), ("h", "out", 0), ("h", "x", 2)], 2)
    with pytest.raises(UnsupportedError, match=r"layer 'x': spikes from 'h' would have to wait or come early"):
        build_arrays(early, all_read=True)


def test_a_network_that_does_not_fit_is_refused_unless_forced(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="a", synapse=Dense(weight=rng.normal(size=(20, 17))), neuron=cuba(4, 2)),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(4, 20))), neuron=cuba(4, 2)),
    ]
    graph = chain(layers, input_shape=(17,))
    with pytest.raises(
        UnsupportedError, match=r"does not fit xylo_audio2 \(input: input channels 17 of 16 channels\); make it fit"
    ):
        api.export(graph, tmp_path / "n.npz", to="xylo")
    assert not list(tmp_path.iterdir())
    certificate = api.export(graph, tmp_path / "n.npz", to="xylo", force=True)
    assert certificate["does_not_fit"] == ["input: input channels 17 of 16 channels"] and certificate["mismatches"] == 0
    assert "does not fit xylo_audio2: input: input channels 17 of 16 channels" in certificate["approximations"]
    assert json.loads((tmp_path / "certificate.json").read_text()) == certificate


def test_approximated_neurons_are_in_the_certificate(tmp_path: Path) -> None:
    layers = [
        Layer(name="a", synapse=Dense(weight=np.eye(3)), neuron=cuba(4, 2)),
        Layer(name="out", synapse=Dense(weight=np.eye(3)), neuron=LI(tau_s=0.01)),
    ]
    certificate = api.export(chain(layers, input_shape=(3,)), tmp_path / "n.npz", to="xylo")
    assert any(note.startswith("'out' has no synaptic current") for note in certificate["approximations"])
    assert any(note.startswith("'out' has no threshold: it gets the highest one") for note in certificate["approximations"])


def test_integers_of_another_chip_and_chips_of_another_family_are_refused_also_by_force(tmp_path: Path) -> None:
    loihi = chain([one((2, 2), LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1))], input_shape=(2,))
    with pytest.raises(UnsupportedError, match="export to xylo: the network is quantised for loihi, numbers of xylo_audio2"):
        api.export(loihi, tmp_path / "n.npz", to="xylo", force=True)
    with pytest.raises(UnsupportedError, match=r"export to xylo: profile 'loihi2' is of the loihi family; name a xylo chip"):
        api.export(random_float_network(0), tmp_path / "n.npz", to="xylo", chip="loihi2", force=True)
    with pytest.raises(FileError, match=r"n.snn': a file for xylo ends in .npz and is not called certificate"):
        api.export(random_float_network(0), tmp_path / "n.snn", to="xylo")
    with pytest.raises(FileError, match=r"certificate.npz': a file for xylo ends in .npz and is not called certificate"):
        api.export(random_float_network(0), tmp_path / "certificate.npz", to="xylo")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_export_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights_in=np.zeros(1))
    with pytest.raises(FileError, match=r"a.npz': has no weights_rec, .*description; it is not an export to Xylo"):
        read_xylo(tmp_path / "a.npz")
    integer = quantize(random_float_network(0), format="xylo")
    write_xylo(integer, tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "b.npz", **{**arrays, "threshold": arrays["threshold"][1:]})
    with pytest.raises(FileError, match=r"b.npz': its arrays have different numbers of neurons"):
        read_xylo(tmp_path / "b.npz")


def test_a_damaged_array_is_a_mismatch_in_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate compares: a threshold that is wrong in the file shows in it, with its first place."""
    graph = random_float_network(3)
    import spear_deploy.interchange.xylo.writer as writer

    def damaged(graph: SNNGraph, *, all_read: bool) -> Any:
        built = build_arrays(graph, all_read=all_read)
        return replace(built, arrays={**built.arrays, "threshold": np.maximum(built.arrays["threshold"] // 2, 1)})

    monkeypatch.setattr(writer, "build_arrays", damaged)
    certificate = api.export(graph, tmp_path / "n.npz", to="xylo", x=spikes(graph, 3))
    assert certificate["mismatches"] > 0 and certificate["first_difference"]["layer"] in ("a", "b", "out")


@pytest.mark.parametrize(
    "change", [{"description": "{"}, {"description": "[1]"}, {"dash_mem": np.int64(3)}, {"weights_in": np.ones(3)}]
)
def test_a_damaged_file_is_refused(tmp_path, change):
    write_xylo(quantize(random_float_network(0), format="xylo"), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.savez(tmp_path / "a.npz", **{**file, **change})
    with pytest.raises(FileError, match="is damaged .*; export the network again|have different numbers of neurons; export the"):
        read_xylo(tmp_path / "a.npz")
