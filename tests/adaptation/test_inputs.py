"""Sums over windows of the input: the same as windows in the network, and data of both sizes are taken."""

import numpy as np
import pytest

from spear_deploy.adaptation.inputs import find_inputs, move_window_to_input
from spear_deploy.data import load_data
from spear_deploy.data.input_sums import original_shape, sum_inputs, sum_windows
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LIF, AvgPool, Conv2d, Dense, Flatten, Layer, Scale, SparseMatrix, SumPool, make_sparse
from spear_deploy.network.graph import INPUT, Edge, SNNGraph, chain
from spear_deploy.pipeline import inputs as pipeline_inputs
from spear_deploy.pipeline.shipped import shipped_network
from spear_deploy.simulator import simulate
from tests.support.seeds import seeds

DIGITS = shipped_network("digits")


def strided(stride: int):
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=rng.integers(-8, 9, (3, 1, 3, 3)) / 8, stride=(stride, stride), padding=(1, 1))
    return chain([Layer(name="conv", synapse=conv, neuron=LIF(tau_s=0.002))], input_shape=(1, 8, 8))


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (3, 2, 4, 6)).astype(np.uint8)
    slow = np.zeros((3, 2, 2, 2), int)
    for index in np.ndindex(x.shape):
        slow[index[0], index[1], index[2] // 2, index[3] // 3] += x[index]
    np.testing.assert_array_equal(sum_windows(x, (2, 3)), slow)


@pytest.mark.parametrize("seed", range(5))
def test_the_host_forms_what_a_pool_in_front_of_the_network_would(seed):
    rng = np.random.default_rng(seed)
    summed = move_window_to_input(strided(2), (2, 2))
    assert summed is not None and summed.input_shape == (1, 4, 4) and original_shape(summed) == (1, 8, 8)
    pool = Layer(name="sums", synapse=SumPool(kernel_size=(2, 2)))
    within = chain([pool, *summed.layers], input_shape=(1, 8, 8))
    x = (rng.random((6, 2, 1, 8, 8)) < 0.4).astype(np.uint8)
    np.testing.assert_array_equal(simulate(summed, sum_windows(x, (2, 2))).output, simulate(within, x).output)


def test_a_pool_behind_the_first_convolution_moves_to_the_input():
    chip = override_facts(load_profile("generic45nm"), {"connectivity.input_channels": 16})
    (offer,) = find_inputs(DIGITS, chip)
    assert (offer.what, offer.kind) == ("64 inputs", "learnt")
    summed = offer.rewrite(DIGITS)
    assert summed.input_shape == (1, 4, 4) and "pool1" not in [layer.name for layer in summed.layers]
    assert summed.shape_of("conv1") == DIGITS.shape_of("pool1")
    np.testing.assert_allclose(summed["conv1"].synapse.weight, DIGITS["conv1"].synapse.weight / 4)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"connectivity.input_channels": 64}, "the chip has all"),
    ],
)
def test_no_sums_where_they_are_not_needed(facts, why):
    assert list(find_inputs(DIGITS, override_facts(load_profile("generic45nm"), facts))) == [], why


