"""The first difference is the earliest."""

import numpy as np
import pytest

from spear_deploy.comparison import compare_arrays, compare_runs, paired_layers
from spear_deploy.errors import DataError
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.reference import random_graph, random_spikes


def test_first_difference_is_earliest_in_time_then_sample_then_neuron():
    a = np.zeros((4, 3, 2, 2), bool)
    b = a.copy()
    b[2, 1, 1, 0] = b[2, 2, 0, 0] = b[3, 0, 0, 0] = True
    found = compare_arrays("x", a, b)
    assert (found.mismatches, found.compared) == (3, 48)
    assert found.first == {"step": 2, "sample": 1, "neuron": [1, 0]}
    assert compare_arrays("x", a, a).first is None


def test_a_run_equals_itself_and_differs_from_its_integers():
    graph = random_graph(1)
    x = random_spikes(graph, 1, steps=20)
    run = simulate(graph, x, record=("spikes",))
    pairs = paired_layers(graph, graph)
    assert sum(layer.mismatches for layer in compare_runs(run, run, pairs)) == 0
    other = quantize(graph)
    layers = compare_runs(run, simulate(other, x, record=("spikes",)), paired_layers(graph, other))
    assert [layer.what for layer in layers][-1] == "value"


def test_networks_that_cannot_be_compared():
    with pytest.raises(DataError, match="only equal ones can be compared"):
        paired_layers(random_graph(0), random_graph(1))
    with pytest.raises(DataError, match=r"layer 'x': recordings of shape \(1, 1, 2\) and \(1, 1, 3\)"):
        compare_arrays("x", np.zeros((1, 1, 2)), np.zeros((1, 1, 3)))
