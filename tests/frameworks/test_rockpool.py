"""Networks of Rockpool's torch modules: the same spikes in Rockpool and in the network read from them."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rockpool")

from rockpool.nn.combinators import FFwdStack, Residual, Sequential  # noqa: E402
from rockpool.nn.modules import ExpSynTorch, LIFBitshiftTorch, LIFNeuronTorch, LIFTorch, LinearTorch, RateTorch, aLIFTorch  # noqa: E402
from rockpool.nn.modules.torch.torch_module import TorchModule  # noqa: E402

from spear_deploy.errors import GraphError, UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import load_model, read_model  # noqa: E402
from spear_deploy.frameworks.write_back import store_weights  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.framework_runs import NETWORKS, Draw, count_differences  # noqa: E402

ONE = torch.tensor(1.0)
DT_S = 2e-3


def make_neuron(draw, size):
    kind = draw.pick(LIFTorch, LIFTorch, LIFNeuronTorch)
    options = {
        "threshold": torch.as_tensor(draw.between(0.5, 1.5, *draw.pick((), (size,)))),
        "max_spikes_per_dt": draw.pick(ONE, torch.tensor(3.0), torch.tensor(2.0**16)),
        "dt": DT_S,
    }
    if draw.chance(0.5):
        options["bias"] = torch.as_tensor(draw.between(-0.1, 0.2, *draw.pick((), (size,))))
    options["tau_mem"] = torch.as_tensor(draw.between(0.003, 0.03, *draw.pick((), (size,))))
    if kind is LIFTorch:
        options |= {"has_rec": draw.chance(0.5), "tau_syn": torch.as_tensor(draw.between(0.003, 0.03))}
        if options["has_rec"] and options["max_spikes_per_dt"] > 3:  # it runs away to numbers that float32 does not tell apart
            options["max_spikes_per_dt"] = torch.tensor(5.0)
        if draw.chance(0.3):
            options = {name: value for name, value in options.items() if not name.startswith("tau")}
            options |= {"leak_mode": "bitshifts", "dash_mem": torch.tensor(2.0), "dash_syn": torch.tensor(1.0)}
    return kind(size, **options)


def make_network(draw):
    size = first = int(draw.rng.integers(3, 10))
    parts = []
    for _ in range(int(draw.rng.integers(1, 4))):
        out = int(draw.rng.integers(2, 14))
        weight = (torch.randn(size, out) + 0.4) / size**0.5
        parts += [LinearTorch((size, out), weight=weight, has_bias=draw.chance(0.5)), make_neuron(draw, out)]
        size = out
    if draw.chance(0.3):
        parts.append(ExpSynTorch(size, dt=DT_S, tau=torch.tensor(0.01)))
    return parts, (first,)


class Net(TorchModule):
    """A network as users write it, with a forward of its own."""

    def __init__(self, parts):
        super().__init__(shape=(parts[0].size_in, parts[-1].size_out))
        for number, part in enumerate(parts):
            setattr(self, f"part{number}", part)
        self.names = [f"part{number}" for number in range(len(parts))]

    def forward(self, x):
        for name in self.names:
            x, _, _ = getattr(self, name)(x)
        return x


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_random_network_spikes_as_in_rockpool(seed):
    draw = Draw(seed)
    parts, shape = make_network(draw)
    x = draw.spikes(shape)
    given, theirs = torch.from_numpy(x).transpose(0, 1), {}
    is_own = draw.chance(0.4)
    with torch.no_grad():
        for number, part in enumerate(parts):
            given = part(given)[0]
            if not isinstance(part, LinearTorch):
                path = f"part{number}" if is_own else f"{number}_{type(part).__name__}"
                theirs[path] = given.transpose(0, 1).numpy()
    model = Net(parts) if is_own else Sequential(*parts)
    different, emitted = count_differences(model, shape, x, theirs)
    assert different == 0 and emitted > 0
    assert read_model(model, shape).dt_s == DT_S


def test_the_number_of_spikes_in_a_step_is_the_modules():
    graph = read_model(Sequential(LinearTorch((6, 5)), LIFTorch(5)), (6,))
    assert graph["1_LIFTorch"].neuron.max_spikes == 2**16 and "assumptions" not in graph.metadata


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: LIFTorch(5, noise_std=0.1), "module '1_LIFTorch' has noise_std 0.1; set it to 0"),
        (lambda: LIFTorch(5, max_spikes_per_dt=torch.arange(5.0)), r"has max_spikes_per_dt 0\.\.4; give one number"),
        (lambda: aLIFTorch(5), "is aLIFTorch, .*its threshold adapts"),
        (lambda: RateTorch(5), "is RateTorch, .*it does not spike as a neuron does"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused(module, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(Sequential(LinearTorch((6, 5)), module()), (6,))


def test_several_synapses_a_neuron_are_refused():
    with pytest.raises(UnsupportedError, match="has 2 synapses a neuron; use LIFTorch of one"):
        read_model(Sequential(LinearTorch((6, 10)), LIFTorch((10, 5))), (6,))


def test_another_input_shape_is_refused():
    with pytest.raises(UnsupportedError, match="takes 6 inputs, gets 7; check the shapes"):
        read_model(Sequential(LinearTorch((6, 5)), LIFTorch(5)), (7,))


def test_a_network_that_begins_with_linear_weights_states_its_input_shape(tmp_path, monkeypatch):
    (tmp_path / "rockpool_shape.py").write_text(
        "from rockpool.nn.combinators import Sequential\nfrom rockpool.nn.modules import LIFTorch, LinearTorch\n"
        "def build():\n    return Sequential(LinearTorch((5, 4)), LIFTorch((4, 4)))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert read_model(load_model("rockpool_shape:build")[0]).input_shape == (5,)


def test_a_residual_block_adds_its_input():
    torch.manual_seed(0)
    inner, draw = [LinearTorch((6, 6), weight=(torch.randn(6, 6) + 0.3) / 3), LIFTorch(6, dt=DT_S)], Draw(0)
    model = Sequential(LinearTorch((6, 6), weight=torch.randn(6, 6) / 3 + 0.2), LIFTorch(6, dt=DT_S), Residual(*inner))
    x = draw.spikes((6,))
    with torch.no_grad():
        spikes = model(torch.from_numpy(x).transpose(0, 1))[0].transpose(0, 1).numpy()
    graph = read_model(model)
    made = simulate(graph, x, kind="current").output
    np.testing.assert_array_equal(made, spikes)
    assert spikes.any() and graph.output == "2_TorchResidual.add"
    back = store_weights(model, graph)
    with torch.no_grad():
        np.testing.assert_array_equal(back(torch.from_numpy(x).transpose(0, 1))[0].transpose(0, 1).numpy(), spikes)


def test_synnet_is_read_as_its_layers():
    networks = pytest.importorskip("rockpool.nn.networks")
    torch.manual_seed(0)
    model, x = (
        networks.SynNet(n_channels=6, n_classes=3, size_hidden_layers=[8], time_constants_per_layer=[2]),
        Draw(0).spikes((6,)),
    )
    with torch.no_grad():
        for name, value in torch.nn.Module.named_parameters(model):
            value.copy_(value * 8 if name.endswith("weight") else value)
        spikes = model(torch.from_numpy(x).transpose(0, 1))[0].transpose(0, 1).numpy()
    graph = read_model(model)
    assert graph.input_shape == (6,) and [layer.name for layer in graph.layers] == ["seq.0_neurons", "seq.out_neurons"]
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, spikes)
    assert spikes.any() and store_weights(model, graph) is not model
    potential = networks.SynNet(n_channels=6, n_classes=3, size_hidden_layers=[8], time_constants_per_layer=[2], output="vmem")
    with pytest.raises(
        UnsupportedError, match="is SynNet, .*its output is the membrane's potential; make it with output='spikes'"
    ):
        read_model(potential, (6,))


def test_a_network_takes_home_how_many_spikes_a_neuron_sends():
    torch.manual_seed(0)
    model = Sequential(LinearTorch((6, 5)), LIFTorch(5, dt=DT_S, max_spikes_per_dt=31))
    graph = read_model(model)

    def limited(most):
        return graph.with_layers(
            lambda layer: replace(layer, neuron=replace(layer.neuron, max_spikes=most)) if layer.neuron else layer
        )

    home, x = store_weights(model, limited(2)), 20 * torch.rand(12, 2, 6)
    with torch.no_grad():
        spikes = home(x.transpose(0, 1))[0].transpose(0, 1).numpy()
    np.testing.assert_array_equal(spikes, simulate(limited(2), x.numpy(), kind="current").output)
    assert spikes.max() == 2
    with pytest.raises(UnsupportedError, match="send any number of spikes in a step, it has a limit; give max_spikes"):
        store_weights(model, limited(None))


def weights(*shape):
    return (torch.randn(*shape) + 0.3) * 2 / shape[0] ** 0.5


def make_sequence():
    return Sequential(
        LinearTorch((6, 8), weight=weights(6, 8)), LIFTorch(8), LinearTorch((8, 4), weight=weights(8, 4)), LIFTorch(4)
    )


def check_output(model, run=lambda model, x: model(x)[0], shape=(6,)):
    """Check that a network spikes as its model does, which `run` runs on (B, T, *shape); return the network."""
    x = Draw(0).spikes(shape)
    with torch.no_grad():
        spikes = run(model, torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
    graph = read_model(model, shape)
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, spikes)
    assert spikes.any()
    return graph


class Patched(torch.nn.Module):
    """Modules of torch in one of a user's own, which Rockpool's Sequential gives another class."""

    def __init__(self):
        super().__init__()
        self.a, self.drop, self.b = torch.nn.Linear(6, 7), torch.nn.Dropout(0.5), torch.nn.Linear(7, 8)

    def forward(self, x):
        return self.b(self.drop(self.a(x)))


def test_modules_of_torch_in_a_sequence_are_read():
    torch.manual_seed(0)
    model = Sequential(
        torch.nn.Linear(6, 8), LIFTorch(8, threshold=0.2), torch.nn.Dropout(0.0), torch.nn.Linear(8, 4), LIFTorch(4)
    )
    with torch.no_grad():
        model[3].weight.abs_()
    graph = check_output(model)
    x, back = torch.from_numpy(Draw(1).spikes((6,))).transpose(0, 1), store_weights(model, graph)
    with torch.no_grad():
        model.reset_state()
        np.testing.assert_array_equal(back(x)[0].numpy(), model(x)[0].numpy())
    inner = Sequential(Patched().eval(), LIFTorch(8, threshold=0.1))
    check_output(inner)
    check_output(Sequential(torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Identity()), LIFTorch(8, threshold=0.1)))


class Owner(TorchModule):
    """Modules of torch in one of a user's own, whose calls Rockpool binds to them."""

    def __init__(self):
        super().__init__(shape=(6, 8))
        self.weights, self.lif = Patched().eval(), LIFTorch(8, threshold=0.1)

    def forward(self, x):
        return self.lif(self.weights(x))[0]


