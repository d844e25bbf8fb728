"""Norse networks from an SNNGraph: equal to the simulator, trainable, and back."""

import copy
import itertools
from dataclasses import replace

import norse.torch as norse
import numpy as np
import pytest
import torch

from spear_deploy.errors import DataError, GraphError, UnsupportedError
from spear_deploy.network import (
    IF,
    LI,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Layer,
    LoihiLIF,
    Scale,
    SumPool,
)
from spear_deploy.network.graph import Edge, SNNGraph, chain
from spear_deploy.norse.cells import NeuronModule, choose_rates
from spear_deploy.norse.network import SURROGATES, reestimate_batchnorm, to_graph, to_norse
from spear_deploy.simulator import simulate
from spear_deploy.simulator.neurons import start, step
from tests.support.reference import random_graph, random_spikes
from tests.support.seeds import seeds

torch.set_num_threads(1)


def values(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def small_graph(seed=0):
    """Convolution with batch norm, pooling, dense with a loop, readout; weights of a trained net's size."""
    rng = np.random.default_rng(seed)
    norm = BatchNorm(weight=np.full(4, 2.0, np.float32), bias=values(rng, 4), mean=values(rng, 4), var=np.ones(4, np.float32))
    layers = (
        Layer(name="conv.1", synapse=Conv2d(weight=values(rng, 4, 1, 3, 3)), norm=norm, neuron=LIF(tau_s=0.002)),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="fc", synapse=Dense(weight=values(rng, 12, 36))),
        Layer(name="loop", synapse=Dense(weight=values(rng, 12, 12))),
        Layer(name="hidden", neuron=CubaLIF(tau_mem_s=0.01, tau_syn_s=0.005, w_in=5.0)),
        Layer(name="out", synapse=Dense(weight=values(rng, 3, 12), bias=values(rng, 3)), neuron=LI(tau_s=0.01)),
    )
    names = ["input", "conv.1", "pool", "fc", "hidden", "out"]
    edges = [Edge(source=a, target=b) for a, b in itertools.pairwise(names)]
    edges += [Edge(source="hidden", target="loop", delay=1), Edge(source="loop", target="hidden")]
    return SNNGraph(layers=layers, edges=tuple(edges), input_shape=(1, 8, 8))


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_equals_the_simulator_spike_for_spike(seed):
    graph = random_graph(seed)
    x = random_spikes(graph, seed)
    run = simulate(graph, x, record=["spikes"])
    with torch.no_grad():
        output, spikes = to_norse(graph).eval()(x, record=True)
    assert set(spikes) == set(run.spikes)
    for name, expected in run.spikes.items():
        assert np.array_equal(spikes[name].numpy(), expected), name
    assert np.array_equal(output.numpy(), run.output)


def test_spikes_differ_rarely_with_weights_that_round():
    differ = total = 0
    for seed in range(5):
        graph = small_graph(seed)
        x = random_spikes(graph, seed, steps=30, batch=8)
        run = simulate(graph, x, record=["spikes"])
        with torch.no_grad():
            _, spikes = to_norse(graph).eval()(x, record=True)
        assert run.counts.rates()["conv.1"] > 0.02
        differ += sum(int((spikes[name].numpy() != run.spikes[name]).sum()) for name in spikes)
        total += sum(s.numel() for s in spikes.values())
    assert differ <= total * 1e-4


