"""Calculations of a forward: with its parameters, with numbers, and with spikes of two layers."""

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.frameworks.models import read_model
from spear_deploy.frameworks.write_back import store_weights
from spear_deploy.network import LIF
from spear_deploy.simulator import simulate

torch.set_num_threads(1)


class Cell(nn.Module):
    """Two layers of neurons: `between` makes the second's current of the model, the first's spikes and the input."""

    def __init__(self, between, shape=(6,), out=(5,)):
        super().__init__()
        torch.manual_seed(0)
        self.w, self.v, self.bias = (nn.Parameter(torch.randn(*size)) for size in ((5, 6), (6, 5), (5,)))
        self.kernel, self.gain = nn.Parameter(torch.randn(3, 2, 3)), nn.Parameter(torch.rand(5) + 0.5)
        self.kernel2, self.channel = nn.Parameter(torch.randn(2, 1, 3, 3)), nn.Parameter(torch.rand(2, 1, 1) + 1)
        self.register_buffer("mask", (torch.rand(5, 6) < 0.7).float())
        self.fc, self.fc2, self.other = nn.Linear(6, 6), nn.Linear(6, 5), nn.Linear(6, 6)
        self.first, self.second, self.third = (norse.LIFBoxCell() for _ in range(3))
        self.between, self.shape = between, shape

    def forward(self, x, state=None):
        a, b, c = state or (None, None, None)
        if self.shape == (6,):
            x, a = self.first(self.fc(x), a)
        self.kept = c
        z, b = self.second(self.between(self, x), b)
        return z, (a, b, self.kept)


def run(model, shape, scale=40.0):
    x = torch.from_numpy((np.random.default_rng(0).random((14, 3, *shape)) * scale).astype(np.float32))
    state, out = None, []
    with torch.no_grad():
        for step in x:
            z, state = model(step, state)
            out.append(z.numpy())
    return x.numpy(), np.stack(out)


PARAMETERS = [
    Cell(lambda s, z: functional.linear(z, s.w) * 9),
    Cell(lambda s, z: functional.linear(z, s.w, bias=s.bias) * 9),
    Cell(lambda s, z: functional.linear(z, s.w * s.mask, s.bias) * 9),
    Cell(lambda s, z: z @ s.w.t() * 9),
    Cell(lambda s, z: torch.matmul(z, s.v) * 9),
    Cell(lambda s, z: torch.mm(z, functional.softmax(s.v, 0)) * 9),
    Cell(lambda s, z: s.fc2(z) * s.gain * 9 + s.bias),
    Cell(lambda s, z: s.bias - s.fc2(z) / s.gain * 9),
    Cell(lambda s, z: s.fc2(z) * torch.sigmoid(s.gain)[None] * 9),
    Cell(lambda s, z: 3 * s.fc2(z) + 0.75),
    Cell(lambda s, z: 2 - 5 * s.fc2(z)),
    Cell(lambda s, z: functional.conv1d(z.mean(2), s.kernel, padding=1, stride=2), shape=(2, 6, 3)),
    Cell(lambda s, z: functional.conv2d(z, s.kernel2, None, 1, "same", groups=2) * s.channel, shape=(2, 4, 4)),
]


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameters_in_a_forward_are_weights(model):
    x, expected = run(model, model.shape)
    graph = read_model(model, model.shape)
    ours = simulate(graph, x, kind="current").output
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(ours.reshape(expected.shape), expected)
    home = store_weights(model, graph)
    np.testing.assert_array_equal(run(home, model.shape)[1], expected)


def both(s, z):
    y, s.kept = s.third(s.other(z) * 9, s.kept)
    return 20 * s.fc2(z * y)


def one_alone(s, z):
    y, s.kept = s.third(s.other(z) * 9, s.kept)
    return 20 * s.fc2(y * (1.0 - z))


def complement(s, z):
    return 9 * s.fc2(1 - z)