@pytest.mark.parametrize(
    "make", [Owner, lambda: Owner().to_torch(), lambda: Sequential(Patched().eval(), LIFTorch(8, threshold=0.1))]
)
def test_modules_of_torch_in_the_copy_run_the_weights_they_were_given(make):
    torch.manual_seed(0)
    model = make()
    x = Draw(1).spikes((6,))
    given, before = torch.from_numpy(x).transpose(0, 1), torch.nn.Module.state_dict(model)

    def scale(layer):
        return replace(layer, synapse=replace(layer.synapse, weight=3 * layer.synapse.weight)) if layer.synapse else layer

    graph = read_model(model, (6,)).with_layers(scale)
    back = store_weights(store_weights(model, graph), graph)
    made = back(given)
    spikes = made[0] if isinstance(made, tuple) else made
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, spikes.detach().transpose(0, 1).numpy())
    spikes.sum().backward()
    assert all(value.grad is not None for name, value in torch.nn.Module.named_parameters(back) if "weight" in name)
    assert all(value.grad is None for value in torch.nn.Module.parameters(model))
    assert torch.nn.Module.state_dict(model).keys() == before.keys()


class Wrapper(torch.nn.Module):
    """A sequence in a module of torch, as Lightning has it."""

    def __init__(self, answer=lambda out, state, records: out):
        super().__init__()
        self.net, self.answer = make_sequence(), answer

    def forward(self, x):
        self.net = self.net.reset_state()
        return self.answer(*self.net(x, record=True))


