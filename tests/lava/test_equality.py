"""Lava and the simulator give the same spikes, potentials, currents, counts and overflows."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.lava.batches import lower_in_passes
from spear_deploy.lava.plan import plan_network
from spear_deploy.lava.run import Job, run_jobs
from spear_deploy.network import Conv1d, Conv2d, Dense, Flatten, Layer, LoihiLIF, Scale, SumPool
from spear_deploy.network.graph import Edge, SNNGraph, chain
from tests.support.lava_networks import differences, random_jobs, simulated

pytestmark = pytest.mark.lava

EVERYTHING = frozenset({"spikes", "v", "u"})
MODELS = ("reference", "fast")


def lif(**parameters):
    return LoihiLIF(**{"decay_u": 4096, "decay_v": 300, "v_threshold": 100, **parameters})


def weights(seed, *shape, low=-128, high=128):
    return np.random.default_rng(seed).integers(low, high, shape)


def spikes(seed, steps, batch, *shape, rate=0.4):
    return np.random.default_rng(seed).random((steps, batch, *shape)) < rate


def dense(name, seed, outputs, inputs, **more):
    return Layer(name=name, synapse=Dense(weight=weights(seed, outputs, inputs)), neuron=lif(**more))


def image_classifier(size=8):
    """The network of the demo: two convolutions, each with a pool behind it, and a readout of spikes."""
    layers = [
        Layer(name="conv1", synapse=Conv2d(weight=weights(0, 4, 1, 3, 3), padding=1, bias=weights(1, 4)), neuron=lif()),
        Layer(name="pool1", synapse=SumPool(kernel_size=2)),
        Layer(
            name="conv2", synapse=Conv2d(weight=weights(2, 6, 4, 3, 3), padding=1), neuron=lif(bias_mantissa=50, bias_exponent=2)
        ),
        Layer(name="pool2", synapse=SumPool(kernel_size=2)),
        Layer(name="flatten", synapse=Flatten()),
        Layer(name="fc", synapse=Dense(weight=weights(3, 10, 6 * (size // 4) ** 2)), neuron=lif(v_threshold=2000)),
    ]
    return chain(layers, input_shape=(1, size, size))


def skipping(delay=0):
    """Three layers in a row, and the first one's spikes straight and weighted to the third."""
    layers = [
        dense("a", 0, 5, 4),
        dense("b", 1, 6, 5),
        Layer(name="weighted", synapse=Dense(weight=weights(2, 5, 6))),
        Layer(name="skip", synapse=Dense(weight=weights(3, 5, 5))),
        Layer(name="c", neuron=lif(v_threshold=300)),
    ]
    pairs = [("input", "a"), ("a", "b"), ("b", "weighted"), ("weighted", "c"), ("skip", "c")]
    edges = [Edge(source=s, target=t) for s, t in pairs]
    edges += [Edge(source="a", target="skip", delay=delay), Edge(source="a", target="c", delay=delay)]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(4,))


def recurrent(delay, **neuron):
    """A layer that feeds itself, driven by a bias so that it never falls silent, and one behind it."""
    layers = [
        Layer(name="a", synapse=Dense(weight=weights(0, 6, 4))),
        Layer(name="again", synapse=Dense(weight=weights(1, 6, 6))),
        Layer(name="loop", neuron=lif(bias_mantissa=3000, **neuron)),
        dense("b", 2, 5, 6),
    ]
    edges = [
        Edge(source="input", target="a"),
        Edge(source="a", target="loop"),
        Edge(source="loop", target="again", delay=delay),
        Edge(source="again", target="loop"),
        Edge(source="loop", target="b", delay=3),
    ]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(4,))


def feedback():
    """Three layers in a circle: three connections, so three steps of delay."""
    layers = [
        Layer(name="a", synapse=Dense(weight=weights(0, 4, 4)), neuron=lif(bias_mantissa=500)),
        dense("b", 1, 4, 4),
        dense("c", 2, 4, 4),
    ]
    edges = [Edge(source=s, target=t) for s, t in (("input", "a"), ("a", "b"), ("b", "c"))]
    return SNNGraph(layers=tuple(layers), edges=(*edges, Edge(source="c", target="a", delay=3)), input_shape=(4,))


def encoder(split):
    """A netx input layer: the host rounds `w · current + b`, which drives neurons without a synapse."""
    scale = Scale(weight=np.random.default_rng(0).normal(0, 40, (2, 3, 3)), bias=np.array(7.25))
    neuron = lif(v_threshold=30)
    first = [Layer(name="encoder", synapse=scale, neuron=neuron)]
    if split:
        first = [Layer(name="scale", synapse=scale), Layer(name="encoder", neuron=neuron)]
    return chain([*first, Layer(name="conv", synapse=Conv2d(weight=weights(1, 3, 2, 2, 2)), neuron=lif())], input_shape=(2, 3, 3))


