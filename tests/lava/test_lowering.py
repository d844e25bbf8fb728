"""Lowering of networks to Lava programs, and refusals; Lava is not started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from spear_deploy.errors import BackendError, DataError, FileError, UnsupportedError
from spear_deploy.lava import worker_process
from spear_deploy.lava.batches import lower_in_passes
from spear_deploy.lava.formats import BIAS_LIMITS, check_weights, split_into_digits, split_into_planes, to_lava_parameters
from spear_deploy.lava.linear_maps import MAX_SYNAPSES, collect_drive, multiply_synapses
from spear_deploy.lava.plan import plan_network
from spear_deploy.lava.program import Pass, Program, split_into_components
from spear_deploy.lava.run import run_lava
from spear_deploy.lava.schedule import Connection, extra_delay, solve_offsets
from spear_deploy.network import (
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    SpeckIF,
    SumPool,
    make_sparse,
    sparse_matrix,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import simulate, synapse_math
from spear_deploy.simulator.stepper import synaptic_input
from tests.support.lava_networks import random_jobs
from tests.support.seeds import seeds


def lif(**parameters):
    return LoihiLIF(**{"decay_u": 4096, "decay_v": 300, "v_threshold": 100, **parameters})


def fc(name="fc", weight=None, *, neuron=None, **synapse):
    weight = np.array([[1, -2], [3, 4]]) if weight is None else np.asarray(weight)
    return Layer(name=name, synapse=Dense(weight=weight, **synapse), neuron=neuron or lif())


def refused(*layers, match, edges=None, input_shape=(2,), model="reference", **graph):
    """Check that a network is refused with a message, and that the message follows the house's form."""
    if edges is None:
        network = chain(layers, input_shape=input_shape)
    else:
        network = SNNGraph(layers=layers, edges=edges, input_shape=input_shape, **graph)
    with pytest.raises(UnsupportedError, match=match) as caught:
        run_lava(network, np.ones((3, 1, *input_shape), bool), model=model)
    assert ";" in str(caught.value), "says what to do"


# -------------------------------------------------------------------------------------------------------------- matrices

chains = st.integers(0, 2**32 - 1)


