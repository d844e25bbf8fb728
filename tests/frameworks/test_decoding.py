"""Forwards that repeat their input over time and decode their output at the end."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import norse.torch as norse  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.frameworks.write_back import store_weights  # noqa: E402
from spear_deploy.network.fixed_weights import list_fixed_layers  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from spear_deploy.simulator.run import decide  # noqa: E402


class OverTime(nn.Module):
    """A model of time layers; `before` and `after` act on the input and the output of all steps."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.net = norse.SequentialState(norse.Lift(nn.Linear(6, 5)), norse.LIF())
        self.before, self.after = before or (lambda x: x), after or (lambda y: y)

    def forward(self, x):
        y, _ = self.net(self.before(x))
        return self.after(y)


def answers(how):
    """Return what the note on a decoding says of the answer, and the decision in the metadata."""
    if "step of" in how:
        return ", and accuracy is counted by their mean, which may choose another class", None
    if "max" in how and "sum" not in how:
        return ", and the class with the largest value of any one step is the answer", "maximum"
    return (", and the class with the largest value of the last step is the answer", "last") if how == "last" else ("", None)


def repeated(x):
    return x.unsqueeze(0).repeat(7, 1, 1)


@pytest.mark.parametrize(
    ("after", "how"),
    [
        (lambda y: y.mean(0), "mean"), (lambda y: y.mean(dim=0), "mean"), (lambda y: torch.mean(y, 0), "mean"),
        (lambda y: y.sum(0), "sum"), (lambda y: torch.sum(y, dim=(0,)), "sum"),
        (lambda y: y.max(0)[0], "max"), (lambda y: torch.max(y, dim=0).values, "max"), (lambda y: y.amax(0), "max"),
    ],
)  # fmt: skip
def test_an_output_decoded_over_time_is_read_step_by_step(after, how):
    torch.manual_seed(0)
    model = OverTime(repeated, after).eval()
    image = torch.rand(3, 6) * 9
    graph = read_model(model, (6,))
    assert graph.metadata["assumptions"] == [
        "the forward feeds the same input in every step: the network takes it step by step",
        f"the forward returns the {'maximum' if how == 'max' else how} of its outputs over time: the network gives the output of "
        f"every step{answers(how)[0]}",
    ]
    assert graph.metadata.get("decision") == answers(how)[1]
    with torch.no_grad():
        model.net[0].lifted_module.weight.add_(0.5)
        decoded = model(image).numpy()
    graph = read_model(model, (6,))
    ours = simulate(graph, np.broadcast_to(image.numpy(), (7, 3, 6)), kind="current").output.astype(np.float32)
    assert decoded.sum() > 1
    np.testing.assert_allclose(getattr(ours, how)(0), decoded, rtol=1e-6)


class Head(OverTime):
    """A linear layer behind a decoding over time."""

    def __init__(self, decode):
        super().__init__()
        self.head, self.softmax, self.decode = nn.Linear(5, 2), nn.Softmax(dim=-1), decode

    def forward(self, x):
        return self.decode(self, super().forward(x))