@pytest.mark.parametrize(("between", "gates"), [(both, 1), (one_alone, 1), (complement, 0)])
def test_products_of_spikes_are_neurons_that_keep_nothing(between, gates):
    model = Cell(between)
    x, expected = run(model, (6,))
    graph = read_model(model, (6,))
    found = [layer.neuron for layer in graph.layers if isinstance(layer.neuron, LIF) and (layer.neuron.tau_s == graph.dt_s).all()]
    assert len(found) == gates and 0 < expected.mean() < 1
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda s, z: s.fc2(z) * s.fc2(z), "multiplies the output of 'fc2' by the output of 'fc2.*'; expected a number"),
        (lambda s, z: s.fc2(z) * torch.rand_like(s.gain), "calls 'rand_like' on the tensor 'gain', which changes it or draws"),
        (lambda s, z: s.fc2(z) * s.gain.mul_(0.5), "calls 'mul_' on the tensor 'gain', which changes it or draws numbers"),
        (lambda s, z: s.fc2(z) * (s.gain @ s.w @ s.w), "calls 'matmul' on the tensor 'gain', which fails"),
        (lambda s, z: s.fc2(z) * s.w[:3, :5], "with the tensor 'w' of 3 x 5 values on a signal of 5; give it no axis for"),
        (lambda s, z: torch.matmul(s.w, z), "multiplies the tensor 'w' and the output of 'first'; expected a signal and a"),
        (lambda s, z: functional.linear(z, z), "calls 'linear' with the output of 'first' as weights; expected a parameter"),
        (lambda s, z: s.fc2(z) / 0, "divides the output of 'fc2' by the constant 0; expected a number that is not 0"),
        (lambda s, z: s.fc2(z) + "a", "adds the output of 'fc2' and the constant 'a'; expected the outputs of two modules"),
        (lambda s, z: s.fc2(s.w), "module 'fc2' gets the tensor 'w', expected the output of a module"),
    ],
)  # fmt: skip
def test_other_calculations_are_refused(between, message):
    with pytest.raises((UnsupportedError, GraphError), match=message):
        read_model(Cell(between), (6,))


class Shaped(nn.Module):
    """A loop over time whose forward gives its input another shape."""

    def __init__(self, shape, conv, width):
        super().__init__()
        torch.manual_seed(0)
        self.shaped, self.conv, self.lif, self.fc = shape, conv, norse.LIFBoxCell(), nn.Linear(width, 3)

    def forward(self, x):
        state, out = None, []
        for step in x:
            z, state = self.lif(self.conv(self.shaped(step)), state)
            out.append(self.fc(z.flatten(1)).unsqueeze(0))
        return torch.cat(out, dim=0)


@pytest.mark.parametrize(
    ("shape", "given", "taken"),
    [
        (lambda x: x.view(-1, 1, 4, 5), (20,), (1, 4, 5)), (lambda x: x.reshape(x.shape[0], 1, 4, -1), (20,), (1, 4, 5)),
        (lambda x: x.unsqueeze(1), (4, 5), (1, 4, 5)), (lambda x: x.view(x.size(0), 1, 4, 5), (1, 4, 5), (1, 4, 5)),
    ],
)  # fmt: skip
def test_the_shape_that_a_forward_gives_its_input_is_that_of_the_network(shape, given, taken):
    model = Shaped(shape, nn.Conv2d(1, 2, 3), 12)
    x = torch.rand(9, 2, *given) * 30
    with torch.no_grad():
        expected = model(x).numpy()
    graph = read_model(model, given)
    assert graph.input_shape == taken and np.ptp(expected) > 0.1
    notes = graph.metadata.get("assumptions", [])
    assert notes == ([] if given == taken else [
        f"the forward gives its input of {' x '.join(map(str, given))} another shape: the network takes 1 x 4 x 5"
    ])  # fmt: skip
    ours = simulate(graph, x.numpy().reshape(9, 2, *taken), kind="current").output
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_array_equal(store_weights(model, graph)(x).numpy(), expected)


def test_an_unflatten_in_front_is_the_shape_of_the_input():
    model = norse.SequentialState(nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 2, 3), norse.LIFBoxCell())
    assert read_model(model, (20,)).input_shape == (1, 4, 5)
    with pytest.raises(UnsupportedError, match="module '0' is Unflatten, which fails on 21 inputs"):
        read_model(model, (21,))
    behind = norse.SequentialState(nn.Linear(6, 20), nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 2, 3))
    with pytest.raises(UnsupportedError, match="module '1' is Unflatten, .*give the network its input in that shape"):
        read_model(behind, (6,))


def test_an_input_of_two_shapes_is_refused():
    model = Shaped(lambda x: x.view(-1, 1, 4, 5), nn.Conv2d(1, 2, 3), 12)
    model.shaped = lambda x: x.view(-1, 1, 4, 5) + x.view(-1, 1, 5, 4).view(-1, 1, 4, 5)
    with pytest.raises(UnsupportedError, match="takes its input as 1 x 5 x 4 and as 1 x 4 x 5 values; give it one shape"):
        read_model(model, (20,))