def test_a_sequence_in_a_module_of_torch_returns_states_and_records():
    torch.manual_seed(0)
    check_output(Wrapper(), run=lambda model, x: model(x))
    check_output(Wrapper(lambda out, state, records: (out, records)))
    hidden = check_output(Wrapper(lambda out, state, records: records["1_LIFTorch_output"]), run=lambda model, x: model(x))
    assert hidden.output == "net.1_LIFTorch"
    message = r"reads '1_LIFTorch' of the states or records of a Sequential, .*\(0_LinearTorch_output, 1_.*; return the output"
    with pytest.raises(UnsupportedError, match=message):
        read_model(Wrapper(lambda out, state, records: records["1_LIFTorch"]["vmem"]), (6,))


class Block(TorchModule):
    def __init__(self, inputs, outputs):
        super().__init__(shape=(inputs, outputs))
        self.fc, self.lif = LinearTorch((inputs, outputs), weight=weights(inputs, outputs)), LIFTorch(outputs)

    def forward(self, x):
        self.lif.reset_state()
        x, _, _ = self.fc(x)
        x, _, _ = self.lif(x)
        return x


class Blocks(TorchModule):
    def __init__(self):
        super().__init__(shape=(6, 4))
        self.one, self.two = Block(6, 8), Block(8, 4)

    def forward(self, x):
        x, _, _ = self.one(x, record=True)
        return self.two(x)[0]


