"""Norse modules in an SNNGraph: mapped exactly, folded, or refused by name."""

import inspect
import sys

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from spear_deploy.errors import FileError, GraphError, UnsupportedError
from spear_deploy.frameworks.models import load_model, read_model, read_named, run_model
from spear_deploy.frameworks.norse import solve_w_in
from spear_deploy.network import IF, LI, LIF, AvgPool, Conv1d, Conv2d, CubaLI, CubaLIF, Dense, Scale, SumPool
from spear_deploy.network.graph import Edge, SNNGraph
from spear_deploy.norse.network import to_norse
from spear_deploy.simulator import simulate
from tests.support.seeds import seeds

torch.set_num_threads(1)

State = norse.SequentialState


def box(rate=500.0, **changes):
    return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(rate), **changes))


def dyadic(model, seed=0, levels=4):
    """Put every weight on a coarse binary grid, so that no sum rounds and spikes are equal on every machine."""
    generator = torch.Generator().manual_seed(seed)

    def grid(like):
        return torch.randint(-levels, levels + 1, like.shape, generator=generator) / levels

    with torch.no_grad():
        for module in model.modules():
            for name, value in module.named_parameters(recurse=False):
                norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
                value.copy_(1 + grid(value).abs() if norm and name == "weight" else grid(value))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eps = 2.0**-10
                module.running_var.fill_(0.25 - 2.0**-10)
                module.running_mean.copy_(grid(module.running_mean) / 4)
    return model


def spikes_for(shape, seed=0, steps=12, batch=3, rate=0.4):
    return (np.random.default_rng(seed).random((steps, batch, *shape)) < rate).astype(np.float32)


def assert_same(model, shape, *, active=True, **sizes):
    """Run the user's model, the simulator and the rebuilt Norse network on one input."""
    model = model.eval()
    graph = read_model(model, shape)
    x = spikes_for(shape, **sizes)
    expected = run_model(model, x)
    run = simulate(graph, x)
    assert np.array_equal(run.output, expected)
    with torch.no_grad():
        assert np.array_equal(to_norse(graph).eval()(x).numpy(), expected)
    if active:
        assert all(0 < rate < 1 for rate in run.counts.rates().values()), run.counts.rates()
    return graph


class Residual(nn.Module):
    """A user's block: two convolutions, a skip that is the input or a convolution, states in a tuple."""

    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.lif1 = box()
        self.conv2 = nn.Conv2d(out, out, 3, padding="same", groups=2)
        self.bn2 = nn.BatchNorm2d(out)
        self.lif2 = norse.IAFCell(norse.IAFParameters(v_th=torch.tensor(2.0), v_reset=torch.tensor(0.25)))
        self.skip = nn.Identity() if channels == out and stride == 1 else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x, state=None):
        first, second = (None, None) if state is None else state
        z, first = self.lif1(self.bn1(self.conv1(x)), first)
        z, second = self.lif2(self.bn2(self.conv2(z)) + self.skip(x), second)
        return z, (first, second)


class User(nn.Module):
    """A module around a forward given as a function, for forwards that should be refused."""

    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x, state=None):
        return self.function(self, x, state)


class Stateless(User):
    def forward(self, x):
        return self.function(self, x)


# ------------------------------------------------------------------------------------------------- neurons, to the bit


def tensor(*values):
    return torch.tensor(values if len(values) > 1 else values[0])


SPREAD = torch.linspace(0.3, 1.9, 6)
CELLS = {
    "lif": norse.LIFCell(),
    "lif odd": norse.LIFCell(
        norse.LIFParameters(tensor(217.3), tensor(93.1), tensor(0.05), tensor(0.4), tensor(-0.1)), dt=0.0007
    ),
    "lif per neuron": norse.LIFCell(norse.LIFParameters(tau_mem_inv=SPREAD * 100, v_th=SPREAD, v_leak=SPREAD / 10)),
    "box": norse.LIFBoxCell(),
    "box odd": norse.LIFBoxCell(norse.LIFBoxParameters(tensor(333.3), tensor(0.07), tensor(0.3), tensor(-0.2)), dt=0.0013),
    "box per neuron": norse.LIFBoxCell(norse.LIFBoxParameters(SPREAD * 300, v_th=SPREAD, v_reset=SPREAD - 1)),
    "box subtracting": norse.LIFBoxCell(norse.LIFBoxParameters(tensor(500.0), reset_method=norse.reset_subtract)),
    "box float parameters": norse.LIFBoxCell(norse.LIFBoxParameters(321.0, v_th=0.35)),
    "iaf": norse.IAFCell(norse.IAFParameters(v_th=tensor(1.3), v_reset=tensor(0.3))),
    "li": norse.LICell(norse.LIParameters(tensor(211.0), tensor(77.7), tensor(0.13))),
    "li box": norse.LIBoxCell(norse.LIBoxParameters(tensor(77.7), tensor(0.13))),
}


@pytest.mark.parametrize("name", CELLS)
def test_states_of_cells_are_equal_to_the_bit(name):
    cell = CELLS[name]
    graph = read_model(cell, (6,))
    drive = np.random.default_rng(3).standard_normal((80, 4, 6)).astype(np.float32) * 2 + 0.5
    run = simulate(graph, drive, kind="current", record=["v", "u"])
    state = None
    for t, x in enumerate(torch.from_numpy(drive)):
        with torch.no_grad():
            out, state = cell(x, state)
        assert np.array_equal(out.numpy(), run.output[t])
        assert np.array_equal(state.v.numpy(), run.v["model"][t])
        if hasattr(state, "i"):
            assert np.array_equal(state.i.numpy(), run.u["model"][t])
    if graph["model"].spikes:
        assert 0.02 < run.output.mean() < 0.9
    with torch.no_grad():
        assert np.array_equal(to_norse(graph)(drive).numpy(), run.output)


@pytest.mark.parametrize("layer", [norse.LIF(), norse.IAF(), norse.LI()], ids=lambda m: type(m).__name__)
def test_time_layers_are_equal_to_the_bit(layer):
    drive = np.random.default_rng(3).standard_normal((60, 4, 6)).astype(np.float32) * 2 + 0.5
    run = simulate(read_model(layer, (6,)), drive, kind="current")
    assert np.array_equal(run_model(layer, drive), run.output)


def test_parameters_become_the_numbers_that_a_person_wrote():
    graph = read_model(State(norse.LIFCell(), box(), norse.LIBoxCell(), norse.LICell()), (2,))
    lif, lif_box, li, cuba_li = (layer.neuron for layer in graph.layers)
    assert isinstance(lif, CubaLIF) and isinstance(lif_box, LIF) and isinstance(li, LI) and isinstance(cuba_li, CubaLI)
    assert (float(lif.tau_mem_s), float(lif.tau_syn_s), float(lif.w_in)) == (0.01, 0.005, 5.0)
    assert (float(lif_box.tau_s), float(li.tau_s)) == (0.002, 0.01)
    assert graph.dt_s == 1e-3


