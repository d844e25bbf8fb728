"""A network with sparse weights is the network with the same full ones: counts, verdicts, integers, files."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from spear_deploy.errors import SpearError
from spear_deploy.network import IF, LI, LIF, CubaLI, CubaLIF, Dense, Layer, SparseMatrix, make_sparse, sparse_matrix
from spear_deploy.network.graph import chain
from spear_deploy.pipeline import api
from tests.support.seeds import few_first

NEURONS = {
    "LIF": (LIF(tau_s=0.01, reset="subtract"), LI(tau_s=0.01)),
    "IF": (IF(), IF()),
    "LIF of one step": (LIF(tau_s=1e-3, max_spikes=15), LI(tau_s=1e-3)),
    "CubaLIF": (CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005), CubaLI(tau_mem_s=0.01, tau_syn_s=0.005)),
}
SIZES = (40, 50, 30, 10)
CHIPS = (
    "akd1000", "akd1500", "brainscales2", "catalyst_n1", "generic45nm", "loihi1", "loihi2", "odin", "reckon", "speck2f",
    "spinnaker1", "spinnaker2", "truenorth", "xylo_audio2", "xylo_audio3", "xylo_imu",
)  # fmt: skip
SPIKES = (np.random.default_rng(1).random((20, 2, SIZES[0])) < 0.2).astype(np.float32)


def make_network(kind, form, *, seed=3, signs=(-60, 60), sizes=SIZES, density=0.15):
    """Return layers of weights that are multiples of 1/64, so that sums have one value in any order."""
    rng = np.random.default_rng(seed)
    hidden, last = NEURONS[kind]
    layers = []
    for n, (inputs, outputs) in enumerate(pairwise(sizes)):
        shape = (outputs, inputs)
        weight = np.where(rng.random(shape) < density, rng.integers(*signs, shape) / 64, 0).astype(np.float32)
        neuron = last if n == len(sizes) - 2 else hidden
        layers.append(Layer(name=f"fc{n}", synapse=Dense(weight=form(weight)), neuron=neuron))
    return chain(layers, input_shape=sizes[:1])


def store_sparse(graph):
    def store(layer):
        return replace(layer, synapse=replace(layer.synapse, weight=make_sparse(layer.synapse.weight)))

    return graph.with_layers(lambda layer: store(layer) if isinstance(layer.synapse, Dense) else layer)


def holds_sparse_alone(graph):
    return all(isinstance(layer.synapse.weight, SparseMatrix) for layer in graph.layers if isinstance(layer.synapse, Dense))


def outcome(function, *args, **kwargs):
    """Return the result, or the sentence of the error."""
    try:
        return function(*args, **kwargs)
    except SpearError as error:
        return str(error)


@pytest.fixture
def nothing_is_written_out(monkeypatch):
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)


@pytest.mark.parametrize("kind", NEURONS)
def test_runs_and_counts_are_equal(kind, nothing_is_written_out):
    full, sparse = (make_network(kind, form) for form in (np.asarray, make_sparse))
    assert np.array_equal(api.simulate(sparse, SPIKES).output, api.simulate(full, SPIKES).output)
    assert api.count(sparse, SPIKES, rules=True) == api.count(full, SPIKES, rules=True)


@pytest.mark.parametrize("kind", few_first(NEURONS, 2))
def test_verdicts_of_all_chips_are_equal(kind):
    full, sparse = (make_network(kind, form) for form in (np.asarray, make_sparse))
    for chip in CHIPS:
        assert str(outcome(api.check, sparse, chip)) == str(outcome(api.check, full, chip))


@pytest.mark.parametrize(("kind", "signs"), [*((kind, (-60, 60)) for kind in NEURONS), ("IF", (0, 60))])
def test_integers_of_all_chips_are_equal_and_stay_sparse(kind, signs, nothing_is_written_out):
    full, sparse = (make_network(kind, form, signs=signs) for form in (np.asarray, make_sparse))
    quantised = 0
    for chip in CHIPS:
        expected = outcome(api.quantize_for_chip, full, chip)
        assert outcome(api.quantize_for_chip, sparse, chip) == expected
        if isinstance(expected, str):
            continue
        quantised += 1
        assert holds_sparse_alone(api.quantize_for_chip(sparse, chip))
        stored = store_sparse(expected)
        assert str(outcome(api.check, stored, chip)) == str(outcome(api.check, expected, chip))
        assert outcome(api.count, stored, SPIKES) == outcome(api.count, expected, SPIKES)
        assert np.array_equal(api.simulate(stored, SPIKES).output, api.simulate(expected, SPIKES).output)
    assert quantised >= 4


@pytest.mark.parametrize("kind", few_first(NEURONS, 2))
def test_integers_chosen_on_data_are_equal(kind, nothing_is_written_out):
    full, sparse = (make_network(kind, form) for form in (np.asarray, make_sparse))
    for chip in ("loihi2", "spinnaker1", "truenorth", "xylo_audio2", "speck2f", "reckon"):
        expected = outcome(api.quantize_for_chip, full, chip, calibration=SPIKES)
        assert outcome(api.quantize_for_chip, sparse, chip, calibration=SPIKES) == expected


@pytest.mark.parametrize(
    ("kind", "to", "chip"),
    [
        ("LIF", "nir", None), ("CubaLIF", "nir", "loihi2"), ("CubaLIF", "netx", "loihi2"), ("LIF", "onnx", None),
        ("IF", "speck", "speck2f"), ("CubaLIF", "pynn", "spinnaker1"),
        pytest.param("LIF", "xylo", "xylo_audio2", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_files_are_equal(kind, to, chip, tmp_path):
    ending = {"nir": ".nir", "netx": ".net", "onnx": ".onnx", "xylo": ".npz", "speck": ".json", "pynn": ".py"}[to]
    written = []
    for name, form in (("full", np.asarray), ("sparse", make_sparse)):
        (tmp_path / name).mkdir()
        api.export(make_network(kind, form, sizes=(16, 50, 30, 8)), tmp_path / name / f"net{ending}", to=to, chip=chip)
        written.append({file.name: file.stat().st_size for file in (tmp_path / name).rglob("*") if file.is_file()})
        if to in ("nir", "netx"):
            written[-1]["network"] = api.load(tmp_path / name / f"net{ending}")
    assert written[0] == written[1]


def test_explanations_are_equal(nothing_is_written_out):
    full, sparse = (make_network("LIF", form) for form in (np.asarray, make_sparse))
    assert str(api.explain(sparse, "loihi2", SPIKES)) == str(api.explain(full, "loihi2", SPIKES))