def test_a_linear_layer_behind_the_mean_over_time_is_one_of_every_step():
    torch.manual_seed(0)
    model, x = Head(lambda s, y: s.head(y.mean(0))), torch.rand(7, 3, 6) * 9
    with torch.no_grad():
        model.net[0].lifted_module.weight.add_(0.5)
        decoded = model(x).numpy()
    graph = read_model(model, (6,))
    assert graph.output == "head" and graph.metadata["assumptions"][0].startswith("the forward returns the mean of its outputs")
    np.testing.assert_allclose(simulate(graph, x.numpy(), kind="current").output.mean(0), decoded, rtol=1e-5, atol=1e-6)
    graph = read_model(Head(lambda s, y: s.softmax(s.head(y.mean(0)) * 3)), (6,))
    assert "the Softmax of the mean of its outputs" in graph.metadata["assumptions"][0]


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda v: functional.log_softmax(torch.max(v, 0)[0], dim=1), "log_softmax of the maximum"),
        (lambda v: (v.sum(0) / 4 * 2).argmax(1), "argmax of the sum"),
        (lambda v: v.max(0)[1], "step of the maximum"),
    ],
)
def test_what_follows_the_decoding_of_a_loop_is_taken_off(end, how):
    class Tutorial(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.fc, self.out = norse.LIFCell(), nn.Linear(6, 5), norse.LILinearCell(5, 3)

        def forward(self, x, end=end):
            first = last = None
            voltages = []
            for step in x:
                spikes, first = self.lif(self.fc(step), first)
                voltage, last = self.out(spikes, last)
                voltages.append(voltage)
            return end(torch.stack(voltages))

    torch.manual_seed(0)
    model, x = Tutorial().eval(), torch.rand(9, 2, 6) * 9
    with torch.no_grad():
        model.fc.weight.add_(1.0)
        voltages = model(x, lambda v: v).numpy()
    graph = read_model(model)
    assert graph.metadata["assumptions"] == [
        f"the forward returns the {how} of its outputs over time: the network gives the output of every step" + answers(how)[0]
    ]
    assert np.ptp(voltages) > 0.1
    np.testing.assert_allclose(simulate(graph, x.numpy(), kind="current").output, voltages, rtol=1e-5, atol=1e-6)
    if "step of" not in how:
        theirs = end(torch.tensor(voltages))
        np.testing.assert_array_equal(decide(voltages, graph), theirs if theirs.ndim == 1 else theirs.argmax(1))


@pytest.mark.parametrize("end", [lambda v: v.argmax(-1), lambda v: torch.argmax(v, dim=2), lambda v: v.transpose(0, 1).argmax(2)])
@pytest.mark.parametrize("loops", [True, False])
def test_a_forward_that_chooses_a_class_in_each_step_keeps_that_decision(loops, end):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.fc = norse.LIFCell(), nn.Linear(6, 5)

        def forward(self, x):
            outputs, state = [], None
            for step in x:
                z, state = self.lif(self.fc(step), state)
                outputs.append(z)
            return end(torch.stack(outputs))

    torch.manual_seed(0)
    model, x = Loop() if loops else OverTime(after=end), torch.rand(7, 3, 6) * 9
    with torch.no_grad():
        (model.fc if loops else model.net[0].lifted_module).weight.add_(0.5)
        theirs = model(x)
    graph = read_model(model, (6,))
    assert graph.metadata["assumptions"] == [
        "the forward returns the class of each step: the network gives the output of every step, and in each step the class with "
        "the largest value is the answer"
    ]
    assert graph.metadata["decision"] == "each"
    ours = decide(simulate(graph, x.numpy(), kind="current").output, graph)
    assert len(np.unique(ours)) > 1
    np.testing.assert_array_equal(ours if theirs.shape == (3, 7) else ours.T, theirs)


@pytest.mark.parametrize("end", [lambda v: v.argmax(0), lambda v: v.argmax(1), lambda v: v.argmax(), lambda v: v.softmax(-1)])
def test_a_choice_along_another_axis_is_no_class_of_each_step(end):
    with pytest.raises(UnsupportedError, match="which has no counterpart here"):
        read_model(OverTime(after=end), (6,))


@pytest.mark.parametrize(
    "pooled",
    [
        lambda z: z.mean((2, 3)), lambda z: z.mean(dim=[-2, -1]), lambda z: z.mean((2, 3), keepdim=True).squeeze(3).squeeze(2),
        lambda z: functional.adaptive_avg_pool2d(z, 1).squeeze(-1).squeeze(-1),
        lambda z: functional.adaptive_avg_pool2d(z, 1).squeeze(), lambda z: torch.squeeze(functional.avg_pool2d(z, 4), (2, 3)),
    ],
)  # fmt: skip
def test_a_mean_over_all_positions_is_a_pool(pooled):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif, self.fc = nn.Conv2d(2, 3, 3, padding=1), norse.LIFBoxCell(), nn.Linear(3, 2)

        def forward(self, x, state=None):
            spikes, state = self.lif(self.conv(x), state)
            return self.fc(pooled(spikes)), state

    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.rand(6, 2, 2, 4, 4) * 20
    state, out = None, []
    with torch.no_grad():
        for step in x:
            made, state = model(step, state)
            out.append(made.numpy())
    assert np.ptp(out) > 0.1
    ours = simulate(read_model(model, (2, 4, 4)), x.numpy(), kind="current").output
    np.testing.assert_allclose(ours, out, rtol=1e-5, atol=1e-6)


class Map(nn.Module):
    """A map of 2 x 6 x 4 whose positions `reduce` takes to one axis, and layers over that axis."""

    def __init__(self, kernel, reduce, *, before_neurons=False):
        super().__init__()
        self.conv, self.lif = (
            nn.Conv2d(2, 3, kernel),
            norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor([[0.9], [1.0], [0.8]]))),
        )
        self.conv1, self.norm, self.lif1 = nn.Conv1d(3, 4, 3, padding="same"), nn.BatchNorm1d(4), norse.LIFBoxCell()
        self.pool, self.fc, self.reduce, self.before = nn.AvgPool1d(2), nn.LazyLinear(2), reduce, before_neurons

    def forward(self, x, state=None):
        first, second = state or (None, None)
        z = self.conv(x)
        z = self.reduce(z) if self.before else z
        z, first = self.lif(z, first)
        z = z if self.before else self.reduce(z)
        z, second = self.lif1(self.norm(self.conv1(z)), second)
        return self.fc(self.pool(z).flatten(1)), (first, second)


