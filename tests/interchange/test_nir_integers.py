"""Loihi's integers as NIR's real numbers, and back."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange import export
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.interchange.nir.integers import INTEGERS_KEY
from spear_deploy.interchange.nir.reader import _check_options, _make_network, read_nir
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.network import IF, LIF, Conv2d, Dense, Flatten, Layer, LoihiLIF, Scale, SumPool, make_sparse
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from spear_deploy.util.hdf5.tree import decode_text, read_tree
from tests.support.reference import random_spikes

RNG = np.random.default_rng(0)
DT_S = 1e-3


def chain_of(*layers, shape):
    return chain(layers, input_shape=shape, dt_s=DT_S)


def images(**more):
    """Return a convolution, a pool and two dense layers of floating-point neurons."""
    layers = (
        Layer(
            name="c", synapse=Conv2d(weight=RNG.normal(size=(3, 1, 3, 3)), bias=RNG.normal(size=3)), neuron=IF(reset="subtract")
        ),
        Layer(name="p", synapse=SumPool(kernel_size=(2, 2))),
        Layer(name="f", synapse=Flatten()),
        Layer(name="d", synapse=Dense(weight=RNG.normal(size=(5, 12))), neuron=LIF(tau_s=DT_S, **more)),
        Layer(name="out", synapse=Dense(weight=RNG.normal(size=(2, 5))), neuron=IF()),
    )
    return chain_of(*layers, shape=(1, 6, 6))


def loop():
    """Return a layer with recurrent weights, and a skip with a delay."""
    layers = (
        Layer(name="in", synapse=Dense(weight=RNG.integers(-40, 90, (4, 3)))),
        Layer(name="rec", synapse=Dense(weight=RNG.integers(-40, 40, (4, 4)), weight_exponent=1)),
        Layer(name="a", neuron=loihi(v_threshold=40, v_reset=-64, decay_v=4096)),
        Layer(name="b", synapse=Dense(weight=make_sparse(np.eye(4, dtype=np.int64) * 9)), neuron=loihi(reset="subtract")),
    )
    edges = (("input", "in", 0), ("in", "a", 0), ("a", "rec", 1), ("rec", "a", 0), ("a", "b", 0), ("in", "b", 2))
    return SNNGraph(
        layers=layers,
        edges=tuple(Edge(source=a, target=b, delay=d) for a, b, d in edges),
        input_shape=(3,),
        dt_s=DT_S,
        output="b",
    )


def change(path, place, value):
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = value


@pytest.mark.parametrize("decay_v", [0, 4096])
def test_integers_without_truncation_are_exact(decay_v, tmp_path):
    rng = np.random.default_rng(decay_v)
    neuron = LoihiLIF(decay_u=4096, decay_v=decay_v, v_threshold=30, bias_mantissa=rng.integers(-99, 200, 6), reset="subtract")
    out = LoihiLIF(decay_u=4096, decay_v=4096, v_threshold=None)
    graph = chain_of(
        Layer(name="a", synapse=Dense(weight=rng.integers(-50, 50, (6, 8)), weight_exponent=1, bias=np.arange(6)), neuron=neuron),
        Layer(name="b", synapse=Dense(weight=rng.integers(-50, 50, (2, 6))), neuron=out),
        shape=(8,),
    )
    write_nir(graph, tmp_path / "a.nir")
    x = random_spikes(graph, 1, steps=40)
    one, two = (simulate(g, x, record=("spikes",)) for g in (graph, read_nir(tmp_path / "a.nir", integers=False)))
    assert np.array_equal(one.spikes["a"], two.spikes["a"]) and one.spikes["a"].any()
    assert np.array_equal(one.output, two.output) and one.output.any()


def test_a_readout_of_integers_hands_out_the_stored_integers(tmp_path):
    weight = np.arange(-8, 8).reshape(2, 8)
    for bias in (0, 37):
        neuron = LoihiLIF(decay_u=4096, decay_v=4096, v_threshold=None, bias_mantissa=bias)
        graph = chain_of(Layer(name="out", synapse=Dense(weight=weight), neuron=neuron), shape=(8,))
        certificate = export(graph, tmp_path / "a.nir", to="nir")
        assert certificate["mismatches"] == 0 and certificate["layers"][0]["compared"] > 0


def loihi(**more):
    return LoihiLIF(**{"decay_u": 4096, "decay_v": 0, "v_threshold": 5, **more})


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Layer(name="a", synapse=Dense(weight=np.ones((2, 2), int)), neuron=loihi(decay_v=100)), "'a': integer decays truncate"),
        (
            Layer(name="a", synapse=Dense(weight=np.ones((2, 2), int)), neuron=loihi(v_threshold=None)),
            "'a': integer decays truncate",
        ),
        (Layer(name="a", neuron=loihi(bias_mantissa=1)), "'a': a bias without weights has no place in NIR"),
        (Layer(name="a", synapse=Scale(weight=np.array(2)), neuron=loihi()), "'a': rounds its input, NIR cannot"),
        (
            Layer(name="a", synapse=Dense(weight=np.ones((2, 2), int), weight_exponent=-1), neuron=loihi()),
            "'a': its sum is shifted down",
        ),
    ],
)
def test_integers_that_nir_cannot_express_are_refused(layer, match, tmp_path):
    with pytest.raises(UnsupportedError, match=match + ".*; export the floating-point network"):
        write_nir(chain_of(layer, shape=(2,)), tmp_path / "a.nir")
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- and back


@pytest.mark.parametrize("make", [lambda: quantize(images(), format="loihi"), loop], ids=["quantised images", "loop"])
def test_integers_are_read_back_as_written(make, tmp_path):
    graph = make()
    certificate = export(graph, tmp_path / "a.nir", to="nir")
    assert certificate["mismatches"] == 0
    again = read_nir(tmp_path / "a.nir")
    assert again.layers == graph.layers and set(again.edges) == set(graph.edges)
    assert again.metadata == {**graph.metadata, "assumptions": again.metadata["assumptions"]}
    assert find_chip_format(again) == "loihi" and quantize(again, format="loihi") is again
    with pytest.raises(UnsupportedError, match="quantised for loihi, numbers of speck differ"):
        quantize(again, format="speck")


def test_the_proof_of_a_file_of_integers_runs_its_real_numbers(tmp_path, monkeypatch):
    """Other readers see these alone: a file with right integers in its metadata and a wrong weight is no good file."""
    from spear_deploy.interchange import certificate
    from spear_deploy.interchange.nir import integers

    graph = quantize(images(), format="loihi")
    write_nir(graph, tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        file["node/nodes/d.synapse/weight"][...] *= -1
    monkeypatch.setattr(integers, "_is_made_of", lambda *_: True)
    assert find_chip_format(read_nir(tmp_path / "a.nir")) == "loihi"
    assert certificate.certify(graph, tmp_path / "a.nir", format="nir")["mismatches"] > 0


@pytest.mark.parametrize(
    ("place", "value", "layer"),
    [
        ("node/nodes/out.synapse/weight", np.full((2, 5), 7.5, "f4"), "out"),
        ("node/nodes/c.synapse/bias", np.full(3, 0.25, "f4"), "c"),
        ("node/nodes/d/v_threshold", np.full(5, 0.25), "d"),
        ("node/nodes/d/tau", np.full(5, 2 * DT_S), "d"),
    ],
)
def test_integers_that_another_tool_changed_are_not_quantised(place, value, layer, tmp_path):
    graph = quantize(images(), format="loihi")
    write_nir(graph, tmp_path / "a.nir")
    change(tmp_path / "a.nir", place, value)
    again = read_nir(tmp_path / "a.nir")
    note = f"the network was quantised for loihi, layer '{layer}' holds other numbers now: it is read as not quantised"
    assert note in again.metadata["assumptions"] and find_chip_format(again) is None and "quantization" not in again.metadata
    assert quantize(again, format="loihi") is not again


def test_other_whole_weights_are_still_integers_of_the_chip(tmp_path):
    graph = quantize(images(), format="loihi")
    write_nir(graph, tmp_path / "a.nir")
    change(tmp_path / "a.nir", "node/nodes/out.synapse/weight", np.full((2, 5), 7.0, "f4"))
    again = read_nir(tmp_path / "a.nir")
    assert find_chip_format(again) == "loihi" and (again["out"].synapse.weight == 7).all()


def test_a_file_that_states_no_integers_says_what_is_lost(tmp_path):
    graph = quantize(images(), format="loihi")
    write_nir(graph, tmp_path / "a.nir")
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        del file["node/metadata"][INTEGERS_KEY]
    note = "the network was quantised for loihi, the file does not state its integers: it is read as not quantised"
    again = read_nir(tmp_path / "a.nir")
    assert note in again.metadata["assumptions"] and find_chip_format(again) is None
    assert "quantised" not in " ".join(read_nir(tmp_path / "a.nir", integers=False).metadata["assumptions"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "Expecting property name"),
        ("[]", "'list' object has no attribute 'keys'"),
        ('{"a": {"neuron": {"decay_u": 4096}}}', "missing 2 required"),
        ('{"a": {"neuron": {"decay_u": 9999, "decay_v": 0, "v_threshold": 1}}}', "the format holds 0..4096"),
        ('{"a": {"neuron": {"decay_u": [4096, 4096, 4096], "decay_v": 0, "v_threshold": 5}}}', "does not broadcast"),
        ('{"a": {"weights": {"exponent": 0, "type": "O", "bias": null}}}', "numbers of type 'O'"),
        ('{"a": {"weights": {"exponent": 1e999, "type": "int8", "bias": null}}}', "inf where a whole number belongs"),
        ('{"a": {"weights": {"exponent": -5000, "type": "int8", "bias": null}}}', "an exponent of -5000"),
        ('{"a": {"weights": {"exponent": 0, "type": "int8", "bias": {"type": "int8", "values": [1, 2, 3]}}}}', "bias"),
    ],
)
def test_damaged_metadata_of_integers_is_refused(text, what, tmp_path):
    layer = Layer(name="a", synapse=Dense(weight=np.ones((2, 2), int)), neuron=loihi())
    write_nir(chain_of(layer, shape=(2,)), tmp_path / "a.nir")
    change(tmp_path / "a.nir", f"node/metadata/{INTEGERS_KEY}", text)
    with pytest.raises(GraphError, match=f"metadata 'spear_integers' is damaged .*{what}.*; export the network again"):
        read_nir(tmp_path / "a.nir")


def places(value, path=()):
    """Yield the path of every entry of plain data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::DeprecationWarning:spear_deploy")