@pytest.mark.parametrize(
    "neuron",
    [
        IF(v_threshold=0.7, v_reset=0.1),
        IF(r=0.3, reset="subtract"),
        LIF(tau_s=0.003, v_leak=0.1, v_threshold=np.linspace(0.2, 2, 7)),
        LIF(tau_s=np.linspace(0.0011, 0.0107, 7), r=1.7, reset="subtract"),
        CubaLIF(tau_mem_s=0.0103, tau_syn_s=0.0047, w_in=4.7, v_leak=-0.1, v_reset=0.05),
        CubaLIF(tau_mem_s=0.0103, tau_syn_s=0.0047, reset="subtract", v_threshold=0.3),
        CubaLIF(tau_mem_s=np.linspace(0.0011, 0.02, 7), tau_syn_s=0.0047, w_in=2.0, r=4.0),
        LIF(tau_s=np.linspace(0.0011, 0.0107, 7), r=1.7, reset="subtract", reset_delay=1),
        CubaLIF(tau_mem_s=0.0103, tau_syn_s=0.0047, reset="subtract", v_threshold=0.3, reset_delay=1),
        LI(tau_s=0.0037, v_leak=0.3, r=0.7),
        CubaLI(tau_mem_s=0.0037, tau_syn_s=0.0051, v_leak=0.3),
    ],
    ids=lambda n: type(n).__name__,
)
@pytest.mark.parametrize("dt_s", [1e-3, 1e-4, 7e-4])
def test_neuron_states_are_equal_to_the_bit(neuron, dt_s):
    rng = np.random.default_rng(1)
    drive = values(rng, 60, 5, 7) * 3
    module = NeuronModule(neuron, (7,), dt_s, surrogate="super", alpha=1.0)
    ours = start(neuron, 5, (7,), dt_s)
    theirs = module.start(torch.from_numpy(drive[0]))
    scale = 1.0 if not isinstance(neuron, (CubaLIF, CubaLI)) else float(neuron.r)  # the cell's current is r · u
    for x in drive:
        expected = step(neuron, ours, x)
        out, theirs = module.step(torch.from_numpy(x), theirs)
        assert np.array_equal(out.numpy(), expected)
        assert np.array_equal(theirs.v.numpy(), ours.v)
        if ours.u is not None:
            assert np.array_equal(theirs.i.numpy(), scale * ours.u)


