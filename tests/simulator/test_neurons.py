"""Speck and Xylo neurons against scalar loops and xylosim."""

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.errors import GraphError
from spear_deploy.interchange.snn_file import read_snn, write_snn
from spear_deploy.network import IF, LI, LIF, Conv2d, CubaLI, CubaLIF, Dense, Layer, LoihiLIF, SpeckIF, SumPool, XyloLIF
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.simulator import neurons, simulate
from spear_deploy.simulator.synops import count_synops
from tests.support.seeds import seeds
from tests.support.xylo_networks import RECORDED, SEEDS, STATES, random_network

LOW, HIGH = -(2**15), 2**15 - 1


def speck_step(v, x, *, threshold, v_min, reset):
    """One step of one neuron in Python's unbounded integers: (v, spikes, below 16 bits)."""
    v += x
    count = v // threshold if v >= threshold else 0
    if count:
        v = v - count * threshold if reset == "subtract" else 0
    return max(v, v_min), count, v < LOW


def xylo_step(u, v, x, *, dash_mem, dash_syn, threshold, bias, most):
    """One step of one neuron in Python's unbounded integers: (u, v, spikes, u clipped, v clipped)."""

    def clip(a):
        return min(max(a, LOW), HIGH)

    def fall(a, dash):
        shifted = a >> dash
        return 1 if shifted == 0 and a > 0 else shifted

    whole = u + x
    u = clip(whole)
    u -= fall(u, dash_syn)
    rise = -fall(v, dash_mem)
    rise = LOW if rise == 2**15 else rise
    reached = v + clip(clip(u + rise) + bias)
    v = clip(reached)
    count = 0
    while v >= threshold and count < most:
        v -= threshold
        count += 1
    return u, v, count, whole != clip(whole), reached != clip(reached)


def random_speck(rng, shape):
    threshold = int(rng.choice([1, rng.integers(2, 200), 2**15 - 1]))
    start = rng.integers(LOW, HIGH, shape) if rng.random() < 0.3 else 0
    reset = str(rng.choice(["value", "subtract"]))
    return SpeckIF(v_threshold=threshold, v_min=int(rng.choice([LOW, 0, -rng.integers(500)])), v_init=start, reset=reset)


def random_xylo(rng, shape, **options):
    def spread(low, high):
        return rng.integers(low, high, shape if rng.random() < 0.5 else ())

    threshold = spread(1, int(rng.choice([3, 600, 2**15])))
    bias = spread(LOW if rng.random() < 0.2 else -50, HIGH if rng.random() < 0.2 else 50)
    return XyloLIF(dash_mem=spread(0, 16), dash_syn=spread(0, 16), v_threshold=threshold, bias=bias, **options)


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_speck_does_what_single_neurons_do(seed):
    rng = np.random.default_rng(seed)
    shape, steps, batch = (3, 2), 30, 2
    neuron = random_speck(rng, shape)
    reach = int(rng.choice([40, 3000, 60_000]))
    drive = rng.integers(-reach, reach, (steps, batch, *shape))
    state = neurons.start(neuron, batch, shape, 1e-3)
    emitted, v = np.zeros(drive.shape, np.int64), np.zeros(drive.shape, np.int64)
    neurons.run(neuron, state, drive, emitted, v)
    clipped = 0
    for place in np.ndindex(batch, *shape):
        one = int(np.broadcast_to(neuron.v_init, shape)[place[1:]])
        options = {"threshold": int(neuron.v_threshold), "v_min": int(neuron.v_min), "reset": neuron.reset}
        for t in range(steps):
            one, count, low = speck_step(one, int(drive[(t, *place)]), **options)
            clipped += low
            assert (one, count) == (v[(t, *place)], emitted[(t, *place)])
    assert neurons.count_overflows(neuron, state) == ({"v_saturated": clipped} if clipped else {})


