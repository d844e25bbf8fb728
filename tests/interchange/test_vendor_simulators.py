"""Exports to Xylo and Speck, run by xylosim, rockpool and sinabs."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_deploy.interchange.speck.reader import run_document
from spear_deploy.interchange.xylo.reader import run_xylosim
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv2d, CubaLI, CubaLIF, Dense, Flatten, Layer
from spear_deploy.network.graph import SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.pipeline.adapt import adapt
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.interchange import test_speck_file, test_xylo_file
from tests.support import samna_stand_in
from tests.support.deployments import task
from tests.support.framework_environments import NotInstalled, install

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "to_synsense.md"
SEEDS, BIASED = range(20), 40
XYLO_CHIPS = ("xylo_audio2", "xylo_audio3", "xylo_imu")
MODULES = {"xylo_audio2": "syns61201", "xylo_audio3": "syns65302", "xylo_imu": "syns63300"}

with_xylosim = pytest.mark.skipif(find_spec("xylosim") is None, reason="xylosim is not installed")
with_rockpool = pytest.mark.skipif(
    find_spec("rockpool") is None or find_spec("xylosim") is None, reason="no rockpool and xylosim"
)
with_sinabs = pytest.mark.skipif(find_spec("sinabs") is None, reason="sinabs is not installed")


def trained_digits(family: str) -> tuple[SNNGraph, Any]:
    """Return a network trained on the digits, and samples (T, B, 1, 4, 4) or (T, B, 1, 8, 8) of them."""
    from spear_deploy.data import load_data
    from spear_deploy.training.fit import train

    rng, data = np.random.default_rng(0), load_data("digits")
    if family == "xylo":  # 16 inputs: a spike where any of 2 x 2 pixels has one
        splits = {}
        for name in ("train", "val", "test"):
            x = getattr(data, name).x
            pooled = x.reshape(*x.shape[:-2], 4, 2, 4, 2).max(axis=(-3, -1))
            splits[name] = replace(getattr(data, name), x=pooled)
        data = replace(data, **splits)
        neuron = CubaLIF(tau_mem_s=0.008, tau_syn_s=0.002, w_in=2.0, reset="subtract")
        weights = [rng.normal(size=(60, 16)) / 2, rng.normal(size=(10, 60)) / 4]
        layers = [Layer(name="flat", synapse=Flatten()), Layer(name="hidden", synapse=Dense(weight=weights[0]), neuron=neuron)]
        end: Any = CubaLI(tau_mem_s=0.008, tau_syn_s=0.004)
        layers.append(Layer(name="out", synapse=Dense(weight=weights[1]), neuron=end))
        shape = (1, 4, 4)
    else:
        conv = Conv2d(weight=rng.normal(size=(8, 1, 3, 3)) / 2, bias=np.zeros(8), padding=(1, 1))
        layers = [
            Layer(name="conv", synapse=conv, neuron=IF(reset="subtract")),
            Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))),
        ]
        layers.append(Layer(name="flat", synapse=Flatten()))
        layers.append(Layer(name="out", synapse=Dense(weight=rng.normal(size=(10, 128)) / 8), neuron=IF(reset="subtract")))
        shape = (1, 8, 8)
    graph = train(chain(layers, input_shape=shape), data, epochs=2)
    x = np.moveaxis(data.test.x[:20], 0, 1)
    return graph, x


def any_saturates(graph: SNNGraph, x: Any) -> bool:
    """Return whether a state leaves its bits."""
    return any(sum(counts.values()) for counts in simulate(graph, x).overflows.values())


def list_biased_networks(chip: str) -> Iterator[tuple[SNNGraph, Any]]:
    """Yield networks with biases, others for each chip, and inputs on which no current leaves its bits."""
    seed, found = 1000 * XYLO_CHIPS.index(chip), 0
    while found < BIASED:
        graph = test_xylo_file.random_biased_network(seed)
        x = test_xylo_file.spikes(graph, seed, rate=0.15)
        overflows = api.simulate(graph, x, chip=chip).overflows
        seed += 1
        if not any(counts["u_saturated"] for counts in overflows.values()):
            found += 1
            yield graph, x


def adapted_digits(chip: str, folder: Path, **facts_of_chip: Any) -> tuple[SNNGraph, Any]:
    """Return the integers of the network of LIF and LI that ships, adapted to a chip, and 20 samples (T, B, *input)."""
    facts = adapt("digits", chip, "digits", out=folder / "adapted", epochs=3, overrides=facts_of_chip)
    graph = api.load(folder / "adapted" / facts["files"]["integers"])
    return graph, np.moveaxis(api.data("digits", graph).test.x[:20], 0, 1)


def adapted_small(chip: str, seed: int, folder: Path) -> tuple[SNNGraph, Any]:
    """Return the integers of a small trained network of LIF, LI and biases, adapted to a chip, and 20 samples (T, B, *input)."""
    from spear_deploy.training.fit import train

    rng, data = np.random.default_rng(seed), task(seed)
    sizes = (10, *(int(rng.integers(6, 20)) for _ in range(1 + seed % 2)), 3)
    layers = [
        Layer(
            name=f"n{number}",
            synapse=Dense(weight=rng.normal(size=(b, a)) / np.sqrt(a), bias=rng.normal(size=b) / 20),
            neuron=LIF(tau_s=0.004, v_threshold=0.3) if b != 3 or seed % 3 else LI(tau_s=0.004),
        )
        for number, (a, b) in enumerate(pairwise(sizes))
    ]
    graph = train(chain(layers, input_shape=(10,)), data, epochs=3)
    facts = adapt(graph, chip, data, out=folder / "adapted", epochs=3)
    assert facts["replaced"] and facts["missing"] == [], facts["missing"]
    integers = api.load(folder / "adapted" / facts["files"]["integers"])
    return integers, np.moveaxis(data.test.x[:20], 0, 1)


@with_xylosim
@pytest.mark.parametrize("chip", XYLO_CHIPS)
@pytest.mark.parametrize("seed", SEEDS)
def test_xylosim_sends_the_spikes_of_the_export(chip: str, seed: int, tmp_path: Path) -> None:
    """Two hidden layers, one that feeds itself; outputs that spike, or are read as a potential."""
    graph = test_xylo_file.random_float_network(seed)
    certificate = api.export(graph, tmp_path / "n.npz", to="xylo", chip=chip, x=test_xylo_file.spikes(graph, seed))
    assert certificate["mismatches"] == 0
    assert certificate["vendor"]["mismatches"] == 0 and certificate["vendor"]["simulator"].startswith("xylosim 0.1.3")
    assert {row["layer"] for row in certificate["vendor"]["layers"]} == {"a", "b", "out"}


@with_xylosim
@pytest.mark.parametrize("chip", XYLO_CHIPS)
def test_xylosim_starts_biases_when_the_simulation_does(chip: str, tmp_path: Path) -> None:
    """120 networks over the three chips, up to three hidden layers deep, with feedback over several of them."""
    early = 0
    for graph, x in list_biased_networks(chip):
        certificate = api.export(graph, tmp_path / "n.npz", to="xylo", chip=chip, x=x)
        assert (certificate["mismatches"], certificate["vendor"]["mismatches"]) == (0, 0), graph
        integer = quantize(graph, format="xylo")
        early += any(layer.neuron.early_steps for layer in integer.layers if layer.neuron)  # type: ignore[union-attr]
    assert early > BIASED / 2


@with_xylosim
@pytest.mark.parametrize("chip", ["xylo_audio3", "xylo_imu"])  # Audio 2 has 8 outputs
def test_xylosim_sends_the_spikes_of_a_trained_network(chip: str, tmp_path: Path) -> None:
    graph, x = trained_digits("xylo")
    certificate = api.export(graph, tmp_path / "n.npz", to="xylo", chip=chip, x=x)
    assert (certificate["does_not_fit"], certificate["mismatches"], certificate["vendor"]["mismatches"]) == ([], 0, 0)
    assert [row["compared"] for row in certificate["vendor"]["layers"]] == [x.shape[0] * 20 * n for n in (60, 10)]


@with_xylosim
@pytest.mark.parametrize("chip", ["xylo_audio3", "xylo_imu"])
def test_xylosim_sends_the_spikes_of_an_adapted_network(chip: str, tmp_path: Path) -> None:
    """Sums of pixels, LIF and LI as they are, reset by subtraction, lists in place of convolutions, biases in all layers.

    Samples on which a current leaves its 16 bits are left out: xylosim clips it after each spike, the simulator after all of
    a step.
    """
    graph, x = adapted_digits(chip, tmp_path)
    assert any(layer.neuron and layer.neuron.early_steps for layer in graph.layers)  # type: ignore[union-attr]
    x = x[:, [sample for sample in range(x.shape[1]) if not any_saturates(graph, x[:, [sample]])]]
    assert x.shape[1] >= 10
    certificate = api.export(graph, tmp_path / "n.npz", to="xylo", chip=chip, x=x)
    assert (certificate["does_not_fit"], certificate["mismatches"], certificate["vendor"]["mismatches"]) == ([], 0, 0)


@with_xylosim
@pytest.mark.parametrize("seed", range(6))
def test_xylosim_sends_the_spikes_of_small_adapted_networks(seed: int, tmp_path: Path) -> None:
    chip = XYLO_CHIPS[seed % 3]
    graph, x = adapted_small(chip, seed, tmp_path)
    x = x[:, [sample for sample in range(x.shape[1]) if not any_saturates(graph, x[:, [sample]])]]
    assert x.shape[1] >= 10
    certificate = api.export(graph, tmp_path / "n.npz", to="xylo", chip=chip, x=x)
    assert (certificate["mismatches"], certificate["vendor"]["mismatches"]) == (0, 0)


@with_rockpool
@pytest.mark.parametrize("chip", XYLO_CHIPS)
def test_the_page_s_loader_gives_rockpool_its_arguments(chip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rockpool's own simulator, built from the arrays, sends the same; and its configuration takes every argument."""
    import importlib

    samna_stand_in.install()
    graph = test_xylo_file.random_float_network(3)
    api.export(graph, tmp_path / "net.npz", to="xylo", chip=chip)
    snippet = re.findall(r"```python\n(# rockpool.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(snippet.replace("syns61201", MODULES[chip]), scope)
    assert scope["is_valid"] is True
    arrays = scope["arrays"]
    module = "syns61201" if chip == "xylo_audio2" else "syns63300"  # Audio 3 uses the IMU's
    simulator = importlib.import_module(f"rockpool.devices.xylo.{module}.xylo_sim").XyloSim
    renamed = {("bias" if name == "bias_hidden" else name): value for name, value in arrays.items()}
    model = simulator.from_specification(**renamed, dash_syn_2=np.zeros_like(arrays["dash_syn"]), verify_config=False)
    x = test_xylo_file.spikes(graph, 3)[:, :1].astype(int)
    _, _, recorded = model.evolve(x[:, 0], record=True)
    runs = run_xylosim({name: np.asarray(value) for name, value in arrays.items()}, x)
    assert runs is not None and runs["hidden"].any()
    np.testing.assert_array_equal(recorded["Spikes"], runs["hidden"][:, 0])
    np.testing.assert_array_equal(recorded["Vmem_out"], runs["out_v"][:, 0])


@with_sinabs
@pytest.mark.parametrize("seed", SEEDS)
def test_iaf_squeeze_sends_the_spikes_of_the_export(seed: int, tmp_path: Path) -> None:
    graph = test_speck_file.random_network(seed)
    certificate = api.export(graph, tmp_path / "n.json", to="speck", x=test_speck_file.spikes(graph, seed))
    assert certificate["mismatches"] == 0
    assert certificate["vendor"]["mismatches"] == 0 and certificate["vendor"]["simulator"].startswith("sinabs 3.1.3")


@with_sinabs
def test_iaf_squeeze_sends_the_spikes_of_a_trained_network(tmp_path: Path) -> None:
    graph, x = trained_digits("speck")
    kind = "spikes" if (x == np.rint(x)).all() else "current"
    certificate = api.export(graph, tmp_path / "n.json", to="speck", x=x, kind=kind)
    assert (certificate["does_not_fit"], certificate["mismatches"], certificate["vendor"]["mismatches"]) == ([], 0, 0)


@with_sinabs
def test_iaf_squeeze_sends_the_spikes_of_an_adapted_network(tmp_path: Path) -> None:
    """LIF became IF, the readout counted spikes: the integers of the chip against sinabs' own layers."""
    graph, x = adapted_digits("speck2f", tmp_path)
    assert {type(layer.neuron).__name__ for layer in graph.layers if layer.neuron} == {"SpeckIF"}
    certificate = api.export(graph, tmp_path / "n.json", to="speck", chip="speck2f", x=x)
    assert (certificate["does_not_fit"], certificate["mismatches"], certificate["vendor"]["mismatches"]) == ([], 0, 0)


@with_sinabs
@pytest.mark.parametrize("seed", range(6))
def test_iaf_squeeze_sends_the_spikes_of_small_adapted_networks(seed: int, tmp_path: Path) -> None:
    graph, x = adapted_small("speck2f", seed, tmp_path)
    certificate = api.export(graph, tmp_path / "n.json", to="speck", chip="speck2f", x=x)
    assert (certificate["mismatches"], certificate["vendor"]["mismatches"]) == (0, 0)
    assert sum(row["compared"] for row in certificate["vendor"]["layers"]) > 0


@with_sinabs
@pytest.mark.parametrize("seed", [1, 2, 3, 5, 6, 7])
def test_the_page_s_script_maps_the_integers_without_quantising_anew(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DynapcnnNetwork of the script sends the export's spikes, and its configuration holds the export's integers."""
    import torch

    samna_stand_in.install()
    from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder

    graph = test_speck_file.random_network(seed)
    x = test_speck_file.spikes(graph, seed)[:, :1]
    api.export(graph, tmp_path / "net.json", to="speck", x=x)
    snippet = re.findall(r"```python\n(# sinabs.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    network, document = scope["network"], json.loads((tmp_path / "net.json").read_text())
    with torch.no_grad():
        spikes = network(torch.as_tensor(x[:, 0]).float()).numpy()
    ours = run_document(document, x)[document["output"]][:, 0]
    np.testing.assert_array_equal(spikes.reshape(ours.shape), ours)
    assert ours.any() or seed == 6
    for index, entry in enumerate(document["layers"]):
        destinations = [d if d in network.dynapcnn_layers else -1 for d in network.layer_destination_map[index]]
        config = DynapcnnConfigBuilder.get_dynapcnn_layer_config_dict(
            network.dynapcnn_layers[index], scope["cores"], destinations
        )
        assert np.array_equal(np.swapaxes(config["weights"], 2, 3), entry["weight"])
        assert config["biases"] == (entry["bias"] or [0] * len(entry["weight"]))
        assert (config["threshold_high"], config["threshold_low"]) == (entry["threshold"], entry["min_v_mem"])
        assert config["return_to_zero"] == (entry["reset"] == "zero")
        pools = [d["pooling"] for d in config["destinations"]]
        assert pools == [d["pool"] for d in entry["destinations"]]
        assert scope["cores"][index] == entry["core"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("framework", "words"), [("xylo", "xylosim or rockpool"), ("sinabs", "iaf or page_s_script")])
def test_the_makers_packages_agree_in_an_environment_that_has_them(framework: str, words: str, tmp_path: Path) -> None:
    try:
        python, environment = install(framework, tmp_path)
    except NotInstalled as reason:
        pytest.skip(f"{framework}: {reason}")
    command = [python, "-m", "pytest", __file__, "-n", "0", "-p", "no:cacheprovider", "-W", "ignore", "-rs", "-k", words]
    completed = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2], timeout=1800, check=False
    )
    assert completed.returncode == 0, completed.stdout[-3000:]
    assert "SKIPPED" not in completed.stdout