@pytest.mark.parametrize(
    "model",
    [
        Map((1, 4), lambda z: z.squeeze(-1), before_neurons=True), Map((6, 1), lambda z: z.squeeze(2), before_neurons=True),
        Map(3, lambda z: z.mean(2), before_neurons=True), Map(3, lambda z: torch.mean(z, -1), before_neurons=True),
        Map(3, lambda z: z.sum(3, keepdim=True).squeeze(3), before_neurons=True),
    ],
)  # fmt: skip
def test_layers_over_one_axis_behind_an_axis_that_is_left_out(model):
    torch.manual_seed(0)
    x = torch.rand(9, 2, 2, 6, 4) * 20
    model.eval()
    state, out = None, []
    with torch.no_grad():
        for step in x:
            made, state = model(step, state)
            out.append(made.numpy())
    graph = read_model(model, (2, 6, 4))
    assert np.ptp(out) > 0.1 and "Conv2d" in {type(layer.synapse).__name__ for layer in graph.layers}
    np.testing.assert_allclose(simulate(graph, x.numpy(), kind="current").output, out, rtol=1e-5, atol=1e-5)
    home = store_weights(model, graph)
    assert torch.equal(home.conv1.weight, model.conv1.weight) and home.conv1.weight.shape == (4, 3, 3)