@pytest.mark.parametrize("seed", range(10))
def test_speck_takes_exciting_events_together_as_one_by_one(seed):
    """What the docstring claims: without inhibition, and with weights up to the threshold, a step is its events in any order."""
    rng = np.random.default_rng(seed)
    threshold = int(rng.integers(128, 1000))
    neuron = SpeckIF(v_threshold=threshold)
    state = neurons.start(neuron, 1, (1,), 1e-3)
    v = 0
    for _ in range(50):
        events = rng.integers(1, 128, rng.integers(0, 40))
        spikes = 0
        for weight in events:
            v, count, _ = speck_step(v, int(weight), threshold=threshold, v_min=LOW, reset="subtract")
            spikes += count
        assert int(neurons.step(neuron, state, np.array([[events.sum()]]))[0, 0]) == spikes
        assert int(state.v[0, 0]) == v


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_xylo_does_what_single_neurons_do(seed):
    rng = np.random.default_rng(seed)
    shape, steps, batch = (5,), 40, 2
    neuron = random_xylo(rng, shape, max_spikes=int(rng.choice([1, 31])))
    if seed % 6 == 0:
        neuron = replace(neuron, v_threshold=None)
    reach = int(rng.choice([30, 2000, 40_000]))
    drive = rng.integers(-reach, reach, (steps, batch, *shape)) * (rng.random((steps, batch, *shape)) < 0.5)
    state = neurons.start(neuron, batch, shape, 1e-3)
    emitted, v, u = (np.zeros(drive.shape, np.int64) for _ in range(3))
    neurons.run(neuron, state, drive, emitted, v, u)
    clipped = {"u_saturated": 0, "v_saturated": 0}
    for b, n in np.ndindex(batch, *shape):
        names = ("dash_mem", "dash_syn", "bias")
        options = {name: int(np.broadcast_to(getattr(neuron, name), shape)[n]) for name in names}
        readout = neuron.v_threshold is None  # on the chip a neuron with the highest threshold
        threshold = HIGH if readout else int(np.broadcast_to(neuron.v_threshold, shape)[n])
        most = 1 if readout else neuron.max_spikes
        one_u = one_v = 0
        for t in range(steps):
            x = int(drive[t, b, n])
            one_u, one_v, count, u_clips, v_clips = xylo_step(one_u, one_v, x, threshold=threshold, most=most, **options)
            clipped["u_saturated"] += u_clips
            clipped["v_saturated"] += v_clips
            wanted = one_v if readout else count
            assert (one_u, one_v, wanted) == (u[t, b, n], v[t, b, n], emitted[t, b, n])
    assert neurons.count_overflows(neuron, state) == (clipped if any(clipped.values()) else {})


def test_the_extremes_are_reached_on_purpose():
    low = SpeckIF(v_threshold=5)
    state = neurons.start(low, 1, (1,), 1e-3)
    neurons.step(low, state, np.array([[LOW - 1]]))
    assert int(state.v[0, 0]) == LOW and neurons.count_overflows(low, state) == {"v_saturated": 1}
    busy = XyloLIF(dash_mem=15, dash_syn=1, v_threshold=10)
    state = neurons.start(busy, 1, (1,), 1e-3)
    assert int(neurons.step(busy, state, np.array([[100_000]]))[0, 0]) == 31  # 16384 would be 1638 spikes
    assert int(state.u[0, 0]) == HIGH - HIGH // 2 and int(state.v[0, 0]) == 16384 - 310
    assert neurons.count_overflows(busy, state) == {"u_saturated": 1, "v_saturated": 0}
    still = XyloLIF(dash_mem=4, dash_syn=4, v_threshold=HIGH)
    state = neurons.start(still, 1, (1,), 1e-3)
    for x, u in ((5, 4), (0, 3), (0, 2), (0, 1), (0, 0), (0, 0), (-1, 0)):  # small currents fall by one, −1 by itself
        neurons.step(still, state, np.array([[x]]))
        assert int(state.u[0, 0]) == u


