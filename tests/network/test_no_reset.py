"""Neurons without a reset: against a loop over their equation, learnt, in files, on chips, and in loops of former files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spear_deploy as sd
from spear_deploy import interchange
from spear_deploy.adaptation.neurons import find_resets
from spear_deploy.budget.check import check
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import load_profile
from spear_deploy.interchange.nir.dialect_writer import write_dialect
from spear_deploy.interchange.nir.writer import write_nir
from spear_deploy.interchange.snn_file import write_snn
from spear_deploy.network import IF, LIF, CubaLIF, Dense, Layer, Scale, TrueNorthLIF
from spear_deploy.network.delayed_reset import fold_reset_loops
from spear_deploy.network.graph import INPUT, Edge, SNNGraph
from spear_deploy.norse.network import to_norse
from spear_deploy.quantize import FORMATS, quantize
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops

DT_S = 1e-3
NEURONS = {
    "IF": IF(r=0.5, v_threshold=1.5, reset="none"),
    "LIF": LIF(tau_s=4e-3, r=2.0, v_threshold=0.75, reset="none"),
    "CubaLIF": CubaLIF(tau_mem_s=4e-3, tau_syn_s=2e-3, r=2.0, w_in=2.0, v_threshold=0.75, reset="none"),
}
kinds = pytest.mark.parametrize("kind", NEURONS)


def make_network(neuron, weight=None):
    weight = np.random.default_rng(0).integers(-3, 5, (6, 4)) / 4 if weight is None else weight
    layers = (Layer(name="fc", synapse=Dense(weight=weight), neuron=neuron),)
    return SNNGraph(layers=layers, edges=(Edge(source=INPUT, target="fc"),), input_shape=(4,), dt_s=DT_S)


def make_input(seed=1):
    return np.random.default_rng(seed).random((30, 3, 4)) < 0.4


def loop_over_time(graph, x):
    """Return spikes (T, B, 6) from the equations, in float64."""
    neuron, weight = graph["fc"].neuron, graph["fc"].synapse.weight
    v, u, spikes = 0.0, 0.0, []
    for now in x @ weight.T.astype(float):
        if isinstance(neuron, IF):
            v = v + neuron.r * now
        elif isinstance(neuron, LIF):
            v = v + DT_S / neuron.tau_s * (neuron.r * now - v)
        else:
            u = u + neuron.w_in * DT_S / neuron.tau_syn_s * now
            v = v + DT_S / neuron.tau_mem_s * (neuron.r * u - v)
            u = u - DT_S / neuron.tau_syn_s * u
        spikes.append(v > neuron.v_threshold)
    return np.array(spikes)


@kinds
def test_spikes_equal_a_loop_over_the_equation(kind):
    graph, x = make_network(NEURONS[kind]), make_input()
    expected = loop_over_time(graph, x)
    assert np.array_equal(simulate(graph, x).output, expected) and 0.05 < expected.mean() < 0.95
    assert not np.array_equal(simulate(make_network(replace(NEURONS[kind], reset="subtract")), x).output, expected)


@kinds
def test_a_network_to_train_has_the_same_spikes_and_a_gradient(kind):
    graph, x = make_network(NEURONS[kind]), make_input()
    network = to_norse(graph)
    with torch.no_grad():
        fast = network.eval()(x.astype(np.float32))
    learnt = network.train()(x.astype(np.float32))
    expected = simulate(graph, x).output
    assert np.array_equal(fast.numpy() > 0, expected) and np.array_equal(learnt.detach().numpy() > 0, expected)
    learnt.sum().backward()
    assert network.module_of("fc").synapse.weight.grad.abs().sum() > 0
    assert sd.load(network, input_shape=(4,))["fc"].neuron.reset == "none"


@kinds
@pytest.mark.parametrize("suffix", ["snn", "nir"])
def test_files_hold_it(kind, suffix, tmp_path):
    graph = make_network(NEURONS[kind])
    {"snn": write_snn, "nir": write_nir}[suffix](graph, tmp_path / f"a.{suffix}")
    read_back = interchange.load(tmp_path / f"a.{suffix}")
    assert read_back["fc"].neuron.reset == "none"
    assert np.array_equal(simulate(read_back, make_input()).output, loop_over_time(graph, make_input()))


@kinds
def test_onnx_runs_it(kind, tmp_path):
    certificate = sd.export(make_network(NEURONS[kind]), tmp_path / "a.onnx", to="onnx")
    assert certificate["mismatches"] == 0 and certificate["ties"] == 0


def with_loop(graph):
    """Return the network as former versions stored it: a reset that a loop undoes."""
    (layer,) = graph.layers
    neuron = layer.neuron
    threshold = neuron.v_threshold.astype(float)
    if isinstance(neuron, IF):
        weights = [(1, threshold / neuron.r)]
    else:
        rate = DT_S / (neuron.tau_s if isinstance(neuron, LIF) else neuron.tau_mem_s)
        current = (1 - rate) * threshold / (rate * neuron.r)
        weights = [(1, current)]
        if isinstance(neuron, CubaLIF):
            jump = neuron.w_in * DT_S / neuron.tau_syn_s
            weights = [(1, current / jump), (2, -(1 - DT_S / neuron.tau_syn_s) * current / jump)]
    layers = [Layer(name="fc", synapse=layer.synapse), Layer(name="n", neuron=replace(neuron, reset="subtract"))]
    edges = [Edge(source=INPUT, target="fc"), Edge(source="fc", target="n")]
    for number, (delay, weight) in enumerate(weights):
        layers.append(Layer(name=f"n.reset{number}", synapse=Scale(weight=weight)))
        edges += [Edge(source="n", target=f"n.reset{number}", delay=delay), Edge(source=f"n.reset{number}", target="n")]
    return SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(4,), dt_s=DT_S, output="n")


@kinds
def test_loops_of_former_files_become_it_and_cost_no_synops(kind):
    graph, x = make_network(NEURONS[kind]), make_input()
    looped = with_loop(graph)
    folded = fold_reset_loops(looped)
    assert [layer.name for layer in folded.layers] == ["fc", "n"] and folded["n"].neuron == NEURONS[kind]
    assert np.array_equal(simulate(folded, x).output, simulate(looped, x, dtype=np.float64).output)
    synops = [count_synops(network, simulate(network, x).counts).per_layer for network in (folded, looped)]
    assert synops[0] == {name: synops[1][name] for name in synops[0]} and sum(synops[0].values()) < sum(synops[1].values())


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "truenorth"])
def test_integers_of_chips_that_reset_are_refused(format):
    with pytest.raises(UnsupportedError, match=f"layer 'fc': has no reset after a spike, neurons of the format {format} have"):
        quantize(make_network(NEURONS["LIF"]), format=format)


def test_truenorths_integers_keep_it():
    graph, x = make_network(NEURONS["IF"]), make_input()
    integer = quantize(graph, format="truenorth", calibration=x)
    neuron = integer["fc"].neuron
    assert isinstance(neuron, TrueNorthLIF) and neuron.reset == "none"
    assert np.array_equal(simulate(integer, x).output, loop_over_time(graph, x))


def test_verdicts_name_chips_that_cannot_leave_it_out_and_adapt_gives_what_they_have():
    graph = make_network(NEURONS["LIF"])
    report = check(graph, load_profile("loihi2"))
    (missing,) = report.unsupported
    assert report.verdict == "does_not_fit" and (missing.layer, missing.what) == ("fc", "no reset after a spike")
    assert missing.why.endswith("resets to a value or by subtraction; train with reset='value' or reset='subtract'")
    assert not [entry for entry in check(graph, load_profile("truenorth")).unsupported if entry.resource == "reset"]
    (replacement,) = find_resets(graph, load_profile("loihi2"))
    assert (replacement.what, replacement.by, replacement.kind) == ("no reset", "reset by subtraction", "learnt")
    assert replacement.rewrite(graph)["fc"].neuron == replace(NEURONS["LIF"], reset="subtract")
    (replacement,) = find_resets(graph, load_profile("loihi1"))
    assert replacement.by == "reset by value"


@pytest.mark.parametrize("framework", ["spikingjelly", "sinabs", "rockpool", "norse"])
def test_files_for_frameworks_that_reset_are_refused_and_snntorchs_say_it(framework, tmp_path):
    kind = "CubaLIF" if framework == "rockpool" else "LIF"
    with pytest.raises(UnsupportedError, match=r"layer 'fc.*it has no reset, \w+'s neurons reset when they spike; train"):
        write_dialect(make_network(NEURONS[kind]), tmp_path / "a.nir", framework=framework)
    assert not (tmp_path / "a.nir").exists()
    advice = write_dialect(make_network(NEURONS["LIF"]), tmp_path / "b.nir", framework="snntorch")
    assert any('"none", m._base_int' in statement for statement in advice.statements)


def test_a_nir_file_is_read_without_resets_on_demand(tmp_path):
    write_nir(make_network(LIF(tau_s=4e-3)), tmp_path / "a.nir")
    assert interchange.load(tmp_path / "a.nir", reset="none")["fc"].neuron.reset == "none"
