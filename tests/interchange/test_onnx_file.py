"""Exported ONNX networks run in onnxruntime as in the simulator.

Spikes and values are equal where no sum rounds: in integer networks, and in floating-point ones whose bound is 0. Elsewhere they
are equal within the bound of `float_bounds`, with ties counted.
"""

import itertools
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from spear_deploy.errors import DataError, FileError, UnsupportedError
from spear_deploy.interchange.certificate import ProofInput, certify
from spear_deploy.interchange.comparison import VALUE_TOLERANCE
from spear_deploy.interchange.onnx.float_bounds import SpikeGuidedRun
from spear_deploy.interchange.onnx.model_file import run_onnx, write_onnx
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    CatalystLIF,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    ReckonLIF,
    Scale,
    SumPool,
    TrueNorthLIF,
    UnroundedLIF,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.pipeline import api
from spear_deploy.quantize import quantize
from spear_deploy.simulator import simulate
from tests.quantize.test_recorded_integers import case
from tests.support.reference import random_graph, random_spikes
from tests.support.rich_graphs import rich_graph
from tests.support.seeds import few_first
from tests.support.wild_graphs import wild_graph, wild_spikes


def bound_steps(graph: SNNGraph, x, spikes):
    """Yield values and bounds by layer, step by step; `spikes` are sent and reset the neurons in place of those that v gives."""
    run = SpikeGuidedRun(graph, x.shape[1])
    for t, x_step in enumerate(x):
        yield run.advance(x_step, {name: fired[t] for name, fired in spikes.items()})


def largest_bound(graph: SNNGraph, x) -> float:
    spikes = simulate(graph, x, record=("spikes",)).spikes
    return max(step.gap.max() for layers in bound_steps(graph, np.asarray(x), spikes) for step in layers.values())


def same_runs(graph: SNNGraph, path, x, *, kind="spikes") -> int:
    """Check every spike and the output; return the number of neuron steps compared."""
    if not graph.is_integer:
        assert largest_bound(graph, x) == 0, "a sum of this network may round: compare it within the bound"
    expected = simulate(graph, x, kind=kind, record=("spikes",))
    result = run_onnx(path, x)
    assert np.array_equal(result["output"], expected.output)
    assert {name.removesuffix(".spikes") for name in result} - {"output"} == set(expected.spikes)
    for name, spikes in expected.spikes.items():
        assert np.array_equal(result[f"{name}.spikes"], spikes), name
    return sum(spikes.size for spikes in expected.spikes.values())


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("kind", ["integer", "float"])
def test_random_networks_spike_alike(kind, scan, tmp_path):
    """With a skip, pools, a loop and delays; weights on a binary grid, so that no order of summation rounds."""
    steps = 0
    for seed in range(8):
        graph = random_graph(seed, kind=kind)
        notes = write_onnx(graph, tmp_path / "a.onnx", scan=scan)
        assert bool(notes) == (kind == "float")
        steps += same_runs(graph, tmp_path / "a.onnx", random_spikes(graph, seed, steps=10))
    assert steps > 10_000


