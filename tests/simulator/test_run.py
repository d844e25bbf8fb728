"""The simulator against slow loops, Norse's cells and recorded traces."""

import numpy as np
import pytest

from spear_deploy.errors import DataError
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    CubaLI,
    CubaLIF,
    Dense,
    Layer,
    LoihiLIF,
    Scale,
    SpeckIF,
    make_sparse,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import Simulation, simulate
from spear_deploy.simulator import run as run_module
from spear_deploy.simulator.neurons import loihi
from tests.support import reference
from tests.support.seeds import seeds


def one_layer(neuron, size=50, **more):
    return chain([Layer(name="n", neuron=neuron)], input_shape=(size,), **more)


def norse_cells():
    import norse.torch as nt
    import torch

    tensor = torch.tensor
    from norse.torch.functional.reset import reset_subtract as subtract

    per_neuron = tensor(np.linspace(50, 900, 50).astype(np.float32))
    leak = dict(v_leak=tensor(0.25), v_reset=tensor(-0.125))
    return {
        "LIFBox": (
            nt.LIFBoxCell(nt.LIFBoxParameters(tau_mem_inv=tensor(500.0), **leak)),
            LIF(tau_s=0.002, v_leak=0.25, v_reset=-0.125),
        ),
        "LIFBox per neuron": (nt.LIFBoxCell(nt.LIFBoxParameters(tau_mem_inv=per_neuron)), LIF(tau_s=norse_tau(per_neuron))),
        "LIFBox subtract": (nt.LIFBoxCell(nt.LIFBoxParameters(reset_method=subtract)), LIF(tau_s=0.01, reset="subtract")),
        "LIF": (
            nt.LIFCell(nt.LIFParameters(**leak)),
            CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0, v_leak=0.25, v_reset=-0.125),
        ),
        "IAF": (nt.IAFCell(nt.IAFParameters(v_reset=tensor(0.0))), IF()),
        "LIBox": (nt.LIBoxCell(nt.LIBoxParameters()), LI(tau_s=0.01)),
        "LI": (nt.LICell(nt.LIParameters()), CubaLI(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0)),
    }


def norse_tau(tau_inv):
    return 1e-3 / (np.float32(1e-3) * tau_inv.numpy()).astype(np.float64)


@pytest.mark.parametrize("name", ["LIFBox", "LIFBox per neuron", "LIFBox subtract", "LIF", "IAF", "LIBox", "LI"])
def test_states_are_equal_to_norse_to_the_bit(name):
    import torch

    cell, neuron = norse_cells()[name]
    x = np.random.default_rng(0).normal(0.6, 2, (100, 4, 50)).astype(np.float32)
    state, emitted, potential = None, [], []
    with torch.no_grad():
        for step in x:
            z, state = cell(torch.tensor(step), state)
            emitted.append(z.numpy())
            potential.append(state.v.numpy())
    run = simulate(one_layer(neuron), x, kind="current", record=("v", "u"))
    np.testing.assert_array_equal(run.output, np.array(emitted))
    np.testing.assert_array_equal(run.v["n"], np.array(potential))
    assert 0.01 < np.mean(np.array(emitted) != 0)