@pytest.mark.parametrize(
    "reduce",
    [lambda z: z.amax((2, 3)), lambda z: z.max(3)[0].max(dim=2).values, lambda z: z.sum((2, 3)), lambda z: z.mean(2).mean(2)],
)
def test_the_maximum_and_sum_over_positions_are_pools(reduce):
    class Reduced(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif, self.fc = nn.Conv2d(2, 3, 3), norse.LIFBoxCell(), nn.Linear(3, 2)

        def forward(self, x, state=None):
            z, state = self.lif(self.conv(x), state)
            return self.fc(reduce(z)), state

    torch.manual_seed(0)
    model, x = Reduced().eval(), torch.rand(9, 2, 2, 6, 4) * 20
    with torch.no_grad():
        model.conv.weight.add_(0.1)
    state, out = None, []
    with torch.no_grad():
        for step in x:
            made, state = model(step, state)
            out.append(made.numpy())
    assert np.ptp(out) > 0.1
    ours = simulate(read_model(model, (2, 6, 4)), x.numpy(), kind="current").output
    np.testing.assert_allclose(ours, out, rtol=1e-5, atol=1e-6)


def test_an_axis_that_the_output_leaves_out_is_noted():
    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif = nn.Conv2d(2, 3, (1, 4)), norse.LIFBoxCell()

        def forward(self, x, state=None):
            z, state = self.lif(self.conv(x), state)
            return z.squeeze(3), state

    graph = read_model(Left(), (2, 6, 4))
    assert graph.shape_of("lif") == (3, 6, 1)
    assert graph.metadata["assumptions"] == ["the forward leaves an axis of its output out: the network gives 3 x 6 x 1 values"]


def test_an_argument_that_is_never_used_is_noted():
    class Two(Loop):
        def forward(self, x, labels):
            return super().forward(x)

    graph = read_model(Two(lambda s, out, x: torch.stack(out)), (6,))
    assert graph.metadata["assumptions"] == ["the forward never uses its argument 'labels': the network has one input"]

    class Used(Loop):
        def forward(self, x, mask):
            return super().forward(x) if mask is None else None

    assert "assumptions" not in read_model(Used(lambda s, out, x: torch.stack(out)), (6,)).metadata


def test_expand_repeats_the_input_too():
    model = OverTime(lambda x: x.unsqueeze(0).expand(7, -1, -1))
    assert "feeds the same input in every step" in read_model(model, (6,)).metadata["assumptions"][0]


class Accumulates(nn.Module):
    """A loop over time that adds up its outputs; `start` and `end` say how it begins and ends."""

    def __init__(self, start=None, end=None):
        super().__init__()
        self.fc, self.lif, self.start, self.end = nn.Linear(6, 5), norse.LIFBoxCell(), start, end or (lambda total: total)

    def forward(self, x):
        state, total = None, self.start
        for step in x:
            spikes, state = self.lif(self.fc(step), state)
            total = spikes if total is None else total + spikes
        return self.end(total)


def test_a_softmax_of_every_step_of_a_loop_is_refused():
    class EachStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.fc = norse.LIFCell(), nn.Linear(6, 5)

        def forward(self, x):
            state, out = None, []
            for step in x:
                spikes, state = self.lif(self.fc(step), state)
                out.append(spikes)
            return torch.softmax(torch.stack(out), -1)

    with pytest.raises(UnsupportedError, match="calls 'softmax' on the outputs of all steps, which has no counterpart here: ret"):
        read_model(EachStep(), (6,))


@pytest.mark.parametrize("model", [Accumulates(), Accumulates(start=0), Accumulates(start=0, end=lambda total: total / 4 * 2)])
def test_a_loop_that_adds_up_its_outputs_is_read_step_by_step(model):
    torch.manual_seed(0)
    with torch.no_grad():
        model.fc.weight.uniform_(0, 9)
        x = torch.rand(8, 3, 6)
        total = model.eval()(x).numpy()
    graph = read_model(model, (6,))
    assert "returns the sum of its outputs over time" in graph.metadata["assumptions"][0] and graph.output == "lif"
    ours = simulate(graph, x.numpy(), kind="current").output.sum(0)
    assert total.sum() > 10
    np.testing.assert_array_equal(ours if model.end(8.0) == 8.0 else ours / 2, total)


class Loop(nn.Module):
    """A recurrent loop over time; `end` acts on the model, the outputs of all steps in a list, and the input."""

    def __init__(self, end):
        super().__init__()
        self.fc, self.lif, self.end = nn.Linear(6, 5), norse.LIFRecurrentCell(5, 5), end
        self.head, self.plain = nn.Linear(5, 2), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        state, out = None, []
        for t in range(x.shape[0]):
            spikes, state = self.lif(self.fc(x[t]), state)
            out.append(spikes)
        return self.end(self, out, x)


class Total(Loop):
    """The same, which adds its outputs up to something."""

    def __init__(self, start, end=lambda self, total, x: total):
        super().__init__(end)
        self.start = start

    def forward(self, x):
        state, total = None, self.start(x)
        for step in x:
            spikes, state = self.lif(self.fc(step), state)
            total = torch.zeros_like(spikes) if total is None else total
            total = spikes + total
        return self.end(self, total, x)


DECODED = [
    (Loop(lambda s, out, x: s.head(torch.stack(out).mean(0))), "mean", "head"),
    (Loop(lambda s, out, x: s.head(torch.stack(out, 1).mean(1))), "mean", "head"),
    (Loop(lambda s, out, x: s.plain(torch.stack(out).sum(0))), "sum", "plain"),
    (Loop(lambda s, out, x: torch.stack(out).sum(0) / x.shape[0]), "mean", "lif"),
    (Loop(lambda s, out, x: (lambda y: y.sum(0) / y.shape[0])(torch.stack(out))), "mean", "lif"),
    (Loop(lambda s, out, x: (lambda y: s.head(y.sum(1) * (1 / y.size(1))))(torch.stack(out, 1))), "mean", "head"),
    (Loop(lambda s, out, x: torch.stack(out).mean(-3)), "mean", "lif"),
    (Loop(lambda s, out, x: sum(out) / x.shape[0]), "mean", "lif"),
    (Loop(lambda s, out, x: out[-1]), "last", "lif"),
    (Loop(lambda s, out, x: s.head(out[-1].flatten(1))), "last", "head"),
    (Loop(lambda s, out, x: torch.stack(out)[-1]), "last", "lif"),
    (Loop(lambda s, out, x: s.head(torch.stack(out, 1)[:, -1, :])), "last", "head"),
    (Total(lambda x: 0, lambda s, total, x: s.head(total / x.shape[0])), "mean", "head"),
    (Total(lambda x: torch.zeros(x.shape[1], 5)), "sum", "lif"),
    (Total(lambda x: None, lambda s, total, x: s.plain(total)), "sum", "plain"),
    (OverTime(after=lambda y: y.sum(0) / y.shape[0]), "mean", "net.1"),
    (OverTime(after=lambda y: y[-1]), "last", "net.1"),
    (Head(lambda s, y: s.head(y[-1])), "last", "head"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "how", "end"), DECODED)
def test_what_a_forward_makes_of_all_steps_is_what_the_network_gives(model, how, end):
    torch.manual_seed(0)
    x = torch.rand(11, 2, 6) * 20 - 4
    with torch.no_grad():
        for part in model.parameters():
            part.uniform_(-0.6, 1)
        expected = model(x).numpy()
    graph = read_model(model, (6,))
    assert graph.output == end and graph.metadata["assumptions"][-1] == (
        f"the forward returns the {how} of its outputs over time: the network gives the output of every step" + answers(how)[0]
    )
    ours = simulate(graph, x.numpy(), kind="current").output
    np.testing.assert_array_equal(decide(ours, graph), expected.argmax(1))
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(ours[-1] if how == "last" else getattr(ours, how)(0), expected, rtol=1e-5, atol=1e-6)


class Buffer(Loop):
    """The same, which writes the output of step t to [t] of a tensor."""

    def __init__(self, end, *, write=lambda out, t, y: out.__setitem__(t, y), make=lambda t, b: torch.zeros(t, b, 5)):
        super().__init__(lambda self, out, x: end(out))
        self.write, self.make = write, make

    def forward(self, x):
        state, out = None, self.make(x.shape[0], x.shape[1])
        for t in range(x.shape[0]):
            spikes, state = self.lif(self.fc(x[t]), state)
            self.write(out, t, spikes)
        return self.end(self, out, x)


BATCH_FIRST = {"write": lambda out, t, y: out.__setitem__((slice(None), t), y), "make": lambda t, b: torch.zeros(b, t, 5)}


@pytest.mark.parametrize(
    ("model", "how"),
    [
        (Buffer(lambda out: torch.max(out, 0)[0]), "maximum"), (Buffer(lambda out: out.amax(dim=0)), "maximum"),
        (Buffer(lambda out: out.max(0).values, make=lambda t, b: torch.empty(t, b, 5)), "maximum"),
        (Buffer(lambda out: out[-1]), "last"), (Buffer(lambda out: torch.mean(out, 0)), "mean"),
        (Buffer(lambda out: out.sum(0), write=lambda out, t, y: out.__setitem__(t, out[t] + y)), "sum"),
        (Buffer(lambda out: out.transpose(0, 1).mean(1)), "mean"), (Buffer(lambda out: out[:, -1], **BATCH_FIRST), "last"),
    ],
)  # fmt: skip
def test_a_tensor_that_a_loop_writes_its_outputs_to_is_decoded_as_their_stack(model, how):
    """As in Norse's own example of MNIST, whose forward takes the maximum of the voltages that it wrote."""
    torch.manual_seed(0)
    x = torch.rand(11, 2, 6) * 20 - 4
    with torch.no_grad():
        for part in model.parameters():
            part.uniform_(-0.6, 1)
        expected = model.eval()(x).numpy()
    graph = read_model(model, (6,))
    assert graph.metadata["assumptions"] == [
        f"the forward returns the {how} of its outputs over time: the network gives the output of every step" + answers(how)[0]
    ]
    assert graph.metadata.get("decision") == answers(how)[1]
    ours = simulate(graph, x.numpy(), kind="current").output
    assert ours.sum() > 10
    how = {"maximum": "max"}.get(how, how)
    np.testing.assert_allclose(ours[-1] if how == "last" else getattr(ours, how)(0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Buffer(lambda out: out, write=lambda out, t, y: out.__setitem__(slice(t, t + 1), y)),
         r"^the model writes to \[slice\(0, 1, None\)\] of a tensor; write the output of step t to \[t\]"),
        (Buffer(lambda out: out, write=lambda out, t, y: out.__setitem__(t - 1, y)), r"^the model writes to \[-1\] of a tensor"),
        (Buffer(lambda out: out.amax(0), write=lambda out, t, y: out.__setitem__(t + 1, y)),
         r"^the model writes the outputs \[1, 2, 3, 4\] of a tensor, expected one for each step"),
        (Buffer(lambda out: out.amax(0), make=lambda t, b: torch.zeros(t + 1, b, 5)),
         r"^the model writes the outputs \[0, 1, 2, 3\] of a tensor, .* but it has 5; make it as long as there are steps"),
        (Buffer(lambda out: out[-1], make=lambda t, b: torch.zeros(t + 1, b, 5)), "and no more, but it has 5"),
        (Buffer(lambda out: (out.__setitem__(0, 0), out.amax(0))[1]),
         r"^the model writes numbers to \[0\] of a tensor that it writes outputs to; leave that out"),
        (Buffer(lambda out: out.amax(0), make=lambda t, b: torch.zeros(t, b, 5, dtype=torch.int64)),
         "^the model writes its outputs to a tensor of int64; make it one of float32"),
    ],
)  # fmt: skip
def test_other_writes_to_a_tensor_are_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (6,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch.zeros_like, "^the model makes zeros like the input of all steps, expected the output of a module; append the"),
        (lambda x: torch.zeros_like(x[:, :5]), r"takes \[:, :5\] of the input of all steps; take channels of x\[t\] in the loop"),
        (lambda x: torch.zeros_like(x[:, :, :5]), "^the model makes zeros like 4 values, expected the output of a module; app"),
    ],
)
def test_zeros_of_the_shape_of_all_inputs_are_refused(make, message):
    """They ended in an exception of Python."""

    class Like(Buffer):
        def forward(self, x):
            self.make = lambda t, b: make(x)
            return super().forward(x)

    with pytest.raises(UnsupportedError, match=message):
        read_model(Like(lambda out: out.amax(0)), (6,))


