"""Late resets: the neuron's property against a loop over its equation, and against the loops of former files."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from spear_deploy import interchange
from spear_deploy.errors import GraphError
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LIF, CubaLIF, Dense, Layer, Scale, resets_late
from spear_deploy.network.delayed_reset import delay_resets, fold_reset_loops, reset_in_same_step
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.norse.network import to_norse
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops
from tests.support.seeds import seeds

DT_S = 1e-3
STEPS = 40


def random_network(seed):
    """Return a network of two dense layers with late resets and its input; with an odd seed the first neurons feed themselves."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, 3)

    def neuron(size):
        parameters = {
            "v_threshold": rng.uniform(0.3, 1.2, size if rng.random() < 0.5 else 1),
            "r": rng.uniform(0.5, 2, size if rng.random() < 0.5 else 1),
            "v_leak": rng.choice([0.0, 0.1]),
            "reset": "subtract",
            "reset_delay": 1,
        }
        if rng.random() < 0.5:
            return LIF(tau_s=rng.uniform(1.05, 20, size) * DT_S, **parameters)
        taus = {"tau_mem_s": rng.uniform(1.05, 20, size) * DT_S, "tau_syn_s": rng.uniform(1.05, 9) * DT_S}
        return CubaLIF(**taus, w_in=rng.uniform(0.5, 3), **parameters)

    layers, edges = [], []
    for n, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [
            Layer(name=f"fc{n}", synapse=Dense(weight=rng.normal(0.3, 1.5, (b, a)))),
            Layer(name=f"n{n}", neuron=neuron(b)),
        ]
        edges += [Edge(source=f"n{n - 1}" if n else INPUT, target=f"fc{n}"), Edge(source=f"fc{n}", target=f"n{n}")]
    if seed % 2:
        layers.append(Layer(name="rec", synapse=Dense(weight=rng.normal(0, 0.5, (sizes[1], sizes[1])))))
        edges += [Edge(source="n0", target="rec", delay=1), Edge(source="rec", target="n0")]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(int(sizes[0]),), dt_s=DT_S, output="n1")
    return graph, rng.random((STEPS, 3, sizes[0])) < rng.uniform(0.1, 0.9)


def loop_over_time(graph, x):
    """Return spikes by neuron layer, from the equations as they stand in the docstrings, one neuron at a time in float64."""
    weight = {layer.name: layer.synapse.weight for layer in graph.layers if isinstance(layer.synapse, Dense)}
    spikes = {name: np.zeros((len(x), x.shape[1], *graph.shape_of(name)), bool) for name in ("n0", "n1")}
    for sample in range(x.shape[1]):
        state = {}
        for t in range(len(x)):
            for name in ("n0", "n1"):
                before = x[t, sample] if name == "n0" else spikes["n0"][t, sample]
                drive = weight[f"fc{name[1]}"] @ before.astype(float)
                if name == "n0" and t and "rec" in weight:
                    drive = drive + weight["rec"] @ spikes["n0"][t - 1, sample].astype(float)
                for k, value in enumerate(drive):
                    neuron = graph[name].neuron
                    p = {
                        key: float(np.broadcast_to(field, graph.shape_of(name))[k])
                        for key, field in vars(neuron).items()
                        if isinstance(field, np.ndarray)
                    }
                    v, u, spiked = state.get((name, k), (p["v_leak"], 0.0, False))
                    if isinstance(neuron, LIF):
                        v = v + DT_S / p["tau_s"] * ((p["r"] * value + p["v_leak"]) - v)
                    else:
                        u = u + p["w_in"] * DT_S / p["tau_syn_s"] * value
                        v = v + DT_S / p["tau_mem_s"] * ((p["v_leak"] - v) + p["r"] * u)
                        u = u - DT_S / p["tau_syn_s"] * u
                    v = v - (p["v_threshold"] if spiked else 0.0)
                    spikes[name][t, sample, k] = v > p["v_threshold"]
                    state[name, k] = v, u, spikes[name][t, sample, k]
    return spikes


def with_loops(graph):
    """Return the network as former versions stored it: a reset at once, and what decays too much in a loop."""
    layers, edges = [], list(graph.edges)
    for layer in graph.layers:
        neuron = layer.neuron
        if not resets_late(neuron):
            layers.append(layer)
            continue
        layers.append(replace(layer, neuron=replace(neuron, reset_delay=0)))
        lost = -neuron.v_threshold / neuron.r
        weights = [(1, "", lost)]
        if isinstance(neuron, CubaLIF):
            rate = DT_S / neuron.tau_syn_s
            jump = neuron.w_in * rate
            weights = [(1, "", lost / jump), (2, "1", -(1 - rate) * lost / jump)]
        for delay, number, weight in weights:
            name = f"{layer.name}.reset{number}"
            layers.append(Layer(name=name, synapse=Scale(weight=weight)))
            edges += [Edge(source=layer.name, target=name, delay=delay), Edge(source=name, target=layer.name)]
    return replace(graph, layers=tuple(layers), edges=tuple(edges))


@pytest.mark.parametrize("seed", seeds(6, 12))
def test_spikes_equal_a_loop_over_the_equation_and_the_former_loop_of_edges(seed):
    graph, x = random_network(seed)
    run = simulate(graph, x, record=("spikes",), dtype=np.float64)
    wanted = loop_over_time(graph, x)
    looped = simulate(with_loops(graph), x, record=("spikes",), dtype=np.float64)
    for name in ("n0", "n1"):
        assert np.array_equal(run.spikes[name], wanted[name]) and np.array_equal(run.spikes[name], looped.spikes[name])
    assert 0 < run.spikes["n0"].mean() < 1


