"""NIR files for one framework's importer: what they hold, what is refused, and how they are read back here."""

import json
from dataclasses import replace

import nir
import numpy as np
import pytest
from click.testing import CliRunner

from spear_deploy.cli.app import main
from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange import export
from spear_deploy.interchange.nir.dialect_writer import make_dialect_graph, write_dialect
from spear_deploy.interchange.nir.dialects import DIALECTS
from spear_deploy.interchange.nir.reader import read_nir, read_nir_graph
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Layer,
    Scale,
    SumPool,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate

RNG = np.random.default_rng(0)
LEAKY = LIF(tau_s=np.asarray(5e-3), r=np.asarray(5.0))
CUBA = CubaLIF(tau_mem_s=np.asarray(8e-3), tau_syn_s=np.asarray(4e-3), r=np.asarray(8.0), w_in=np.asarray(3.0), reset="subtract")
NEURONS = {"snntorch": LEAKY, "spikingjelly": LEAKY, "sinabs": replace(LEAKY, reset="subtract"), "rockpool": CUBA, "norse": LEAKY}


def weights(*shape):
    return (RNG.normal(0.2, 0.5, shape)).astype(np.float32)


def dense(name="fc", outputs=5, inputs=4, neuron=LEAKY, **parts):
    return Layer(name=name, synapse=Dense(weight=weights(outputs, inputs)), neuron=neuron, **parts)


def recurrent(neuron, *, bias=None, synapse=None, size=5):
    synapse = synapse or Dense(weight=weights(size, size) / 3, bias=bias)
    layers = (
        Layer(name="fc", synapse=Dense(weight=weights(size, 4))),
        Layer(name="back", synapse=synapse),
        Layer(name="lif", neuron=neuron),
        dense("out", 3, size, neuron),
    )
    edges = [("input", "fc", 0), ("fc", "lif", 0), ("back", "lif", 0), ("lif", "back", 1), ("lif", "out", 0)]
    return SNNGraph(layers=layers, edges=tuple(Edge(source=a, target=b, delay=d) for a, b, d in edges), input_shape=(4,))


def joined(*edges, layers, shape=(4,), output=""):
    made = tuple(Edge(source=a, target=b, delay=d) for a, b, d in edges)
    return SNNGraph(layers=layers, edges=made, input_shape=shape, output=output)


def image(neuron):
    norm = BatchNorm(weight=np.full(3, 1.2), bias=np.full(3, 0.1), mean=np.full(3, 0.1), var=np.full(3, 0.7))
    return chain(
        [
            Layer(name="c1", synapse=Conv2d(weight=weights(3, 1, 3, 3), padding=(1, 1)), norm=norm, neuron=neuron),
            Layer(name="mean", synapse=AvgPool(kernel_size=(2, 2))),
            Layer(name="c2", synapse=Conv2d(weight=weights(3, 3, 3, 3), padding=(1, 1)), neuron=neuron),
            Layer(name="any", synapse=SumPool(kernel_size=(2, 2)), neuron=IF(v_threshold=0.5, reset=neuron.reset)),
            dense("fc", 5, 12, neuron),
        ],
        input_shape=(1, 8, 8),
    )


@pytest.mark.parametrize("framework", DIALECTS)
def test_a_file_is_read_back_as_its_importer_reads_it(framework, tmp_path):
    graph = recurrent(NEURONS[framework]) if framework != "sinabs" else chain([dense(neuron=NEURONS["sinabs"])], input_shape=(4,))
    certificate = export(graph, tmp_path / "net.nir", to="nir", framework=framework)
    assert certificate["mismatches"] == 0 and certificate["not_compared"] == [] and certificate["for"] == framework
    assert sum(row["spikes"] for row in certificate["layers"]) > 20
    text = " ".join(read_nir(tmp_path / "net.nir").metadata["assumptions"])
    assert f"written for {DIALECTS[framework].title}'s importer" in text
    with pytest.raises(UnsupportedError, match="was written by spear-deploy and needs none"):
        read_nir(tmp_path / "net.nir", source="snntorch")


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs", "norse"])
def test_an_image_network_with_batch_norm_and_pools_is_read_back(framework, tmp_path):
    neuron = LEAKY if framework != "norse" else replace(LEAKY, r=np.asarray(1.0), v_threshold=np.asarray(0.25))
    certificate = export(image(neuron), tmp_path / "net.nir", to="nir", framework=framework)
    assert certificate["mismatches"] == 0 and sum(row["spikes"] for row in certificate["layers"]) > 100
    assert "layer 'c1': batch norm is folded into the weights and rounded to float32" in certificate["approximations"]