def random_chain(seed):
    """Return synapses in a row and the shape of their input."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 7, rng.integers(1, 4)))
    first, synapses = shape, []
    for _ in range(int(rng.integers(1, 4))):
        synapse = random_synapse(rng, shape)
        synapses.append(synapse)
        shape = shape if synapse is None else synapse.output_shape(shape)
    return synapses, first


def random_synapse(rng, shape):
    def integers(*size):
        return rng.integers(-5, 6, size)

    dims = len(shape) - 1
    kernel, stride, padding, dilation = (
        tuple(int(n) for n in rng.integers(a, b, dims)) for a, b in ((1, 4), (1, 3), (0, 3), (1, 3))
    )
    fits = dims and all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(shape[1:], padding, dilation, kernel, strict=True))
    pick = int(rng.integers(6))
    if pick < 2 and fits:
        groups = int(rng.choice([1, shape[0]]))
        weight = integers(groups * 2, shape[0] // groups, *kernel)
        conv = Conv1d if dims == 1 else Conv2d
        return conv(weight=weight, stride=stride, padding=padding, dilation=dilation, groups=groups, weight_exponent=pick)
    if pick == 2 and dims and all(n + 2 * p >= k for n, p, k in zip(shape[1:], padding, kernel, strict=True)):
        return SumPool(kernel_size=kernel, stride=stride, padding=padding)
    if pick == 3:
        return Flatten()
    if pick == 4:
        return Scale(weight=integers(*shape))
    return Dense(weight=integers(3, int(np.prod(shape))), weight_exponent=2) if pick == 5 else None


@settings(max_examples=150, deadline=None)
@given(seed=chains)
def test_a_chain_of_synapses_equals_one_matrix(seed):
    synapses, shape = random_chain(seed)
    n = int(np.prod(shape))
    expected = np.eye(n, dtype=np.int64).reshape(n, *shape)
    for synapse in synapses:
        expected = synapse_math.apply_synapse(synapse, expected, integer=True)
    matrix, shift = multiply_synapses(synapses, shape)
    assert shift == 0
    np.testing.assert_array_equal(matrix.toarray(), expected.reshape(n, -1).T)


def test_sparse_weights_give_the_matrix_of_the_full_ones(monkeypatch):
    rng = np.random.default_rng(0)
    weight = rng.integers(-50, 50, (6, 12)) * (rng.random((6, 12)) < 0.3)
    chains = [[SumPool(kernel_size=2), Dense(weight=form(weight))] for form in (np.asarray, make_sparse)]
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)
    full, few = (multiply_synapses(synapses, (3, 4, 4))[0] for synapses in chains)
    assert np.array_equal(few.toarray(), full.toarray())
    check_weights(Layer(name="fc", synapse=chains[1][1]))
    with pytest.raises(UnsupportedError, match="layer 'fc': weights -257..1 do not fit an 8-bit synapse"):
        check_weights(Layer(name="fc", synapse=Dense(weight=make_sparse(np.array([[1, 0, -257]])))))


def test_an_exponent_below_zero_is_folded_in_where_nothing_is_rounded():
    even, odd = Dense(weight=np.array([[4, -8]]), weight_exponent=-2), Dense(weight=np.array([[4, 1]]), weight_exponent=-2)
    assert [(m.toarray().tolist(), shift) for m, shift in (multiply_synapses([s], (2,)) for s in (even, odd))] == [
        ([[1, -2]], 0),
        ([[4, 1]], 2),
    ]
    with pytest.raises(
        UnsupportedError, match="weights after a sum that is rounded down are no matrix; use a weight_exponent of 0"
    ):
        multiply_synapses([odd, even], (2,))


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_currents_and_constants_equal_the_output_of_the_synapses(seed):
    """Each population's matrices and constants, applied to random spikes, against the simulator's own synapses."""
    job = random_jobs(seed * 100, 1)[0]
    graph, rng = job.graph, np.random.default_rng(seed)
    emitted = {"input": rng.integers(0, 2, (1, 1, *graph.input_shape))}
    emitted |= {layer.name: rng.integers(0, 2, (1, 1, *graph.shape_of(layer.name))) for layer in graph.layers if layer.neuron}
    for layer in graph.layers:
        if layer.neuron is None or any(edge.delay for edge in graph.edges):
            continue
        drive = collect_drive(graph, layer.name)
        total = sum((c.value for c in drive.constants), np.zeros(int(np.prod(graph.shape_of(layer.name))), np.int64))
        for current in drive.currents:
            hosted = current.source.endswith("/drive")
            sent = synaptic_input(graph, current.source[:-6], emitted) if hosted else emitted[current.source]
            total = total + ((current.matrix @ sent.reshape(-1)) >> current.shift)
        np.testing.assert_array_equal(total, synaptic_input(graph, layer.name, emitted).reshape(-1))


@pytest.mark.parametrize("shift", range(2, 9))
def test_sums_that_were_rounded_are_pooled_and_added_one_by_one(shift):
    """A pool, and a skip, of convolutions whose sums are shifted down: each place of the window is a connection that rounds."""
    rng = np.random.default_rng(shift)
    kernel, stride, padding = (tuple(int(n) for n in rng.integers(low, 3, 2)) for low in (2 - shift % 2, 1, 0))
    convs = [
        Layer(name=name, synapse=Conv2d(weight=2 * rng.integers(-127, 128, (2, 1, 3, 3)), weight_exponent=-shift))
        for name in "ab"
    ]
    pool = Layer(name="pool", synapse=SumPool(kernel_size=kernel, stride=stride, padding=padding))
    again = Layer(name="again", synapse=Scale(weight=np.array(-56)))
    edges = [Edge(source="input", target=name) for name in "ab"] + [Edge(source=name, target="pool") for name in "ab"]
    edges += [Edge(source="pool", target="n"), Edge(source="n", target="again", delay=1), Edge(source="again", target="n")]
    layers = (*convs, pool, Layer(name="n", neuron=lif()), again)
    graph = SNNGraph(layers=layers, edges=tuple(edges), input_shape=(1, 8, 7), output="n")
    x = rng.integers(0, 256, (1, 1, *graph.input_shape))
    drive = collect_drive(graph, "n")
    rounded = [current for current in drive.currents if current.source == "input"]
    assert len(rounded) == 2 * np.prod(kernel) and all(abs(current.matrix).max() <= 254 for current in rounded)
    total = sum((current.matrix @ x.reshape(-1)) >> current.shift for current in rounded)
    silent = {"input": x, "n": np.zeros((1, 1, *graph.shape_of("n")), np.int64)}
    np.testing.assert_array_equal(total, synaptic_input(graph, "n", silent).reshape(-1))
    assert plan_network(graph).inputs["n"]


# ------------------------------------------------------------------------------------------------------------- formats


def as_lava_reads(weights):
    """Return weights as Lava's Dense and Sparse store them without a sign mode: clipped, low bits cut."""
    least, most = weights.min(initial=0), weights.max(initial=0)
    sign, mixed = (-1, 0) if most <= 0 and least < 0 else (1, int(least < 0))
    clipped = np.clip(sign * weights, -256 * mixed, 255)
    return sign * ((clipped >> mixed) << mixed)


