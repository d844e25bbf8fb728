"""The network that is read, held to a run of the model: any difference but rounding is refused, and the model stays as it is."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import norse.torch as norse  # noqa: E402
from torch import nn  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.importer.import_model import trace_layers  # noqa: E402
from spear_deploy.frameworks.importer.run_comparison import TIE, compare_with_run  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.frameworks.norse import NORSE  # noqa: E402
from spear_deploy.network import Conv2d, Dense  # noqa: E402

snn = pytest.importorskip("snntorch")

PARAMETERS = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.1))


class Net(nn.Module):
    """A convolution and three linear layers, of which one runs twice."""

    def __init__(self, over_time=False):
        super().__init__()
        torch.manual_seed(0)
        self.over_time = over_time
        self.conv, self.fc, self.out = nn.Conv2d(1, 3, 3), nn.Linear(48, 20), nn.Linear(20, 5)
        kind, readout = (norse.LIF, norse.LI) if over_time else (norse.LIFCell, norse.LICell)
        self.lif, self.lif2, self.lif3, self.li = kind(PARAMETERS), kind(PARAMETERS), kind(PARAMETERS), readout()
        self.mix = nn.Linear(20, 20)
        for layer in (self.conv, self.fc, self.mix, self.out):
            nn.init.uniform_(layer.weight, -0.3, 0.6)

    def forward(self, x, state=None):
        first, second, third, last = (None,) * 4 if state is None else state
        if self.over_time:
            z = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))[0]
            return self.li(self.out(self.lif3(self.mix(self.lif2(self.mix(self.fc(z.flatten(2))))[0]))[0]))[0]
        z, first = self.lif(self.conv(x), first)
        z, second = self.lif2(self.mix(self.fc(z.flatten(1))), second)
        z, third = self.lif3(self.mix(z), third)
        y, last = self.li(self.out(z), last)
        return y, (first, second, third, last)


def change(graph, kind, name, **values):
    """Return a network with other values of one layer's synapse or neuron."""
    return graph.with_layers(
        lambda one: replace(one, **{kind: replace(getattr(one, kind), **values)}) if one.name == name else one
    )


def swap(weight):
    """Return weights with two outputs exchanged."""
    order = np.arange(len(weight))
    order[:2] = 1, 0
    return weight[order]


CHANGES = {
    "a weight": lambda g: change(g, "synapse", "out", weight=g["out"].synapse.weight + np.eye(5, 20, dtype=np.float32) * 0.05),
    "a kernel": lambda g: change(g, "synapse", "conv", weight=g["conv"].synapse.weight[..., ::-1].copy()),
    "two channels exchanged": lambda g: change(g, "synapse", "conv", weight=swap(g["conv"].synapse.weight)),
    "a bias": lambda g: change(g, "synapse", "fc", bias=g["fc"].synapse.bias * 1.1),
    "a threshold": lambda g: change(g, "neuron", "lif", v_threshold=g["lif"].neuron.v_threshold * 1.05),
    "the second run of a module": lambda g: change(g, "synapse", "mix_2", weight=g["mix_2"].synapse.weight * 1.05),
    "a time constant": lambda g: change(g, "neuron", "lif", tau_mem_s=g["lif"].neuron.tau_mem_s * 1.05),
    "a reset": lambda g: change(g, "neuron", "lif", reset="subtract"),
    "a time constant of the readout": lambda g: change(g, "neuron", "li", tau_mem_s=g["li"].neuron.tau_mem_s * 1.05),
    "a delay": lambda g: replace(g, edges=tuple(replace(e, delay=1) if e.source == "lif" else e for e in g.edges)),
    "another output": lambda g: replace(g, output="out", layers=g.layers[:-1], edges=g.edges[:-1]),
}  # fmt: skip


@pytest.mark.parametrize("over_time", [False, True])
def test_a_network_that_is_another_in_anything_is_refused(over_time):
    model = Net(over_time).eval()
    graph, builder = trace_layers(model, (1, 6, 6), framework=NORSE)
    assert [layer.name for layer in graph.layers if layer.neuron] == ["lif", "lif2", "lif3", "li"]
    assert compare_with_run(model, graph, builder, (1, 6, 6), NORSE) == ""
    for name, make in CHANGES.items():
        if over_time and name == "a delay":
            continue
        with pytest.raises(UnsupportedError, match="run on random input, .*; let every step compute the same"):
            compare_with_run(model, make(graph), builder, (1, 6, 6), NORSE)
            pytest.fail(f"{name} was not noticed")


def test_a_threshold_within_rounding_is_no_difference():
    model = Net().eval()
    graph, builder = trace_layers(model, (1, 6, 6), framework=NORSE)
    for factor in (1 - TIE / 3, 1 + TIE / 3):
        near = change(graph, "neuron", "lif", v_threshold=np.float32(graph["lif"].neuron.v_threshold * factor))
        assert compare_with_run(model, near, builder, (1, 6, 6), NORSE) == ""


def one_step(s, x, state=None):
    state = (None, None) if state is None else state
    z, first = s.lif(s.fc(x), state[0])
    z, second = s.last(s.out(z), state[1])
    return z, (first, second)


def loop(s, x):
    outputs, state = [], None
    for step in x:
        z, state = one_step(s, step, state)
        outputs.append(z)
    return torch.stack(outputs)


def over_time(s, x):
    return s.lasts(s.out(s.lifs(s.fc(x))[0]))[0]


def halved_in_place(s, x):
    x *= 0.5
    return loop(s, x)