def test_modules_of_ones_own_within_others_return_states_and_records():
    torch.manual_seed(0)
    assert [layer.name for layer in check_output(Blocks()).layers] == ["one.lif", "two.lif"]


class OwnLIF(LIFTorch):
    pass


def test_a_class_derived_from_a_neuron_and_neurons_without_leak_are_read():
    torch.manual_seed(0)
    options = {"tau_mem": torch.tensor(float("inf")), "tau_syn": torch.tensor(5e-3), "bias": torch.tensor(0.05)}
    check_output(Sequential(LinearTorch((6, 8), weight=weights(6, 8)), OwnLIF(8, **options)))
    shifted = Sequential(LinearTorch((6, 8), weight=weights(6, 8)), LIFBitshiftTorch(8, tau_mem=torch.rand(8) / 20 + 0.004))
    assert store_weights(shifted, check_output(shifted)) is not shifted
    neurons = LIFNeuronTorch(8, tau_mem=torch.tensor(float("inf")))
    check_output(Sequential(LinearTorch((6, 8), weight=weights(6, 8)), neurons))


class Above(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, threshold=1.0, window=0.5, most=1.0):
        return (v > 1.3 * threshold).float()


class HalfLIF(LIFTorch):
    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            lambda: LIFTorch(5, spike_generation_fn=Above),
            "has spike_generation_fn=Above, expected StepPWL or PeriodicExponential",
        ),
        (lambda: LIFNeuronTorch(5, spike_generation_fn=Above), "has spike_generation_fn=Above, expected StepPWL or Periodic"),
        (lambda: LIFTorch(5, max_spikes_per_dt=2.5), r"has max_spikes_per_dt 2\.5; give a whole number of at least 1"),
        (lambda: LIFTorch(5).half().float(), "has max_spikes_per_dt inf, which half.* makes of the default .*; set it to a"),
        (lambda: LIFTorch(5, noise_std=torch.tensor([0.0, 0.2, 0.0, 0.1, 0.0])), r"has noise_std 0\.2; set it to 0"),
        (lambda: LIFTorch(5, threshold=-torch.ones(())), "module '1_LIFTorch': CubaLIF.v_threshold: -1 given"),
        (lambda: HalfLIF(5), "module '1_HalfLIF' is HalfLIF, which has no spiking counterpart here"),
    ],
)
def test_other_spikes_than_rockpools_are_refused(module, message):
    with pytest.raises((UnsupportedError, GraphError), match=message):
        read_model(Sequential(LinearTorch((6, 5)), module()), (6,))


def test_neurons_that_are_called_twice_are_refused():
    """Their state goes on into the second call; `named_children` lists them once."""
    neurons, linear = LIFTorch(6), LinearTorch((6, 6), weight=weights(6, 6))
    with pytest.raises(UnsupportedError, match="module '3_LIFTorch' is called twice in one step; use two modules"):
        read_model(Sequential(LinearTorch((6, 6)), neurons, linear, neurons), (6,))
    torch.manual_seed(0)
    assert len(check_output(Sequential(linear, LIFTorch(6), linear, LIFTorch(6))).layers) == 2


def test_modules_that_change_parameters_as_they_run_are_refused():
    transform = pytest.importorskip("rockpool.transform.torch_transform")
    model = make_sequence()
    changed = transform.make_param_T_network(model, transform.make_param_T_config(model, lambda p: p.round(), "weights"))
    with pytest.raises(UnsupportedError, match=r"'0_LinearTorch' is TWrapper, .*; give remove_T_net\(apply_T\(net\)\) of rock"):
        read_model(changed, (6,))


class Halved(torch.nn.Sequential):
    def forward(self, x):
        return super().forward(x) / 2