def sent_on(plane, s):
    """Return what a plane gives in Lava: its weights as Lava reads them, the sum shifted."""
    total = as_lava_reads(plane.weights.toarray()) @ s
    return total << plane.exponent if plane.exponent > 0 else total >> -plane.exponent


@settings(max_examples=300, deadline=None)
@given(
    seed=chains,
    limits=st.sampled_from([(-128, 128), (0, 256), (-255, 1), (-1, 2), (-3, 127), (-900, 900), (-8000, 8000), (0, 1)]),
    power=st.integers(0, 4),
    shift=st.integers(0, 3),
)
def test_at_most_two_planes_return_the_same_sums(seed, limits, power, shift):
    rng = np.random.default_rng(seed)
    weights = rng.integers(*limits, (3, 5)) << (power if max(np.abs(limits)) < 300 else 0)
    s = rng.integers(0, 5, 5)
    try:
        split = split_into_planes(csr_matrix(weights), shift)
    except UnsupportedError as error:
        assert shift and np.abs(weights).max() > 127, error
        return
    assert len(split) <= 2
    assert all(-8 <= plane.exponent <= 7 for plane in split)
    np.testing.assert_array_equal(sum((sent_on(plane, s) for plane in split), np.zeros(3, int)), (weights @ s) >> shift)


def test_odd_weights_of_mixed_sign_are_doubled_since_lava_would_cut_their_last_bit():
    odd = np.array([[3, -5]])
    assert as_lava_reads(odd).tolist() == [[2, -6]]
    (plane,) = split_into_planes(csr_matrix(odd))
    assert (plane.weights.toarray().tolist(), plane.exponent) == ([[6, -10]], -1)


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=5))
def test_digits_up_to_64_add_up_to_the_constant(values):
    weights, places = split_into_digits(np.array(values))
    assert (weights @ places).tolist() == values
    assert np.abs(weights).max() <= 64


@given(st.integers(BIAS_LIMITS[0], BIAS_LIMITS[1]), st.integers(0, 7))
def test_a_bias_keeps_its_value(mantissa, exponent):
    neuron = lif(bias_mantissa=np.array([mantissa, 1]), bias_exponent=exponent)
    values = to_lava_parameters(Layer(name="n", neuron=neuron), (2,))
    assert (values["bias_mant"] << values["bias_exp"]).tolist() == neuron.bias.tolist()
    assert values["bias_mant"].min() >= BIAS_LIMITS[0]
    assert values["bias_mant"].max() <= BIAS_LIMITS[1]
    assert 0 <= values["bias_exp"].min() <= values["bias_exp"].max() <= 7