def test_every_entry_of_the_metadata_replaced_is_read_or_refused(tmp_path):
    graph = quantize(images(), format="loihi")
    write_nir(graph, tmp_path / "a.nir")
    tree = read_tree(tmp_path / "a.nir", "NIR file")
    text = decode_text(tree["node"]["metadata"][INTEGERS_KEY])
    read, refused = 0, 0
    for path in places(json.loads(text)):
        for value in (None, True, -1, 2**70, 1e308, "int8", [], [[1], [2, 3]], {}, [0.5]):
            rows = parent = json.loads(text)
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
            stated = {**tree["node"]["metadata"], INTEGERS_KEY: json.dumps(rows)}
            try:
                again = _make_network({"node": {**tree["node"], "metadata": stated}}, _check_options(None, None, None))
            except GraphError as error:
                assert "metadata 'spear_integers' is damaged" in str(error) and "\n" not in str(error)
                refused += 1
                continue
            assert (find_chip_format(again) == "loihi") != any("not quantised" in note for note in again.metadata["assumptions"])
            read += 1
    assert read > 20 and refused > 100


def test_a_quantization_that_is_no_dictionary_is_refused(tmp_path):
    write_nir(images(), tmp_path / "a.nir")
    change(tmp_path / "a.nir", "node/metadata/spear_deploy", '{"quantization": "loihi"}')
    with pytest.raises(GraphError, match="metadata 'spear_deploy' holds a quantization that is no dictionary"):
        read_nir(tmp_path / "a.nir")


# -------------------------------------------------------------------------------------------------------- for a framework


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs"])
def test_files_for_a_framework_keep_the_integers(framework, tmp_path):
    layers = [
        Layer(name=name, synapse=Dense(weight=RNG.integers(-40, 90, (4, 4))), neuron=loihi(v_threshold=70, reset="subtract"))
        for name in ("a", "b")
    ]
    graph = chain_of(*layers, shape=(4,))
    advice = write_dialect(graph, tmp_path / "a.nir", framework=framework)
    again = read_nir(tmp_path / "a.nir")
    assert again.layers == graph.layers and find_chip_format(again) == "loihi", advice
    assert not any("numbers" in text for text in advice.differences)