def test_a_current_with_r_that_is_no_power_of_two_agrees_up_to_rounding():
    rng = np.random.default_rng(2)
    neuron = CubaLI(tau_mem_s=0.01, tau_syn_s=0.005, r=1.7)
    graph = chain([Layer(name="out", neuron=neuron)], input_shape=(7,))
    x = values(rng, 50, 3, 7)
    with torch.no_grad():
        output = to_norse(graph)(x).numpy()
    assert output == pytest.approx(simulate(graph, x, kind="current").output, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dt_s", [1e-3, 1e-4, 3e-4, 1e-6])
def test_rates_give_every_multiplier(dt_s):
    taus = np.random.default_rng(3).uniform(0.5, 300, 500) * dt_s
    for tau in taus:
        dt, (rate,) = choose_rates(dt_s, [dt_s / np.array(tau)])
        assert np.float32(dt) * rate == np.float32(dt_s / tau)
        assert dt in (dt_s, 1.0)


def test_cells_are_norses_and_in_seconds_where_float32_can():
    graph = chain([Layer(name="a", neuron=LIF(tau_s=0.002, v_threshold=0.5))], input_shape=(3,))
    cell = to_norse(graph, surrogate="super").module_of("a").neuron.cell
    assert type(cell) is norse.LIFBoxCell
    assert cell.dt == 1e-3
    assert float(cell.p.tau_mem_inv) == 500
    assert cell.p.method == "super"


@pytest.mark.parametrize(
    ("synapse", "shape"),
    [
        (AvgPool(kernel_size=(3, 2), stride=(2, 1), padding=(2, 1)), (2, 7, 8)),
        (SumPool(kernel_size=(2, 2), padding=(1, 1)), (2, 7, 8)),
        (AvgPool(kernel_size=(3,), stride=(2,), padding=(2,)), (2, 9)),
        (SumPool(kernel_size=(3,), stride=(2,)), (2, 9)),
        (Conv1d(weight=np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8, groups=2, padding=(1,), dilation=(2,)), (4, 9)),
        (Scale(weight=np.array([[1.0], [-0.5]], np.float32), bias=np.full((2, 9), 0.25, np.float32)), (2, 9)),
    ],
    ids=lambda s: type(s).__name__ if not isinstance(s, tuple) else "",
)
def test_synapses_equal_the_simulator(synapse, shape):
    graph = chain([Layer(name="a", synapse=synapse)], input_shape=shape)
    x = random_spikes(graph, 4)
    with torch.no_grad():
        output = to_norse(graph)(x).numpy()
    assert np.array_equal(output, simulate(graph, x).output)


def test_there_and_back_changes_nothing():
    for seed in range(10):
        graph = random_graph(seed)
        assert to_graph(to_norse(graph)) == graph
    assert to_graph(to_norse(small_graph())) == small_graph()


def test_making_a_network_leaves_the_random_numbers_of_torch_as_they_were():
    state = torch.random.get_rng_state()
    to_norse(small_graph())
    to_norse(chain([Layer(name="a", synapse=Conv1d(weight=np.ones((2, 3, 2))), neuron=IF())], input_shape=(3, 5)))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_there_and_back_makes_float32_of_float64():
    graph = chain([Layer(name="a", synapse=Dense(weight=np.eye(2)), neuron=IF())], input_shape=(2,))
    assert to_graph(to_norse(graph))["a"].synapse.weight.dtype == np.float32


def test_training_reaches_every_weight_and_comes_back():
    graph = small_graph()
    network = to_norse(graph).train()
    x = random_spikes(graph, 1, steps=10, batch=6)
    before = to_graph(network)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    output, spikes = network(x, record=True)
    (output.pow(2).mean() + spikes["conv.1"].mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    optimiser.step()
    after = to_graph(network)
    for layer in graph.layers:
        if layer.synapse is not None and not isinstance(layer.synapse, AvgPool):
            assert not np.array_equal(after[layer.name].synapse.weight, before[layer.name].synapse.weight)
    assert not np.array_equal(after["conv.1"].norm.mean, before["conv.1"].norm.mean)
    assert after["conv.1"].norm.var.shape == (4,)
    assert after.edges == graph.edges
    assert after["hidden"] == graph["hidden"]


def test_spikes_alone_carry_gradient():
    network = to_norse(small_graph()).train()
    _, spikes = network(random_spikes(network.graph, 2, steps=8), record=True)
    assert set(spikes) == {"conv.1", "hidden"}
    assert spikes["hidden"].requires_grad
    spikes["hidden"].mean().backward()
    assert network.module_of("conv.1").synapse.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate_runs_with_the_same_spikes(surrogate):
    graph = small_graph()
    x = random_spikes(graph, 5, steps=8)
    network = to_norse(graph, surrogate=surrogate, alpha=2.0).eval()
    output = network(x)
    assert torch.equal(output, to_norse(graph).eval()(x))
    output.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_alpha_is_the_steepness_of_the_gradient():
    graph = chain([Layer(name="a", synapse=Dense(weight=np.eye(3, dtype=np.float32)), neuron=IF())], input_shape=(3,))
    gradients = []
    for alpha in (1.0, 2.0):
        network = to_norse(graph, alpha=alpha)
        network(np.full((1, 1, 3), 0.75)).sum().backward()
        gradients.append(network.module_of("a").synapse.weight.grad)
    assert torch.equal(gradients[1], 2 * gradients[0])
    assert float(gradients[0][0, 0]) == 0.75 * 0.75  # input times alpha · (1 − |v − v_threshold|)


def test_statistics_in_training_are_those_of_time_and_batch():
    graph = small_graph()
    network = to_norse(graph).train()
    x = random_spikes(graph, 3, steps=9, batch=4)
    module = network.module_of("conv.1")
    with torch.no_grad():
        drive = module.synapse(torch.from_numpy(x.astype(np.float32)).flatten(0, 1))
        network(x)
    expected = 0.9 * graph["conv.1"].norm.mean + 0.1 * drive.mean((0, 2, 3)).numpy()
    assert module.norm.running_mean.numpy() == pytest.approx(expected, rel=1e-5)


def test_reestimation_averages_over_batches_and_leaves_the_rest():
    graph = small_graph()
    network = to_norse(graph).train()
    batches = [random_spikes(graph, seed, steps=5, batch=3) for seed in range(4)]
    module = network.module_of("conv.1")
    with torch.no_grad():
        drives = [module.synapse(torch.from_numpy(x.astype(np.float32)).flatten(0, 1)) for x in batches]
    reestimate_batchnorm(network, batches)
    norm = to_graph(network)["conv.1"].norm
    assert norm.mean == pytest.approx(np.mean([d.mean((0, 2, 3)).numpy() for d in drives], 0), rel=1e-4, abs=1e-6)
    assert norm.var == pytest.approx(np.mean([d.transpose(0, 1).flatten(1).var(1).numpy() for d in drives], 0), rel=1e-4)
    assert network.training
    assert module.norm.momentum == 0.1
    weights = to_graph(network)
    assert np.array_equal(weights["conv.1"].synapse.weight, graph["conv.1"].synapse.weight)
    assert np.array_equal(norm.weight, graph["conv.1"].norm.weight)


def test_reestimation_without_batches_leaves_the_statistics():
    network = to_norse(small_graph()).eval()
    before = to_graph(network)
    with pytest.raises(DataError, match="no batch given"):
        reestimate_batchnorm(network, [])
    with pytest.raises(DataError, match="input has shape"):
        reestimate_batchnorm(network, [random_spikes(network.graph, 1), np.zeros((2, 2, 3))])
    assert to_graph(network) == before
    assert not network.training


def test_reestimation_of_a_network_without_norms_does_nothing():
    graph = chain([Layer(name="a", synapse=Dense(weight=np.eye(2, dtype=np.float32)), neuron=IF())], input_shape=(2,))
    network = to_norse(graph)
    reestimate_batchnorm(network, [])
    assert to_graph(network) == graph


def test_copies_are_independent_and_share_the_graph():
    network = to_norse(small_graph())
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.module_of("fc").synapse.weight.add_(1)
    assert twin.graph is network.graph
    assert to_graph(network) == small_graph()
    assert to_graph(twin) != to_graph(network)


def test_state_dict_holds_neuron_parameters_and_restores_a_network():
    graph = small_graph()
    changed = graph.with_layers({"conv.1": replace(graph["conv.1"], neuron=LIF(tau_s=0.004, v_threshold=0.5))})
    network, other = to_norse(graph).eval(), to_norse(changed).eval()
    assert float(other.state_dict()["conv_1.neuron.v_th"]) == 0.5
    network.load_state_dict(other.state_dict())
    x = random_spikes(graph, 6)
    assert torch.equal(network(x), other(x))


def test_moving_moves_neuron_parameters():
    network = to_norse(small_graph()).eval()
    x = random_spikes(network.graph, 7)
    before = network(x)
    network.to("meta")
    network.module_of("conv.1").neuron.start(torch.empty(1, 4, 6, 6, device="meta"))
    assert network.module_of("conv.1").neuron.cell.p.v_th.device.type == "meta"
    double = to_norse(small_graph()).eval().double()
    assert double(x).dtype == torch.float64
    assert double(x).detach().numpy() == pytest.approx(before.detach().numpy(), abs=0.2)


def test_norses_shared_defaults_are_left_alone():
    norse.IAFParameters().v_reset.requires_grad_(False)  # Norse itself sets it in every run of an IAFCell
    graph = chain([Layer(name="a", synapse=Dense(weight=np.ones((2, 2), np.float32)), neuron=IF())], input_shape=(2,))
    to_norse(graph)(np.ones((3, 2, 2))).sum().backward()
    assert not norse.IAFParameters().v_reset.requires_grad


def test_names_become_children():
    layers = [Layer(name=name, neuron=IF()) for name in ("a.b", "a_b", "forward", "training", "graph")]
    network = to_norse(chain(layers, input_shape=(2,)))
    assert [name for name, _ in network.named_children()] == ["a_b", "a_b_", "forward_", "training_", "graph_"]
    assert network.module_of("a_b") is network.get_submodule("a_b_")
    with pytest.raises(GraphError, match="there is no such layer; did you mean 'a"):
        network.module_of("a.c")


def test_delays_longer_than_the_run_bring_nothing():
    layers = [Layer(name="a", neuron=IF(v_threshold=0.5)), Layer(name="b", neuron=IF(v_threshold=0.5))]
    edges = [Edge(source="input", target="a"), Edge(source="a", target="b", delay=5)]
    graph = SNNGraph(layers=tuple(layers), edges=tuple(edges), input_shape=(2,))
    for steps in (3, 8):
        x = np.ones((steps, 1, 2))
        assert np.array_equal(to_norse(graph)(x).numpy(), simulate(graph, x).output)


def test_integers_and_unknown_surrogates_are_refused_by_name():
    graph = small_graph()
    with pytest.raises(UnsupportedError, match="surrogate 'triangel': no such gradient.*did you mean 'triangle'"):
        to_norse(graph, surrogate="triangel")
    loihi = chain([Layer(name="a", neuron=LoihiLIF(decay_u=0, decay_v=0, v_threshold=1))], input_shape=(2,))
    with pytest.raises(UnsupportedError, match="an integer network has no gradient"):
        to_norse(loihi)
    shifted = chain([Layer(name="a", synapse=Dense(weight=np.eye(2), weight_exponent=2))], input_shape=(2,))
    with pytest.raises(UnsupportedError, match="Dense: a weight exponent is for integer networks"):
        to_norse(shifted)
    for x in (np.zeros((4, 2, 8, 8)), np.zeros((4, 2, 1, 8, 7)), np.zeros((0, 2, 1, 8, 8))):
        with pytest.raises(DataError, match=r"the network takes \(T, B, 1, 8, 8\)"):
            to_norse(graph)(x)