@pytest.mark.parametrize(
    ("end", "what"),
    [
        (lambda out: out.amax(0) * -1, "multiplies the maximum of all steps by -1"),
        (lambda out: 0 * out[-1], "multiplies the last of all steps by 0"),
        (lambda out: out.mean(0) / -2, "divides the mean of all steps by -2"),
    ],
)  # fmt: skip
def test_a_factor_with_which_another_class_is_the_answer_is_refused(end, what):
    with pytest.raises(UnsupportedError, match=rf"{what}, expected a number above 0, which leaves the class"):
        read_model(Buffer(end), (6,))


def test_two_totals_of_a_loop_are_those_of_its_last_layer():
    class Totals(Loop):
        def forward(self, x):
            state, spikes_total, total, parts = None, 0, 0, []
            for step in x:
                spikes, state = self.lif(self.fc(step), state)
                spikes_total, total = spikes_total + spikes, total + self.head(spikes)
                parts.append(spikes_total)
            return total / x.shape[0], self.end(spikes_total, parts)

    torch.manual_seed(0)
    model, x = Totals(lambda total, parts: total).eval(), torch.rand(8, 2, 6) * 20
    graph = read_model(model, (6,))
    assert graph.output == "head" and "returns the mean of its outputs over time" in graph.metadata["assumptions"][0]
    with torch.no_grad():
        expected = model(x)[0].numpy()
    np.testing.assert_allclose(simulate(graph, x.numpy(), kind="current").output.mean(0), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UnsupportedError, match="uses the output of 'lif' 3 steps before, in other steps another"):
        read_model(Totals(lambda total, parts: parts), (6,))