def test_a_class_of_ones_own_derived_from_torchs_sequential_is_traced():
    torch.manual_seed(0)
    check_output(Sequential(Halved(torch.nn.Linear(6, 8)), LIFTorch(8, threshold=0.1)))


class HalfEvolve:
    def evolve(self, x, record=False):
        out, state, records = super().evolve(x, record)
        return out / 2, state, records


class EvolvedLIF(HalfEvolve, LIFTorch):
    pass


class EvolvedBlock(HalfEvolve, Block):
    pass


class EvolvedSequence(HalfEvolve, type(Sequential(LinearTorch((6, 5))))):
    pass


def with_hook(module):
    module.register_forward_hook(lambda module, given, out: out / 2)
    return module


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential(LinearTorch((6, 5)), EvolvedLIF(5)), "module '1_EvolvedLIF' is EvolvedLIF, which has no spiking"),
        (
            lambda: Sequential(EvolvedBlock(6, 5)),
            "module '0_EvolvedBlock' is EvolvedBlock with its own evolve, which",
        ),
        (
            lambda: EvolvedSequence(LinearTorch((6, 5)), LIFTorch(5)),
            "the model is EvolvedSequence with its own evolve, ",
        ),
        (lambda: Sequential(LinearTorch((6, 5)), with_hook(LIFTorch(5))), "module '1_LIFTorch' has a forward hook, which may"),
    ],
)
def test_what_changes_outputs_beside_the_forward_is_refused(make, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(make(), (6,))


@pytest.mark.parametrize("read", [lambda records: records.get("1_LIFTorch"), lambda records: "1_LIFTorch" in records])
def test_records_that_are_not_read_do_not_count_as_missing(read):
    def answer(out, state, records):
        return out / 2 if read(records) else out

    with pytest.raises(UnsupportedError, match="reads '1_LIFTorch' of the states or records of a Sequential"):
        read_model(Wrapper(answer), (6,))


def test_a_state_of_an_earlier_run_has_a_note():
    model = Sequential(LinearTorch((6, 5)), LIFTorch(5))
    model(torch.ones(2, 3, 6))
    note = "module '1_LIFTorch': holds a state of an earlier run: the network starts without, as after net.reset_state()"
    assert read_model(model, (6,)).metadata["assumptions"] == [note]
    model.reset_state()
    assert "assumptions" not in read_model(model, (6,)).metadata


class Choosing(TorchModule):
    """A forward that doubles what the linear layers give, by a test `is_linear`."""

    def __init__(self, is_linear):
        super().__init__()
        self.is_linear, self.linear = is_linear, LinearTorch((6, 5), weight=torch.ones(6, 5) / 4)
        self.neurons = LIFTorch(5, dt=DT_S, tau_mem=0.01, tau_syn=0.005, threshold=0.9)

    def forward(self, x):
        for module in (self.linear, self.neurons):
            made, _, _ = module(x)
            x = made * 2 if self.is_linear(module) else made
        return x


@pytest.mark.parametrize(
    "is_linear",
    [lambda m: isinstance(m, LinearTorch), lambda m: not isinstance(m, LIFTorch), lambda m: m.__class__ is LinearTorch],
)
def test_a_forward_that_asks_for_the_class_of_a_module_runs_as_in_rockpool(is_linear):
    model, x = Choosing(is_linear), (torch.rand(9, 3, 6) < 0.5).float()
    with torch.no_grad():
        expected = model(x.transpose(0, 1))[0].transpose(0, 1).numpy()
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.numpy(), kind="current").output, expected)
    assert expected.any()


@pytest.mark.parametrize("combine", [Sequential, Residual], ids=("Sequential", "Residual"))
def test_a_forward_that_asks_for_a_sequential_runs_as_in_rockpool(combine):
    kind = type(combine(LinearTorch((6, 6))))
    model, x = Choosing(lambda module: isinstance(module, kind) and module.__class__ is kind), torch.rand(9, 3, 6)
    model.linear = combine(LinearTorch((6, 6), weight=torch.ones(6, 6) / 12), LIFTorch(6, dt=DT_S, threshold=0.3))
    model.neurons = LIFTorch(6, dt=DT_S, tau_mem=0.01, tau_syn=0.005, threshold=3.0)
    with torch.no_grad():
        expected = model(x.transpose(0, 1))[0].transpose(0, 1).numpy()
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.numpy(), kind="current").output, expected)
    assert expected.any()