def test_lava_takes_one_from_decay_u_and_a_readout_never_spikes():
    values = to_lava_parameters(Layer(name="n", neuron=lif(decay_u=4096, decay_v=7, v_threshold=None)), (2,))
    assert {name: int(value) for name, value in values.items()} == {
        "du": 4095,
        "dv": 7,
        "vth": 2**17,  # 64 · 2^17 = 2^23 is beyond v's saturation
        "bias_mant": 0,
        "bias_exp": 0,
        "v": 0,
        "v_reset": 0,
    }


# ------------------------------------------------------------------------------------------------------------ schedule


def test_offsets_are_the_depths_of_the_graph():
    for job in random_jobs(0, 30):
        made = plan_network(job.graph)
        if not any(edge.delay for edge in job.graph.edges) and not any(layer.name == "encoder" for layer in job.graph.layers):
            assert made.offsets == {name: job.graph.depths[name] + (job.graph[name].neuron is None) for name in made.offsets}


@pytest.mark.parametrize("seed", seeds(7, 50))
def test_offsets_are_the_smallest_without_negative_delay(seed):
    rng = np.random.default_rng(seed)
    names = "abcde"
    connections = [
        Connection(source=str(s), target=str(t), delay=int(d))
        for s, t, d in zip(*rng.choice(list(names), (2, 7)), rng.integers(0, 5, 7), strict=True)
    ]
    min_offsets = {name: int(rng.integers(0, 2)) for name in names}
    try:
        offset = solve_offsets(min_offsets, connections)
    except UnsupportedError:
        tried = (dict(zip(names, steps, strict=True)) for steps in np.ndindex(*(9,) * 5))
        assert not any(all(extra_delay(connection, offset) >= 0 for connection in connections) for offset in tried)
        return
    assert all(extra_delay(connection, offset) >= 0 for connection in connections)
    for name in names:  # no single one could be earlier
        earlier = {**offset, name: offset[name] - 1}
        assert earlier[name] < min_offsets[name] or any(extra_delay(connection, earlier) < 0 for connection in connections)


# ---------------------------------------------------------------------------------------------------------------- rows


def test_a_skip_over_2_layers_gets_2_steps_of_delay():
    layers = (
        fc("a"),
        fc("b"),
        fc("c"),
        Layer(name="skip", synapse=Dense(weight=np.ones((2, 2), int))),
        Layer(name="d", neuron=lif()),
    )
    pairs = [("input", "a"), ("a", "b"), ("b", "c"), ("c", "d"), ("a", "skip"), ("skip", "d")]
    graph = SNNGraph(layers=layers, edges=tuple(Edge(source=s, target=t) for s, t in pairs), input_shape=(2,))
    made = plan_network(graph)
    assert made.offsets == {"a": 1, "b": 2, "c": 3, "d": 4}
    rows = {row["name"]: row for row in lower_in_passes(made, np.ones((2, 1, 2), bool), set()).program.passes[0].processes}
    assert rows["d/from a"]["delay"] == 2
    assert rows["d/from c"]["delay"] == 0


def test_a_long_delay_of_sparse_weights_goes_through_a_delay_line(monkeypatch):
    monkeypatch.setattr("spear_deploy.lava.builder.DELAYED_WEIGHTS", 1)
    graph = SNNGraph(
        layers=(fc("a"), fc("b")),
        edges=(Edge(source="input", target="a"), Edge(source="a", target="b", delay=5)),
        input_shape=(2,),
    )
    rows = {
        row["name"]: row
        for row in lower_in_passes(plan_network(graph), np.ones((2, 1, 2), bool), set()).program.passes[0].processes
    }
    assert rows["b/from a +5"]["delay"] == 0
    assert rows["a/late by 3"]["delay"] == 2  # b waits for nothing else, so it may act one step before a