def test_the_class_of_the_last_step_is_left_to_the_host():
    graph = read_model(Loop(lambda s, out, x: functional.softmax(s.head(out[-1]), -1)), (6,))
    assert graph.output == "head" and "returns the softmax of the last of its outputs" in graph.metadata["assumptions"][-1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Loop(lambda s, out, x: torch.stack(out)[:, 0]), r"takes \[:, 0\] of 4 values; return all steps, channels and positions"),
        (Loop(lambda s, out, x: torch.stack(out)[2:].mean(0)), "returns 2 values, expected the outputs of all steps"),
        (Loop(lambda s, out, x: s.head(torch.stack(out[::2]).mean(0))), "takes the mean of other outputs than those of all"),
        (Loop(lambda s, out, x: out[0]), "returns the output of 'lif' 3 steps before, expected one output"),
        (Loop(lambda s, out, x: s.head(torch.stack(out).sum(0))), "is Linear behind the sum of all steps; put it in front"),
        (Total(lambda x: torch.ones(x.shape[1], 5)), "uses a tensor of 2 x 5 that the forward makes or keeps, with"),
    ],
)  # fmt: skip
def test_other_choices_of_steps_are_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (6,))


@pytest.mark.parametrize("factor", [lambda x: 1 / x.shape[0], lambda x: x.shape[0] / 8, lambda x: x.shape[0] * 0.5])
def test_a_factor_that_depends_on_the_number_of_steps_is_refused_within_a_step(factor):
    class Scaled(Loop):
        def forward(self, x):
            state, out = None, []
            for step in x:
                spikes, state = self.lif(self.fc(step * factor(x)), state)
                out.append(spikes)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match="multiplies .* by a number computed from the size of an axis; expected a number"):
        read_model(Scaled(None), (6,))


