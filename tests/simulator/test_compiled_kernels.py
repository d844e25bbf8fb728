"""Compiled kernels against numpy: equal spikes, states and counts."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.network import Conv1d, Conv2d, Dense, Layer, LoihiLIF, OdinLIF, make_sparse, sparse_matrix
from spear_deploy.network.graph import chain
from spear_deploy.simulator import Simulation, event_sums, kernel_choice, simulate, stepper, synapse_math
from spear_deploy.simulator.event_sums import list_weights
from spear_deploy.simulator.neurons import chips, loihi
from tests.support import reference
from tests.support.seeds import seeds

compiled_kernels = pytest.importorskip("spear_deploy.simulator.compiled_kernels", reason="numba is not installed")


@pytest.fixture
def compiled(monkeypatch):
    """All that can be compiled is."""
    monkeypatch.setattr(kernel_choice, "_loaded", [compiled_kernels])
    monkeypatch.setattr(event_sums, "MAX_ACTIVITY", 1.0)
    monkeypatch.setattr(event_sums, "MIN_OUTPUTS", 1)


def uses_numpy(monkeypatch):
    monkeypatch.setattr(kernel_choice, "_loaded", [None])


def random_synapse(rng):
    """A dense layer or a convolution of one or two axes, with groups, exponent, bias, and weights of one, two or four bytes."""
    most = int(rng.choice([100, 30_000, 200_000]))
    outputs, inputs, groups = int(rng.integers(1, 12)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
    options = {"bias": rng.integers(-50, 50, outputs * groups)} if rng.random() < 0.5 else {}
    options["weight_exponent"] = int(rng.integers(-3, 4))
    dims = int(rng.integers(3))
    if not dims:
        return Dense(weight=rng.integers(-most, most, (outputs * groups, 30)), **options), (3, 5, 2)
    kernel = tuple(rng.integers(1, 4, dims))
    options |= {name: tuple(rng.integers(1, 3, dims)) for name in ("stride", "dilation")}
    options |= {"padding": tuple(rng.integers(0, 3, dims)), "groups": groups}
    kind = (Conv1d, Conv2d)[dims - 1]
    conv = kind(weight=rng.integers(-most, most, (outputs * groups, inputs, *kernel)), **options)
    return conv, (inputs * groups, *(int(n) for n in rng.integers(6, 25, dims)))


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_sums_of_events_equal_matrix_products(monkeypatch, compiled, seed):
    rng = np.random.default_rng(seed)
    synapse, shape = random_synapse(rng)
    x = rng.random((3, *shape)) < rng.choice([0.0, 0.05, 0.4, 1.0])
    x = x.astype([bool, np.int64, np.float32][seed % 3])
    by_events = synapse_math.make_weigher(synapse, integer=True)(x)
    assert by_events.dtype == np.int32
    uses_numpy(monkeypatch)
    expected = synapse_math.make_weigher(synapse, integer=True)(x)
    assert expected.dtype != np.int32
    np.testing.assert_array_equal(by_events, expected)


@pytest.mark.parametrize("outputs", [64, 150])
@pytest.mark.parametrize("largest", [1, 127, 2047, 2048, 1 << 18])
def test_sums_in_whole_registers_equal_matrix_products(monkeypatch, compiled, outputs, largest):
    """More rows than int16 holds the sum of, all of one sign; several blocks of registers, and what is left of them."""
    rng = np.random.default_rng(largest + outputs)
    weight = np.where(rng.random((outputs, 96, 3)) < 0.9, largest, -largest - (largest == 127))
    x = rng.random((2, 96, 40)) < 0.9
    for synapse in (Conv1d(weight=weight, padding=1), Dense(weight=np.tile(weight.reshape(outputs, -1), (1, 40))[:, :3840])):
        monkeypatch.setattr(kernel_choice, "_loaded", [compiled_kernels])
        by_events = synapse_math.make_weigher(synapse, integer=True)(x)
        assert by_events.dtype == np.int32
        uses_numpy(monkeypatch)
        np.testing.assert_array_equal(by_events, synapse_math.make_weigher(synapse, integer=True)(x))


@pytest.mark.parametrize("exponent", [-2, 0, 3])
def test_sums_of_few_weights_equal_matrix_products(monkeypatch, compiled, exponent):
    rng = np.random.default_rng(exponent + 9)
    weight = rng.integers(-300, 300, (90, 70)) * (rng.random((90, 70)) < 0.05)
    synapse = Dense(weight=weight, bias=rng.integers(-50, 50, 90), weight_exponent=exponent)
    x = rng.random((9, 70)) < 0.3
    used = []
    monkeypatch.setattr(event_sums, "list_weights", lambda weight: used.append(1) or list_weights(weight))
    by_events = synapse_math.make_weigher(synapse, integer=True)(x)
    assert used and by_events.dtype == np.int32
    sparse = replace(synapse, weight=make_sparse(weight))
    np.testing.assert_array_equal(by_events, synapse_math.make_weigher(sparse, integer=True)(x))
    uses_numpy(monkeypatch)
    np.testing.assert_array_equal(by_events, synapse_math.make_weigher(synapse, integer=True)(x))
    np.testing.assert_array_equal(by_events, synapse_math.make_weigher(sparse, integer=True)(x))


def test_sparse_weights_are_summed_weight_by_weight_however_many(monkeypatch, compiled):
    weight = np.random.default_rng(0).integers(1, 9, (20, 30))
    monkeypatch.setattr(sparse_matrix, "FULL_NUMBERS", 0)
    x = np.random.default_rng(1).random((4, 30)) < 0.2
    by_events = synapse_math.make_weigher(Dense(weight=make_sparse(weight)), integer=True)(x)
    assert by_events.dtype == np.int32
    np.testing.assert_array_equal(by_events, x.astype(np.int64) @ weight.T)


def test_the_reach_of_weights_does_not_depend_on_blocks(monkeypatch):
    weight = np.random.default_rng(0).integers(-300, 300, (50, 3, 4))
    monkeypatch.setattr(event_sums, "BLOCK_WEIGHTS", 100)
    assert event_sums.find_reach(weight) == np.abs(weight).sum(axis=(1, 2)).max()


def test_sums_beyond_32_bits_stay_matrix_products(compiled):
    synapse = Dense(weight=np.full((8, 4), 1 << 29))
    y = synapse_math.make_weigher(synapse, integer=True)(np.ones((1, 4), bool))
    assert y.dtype == np.float64 and (y == 1 << 31).all()
    assert event_sums.make_event_weigher(replace(synapse, weight=np.full((8, 3), 1 << 29))) is not None
    assert event_sums.make_event_weigher(replace(synapse, weight=np.full((8, 3), 1 << 29), weight_exponent=1)) is None


def test_many_spikes_and_counts_of_spikes_stay_matrix_products(compiled, monkeypatch):
    monkeypatch.setattr(event_sums, "MAX_ACTIVITY", 0.3)
    weigh = synapse_math.make_weigher(Dense(weight=np.ones((8, 10), int)), integer=True)
    few = np.arange(10)[None] < 3
    assert weigh(few).dtype == np.int32
    assert weigh(np.arange(10)[None] < 4).dtype == weigh(2 * few).dtype == np.float32


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_compiled_neurons_equal_numpy(monkeypatch, compiled, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(compiled_kernels, "TILE", 512)
    shape = [(5,), (3, 4, 4), (1300,)][seed % 3]

    def spread(low, high):
        return rng.integers(low, high, [(), (shape[0],) + (1,) * (len(shape) - 1), shape][rng.integers(3)])

    neuron = LoihiLIF(
        decay_u=[np.array(4096), np.array(0), spread(0, 4097)][rng.integers(3)],
        decay_v=[np.array(4096), np.array(0), spread(0, 4097)][rng.integers(3)],
        v_threshold=spread(0, int(rng.choice([900, 2**17]))),
        bias_mantissa=spread(-4096, 4096) if rng.random() < 0.5 else 0,
        bias_exponent=int(rng.integers(0, 8)),
        v_init=spread(-100_000, 100_000) if rng.random() < 0.5 else 0,
        reset=str(rng.choice(["value", "subtract"])),
        v_reset=spread(-10_000, 10_000) if rng.random() < 0.5 else 0,
    )
    steps, batch = int(rng.integers(1, 30)), int(rng.integers(1, 4))
    most = int(rng.choice([5, 500, 70_000, 1 << 20]))
    drive = rng.integers(-most, most, (steps, batch, *shape)) * (rng.random((steps, batch, *shape)) < 0.5)
    drive = drive.astype([np.int32, np.float32, np.float64, np.int64][seed % 4])

    def run():
        state, whole = loihi.start(neuron, batch, shape), np.zeros((steps, batch + 1, *shape), bool)
        for part in (slice(0, steps // 2), slice(steps // 2, steps)):
            loihi.run(neuron, state, drive[part], whole[part, 1:])  # a part of a larger array
        return state, whole

    state, spikes = run()
    uses_numpy(monkeypatch)
    expected, expected_spikes = run()
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_array_equal(state.u, expected.u)
    np.testing.assert_array_equal(state.v, expected.v)
    assert (state.wraps, state.saturations) == (expected.wraps, expected.saturations)


@pytest.mark.parametrize("seed", seeds(6, 20))
def test_events_one_after_another_equal_numpy(compiled, seed):
    rng = np.random.default_rng(seed)
    batch, inputs, outputs = rng.integers(1, 40, 3)
    x, weight = rng.integers(0, 4, (batch, inputs)), rng.integers(-7, 8, (inputs, outputs))
    threshold, start = rng.integers(1, 30 if seed % 2 else 256, outputs), rng.integers(0, 200, (batch, outputs))
    results = []
    for send in (chips._send_events, compiled_kernels.send_events):
        v, counts = np.minimum(start, threshold - 1), np.zeros((batch, outputs), np.int64)
        send(x, weight, threshold, (0, 255), v, counts)
        results.append((v, counts))
    for slow, fast in zip(*results, strict=True):
        np.testing.assert_array_equal(slow, fast)


def test_a_sparse_layer_on_odin_is_read_row_by_row(compiled):
    rng = np.random.default_rng(0)
    weight = rng.integers(-7, 8, (20, 30)) * (rng.random((20, 30)) < 0.4)
    weight = np.abs(weight) * np.where(np.arange(30) % 2, 1, -1)  # a sign for each source
    neuron = OdinLIF(v_threshold=np.full(20, 12), leak=1)
    full, sparse = (
        chain([Layer(name="fc", synapse=Dense(weight=form(weight)), neuron=neuron)], input_shape=(30,))
        for form in (np.asarray, make_sparse)
    )
    x = rng.integers(0, 2, (8, 5, 30)).astype(np.uint8)
    expected = simulate(full, x).output
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(simulate(sparse, x).output, expected)


@pytest.mark.parametrize("seed", range(12))
def test_compiled_networks_equal_numpy(monkeypatch, compiled, seed):
    graph = reference.random_graph(seed, kind="integer")
    x = reference.random_spikes(graph, seed, steps=12)
    run = simulate(graph, x)
    uses_numpy(monkeypatch)
    stepper._prepared.clear()
    expected = simulate(graph, x)
    np.testing.assert_array_equal(run.output, expected.output)
    assert run.overflows == expected.overflows and expected.counts.sent.keys() == run.counts.sent.keys()
    for name, sent in expected.counts.sent.items():
        np.testing.assert_array_equal(run.counts.sent[name], sent, err_msg=name)


def test_kernels_are_loaded_once_they_pay_back(monkeypatch):
    monkeypatch.setattr(kernel_choice, "_loaded", [])
    monkeypatch.setattr(kernel_choice, "_done", 0)
    assert kernel_choice.find_kernels(kernel_choice.PAYS_BACK - 1) is None
    assert kernel_choice.find_kernels(1) is compiled_kernels is kernel_choice.find_kernels()


def test_a_run_goes_on_in_compiled_kernels_where_numpy_left_off(monkeypatch):
    graph = reference.random_graph(3, kind="integer")
    x = reference.random_spikes(graph, 3, steps=20)
    uses_numpy(monkeypatch)
    expected = simulate(graph, x).output
    loaded: list = []
    monkeypatch.setattr(kernel_choice, "_loaded", loaded)
    monkeypatch.setattr(kernel_choice, "_done", 0)
    monkeypatch.setattr(kernel_choice, "PAYS_BACK", 2000)
    run = Simulation(graph, x, max_steps=2)
    seen = []
    for _ in range(len(run)):
        run.advance()
        seen.append(len(loaded))
    assert seen[0] == 0 and seen[-1] == 1
    np.testing.assert_array_equal(run.result().output, expected)


def test_without_numba_numpy_does_the_work(monkeypatch):
    import builtins
    import sys

    real = builtins.__import__

    def refuse(name, *more):
        if name == "numba":
            raise ImportError("no module named numba")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "spear_deploy.simulator.compiled_kernels")
    monkeypatch.delattr("spear_deploy.simulator.compiled_kernels", raising=False)
    assert kernel_choice._load_kernels() is None


def test_a_network_is_prepared_once_while_it_lives():
    neuron = LoihiLIF(decay_u=0, decay_v=0, v_threshold=1)
    graph = chain([Layer(name="n", synapse=Dense(weight=np.ones((2, 3), int)), neuron=neuron)], input_shape=(3,))
    assert stepper.prepare(graph) is stepper.prepare(graph)
    key = (id(graph), np.float32)
    del graph
    gc.collect()
    assert key not in stepper._prepared