def extremes():
    """Currents that wrap at 2^23, potentials that saturate there, thresholds and biases at the ends of their formats."""
    heavy = Dense(weight=np.array([[127, 127], [-128, -128], [127, -128]]) << 7, weight_exponent=1)
    layers = [
        Layer(name="wraps", synapse=heavy, neuron=lif(decay_u=1, decay_v=0, v_threshold=2**17 - 1)),
        Layer(name="drive", synapse=Dense(weight=np.array([[255] * 3, [1, 0, 255]])), neuron=lif(decay_v=4096, v_threshold=0)),
        Layer(
            name="saturates",
            synapse=Dense(weight=np.array([[-255, -255], [0, -1]])),
            neuron=lif(
                decay_v=0,
                v_threshold=np.array([131071, 131000]),
                bias_mantissa=np.array([-4096, 4095]),
                bias_exponent=7,
            ),
        ),
    ]
    return chain(layers, input_shape=(2,))


def convolving(layer, *, shape=(4, 6, 5)):
    """A convolution of what neurons send, which is Lava's Conv, and weights behind it."""
    first = Layer(name="first", synapse=Scale(weight=np.array(40)), neuron=lif(v_threshold=30))
    return chain([first, layer, Layer(name="flatten", synapse=Flatten()), last(layer, shape)], input_shape=shape)


def last(layer, shape):
    return dense("last", 9, 3, int(np.prod(layer.output_shape(shape))))


def conv(seed, outputs, inputs, *kernel, **geometry):
    synapse = Conv2d(weight=weights(seed, outputs, inputs, *kernel), **geometry)
    return Layer(name="conv", synapse=synapse, neuron=lif(v_threshold=200))


def two_images():
    """Images of three layers meet in one convolution, one of them a step later than the others: Conv behind a delay line."""
    layers = [
        Layer(name="a", synapse=Conv2d(weight=weights(0, 2, 2, 3, 3), padding=1), neuron=lif(v_threshold=150)),
        Layer(name="b", synapse=Conv2d(weight=weights(1, 2, 2, 1, 1)), neuron=lif(v_threshold=90)),
        Layer(name="c", synapse=Conv2d(weight=weights(2, 2, 2, 3, 3), padding=1), neuron=lif(v_threshold=150)),
        Layer(name="meet", synapse=Conv2d(weight=weights(6, 3, 2, 2, 2)), neuron=lif(v_threshold=300)),
    ]
    pairs = [("input", "a"), ("input", "b"), ("a", "c"), ("a", "meet"), ("b", "meet"), ("c", "meet")]
    return SNNGraph(layers=tuple(layers), edges=tuple(Edge(source=s, target=t) for s, t in pairs), input_shape=(2, 5, 4))