def test_a_slice_of_a_sequential_is_read_as_its_modules():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 5), nn.Identity(), nn.Linear(5, 4))

        def forward(self, x):
            return self.net[1:](self.net[0](x))

    assert [layer.name for layer in read_model(Sliced(), (6,)).layers] == ["net.0", "net.2"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (OverTime(after=lambda y: y.mean(1)), "calls 'mean', which has no counterpart here: return the outputs of all steps"),
        (OverTime(after=lambda y: y.sum(0, keepdim=True)), "calls 'sum', which has no counterpart here: return the outputs"),
        (OverTime(lambda x: x.unsqueeze(1)), "calls 'unsqueeze', which has no counterpart here: keep to one axis of channels"),
        (OverTime(lambda x: x.unsqueeze(0).repeat(7, 2, 1)), "calls 'unsqueeze', .* repeated over time alone, x.unsqueeze"),
        (OverTime(lambda x: x.repeat(7, 3)), "calls 'repeat', .*: repeat the input over time alone"),
        (OverTime(after=lambda y: y.max(2)[0]), "calls 'max', which has no counterpart here: return the outputs of all steps"),
        (OverTime(after=lambda y: y.softmax(2)), "calls 'softmax' on the output of .*: return the outputs of all steps, and dec"),
        (OverTime(after=lambda y: 2 / y.mean(0)), "calculates with the mean of all steps and the constant 2, expected a number"),
        (Head(lambda s, y: s.head(y.sum(0))), "behind the sum of all steps; put it in front .*, or leave out its bias"),
        (Head(lambda s, y: s.head(y.mean(0) * 2)), "module 'head' is Linear behind the mean of all steps; put it in front of"),
        (OverTime(after=lambda y: y.mean(0) + 1), "calls 'add', which has no counterpart here"),
        (OverTime(after=lambda y: y.squeeze(0)), "calls 'squeeze' on axis 0; leave out axes of positions alone, from 3 on"),
    ],
)  # fmt: skip
def test_other_decoding_and_repeating_is_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (6,))