@pytest.mark.parametrize(
    "vote",
    [
        lambda z: z.view(z.shape[0], 2, 3).sum(-1), lambda z: z.view(-1, 2, 3).mean(2), lambda z: z.reshape(-1, 3, 2).sum(1),
        lambda z: z.view(z.size(0), -1, 3).sum(dim=2),
    ],
)  # fmt: skip
def test_votes_of_groups_of_neurons_are_weights_of_one(vote):
    class Votes(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.lif = nn.Linear(6, 6), norse.LIFBoxCell()

        def forward(self, x, state=None):
            z, state = self.lif(self.fc(x), state)
            return vote(z), state

    model = Votes()
    x, expected = run(model, (6,))
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(simulate(read_model(model, (6,)), x, kind="current").output, expected, rtol=1e-6)


def test_another_use_of_groups_is_refused():
    with pytest.raises(UnsupportedError, match="calls 'amax', which has no counterpart here"):
        read_model(Cell(lambda s, z: s.fc2(z.view(-1, 2, 3).amax(2))), (6,))
    model = Cell(lambda s, z: s.fc2(z.view(-1, 2, 3).sum(0)))
    with pytest.raises(UnsupportedError, match="calls 'sum' along axis 0, which has no counterpart here"):
        read_model(model, (6,))


def test_spikes_of_the_step_before_that_a_loop_keeps_in_a_variable_are_a_delay():
    class Delayed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 4), norse.LIFBoxCell(), norse.LIFBoxCell()

        def forward(self, x):
            first = second = before = None
            out = []
            for step in x:
                z, first = self.one(self.a(step), first)
                y, second = self.two(99 * self.b(torch.zeros_like(z) if before is None else before), second)
                before = z
                out.append(y)
            return torch.stack(out)

    model, x = Delayed(), torch.rand(12, 3, 6) * 90
    with torch.no_grad():
        expected = model(x).numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.numpy(), kind="current").output, expected)


def test_a_compiled_model_is_read_as_what_was_compiled():
    model = norse.SequentialState(nn.Linear(6, 5), norse.LIFBoxCell())
    graph = read_model(torch.compile(model, backend="eager"), (6,))
    assert [layer.name for layer in graph.layers] == ["1"]
    model[0] = torch.compile(model[0], backend="eager")
    assert np.array_equal(read_model(model, (6,))["1"].synapse.weight, graph["1"].synapse.weight)


def test_a_product_takes_the_time_step_of_cells_behind_it():
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = norse.IAFCell(), norse.IAFCell(), norse.LIFBoxCell(dt=0.002)
            self.one, self.two, self.three = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x, state=None):
            first, second, third = state or (None, None, None)
            a, first = self.a(self.one(x), first)
            b, second = self.b(self.two(x), second)
            y, third = self.c(9 * self.three(a * b), third)
            return y, (first, second, third)

    model = Slow()
    x, expected = run(model, (6,), scale=3.0)
    graph = read_model(model, (6,))
    assert graph.dt_s == 0.002 and 0 < expected.mean() < 1
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


class Kept(nn.Module):
    """A forward that changes a buffer by itself."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.lif, self.change = nn.Linear(6, 5), norse.LIFBoxCell(), change
        self.register_buffer("trace", torch.ones(5))

    def forward(self, x, state=None):
        z, state = self.lif(self.fc(x) + self.trace, state)
        self.change(self)
        return z, state


@pytest.mark.parametrize(
    "change",
    [lambda s: s.trace.mul_(0.5), lambda s: setattr(s, "trace", s.trace * 0.5), lambda s: s.trace.data.add_(1)],
)
def test_a_forward_that_changes_its_buffers_is_refused(change):
    with pytest.raises(UnsupportedError, match="module 'kept': its forward changes the tensor 'trace', a state that no"):
        read_model(_Named(Kept(change)), (6,))
    assert read_model(_Named(Kept(lambda s: None)), (6,)).output == "kept.lif"


class _Named(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, x, state=None):
        return self.kept(x, state)


class Changes(nn.Module):
    """A loop that computes something else in some steps."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.start = nn.Linear(6, 5), norse.LIFBoxCell(), 7


class ChangesInline(Changes):
    def forward(self, x):
        state, out = None, []
        for t, step in enumerate(x):
            z, state = self.lif(self.fc(step if t < 9 else -step), state)
            out.append(z)
        return torch.stack(out)


class ChangesByAttribute(Changes):
    def forward(self, x):
        state, out = None, []
        for t in range(x.shape[0]):
            z, state = self.lif(self.fc(x[t]), None if t == self.start else state)
            out.append(z)
        return torch.stack(out)


class ChangesRegularly(Changes):
    def forward(self, x):
        state, out = None, []
        for t in range(x.shape[0]):
            step = x[t]
            if t % 10 == 9:
                step = -step
            z, state = self.lif(self.fc(step), state)
            out.append(z)
        return torch.stack(out)


@pytest.mark.parametrize("kind", [ChangesInline, ChangesByAttribute, ChangesRegularly])
def test_a_loop_that_changes_late_is_refused(kind):
    with pytest.raises(UnsupportedError, match="runs in another way in a later step|starts anew in every step"):
        read_model(kind(), (6,))


def test_torchscript_is_refused():
    with pytest.raises(
        UnsupportedError, match="the model is TorchScript, whose forward cannot be read; give what it was made from"
    ):
        read_model(torch.jit.script(nn.Sequential(nn.Linear(6, 5))), (6,))
