"""Exports to PyNN: the network of the file, its reader, each refusal; Brian2 and sPyNNaker where they are installed."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.errors import BackendError, ChipError, DataError, FileError, UnsupportedError
from spear_deploy.interchange.pynn import script
from spear_deploy.interchange.pynn.document import build_document
from spear_deploy.interchange.pynn.reader import PYTHON, SCRIPT, read_pynn, run_brian2
from spear_deploy.network import IF, LI, LIF, AvgPool, BatchNorm, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer, Neuron
from spear_deploy.network.graph import INPUT, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.util.digests import hash_file
from tests.support.framework_environments import NotInstalled, install
from tests.support.xylo_networks import graph_of

SEEDS = range(20)


def random_network(seed: int) -> SNNGraph:
    """A hidden layer, in every third network a second one that feeds itself, and spikes or potentials at the end; with biases."""
    rng = np.random.default_rng(seed)
    inputs, a, b, out = (int(n) for n in rng.integers(6, 16, 4))

    def levels() -> dict[str, float]:
        return {"v_leak": rng.uniform(-0.1, 0.1), "v_reset": rng.uniform(-0.2, 0.1), "v_threshold": rng.uniform(0.4, 0.9)}

    def cuba() -> CubaLIF:
        taus = rng.uniform(0.003, 0.02), rng.uniform(0.0012, 0.02)
        return CubaLIF(tau_mem_s=taus[0], tau_syn_s=taus[1], w_in=rng.uniform(3, 8), **levels())  # type: ignore[arg-type]

    def lif() -> LIF:
        return LIF(tau_s=rng.uniform(0.003, 0.02), r=rng.uniform(3, 8), **levels())  # type: ignore[arg-type]

    ends: list[Neuron] = [CubaLI(tau_mem_s=0.004, tau_syn_s=0.004), cuba(), LI(tau_s=0.005), lif()]
    layers = [Layer(name="a", synapse=Dense(weight=rng.normal(size=(a, inputs)), bias=rng.normal(size=a) / 4), neuron=lif())]
    if seed % 2:
        layers[0] = replace(layers[0], neuron=cuba())
    ways = [(INPUT, "a", 0)]
    before = "a"
    if seed % 3 == 0:
        layers += [
            Layer(name="into_b", synapse=Dense(weight=2 * rng.normal(size=(b, a)))),
            Layer(name="back", synapse=Dense(weight=rng.normal(size=(b, b)), bias=rng.normal(size=b) / 4)),
            Layer(name="b", neuron=cuba()),
        ]
        ways += [("a", "into_b", 0), ("into_b", "b", 0), ("b", "back", 1), ("back", "b", 0)]
        before = "b"
    size = b if seed % 3 == 0 else a
    layers.append(Layer(name="out", synapse=Dense(weight=2 * rng.normal(size=(out, size))), neuron=ends[seed % 4]))
    return graph_of(layers, [*ways, (before, "out", 0)], inputs)


def spikes(graph: SNNGraph, seed: int, rate: float = 0.4) -> Any:
    return np.random.default_rng(seed).random((40, 3, *graph.input_shape)) < rate


def trained_digits() -> tuple[SNNGraph, Any]:
    """Return a convolution, a mean over windows and a readout, trained on the digits, and 12 of them as spikes."""
    from spear_deploy.data import load_data
    from spear_deploy.training.fit import train

    rng, data = np.random.default_rng(0), load_data("digits")
    conv = Conv2d(weight=rng.normal(size=(6, 1, 3, 3)), bias=np.zeros(6), padding=(1, 1))
    layers = [
        Layer(name="conv", synapse=conv, neuron=CubaLIF(tau_mem_s=0.008, tau_syn_s=0.003, w_in=3.0)),
        Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(10, 96)) / 6), neuron=CubaLI(tau_mem_s=0.01, tau_syn_s=0.005)),
    ]
    graph = train(chain(layers, input_shape=(1, 8, 8)), data, epochs=2)
    x = np.moveaxis(data.test.x[:12], 0, 1)
    return graph, np.random.default_rng(1).random(x.shape) < x


def one(neuron: Neuron, weight: Any = ((1.0, -1.0),), name: str = "out", **options: Any) -> Layer:
    return Layer(name=name, synapse=Dense(weight=np.array(weight), **options), neuron=neuron)


def single(neuron: Neuron, **options: Any) -> SNNGraph:
    return chain([one(neuron, **options)], input_shape=(2,))


@pytest.mark.parametrize("seed", range(8))
def test_the_populations_of_the_file_send_the_spikes_of_the_network(seed: int, tmp_path: Path) -> None:
    graph = random_network(seed)
    certificate = api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, seed))
    assert (certificate["mismatches"], certificate["does_not_fit"], certificate["chip"]) == (0, [], "spinnaker1")
    assert {row["layer"] for row in certificate["layers"]} == {layer.name for layer in graph.layers if layer.neuron is not None}
    assert sum(row["compared"] - row["ties"] for row in certificate["layers"]) > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["certificate.json", "net.npz", "net.py"]
    assert (tmp_path / "net.py").read_bytes() == SCRIPT.read_bytes()
    assert (certificate["file"], certificate["network"]["file"]) == ("net.py", "net.npz")
    for name, row in (("net.py", certificate), ("net.npz", certificate["network"])):
        assert (row["bytes"], row["sha256"]) == ((tmp_path / name).stat().st_size, hash_file(tmp_path / name))


def test_roundings_count_where_no_weight_and_no_potential_passes_an_error_on(tmp_path: Path) -> None:
    """The bound was 0 behind weights of zero into a potential that forgets, and equal runs were called different."""
    rng = np.random.default_rng(0)
    for _ in range(6):
        neuron = LI(tau_s=1e-3, v_leak=rng.normal(size=3))
        layer = Layer(name="out", synapse=Dense(weight=np.zeros((3, 2)), bias=rng.normal(size=3)), neuron=neuron)
        certificate = api.export(chain([layer], input_shape=(2,)), tmp_path / "net.py", to="pynn", x=np.ones((6, 2, 2), bool))
        assert certificate["mismatches"] == 0


def test_a_convolution_with_norm_and_pool_becomes_lists_of_single_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    norm = BatchNorm(
        weight=rng.uniform(0.5, 2, 3), bias=rng.normal(size=3) / 4, mean=rng.normal(size=3), var=rng.uniform(0.5, 2, 3)
    )
    layers = [
        Layer(
            name="conv", synapse=Conv2d(weight=rng.normal(size=(3, 2, 3, 3)), padding=(1, 1)), norm=norm, neuron=LIF(tau_s=0.005)
        ),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="flat", synapse=Flatten()),
        one(CubaLI(tau_mem_s=0.01, tau_syn_s=0.005), rng.normal(size=(4, 12))),
    ]
    graph = chain(layers, input_shape=(2, 4, 4))
    certificate = api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 0))
    assert certificate["mismatches"] == 0
    description, arrays = read_pynn(tmp_path / "net.npz")
    assert [row["delay"] for row in description["projections"]] == [1, 1, 1]
    assert [row["source"] for row in description["projections"]] == ["input", "bias", 0]
    # 16 outputs of 3 channels; a kernel of 9 is cut to 6 at edges and to 4 in corners
    assert len(arrays["projection0.weight"]) == 2 * 3 * (4 * 9 + 8 * 6 + 4 * 4)
    assert len(arrays["projection2.weight"]) == 4 * 48


def test_a_way_that_skips_a_layer_waits_and_one_that_returns_does_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    layers = [one(LIF(tau_s=0.005, r=4.0), rng.normal(size=(n, m)), name) for name, n, m in (("a", 5, 4), ("b", 6, 5))]
    layers += [
        Layer(name="skip", synapse=Dense(weight=rng.normal(size=(3, 5)))),
        Layer(name="on", synapse=Dense(weight=rng.normal(size=(3, 6)))),
    ]
    layers += [
        Layer(name="back", synapse=Dense(weight=rng.normal(size=(5, 6)))),
        Layer(name="out", neuron=LIF(tau_s=0.004, r=4.0)),
    ]
    layers[0] = Layer(name="into_a", synapse=layers[0].synapse)
    layers.insert(1, Layer(name="a", neuron=LIF(tau_s=0.005, r=4.0)))
    ways = [(INPUT, "into_a", 0), ("into_a", "a", 0), ("a", "b", 0), ("a", "skip", 0), ("b", "on", 0), ("skip", "out", 0)]
    graph = graph_of(layers, [*ways, ("on", "out", 0), ("b", "back", 2), ("back", "a", 0)], 4)
    description, _ = build_document(graph, chip="spinnaker1")
    assert {row["name"]: row["offset"] for row in description["populations"]} == {"a": 1, "b": 2, "out": 3}
    delays = {(row["source"], row["target"]): row["delay"] for row in description["projections"]}
    assert delays == {("input", 0): 1, (1, 0): 1, (0, 1): 1, (0, 2): 2, (1, 2): 1}
    assert api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 1))["mismatches"] == 0
    with pytest.raises(UnsupportedError, match="layers 'a': spikes come back in fewer steps than their loop has connections"):
        build_document(graph_of(layers, [*ways, ("on", "out", 0), ("b", "back", 1), ("back", "a", 0)], 4), chip="spinnaker1")


def hard_networks() -> dict[str, SNNGraph]:
    """Two layers each: membranes and currents of one step, other potentials at the start, leaks above the threshold."""
    rng = np.random.default_rng(0)
    weights, bias, behind = rng.normal(size=(6, 8)), rng.normal(size=6) / 5, 2 * rng.normal(size=(4, 6))

    def network(first: Neuron, second: Neuron) -> SNNGraph:
        return chain([one(first, weights, "a", bias=bias), one(second, behind, "b")], input_shape=(8,))

    def cuba(mem: Any, syn: Any, **options: Any) -> CubaLIF:
        return CubaLIF(tau_mem_s=np.array(mem) * 1e-3, tau_syn_s=np.array(syn) * 1e-3, **options)

    low, high = rng.uniform(-1, 3, (2, 6)), rng.uniform(0.5, 2, (2, 6))
    return {
        "a membrane of one step": network(LIF(tau_s=1e-3), LI(tau_s=1e-3)),
        "beside a current": network(cuba(1, 4, w_in=4.0), CubaLI(tau_mem_s=1e-3, tau_syn_s=1e-3)),
        "currents of one step beside longer ones": network(
            cuba(4, [1, 2, 1, 3, 1, 5], w_in=4.0), CubaLI(tau_mem_s=np.array([1, 2, 1, 4]) * 1e-3, tau_syn_s=3e-3)
        ),
        "v_init": network(LIF(tau_s=5e-3, r=5.0, v_init=low[0]), cuba(5, 3, r=5.0, v_init=low[1, :4], v_leak=-0.2)),  # type: ignore[arg-type]
        "leaks above the threshold": network(
            LIF(tau_s=5e-3, r=5.0, v_leak=high[0]),  # type: ignore[arg-type]
            cuba(5, 3, r=5.0, v_leak=high[1, :4], v_init=low[1, :4]),
        ),
    }


@pytest.mark.parametrize("name", hard_networks())
def test_what_ends_within_a_step_or_starts_elsewhere_is_written(name: str, tmp_path: Path) -> None:
    graph = hard_networks()[name]
    certificate = api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 0))
    assert (certificate["mismatches"], certificate["ties"]) == (0, 0)
    assert [row["compared"] for row in certificate["layers"]] == [720, 480]
    assert certificate["layers"][0]["spikes"] > 100


def test_of_several_spikes_in_a_step_one_is_written(tmp_path: Path) -> None:
    graph = chain([one(LIF(tau_s=0.002, r=8.0, max_spikes=None), name="a"), one(LI(tau_s=0.001), [[1.0]])], input_shape=(2,))
    assert api.check(graph, "spinnaker1").verdict != "does_not_fit"
    certificate = api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 0))
    assert certificate["mismatches"] == 0
    sentence = "layer 'a': the network sends several spikes in a step; one is written, as the chip does"
    assert sentence in certificate["approximations"]


def test_a_bias_counts_once_however_many_ways_lead_to_its_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    layers = [one(LIF(tau_s=0.005, r=4.0), rng.normal(size=(8, 4)), name, bias=rng.normal(size=8) / 4) for name in "ab"]
    layers.append(one(LIF(tau_s=0.005, r=4.0), rng.normal(size=(5, 8)), bias=rng.uniform(0.1, 0.4, 5)))
    graph = graph_of(layers, [(INPUT, "a", 0), (INPUT, "b", 0), ("a", "out", 0), ("b", "out", 1)], 4)
    assert api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 1))["mismatches"] == 0
    description, arrays = read_pynn(tmp_path / "net.npz")
    (number,) = (n for n, row in enumerate(description["projections"]) if (row["source"], row["target"]) == ("bias", 2))
    gain, scale = 4.0 * description["timestep_ms"], description["populations"][2]["scale"]
    expected = layers[2].synapse.bias.astype(np.float32) * gain * scale  # type: ignore[union-attr]
    np.testing.assert_allclose(arrays[f"projection{number}.weight"], expected, rtol=1e-6)


def test_a_delay_in_front_of_the_weights_delays_no_bias(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    layers = [
        Layer(name="a", synapse=Conv2d(weight=rng.normal(size=(2, 1, 1, 1))), neuron=LIF(tau_s=0.005, r=4.0)),
        Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="out", synapse=Conv2d(weight=np.ones((3, 2, 1, 1)), bias=np.full(3, 0.3)), neuron=LIF(tau_s=0.005, r=4.0)),
    ]
    graph = chain(layers, input_shape=(1, 4, 4))
    graph = replace(graph, edges=tuple(replace(edge, delay=int(edge.source == "p")) for edge in graph.edges))
    assert api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 1))["mismatches"] == 0


def test_a_current_of_one_step_is_a_delta(tmp_path: Path) -> None:
    graph = single(CubaLIF(tau_mem_s=0.004, tau_syn_s=0.001, w_in=2.0))
    certificate = api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 0))
    assert certificate["mismatches"] == 0
    assert read_pynn(tmp_path / "net.npz")[0]["populations"][0]["cell"] == "IF_curr_delta"


def test_the_chip_s_fixed_point_has_room_for_every_layer() -> None:
    """Potentials lie below 2^15, of which each layer uses at least a quarter with every source spiking."""
    for seed in SEEDS:
        description, arrays = build_document(random_network(seed), chip="spinnaker1")
        for n, row in enumerate(description["populations"]):
            into = [k for k, way in enumerate(description["projections"]) if way["target"] == n]
            total = sum(
                np.bincount(arrays[f"projection{k}.target"], np.abs(arrays[f"projection{k}.weight"]), row["size"]) for k in into
            )
            reach = np.abs(arrays[f"population{n}.v_rest"]) + total * arrays.get(f"population{n}.tau_syn", 1.0)
            assert 2.0**12 < reach.max() <= 2.0**14 * 1.0001


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (single(IF()), "layer 'out': IF, sPyNNaker's neurons leak and take real numbers"),
        (
            single(LIF(tau_s=0.005, reset="subtract")),
            "layer 'out': reset 'subtract', sPyNNaker's neurons are set to v_reset at once; train with reset='value'",
        ),
        (single(LIF(tau_s=0.0008)), "layer 'out': a time constant of 0.8 steps, what PyNN's neurons keep from step to step is 0"),
        (single(CubaLIF(tau_mem_s=0.004, tau_syn_s=0.0005)), "layer 'out': a time constant of 0.5 steps"),
        (single(LIF(tau_s=0.005, max_spikes=None)), "layer 'out': sends several spikes in a step, sPyNNaker's neurons one"),
        (
            chain([one(LIF(tau_s=0.005), name="a"), Layer(name="out", synapse=Dense(weight=np.ones((2, 1))))], input_shape=(2,)),
            "'out': the output has no neurons",
        ),
        (
            graph_of(
                [
                    Layer(name="w", synapse=Dense(weight=np.ones((1, 2)), bias=np.ones(1))),
                    Layer(name="out", neuron=LIF(tau_s=0.005)),
                ],
                [(INPUT, "w", 0), ("w", "out", 1)],
                2,
            ),
            "layer 'w': a bias that arrives with a delay",
        ),
    ],
)
def test_what_pynn_cannot_express_is_refused_by_layer(graph: SNNGraph, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_document(graph, chip="spinnaker1")


def test_integers_currents_and_other_chips_are_refused(tmp_path: Path) -> None:
    graph = single(LIF(tau_s=0.005))
    with pytest.raises(UnsupportedError, match="export to pynn: the network holds integers, sPyNNaker takes real numbers"):
        api.export(quantize(graph, format="spinnaker"), tmp_path / "net.py", to="pynn")
    with pytest.raises(UnsupportedError, match="export to pynn: the input is a current"):
        api.export(graph, tmp_path / "net.py", to="pynn", x=np.ones((4, 1, 2)), kind="current")
    with pytest.raises(
        DataError, match="several spikes of an input in a step, PyNN's sources send one; give an input of 0 and 1"
    ):
        api.export(graph, tmp_path / "net.py", to="pynn", x=np.full((4, 1, 2), 2))
    with pytest.raises(UnsupportedError, match="profile 'loihi2' is of the loihi2? family; name a spinnaker chip"):
        api.export(graph, tmp_path / "net.py", to="pynn", chip="loihi2")
    with pytest.raises(ChipError, match="export to pynn: the network does not fit spinnaker1"):
        api.export(single(LIF(tau_s=0.005, reset="subtract")), tmp_path / "net.py", to="pynn")
    with pytest.raises(FileError, match=r"a file for pynn ends in \.py"):
        api.export(graph, tmp_path / "net.npz", to="pynn")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_not_read_as_networks_for_pynn(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    np.savez(path, description=np.array("{"))
    with pytest.raises(FileError, match=r"is damaged \(JSONDecodeError\); export the network again"):
        read_pynn(path)
    graph = single(LIF(tau_s=0.005))
    description, arrays = build_document(graph, chip="spinnaker1")
    for other in ([], {**description, "populations": 3}, {**description, "projections": None}):
        np.savez(path, **arrays, description=np.array(json.dumps(other)))
        with pytest.raises(FileError, match="is not that of a network for PyNN"):
            read_pynn(path)
    del arrays["population0.tau_m"]
    np.savez(path, **arrays, description=np.array(json.dumps(description)))
    with pytest.raises(FileError, match=r"has no population0\.tau_m; export the network again"):
        read_pynn(path)


def test_a_python_without_pynn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, str(tmp_path / "nowhere"))
    with pytest.raises(BackendError, match="run of PyNN with '.*nowhere'.*install pynn and brian2 there"):
        run_brian2(tmp_path / "net.npz", np.zeros((2, 1, 2)))
    monkeypatch.delenv(PYTHON)
    if importlib.util.find_spec("pyNN") is None:
        graph = single(LIF(tau_s=0.005))
        vendor = api.export(graph, tmp_path / "net.py", to="pynn", x=spikes(graph, 0))["vendor"]
        assert vendor["simulator"] is None and vendor["note"].endswith(
            "set the environment variable SPEAR_PYNN_PYTHON to a Python that has both"
        )


def test_a_full_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv(PYTHON, "python")
    monkeypatch.setattr(np, "save", fill)
    with pytest.raises(
        FileError, match=r"the input of PyNN cannot be written \(No space left on device\); free some space there"
    ):
        run_brian2(tmp_path / "net.npz", np.zeros((2, 1, 2)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(FileError, match=r"missing': no folder can be made \(No such file or directory\); free some space there"):
        run_brian2(tmp_path / "net.npz", np.zeros((2, 1, 2)))


def test_the_script_refuses_input_of_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = single(LIF(tau_s=0.005))
    api.export(graph, tmp_path / "net.py", to="pynn")
    for name, value in (("wide", np.zeros((4, 1, 3))), ("graded", np.full((4, 1, 2), 2))):
        np.save(tmp_path / f"{name}.npy", value)
        monkeypatch.setattr(
            "sys.argv",
            ["net.py", "--network", str(tmp_path / "net.npz"), "--input", str(tmp_path / f"{name}.npy"), "--out", "o.npz"],
        )
        with pytest.raises(SystemExit):
            script.main()
        assert "the network takes 2, of 0 and 1; change the file" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- Brian2 and sPyNNaker


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_brian2_sends_the_spikes_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 random networks and a trained one: recurrent ones, spikes and potentials at the end, equal time constants."""
    try:
        python, _ = install("pynn", tmp_path)
    except NotInstalled as reason:
        pytest.skip(f"pynn: {reason}")
    monkeypatch.setenv(PYTHON, str(python))
    monkeypatch.setenv("PYTHONPATH", "")
    networks = [(random_network(seed), spikes(random_network(seed), seed)) for seed in SEEDS]
    networks += [(graph, spikes(graph, 0)) for graph in hard_networks().values()]
    for graph, x in [*networks, trained_digits()]:
        vendor = api.export(graph, tmp_path / "net.py", to="pynn", x=x)["vendor"]
        assert vendor["mismatches"] == 0 and vendor["simulator"] == "brian2 2.7.1 through pynn 0.13.0"
        assert sum(row["ties"] for row in vendor["layers"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spynnaker_maps_the_script_on_a_board_that_is_not_there(seed: int, tmp_path: Path) -> None:
    """Its virtual board: populations, projections and data of the cores are made, nothing runs."""
    try:
        python, environment = install("spynnaker", tmp_path / "environment")
    except NotInstalled as reason:
        pytest.skip(f"spynnaker: {reason}")
    graph = random_network(seed)
    api.export(graph, tmp_path / "net.py", to="pynn")
    np.save(tmp_path / "spikes.npy", spikes(graph, seed)[:, :1].astype(np.uint8))
    (tmp_path / ".spynnaker.cfg").write_text("[Machine]\nversion = 5\nvirtual_board = True\n[Java]\nuse_java = False\n")
    subprocess.run([python, "-m", "spynnaker.pyNN.setup_pynn"], check=True, capture_output=True, timeout=100, env=environment)
    command = [python, tmp_path / "net.py", "--input", tmp_path / "spikes.npy", "--out", tmp_path / "recorded.npz"]
    environment = {**os.environ, "PYTHONPATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Data from a virtual run will be empty" in done.stdout + done.stderr
    with np.load(tmp_path / "recorded.npz") as recorded:
        assert {name.rpartition(".")[0] for name in recorded.files} == {layer.name for layer in graph.layers if layer.neuron}