def test_unconnected_parts_become_separate_passes():
    rows = [{"name": name, "kind": kind, "size": 1} for name, kind in (("a.b", "lif"), ("r", "state_recorder"), ("c", "lif"))]
    rows += [{"name": "s", "kind": "port_recorder", "size": 1}, {"name": "unseen", "kind": "lif", "size": 1}]
    pauses = ({"step": 1, "set": [["c", "v", "key"]]},)
    whole = Pass(steps=3, processes=tuple(rows), connections=(("a.b.v", "r"), ("c", "s")), pauses=pauses)
    parts = split_into_components(whole)
    assert sorted(sorted(row["name"] for row in part.processes) for part in parts) == [["a.b", "r"], ["c", "s"]]
    assert [len(part.pauses) for part in sorted(parts, key=lambda part: part.connections)] == [0, 1]


def test_a_program_on_disk_is_json_and_plain_arrays(tmp_path):
    recorded = lower_in_passes(plan_network(chain([fc()], input_shape=(2,))), np.ones((2, 1, 2), bool), {"v"})
    recorded.program.save(tmp_path, 4)
    read = json.loads((tmp_path / "program.json").read_text())
    assert read["channel_size"] == 4
    assert {row["kind"] for row in read["passes"][0]["processes"]} == {
        "source",
        "dense",
        "lif",
        "port_recorder",
        "state_recorder",
    }
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(recorded.program.arrays)


def test_channels_shrink_to_the_free_shared_memory():
    rows = ({"name": "a", "kind": "lif", "size": 1000}, {"name": "b", "kind": "port_recorder", "size": 1000})
    program = Program(passes=(Pass(steps=1, processes=rows, connections=(("a", "b"),)),), arrays={})
    control = 6 * 4096
    assert program.channel_size(2 * (16 * 4096 + control)) == 8
    assert program.channel_size(2 * (16 * 4096 + control) - 1) == 4
    assert program.channel_size(2 * (4 * 4096 + control)) == 2
    assert program.channel_size(2 * (4 * 4096 + control) - 1) is None


def test_a_long_temporary_folder_is_replaced_since_socket_paths_hold_107_characters(monkeypatch, tmp_path):
    """A Unix socket's path holds 107 characters; a long TMPDIR would make Lava fail."""
    places = []

    def look(folder, _):
        places.append(str(folder))
        raise BackendError("seen enough", cause="refused")

    monkeypatch.setattr(worker_process, "_run_worker", look)
    for place in ("/tmp", str(tmp_path / "a rather long name for a folder of temporary files")):
        monkeypatch.setattr("tempfile.tempdir", place)
        with pytest.raises(BackendError, match="seen enough"):
            run_lava(chain([fc()], input_shape=(2,)), np.ones((2, 1, 2), bool))
    assert all(re.fullmatch(rf"/tmp/spear-lava-{os.getpid()}-\w+", place) for place in places)


def test_a_missing_folder_for_temporary_files_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", "/tmp/missing")
    with pytest.raises(FileError, match=r"^folder for temporary files '/tmp/missing': no folder can be made \(No such file"):
        run_lava(chain([fc()], input_shape=(2,)), np.ones((2, 1, 2), bool))


def test_the_caller_imports_neither_lava_nor_torch():
    code = (
        "import sys, numpy as np\n"
        "from spear_deploy.lava.run import run_lava\n"
        "from spear_deploy.lava.plan import plan_network\n"
        "from spear_deploy.lava.batches import lower_in_passes\n"
        "from spear_deploy.network.graph import chain\n"
        "from spear_deploy.network import Dense, Layer, LoihiLIF\n"
        "neuron = LoihiLIF(decay_u=9, decay_v=9, v_threshold=9)\n"
        "layer = Layer(name='fc', synapse=Dense(weight=np.eye(2, dtype=int)), neuron=neuron)\n"
        "lower_in_passes(plan_network(chain([layer], input_shape=(2,))), np.ones((1, 1, 2), bool), set())\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('lava', 'torch', 'matplotlib', 'norse')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_network_without_integers_is_refused():
    float_neuron = CubaLIF(tau_mem_s=0.01, tau_syn_s=0.01)
    refused(fc(neuron=float_neuron), match="has no integer neurons, which Lava's fixed-point models need; quantise it")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"v_init": 2**23}, r"v_init 8388608..8388608 given, a 24-bit state holds -8388607..8388607; "),
        (
            {"bias_mantissa": 4097},
            r"bias 4097..4097 is no 13-bit number \(-4096..4095\) times a power of two up to 2\^7; round it",
        ),
        ({"bias_mantissa": -5000, "bias_exponent": 7}, r"bias -640000..-640000 is no 13-bit number"),
    ],
)
def test_neurons_outside_the_format_are_refused(parameters, message):
    for model in ("reference", "fast"):
        refused(fc(neuron=lif(**parameters)), match=f"layer 'fc': {message}", model=model)