@pytest.mark.parametrize("rate", np.random.default_rng(5).uniform(1, 2000, 40).astype(np.float32))
@pytest.mark.parametrize("dt_s", [1e-3, 1e-4])
def test_every_rate_keeps_its_float32_multiplier(rate, dt_s):
    neuron = read_model(norse.LIFBoxCell(norse.LIFBoxParameters(tensor(rate)), dt=dt_s), (1,))["model"].neuron
    assert np.float32(dt_s / float(neuron.tau_s)) == np.float32(dt_s) * rate


def test_w_in_makes_the_current_jump_by_1():
    for tau in np.random.default_rng(6).uniform(1e-4, 1, 300):
        assert np.float32(solve_w_in(np.array(tau), 1e-3) * (1e-3 / tau)) == 1


def test_the_shared_default_of_iaf_is_left_alone():
    norse.IAFParameters().v_reset.requires_grad_(False)  # Norse itself sets it in every run of an IAFCell
    graph = read_model(norse.IAFCell(), (2,))
    to_norse(graph)(np.ones((3, 2, 2)))
    assert not norse.IAFParameters().v_reset.requires_grad


# ------------------------------------------------------------------------------------------------------------ networks


def test_a_sequential_network():
    model = State(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), box(), nn.AvgPool2d(2), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(4 * 3 * 3, 5), nn.BatchNorm1d(5), box(250.0), nn.Linear(5, 3), norse.LIBoxCell(),
    )  # fmt: skip
    graph = assert_same(dyadic(model), (2, 6, 6))
    assert [layer.name for layer in graph.layers] == ["2", "3", "8", "10"]
    assert graph["2"].norm is not None and isinstance(graph["2"].synapse, Conv2d)
    assert isinstance(graph["3"].synapse, AvgPool)


def test_residual_blocks_and_nested_containers():
    model = State(
        State(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), box()),
        State(Residual(4, 4), Residual(4, 6, stride=2)),
        nn.Sequential(nn.Dropout2d(), nn.Flatten(), nn.Linear(6 * 3 * 3, 3)),
    )
    graph = assert_same(dyadic(model, levels=2), (1, 6, 6))
    assert Edge(source="0.2", target="1.0.lif2") in graph.edges
    assert {e.source for e in graph.edges_into("1.1.lif2")} == {"1.1.bn2", "1.1.skip"}
    assert graph["1.1.bn2"].synapse.groups == 2
    assert graph.output == "2.2"


def test_a_network_over_time():
    model = State(
        norse.Lift(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))), norse.LIF(),
        norse.Lift(nn.AvgPool2d(2)), nn.Flatten(2), nn.Linear(16, 6), norse.IAF(), norse.Lift(nn.Linear(6, 3)), norse.LI(),
    )  # fmt: skip
    assert_same(dyadic(model), (2, 6, 6))


def test_torch_sequential_over_time_and_convolution_over_time():
    model = nn.Sequential(
        norse.LConv2d(2, 3, (3, 2), stride=(1, 2), padding=1), norse.LIF(), norse.Lift(nn.Flatten()), norse.IAF()
    )
    graph = assert_same(dyadic(model), (2, 5, 6))
    assert graph["1"].synapse.weight.shape == (3, 2, 3, 2)


def test_cells_within_a_lift():
    model = norse.Lift(State(nn.Linear(4, 6), norse.IAFCell(), nn.Linear(6, 5), box()))
    graph = assert_same(dyadic(model), (4,))
    assert [layer.name for layer in graph.layers] == ["1", "3"]


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_one_dimensional_convolutions_with_every_padding(kernel, padding):
    model = State(nn.Conv1d(2, 4, kernel, padding=padding, groups=2), norse.IAFCell(), nn.AvgPool1d(2), box())
    graph = assert_same(dyadic(model), (2, 9), active=False)
    assert isinstance(graph["1"].synapse, Conv1d)


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 4), (2, 1)), ((5, 2), (1, 1)), ((3, 2), (3, 2))])
def test_same_padding_with_even_kernels_and_dilation(kernel, dilation):
    model = nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation)
    assert_same(dyadic(model), (2, 7, 8), active=False)


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (nn.AvgPool2d(2, stride=1, padding=1), AvgPool),
        (nn.AvgPool2d((3, 2), ceil_mode=True), AvgPool),
        (nn.AvgPool2d(2, divisor_override=1), SumPool),
        (nn.AvgPool2d(2, divisor_override=4), AvgPool),
        (nn.LPPool2d(1, 2), SumPool),
        (nn.AdaptiveAvgPool2d((3, None)), AvgPool),
        (nn.AdaptiveAvgPool2d(2), AvgPool),
    ],
    ids=str,
)
def test_pools(pool, kind):
    graph = assert_same(State(pool, norse.IAFCell()), (2, 6, 4), active=False)
    assert isinstance(graph["1"].synapse, kind)


@pytest.mark.parametrize("timed", [False, True])
def test_recurrent_cells_step_by_step(timed):
    cell = norse.LIFRecurrentCell(6, 8) if not timed else norse.LIFRecurrent(6, 8)
    dyadic(cell, levels=2)
    with torch.no_grad():
        cell.recurrent_weights.fill_diagonal_(0)
    graph = read_model(cell, (6,))
    assert Edge(source="model", target="model.recurrent", delay=1) in graph.edges
    assert np.array_equal(graph["model.recurrent"].synapse.weight, cell.recurrent_weights.detach().numpy())
    x = spikes_for((6,), steps=60, batch=8)
    run = simulate(graph, x, record=["v", "u"])
    assert 0.05 < run.output.mean() < 0.6
    assert np.array_equal(run_model(cell, x), run.output)
    with torch.no_grad():
        assert np.array_equal(to_norse(graph)(x).numpy(), run.output)
        state = None
        for t, step in enumerate(torch.from_numpy(x)):  # equal up to the order in which the two currents are added
            if not timed:
                _, state = cell(step, state)
                assert run.v["model"][t] == pytest.approx(state.v.numpy(), abs=2e-6)
                assert run.u["model"][t] == pytest.approx(state.i.numpy(), abs=4e-6)


def test_recurrence_matters_in_that_test():
    cell = dyadic(norse.LIFRecurrentCell(6, 8), levels=2)
    x = spikes_for((6,), steps=60, batch=8)
    before = run_model(cell, x)
    with torch.no_grad():
        cell.recurrent_weights.zero_()
    assert not np.array_equal(before, run_model(cell, x))