def pooled(kernel, stride, step, exponent=-4):
    """A convolution, a pool of its sums, and a second connection into the neurons: sums shifted down, or folded beyond 8 bits."""
    conv = Conv2d(weight=step * weights(5, 2, 1, 3, 3, low=-127 // step, high=127 // step), weight_exponent=exponent)
    layers = [
        Layer(name="conv", synapse=conv),
        Layer(name="pool", synapse=SumPool(kernel_size=kernel, stride=stride)),
        Layer(name="n", neuron=lif(decay_v=1024, v_threshold=2000, reset="subtract")),
        Layer(name="again", synapse=Scale(weight=np.array(-56))),
        dense("last", 13, 3, 2 * ((6 - kernel) // stride + 1) ** 2, v_threshold=300),
    ]
    pairs = [("input", "conv"), ("conv", "pool"), ("pool", "n"), ("again", "n"), ("n", "last")]
    edges = [Edge(source=s, target=t) for s, t in pairs] + [Edge(source="n", target="again", delay=1)]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(1, 8, 8), output="last")


def with_output(layer):
    return chain([dense("a", 0, 5, 4), dense("b", 1, 6, 5), layer], input_shape=(4,))


def cases():
    few, long = spikes(0, 6, 3, 4), spikes(1, 25, 3, 4)
    counts = np.random.default_rng(2).integers(0, 5, (6, 3, 4))
    currents = np.random.default_rng(3).normal(0, 3, (6, 3, 2, 3, 3))
    yield "image", image_classifier(), spikes(4, 5, 4, 1, 8, 8), "spikes"
    yield "one step", image_classifier(), spikes(5, 1, 3, 1, 8, 8), "spikes"
    yield "counted spikes", chain([dense("a", 0, 5, 4), dense("b", 1, 6, 5)], input_shape=(4,)), counts, "spikes"
    yield "signed current", chain([dense("a", 0, 5, 4), dense("b", 1, 6, 5)], input_shape=(4,)), counts - 2, "current"
    yield "current of one unit", chain([dense("a", 0, 5, 4), dense("b", 1, 6, 5)], input_shape=(4,)), counts % 3 - 1, "current"
    yield "skip", skipping(), long, "spikes"
    yield "skip with delay", skipping(delay=4), long, "spikes"
    yield "recurrent", recurrent(1), few, "spikes"
    yield "recurrent, late", recurrent(3), long, "spikes"
    yield "starting potential", recurrent(1, v_init=np.arange(-3000, 3000, 1000)), few, "spikes"
    yield "starting potential alone", with_output(dense("c", 2, 3, 6, v_init=5000)), few, "spikes"
    yield "feedback", feedback(), long, "spikes"
    yield "netx input", encoder(split=False), currents, "current"
    yield "netx input, two rows", encoder(split=True), currents, "current"
    yield "extremes", extremes(), spikes(6, 40, 2, 2, rate=0.8), "spikes"
    yield "readout", with_output(dense("c", 2, 3, 6, v_threshold=None)), few, "spikes"
    yield "values", with_output(Layer(name="c", synapse=Dense(weight=weights(2, 3, 6), bias=weights(3, 3)))), few, "spikes"
    yield "spikes as values", with_output(Layer(name="c", synapse=Flatten())), few, "spikes"
    yield "silent weights", with_output(Layer(name="c", synapse=Dense(weight=np.zeros((3, 6), int)), neuron=lif())), few, "spikes"
    twice = [dense("a", 0, 5, 4), Layer(name="w", synapse=Dense(weight=weights(7, 6, 5, low=-9, high=9))), dense("c", 8, 3, 6)]
    yield "weights of two rows in one", chain(twice, input_shape=(4,)), few, "spikes"
    for name, more in BEYOND_LIF.items():
        yield name, chain([dense("a", 0, 5, 4, **more), dense("b", 1, 6, 5, **more)], input_shape=(4,)), few, "spikes"
    yield "subtract and rest, recurrent", recurrent(2, **BEYOND_LIF["subtract and rest"]), few, "spikes"
    images, long_images = spikes(8, 5, 3, 4, 6, 5), spikes(9, 5, 2, 2, 5, 4)
    yield "convolution", convolving(conv(0, 3, 4, 3, 2, stride=(2, 1), padding=(1, 2))), images, "spikes"
    yield "dilated", convolving(conv(1, 3, 4, 2, 3, dilation=(3, 1), padding=(2, 0))), images, "spikes"
    yield "in groups", convolving(conv(2, 6, 2, 3, 3, groups=2, weight_exponent=1)), images, "spikes"
    yield "depthwise", convolving(conv(3, 4, 1, 3, 3, groups=4, stride=2)), images, "spikes"
    yield "convolution of counts", chain([conv(0, 3, 4, 3, 3)], input_shape=(4, 6, 5)), images * 3, "spikes"
    yield "convolution of signals", chain([conv(0, 3, 4, 3, 3)], input_shape=(4, 6, 5)), images * 3 - 1, "current"
    line = Layer(name="line", synapse=Conv1d(weight=weights(4, 3, 2, 3), stride=2, padding=1, dilation=2), neuron=lif())
    yield "one axis", chain([line], input_shape=(2, 9)), spikes(10, 6, 2, 2, 9), "spikes"
    yield "images meet", two_images(), long_images, "spikes"
    graded = np.random.default_rng(12).integers(0, 256, (20, 2, 1, 8, 8))
    yield "rounded sums in a pool", pooled(2, 2, 8), graded, "current"
    yield "rounded sums in windows that overlap", pooled(3, 1, 2), graded, "current"
    yield "weights beyond 8 bits in a pool", pooled(3, 1, 2, exponent=0), spikes(13, 20, 2, 1, 8, 8), "spikes"
    edges = (Edge(source="input", target="a"), Edge(source="a", target="b", delay=62))
    late = SNNGraph(layers=(dense("a", 0, 5, 4), dense("b", 1, 6, 5)), edges=edges, input_shape=(4,))
    yield "62 steps late", late, spikes(11, 70, 2, 4), "spikes"
    biased = Dense(weight=weights(0, 5, 4), bias=weights(1, 5, low=-90_000, high=90_000))
    wide = Layer(name="a", synapse=biased, neuron=lif(decay_u=2000))
    yield "wide bias", chain([wide], input_shape=(4,)), few, "spikes"


BEYOND_LIF = {
    "subtract": {"reset": "subtract"},
    "subtract and rest": {"reset": "subtract", "refractory_steps": 2, "v_threshold": 20},
    "rest": {"refractory_steps": 3},
    "reset to a value": {"v_reset": -900},
    "current that stays": {"decay_u": 0, "v_threshold": 400},
}
"""What Lava's LIF lacks and a process of ours does."""

JOBS = {name: Job(graph=graph, x=x, kind=kind, record=EVERYTHING) for name, graph, x, kind in cases()}

ALIKE = {
    "one step", "current of one unit", "skip", "recurrent, late", "starting potential alone", "netx input, two rows",
    "spikes as values", "silent weights", "subtract", "rest", "depthwise", "dilated", "convolution of counts", "images meet",
    "skip with delay", "current that stays", "rounded sums in a pool", "subtract and rest, recurrent",
    "weights of two rows in one", "signed current", "recurrent", "feedback",
}  # fmt: skip
"""Cases that each resemble another; the default run leaves them out."""


RECORDS = {
    f"records {record}": Job(
        graph=chain([dense("a", 0, 5, 4), Layer(name="c", synapse=Dense(weight=weights(2, 3, 5)))], input_shape=(4,)),
        x=spikes(0, 4, 2, 4),
        record=frozenset(record),
    )
    for record in ((), ("spikes",), ("v",), ("u",))
}
RANDOM = {"reference": 2, "fast": 6}
"""Random networks of the default run; thirty times as many are slow."""


def ran(jobs, model):
    """Run jobs by name in one worker: each would take a second more on its own."""
    runs = run_jobs([*jobs.values()], model=model)
    return dict(zip(jobs, zip(jobs.values(), runs, strict=True), strict=True))


def draw(model):
    return {f"random {i}": job for i, job in enumerate(random_jobs(0, RANDOM[model]))}


@pytest.fixture(scope="module")
def both():
    some = {name: job for name, job in JOBS.items() if name not in ALIKE} | RECORDS
    return {model: ran(some | draw(model), model) for model in MODELS}


@pytest.fixture(scope="module")
def alike():
    return {model: ran({name: JOBS[name] for name in JOBS if name in ALIKE}, model) for model in MODELS}


@pytest.fixture(scope="module")
def runs(both):
    return both["reference"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in JOBS])
def test_equals_the_simulator(request, name, model):
    job, run = request.getfixturevalue("alike" if name in ALIKE else "both")[model][name]
    expected = simulated(job)
    assert not differences(run, expected)
    assert any(layer.any() for layer in expected.spikes.values()), "a silent network proves nothing"


def test_the_extremes_are_reached(runs):
    _, run = runs["extremes"]
    assert run.overflows["wraps"]["u_wrapped"] > 0
    assert run.overflows["saturates"]["v_saturated"] > 0


def test_delayed_spikes_do_not_reach_the_next_sample(runs):
    """A network without delay takes its samples one after another, one with delay side by side; both start each afresh."""
    assert not plan_network(image_classifier()).needs_copies
    assert plan_network(recurrent(1)).needs_copies
    job, run = runs["starting potential"]
    for sample in range(job.x.shape[1]):
        alone = simulated(Job(graph=job.graph, x=job.x[:, [sample]], record=EVERYTHING))
        assert all(np.array_equal(run.v[name][:, [sample]], alone.v[name]) for name in alone.v)
        assert run.spikes["loop"][-1, sample].any(), "nothing was in flight when the sample ended"


@pytest.mark.parametrize("model", MODELS)
def test_random_networks_equal_the_simulator(both, model):
    for name in draw(model):
        job, run = both[model][name]
        assert not differences(run, simulated(job)), str(job.graph)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("first", range(1000, 9000, 1000))
def test_many_random_networks_equal_the_simulator(first, model):
    jobs = random_jobs(first, 30)
    for job, run in zip(jobs, run_jobs(jobs, model=model), strict=True):
        assert not differences(run, simulated(job)), str(job.graph)


@pytest.mark.parametrize("model", [pytest.param("reference", marks=pytest.mark.slow), "fast"])
def test_many_samples_are_split_into_passes(monkeypatch, model):
    """Both ways of running samples give them back in order when they do not fit into one pass."""
    monkeypatch.setattr("spear_deploy.lava.batches.PASS_BYTES", 900)
    graphs = chain([dense("a", 0, 5, 4), dense("b", 1, 6, 5)], input_shape=(4,)), recurrent(1)
    jobs = [Job(graph=graph, x=spikes(0, 4, 5, 4), record=EVERYTHING) for graph in graphs]
    assert all(len(lower_in_passes(plan_network(job.graph), job.x, set(EVERYTHING)).program.passes) > 1 for job in jobs)
    for job, run in zip(jobs, run_jobs(jobs, model=model), strict=True):
        assert not differences(run, simulated(job))


def test_only_what_is_asked_for_is_recorded(runs):
    for name in RECORDS:
        job, run = runs[name]
        assert not differences(run, simulated(job)), name