@pytest.mark.parametrize(
    "layers",
    [
        [Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(1, 1)), neuron=IF())],
        [Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2)), neuron=IF())],
        [
            Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, 2, 2))), neuron=IF()),
            Layer(name="fc", synapse=Dense(weight=np.ones((2, 49))), neuron=IF()),
        ],
        [Layer(name="weights", synapse=Scale(weight=np.ones((1, 8, 8))), neuron=IF())],
        [Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2), stride=(1, 1))), *strided(1).layers],
        [
            Layer(
                name="conv",
                synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(1, 1)),
                neuron=IF(v_threshold=np.ones((1, 8, 8))),
            ),
            Layer(name="fc", synapse=Dense(weight=np.ones((2, 64))), neuron=IF()),
        ],
        [Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), stride=(3, 3)), neuron=IF())],
    ],
)
def test_no_sums_where_the_output_would_change_or_a_part_has_positions(layers):
    assert move_window_to_input(chain(layers, input_shape=(1, 8, 8)), (2, 2)) is None


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_an_input_that_is_alike_within_windows_drives_the_network_as_before(seed):
    """Convolutions of one position, sums and means, dense weights: sums over windows then hold all there is."""
    rng = np.random.default_rng(seed)
    eighths = rng.integers(-8, 9, (3, 1, 1, 1)) / 8
    pool = (SumPool, AvgPool)[seed % 2]
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=eighths), neuron=IF(v_threshold=0.75)),
        Layer(name="pool", synapse=pool(kernel_size=(2, 2))),
        Layer(name="flat", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=rng.integers(-8, 9, (4, 48)) / 8), neuron=IF(reset="subtract")),
    ]
    graph = chain(layers, input_shape=(1, 8, 8))
    window = ((2, 2), (4, 4), (2, 1), (4, 2), (1, 8))[seed % 5]
    summed = move_window_to_input(graph, window)
    assert summed is not None and np.prod(summed.input_shape) * np.prod(window) == 64
    coarse = (rng.random((6, 2, 1, 8 // window[0], 8 // window[1])) < 0.4).astype(np.uint8)
    x = coarse.repeat(window[0], axis=-2).repeat(window[1], axis=-1)
    np.testing.assert_array_equal(simulate(summed, sum_windows(x, window)).output, simulate(graph, x).output)


def test_a_list_is_summed_too_and_loops_stay():
    layers = (
        Layer(name="in", synapse=Dense(weight=np.arange(12.0).reshape(2, 6))),
        Layer(name="loop", synapse=Dense(weight=np.eye(2))),
        Layer(name="hidden", neuron=IF()),
    )
    pairs = ((INPUT, "in", 0), ("in", "hidden", 0), ("hidden", "loop", 1), ("loop", "hidden", 0))
    edges = tuple(Edge(source=source, target=target, delay=delay) for source, target, delay in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(6,), output="hidden")
    (offer,) = find_inputs(graph, override_facts(load_profile("generic45nm"), {"connectivity.input_channels": 4}))
    summed = offer.rewrite(graph)
    assert summed["in"].synapse.weight.tolist() == [[0.5, 2.5, 4.5], [6.5, 8.5, 10.5]]
    assert original_shape(summed) == (6,) and summed["loop"] == graph["loop"]


@pytest.mark.parametrize(("shape", "window"), [((24,), (3,)), ((2, 4, 6), (2, 3)), ((3, 4), (2,))])
def test_sparse_weights_are_summed_as_full_ones(shape, window):
    rng = np.random.default_rng(0)
    full = np.where(rng.random((5, int(np.prod(shape)))) < 0.3, rng.integers(-8, 9, (5, int(np.prod(shape)))) / 8, 0)
    summed = []
    for weight in (full, make_sparse(full)):
        layers = [
            *([Layer(name="flat", synapse=Flatten())] if len(shape) > 1 else []),
            Layer(name="fc", synapse=Dense(weight=weight)),
        ]
        layers.append(Layer(name="out", neuron=IF()))
        graph = move_window_to_input(chain(layers, input_shape=shape), window)
        summed.append(next(layer.synapse.weight for layer in graph.layers if isinstance(layer.synapse, Dense)))
    assert isinstance(summed[1], SparseMatrix) and summed[0].shape[1] * np.prod(window) == np.prod(shape)
    np.testing.assert_array_equal(summed[1].to_full(), summed[0])


def test_sums_beyond_the_events_of_a_channel_stay_at_their_number():
    chip = override_facts(load_profile("generic45nm"), {"connectivity.input_channels": 16, "neuron.max_input_events_per_step": 3})
    (offer,) = find_inputs(DIGITS, chip)
    assert offer.by == "sums over windows of 2 x 2 inputs, 3 at most, which the host forms"
    summed, raw = offer.rewrite(DIGITS), load_data("digits")
    np.testing.assert_array_equal(sum_inputs(raw, summed).test.x, np.minimum(sum_windows(raw.test.x, (2, 2)), 3))


def test_data_of_the_original_size_are_summed_as_they_are_read():
    summed = move_window_to_input(DIGITS, (2, 2))
    assert summed is not None
    raw = load_data("digits")
    for read in (pipeline_inputs.data("digits", summed), pipeline_inputs.data(raw, summed)):
        np.testing.assert_array_equal(read.test.x, sum_windows(raw.test.x, (2, 2)))
    ready = sum_inputs(raw, summed)
    assert pipeline_inputs.data(ready, summed).test.x.shape == ready.test.x.shape
    assert sum_inputs(raw, DIGITS) is raw


def test_inputs_sent_twice_are_neighbours_behind_the_sums_of_the_host():
    layer = Layer(name="fc", synapse=Dense(weight=np.ones((2, 32))), neuron=IF())
    twice = chain([layer], input_shape=(32,), metadata={"input_twice": [1, 4, 4], "input_sums": [2, 2]})
    assert original_shape(twice) == (1, 8, 8)
    raw = load_data("digits")
    ready = sum_inputs(raw, twice)
    sums = sum_windows(raw.test.x, (2, 2)).reshape(len(raw.test), raw.steps, 16)
    for copy in (0, 1):
        np.testing.assert_array_equal(ready.test.x[..., copy::2], sums)
    assert sum_inputs(ready, twice).test.x.shape == ready.test.x.shape
    np.testing.assert_array_equal(pipeline_inputs.data("digits", twice).test.x, ready.test.x)