def test_recurrent_sequential_feeds_its_output_back():
    inner = norse.RecurrentSequential(nn.Linear(5, 5), norse.IAFCell(), nn.Linear(5, 5), norse.IAFCell(), output_modules=1)
    model = State(nn.Linear(4, 5), norse.IAFCell(), inner, norse.LILinearCell(5, 2))
    graph = assert_same(dyadic(model, levels=2), (4,), steps=20)
    assert Edge(source="2.1", target="2.1", delay=1) in graph.edges
    assert isinstance(graph["3"].neuron, CubaLI) and isinstance(graph["3"].synapse, Dense)


def test_sums_differences_and_factors():
    def forward(self, x, state):
        a, b = self.a(x), self.b(x)
        return self.lif((a + a) - b * 0.5 + (-x) / 4, state)

    graph = assert_same(dyadic(User(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), lif=box())), (4,))
    assert sorted(float(layer.synapse.weight) for layer in graph.layers if isinstance(layer.synapse, Scale)) == [
        -1,
        -1,
        0.25,
        0.5,
        2,
    ]


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.view(x.size(0), 12),
        lambda x: x.reshape((-1, 12)),
        lambda x: functional.avg_pool2d(x, 1).flatten(1).contiguous(),
    ],
)
def test_flattening_by_function(flatten):
    model = User(lambda self, x, state: self.lif(self.fc(flatten(x)), state), fc=nn.Linear(12, 5), lif=box())
    assert_same(dyadic(model), (2, 2, 3))


def test_states_in_attributes_and_in_dictionaries():
    def with_attribute(self, x):
        z, self.held = self.lif(self.fc(x), self.held)
        return z

    model = Stateless(with_attribute, fc=nn.Linear(4, 5), lif=box(), held=None)
    assert [layer.name for layer in read_model(model, (4,)).layers] == ["lif"]

    def with_dictionary(self, x, state):
        state = state or {"lif": None}
        z, s = self.lif(self.fc(x), state["lif"])
        return z, {"lif": s}

    assert_same(dyadic(User(with_dictionary, fc=nn.Linear(4, 5), lif=box())), (4,))


def test_folding_of_dropout_and_relu_on_spikes():
    def forward(self, x, state):
        z, state = self.lif(functional.dropout(self.fc(x), 0.5, self.training), state)
        return self.out(self.relu(functional.relu(z))), state

    model = User(forward, fc=nn.Linear(4, 5), lif=box(), relu=nn.ReLU(), out=nn.Linear(5, 2))
    assert len(assert_same(dyadic(model).train(), (4,)).layers) == 2


def test_pruned_and_parametrised_weights_are_what_is_used():
    torch.manual_seed(0)
    model = State(parametrizations.weight_norm(nn.Linear(4, 6)), norse.IAFCell(), nn.Linear(6, 5), norse.IAFCell())
    prune.l1_unstructured(model[2], "weight", amount=0.5)
    model(torch.ones(1, 4))
    graph = read_model(model, (4,))
    assert np.array_equal(graph["1"].synapse.weight, model[0].weight.detach().numpy())
    assert np.count_nonzero(graph["3"].synapse.weight) == 15


def test_regularisation_passes_spikes_through():
    def forward(self, x, state):
        z, s = self.lif(x, state)
        z, _ = self.count(z, s)
        return self.fc(z), s

    graph = read_model(User(forward, lif=box(), count=norse.RegularizationCell(), fc=nn.Linear(3, 2)), (3,))
    assert [layer.name for layer in graph.layers] == ["lif", "fc"]


def test_the_model_is_left_as_it_was():
    model = State(nn.Linear(3, 4), nn.BatchNorm1d(4), norse.LIFCell()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    read_model(model, (3,))
    run_model(model, spikes_for((3,)))
    assert model.training and model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_rebuilt_model_is_the_same_network():
    graph = read_model(dyadic(State(nn.Linear(3, 4), nn.BatchNorm1d(4), norse.LIFCell(), nn.Linear(4, 2), norse.LICell())), (3,))
    assert read_model(to_norse(graph), (3,)) == graph
    with pytest.raises(GraphError, match="the network takes 3 inputs, input shape 4 was given"):
        read_model(to_norse(graph), (4,))


def random_model(seed):
    """A random stack of blocks as users write them, and the shape of its input."""
    rng = np.random.default_rng(seed)

    def neuron():
        subtract = {"reset_method": norse.reset_subtract} if rng.random() < 0.3 else {}
        threshold = torch.tensor(float(rng.choice([0.5, 1.0, 2.0])))
        parameters = norse.IAFParameters(v_th=threshold, v_reset=torch.tensor(0.0))
        cells = [lambda: box(v_th=threshold, **subtract), norse.LIFCell, lambda: norse.IAFCell(parameters)]
        return cells[rng.integers(3)]()

    channels, size = int(rng.integers(1, 3)) * 2, int(rng.integers(6, 9))
    shape = (channels, size, size)
    blocks = []
    for _ in range(rng.integers(1, 4)):
        out = int(rng.integers(1, 4)) * 2
        kind = rng.integers(4)
        if kind == 0:
            blocks.append(Residual(channels, out, stride=int(rng.integers(1, 3))))
        elif kind == 1:
            blocks.append(
                State(nn.Conv2d(channels, out, int(rng.integers(1, 4)), padding=1, bias=bool(rng.integers(2))), neuron())
            )
        elif kind == 2:
            blocks += [nn.Sequential(nn.Conv2d(channels, out, (3, 2), padding="same"), nn.BatchNorm2d(out)), neuron()]
        else:
            blocks += [nn.Dropout2d(), nn.AvgPool2d(2, padding=1)]
            out = channels
        channels = out
    features = State(*blocks)
    probe, _ = features.eval()(torch.zeros(1, *shape))
    head = [nn.Flatten(), nn.Linear(probe[0].numel(), 5)]
    if rng.random() < 0.5:
        head += [norse.RecurrentSequential(nn.Linear(5, 5), neuron())]
    return dyadic(State(features, *head, norse.LIBoxCell()), seed, levels=2), shape


@pytest.mark.parametrize("seed", seeds(8, 25))
def test_random_models_are_equal_in_all_three(seed):
    model, shape = random_model(seed)
    assert_same(model, shape, active=False, seed=seed, steps=6)


def test_random_models_do_spike():
    rates = []
    for seed in range(25):
        model, shape = random_model(seed)
        rates += simulate(read_model(model, shape), spikes_for(shape, seed, steps=6)).counts.rates().values()
    assert np.mean([0.02 < rate < 0.98 for rate in rates]) > 0.5


def test_random_weights_give_the_same_spikes_up_to_ties():
    differ = total = 0
    for seed in range(3):
        torch.manual_seed(seed)
        model = State(
            nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), box(), nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), norse.LIFCell(), nn.Flatten(), nn.Linear(128, 20), box(),
        ).eval()  # fmt: skip
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.02, 0.1)
                module.bias.data.normal_(1.0, 1.0)
        model[-2].weight.data.mul_(8)
        x = spikes_for((2, 8, 8), seed, steps=30, batch=8)
        graph = read_model(model, (2, 8, 8))
        run = simulate(graph, x)
        assert 0.01 < run.output.mean() < 0.9
        differ += int((run.output != run_model(model, x)).sum())
        total += run.output.size
    assert differ <= 1e-3 * total