@pytest.mark.parametrize("seed", range(10))
def test_integer_neuron_equals_unbounded_integers(seed):
    rng = np.random.default_rng(seed)
    decay_u, decay_v, threshold = int(rng.integers(0, 4097)), int(rng.integers(0, 4097)), int(rng.integers(0, 3000))
    bias = int(rng.integers(-4096, 4096))
    neuron = LoihiLIF(decay_u=decay_u, decay_v=decay_v, v_threshold=threshold, bias_mantissa=bias, bias_exponent=3)
    weight = rng.integers(-(2**16), 2**16, (8, 8))
    graph = chain([Layer(name="n", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(8,))
    x = rng.random((60, 1, 8)) < 0.3
    run = simulate(graph, x, record=("spikes", "v", "u"))
    for n in range(8):
        u = v = 0
        for t in range(60):
            arrives = int(weight[n] @ x[t, 0])
            u, v, spike = reference.loihi_step(
                u, v, arrives, decay_u=decay_u, decay_v=decay_v, threshold=threshold, bias=bias * 8
            )
            assert (run.u["n"][t, 0, n], run.v["n"][t, 0, n], run.spikes["n"][t, 0, n]) == (u, v, spike)


def by_the_book(neuron, drive):
    """Run the equations of `LoihiLIF` as its docstring has them, step by step in int64: spikes, v, u, wraps, saturations."""
    limit = 1 << 23

    def decayed(state, decay):
        product = state * (4096 - decay)
        return np.sign(product) * (np.abs(product) // 4096)

    u, rest = np.zeros(drive.shape[1:], np.int64), np.zeros(drive.shape[1:], np.int64)
    v = np.broadcast_to(neuron.v_init, drive.shape[1:]).astype(np.int64)
    result, wraps, saturations = [], 0, 0
    for x in drive:
        u = decayed(u, neuron.decay_u) + 64 * x
        over, under = u > limit, u <= -limit
        u = u - 2 * limit * over + 2 * limit * under
        free = decayed(v, neuron.decay_v) + u + neuron.bias
        clipped = np.clip(free, 1 - limit, limit - 1)
        wraps, saturations = wraps + (over | under).sum(), saturations + ((clipped != free) & (rest == 0)).sum()
        v, rest = np.where(rest > 0, v, clipped), np.maximum(rest - 1, 0)
        spikes = v.copy()
        if neuron.v_threshold is not None:
            spikes = v > 64 * neuron.v_threshold
            v = np.where(spikes, neuron.v_reset if neuron.reset == "value" else v - 64 * neuron.v_threshold, v)
            rest = np.where(spikes, neuron.refractory_steps, rest)
        result.append((spikes, v, u))
    return [np.array(each) for each in zip(*result, strict=True)], wraps, saturations


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_integer_neurons_in_tiles_and_blocks_equal_the_reference(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(loihi, "TILE_VALUES", int(rng.choice([7, 40, 1 << 14])))
    shape = [(5,), (3, 4, 4), (300,)][seed % 3]

    def spread(low, high):
        return rng.integers(low, high, [(), (shape[0],) + (1,) * (len(shape) - 1), shape][rng.integers(3)])

    neuron = LoihiLIF(
        decay_u=[np.array(4096), np.array(0), spread(0, 4097)][rng.integers(3)],
        decay_v=[np.array(4096), np.array(0), spread(0, 4097)][rng.integers(3)],
        v_threshold=None if rng.random() < 0.2 else spread(0, int(rng.choice([900, 2**17]))),
        bias_mantissa=spread(-4096, 4096) if rng.random() < 0.5 else 0,
        bias_exponent=int(rng.integers(0, 8)),
        v_init=spread(-100_000, 100_000) if rng.random() < 0.5 else 0,
        reset=str(rng.choice(["value", "subtract"])),
        refractory_steps=int(rng.integers(0, 4)),
        v_reset=spread(-10_000, 10_000) if rng.random() < 0.5 else 0,
    )
    steps, batch = int(rng.integers(1, 40)), int(rng.integers(1, 6))
    most = int(rng.choice([5, 500, 70_000, 1 << 20]))
    drive = rng.integers(-most, most, (steps, batch, *shape)) * (rng.random((steps, batch, *shape)) < 0.5)
    expected, wraps, saturations = by_the_book(neuron, drive)
    state = loihi.start(neuron, batch, shape)
    result = [np.empty(drive.shape, each.dtype) for each in expected]
    cut = int(rng.integers(0, steps + 1))
    for part in (slice(0, cut), slice(cut, steps)):
        loihi.run(neuron, state, drive[part].astype(np.float64), *(each[part] for each in result))
    for name, one, other in zip(("spikes", "v", "u"), result, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert (state.wraps, state.saturations) == (wraps, saturations)


@pytest.mark.parametrize("kind", ["float", "integer"])
@pytest.mark.parametrize("seed", range(8))
def test_blocks_do_not_change_the_result(monkeypatch, seed, kind):
    """Steps and samples in small blocks, with delays and cycles that reach over their borders."""
    graph = reference.random_graph(seed, kind=kind)
    x = reference.random_spikes(graph, seed, steps=9, batch=5)
    whole = simulate(graph, x, record=("spikes", "v", "u"))
    largest = max(int(np.prod(graph.shape_of(layer.name))) for layer in graph.layers)
    monkeypatch.setattr(run_module, "BLOCK_VALUES", 4 * largest)
    monkeypatch.setattr(run_module, "MIN_BLOCK_STEPS", 2)
    assert len(Simulation(graph, x)) > 10
    run = simulate(graph, x, record=("spikes", "v", "u"))
    for what in ("spikes", "v", "u"):
        for name, value in getattr(whole, what).items():
            np.testing.assert_array_equal(getattr(run, what)[name], value, err_msg=f"{what} of {name}")
    np.testing.assert_array_equal(run.output, whole.output)
    for name, sent in whole.counts.sent.items():
        np.testing.assert_array_equal(run.counts.sent[name], sent)
    for edge, delivered in whole.counts.delivered.items():
        np.testing.assert_array_equal(run.counts.delivered[edge], delivered)
    assert run.overflows == whole.overflows


def test_spikes_are_counted_beyond_a_byte():
    spikes = np.random.default_rng(0).random((40, 20, 3, 2)) < 0.9
    np.testing.assert_array_equal(run_module.sum_spikes(spikes), spikes.sum(axis=(0, 1)))
    np.testing.assert_array_equal(run_module.sum_spikes(7.5 * spikes, graded=True), spikes.sum(axis=(0, 1)))


def test_what_exact_sums_do_not_hold_is_refused():
    neuron = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1)
    graph = chain([Layer(name="n", synapse=Dense(weight=np.array([[2]])), neuron=neuron)], input_shape=(1,))
    with pytest.raises(DataError, match="layer 'n': 17179869184 arrives in one step, exact sums hold 17179869184; scale"):
        simulate(graph, np.full((1, 1, 1), 1 << 33))
    with pytest.raises(DataError, match=r"layer 'n': sums of up to 2.31e\+18 are not exact, whole numbers up to 2\^53 are"):
        simulate(graph, np.full((1, 1, 1), 1 << 60))
    graph = chain([Layer(name="n", synapse=Scale(weight=[3]), neuron=SpeckIF(v_threshold=1))], input_shape=(1,))
    assert simulate(graph, np.full((1, 1, 1), (1 << 51) + 1)).output.item() == 3 * ((1 << 51) + 1)
    with pytest.raises(DataError, match=r"layer 'n': sums of up to 1.35e\+16 are not exact, whole numbers up to 2\^53 are"):
        simulate(graph, np.full((1, 1, 1), (1 << 52) + 1))
    graph = chain([Layer(name="n", synapse=Scale(weight=[1], bias=[1 << 52]), neuron=SpeckIF(v_threshold=1))], input_shape=(1,))
    for value in (1 << 52, -(1 << 52)):
        with pytest.raises(DataError, match=r"layer 'n': sums of up to 9.01e\+15 are not exact"):
            simulate(graph, np.full((1, 1, 1), value), kind="current")


def test_wraps_and_saturations_are_counted():
    neuron = LoihiLIF(decay_u=0, decay_v=0, v_threshold=None)
    graph = chain([Layer(name="n", synapse=Dense(weight=np.array([[60_000]])), neuron=neuron)], input_shape=(1,))
    run = simulate(graph, np.ones((4, 1, 1), bool), record=("u", "v"))
    assert run.u["n"].ravel().tolist() == [3_840_000, 7_680_000, 11_520_000 - 2**24, 15_360_000 - 2**24]
    assert run.overflows == {"n": {"u_wrapped": 1, "v_saturated": 1}}
    assert run.v["n"][1, 0, 0] == 2**23 - 1


def test_refractory_neuron_rests_but_its_current_goes_on():
    neuron = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1, refractory_steps=2)
    graph = chain([Layer(name="n", synapse=Dense(weight=np.array([[2]])), neuron=neuron)], input_shape=(1,))
    assert simulate(graph, np.ones((7, 1, 1), bool)).output.ravel().tolist() == [True, False, False] * 2 + [True]


def looped(kind):
    seeds = [s for s in range(20) if any(layer.name == "fc_sum" for layer in reference.random_graph(s, kind=kind).layers)]
    return [(kind, seed) for seed in seeds[:5]]


@pytest.mark.parametrize(("kind", "seed"), looped("float") + looped("integer"))
def test_all_steps_at_once_equals_step_by_step(kind, seed):
    """A useless loop (weight zero) around the network makes every layer run step by step."""
    graph = reference.random_graph(seed, kind=kind)
    x = reference.random_spikes(graph, seed)
    wanted = simulate(graph, x, record=("spikes", "v", "u"))
    inputs = int(np.prod(graph.shape_of("out")))
    loop = Layer(name="nothing", synapse=Dense(weight=np.zeros((int(np.prod(graph.shape_of("fc"))), inputs), int)))
    edges = (*graph.edges, Edge(source="out", target="nothing", delay=1), Edge(source="nothing", target="fc_sum"))
    looped = SNNGraph(layers=(*graph.layers, loop), edges=edges, input_shape=graph.input_shape, output="out")
    got = simulate(looped, x, record=("spikes", "v", "u"))
    for name, value in wanted.v.items():
        np.testing.assert_array_equal(got.v[name], value, err_msg=name)
    np.testing.assert_array_equal(got.output, wanted.output)


def test_an_edge_with_delay_delivers_earlier_spikes():
    layers = (Layer(name="a", neuron=IF(v_threshold=0.5)), Layer(name="b", neuron=IF(v_threshold=0.5)))
    edges = (Edge(source="input", target="a"), Edge(source="a", target="b", delay=3))
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1,))
    x = np.zeros((6, 1, 1), bool)
    x[[0, 4]] = True
    run = simulate(graph, x)
    assert run.output.ravel().nonzero()[0].tolist() == [3]
    assert run.counts.sent["a"] == 2 and run.counts.delivered[edges[1]] == 1


def test_counts_add_over_batches():
    graph = reference.random_graph(0)
    x = reference.random_spikes(graph, 0, batch=4)
    whole = simulate(graph, x).counts
    halves = simulate(graph, x[:, :2]).counts + simulate(graph, x[:, 2:]).counts
    assert halves.samples == 4
    for name, count in whole.sent.items():
        np.testing.assert_array_equal(halves.sent[name], count)
    with pytest.raises(DataError, match="spike counts over 6 and 3 steps cannot be added"):
        _ = whole + simulate(graph, x[:3]).counts


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (np.zeros((3, 2, 4)), "spikes", r"input has shape \(3, 2, 4\), the network takes \(T, B, 50\)"),
        (np.zeros((0, 2, 50)), "spikes", "input has shape"),
        (np.full((1, 1, 50), np.nan), "current", "input holds NaN or infinite values"),
        (np.full((1, 1, 50), -1e39), "current", r"input holds 1e\+39, beyond 3.4e\+38 of float32; scale it down"),
        (np.full((1, 1, 50), 0.5), "spikes", "spikes are whole numbers from 0; give analogue values as 'current'"),
        (np.full((1, 1, 50), -1), "spikes", "spikes are whole numbers from 0"),
        (
            np.full((1, 1, 50), 2**64 - 1, np.uint64),
            "spikes",
            r"an input sends 9.22e\+20 spikes, more than can be counted",
        ),
        (np.full((1, 1, 50), 1e30), "spikes", r"an input sends 5e\+31 spikes, more than"),
        (np.full((1, 1, 50), "a"), "spikes", "input holds text, expected numbers"),
    ],
)
def test_wrong_input_is_named(x, kind, message):
    with pytest.raises(DataError, match=message):
        simulate(one_layer(IF()), x, kind=kind)