def test_xylo_equals_the_recordings_of_xylosim():
    recorded = np.load(RECORDED, allow_pickle=False)
    compared = saturated = 0
    for seed in range(SEEDS):
        graph, x = random_network(seed)
        for name in ("in", "rec", "out"):
            np.testing.assert_array_equal(graph[name].synapse.weight, recorded[f"{seed}.{name}.weight"])
        np.testing.assert_array_equal(x, recorded[f"{seed}.input"])
        run = simulate(graph, x, record=STATES)
        one_by_one = seed % 3 == 2  # see random_network
        if run.overflows and not one_by_one:
            continue
        saturated += bool(run.overflows)
        for layer in ("hidden", "out"):
            for what in STATES:
                wanted = recorded[f"{seed}.{layer}.{what}"]
                np.testing.assert_array_equal(getattr(run, what)[layer][:, 0], wanted, err_msg=f"{seed}.{layer}.{what}")
                compared += wanted.size
    assert compared > 10_000 and saturated >= 6


def speck_network(rng):
    """Two convolutions with a pool between, all spikes in plenty."""
    layers = (
        Layer(
            name="a",
            synapse=Conv2d(weight=rng.integers(-50, 128, (3, 2, 3, 3)), bias=rng.integers(-9, 9, 3), padding=(1, 1)),
            neuron=SpeckIF(v_threshold=60),
        ),
        Layer(name="pool", synapse=SumPool(kernel_size=(2, 2))),
        Layer(
            name="b", synapse=Conv2d(weight=rng.integers(-128, 128, (4, 3, 1, 1))), neuron=SpeckIF(v_threshold=100, reset="value")
        ),
        Layer(name="c", synapse=Dense(weight=rng.integers(-128, 128, (5, 16))), neuron=SpeckIF(v_threshold=90)),
    )
    return chain(layers, input_shape=(2, 4, 4))


@pytest.mark.parametrize("seed", range(4))
def test_samples_do_not_touch_each_other_and_steps_follow_each_other(seed):
    rng = np.random.default_rng(seed)
    for graph in (speck_network(rng), random_network(3 * seed)[0]):
        x = rng.integers(0, 4, (12, 5, *graph.input_shape))
        together = simulate(graph, x, record=STATES)
        for b in range(5):
            alone = simulate(graph, x[:, b : b + 1], record=STATES)
            for what in STATES:
                for name, value in getattr(together, what).items():
                    np.testing.assert_array_equal(value[:, b : b + 1], getattr(alone, what)[name], err_msg=name)
        shorter = simulate(graph, x[:7], record=STATES)
        for name, value in together.v.items():
            np.testing.assert_array_equal(value[:7], shorter.v[name])


@pytest.mark.parametrize("kind", [LI, LIF, CubaLI, CubaLIF])
def test_one_time_constant_gives_the_same_factors_in_every_shape_and_type(kind):
    tau = np.float32(0.00106371)
    names = ("tau_mem_s", "tau_syn_s") if kind in (CubaLI, CubaLIF) else ("tau_s",)
    made = [
        neurons.factors(kind(**dict.fromkeys(names, value)), 1e-3)
        for value in (np.asarray(tau), np.full(1, tau), np.full((3, 1), tau), np.asarray(np.float64(tau)))
    ]
    for name, expected in made[-1].items():
        assert all(factors[name].dtype == np.float64 and (factors[name] == expected).all() for factors in made), name


def test_counts_and_synops_are_sums_of_all_spikes():
    graph = speck_network(np.random.default_rng(0))
    x = np.random.default_rng(1).integers(0, 3, (10, 3, 2, 4, 4))
    run = simulate(graph, x, record=("spikes",))
    assert run.spikes["a"].max() > 2 and run.output.dtype == np.int64
    for name, spikes in run.spikes.items():
        np.testing.assert_array_equal(run.counts.sent[name], spikes.sum(axis=(0, 1)))
    fan_out = 4  # each spike of a reaches the 4 channels of b through the pool
    assert np.count_nonzero(graph["b"].synapse.weight) == 12
    assert count_synops(graph, run.counts).per_layer["b"] == fan_out * run.spikes["a"].sum() / 3


