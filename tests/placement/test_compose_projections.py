"""Projections as they are composed: delays of single synapses, extents of kernels, weights in a row."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.network import IF, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool
from spear_deploy.network.graph import INPUT, Edge, Layer, SNNGraph, chain
from spear_deploy.network.layer import Synapse
from spear_deploy.placement.populations import find_populations
from spear_deploy.placement.projections import Projection
from tests.support.chips import matrix_onto


def delayed(*weights: np.ndarray, delays: tuple[int, ...]) -> SNNGraph:
    """Neurons that read others through a layer of weights for each delay."""
    size = weights[0].shape[1]
    layers = [Layer(name="a", synapse=Dense(weight=np.eye(size)), neuron=IF())]
    layers += [Layer(name=f"w{k}", synapse=Dense(weight=weight)) for k, weight in enumerate(weights)]
    edges = [Edge(source=INPUT, target="a")]
    for k, delay in enumerate(delays):
        edges += [Edge(source="a", target=f"w{k}", delay=delay), Edge(source=f"w{k}", target="n")]
    return SNNGraph(layers=[*layers, Layer(name="n", neuron=IF())], edges=edges, input_shape=(size,), output="n")


def onto(graph: SNNGraph, name: str = "n", *, zeros: bool = True) -> tuple[Projection, ...]:
    return next(population.projections for population in find_populations(graph, zeros=zeros) if population.name == name)


FIRST = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 0]])
OWN_SOURCE = np.array([[0, 0, 5.0], [0, 0, 0], [0, 0, 0]])
SAME_SOURCE = np.array([[0, 0, 0], [0, 0, 0], [-9.0, 0, 0]])


@pytest.mark.parametrize(("second", "is_mixed"), [(OWN_SOURCE, False), (SAME_SOURCE, True)])
def test_layers_of_weights_for_each_delay_are_one_list_with_the_longest(second: np.ndarray, is_mixed: bool) -> None:
    """A source is mixed where its synapses differ in delay, not where other sources have other delays."""
    for weights, delays in (((FIRST, second), (0, 3)), ((second, FIRST), (3, 0))):
        (projection,) = onto(delayed(*weights, delays=delays))
        assert (projection.delay_steps, projection.mixed_delays) == (3, is_mixed)
        assert [(source.name, source.async_delay_steps) for source in projection.sources] == [("a", 3)]
        assert projection.layer == f"w{[w is second for w in weights].index(True)}"  # of the widest range
        assert projection.signed is bool(second.min() < 0)
        assert projection.fan_in.tolist() == ((FIRST != 0) | (second != 0)).sum(axis=1).tolist()


def test_three_delays_are_mixed_where_two_of_them_share_a_source() -> None:
    third = np.zeros((3, 3))
    third[2, 1] = 1.0
    (projection,) = onto(delayed(FIRST, OWN_SOURCE, third, delays=(0, 1, 2)))
    assert projection.mixed_delays and projection.delay_steps == 2
    (apart,) = onto(delayed(FIRST, OWN_SOURCE, np.zeros((3, 3)), delays=(0, 1, 2)))
    assert not apart.mixed_delays


def test_weights_that_share_a_synapse_stay_lists_of_their_own() -> None:
    assert [p.delay_steps for p in onto(delayed(FIRST, FIRST, delays=(0, 3)))] == [0, 3]


def build(*synapses: Synapse, shape: tuple[int, ...]) -> SNNGraph:
    layers = [Layer(name=f"s{k}", synapse=synapse) for k, synapse in enumerate(synapses)]
    return chain([*layers, Layer(name="n", neuron=IF())], input_shape=shape)


def test_the_extent_of_a_kernel_leaves_out_pools_in_front_and_holds_those_behind() -> None:
    pool, kernel = SumPool(kernel_size=(2, 2)), Conv2d(weight=np.ones((3, 2, 3, 1)))
    (front,) = onto(build(pool, kernel, shape=(2, 8, 8)))
    (behind,) = onto(build(kernel, pool, shape=(2, 8, 8)))
    (dense,) = onto(build(pool, Flatten(), Dense(weight=np.ones((5, 32))), shape=(2, 8, 8)))
    assert (front.kernel, front.kernel_channels, front.input_map, front.output_map) == ((3, 1), 2, (4, 4), (2, 4))
    assert (behind.kernel, behind.kernel_channels) == ((4, 2), 2)
    assert (dense.kernel, dense.kernel_channels, dense.channels, dense.outputs) == ((4, 4), 2, 128, 5)


@pytest.mark.parametrize("padding", [1, (1, 0)])
def test_a_pool_pads_along_each_axis(padding: int | tuple[int, int]) -> None:
    net = build(SumPool(kernel_size=(3, 3), stride=(2, 2), padding=padding), shape=(1, 6, 7))
    (projection,) = onto(net)
    exists = matrix_onto(net, INPUT, "n")
    assert projection.fan_in.reshape(-1).tolist() == exists.sum(axis=1).tolist()
    assert projection.fan_out.reshape(-1).tolist() == exists.sum(axis=0).tolist()


def test_weights_in_a_row_stop_what_each_of_them_stops() -> None:
    """Channels that one of two layers of weights for each channel stops have no synapse; zeros count only where asked for."""
    first, second = (np.array(values).reshape(3, 1) for values in ((0.0, 1, 1), (1.0, 0, 1)))
    net = build(Scale(weight=first), Scale(weight=second), Conv1d(weight=np.ones((2, 3, 1))), shape=(3, 4))
    assert onto(net)[0].fan_in.max() == onto(net)[0].fan_in.min() == 1
    assert onto(net, zeros=False)[0].nonzero is None and onto(net, zeros=False)[0].fan_in.max() == 3
    whole = build(Scale(weight=np.ones((3, 1))), Conv1d(weight=np.ones((2, 3, 1))), shape=(3, 4))
    assert onto(whole)[0].nonzero is None


@pytest.mark.parametrize(
    "synapses",
    [
        (Conv1d(weight=np.ones((2, 3, 1))), Conv1d(weight=np.ones((2, 2, 1))), Scale(weight=np.array([[0.0], [1]]))),
        (Flatten(), Dense(weight=np.ones((2, 12))), Dense(weight=np.ones((2, 2))), Scale(weight=np.array([0.0, 1]))),
    ],
)
def test_behind_two_layers_of_weights_no_zeros_are_known(synapses: tuple[Synapse, ...]) -> None:
    (projection,) = onto(build(*synapses, shape=(3, 4)))
    assert projection.nonzero is None
    assert (projection.fan_in == matrix_onto(build(*synapses[:-1], shape=(3, 4)), INPUT, "n").sum(axis=1).max()).all()


def test_scales_that_stop_other_channels_do_not_make_two_lists_of_weights_one() -> None:
    """Two ways with 9 weights each are two lists, though the values behind them stop at other neurons."""
    layers = [Layer(name="a", synapse=Dense(weight=np.eye(3)), neuron=IF())]
    edges = [Edge(source=INPUT, target="a")]
    for k, passing in enumerate(([1.0, 0, 0], [0, 1.0, 1.0])):
        layers += [
            Layer(name=f"w{k}", synapse=Dense(weight=np.ones((3, 3)))),
            Layer(name=f"s{k}", synapse=Scale(weight=np.array(passing))),
        ]
        edges += [Edge(source="a", target=f"w{k}"), Edge(source=f"w{k}", target=f"s{k}"), Edge(source=f"s{k}", target="n")]
    net = SNNGraph(layers=[*layers, Layer(name="n", neuron=IF())], edges=edges, input_shape=(3,), output="n")
    assert [p.layer for p in onto(net, zeros=False)] == ["s0", "s1"]


def test_one_layer_of_weights_has_one_delay_and_one_synapse_for_two_neurons() -> None:
    (projection,) = onto(build(Dense(weight=np.ones((2, 3))), shape=(3,)))
    assert (projection.mixed_delays, projection.synapses_per_pair, projection.is_bound) == (False, 1, False)
