"""Exports to Speck: the document against the network, its core map, and each refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.errors import FileError, UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.speck.document import build_document, write_speck
from spear_deploy.interchange.speck.reader import read_speck, run_document, values_by_layer
from spear_deploy.network import IF, AvgPool, Conv2d, Dense, Flatten, Layer, Neuron, SpeckIF, SumPool, XyloLIF
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.simulator import simulate
from tests.support.seeds import seeds


def random_network(seed: int) -> SNNGraph:
    """Two convolutions with a pool and a stride, and a dense layer; every fourth pools its input, every third resets to 0."""
    rng = np.random.default_rng(seed)

    def neuron() -> IF:
        return IF(v_threshold=float(rng.uniform(0.5, 2)), reset="subtract" if seed % 3 else "value")

    layers = [Layer(name="on_input", synapse=SumPool(kernel_size=(2, 2)))] if seed % 4 == 0 else []
    a = Conv2d(weight=rng.normal(size=(4, 2, 3, 3)) / 2, bias=rng.normal(size=4) / 4, padding=(1, 1))
    b = Conv2d(weight=rng.normal(size=(5, 4, 3, 3)) / 3, stride=(2, 2), padding=(1, 1))
    pool = (SumPool if seed % 2 else AvgPool)(kernel_size=(2, 2))
    layers += [Layer(name="a", synapse=a, neuron=neuron()), Layer(name="p", synapse=pool)]
    layers += [Layer(name="b", synapse=b, neuron=neuron()), Layer(name="f", synapse=Flatten())]
    side = 1 if seed % 4 == 0 else 2
    layers += [Layer(name="fc", synapse=Dense(weight=rng.normal(size=(6, 5 * side * side)) / 2), neuron=neuron())]
    return chain(layers, input_shape=(2, 8, 8))


def spikes(graph: SNNGraph, seed: int, rate: float = 0.3) -> Any:
    return np.random.default_rng(seed).random((30, 3, *graph.input_shape)) < rate


def whole(*shape: int) -> Any:
    return np.ones(shape, np.int64)


def speck(**options: Any) -> SpeckIF:
    return SpeckIF(**{"v_threshold": 3, "v_min": -3, **options})


def conv(name: str = "c", neuron: Neuron | None = None, inputs: int = 1, **options: Any) -> Layer:
    synapse = Conv2d(**{"weight": whole(1, inputs, 1, 1), **options})
    return Layer(name=name, synapse=synapse, neuron=speck() if neuron is None else neuron)


@pytest.mark.parametrize("seed", seeds(5, 12))
def test_an_export_is_proven_equal_to_the_simulation(seed: int, tmp_path: Path) -> None:
    graph = random_network(seed)
    x = spikes(graph, seed)
    certificate = api.export(graph, tmp_path / "net.json", to="speck", x=x)
    assert (certificate["mismatches"], certificate["does_not_fit"]) == (0, [])
    document = read_speck(tmp_path / "net.json")
    run = api.simulate(graph, x, chip="speck2f")
    values = values_by_layer(document, run_document(document, x), "fc")
    for name in ("a", "b", "fc"):
        np.testing.assert_array_equal(values[name].reshape(run.spikes[name].shape), run.spikes[name], err_msg=name)
    assert run.spikes["a"].any()
    assert all(layer["min_v_mem"] == -layer["threshold"] for layer in document["layers"])
    assert document["input_pool"] == (1 if seed % 4 else 2)
    assert document["layers"][0]["destinations"] == [{"layer": "b", "pool": 2}]


def test_cores_are_those_of_the_placement_and_hold_their_layers(tmp_path: Path) -> None:
    graph = random_network(1)
    api.export(graph, tmp_path / "net.json", to="speck")
    document, profile = read_speck(tmp_path / "net.json"), load_profile("speck2f")
    slots = {part.layer: part.slot for part in api.check(graph, "speck2f").placement.slices}
    assert {layer["name"]: layer["core"] for layer in document["layers"]} == slots
    kinds = [group for group in range(len(profile.core_groups)) for _ in range(profile.core_groups[group].count.value)]
    for layer in document["layers"]:
        kernel = 2 ** int(np.ceil(np.log2(np.prod(np.shape(layer["weight"])[2:]))) + np.ceil(np.log2(len(layer["weight"]))))
        limits = profile.core_limits(kinds[layer["core"]])
        assert np.shape(layer["weight"])[1] * kernel <= limits["synapse_memory"].value


def test_numbers_of_a_worked_example() -> None:
    layers = [
        conv(
            "a", speck(v_threshold=7, v_min=-5, reset="value", v_init=2), weight=np.array([[[[3]], [[-4]]]]), bias=np.array([1])
        ),
        Layer(name="p", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="q", synapse=SumPool(kernel_size=(1, 1))),
        Layer(name="d", synapse=Dense(weight=np.array([[1], [3]]), bias=np.array([-2, 5]), weight_exponent=1), neuron=speck()),
    ]
    document = build_document(chain(layers, input_shape=(2, 2, 2)), chip="speck2f", cores={"a": 3, "d": 5})
    first, second = document["layers"]
    assert {name: first[name] for name in ("core", "in_shape", "out_shape", "weight", "bias", "stride", "padding")} == {
        "core": 3, "in_shape": [2, 2, 2], "out_shape": [1, 2, 2], "weight": [[[[3]], [[-4]]]], "bias": [1],
        "stride": [1, 1], "padding": [0, 0],
    }  # fmt: skip
    assert {name: first[name] for name in ("threshold", "min_v_mem", "reset", "v_init", "destinations", "reads_input")} == {
        "threshold": 7, "min_v_mem": -5, "reset": "zero", "v_init": 2, "destinations": [{"layer": "d", "pool": 2}],
        "reads_input": True,
    }  # fmt: skip
    assert (second["core"], second["weight"], second["in_shape"]) == (5, [[[[2]]], [[[6]]]], [1, 1, 1])
    assert second["bias"] == [-2, 5], "the shift is the weighted sum's, the bias is added behind it"
    assert (second["destinations"], second["reads_input"], document["output"]) == ([], False, "d")


def test_pools_of_input_and_output_are_in_the_notes_and_in_the_proof(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="p", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="c", synapse=Conv2d(weight=rng.normal(size=(3, 2, 3, 3)), padding=(1, 1)), neuron=IF(reset="subtract")),
        Layer(name="last", synapse=SumPool(kernel_size=(4, 4))),
    ]
    certificate = api.export(chain(layers, input_shape=(2, 8, 8)), tmp_path / "n.json", to="speck")
    assert certificate["mismatches"] == 0
    assert [row["layer"] for row in certificate["layers"]] == ["c", "last"]
    notes = certificate["approximations"]
    assert "the input is pooled by 2 x 2 in the DVS layer, which is set up apart from the cores" in notes
    assert "the pool of 4 x 4 behind 'c' is not on the chip; the host sums its spikes" in notes


def test_two_sources_of_a_layer_and_starting_values_by_neuron(tmp_path: Path) -> None:
    start = np.arange(4).reshape(1, 2, 2)
    layers = (conv("a", speck(v_init=start)), conv("b"), conv("c"))
    edges = tuple(Edge(source=s, target=t) for s, t in ((INPUT, "a"), ("a", "b"), ("a", "c"), ("b", "c")))
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1, 2, 2), output="c")
    write_speck(graph, tmp_path / "n.json")
    document = read_speck(tmp_path / "n.json")
    assert document["layers"][0]["v_init"] == start.tolist()
    assert document["layers"][0]["destinations"] == [{"layer": "b", "pool": 1}, {"layer": "c", "pool": 1}]
    x = spikes(graph, 0, 0.7)
    np.testing.assert_array_equal(run_document(document, x)["c"], simulate(graph, x).output)


def net(*layers: Layer, shape: tuple[int, ...] = (1, 4, 4)) -> SNNGraph:
    return chain(layers, input_shape=shape)


def two_kernels() -> SNNGraph:
    kernels = [Layer(name=name, synapse=Conv2d(weight=whole(1, 1, 1, 1))) for name in "xy"]
    layers = (conv("a"), *kernels, Layer(name="s", neuron=speck()))
    ways = ((INPUT, "a"), ("a", "x"), ("a", "y"), ("x", "s"), ("y", "s"))
    return SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in ways), input_shape=(1, 2, 2), output="s")


def feedback() -> SNNGraph:
    ways = ((INPUT, "a", 0), ("a", "b", 0), ("b", "a", 1))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in ways)
    return SNNGraph(layers=(conv("a"), conv("b")), edges=edges, input_shape=(1, 2, 2), output="b")


def two_windows() -> SNNGraph:
    layers = (Layer(name="p", synapse=SumPool(kernel_size=(2, 2))), conv("a"), conv("b"), Layer(name="fa", synapse=Flatten()))
    layers += (Layer(name="d", synapse=Dense(weight=whole(1, 4)), neuron=speck()),)
    ways = ((INPUT, "p"), ("p", "a"), (INPUT, "b"), ("a", "fa"), ("fa", "d"))
    return SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in ways), input_shape=(1, 4, 4), output="d")


REFUSED: dict[str, tuple[Any, str]] = {
    "another chip's neurons": (
        lambda: net(conv(neuron=XyloLIF(dash_mem=1, dash_syn=1, v_threshold=1))),
        r"layer 'c': XyloLIF neurons, Speck holds SpeckIF; quantise the network for Speck",
    ),
    "feedback": (feedback, r"layer 'a': spikes from 'b' wait 1 steps; events on Speck do not wait"),
    "no weights": (
        lambda: net(conv(), Layer(name="n", neuron=speck())),
        r"layer 'n': the way from 'c' needs exactly one Conv2d or Dense",
    ),
    "two kernels": (two_kernels, r"layer 's': currents of 'x', 'y' add up in it; a core has one kernel"),
    "a mean": (
        lambda: net(conv(), Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))), conv("d")),
        r"layer 'p': Speck sums spikes over windows that neither overlap nor pad",
    ),
    "windows that are not square": (
        lambda: net(conv(), Layer(name="p", synapse=SumPool(kernel_size=(2, 1))), conv("d")),
        r"layer 'd': its pools are 2 x 1 together; Speck pools over square windows",
    ),
    "groups": (lambda: net(conv(weight=whole(2, 1, 1, 1), groups=2), shape=(2, 2, 2)), r"layer 'c': groups or dilation"),
    "a kernel that is not square": (
        lambda: net(conv(weight=whole(1, 1, 1, 2))),
        r"layer 'c': a kernel of 1 x 2, Speck's are square",
    ),
    "a sum that is shifted down": (
        lambda: net(conv(weight=3 * whole(1, 1, 1, 1), weight_exponent=-1)),
        r"layer 'c': its sum is shifted down by 1 bits, Speck shifts nothing",
    ),
    "wide weights": (
        lambda: net(conv(weight=200 * whole(1, 1, 1, 1))),
        r"layer 'c': weight 200..200, Speck holds -128..127",
    ),
    "a wide bias": (lambda: net(conv(bias=np.array([-129]))), r"layer 'c': bias -129..-129, Speck holds -128..127"),
    "an output without neurons": (
        lambda: net(conv(), Layer(name="o", synapse=Conv2d(weight=whole(1, 1, 1, 1)))),
        r"layer 'o': the output has no neurons of its own",
    ),
    "windows that differ at the input": (two_windows, r"input: layers that read it pool it differently"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_core_cannot_hold_is_refused_by_layer(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedError, match=message):
        build_document(make(), chip="speck2f", cores={})


def test_a_network_that_does_not_fit_is_refused_unless_forced(tmp_path: Path) -> None:
    layers = [Layer(name=f"l{n}", synapse=Dense(weight=np.eye(4)), neuron=IF(reset="subtract")) for n in range(10)]
    graph = chain(layers, input_shape=(4,))
    with pytest.raises(UnsupportedError, match=r"export to speck: the network does not fit speck2f \(.*cores 10 of 9 core"):
        api.export(graph, tmp_path / "n.json", to="speck")
    certificate = api.export(graph, tmp_path / "n.json", to="speck", force=True)
    assert certificate["mismatches"] == 0 and any("cores 10 of 9 core" in problem for problem in certificate["does_not_fit"])
    cores = [layer["core"] for layer in json.loads((tmp_path / "n.json").read_text())["layers"]]
    assert None in cores and len({core for core in cores if core is not None}) == 9


def test_integers_of_another_chip_are_refused_also_by_force(tmp_path: Path) -> None:
    xylo = chain(
        [Layer(name="h", synapse=Dense(weight=whole(2, 2)), neuron=XyloLIF(dash_mem=1, dash_syn=1, v_threshold=1))],
        input_shape=(2,),
    )
    with pytest.raises(UnsupportedError, match="export to speck: the network is quantised for xylo, numbers of speck2f differ"):
        api.export(xylo, tmp_path / "n.json", to="speck", force=True)
    with pytest.raises(FileError, match=r"n.npz': a file for speck ends in .json and is not called certificate"):
        api.export(random_network(0), tmp_path / "n.npz", to="speck")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_export_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(FileError, match=r"a.json': cannot be read as JSON"):
        read_speck(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"layers": []}')
    with pytest.raises(
        FileError, match=r"b.json': has no input_shape, input_pool, output, output_pool; it is not an export to Speck"
    ):
        read_speck(tmp_path / "b.json")