def test_a_loop_of_many_spikes_runs_step_by_step():
    neuron = XyloLIF(dash_mem=3, dash_syn=1, v_threshold=20)
    layers = (
        Layer(name="in", synapse=Dense(weight=np.array([[100]]))),
        Layer(name="back", synapse=Dense(weight=np.array([[-7]]))),
        Layer(name="n", neuron=neuron),
    )
    pairs = (("input", "in", 0), ("in", "n", 0), ("n", "back", 1), ("back", "n", 0))
    edges = tuple(Edge(source=s, target=t, delay=d) for s, t, d in pairs)
    graph = SNNGraph(layers=layers, edges=edges, input_shape=(1,), output="n")
    x = np.random.default_rng(0).integers(0, 4, (30, 1, 1))
    run = simulate(graph, x, record=STATES)
    u = v = before = 0
    for t in range(30):
        options = {"dash_mem": 3, "dash_syn": 1, "threshold": 20, "bias": 0, "most": 31}
        u, v, before, _, _ = xylo_step(u, v, 100 * int(x[t, 0, 0]) - 7 * before, **options)
        assert (u, v, before) == (run.u["n"][t, 0, 0], run.v["n"][t, 0, 0], run.spikes["n"][t, 0, 0])
    assert run.spikes["n"].max() > 3


def test_files_keep_integer_neurons(tmp_path):
    for graph in (speck_network(np.random.default_rng(0)), random_network(1)[0]):
        write_snn(graph, tmp_path / "net.snn")
        assert read_snn(tmp_path / "net.snn") == graph


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpeckIF(v_threshold=0), r"SpeckIF.v_threshold: 0..0 given, the format holds 1..32767"),
        (lambda: SpeckIF(v_threshold=2**15), r"SpeckIF.v_threshold: 32768..32768 given, the format holds 1..32767"),
        (lambda: SpeckIF(v_threshold=1, v_min=1), r"SpeckIF.v_min: 1..1 given, the format holds -32768..0"),
        (lambda: SpeckIF(v_threshold=1, v_init=[0, 2**15]), r"SpeckIF.v_init: 0..32768 given, the format holds -32768..32767"),
        (lambda: SpeckIF(v_threshold=[1, 2]), "SpeckIF.v_threshold: 2 values given, a core holds one for the whole layer"),
        (lambda: SpeckIF(v_threshold=1.5), "SpeckIF.v_threshold: expected whole numbers"),
        (lambda: SpeckIF(v_threshold=1, reset="hard"), "SpeckIF.reset: 'hard' given"),
        (lambda: XyloLIF(dash_mem=16, dash_syn=1, v_threshold=1), r"XyloLIF.dash_mem: 16..16 given, the format holds 0..15"),
        (lambda: XyloLIF(dash_mem=1, dash_syn=-1, v_threshold=1), r"XyloLIF.dash_syn: -1..-1 given, the format holds 0..15"),
        (lambda: XyloLIF(dash_mem=1, dash_syn=1, v_threshold=0), r"XyloLIF.v_threshold: 0..0 given, the format holds 1..32767"),
        (lambda: XyloLIF(dash_mem=1, dash_syn=1, v_threshold=1, bias=2**15), r"XyloLIF.bias: .* the format holds -32768..32767"),
        (lambda: XyloLIF(dash_mem=1, dash_syn=1, v_threshold=1, max_spikes=32), r"XyloLIF.max_spikes: 32 given, .* 1..31"),
        (
            lambda: XyloLIF(dash_mem=1, dash_syn=1, v_threshold=1, early_steps=-1),
            r"XyloLIF.early_steps: -1 given, expected 0 or more",
        ),
    ],
)
def test_what_the_formats_do_not_hold_is_refused(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_formats_are_not_mixed():
    def two(first, second):
        one = Dense(weight=np.ones((1, 1), int))
        return chain([Layer(name="a", synapse=one, neuron=first), Layer(name="b", synapse=one, neuron=second)], input_shape=(1,))

    loihi = LoihiLIF(decay_u=0, decay_v=0, v_threshold=1)
    with pytest.raises(
        GraphError, match=r"integers of several chips are mixed \(LoihiLIF and SpeckIF\); quantise the network for"
    ):
        two(SpeckIF(v_threshold=1), loihi)
    with pytest.raises(GraphError, match="integer and floating-point neurons are mixed"):
        two(SpeckIF(v_threshold=1), IF())