@pytest.mark.parametrize(
    ("parameters", "own"),
    [
        ({}, False),
        ({"decay_u": 1, "decay_v": 0, "v_init": 7}, False),
        ({"v_threshold": None, "reset": "subtract", "refractory_steps": 2, "v_reset": 9}, False),  # never spikes
        ({"reset": "subtract"}, True),
        ({"refractory_steps": 2}, True),
        ({"v_reset": 9}, True),
        ({"decay_u": np.array([0, 4096])}, True),
    ],
)
def test_complete_lif_runs_only_neurons_that_lavas_lif_lacks(parameters, own):
    recorded = lower_in_passes(
        plan_network(chain([fc(neuron=lif(**parameters))], input_shape=(2,))), np.ones((2, 1, 2), bool), set()
    )
    kinds = {row["kind"] for row in recorded.program.passes[0].processes}
    assert ("complete_lif" in kinds, "lif" in kinds) == (own, not own)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([[200, -1], [1, 1]], r"weights -1..200 do not fit an 8-bit synapse \(-128..127, or 0..255 of one sign, times a power"),
        ([[129, -129], [1, 1]], r"weights -129..129 do not fit an 8-bit synapse"),
        ([[257, 0], [1, 1]], r"weights 0..257 do not fit an 8-bit synapse"),
        ([[2**15, -(2**15)], [2**16, 0]], r"weights -32768..65536 do not fit an 8-bit synapse"),
    ],
)
def test_weights_beyond_eight_bits_are_refused(weight, message):
    refused(fc(weight=weight), match=f"layer 'fc': {message}")


def test_weights_with_an_exponent_beyond_the_format_are_refused():
    refused(
        fc(weight=[[1, 0], [0, -1]], weight_exponent=20), match=r"layer 'fc': fed by 'input' through weights .* above 7; prune or"
    )


def test_fractional_weights_are_refused():
    half = Layer(name="half", synapse=Scale(weight=np.array(0.5)), neuron=lif())
    refused(fc("a"), half, match=r"layer 'half': weights 0.5..0.5 are not whole numbers; quantise the network first")


def test_a_mean_and_an_unfolded_norm_are_refused():
    pool = Layer(name="mean", synapse=AvgPool(kernel_size=(2, 2)))
    conv = Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, 1, 1), int)), neuron=lif())
    refused(pool, conv, input_shape=(1, 2, 2), match="layer 'mean': takes a mean, which is no whole number; quantise")
    norm = BatchNorm(weight=np.ones(2), bias=np.ones(2), mean=np.ones(2), var=np.ones(2))
    refused(replace(fc(), norm=norm), match="layer 'fc': has an unfolded batch norm; quantise the network again")
    scale = Layer(name="scale", synapse=Scale(weight=np.array(2.5)), norm=norm, neuron=lif())
    refused(scale, match="layer 'scale': has an unfolded batch norm; quantise the network again")


def test_a_potential_that_feeds_neurons_is_refused():
    refused(fc("readout", neuron=lif(v_threshold=None)), fc("next"), match="layer 'readout': its potential feeds 'next'")


def test_a_cycle_without_neurons_is_refused():
    layers = (Layer(name="sum"), fc("out"), Layer(name="filter", synapse=Dense(weight=np.eye(2, dtype=int))))
    edges = (
        Edge(source="input", target="sum"),
        Edge(source="sum", target="out"),
        Edge(source="sum", target="filter", delay=1),
        Edge(source="filter", target="sum"),
    )
    refused(
        *layers,
        edges=edges,
        output="out",
        match="layer 'filter': lies on a cycle without neurons, or behind one, which Lava cannot hold",
    )