@pytest.mark.parametrize("framework", DIALECTS)
def test_time_step_order_scales_and_missing_biases_come_back(framework, tmp_path):
    """A step of 2 ms came back as 0.1 or 1 ms, layers by name, a scale as a matrix, and no bias as zeros, which take memory."""
    neuron = CUBA if framework == "rockpool" else replace(NEURONS[framework], tau_s=np.asarray(1e-2))
    layers = [
        dense("z", 4, 4, neuron),
        Layer(name="y", synapse=Scale(weight=np.full(4, 4.0, np.float32)), neuron=neuron),
        dense("x", 3, 4, neuron),
    ]
    layers[0], layers[2] = (replace(n, synapse=Dense(weight=3 * np.abs(n.synapse.weight))) for n in layers[::2])
    graph = chain(layers, input_shape=(4,), dt_s=2e-3)
    write_dialect(graph, tmp_path / "net.nir", framework=framework)
    again = read_nir(tmp_path / "net.nir")
    assert [layer.name for layer in again.layers] == ["z", "y", "x"] and again.dt_s == 2e-3
    assert again["y"].synapse == graph["y"].synapse and again["x"].synapse == graph["x"].synapse
    x = RNG.random((20, 3, 4)) < 0.5
    for name, spikes in simulate(graph, x, record=("spikes",)).spikes.items():
        np.testing.assert_array_equal(spikes, simulate(again, x, record=("spikes",)).spikes[name])
        assert spikes.any()
    assert read_nir(tmp_path / "net.nir", dt_s=1e-3).dt_s == 1e-3


def test_a_time_step_below_zero_in_the_metadata_is_refused():
    built, _ = make_dialect_graph(chain([dense()], input_shape=(4,), dt_s=2e-3), "norse")
    built.metadata["network_dt_s"] = -1.0
    with pytest.raises(GraphError, match="metadata 'network_dt_s' is -1, a time step is above 0 s; export the network again"):
        read_nir_graph(built)


def test_a_reset_is_no_node_but_a_line_to_run_after_the_import(tmp_path):
    late = replace(LEAKY, reset="subtract", reset_delay=1)
    built, advice = make_dialect_graph(chain([dense("a", neuron=late), dense("b", 3, 5, late)], input_shape=(4,)), "snntorch")
    assert {type(node).__name__ for node in built.nodes.values()} == {"Input", "Linear", "LIF", "Output"}
    lif = built.nodes["a"]
    np.testing.assert_allclose(lif.r * 1e-4, lif.tau, rtol=1e-6)
    assert advice.statements == (
        "for m in map(net.get_submodule, ['a', 'b']): "
        'm.reset_mechanism, m.reset_delay, m.state_function = "subtract", True, m._base_sub',
    )
    _, advice = make_dialect_graph(chain([dense(neuron=replace(late, reset_delay=0))], input_shape=(4,)), "snntorch")
    assert "takes the next spike's threshold off before the comparison" in advice.differences[0]


def test_files_for_sinabs_and_rockpool_have_no_reset_value(tmp_path):
    h5py = pytest.importorskip("h5py")
    for framework, there in (("sinabs", False), ("rockpool", False), ("norse", True)):
        path = tmp_path / f"{framework}.nir"
        write_dialect(chain([dense(neuron=NEURONS[framework])], input_shape=(4,)), path, framework=framework)
        with h5py.File(path) as file:
            assert ("v_reset" in file["node/nodes/fc"]) == there