# ------------------------------------------------------------------------------------------- every module of Norse

SIDES = {"input_size": 3, "hidden_size": 3}
IZHIKEVICH = norse.tonic_spiking
FIELDS = {"in_channels": 1, "size": 3, "scales": torch.ones(1), "angles": torch.ones(1), "ratios": torch.ones(1)}
VGG_FEATURES = State(norse.Lift(nn.Conv2d(1, 2, 1)), norse.LIF(), norse.Lift(nn.MaxPool2d(2)), norse.Lift(nn.Conv2d(2, 512, 1)))
MAPPED = {
    "IAF": lambda: (norse.IAF(), (3,), IF),
    "IAFCell": lambda: (norse.IAFCell(), (3,), IF),
    "LI": lambda: (norse.LI(), (3,), CubaLI),
    "LIBoxCell": lambda: (norse.LIBoxCell(), (3,), LI),
    "LICell": lambda: (norse.LICell(), (3,), CubaLI),
    "LILinearCell": lambda: (norse.LILinearCell(3, 2), (3,), CubaLI),
    "LIF": lambda: (norse.LIF(), (3,), CubaLIF),
    "LIFCell": lambda: (norse.LIFCell(), (3,), CubaLIF),
    "LIFBoxCell": lambda: (norse.LIFBoxCell(), (3,), LIF),
    "LIFRecurrent": lambda: (norse.LIFRecurrent(**SIDES), (3,), CubaLIF),
    "LIFRecurrentCell": lambda: (norse.LIFRecurrentCell(**SIDES), (3,), CubaLIF),
    "ConvNet": lambda: (norse.ConvNet(feature_size=16), (1, 16, 16), CubaLI),
    "ConvNet4": lambda: (norse.ConvNet4(feature_size=16), (1, 16, 16), CubaLI),
    "VGG": lambda: (norse.VGG(VGG_FEATURES, 2, False), (1, 14, 14), type(None)),
    "LConv2d": lambda: (norse.LConv2d(1, 2, 3), (1, 4, 4), type(None)),
    "Lift": lambda: (norse.Lift(nn.Linear(3, 2)), (3,), type(None)),
    "SequentialState": lambda: (norse.SequentialState(norse.LIFCell()), (3,), CubaLIF),
    "RecurrentSequential": lambda: (norse.RecurrentSequential(norse.LIFCell()), (3,), CubaLIF),
    "MobileNetV2": lambda: (norse.MobileNetV2(num_classes=2), (3, 32, 32), type(None)),
    "RegularizationCell": lambda: (
        User(lambda s, x, state: s.count(s.fc(x), None), fc=nn.Linear(3, 2), count=norse.RegularizationCell()), (3,), type(None)
    ),
}  # fmt: skip
REFUSED = {
    "LIFAdExRefracCell": lambda: (norse.LIFAdExRefracCell(), (3,), "its threshold, current or weights adapt"),
    "LIFAdExRefracRecurrentCell": lambda: (norse.LIFAdExRefracRecurrentCell(**SIDES), (3,), "adapt"),
    "LIFAdExRefracRecurrent": lambda: (norse.LIFAdExRefracRecurrent(**SIDES), (3,), "adapt"),
    "CobaLIFCell": lambda: (norse.CobaLIFCell(**SIDES), (3,), "not that of a leaky integrator"),
    "ConstantCurrentLIFEncoder": lambda: (norse.ConstantCurrentLIFEncoder(5), (3,), "encode the data before"),
    "PoissonEncoder": lambda: (norse.PoissonEncoder(5), (3,), "encode the data before"),
    "PopulationEncoder": lambda: (norse.PopulationEncoder(5), (3,), "encode the data before"),
    "SignedPoissonEncoder": lambda: (norse.SignedPoissonEncoder(5), (3,), "encode the data before"),
    "SpikeLatencyEncoder": lambda: (norse.SpikeLatencyEncoder(), (3,), "encode the data before"),
    "SpikeLatencyLIFEncoder": lambda: (norse.SpikeLatencyLIFEncoder(5), (3,), "encode the data before"),
    "SpatialReceptiveField2d": lambda: (norse.SpatialReceptiveField2d(1, 3, torch.ones(1, 7)), (1, 5, 5), "makes its weights"),
    "ParameterizedSpatialReceptiveField2d": lambda: (
        norse.ParameterizedSpatialReceptiveField2d(**FIELDS, derivatives=[(0, 0)]), (1, 5, 5), "makes its weights"
    ),
    "SampledSpatialReceptiveField2d": lambda: (
        norse.SampledSpatialReceptiveField2d(**FIELDS, derivatives=[(0, 0)]), (1, 5, 5), "makes its weights"
    ),
    "TemporalReceptiveField": lambda: (norse.TemporalReceptiveField((3,)), (3,), "makes its weights"),
    "IzhikevichCell": lambda: (norse.IzhikevichCell(IZHIKEVICH), (3,), "not that of a leaky integrator"),
    "IzhikevichRecurrentCell": lambda: (norse.IzhikevichRecurrentCell(3, 3, IZHIKEVICH), (3,), "leaky integrator"),
    "Izhikevich": lambda: (norse.Izhikevich(IZHIKEVICH), (3,), "leaky integrator"),
    "IzhikevichRecurrent": lambda: (norse.IzhikevichRecurrent(3, 3, IZHIKEVICH), (3,), "leaky integrator"),
    "LIFAdEx": lambda: (norse.LIFAdEx(), (3,), "adapt"),
    "LIFAdExCell": lambda: (norse.LIFAdExCell(), (3,), "adapt"),
    "LIFAdExRecurrentCell": lambda: (norse.LIFAdExRecurrentCell(**SIDES), (3,), "adapt"),
    "LIFAdExRecurrent": lambda: (norse.LIFAdExRecurrent(**SIDES), (3,), "adapt"),
    "LIFCorrelation": lambda: (norse.LIFCorrelation(3, 3), (3,), "adapt"),
    "LIFExCell": lambda: (norse.LIFExCell(), (3,), "exponential"),
    "LIFExRecurrentCell": lambda: (norse.LIFExRecurrentCell(**SIDES), (3,), "exponential"),
    "LIFEx": lambda: (norse.LIFEx(), (3,), "exponential"),
    "LIFExRecurrent": lambda: (norse.LIFExRecurrent(**SIDES), (3,), "exponential"),
    "LIFMCRecurrentCell": lambda: (norse.LIFMCRecurrentCell(**SIDES), (3,), "not that of a leaky integrator"),
    "LIFMCRefracRecurrentCell": lambda: (norse.LIFMCRefracRecurrentCell(**SIDES), (3,), "refractory"),
    "LIFRefracCell": lambda: (norse.LIFRefracCell(), (3,), "refractory"),
    "LIFRefracRecurrentCell": lambda: (norse.LIFRefracRecurrentCell(**SIDES), (3,), "refractory"),
    "LIFRefracRecurrent": lambda: (norse.LIFRefracRecurrent(**SIDES), (3,), "refractory"),
    "LSNNCell": lambda: (norse.LSNNCell(), (3,), "adapt"),
    "LSNNRecurrentCell": lambda: (norse.LSNNRecurrentCell(**SIDES), (3,), "adapt"),
    "LSNN": lambda: (norse.LSNN(), (3,), "adapt"),
    "LSNNRecurrent": lambda: (norse.LSNNRecurrent(**SIDES), (3,), "adapt"),
    "SpikesToTimesDecoder": lambda: (norse.SpikesToTimesDecoder(), (3,), "decode after the network"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        (lambda: norse.ConstantCurrentLIFEncoder(8), "ConstantCurrentLIFEncoder"),
        (lambda: norse.PoissonEncoder(8), "PoissonEncoder"),
    ],
)
def test_an_encoder_in_front_of_a_loop_that_makes_its_output_is_refused_by_name(encoder, name):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(3, 4), norse.LILinearCell(4, 2)

        def forward(self, x):
            made, state = torch.zeros(x.shape[0], x.shape[1], 2), None
            for t in range(x.shape[0]):
                made[t], state = self.out(self.fc(x[t]), state)
            return made

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.snn = encoder(), Loop()

        def forward(self, x):
            return self.snn(self.encoder(x))

    with pytest.raises(UnsupportedError, match=f"module 'encoder' is {name}, .*: it makes the network's input; encode the data"):
        read_model(Whole(), (3,))
    assert read_model(Whole().snn, (3,)).output == "out"