def test_a_cycle_faster_than_its_connections_is_refused():
    edges = [Edge(source=s, target=t) for s, t in (("input", "a"), ("a", "b"), ("b", "c"))]
    edges = (*edges, Edge(source="c", target="a", delay=2))
    refused(
        fc("a"), fc("b"), fc("c"), edges=edges, match=r"edge '\w' -> '\w': closes a cycle with fewer steps of delay than it has"
    )


def test_a_delay_beyond_a_synapse_is_refused():
    edges = (Edge(source="input", target="a"), Edge(source="a", target="b", delay=65))
    refused(
        fc("a"), fc("b"), edges=edges, match=r"edge 'a' -> 'b': needs a synaptic delay of 63 steps, a synapse holds 62; shorten"
    )


def test_sums_that_would_be_rounded_in_parts_are_refused():
    rounding = fc("b", weight_exponent=-1)
    edges = (Edge(source="input", target="a"), Edge(source="input", target="b"), Edge(source="a", target="b"))
    refused(fc("a"), rounding, edges=edges, match="layer 'b': a weight_exponent below 0 rounds the sum of several edges")
    biased = Layer(name="w", synapse=Dense(weight=np.eye(2, dtype=int), bias=np.array([1, 2])))
    refused(biased, rounding, match="layer 'b': a weight_exponent below 0 rounds the sum of several edges")
    first = Layer(name="w", synapse=Dense(weight=np.eye(2, dtype=int), weight_exponent=-1))
    refused(
        first,
        fc("b"),
        match="layer 'b': weighs a sum that the layer before rounded down; use a weight_exponent of 0 or more there",
    )
    wide = Layer(name="w", synapse=Dense(weight=np.full((2, 2), 101)))
    identity = Dense(weight=np.array([[3, 1], [1, -3]]), weight_exponent=-1)
    refused(
        wide,
        Layer(name="b", synapse=identity, neuron=lif()),
        match="layer 'b': fed by 'input' through weights .* cannot be split",
    )


def test_a_convolution_too_large_to_unroll_is_refused():
    """With a pool before it, it would have to be a matrix; alone it is Lava's Conv, whatever its size."""
    conv = Layer(name="conv", synapse=Conv2d(weight=np.ones((64, 64, 3, 3), int), padding=1), neuron=lif())
    pool = Layer(name="pool", synapse=SumPool(kernel_size=2))
    refused(
        *(pool, conv),
        input_shape=(64, 64, 64),
        match=rf"layer 'conv': about 37748736 synapses after unrolling, .* takes {MAX_SYNAPSES}",
    )
    rows = lower_in_passes(
        plan_network(chain([conv], input_shape=(64, 32, 32))), np.ones((1, 1, 64, 32, 32), bool), set()
    ).program.passes[0]
    assert [row["kind"] for row in rows.processes].count("conv") == 1


@pytest.mark.parametrize(
    ("geometry", "shape", "message"),
    [
        (
            {"weight": np.ones((128, 1, 1, 1), int), "groups": 128},
            (128, 2, 2),
            "groups 128 given, Lava's Conv holds it in 8 b",
        ),
        ({"weight": np.ones((1, 1, 1, 128), int)}, (1, 1, 130), "kernel 128 given, .*, up to 127; use the fast model"),
        ({"weight": np.ones((1, 1, 1, 1), int), "stride": (1, 128)}, (1, 1, 130), "stride 128 given"),
        ({"weight": np.ones((1, 1, 1, 1), int), "padding": (128, 1)}, (1, 2, 2), "padding 128 given"),
        ({"weight": np.ones((1, 1, 1, 2), int), "dilation": (1, 128)}, (1, 1, 130), "dilation 128 given"),
    ],
)
def test_sizes_beyond_lavas_eight_bits_are_refused(geometry, shape, message):
    conv = Layer(name="conv", synapse=Conv2d(**geometry), neuron=lif())
    refused(conv, input_shape=shape, match=f"layer 'conv': {message}")