class ChoosingByType(Choosing):
    def forward(self, x):
        made, _, _ = self.linear(x)
        return self.neurons(made * 2 if type(self.linear) is LinearTorch else made)[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Choosing(lambda module: hasattr(module, "weight")),
            "reads 'weight' of a LinearTorch, which is not read; call the module",
        ),
        (Choosing(lambda module: module.size_in), "the forward reads 'size_in' of a LinearTorch, which is not read"),
        (ChoosingByType(None), r"the model calls type\(\) in its forward, which is not read; use isinstance\(\)"),
    ],
)
def test_what_a_forward_reads_of_a_module_is_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (6,))


class OwnEvolve(TorchModule):
    """Layers whose evolve stands in place of a forward."""

    def __init__(self):
        super().__init__(shape=(6, 5))
        self.fc, self.lif = LinearTorch((6, 5)), LIFTorch(5)

    def evolve(self, x, record=False):
        return self.lif(self.fc(x)[0])[0], {}, {}


class GoesThroughRecords(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.kept = LinearTorch((6, 5)), LIFTorch(5), {}

    def forward(self, x):
        out, _, records = self.lif(self.fc(x)[0], record=True)
        for name, value in records.items():
            self.kept[name] = value
        return out


class TakesRecord(GoesThroughRecords):
    def forward(self, x):
        out, *rest = self.lif(self.fc(x)[0], record=True)
        self.kept["vmem"] = rest[1]["vmem"]
        return out


def test_own_evolves_stacks_and_loops_over_records_are_refused_by_their_cause():
    stack = FFwdStack(LIFTorch(6), LIFTorch(5))
    for model, message in (
        (OwnEvolve(), "the model is OwnEvolve with its own evolve, which is not read"),
        (
            GoesThroughRecords(),
            r"by a star, list\(\) or a loop, which cannot be traced; .* or take parts by name, as in record.'vmem'.",
        ),
        (stack, "is TorchFFwdStack, .*: it makes weights between its modules; use Sequential, with LinearTorch between them"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            read_model(model, (6,))
    assert [layer.name for layer in read_model(TakesRecord(), (6,)).layers] == ["lif"]


class Sets(TorchModule):
    """A forward that does something with its neurons before it calls them."""

    def __init__(self, before, call=lambda module, x: module(x)[0]):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = LinearTorch((6, 5)), LIFTorch(5, tau_mem=0.01, tau_syn=0.005, dt=1e-3, threshold=ONE / 2)
        self.before, self.call = before, call
        with torch.no_grad():
            self.fc.weight.uniform_(-0.3, 1)

    def forward(self, x):
        self.before(self.lif)
        return self.call(self.lif, self.fc(x)[0])


SETTINGS = {
    "vmem": torch.full((5,), 0.4),
    "isyn": torch.full((5, 1), 0.4),
    "threshold": torch.tensor(0.3),
    "tau_mem": torch.tensor(0.02),
    "w_rec": torch.eye(5),
    "noise_std": torch.tensor(0.1),
    "dt": 2e-3,
}


@pytest.mark.parametrize(("name", "value"), SETTINGS.items(), ids=SETTINGS)
def test_what_a_forward_sets_of_its_neurons_is_refused(name, value):
    """The network had what they were made with."""
    model = Sets(lambda lif: setattr(lif, name, value))
    with pytest.raises(UnsupportedError, match=f"the forward sets '{name}' of a LIFTorch, which is not read; (set|let) it"):
        read_model(model, (6,))


@pytest.mark.parametrize("before", [lambda lif: setattr(lif, "vmem", torch.zeros(5)), lambda lif: lif.reset_state()])
def test_a_forward_that_starts_its_neurons_anew_is_read(before):
    model, x = Sets(before), (torch.rand(2, 40, 6) < 0.3).float()
    with torch.no_grad():
        expected = model(x)[0].transpose(0, 1).numpy()
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.transpose(0, 1).numpy()).output, expected)
    assert expected.any()


def test_a_forward_of_a_module_that_a_forward_runs_by_itself_is_refused():
    model = Sets(lambda lif: None, lambda module, x: module.forward(x))
    with pytest.raises(UnsupportedError, match="the forward runs 'forward' of a LIFTorch by itself; call the module, x, _, _ ="):
        read_model(model, (6,))


def test_a_state_that_a_forward_reshapes_is_refused_as_one():
    model = Sets(lambda lif: None, lambda module, x: module(x)[1]["vmem"].unsqueeze(1))
    with pytest.raises(UnsupportedError, match="the model computes with the state of a neuron by 'unsqueeze'; hand states on"):
        read_model(model, (6,))