def test_rockpools_time_step_follows_from_r_as_its_importer_takes_it():
    graph = chain(
        [dense(neuron=CUBA), dense("b", 3, 5, replace(CUBA, tau_mem_s=np.asarray(3e-3), r=np.asarray(3.0)))], input_shape=(4,)
    )
    built, _ = make_dialect_graph(graph, "rockpool")
    for name in ("fc", "b"):
        node = built.nodes[name]
        np.testing.assert_allclose(node.tau_mem / (1 + node.r), graph.dt_s, rtol=1e-6)


def test_an_input_that_counts_by_another_factor_puts_the_membrane_into_other_units(tmp_path):
    neuron = LIF(tau_s=np.asarray(5e-3), r=np.asarray(2.5), v_threshold=np.asarray(0.8))
    graph = chain([dense(neuron=neuron)], input_shape=(4,))
    certificate = export(graph, tmp_path / "net.nir", to="nir", framework="snntorch")
    assert certificate["mismatches"] == 0
    assert certificate["approximations"] == ["layer 'fc': its membrane is in other units there, which its spikes do not show"]
    assert nir.read(tmp_path / "net.nir").nodes["fc"].v_threshold[0] == pytest.approx(1.6)


def test_a_mean_becomes_a_sum_whose_factor_the_weights_take(tmp_path):
    graph = image(replace(LEAKY, reset="subtract"))
    built, _ = make_dialect_graph(graph, "sinabs")
    assert type(built.nodes["mean"]).__name__ == "SumPool2d"
    np.testing.assert_array_equal(built.nodes["c2.synapse"].weight, graph["c2"].synapse.weight / 4)
    pooled = chain([Layer(name="p", synapse=AvgPool(kernel_size=(2, 2)), neuron=IF(reset="subtract"))], input_shape=(1, 4, 4))
    assert make_dialect_graph(pooled, "sinabs")[0].nodes["p"].v_threshold.max() == pytest.approx(4)


def test_the_bias_of_recurrent_weights_goes_to_the_weights_before(tmp_path):
    graph = recurrent(LEAKY, bias=np.full(5, 0.25, np.float32))
    built, _ = make_dialect_graph(graph, "spikingjelly")
    np.testing.assert_array_equal(built.nodes["fc"].bias, np.full(5, 0.25))
    assert type(built.nodes["back"]).__name__ == "Linear"
    assert export(graph, tmp_path / "net.nir", to="nir", framework="spikingjelly")["mismatches"] == 0


def test_edges_are_in_the_order_in_which_norses_importer_runs_them():
    layers = (dense("a", 5, 4), dense("b", 5, 5), dense("c", 3, 5))
    graph = joined(("input", "a", 0), ("a", "c", 0), ("a", "b", 0), ("b", "c", 0), layers=layers)
    built, _ = make_dialect_graph(graph, "norse")
    assert built.edges.index(("a", "b.synapse")) < built.edges.index(("a", "c.synapse"))


def lif(**changes):
    return chain([dense(neuron=replace(LEAKY, **changes))], input_shape=(4,))


def one(layer, shape=(4,)):
    return chain([layer], input_shape=shape)


def pool(**options):
    return chain(
        [Layer(name="p", synapse=SumPool(kernel_size=(2, 2), **options)), dense("fc", 3, 16 if not options else 36)],
        input_shape=(4, 4, 4),
    )