def test_a_convolution_whose_sums_lava_would_wrap_is_refused():
    conv = Layer(name="conv", synapse=Conv2d(weight=np.full((1, 1, 1, 1), 100), weight_exponent=7), neuron=lif())
    graph = chain([conv], input_shape=(1, 1, 1))
    message = r"layer 'conv': up to 12800000 may arrive through the convolution of 'conv' .* 24 bits \(8388607\); scale"
    with pytest.raises(UnsupportedError, match=message):
        run_lava(graph, np.full((1, 1, 1, 1, 1), 1000))
    conv = Layer(name="conv", synapse=Conv2d(weight=np.array([[[[1, -1]]]]), weight_exponent=20), neuron=lif())
    refused(conv, input_shape=(1, 1, 2), match="layer 'conv': weights .* the exponent is above 7; prune or rescale")


def test_an_input_longer_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr("spear_deploy.util.memory.free_bytes", lambda: 1000)
    graph, x = chain([fc()], input_shape=(2,)), np.ones((100, 1, 2), bool)
    message = r"100 steps: playing and recording one sample takes \d+ MiB, 0 MiB are free; run fewer steps, or record less"
    with pytest.raises(UnsupportedError, match=message):
        run_lava(graph, x, record=("v",))
    message = r"100 steps of 1 samples: what is recorded takes 0 MiB, 0 MiB are free; record less, or run fewer steps"
    for run in (simulate, partial(run_lava, model="fast")):
        with pytest.raises(DataError, match=message):
            run(graph, x, record=("v",))
    monkeypatch.setattr("spear_deploy.util.memory.free_bytes", lambda: 5000)
    with pytest.raises(DataError, match="100 steps of 9 samples: .* record less, or run at most 2 samples at a time"):
        simulate(graph, np.ones((100, 9, 2), bool), record=("v",))
    assert simulate(graph, np.ones((100, 2, 2), bool), record=("v",)).output.shape[1] == 2


def test_neurons_of_another_chip_are_refused():
    other = fc(neuron=SpeckIF(v_threshold=np.array(9)))
    for model in ("reference", "fast"):
        refused(other, match="layer 'fc': has SpeckIF neurons, Lava's fixed-point models are those of LoihiLIF", model=model)


def test_the_fast_model_refuses_values_outside_the_chips_format():
    refused(fc(weight=[[300, 0], [0, 1]]), match="layer 'fc': weights 0..300 do not fit an 8-bit synapse", model="fast")
    edges = (Edge(source="input", target="a"), Edge(source="a", target="b", delay=63))
    refused(fc("a"), fc("b"), edges=edges, match=r"edge 'a' -> 'b': a delay of 63 steps, a synapse holds 62; sh", model="fast")
    with pytest.raises(DataError, match=r"model 'quick': Lava runs 'reference' \(its own processes\) or 'fast' \(one process\)"):
        run_lava(chain([fc()], input_shape=(2,)), np.ones((1, 1, 2), bool), model="quick")


def test_an_input_that_overflows_lava_is_refused():
    graph = chain([fc()], input_shape=(2,))
    with pytest.raises(
        UnsupportedError, match=r"layer 'fc': up to \d+ may arrive in one step, Lava's 32-bit numbers hold 32505856"
    ):
        run_lava(graph, np.full((1, 1, 2), 2**23), kind="current")
    with pytest.raises(
        UnsupportedError, match=r"the input holds values up to 1e\+30, Lava's messages hold 32 bits; scale it down"
    ):
        run_lava(graph, np.full((1, 1, 2), 1e30), kind="current")


def test_the_input_is_checked_as_by_the_simulator():
    graph = chain([fc()], input_shape=(2,))
    for run in (run_lava, simulate):
        with pytest.raises(DataError, match=r"input has shape \(1, 2\), the network takes \(T, B, 2\)"):
            run(graph, np.ones((1, 2)))
        with pytest.raises(
            DataError, match=r"layer 'fc': takes whole numbers, the given current is not \(0.5, of 0.5..0.5\); scale"
        ):
            run(graph, np.full((1, 1, 2), 0.5), kind="current")