class Voting(nn.Module):
    """The voting layer of SpikingJelly's early tutorials: neighbouring neurons, on an axis of their own, are averaged."""

    def __init__(self, size, function=False):
        super().__init__()
        self.pool = (lambda x: functional.avg_pool1d(x, size)) if function else nn.AvgPool1d(size)

    def forward(self, x):
        return self.pool(x.unsqueeze(1)).squeeze(1)


class Votes(OverTime):
    """Twelve neurons of which groups vote."""

    def __init__(self, end, size=4, *, function=False):
        super().__init__()
        self.net = norse.SequentialState(norse.Lift(nn.Linear(6, 12)), norse.LIF())
        self.vote, self.end = Voting(size, function), end

    def forward(self, x):
        return self.end(self, super().forward(x))


class VotesInLoop(Votes):
    """The same in a loop over time."""

    def __init__(self, end, size=4, *, function=False):
        super().__init__(end, size, function=function)
        self.net, self.lif = nn.Sequential(nn.Linear(6, 12)), norse.LIFCell()

    def forward(self, x):
        state, out = None, []
        for step in x:
            spikes, state = self.lif(self.net(step), state)
            out.append(spikes)
        return self.end(self, torch.stack(out))


@pytest.mark.parametrize("kind", [Votes, VotesInLoop])
@pytest.mark.parametrize("function", [True, False])
@pytest.mark.parametrize(
    ("end", "reduce"),
    [
        (lambda s, y: s.vote(y.mean(0)), lambda y: y.mean(0)), (lambda s, y: s.vote(y.sum(0)) / 11, lambda y: y.mean(0)),
        (lambda s, y: s.vote(y[-1]), lambda y: y[-1]),
        (lambda s, y: s.vote(y.flatten(0, 1)).view(y.shape[0], y.shape[1], -1), lambda y: y),
    ],
)  # fmt: skip
def test_votes_of_neighbours_on_an_axis_of_their_own_are_weights(end, reduce, function, kind):
    torch.manual_seed(0)
    model, x = kind(end, function=function).eval(), torch.rand(11, 3, 6) * 8
    with torch.no_grad():
        for part in model.parameters():
            part.uniform_(-0.6, 0.8)
        expected = model(x).numpy()
    graph = read_model(model, (6,))
    assert graph.metadata["fixed_weights"] == [graph.output]
    ours = simulate(graph, x.numpy(), kind="current").output
    assert ours.shape == (11, 3, 3) and np.ptp(expected) > 0.05
    np.testing.assert_allclose(reduce(ours), expected, rtol=1e-5, atol=1e-6)


def test_votes_in_front_of_neurons_are_fixed_weights_of_these():
    """They learnt, since the layer of both has the name of the neurons, and the network then had no way back into the model."""

    class Between(VotesInLoop):
        def forward(self, x):
            state, last, out = None, None, []
            for step in x:
                spikes, state = self.lif(self.net(step), state)
                spikes, last = self.end(self.vote(spikes), last)
                out.append(spikes)
            return torch.stack(out)

    graph = read_model(Between(norse.LIFCell()), (6,))
    assert list_fixed_layers(graph) == (graph.output,) and graph[graph.output].spikes
    np.testing.assert_allclose(graph[graph.output].synapse.weight, np.kron(np.eye(3), np.full((1, 4), 0.25)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Votes(lambda s, y: s.vote(y.amax(0))),
            "module 'vote.pool' is AvgPool1d behind the maximum of all steps; put it in front",
        ),
        (Votes(lambda s, y: s.vote(y.mean(0)), 13), "module 'vote.pool' is AvgPool1d, which fails on 12 neurons: "),
        (
            Votes(lambda s, y: s.vote.pool(y.mean(0).unsqueeze(1)).squeeze(2)),
            "calls 'squeeze' on axis 2 of samples x 1 x neurons; leave out axis 1",
        ),
    ],
)
def test_other_votes_are_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (6,))