SPREAD = np.array([1.0, 1.0, 1.0, 1.0, 0.5])
TWO = (dense("a", 5, 4), dense("b", 5, 4), dense("c", 3, 5))
REFUSED = [
    ("snntorch", lambda: lif(r=np.asarray(-5.0)), "layer 'fc', for snnTorch: its input counts by a factor of 0 or less"),
    ("snntorch", lambda: lif(v_threshold=SPREAD), "its threshold differs between neurons, the importer takes one a layer"),
    ("snntorch", lambda: lif(v_reset=np.asarray(0.25)), "v_reset is 0.25, the importer takes 0; train with 0"),
    (
        "snntorch",
        lambda: lif(tau_s=np.asarray(5e-4)),
        r"the time constant \(tau\) of its membrane is 0.5 dt, the importer takes 1 dt or more; train with a longer one",
    ),
    ("snntorch", lambda: lif(v_threshold=np.asarray(-1.0)), "its threshold is below 0"),
    ("snntorch", lambda: one(dense(neuron=LI(tau_s=np.asarray(5e-3)))), "snnTorch's importer has no readout without spikes"),
    ("spikingjelly", lambda: one(dense(neuron=LI(tau_s=np.asarray(5e-3)))), "SpikingJelly's importer has no readout"),
    ("spikingjelly", lambda: lif(v_leak=np.asarray(0.1)), "v_leak is not v_reset, which are one in SpikingJelly"),
    ("spikingjelly", lambda: one(dense(neuron=replace(CUBA, reset="value", v_reset=np.asarray(0.1)))), "v_reset is not 0, from"),
    (
        "spikingjelly",
        lambda: lif(tau_s=np.asarray(1e-3)),
        r"the time constant \(tau\) of its membrane is 1 dt, the importer takes more than 1 dt",
    ),
    (
        "spikingjelly",
        lambda: lif(reset="subtract", reset_delay=1),
        "one step late, SpikingJelly's neurons in the step of the spike; train with reset='value'",
    ),
    (
        "spikingjelly",
        lambda: one(dense(neuron=IF(v_min=np.asarray(-1.0)))),
        "its membrane has a lower bound, which only sinabs has",
    ),
    *(
        (
            name,
            lambda neuron=neuron: one(dense(neuron=replace(neuron, v_init=np.asarray(0.25)))),
            "its potential starts at 0.25, that of",
        )
        for name, neuron in NEURONS.items()
    ),
    (
        "norse",
        lambda: one(dense(neuron=replace(LEAKY, v_leak=np.asarray(0.5), v_init=np.asarray(0.0)))),
        "its potential starts at 0, that of Norse's neurons at 0.5; let it start there",
    ),
    (
        "spikingjelly",
        lambda: one(dense(neuron=IF(reset="subtract", v_reset=np.asarray(-0.25)))),
        "its potential starts at -0.25, that of SpikingJelly's neurons at 0; let it start there",
    ),
    ("sinabs", lambda: one(dense(neuron=CUBA)), "CubaLIF has no place in sinabs' importer"),
    ("sinabs", lambda: one(dense(neuron=LI(tau_s=np.asarray(5e-3)))), "its input does not count in full, as in sinabs' importer"),
    ("rockpool", lambda: lif(), "LIF has no place in Rockpool's importer, which reads LIFTorch alone"),
    (
        "rockpool",
        lambda: one(dense(neuron=replace(CUBA, reset="value"))),
        "subtract their threshold; train with reset='subtract'",
    ),
    (
        "norse",
        lambda: one(dense(neuron=CubaLI(tau_mem_s=np.asarray(5e-3), tau_syn_s=np.asarray(5e-3)))),
        "Norse's importer has no",
    ),
    ("norse", lambda: one(dense(neuron=IF(reset="subtract"))), "Norse's IAFCell is set to 0; train with reset='value'"),
    (
        "norse",
        lambda: replace(one(dense(neuron=IF(reset="none"))), metadata={"source": "snntorch"}),
        "it has no reset, Norse's neurons reset when they spike; train with reset_mechanism='zero'",
    ),
    (
        "sinabs",
        lambda: replace(one(dense(neuron=IF(reset="none"))), metadata={"source": "snntorch"}),
        "train with reset_mechanism='zero' or reset_mechanism='subtract'",
    ),
    (
        "norse",
        lambda: replace(lif(max_spikes=None), metadata={"source": "sinabs"}),
        "it sends several spikes in a step, Norse's neurons one; train with spike_fn=SingleSpike",
    ),
    ("snntorch", lambda: lif(max_spikes=3), "it sends several spikes in a step, snnTorch's neurons one; train with max_spikes=1"),
    ("norte", lambda: lif(), "for 'norte': expected one of snntorch, .*; did you mean 'norse'"),
    (
        "norse",
        lambda: one(Layer(name="n", norm=BatchNorm(weight=np.ones(4), bias=np.ones(4), mean=np.ones(4), var=np.ones(4)))),
        "layer 'n': a batch norm without weights in front has no place in Norse's NIR",
    ),
    (
        "sinabs",
        lambda: one(Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))), (1, 4, 4)),
        "sinabs's importer has no average pool",
    ),
    (
        "spikingjelly",
        lambda: joined(
            ("input", "lif", 0),
            ("back", "lif", 0),
            ("lif", "back", 1),
            layers=(Layer(name="lif", neuron=LEAKY), Layer(name="back", synapse=Dense(weight=weights(4, 4), bias=np.ones(4)))),
            output="lif",
        ),
        "no weights before 'lif' can take it",
    ),
    (
        "snntorch",
        lambda: joined(
            ("input", "a", 0),
            ("a", "s", 0),
            ("a", "t", 0),
            ("s", "b", 0),
            ("t", "b", 0),
            layers=(dense("a", 5, 4), Layer(name="s"), Layer(name="t"), dense("b", 3, 5)),
        ),
        "layer 'b', for snnTorch: gets the same spikes twice",
    ),
    (
        "snntorch",
        lambda: joined(("input", "a", 0), ("input", "b", 0), ("a", "s", 0), ("b", "s", 0), layers=(*TWO[:2], Layer(name="s"))),
        "layer 's', for snnTorch: adds outputs up behind the last node",
    ),
    (
        "sinabs",
        lambda: recurrent(NEURONS["sinabs"]),
        "layer 'lif', for sinabs: has recurrent weights, which the importer cannot run",
    ),
    (
        "snntorch",
        lambda: joined(("input", "a", 1), layers=(dense("a"),)),
        "'input' -> 'a': 1 steps of delay have no place in snnTorch",
    ),
    (
        "norse",
        lambda: joined(("input", "a", 0), ("a", "b", 0), ("a", "c", 0), layers=(dense("a", 4, 4), *TWO[1:2], dense("c", 3, 4))),
        "layer 'b', for Norse: feeds nothing and is not the output",
    ),
    (
        "norse",
        lambda: chain([dense("a.b", 5, 4), dense("a_b", 3, 5)], input_shape=(4,)),
        "layer 'a_b.synapse', for Norse: its name is 'a_b_synapse' there",
    ),
    (
        "norse",
        lambda: one(Layer(name="k", synapse=Conv1d(weight=weights(2, 1, 3)), neuron=LEAKY), (1, 8)),
        "Conv1d has no place in its",
    ),
    (
        "snntorch",
        lambda: one(Layer(name="s", synapse=Scale(weight=weights(1, 4, 4)), neuron=LEAKY), (1, 4, 4)),
        "Scale has no place",
    ),
    (
        "spikingjelly",
        lambda: one(Layer(name="p", synapse=SumPool(kernel_size=(2,)), neuron=LEAKY), (2, 8)),
        "pools over one axis",
    ),
    ("spikingjelly", lambda: pool(padding=(1, 1)), "pads the sums of a pool, which the importer leaves out"),
    ("rockpool", lambda: chain([dense("fc", 3, 16, CUBA)], input_shape=(1, 4, 4)), "Flatten has no place in its importer"),
    (
        "norse",
        lambda: one(Layer(name="d", synapse=Conv2d(weight=weights(2, 1, 3, 3), groups=2), neuron=LEAKY), (2, 5, 5)),
        "is a convolution in 2 groups, its importer reads one group",
    ),
    (
        "sinabs",
        lambda: one(
            Layer(
                name="c",
                synapse=Conv2d(weight=weights(2, 1, 3, 3)),
                neuron=replace(LEAKY, reset="subtract", v_threshold=np.array([[[1.0]], [[2.0]]])),
            ),
            (1, 5, 5),
        ),
        "v_threshold differs between neurons of an image",
    ),
    (
        "norse",
        lambda: joined(
            ("input", "a", 0),
            ("a", "b", 0),
            ("a", "b2", 0),
            ("b", "c", 0),
            ("b2", "c", 0),
            layers=(dense("a", 5, 4), dense("b", 5, 5), dense("b2", 5, 5), dense("c", 3, 5)),
        ),
        "adds up ways of which its importer runs 'b2' after it",
    ),
]