def test_the_lists_hold_every_public_module_of_norse():
    public = {
        name for name in dir(norse) if inspect.isclass(getattr(norse, name)) and issubclass(getattr(norse, name), nn.Module)
    }
    assert public == set(MAPPED) | set(REFUSED)
    assert not set(MAPPED) & set(REFUSED)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "MobileNetV2" else ()) for n in MAPPED])
def test_norse_modules_are_mapped(name):
    with torch.device("meta" if name == "VGG" else "cpu"):  # without its 480 MB of weights
        model, shape, neuron = MAPPED[name]()
    if name == "VGG":
        with pytest.raises(UnsupportedError, match="the model: its forward|lies on the device 'meta' and holds no values"):
            read_model(model, shape)
        return
    graph = read_model(model, shape)
    assert isinstance(graph, SNNGraph)
    assert type(graph[graph.output].neuron) is neuron
    if name != "MobileNetV2":
        x = spikes_for(shape, steps=8) * 2
        assert simulate(graph, x, kind="current").output == pytest.approx(run_model(model, x), abs=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_norse_modules_are_refused_by_name(name):
    model, shape, reason = REFUSED[name]()
    if isinstance(model, (norse.LIFAdEx, norse.LIFEx, norse.LSNN, norse.Izhikevich)) or "Recurrent" in name:
        with pytest.raises(UnsupportedError, match=f"^the model.*{reason}|^module.*{reason}"):
            read_model(model, shape)
    with pytest.raises(UnsupportedError, match=f"^module '1' is {name}, which has no spiking counterpart here: .*{reason}"):
        read_model(State(nn.Identity(), model), shape)


TORCH = {
    "Linear": (nn.Linear(3, 2), (3,)),
    "Conv1d": (nn.Conv1d(1, 2, 3), (1, 5)),
    "Conv2d": (nn.Conv2d(1, 2, 3, bias=False), (1, 5, 5)),
    "Flatten": (nn.Flatten(), (1, 2, 2)),
    "AvgPool2d": (nn.AvgPool2d(2), (1, 4, 4)),
    "BatchNorm1d": (nn.BatchNorm1d(3), (3,)),
    "BatchNorm2d": (nn.BatchNorm2d(1, affine=False), (1, 4, 4)),
    "Dropout": (nn.Dropout(), (3,)),
    "Identity": (nn.Identity(), (3,)),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_modules_are_mapped(name):
    module, shape = TORCH[name]
    model = State(module, norse.IAFCell()).eval()
    graph = read_model(model, shape)
    x = spikes_for(shape)
    assert simulate(graph, x).output == pytest.approx(run_model(model, x))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.MaxPool2d(2), "a maximum is understood of the spikes of neurons alone, .* train with AvgPool2d"),
        (nn.AdaptiveMaxPool2d(2), "a maximum is understood of the spikes of neurons alone"),
        (nn.GroupNorm(1, 1), "it normalises by each input; train with BatchNorm2d"),
        (nn.LayerNorm([1, 4, 4]), "it normalises by each input"),
        (nn.ReLU(), "it does not spike; use a cell"),
        (nn.GRU(4, 4), "it does not spike; use LIFRecurrentCell"),
        (nn.ConvTranspose3d(1, 1, 2), "a chip has positions over one or two axes; use Conv2d"),
        (nn.ReflectionPad2d(1), "pad with zeros, over one or two axes"),
        (nn.LazyConv2d(2, 2), "its sizes are not known yet"),
        (nn.Upsample(8), "it moves values between positions; use a Conv2d, or"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_torch_modules_are_refused_by_name_and_place(module, reason):
    name = type(module).__name__
    with pytest.raises(UnsupportedError, match=f"module 'features.1' is {name}, which has no spiking counterpart here: {reason}"):
        read_model(User(lambda s, x, state: s.features(x, state), features=State(nn.Identity(), module)), (1, 4, 4))


# ------------------------------------------------------------------------------------------------------------ refusals


def small(function, **children):
    children = {"fc": nn.Linear(3, 4), "lif": box(), **children}
    return User(function, **children), (3,)


def loses(self, x, state):
    return self.lif(self.fc(x))[0]


def swaps(self, x, state):
    a, b = state or (None, None)
    z, a = self.lif(self.fc(x), a)
    z, b = self.other(z, b)
    return z, (b, a)


def makes_a_state(self, x, state):
    return self.lif(self.fc(x), norse.LIFBoxFeedForwardState(self.fc(x)) if state is None else state)


def first_step_differs(self, x, state):
    return self.lif(self.fc(self.extra(x) if state is None else x), state)


def less_later(self, x, state):
    z, s = self.lif(self.fc(x), state)
    return (self.out(z) if state is None else z), s


def returns_another_later(self, x, state):
    a = self.fc(x)
    z, s = self.lif(a, state)
    return (a if state is None else z), s


def more_later(self, x, state):
    z, s = self.lif(self.fc(x), state)
    return (z if state is None else self.out(z)), s


def reads_the_membrane(self, x, state):
    _, state = self.lif(self.fc(x), state)
    return state.v, state


def computes_with_the_membrane(self, x, state):
    z, state = self.lif(self.fc(x), state)
    return z + state.v, state


def branches(self, x, state):
    return self.lif(self.fc(x) if x.sum() > 0 else self.fc(-x), state)


def returns_three(self, x, state):
    z, state = self.lif(self.fc(x), state)
    return z, z, state


def returns_a_dictionary(self, x, state):
    z, state = self.lif(self.fc(x), state)
    return {"z": z}, state


def unpacks_with_a_star(self, x, state):
    z, state = self.lif(self.fc(x), state)
    first, *rest = z
    return first + rest[0], state


def makes_a_list(self, x, state):
    z, state = self.lif(self.fc(x), state)
    return sum(list(z)), state


def twice(self, x, state):
    a, b = state or (None, None)
    z, a = self.lif(self.fc(x), a)
    z, b = self.lif(z, b)
    return z, (a, b)


def through(function):
    return lambda self, x, state: self.lif(function(self.fc(x)), state)


class StartingAt(nn.Module):
    """A loop from a state that the forward makes, f(batch) for each part of it; leak and threshold are above 0."""

    def __init__(self, make, kind=norse.LIFBoxCell):
        super().__init__()
        self.make, self.fc = make, nn.Linear(3, 4)
        parameters, self.state = {
            norse.LIFBoxCell: (norse.LIFBoxParameters, norse.LIFBoxFeedForwardState),
            norse.LIFCell: (norse.LIFParameters, norse.LIFFeedForwardState),
            norse.LIFRecurrentCell: (norse.LIFParameters, norse.LIFState),
            norse.LICell: (norse.LIParameters, norse.LIState),
        }[kind]
        levels = {"v_leak": torch.tensor(0.25)} | ({} if kind is norse.LICell else {"v_th": torch.tensor(0.5)})
        recurrent = kind is norse.LIFRecurrentCell
        self.lif = kind(4, 4, p=parameters(**levels)) if recurrent else kind(p=parameters(**levels))

    def forward(self, x):
        state, out = self.state(*(self.make(x.shape[1]) for _ in self.state._fields)), []
        for step in x:
            z, state = self.lif(self.fc(step), state)
            out.append(z)
        return torch.stack(out)


@pytest.mark.parametrize("kind", [norse.LIFBoxCell, norse.LIFCell, norse.LIFRecurrentCell])
@pytest.mark.parametrize("make", [lambda batch: torch.zeros(batch, 4), lambda _: torch.zeros(4)])
def test_zeros_that_a_forward_makes_are_the_start_of_its_neurons(kind, make):
    torch.manual_seed(0)
    model, x = StartingAt(make, kind).eval(), (torch.rand(9, 2, 3) < 0.5).float() * 8
    graph = read_model(model, (3,))
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, expected)
    assert expected.any() and float(graph["lif"].neuron.v_init) == 0 and float(graph["lif"].neuron.v_leak) == 0.25


@pytest.mark.parametrize("sizes", [(5, 1, 4), (3, 2), (7,)])
def test_zeros_of_another_shape_are_no_start(sizes):
    named = " x ".join(map(str, sizes))
    with pytest.raises(UnsupportedError, match=f"'lif' starts from zeros of {named}, its neurons are 4; make them batch x 4"):
        read_model(StartingAt(lambda _: torch.zeros(sizes)), (3,))


def test_zeros_that_a_forward_makes_are_no_start_of_an_integrator_with_a_leak():
    with pytest.raises(UnsupportedError, match="'lif' starts from zeros, .* at its leak, here 0.25; let it start from None"):
        read_model(StartingAt(lambda batch: torch.zeros(batch, 4), norse.LICell), (3,))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (small(loses), "module 'lif' starts anew in every step; hand its state back"),
        ((nn.Sequential(nn.Linear(3, 4), box()), (3,)), "module '1' starts anew in every step"),
        ((State(nn.Sequential(nn.Linear(3, 4), box())), (3,)), "module '0.1' starts anew in every step"),
        ((State(nn.Sequential(nn.Linear(3, 4), box()), nn.Linear(4, 2)), (3,)), r"'1' gets \(output, state\) of the module"),
        (small(swaps, other=box()), "module 'lif' gets a state that is not its own of the step before"),
        (small(makes_a_state), "'lif' starts from a state that the forward makes; let it start from None, or from ze"),
        (small(first_step_differs, extra=nn.Linear(3, 3)), "module 'fc' runs in another way in the second step"),
        (small(less_later, out=nn.Linear(4, 2)), "module 'out' runs in the first step only"),
        (small(more_later, out=nn.Linear(4, 2)), "module 'out' runs in another way in the second step"),
        (small(returns_another_later), "its forward returns the output of 'fc', in the second step the output of 'lif'"),
        (small(reads_the_membrane), "its forward returns the state of a neuron, expected one output"),
        (small(computes_with_the_membrane), "the model computes with the state of a neuron by 'add'"),
        (small(branches), r"its forward cannot be traced \(TraceError.*without branches on values"),
        (small(through(torch.bernoulli)), "calls 'bernoulli', .*: it draws numbers; encode the data before the network, as"),
        (small(through(torch.rand_like)), "calls 'rand_like', .*: it draws numbers"),
        (small(through(lambda x: x.clamp(0, 1))), "calls 'clamp', .*: it is not linear; bound and encode the data before"),
        (small(unpacks_with_a_star), "its forward goes through what a module returns by a star, .*; give each value a"),
        (small(makes_a_list), "goes through what a module returns .*; give each value a name, as in `spikes, state = cell"),
        (small(returns_three), "it returns 3 values, expected one output"),
        (small(returns_a_dictionary), "its forward returns a dictionary, expected one output"),
        ((State(nn.Linear(3, 4), norse.LIFCell(), return_hidden=True), (3,)), "its forward returns 2 values"),
        (small(twice), "module 'lif' is called twice in one step"),
        ((Stateless(lambda s, x: (s.a(x), s.b(x)), a=nn.Linear(3, 4), b=nn.Linear(3, 4)), (3,)), "'b' beside its output"),
        (small(lambda s, x, state: s.lif(s.fc(3.0), state)), "module 'fc' gets the constant 3.0, expected"),
        (small(lambda s, x, state: s.lif(s.fc(x) * torch.ones(2, 4), state)), "a tensor of 2 x 4 that the forward makes or"),
        (small(through(lambda x: x + None)), "unsupported operand|the model adds the output of 'fc' and the constant None"),
        (small(lambda s, x, state: s.lif(s.fc(x) + x, state)), "the model adds 4 and 3 values; expected equal shapes"),
        (small(through(lambda x: x / 0)), "divides the output of 'fc' by the constant 0"),
        (small(through(lambda x: x * x)), "multiplies the output of 'fc' by the output of 'fc'"),
        (small(through(torch.relu)), "calls 'relu' on values that are not spikes"),
        (small(through(torch.sigmoid)), "calls 'sigmoid', which has no counterpart here: use a module that has one"),
        (small(through(lambda x: functional.max_pool1d(x, 2))), "is MaxPool1d, .*of the spikes of neurons alone"),
        (small(through(functional.dropout)), "drops values in evaluation too"),
        (small(through(lambda x: torch.add(x, x, alpha=2))), "calls 'add' with arguments that have no .* here: alpha=2; leave"),
        (small(through(lambda x: x[:, 0])), r"takes \[:, 0\] of the output of 'fc'; return all steps, channels and"),
        (small(through(lambda x: x.view(-1, 2))), "reshapes 4 values; only flattening"),
        (small(through(lambda x: x.T)), "reads '.T' of the output of 'fc'"),
        ((State(nn.Linear(3, 4), norse.LIFCell(dt=0.002), norse.LIFCell()), (3,)), "cells '1' and '2' have time steps of"),
        ((State(nn.Linear(3, 4), norse.LIFCell(), norse.LIF()), (3,)), r"'2' \(LIF\) runs over time, module '1' \(LIFCell\)"),
        ((State(nn.Linear(3, 4), norse.LIFCell()), (5, 3)), "module '0' is Linear on the last axis of 5 x 3 inputs"),
        ((State(nn.Linear(9, 4), norse.LIFCell()), (5, 3)), "module '0' takes 9 values, its input of 5 x 3 has 15; check"),
        ((norse.LIFRecurrentCell(3, 4), (5, 3)), "the model has weights on the last axis of 5 x 3 inputs"),
        ((State(nn.Conv2d(1, 2, 3), norse.LIF()), (1, 5, 5)), "'0' is Conv2d on time x batch x 1 x 5 x 5; wrap it in Lift"),
        ((State(nn.Flatten(), nn.Linear(6, 4), norse.LIF()), (2, 3)), "'0' flattens axes 1 to 3 of 4; expected all from 2 on"),
        ((State(nn.Flatten(2), nn.Linear(6, 4), norse.LIFCell()), (1, 2, 3)), "flattens axes 2 to 3 of 4; expected all from 1"),
        ((State(nn.Conv2d(1, 2, 3)), (5, 5)), "module '0' is Conv2d on 5 x 5 inputs"),
        ((State(nn.BatchNorm2d(2)), (2, 5)), "module '0' is BatchNorm2d on 2 x 5 inputs"),
        ((State(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")), (1, 5, 5)), "by 'circular'; train with padding_mode"),
        ((State(nn.Conv2d(1, 2, 2, padding="same", dilation=3)), (1, 5, 5)), "pads an even kernel of dilation 3 unevenly"),
        ((State(nn.BatchNorm1d(3, track_running_stats=False)), (3,)), "module '0' is BatchNorm1d without running statistics"),
        ((State(nn.AvgPool2d(2, padding=1, count_include_pad=False)), (1, 4, 4)), "leaves the padding out of the mean"),
        ((State(nn.AvgPool2d(2, ceil_mode=True)), (1, 5, 5)), "pools windows that reach over the border"),
        ((State(nn.AvgPool2d(2, divisor_override=3)), (1, 4, 4)), "divides by 3; expected 1 or the size of the window"),
        ((State(nn.LPPool2d(2, 2)), (1, 4, 4)), "pools by the norm 2"),
        ((State(nn.AdaptiveAvgPool2d(3)), (1, 5, 5)), "pools 5 x 5 to 3 x 3 by uneven windows"),
        ((State(norse.LConv2d(1, 2, 3), norse.LIF()), (5, 5)), "Conv2d takes 1 channels and 2 axes"),
        ((norse.Lift(norse.LConv2d(1, 2, 3)), (1, 5, 5)), "LConv2d, which runs on time x batch"),
        ((norse.Lift(State(norse.LIF())), (3,)), "'0' is LIF, which runs over time within one step; use its cell"),
        ((norse.Lift(norse.Lift(nn.Linear(3, 4))), (3,)), "is Lift, which runs over time within one step"),
        ((nn.Sequential(norse.LIF(), norse.Lift(State(box()))), (3,)), "'1' takes the state of the module before it for its own"),
        ((norse.RecurrentSequential(nn.Linear(3, 4), box()), (3,)), "the model feeds 4 outputs back to 3 inputs"),
        ((norse.RecurrentSequential(nn.Linear(3, 3), box(), output_modules=[0, 1]), (3,)), "feeds several outputs back"),
        ((State(norse.LIBoxCell(norse.LIFParameters())), (3,)), "LIBoxCell with LIFP.*takes without a check; give it LIBoxPar"),
        ((State(norse.LICell(norse.LIFParameters())), (3,)), "LICell with LIFP.*takes without a check; give it LIPar"),
        ((State(norse.LIFCell(norse.LIFParameters(method="adjoint"))), (3,)), "'0' has the method 'adjoint', with which"),
        ((State(norse.LIFCell(norse.LIFParameters(tau_mem_inv=0.0))), (3,)), "'0' has tau_mem_inv 0 1/s, expected a rate"),
        ((State(box(reset_method=lambda z, v, r, t: v)), (3,)), "resets by '<lambda>'; expected reset_value or reset_subtract"),
        ((nn.Identity(), (3,)), "the model hands its input back"),
        ((norse.LIFCell(), 3), "read_model: input shape 3, expected whole numbers"),
        ((nn.Linear(3, 4, device="meta"), (3,)), "lies on the device 'meta' and holds no values"),
        ((3, (3,)), "a model is a torch module, got int"),
    ],
)  # fmt: skip
def test_a_model_without_a_counterpart_is_refused(case, message):
    model, shape = case
    with pytest.raises((UnsupportedError, GraphError), match=message):
        read_model(model, shape)


def test_hooks_and_another_time_step_are_refused():
    model = State(nn.Linear(3, 4), norse.LIFCell(dt=0.002))
    with pytest.raises(UnsupportedError, match=r"cell '1' has a time step of 0.002 s, dt_s = 0.001 s was given"):
        read_model(model, (3,), dt_s=0.001)
    assert read_model(model, (3,), dt_s=0.002).dt_s == 0.002
    assert read_model(State(norse.IAFCell()), (3,), dt_s=0.005).dt_s == 0.005
    handle = model[0].register_forward_hook(lambda *args: None)
    with pytest.raises(UnsupportedError, match="module '0' has a forward hook"):
        read_model(model, (3,))
    handle.remove()
    model[1].register_forward_pre_hook(lambda *args: None)
    with pytest.raises(UnsupportedError, match="module '1' has a forward hook"):
        read_model(model, (3,))


def test_a_model_that_cannot_be_copied_is_refused():
    model = State(nn.Linear(3, 4), norse.LIFCell())
    model.cache = [model[0](torch.ones(1, 3))]
    with pytest.raises(UnsupportedError, match="the model cannot be copied: .*build it anew"):
        read_model(model, (3,))


def test_cells_with_another_start_or_step_are_refused():
    cell = norse.LIFCell()
    cell.state_fallback = lambda x: norse.LIFFeedForwardState(torch.ones_like(x), torch.ones_like(x))
    with pytest.raises(UnsupportedError, match="the model is LIFCell, which has no spiking counterpart"):
        read_model(cell, (3,))


def test_classes_derived_from_cells_count_as_their_base():
    class Mine(norse.LIFCell):
        pass

    assert isinstance(read_model(Mine(), (3,))["model"].neuron, CubaLIF)


def test_shapes_that_do_not_meet_are_named():
    with pytest.raises(GraphError, match="layer '2': Dense takes 5 inputs, got 4"):
        read_model(State(nn.Linear(3, 4), norse.LIFCell(), nn.Linear(5, 2)), (3,))


def test_names_are_free_and_legal():
    model = User(lambda s, x, state: s.lif(s.input(x), state), input=nn.Linear(3, 4), lif=box())
    model.input.bias = None
    assert [layer.name for layer in read_model(model, (3,)).layers] == ["lif"]
    graph = read_model(User(lambda s, x, state: s.input(x), input=nn.Linear(3, 4)), (3,))
    assert [layer.name for layer in graph.layers] == ["input_"]
    shared = nn.Linear(3, 3)
    graph = read_model(State(shared, norse.IAFCell(), shared), (3,))
    assert graph.output == "0_2"
    assert np.array_equal(graph["0_2"].synapse.weight, graph["1"].synapse.weight)


# ---------------------------------------------------------------------------------------------------------- load_model


MODULE = """
import torch
import norse.torch as norse

def build():
    return norse.SequentialState(torch.nn.Linear(3, 4), norse.LIFCell())

def with_shape():
    return build(), (3,)

def carries():
    model = build()
    model.input_shape = [3]
    return model

def number():
    return 3

def weights():
    return build().state_dict()

def of_another_model():
    model = build()
    model.load_state_dict({"0.weight": torch.ones(9, 9)})
    return model

def broken():
    raise ValueError("no weights here\\nreally")

def needs(argument):
    return build()

def odd_shape():
    return build(), (3.5,)

def convolution():
    return norse.SequentialState(torch.nn.Conv2d(1, 2, 3), norse.LIFCell())

ready = build()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spear_test_net.py").write_text(MODULE)
    (tmp_path / "spear_test_broken.py").write_text("import there_is_no_such_package\n")
    yield tmp_path
    for name in ("spear_test_net", "spear_test_broken"):
        sys.modules.pop(name, None)


def test_loads_models_from_the_current_directory(here):
    before = list(sys.path)
    for spec, shape in (("build", (3,)), ("build", None), ("with_shape", None), ("carries", None), ("ready", (3,))):
        model, loaded_shape = load_model(f"spear_test_net:{spec}", shape)
        assert loaded_shape == (None if (spec, shape) == ("build", None) else (3,))
        assert read_model(model, loaded_shape).output == "1"
    assert load_model("spear_test_net:with_shape", (4,))[1] == (4,)
    assert sys.path == before


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("spear_test_net", FileError, "expected package.module:function"),
        ("spear_test_net:", FileError, "expected package.module:function"),
        (
            "spear_test_none:build",
            FileError,
            "module 'spear_test_none': there is none here or among the installed packages; check its name, or",
        ),
        ("spear_test_net.sub:build", FileError, "module 'spear_test_net.sub'"),
        (
            "spear_test_broken:build",
            FileError,
            "module 'spear_test_broken' fails on import: ModuleNotFoundError: No module named",
        ),
        ("spear_test_net:biuld", FileError, "no such function in spear_test_net; did you mean 'build'"),
        ("spear_test_net:zzz", FileError, "no such function in spear_test_net; name one that returns the network"),
        ("spear_test_net:broken", FileError, "'spear_test_net:broken' fails: ValueError: no weights here; correct it, or"),
        ("spear_test_net:needs", FileError, "fails: TypeError: needs\\(\\) missing 1 required .*; it is called without arg"),
        (
            "spear_test_net:weights",
            UnsupportedError,
            "gives weights by name, a state_dict, expected a torch module .*; build the",
        ),
        ("spear_test_net:of_another_model", FileError, "'spear_test_net:of_another_model' fails: the weights are not those of"),
        (
            "./spear_test_net.py:build",
            FileError,
            "a module has neither path nor ending; name it as Python imports it, spear_test_",
        ),
        ("nets/my_net.py:build", FileError, "name it as Python imports it, my_net:build, in the folder 'nets'"),
        ("spear_test_net:number", UnsupportedError, "gives int, expected a torch module"),
        ("spear_test_net:odd_shape", UnsupportedError, r"input shape \(3.5,\), expected whole numbers"),
    ],
)
def test_load_model_names_the_fault(here, spec, error, message):
    with pytest.raises(error, match=message):
        load_model(spec)


def test_a_class_in_place_of_a_function_has_a_note_on_its_weights(here):
    network = "torch.nn.Linear(3, 2), norse.LIFCell()"
    made = f"\nclass Net(norse.SequentialState):\n    def __init__(self):\n        super().__init__({network})\n"
    (here / "spear_test_net.py").write_text(MODULE + made)
    (note,) = read_named("spear_test_net:Net").metadata["assumptions"]
    assert note == (
        "the model is made by calling the class Net: its weights are as initialised, unless the class loads trained ones; name a "
        "function that returns it with trained weights"
    )
    assert "assumptions" not in read_named("spear_test_net:build", (3,)).metadata


@pytest.mark.parametrize("place", ["0", "1"])
def test_nan_weights_name_the_module(place):
    model = norse.SequentialState(nn.Linear(4, 3), norse.LIFRecurrentCell(3, 3))
    (model[0].weight if place == "0" else model[1].recurrent_weights).data[0, 0] = float("nan")
    with pytest.raises(GraphError, match=f"module '{place}': Dense.weight: holds NaN"):
        read_model(model, (4,))