@pytest.mark.parametrize("seed", range(6))
def test_a_network_to_train_has_the_simulators_spikes_with_and_without_a_gradient(seed):
    graph, x = random_network(seed)
    graph = graph.with_layers(
        lambda layer: (
            layer if layer.synapse is None else replace(layer, synapse=Dense(weight=(layer.synapse.weight * 4).round() / 4))
        )
    )
    graph = graph.with_layers(
        lambda layer: layer if layer.neuron is None else replace(layer, neuron=replace(layer.neuron, r=1.0))
    )
    expected = simulate(graph, x, record=("spikes",)).spikes
    network = to_norse(graph)
    with torch.no_grad():
        _, fast = network.eval()(x, record=True)
    _, learnt = network.train()(x, record=True)
    for name in ("n0", "n1"):
        assert np.array_equal(fast[name].numpy() > 0, expected[name])
        assert np.array_equal(learnt[name].detach().numpy() > 0, expected[name])
    learnt["n1"].sum().backward()
    assert network.module_of("fc0").synapse.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("seed", range(12))
def test_loops_of_former_files_become_the_neurons_property_and_cost_no_synops(seed):
    graph, x = random_network(seed)
    folded = fold_reset_loops(with_loops(graph))
    assert folded == graph and fold_reset_loops(graph) is graph
    looped, run = with_loops(graph), simulate(graph, x)
    loops = count_synops(looped, simulate(looped, x).counts).per_layer
    assert count_synops(graph, run.counts).per_layer == {n: value for n, value in loops.items() if "reset" not in n}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", ["snn", "nir"])
def test_files_hold_the_property_and_former_files_with_loops_become_it(suffix, seed, tmp_path):
    graph, x = random_network(seed)
    expected = simulate(graph, x, record=("spikes",), dtype=np.float64).spikes
    for n, network in enumerate((graph, with_loops(graph))):
        {"snn": write_snn, "nir": write_nir}[suffix](network, tmp_path / f"{n}.{suffix}")
        read_back = interchange.load(tmp_path / f"{n}.{suffix}")
        assert not any("reset" in layer.name for layer in read_back.layers)
        assert all(resets_late(read_back[name].neuron) for name in ("n0", "n1"))
        if suffix == "snn":
            assert read_back == graph
        else:
            spikes = simulate(read_back, x, record=("spikes",), dtype=np.float64).spikes
            assert all(np.array_equal(spikes[name], expected[name]) for name in ("n0", "n1"))


def test_a_file_without_late_resets_is_byte_for_byte_as_before(tmp_path):
    graph = reset_in_same_step(random_network(0)[0])
    write_snn(graph, tmp_path / "a.snn")
    assert b"reset_delay" not in (tmp_path / "a.snn").read_bytes()


def test_a_loop_with_other_weights_stays():
    graph = with_loops(random_network(0)[0])
    changed = graph.with_layers(
        lambda layer: replace(layer, synapse=Scale(weight=1.01 * layer.synapse.weight)) if "reset" in layer.name else layer
    )
    assert fold_reset_loops(changed) is changed


@pytest.mark.filterwarnings("error")
def test_a_neuron_that_no_current_reaches_has_no_loop():
    """With r, w_in or a rate of 0 no weight resets it; numpy's division by 0 is no warning of ours."""
    for neuron in (IF(r=0.0, reset="subtract"), LIF(tau_s=0.01, r=0.0, reset="subtract"),
                   CubaLIF(tau_mem_s=0.01, tau_syn_s=0.01, w_in=0.0, reset="subtract")):  # fmt: skip
        layers = (
            Layer(name="n", synapse=Dense(weight=np.eye(2)), neuron=neuron),
            Layer(name="loop", synapse=Scale(weight=np.array(1.0))),
        )
        edges = (Edge(source=INPUT, target="n"), Edge(source="n", target="loop", delay=1), Edge(source="loop", target="n"))
        graph = SNNGraph(layers=layers, edges=edges, input_shape=(2,), dt_s=DT_S, output="n")
        assert fold_reset_loops(graph) is graph


def test_one_function_makes_resets_late_and_one_makes_them_those_of_the_same_step():
    graph, _ = random_network(0)
    at_once = reset_in_same_step(graph)
    assert not any(resets_late(layer.neuron) for layer in at_once.layers)
    assert delay_resets(at_once, {"n0", "n1"}) == graph and [resets_late(at_once[n].neuron) for n in ("n0", "n1")] == [False] * 2
    assert reset_in_same_step(at_once) is at_once


def test_an_if_neuron_keeps_its_reset():
    layers = (Layer(name="fc", synapse=Dense(weight=np.ones((2, 2))), neuron=IF(reset="subtract")),)
    graph = SNNGraph(layers=layers, edges=(Edge(source=INPUT, target="fc"),), input_shape=(2,))
    assert delay_resets(graph, {"fc"}) == graph


def test_a_late_reset_is_by_subtraction_and_by_one_step():
    with pytest.raises(GraphError, match=r"LIF.reset_delay: 2 given, expected 0 \(the spike's step\) or 1 \(the next\)"):
        LIF(tau_s=1e-3, reset="subtract", reset_delay=2)
    with pytest.raises(
        GraphError, match="CubaLIF.reset_delay: 1 is for reset 'subtract'; a reset to a value has the same spikes"
    ):
        CubaLIF(tau_mem_s=1e-3, tau_syn_s=1e-3, reset_delay=1)