@pytest.mark.parametrize(("framework", "make", "message"), REFUSED)
def test_what_an_importer_has_no_place_for_is_refused(framework, make, message, tmp_path):
    with pytest.raises(UnsupportedError, match=message):
        write_dialect(make(), tmp_path / "net.nir", framework=framework)
    assert list(tmp_path.iterdir()) == []


def test_recurrent_convolutions_and_images_are_refused_where_they_have_no_place():
    conv = Conv2d(weight=weights(2, 2, 3, 3), padding=(1, 1))
    layers = (
        Layer(name="c", synapse=Conv2d(weight=weights(2, 1, 3, 3))),
        Layer(name="back", synapse=conv),
        Layer(name="lif", neuron=CUBA),
    )
    edges = (("input", "c", 0), ("c", "lif", 0), ("back", "lif", 0), ("lif", "back", 1))
    with pytest.raises(UnsupportedError, match="layer 'lif', for Rockpool: has recurrent weights that are not dense"):
        make_dialect_graph(joined(*edges, layers=layers, shape=(1, 5, 5), output="lif"), "rockpool")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_export_for_a_framework_prints_what_to_run_after_the_import(tmp_path):
    export(lif(reset="subtract"), tmp_path / "net.nir", to="nir")
    command = ["export", tmp_path / "net.nir", "--to", "nir", "--out", tmp_path / "home.nir", "--for", "sinabs"]
    done = run(*command)
    assert done.exit_code == 0
    assert "after the import, with the network as net, run:\n    from sinabs.activation import" in done.output
    done = run(*command, "--json")
    assert json.loads(done.stdout)["after_import"][1].endswith("m.spike_fn = SingleSpike")
    done = run(*command, "--chip", "loihi2")
    expected = "export for sinabs: its importer knows no cores of a chip; write NIR without a chip"
    assert done.exit_code == 1 and expected in done.output