def test_integer_networks_refuse_what_is_not_whole():
    neuron = LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1)
    graph = chain([Layer(name="n", synapse=Dense(weight=np.array([[2]])), neuron=neuron)], input_shape=(1,))
    with pytest.raises(DataError, match=r"layer 'n': takes whole numbers, the given current is not \(0.5, of 0.5..3\); scale"):
        simulate(graph, np.array([3, 0.5]).reshape(1, 2, 1), kind="current")
    pool = chain([Layer(name="p", synapse=AvgPool(kernel_size=(1,)), neuron=neuron)], input_shape=(1, 1))
    with pytest.raises(DataError, match="layer 'p': an integer network holds no mean and no batch norm"):
        simulate(pool, np.ones((1, 1, 1, 1), bool))
    norm = BatchNorm(weight=np.ones(1), bias=np.ones(1), mean=np.ones(1), var=np.ones(1))
    with pytest.raises(DataError, match="no batch norm"):
        simulate(chain([Layer(name="p", norm=norm, neuron=neuron)], input_shape=(1,)), np.ones((1, 1, 1), bool))
    for weight in (np.array([[2.0, 0.75]]), make_sparse(np.array([[2.0, 0.75]]))):
        fraction = chain([Layer(name="n", synapse=Dense(weight=weight), neuron=neuron)], input_shape=(2,))
        with pytest.raises(DataError, match="layer 'n': weight 0.75 is no whole number, as integers of a chip are; quantise it"):
            simulate(fraction, np.ones((1, 1, 2), bool))
    bias = Layer(name="n", synapse=Dense(weight=[[1.0]], bias=[-0.5]), neuron=neuron)
    with pytest.raises(DataError, match="layer 'n': bias -0.5 is no whole number"):
        simulate(chain([bias], input_shape=(1,)), np.ones((1, 1, 1), bool))


def test_a_start_outside_the_states_bits_is_refused():
    graph = one_layer(LoihiLIF(decay_u=4096, decay_v=0, v_threshold=1, v_init=np.array([3, -(2**23)])), size=2)
    with pytest.raises(DataError, match=r"layer 'n': v_init -8388608..3 given, a 24-bit state holds -8388607..8388607; change"):
        simulate(graph, np.zeros((1, 1, 2), bool))


def test_currents_that_meet_before_their_scale_are_not_truncated():
    neuron = LoihiLIF(decay_u=4096, decay_v=4096, v_threshold=None)
    layers = (Layer(name="n", synapse=Scale(weight=np.array(10.0)), neuron=neuron),)
    edges = tuple(Edge(source="input", target="n", delay=delay) for delay in (0, 1))
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1,))
    run = simulate(graph, np.full((2, 1, 1), 0.75), kind="current")
    assert run.output.ravel().tolist() == [64 * 8, 64 * 15]