FORWARDS = {
    "one step": one_step,
    "loop": loop,
    "batch in front": lambda s, x: loop(s, x.transpose(0, 1)).transpose(0, 1),
    "one input for all steps": lambda s, x: loop(s, [x] * 7),
    "the last step": lambda s, x: loop(s, x)[-1],
    "over time": over_time,
    "over time, batch in front": lambda s, x: over_time(s, x.permute(1, 0, 2)),
    "over time, one input for all steps": lambda s, x: over_time(s, x.unsqueeze(0).repeat(7, 1, 1)),
    "over time, the mean": lambda s, x: over_time(s, x).mean(0),
    "an input that changes in place": halved_in_place,
    "certain numbers of steps": lambda s, x: loop(s, [x[t] for t in range(40)]),
}


class Runs(nn.Module):
    """Has one of these forwards."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.is_over_time = name.startswith("over time")
        kind = norse.LIF if self.is_over_time else norse.LIFCell
        first, second = ("lifs", "lasts") if self.is_over_time else ("lif", "last")
        setattr(self, first, kind(PARAMETERS))
        setattr(self, second, kind(PARAMETERS))
        type(self).forward = FORWARDS[name]
        for layer in (self.fc, self.out):
            nn.init.uniform_(layer.weight, -0.3, 0.6)


@pytest.mark.parametrize("name", FORWARDS)
def test_every_form_of_a_forward_is_compared(name):
    model = type("Runs", (Runs,), {})(name).eval()
    graph, builder = trace_layers(model, (6,), framework=NORSE)
    assert compare_with_run(model, graph, builder, (6,), NORSE) == ""
    other = change(graph, "synapse", "out", weight=graph["out"].synapse.weight * np.float32(1.1))
    with pytest.raises(UnsupportedError, match="module 'out': run on random input, its outputs of step"):
        compare_with_run(model, other, builder, (6,), NORSE)


class Branches(nn.Module):
    """Looks at values in a way that no trace sees; `look` returns a number of a state."""

    def __init__(self, look):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.look = nn.Linear(6, 8), snn.Leaky(beta=0.9, init_hidden=True), look
        self.out, self.last = nn.Linear(8, 3), snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        z = self.lif(self.fc(x))
        return self.last(self.out(-z if self.look(self.lif.mem) > 0.1 else z))


@pytest.mark.parametrize(
    "look", [lambda mem: float(mem.abs().mean()), lambda mem: mem.abs().mean().numpy()], ids=["float", "numpy"]
)
def test_a_branch_by_values_is_refused(look):
    with pytest.raises(UnsupportedError, match="module 'out': run on random input, its outputs of step .* by values; let every"):
        read_model(Branches(look), (6,))
    assert read_model(Branches(lambda mem: 0), (6,)).layers


class Stops(nn.Module):
    """Runs in a trace alone."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 8), snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        if not torch.is_grad_enabled():
            raise ValueError("the sensor is not there")
        return self.lif(self.fc(x))


def test_a_model_that_does_not_run_is_read_with_a_note():
    notes = read_model(Stops(), (6,)).metadata["assumptions"]
    assert notes == ["the model was not run beside the network: ValueError: the sensor is not there"]


def test_a_state_that_cannot_be_cleared_costs_no_answer():
    model = Branches(lambda mem: 0)
    model.lif._init_mem = None  # what clears it is gone
    notes = read_model(model, (6,)).metadata["assumptions"]
    assert notes == ["the model was not run beside the network: TypeError: 'NoneType' object is not callable"]


def test_a_model_in_half_precision_is_not_compared():
    assert not any("run beside" in note for note in read_model(Net().half(), (1, 6, 6)).metadata["assumptions"])


class Parts(nn.Module):
    """Has numbers of steps and samples in its forward."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.lif, self.fc, self.last = (
            nn.Conv2d(1, 2, 3),
            norse.LIF(PARAMETERS),
            nn.Linear(32, 4),
            norse.LIF(PARAMETERS),
        )

    def forward(self, x):
        z = self.lif(self.conv(x.reshape(-1, 1, 6, 6)).view(17, 3, 2, 4, 4))[0]
        return self.last(self.fc(z.flatten(2)))[0]


def test_a_model_of_certain_numbers_of_steps_and_samples_runs_on_these():
    assert "assumptions" not in read_model(Parts(), (1, 6, 6)).metadata


def test_the_model_and_the_random_numbers_stay_as_they_are():
    model = Branches(lambda mem: 0)
    model(torch.rand(3, 6))
    state, before = torch.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
    kept, hooks = model.lif.mem, model.lif._forward_hooks
    read_model(model, (6,))
    assert torch.equal(torch.get_rng_state(), state) and model.lif.mem is kept and not hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_kinds_of_layers_are_as_the_changes_need():
    graph = trace_layers(Net().eval(), (1, 6, 6), framework=NORSE)[0]
    assert isinstance(graph["conv"].synapse, Conv2d) and isinstance(graph["out"].synapse, Dense)


def test_a_threshold_of_zero_has_ties_too():
    model = Net().eval()
    with torch.no_grad():
        model.lif.p = model.lif.p._replace(v_th=torch.zeros(()))
    graph, builder = trace_layers(model, (1, 6, 6), framework=NORSE)
    assert not graph["lif"].neuron.v_threshold.any()
    near = change(graph, "neuron", "lif", v_threshold=np.float32(1e-6))
    assert compare_with_run(model, near, builder, (1, 6, 6), NORSE) == ""
    with pytest.raises(UnsupportedError, match="module 'lif': run on random input"):
        compare_with_run(model, change(graph, "neuron", "lif", v_threshold=np.float32(0.05)), builder, (1, 6, 6), NORSE)