def test_without_a_framework_a_file_is_as_before(tmp_path):
    graph = lif()
    export(graph, tmp_path / "net.nir", to="nir")
    back = read_nir(tmp_path / "net.nir")
    assert "written for" not in " ".join(back.metadata["assumptions"])
    x = RNG.random((20, 2, 4)) < 0.5
    np.testing.assert_array_equal(simulate(back, x).output, simulate(graph, x).output)


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs", "norse"])
def test_a_file_of_rounded_weights_names_the_chip_that_they_are_rounded_for(framework, tmp_path):
    """Real numbers do not show it: such a network would be read as not quantised, and be rounded again."""
    rng = np.random.default_rng(0)
    neuron = replace(NEURONS[framework], reset="subtract")
    drawn = {name: Dense(weight=rng.normal(size=(4, 4)).astype(np.float32)) for name in ("a", "b")}
    layers = [Layer(name=name, synapse=synapse, neuron=neuron) for name, synapse in drawn.items()]
    rounded = quantize(chain(layers, input_shape=(4,), dt_s=1e-3), format="spinnaker2")
    advice = write_dialect(rounded, tmp_path / "a.nir", framework=framework)
    again = read_nir(tmp_path / "a.nir")
    assert quantize(again, format="spinnaker2") is again and not any("numbers" in text for text in advice.differences)
    assert all(np.array_equal(again[name].synapse.weight, rounded[name].synapse.weight) for name in ("a", "b"))
    with pytest.raises(UnsupportedError, match="network: quantised for spinnaker2, numbers of loihi differ"):
        quantize(again, format="loihi")


def test_a_file_whose_weights_are_no_longer_the_chips_says_so(tmp_path):
    """sinabs's importer has no mean: the weights behind take its factor, which the chip's numbers do not have."""
    neuron = NEURONS["sinabs"]
    layers = [
        Layer(name="c", synapse=Conv2d(weight=np.linspace(-1, 1, 9).reshape(1, 1, 3, 3)), neuron=neuron),
        Layer(name="p", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="d", synapse=Conv2d(weight=np.linspace(-1, 1, 4).reshape(1, 1, 2, 2)), neuron=neuron),
    ]
    rounded = quantize(chain(layers, input_shape=(1, 6, 6), dt_s=1e-3), format="spinnaker2")
    advice = write_dialect(rounded, tmp_path / "a.nir", framework="sinabs")
    assert any("its numbers are no longer those of spinnaker2" in text and "'d'" in text for text in advice.differences)
    assert "quantization" not in read_nir(tmp_path / "a.nir").metadata