def test_a_million_neuron_steps_of_integers(tmp_path):
    """Quantised by our own quantiser, and drawn at random: not one spike differs."""
    steps = seed = 0
    while steps < 1_500_000:
        graph = random_graph(seed, kind="integer") if seed % 2 else quantize(random_graph(seed))
        write_onnx(graph, tmp_path / "a.onnx", scan=bool(seed % 4 // 2))
        steps += same_runs(graph, tmp_path / "a.onnx", random_spikes(graph, seed, steps=48, batch=16))
        seed += 1
    assert seed >= 3


@pytest.mark.parametrize("start", few_first((0, 20, 40), 1))
@pytest.mark.parametrize("numbers", ["float", "loihi", "speck", "xylo"])
def test_any_network_runs_alike_or_is_refused_before_it_is_written(numbers, start, tmp_path):
    """Every synapse, norm, neuron and edge there is: grouped, dilated, padded, delayed, looped, per neuron."""
    same = within = ties = 0
    for seed in range(start, start + 20):
        graph = wild_graph(seed, numbers)
        path = tmp_path / f"{seed}.onnx"
        try:
            write_onnx(graph, path, scan=bool(seed % 2))
        except UnsupportedError as error:
            assert "layer '" in str(error) and "exact below 2^24" in str(error) and not path.exists()
            continue
        x = wild_spikes(graph, seed)
        if graph.is_integer or largest_bound(graph, x) == 0:
            same_runs(graph, path, x)
            same += 1
        else:
            certificate = certify(graph, path, format="onnx", proof=ProofInput(x=x))
            assert certificate["mismatches"] == 0, certificate["first_difference"]
            within += 1
            ties += certificate["ties"]
    assert same >= 11 and (numbers == "float") == (within > 0) and ties <= 2


CHIPS = {TrueNorthLIF: 4, ReckonLIF: 16, CatalystLIF: 28}
"""Neurons of further chips, and the first seed at which `rich_graph` draws a network of them; the next is 36 further on."""


@pytest.mark.parametrize("kind", CHIPS)
def test_integers_of_further_chips_run_alike(kind, tmp_path):
    steps = 0
    for seed in range(CHIPS[kind], 36 * 12, 36):
        graph = rich_graph(seed)[0]
        assert any(isinstance(layer.neuron, kind) for layer in graph.layers)
        try:
            write_onnx(graph, tmp_path / "a.onnx", scan=bool(seed // 36 % 2))
        except UnsupportedError as error:
            assert "exact below 2^24" in str(error)
            continue
        steps += same_runs(graph, tmp_path / "a.onnx", wild_spikes(graph, seed, steps=24))
    assert steps > 5_000


@pytest.mark.parametrize("family", ["truenorth", "reckon"])
def test_networks_quantised_for_further_chips_run_alike(family, tmp_path):
    for seed in range(4):
        graph, given = case(family, seed)
        whole = quantize(graph, format=family, **given)
        write_onnx(whole, tmp_path / "a.onnx")
        assert same_runs(whole, tmp_path / "a.onnx", random_spikes(whole, seed, steps=24)) > 100


@pytest.mark.parametrize(
    "neuron",
    [
        TrueNorthLIF(v_threshold=2**18 - 1, leak=-255, v_min=-(2**18 - 1), reset="subtract", bounces=1),
        TrueNorthLIF(v_threshold=2**18 - 1, v_min=0, v_reset=-7, bounces=1),
        ReckonLIF(keep=32000, v_threshold=30_000),
        ReckonLIF(keep=100, v_threshold=None),
        CatalystLIF(v_threshold=30_000, leak=-300, resting=2),
    ],
    ids=lambda neuron: type(neuron).__name__,
)
def test_sums_beyond_the_bits_of_a_chip_are_clipped_alike(neuron, tmp_path):
    rng, most = np.random.default_rng(0), max(neuron.FORMAT.weights)
    weight = np.sign(rng.normal(rng.normal(0, 3, (6, 1)), 1, (6, 6000))).astype(int) * most
    shift = {"weight_exponent": 4} if isinstance(neuron, ReckonLIF) else {}
    graph = chain([Layer(name="out", synapse=Dense(weight=weight, **shift), neuron=neuron)], input_shape=(6000,))
    x = random_spikes(graph, 0, steps=40)
    run = simulate(graph, x, record=("spikes",))
    assert sum(run.overflows["out"].values()) > 0, "the test is to leave the bits"
    write_onnx(graph, tmp_path / "a.onnx")
    same_runs(graph, tmp_path / "a.onnx", x)


def test_neurons_without_a_function_are_refused_by_name(tmp_path):
    neuron = UnroundedLIF(decay_u=4096, decay_v=9, v_threshold=5)
    graph = chain([Layer(name="odd", synapse=Dense(weight=np.ones((2, 2))), neuron=neuron)], input_shape=(2,))
    with pytest.raises(UnsupportedError, match="layer 'odd': UnroundedLIF has no ONNX function yet, expected IF, LIF"):
        write_onnx(graph, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def loihi(**more) -> LoihiLIF:
    return LoihiLIF(**{"decay_u": 1024, "decay_v": 400, "v_threshold": 60, **more})


def test_wraps_saturates_and_rests_like_the_chip(tmp_path):
    """u passes 2^23 within steps, v sits at its limit, and neurons rest after a spike; a shift goes to minus infinity."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-250_000, 250_000, (6, 5))
    layers = [
        Layer(name="wild", synapse=Dense(weight=weight), neuron=loihi(decay_u=0, decay_v=0, v_threshold=131071)),
        Layer(
            name="rest", synapse=Dense(weight=rng.integers(-99, 200, (6, 6)), bias=np.arange(6)), neuron=loihi(refractory_steps=2)
        ),
        Layer(
            name="shift",
            synapse=Dense(weight=rng.integers(-99, 99, (6, 6)), weight_exponent=-3),
            neuron=loihi(v_threshold=1, reset="subtract", v_init=-77, bias_mantissa=[-3, 5, 0, 9, 1, 2], bias_exponent=2),
        ),
        Layer(name="up", synapse=Dense(weight=rng.integers(-9, 9, (2, 6)), weight_exponent=2), neuron=loihi(v_threshold=None)),
    ]
    graph = chain(layers, input_shape=(5,))
    x = random_spikes(graph, 1, steps=60, batch=8)
    run = simulate(graph, x)
    assert run.overflows["wild"]["u_wrapped"] and run.overflows["wild"]["v_saturated"]
    for scan in (False, True):
        write_onnx(graph, tmp_path / "a.onnx", scan=scan)
        same_runs(graph, tmp_path / "a.onnx", x)


def test_graded_input_and_current(tmp_path):
    graph = chain(
        [
            Layer(name="in", synapse=Scale(weight=np.float32(36.7), bias=np.array([-1, 0, 2])), neuron=loihi(v_threshold=30)),
            Layer(name="out", synapse=Dense(weight=np.ones((2, 3), int) * 40), neuron=loihi()),
        ],
        input_shape=(3,),
    )
    write_onnx(graph, tmp_path / "a.onnx")
    same_runs(graph, tmp_path / "a.onnx", np.random.default_rng(0).normal(size=(20, 4, 3)), kind="current")
    direct = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3), int) * 9), neuron=loihi())], input_shape=(3,))
    write_onnx(direct, tmp_path / "b.onnx")
    same_runs(direct, tmp_path / "b.onnx", np.random.default_rng(0).integers(-200, 255, (20, 4, 3)), kind="current")
    with pytest.raises(DataError, match="input of up to 1e.06, sums are exact up to 621378; scale it down"):
        run_onnx(tmp_path / "b.onnx", np.full((1, 1, 3), 1e6))


FLOATS = {
    "conv1d, pools over one axis, norm": chain(
        [
            Layer(
                name="c",
                synapse=Conv1d(weight=np.ones((4, 2, 3), "f4") / 2, groups=2, padding=(2,), dilation=(2,), bias=np.ones(4)),
                norm=BatchNorm(weight=np.ones(4), bias=np.ones(4), mean=np.ones(4), var=np.ones(4), eps=0.0),
                neuron=IF(v_threshold=2.0),
            ),
            Layer(name="p", synapse=SumPool(kernel_size=(2,), stride=(1,), padding=(1,))),
            Layer(name="a", synapse=AvgPool(kernel_size=(2,)), neuron=LIF(tau_s=2e-3, r=2.0, v_leak=0.25, reset="subtract")),
            Layer(
                name="f", synapse=Dense(weight=np.ones((2, 20), "f4") / 4), neuron=CubaLI(tau_mem_s=2e-3, tau_syn_s=4e-3, r=0.5)
            ),
        ],
        input_shape=(4, 9),
    ),
    "scale, sum, flatten, output without neurons": SNNGraph(
        layers=(
            Layer(name="s", synapse=Scale(weight=np.array([[2.0, 0.5]]), bias=np.array(0.25)), neuron=LIF(tau_s=2e-3)),
            Layer(name="sum"),
            Layer(name="flat", synapse=Flatten()),
            Layer(name="w", synapse=Dense(weight=np.eye(4), bias=np.ones(4))),
        ),
        edges=(
            Edge(source="input", target="s"),
            Edge(source="s", target="sum"),
            Edge(source="input", target="sum", delay=3),
            Edge(source="sum", target="flat"),
            Edge(source="flat", target="w"),
        ),
        input_shape=(2, 2),
    ),
    "a readout in a loop": SNNGraph(
        layers=(
            Layer(name="a", neuron=CubaLIF(tau_mem_s=2e-3, tau_syn_s=2e-3, w_in=2.0)),
            Layer(name="b", neuron=LI(tau_s=2e-3)),
        ),
        edges=(Edge(source="input", target="a"), Edge(source="a", target="b"), Edge(source="b", target="a", delay=2)),
        input_shape=(3,),
    ),
}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", FLOATS)
def test_kinds_of_layers(name, scan, tmp_path):
    write_onnx(FLOATS[name], tmp_path / "a.onnx", scan=scan)
    same_runs(FLOATS[name], tmp_path / "a.onnx", random_spikes(FLOATS[name], 0, steps=12))


def test_bounded_steps_are_those_of_the_simulator():
    """Given its spikes: v of every readout and value in 60 networks, delays and loops included, and v where nothing spikes."""
    compared = 0
    for seed in range(60):
        graph = wild_graph(seed)
        x = wild_spikes(graph, seed)
        run = simulate(graph, x, record=("spikes", "v"))
        for t, layers in enumerate(bound_steps(graph, x, run.spikes)):
            for name, v in run.v.items():
                silent = ~run.spikes[name][t] if name in run.spikes else np.ones(v[t].shape, bool)
                gap = np.abs(layers[name].value.astype(np.float64) - v[t])
                assert (gap <= layers[name].gap)[silent].all(), (seed, t, name)
                compared += silent.sum()
    assert compared > 30_000


def rounding_network(rng, neuron, *, cancels=False):
    """What a first sum rounds, more where it cancels, is carried through norm, pool, scale and a skip with delay."""

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    norm = BatchNorm(weight=draw(4), bias=draw(4), mean=draw(4), var=draw(4) ** 2 + np.float32(0.5), eps=1e-3)
    weight = draw(4, 3, 1, 1)
    if cancels:
        weight[:, :2] = [[[100.0]], [[-100.0]]] * np.abs(weight[:, :1])
    layers = [
        Layer(name="conv", synapse=Conv2d(weight=weight, bias=draw(4)), norm=norm, neuron=LI(tau_s=1e-3)),
        Layer(name="pool", synapse=AvgPool(kernel_size=2)),
        Layer(name="scale", synapse=Scale(weight=draw(4, 1, 1), bias=draw(4, 1, 1))),
        Layer(name="sum"),
        Layer(name="fc", synapse=Dense(weight=draw(6, 4), bias=draw(6)), neuron=neuron),
    ]
    edges = [Edge(source=a, target=b) for a, b in itertools.pairwise(["input", "conv", "pool", "scale", "sum", "fc"])]
    edges.append(Edge(source="pool", target="sum", delay=1))
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(3, 2, 2), output="fc", dt_s=1e-3)


def cancelling_input(rng):
    """Two channels that nearly cancel, and nothing in the last steps: what differs then was kept in states."""
    x = rng.normal(size=(12, 8, 3, 2, 2)).astype(np.float32)
    x[:, :, 1] = x[:, :, 0] + x[:, :, 1] / 100
    x[6:] = 0
    return x


def other_order(graph, x, rng):
    """Return the same network and input with the channels between its layers in another order."""
    first, between = rng.permutation(3), rng.permutation(4)
    conv, scale, fc = graph["conv"], graph["scale"], graph["fc"]
    norm = BatchNorm(**{k: getattr(conv.norm, k)[between] for k in ("weight", "bias", "mean", "var")}, eps=conv.norm.eps)
    conv_synapse = replace(conv.synapse, weight=conv.synapse.weight[between][:, first], bias=conv.synapse.bias[between])
    changed = {
        "conv": replace(conv, synapse=conv_synapse, norm=norm),
        "scale": replace(scale, synapse=Scale(weight=scale.synapse.weight[between], bias=scale.synapse.bias[between])),
        "fc": replace(fc, synapse=replace(fc.synapse, weight=fc.synapse.weight[:, between])),
    }
    return graph.with_layers(changed), x[:, :, first]


ROUNDING = {
    "LIF": LIF(tau_s=3e-3, r=2.1, v_threshold=0.3, v_leak=0.1, v_reset=-0.1),
    "CubaLIF": CubaLIF(tau_mem_s=3e-3, tau_syn_s=7e-3, r=1.9, w_in=1.7, v_threshold=0.3),
    "LI": LI(tau_s=7e-3, r=1.1, v_leak=0.2),
    "IF": IF(v_threshold=0.7, r=1.3),
    "LIF, subtracting": LIF(tau_s=3e-3, r=2.1, v_threshold=0.3, reset="subtract"),
    "LIF, late": LIF(tau_s=3e-3, r=2.1, v_threshold=0.3, reset="subtract", reset_delay=1),
    "CubaLI": CubaLI(tau_mem_s=3e-3, tau_syn_s=7e-3, w_in=1.7, r=1.9),
}


@pytest.mark.parametrize("name", few_first(ROUNDING, 3))
def test_two_orders_of_summation_differ_by_no_more_than_the_bound(name):
    """The bound holds at every value of 16 networks, and is at most 50 times the largest difference."""
    rng = np.random.default_rng(5)
    closest = 0.0
    for _ in range(16):
        graph, x = rounding_network(rng, ROUNDING[name], cancels=True), cancelling_input(rng)
        other, moved = other_order(graph, x, rng)
        spikes = simulate(graph, x, kind="current", record=("spikes",)).spikes
        for here, there in zip(bound_steps(graph, x, spikes), bound_steps(other, moved, spikes), strict=True):
            gap = np.abs(here["fc"].value.astype(np.float64) - there["fc"].value)
            assert (gap <= here["fc"].gap).all()
            closest = max(closest, float((gap / here["fc"].gap).max()))
    assert closest > 0.02


@pytest.mark.parametrize("name", few_first(ROUNDING, 3))
def test_networks_whose_sums_round_are_certified_within_the_bound(name, tmp_path):
    rng = np.random.default_rng(6)
    mismatches = ties = 0
    for seed in range(8):
        graph = rounding_network(rng, ROUNDING[name])
        x = rng.normal(size=(12, 8, *graph.input_shape)).astype(np.float32)
        proof = ProofInput(x=x, kind="current")
        write_onnx(graph, tmp_path / "a.onnx", scan=bool(seed % 2))
        certificate = certify(graph, tmp_path / "a.onnx", format="onnx", proof=proof)
        row = certificate["layers"][-1]
        assert certificate["mismatches"] == 0 and "2^-24" in certificate["bound"]
        run = simulate(graph, x, kind="current", record=("spikes", "v"))
        largest = max(np.abs(layers["fc"].value).max() for layers in bound_steps(graph, x, run.spikes))
        assert 0 < row["largest_bound"] <= VALUE_TOLERANCE * largest
        off = graph["fc"].synapse.weight * np.float32(1.1)
        wrong = graph.with_layers({"fc": replace(graph["fc"], synapse=replace(graph["fc"].synapse, weight=off))})
        write_onnx(wrong, tmp_path / "b.onnx")
        wrong_row = certify(graph, tmp_path / "b.onnx", format="onnx", proof=proof)["layers"][-1]
        assert row["what"] == "spikes" or wrong_row["mismatches"] > row["compared"] / 2
        mismatches += wrong_row["mismatches"]
        ties += certificate["ties"] + wrong_row["ties"]
    assert mismatches > 0 and ties <= 1


@pytest.mark.parametrize(("share", "tie"), [(0.25, True), (3.0, False)])
def test_a_spike_within_the_bound_of_its_threshold_is_a_tie_and_ends_the_comparison_of_its_sample(share, tie, tmp_path):
    """The network's threshold lies a share of the bound above v, the file's as far below: the file alone spikes."""
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(5, 200)).astype(np.float32)
    x = rng.normal(size=(3, 2, 200)).astype(np.float32)

    def network(threshold):
        first = Layer(name="fc", synapse=Dense(weight=weight), neuron=IF(v_threshold=threshold))
        return chain([first, Layer(name="out", synapse=Dense(weight=np.eye(5)), neuron=IF(v_threshold=0.5))], input_shape=(200,))

    none = {name: np.zeros((3, 2, 5), bool) for name in ("fc", "out")}
    steps = [layers["fc"] for layers in bound_steps(network(1.0), x, none)]
    cap = VALUE_TOLERANCE * max(np.abs(step.value).max() for step in steps[:2])
    v, gap = float(steps[1].value[1, 3]), min(float(steps[1].gap[1, 3]), cap)
    assert gap == cap, "layers of 200 inputs are held to the cap"
    high = np.full(5, 1e6)
    above, below = (np.where(np.arange(5) == 3, v + sign * share * gap, high) for sign in (1, -1))
    write_onnx(network(below), tmp_path / "a.onnx")
    x[2] = -100 * np.sign(weight[3])  # neither spikes in the last step
    certificate = certify(network(above), tmp_path / "a.onnx", format="onnx", proof=ProofInput(x=x, kind="current"))
    fc, out = certificate["layers"]
    if tie:
        assert (certificate["ties"], certificate["mismatches"], certificate["first_difference"]) == (1, 0, None)
        assert (fc["compared"], fc["after_ties"], out["compared"], out["after_ties"]) == (25, 5, 20, 10)
    else:
        assert (certificate["ties"], certificate["mismatches"]) == (0, 2)
        assert certificate["first_difference"] == {"layer": "fc", "step": 1, "sample": 1, "neuron": 3}
        assert fc["after_ties"] == out["after_ties"] == 0


def test_a_tie_of_exact_sums_is_a_mismatch(tmp_path):
    """v at its threshold exactly, sums that cannot round: a file that spikes there is wrong."""

    def network(threshold):
        return chain(
            [Layer(name="fc", synapse=Dense(weight=np.ones((1, 2)) / 2), neuron=IF(v_threshold=threshold))], input_shape=(2,)
        )

    write_onnx(network(np.nextafter(np.float32(1), np.float32(0))), tmp_path / "a.onnx")
    certificate = certify(network(1.0), tmp_path / "a.onnx", format="onnx", proof=ProofInput(x=np.ones((1, 1, 2), bool)))
    assert (certificate["ties"], certificate["mismatches"], certificate["layers"][0]["largest_bound"]) == (0, 1, 0.0)


def test_the_file_shows_neurons_states_and_facts(tmp_path):
    graph = random_graph(1, kind="integer")
    write_onnx(graph, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10 and {o.domain: o.version for o in model.opset_import} == {"": 18, "spear.snn": 1}
    assert {f.name for f in model.functions} <= {"LoihiLIF", "LoihiLIF_subtract"}
    assert "trunc" in model.functions[0].doc_string
    neurons = {node.name: node.op_type for node in model.graph.node if node.domain == "spear.snn"}
    assert set(neurons) == {layer.name for layer in graph.layers if layer.neuron is not None}
    facts = {p.key.removeprefix("spear_deploy."): json.loads(p.value) for p in model.metadata_props}
    assert facts["dt_s"] == graph.dt_s and facts["form"] == "step" and facts["layers"] == [layer.name for layer in graph.layers]
    inputs = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert inputs["x"] == ["N", *graph.input_shape]
    assert [s["name"] for s in facts["states"]] == [name for name in inputs if name != "x"]
    for state in facts["states"]:
        assert inputs[state["name"]] == ["N", *state["shape"]]
    outputs = {o.name for o in model.graph.output}
    assert {"output", "conv1.spikes", "conv1.v_next", "conv1.u_next"} <= outputs


def test_scan_keeps_the_weights_outside_its_body(tmp_path):
    write_onnx(random_graph(0), tmp_path / "a.onnx", scan=True)
    model = onnx.load(tmp_path / "a.onnx")
    assert [node.op_type for node in model.graph.node] == ["Scan"]
    assert {"conv1/weight", "fc/weight"} <= {i.name for i in model.graph.initializer}
    assert [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim][:2] == ["T", "N"]


def test_sums_that_would_round_are_refused(tmp_path):
    conv = Conv2d(weight=np.full((1, 1, 3, 3), 2**21))
    graph = chain([Layer(name="big", synapse=conv, neuron=loihi())], input_shape=(1, 4, 4))
    with pytest.raises(UnsupportedError, match="layer 'big': sums of up to 2.25, onnxruntime is exact below 2.24"):
        write_onnx(graph, tmp_path / "a.onnx")
    pooled = chain([Layer(name="p", synapse=AvgPool(kernel_size=2)), Layer(name="n", neuron=loihi())], input_shape=(1, 4, 4))
    with pytest.raises(UnsupportedError, match="layer 'p': an integer network holds no mean; quantise it again"):
        write_onnx(pooled, tmp_path / "a.onnx")
    loop = SNNGraph(
        layers=(Layer(name="w", synapse=Dense(weight=np.eye(2, dtype=int))), Layer(name="n", neuron=loihi())),
        edges=(Edge(source="input", target="w"), Edge(source="w", target="w", delay=1), Edge(source="w", target="n")),
        input_shape=(2,),
        output="n",
    )
    with pytest.raises(UnsupportedError, match="layer 'w': sums of up to any size"):
        write_onnx(loop, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    dense = chain([Layer(name="big", synapse=Dense(weight=np.full((1, 16), 2**21)), neuron=loihi())], input_shape=(16,))
    write_onnx(dense, tmp_path / "a.onnx")  # onnxruntime multiplies matrices in float64
    same_runs(dense, tmp_path / "a.onnx", random_spikes(dense, 0))


def test_export_writes_either_form_and_certifies_it(tmp_path):
    graph = quantize(random_graph(2))
    for scan in (False, True):
        certificate = api.export(graph, tmp_path / "a.onnx", to="onnx", scan=scan)
        assert certificate["mismatches"] == 0 and certificate["first_difference"] is None
        assert {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node} >= {"Scan" if scan else "Conv"}
    with pytest.raises(UnsupportedError, match="export to nir: scan is a form of ONNX alone; leave it out"):
        api.export(graph, tmp_path / "a.nir", to="nir", scan=True)
    with pytest.raises(UnsupportedError, match="export to onnx: an ONNX file is of no chip; leave the chip out"):
        api.export(graph, tmp_path / "b.onnx", to="onnx", chip="loihi2")
    assert not (tmp_path / "b.onnx").exists()


def test_wrong_input_and_wrong_files_raise(tmp_path):
    graph = replace(random_graph(0), metadata={})
    write_onnx(graph, tmp_path / "a.onnx")
    with pytest.raises(DataError, match="input has shape .3, 2., the network takes .'T', 'B'"):
        run_onnx(tmp_path / "a.onnx", np.zeros((3, 2)))
    with pytest.raises(FileError, match="there is no such ONNX file"):
        run_onnx(tmp_path / "b.onnx", np.zeros((3, 2)))
    data = (tmp_path / "a.onnx").read_bytes()
    (tmp_path / "b.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match="b.onnx': is not a complete ONNX file .*; export it again"):
        run_onnx(tmp_path / "b.onnx", np.zeros((3, 2)))
    model = onnx.load(tmp_path / "a.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(FileError, match="c.onnx': has no metadata of spear-deploy"):
        run_onnx(tmp_path / "c.onnx", np.zeros((3, 2)))


def set_fact(key, value):
    def change(model):
        entry = next(p for p in model.metadata_props if p.key == f"spear_deploy.{key}")
        entry.value = value if isinstance(value, str) else json.dumps(value)

    return change


def first_state(model):
    return json.loads(next(p for p in model.metadata_props if p.key == "spear_deploy.states").value)


def huge_state(model):
    """Let metadata and graph agree on a state that the file could never mean."""
    states = first_state(model)
    states[0]["shape"] = [1 << 40]
    set_fact("states", states)(model)
    names = (states[0]["name"], f"{states[0]['name']}_init")
    shape = next(i for i in model.graph.input if i.name in names).type.tensor_type.shape
    del shape.dim[2:]
    shape.dim[1].dim_value = 1 << 40


def change_state(**facts):
    return lambda model: set_fact("states", [{**state, **facts} for state in first_state(model)])(model)


def other_state(model):
    states = first_state(model)
    states[0]["shape"][0] += 1
    set_fact("states", states)(model)


def external_tensor(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def too_short_tensor(model):
    model.graph.initializer[0].dims[0] = 1 << 40


def foreign_operator(model):
    model.graph.node.add(op_type="ConstantOfShape", input=["x"], output=["big"])


def no_size(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 0


def wide_pads(model):
    nodes = model.graph.node if len(model.graph.node) > 1 else model.graph.node[0].attribute[0].g.node
    node = next(n for n in nodes if n.op_type == "Conv")
    next(a for a in node.attribute if a.name == "pads").ints[:] = [1 << 20] * 4


def second_input_limit(model):
    model.metadata_props.add(key="spear_deploy.input_limit", value="null")


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (too_short_tensor, r"tensor '.*' of shape \[1099511627776, .* in \d+ bytes"),
        (external_tensor, "tensor '.*' of type .* or outside of the file"),
        (huge_state, "values in a step for \\d+ bytes"),
        (other_state, "inputs of the graph that are not those of its metadata"),
        (change_state(next="v"), "state '.*' with another start or successor"),
        (change_state(start="x"), "state '.*' with another start or successor"),
        (change_state(start=[[[[[0.0]]]]]), "state '.*' whose start has another shape"),
        (foreign_operator, "operator 'ConstantOfShape' of domain ''"),
        (no_size, "of shape .*0"),
        (wide_pads, "is not what write_onnx writes .*[Ii]nfer"),
        (set_fact("form", '"loop"'), "is not what write_onnx writes .'loop'"),
        (set_fact("states", "["), "is not what write_onnx writes"),
        (lambda model: model.metadata_props.pop(0), "'spear_deploy.form' is missing in the metadata"),
        (set_fact("input_limit", "[1]"), "an input limit that is no number"),
        (second_input_limit, "duplicate keys in metadata_props"),
        (lambda model: setattr(model, "ir_version", 13), "IR 13 and operator sets"),
    ],
)  # fmt: skip
def test_a_changed_file_never_reaches_onnxruntime(change, message, scan, tmp_path):
    graph = random_graph(1, kind="integer")
    write_onnx(graph, tmp_path / "a.onnx", scan=scan)
    model = onnx.load(tmp_path / "a.onnx")
    change(model)
    (tmp_path / "b.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match=message) as caught:
        run_onnx(tmp_path / "b.onnx", random_spikes(graph, 0))
    assert str(caught.value).startswith(f"file '{tmp_path / 'b.onnx'}': ") and "\n" not in str(caught.value)
    assert str(caught.value).endswith("; export it again")


def test_an_error_of_onnxruntime_is_one_sentence(tmp_path):
    graph = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    write_onnx(graph, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    model.graph.node[0].input[0] = "nothing"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match="a.onnx': (is not what|onnxruntime does not load)"):
        run_onnx(tmp_path / "a.onnx", np.zeros((1, 1, 3)))
