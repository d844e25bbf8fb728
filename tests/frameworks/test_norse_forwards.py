"""Hand-written forwards: loops, feedback, concatenated outputs, max pools of spikes."""

from collections import deque

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.frameworks.models import read_model, run_model
from spear_deploy.frameworks.write_back import store_weights
from spear_deploy.network import IF, Conv2d, Dense, Scale, SumPool
from spear_deploy.network.graph import Edge
from spear_deploy.simulator import simulate
from tests.frameworks.test_norse_importer import State, Stateless, User, assert_same, box, dyadic, spikes_for

torch.set_num_threads(1)


def layers_of(graph):
    return {layer.name: layer for layer in graph.layers}


# ------------------------------------------------------------------------------------------------------ loops over time


def by_index(self, x):
    state, out = None, []
    for t in range(x.shape[0]):
        z, state = self.lif(self.fc(x[t]), state)
        out.append(z)
    return torch.stack(out)


def by_iteration(self, x):
    state, out = None, []
    for _, step in enumerate(x):
        z, state = self.lif(self.fc(step), state)
        out += [z]
    return torch.stack(out, 0)


def by_unbinding(self, x):
    state, out = None, []
    steps = x.unbind(0)
    for step in steps:
        z, state = self.lif(self.fc(step), state)
        out.append(z)
    return torch.stack(out, dim=0), state


def into_a_tensor(self, x):
    steps, batch, *_ = x.shape
    state, out = None, torch.zeros(steps, batch, 5, device=x.device, dtype=x.dtype)
    for t in range(steps):
        out[t, ...], state = self.lif(self.fc(x[t, :]), state)
    return out


def with_a_state_argument(self, x, state=None):
    out = []
    for t in range(len(x)):
        z, state = self.lif(self.fc(x[t]), state)
        out.append(z)
    return torch.stack(out), state


def layer_by_layer(self, x):
    drive, state, out = [self.fc(step) for step in x], None, []
    for current in drive:
        z, state = self.lif(current, state)
        out.append(z)
    return torch.stack(out)


@pytest.mark.parametrize(
    "forward", [by_index, by_iteration, by_unbinding, into_a_tensor, layer_by_layer], ids=lambda f: f.__name__
)
def test_a_loop_over_time_is_read_as_its_step(forward):
    graph = assert_same(dyadic(Stateless(forward, fc=nn.Linear(4, 5), lif=box())), (4,))
    assert [layer.name for layer in graph.layers] == ["lif"] and graph["lif"].synapse is not None


def test_a_loop_with_a_state_argument():
    assert_same(dyadic(User(with_a_state_argument, fc=nn.Linear(4, 5), lif=box())), (4,))


def test_norses_own_loop_over_time_with_max_pools():
    """`ConvNet` of Norse: a loop that writes into a tensor, max pools of spikes, factors, a view, a ReLU on spikes."""
    torch.manual_seed(0)
    model = norse.ConvNet(feature_size=16)
    dyadic(model)
    graph = assert_same(model, (1, 16, 16), active=False, steps=10, batch=2)
    assert [type(n).__name__ for n in (layer.neuron for layer in graph.layers) if n] == [
        "CubaLIF", "IF", "CubaLIF", "IF", "CubaLIF", "CubaLI",
    ]  # fmt: skip
    assert isinstance(layers_of(graph)["max_pool2d"].synapse, SumPool)


def test_loops_with_feedback_and_skips():
    def forward(self, x):
        first = second = None
        fed = torch.zeros(x.shape[1], 5)
        out = []
        for step in x:
            z, first = self.lif1(self.fc(step) + self.back(fed), first)
            fed, second = self.lif2(self.fc2(z) + z, second)
            out.append(fed)
        return torch.stack(out)

    model = Stateless(forward, fc=nn.Linear(4, 5), back=nn.Linear(5, 5), fc2=nn.Linear(5, 5), lif1=box(), lif2=box())
    graph = assert_same(dyadic(model, levels=2), (4,), steps=20)
    assert Edge(source="lif2", target="back", delay=1) in graph.edges


def by_columns(self, x):
    state, out = None, []
    for t in range(x.shape[1]):
        z, state = self.lif(self.fc(x[:, t]), state)
        out.append(z)
    return torch.stack(out, dim=1)


def by_permuting(self, x):
    batch, steps, _ = x.size()
    x, state, out = x.permute(1, 0, 2), None, []
    for t in range(steps):
        z, state = self.lif(self.fc(x[t].view(batch, -1)), state)
        out.append(z)
    return torch.stack(out).transpose(0, 1)


def by_transposing(self, x):
    state, out = None, []
    for step in torch.transpose(x, 0, 1):
        z, state = self.lif(self.fc(step), state)
        out.append(z)
    return torch.stack(out).permute(1, 0, 2)


def by_unbinding_columns(self, x):
    state, out = None, []
    for step in x.unbind(1):
        z, state = self.lif(self.fc(step), state)
        out.append(z)
    return torch.stack(out, 1)


@pytest.mark.parametrize("forward", [by_columns, by_permuting, by_transposing, by_unbinding_columns], ids=lambda f: f.__name__)
def test_a_loop_over_an_input_with_the_batch_in_front(forward):
    model = dyadic(Stateless(forward, fc=nn.Linear(4, 5), lif=box())).eval()
    x = spikes_for((4,))
    with torch.no_grad():
        expected = model(torch.as_tensor(x).transpose(0, 1)).transpose(0, 1).numpy()
    graph = read_model(model, (4,))
    assert [layer.name for layer in graph.layers] == ["lif"]
    assert np.array_equal(simulate(graph, x).output, expected) and expected.any()
    with pytest.raises(UnsupportedError, match="takes batch in front of time; run the network that `load` reads from it"):
        run_model(model, x)


def by_unpacking(self, x):
    steps, _, features = x.shape
    state, out = None, []
    for t in range(steps):
        z, state = self.lif(self.fc(x[t, :].view(-1, features)), state)
        out += [z]
    return torch.stack(out)


def by_a_number_of_steps(self, x):
    state, out = None, []
    for t in range(25):
        z, state = self.lif(self.fc(x[t]), state)
        out.append(z)
    return torch.stack(out)


@pytest.mark.parametrize("forward", [by_unpacking, by_a_number_of_steps], ids=lambda f: f.__name__)
def test_a_loop_of_a_number_of_steps(forward):
    assert_same(dyadic(Stateless(forward, fc=nn.Linear(4, 5), lif=box())), (4,), steps=25)


def with_hidden_spikes(self, x):
    a, b, hidden, out = None, None, [], []
    for step in x:
        z, a = self.lif1(self.fc(step), a)
        y, b = self.lif2(self.fc2(z), b)
        hidden.append(z)
        out.append(y)
    return torch.stack(hidden), torch.stack(out), b


def as_a_dictionary(self, x):
    hidden, out, state = with_hidden_spikes(self, x)
    return {"spikes": out, "hidden": hidden, "state": state}


@pytest.mark.parametrize("forward", [with_hidden_spikes, as_a_dictionary], ids=lambda f: f.__name__)
def test_the_last_of_several_outputs_is_that_of_the_network(forward):
    model = dyadic(Stateless(forward, fc=nn.Linear(4, 5), lif1=box(), fc2=nn.Linear(5, 3), lif2=box())).eval()
    graph, x = read_model(model, (4,)), spikes_for((4,))
    assert graph.output == "lif2"
    assert graph.metadata["assumptions"] == ["the forward returns several outputs: that of 'lif2' is the network's"]
    with torch.no_grad():
        made = model(torch.as_tensor(x))
    expected = made["spikes"] if isinstance(made, dict) else made[1]
    assert np.array_equal(simulate(graph, x).output, expected.numpy()) and expected.any()


# -------------------------------------------------------------------------------------------------- feedback by hand


def from_zeros(self, x, state):
    z, state = state or (torch.zeros(x.shape[0], 4), None)
    z, state = self.lif(self.fc(x) + self.back(z), state)
    return z, (z, state)


def from_zeros_like(self, x, state):
    drive = self.fc(x)
    z, state = state or (torch.zeros_like(drive), None)
    z, state = self.lif(drive + self.back(z), state)
    return z, (z, state)


def from_new_zeros(self, x, state):
    drive = self.fc(x)
    z, state = state or (drive.new_zeros(x.size(0), 4), None)
    z, state = self.lif(self.back(z) + drive, state)
    return z, (z, state)


def by_a_branch(self, x, state):
    z, state = state or (None, None)
    drive = self.fc(x)
    z, state = self.lif(drive if z is None else drive + self.back(z), state)
    return z, (z, state)


def side_by_side(self, x, state):
    z, state = state or (torch.zeros(x.shape[0], 4), None)
    z, state = self.lif(self.both(torch.cat([x, z], dim=1)), state)
    return z, (z, state)


def directly(self, x, state):
    z, state = state or (None, None)
    drive = self.fc(x)
    z, state = self.lif(drive if z is None else drive - z, state)
    return z, (z, state)


def leaky(self, x, state):
    held, state = state or (0.0, None)
    held = held * 0.5 + self.fc(x)
    z, state = self.lif(held, state)
    return z, (held, state)


def change_of_input(self, x, state):
    before, state = state or (torch.zeros_like(x), None)
    z, state = self.lif(self.fc(x - before), state)
    return z, (x, state)


def feeds_back(self, x, state):
    z, state = state or (None, None)
    z, state = self.lif(self.fc(x) if z is None else self.fc(x) + self.back(z), state)
    return z, (z, state)


def adds_the_past(self, x, state):
    z, state = state or (None, None)
    drive = self.fc(x)
    z, state = self.lif(drive if z is None else drive + z, state)
    return z, (z, state)


def differences(self, x, state):
    before, state = state or (None, None)
    z, state = self.lif(self.fc(x) if before is None else self.fc(x - before), state)
    return z, (x, state)


def remembers_a_leak(self, x, state):
    v = 0.9 * (0.0 if state is None else state) + self.fc(x)
    return v, v


def in_an_attribute(self, x, state):
    drive = self.fc(x)
    z, state = self.lif(drive if self.held is None else drive + self.back(self.held), state)
    self.held = z
    return z, state


FEEDBACK = [from_zeros, from_zeros_like, from_new_zeros, by_a_branch, side_by_side, directly, change_of_input]
FEEDBACK += [feeds_back, adds_the_past, differences, remembers_a_leak]


def feedback(function):
    children = {"fc": nn.Linear(3, 4), "back": nn.Linear(4, 4), "both": nn.Linear(7, 4), "lif": box()}
    return dyadic(User(function, **children), levels=2)


@pytest.mark.parametrize("function", FEEDBACK, ids=lambda f: f.__name__)
def test_feedback_by_hand(function):
    graph = assert_same(feedback(function), (3,), steps=25)
    assert sum(edge.delay for edge in graph.edges) == 1


def test_a_leak_by_hand():
    graph = read_model(feedback(leaky), (3,))
    assert any(isinstance(layer.synapse, Scale) for layer in graph.layers)
    x = spikes_for((3,), steps=25)
    assert np.array_equal(simulate(graph, x).output, run_model(feedback(leaky), x))


def test_feedback_in_an_attribute():
    def fresh():
        model = feedback(in_an_attribute)
        model.held = None
        return model

    graph, x = read_model(fresh(), (3,)), spikes_for((3,), steps=20)
    assert np.array_equal(simulate(graph, x).output, run_model(fresh(), x))
    assert sum(edge.delay for edge in graph.edges) == 1


def two_steps_old(self, x):
    state, past, out = None, [], []
    for step in x:
        drive = self.fc(step)
        z, state = self.lif(drive + self.back(past[-2]) if len(past) > 1 else drive, state)
        past.append(z)
        out.append(z)
    return torch.stack(out)


def from_a_queue(delay):
    def forward(self, x):
        state, past, out = None, deque([torch.zeros(x.shape[1], 4)] * delay), []
        for step in x:
            z, state = self.lif(self.fc(step) + self.back(past.popleft()), state)
            past.append(z)
            out.append(z)
        return torch.stack(out)

    return forward


class EightStepsOld(nn.Module):
    """A loop whose forward compares the number of the step."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        state = other = None
        past, out = [], []
        for t in range(x.shape[0]):
            z, state = self.lif(self.fc(x[t]), state)
            past.append(z)
            y, other = self.lif2(8 * self.back(past[t - 8] if t >= 8 else torch.zeros_like(z)), other)
            out.append(y)
        return torch.stack(out)


def two_delays(self, x):
    state, past, out = None, [], []
    for step in x:
        drive = self.fc(step)
        if len(past) > 0:
            drive = drive + self.back(past[-1])
        if len(past) > 1:
            drive = drive - self.far(past[-2])
        z, state = self.lif(drive, state)
        past.append(z)
        out.append(z)
    return torch.stack(out)


@pytest.mark.parametrize(
    ("forward", "delays"),
    [(two_steps_old, {2}), (from_a_queue(1), {1}), (from_a_queue(2), {2}), (EightStepsOld, {8}), (two_delays, {1, 2})],
)
def test_feedback_of_several_steps_is_an_edge_of_that_delay(forward, delays):
    parts = {"fc": nn.Linear(3, 4), "back": nn.Linear(4, 4), "far": nn.Linear(4, 4), "lif": box(), "lif2": box()}
    model = forward(**parts) if isinstance(forward, type) else Stateless(forward, **parts)
    graph = assert_same(dyadic(model), (3,), active=False, steps=20)
    assert {edge.delay for edge in graph.edges} - {0} == delays
    assert 0.05 < simulate(graph, spikes_for((3,), steps=20)).output.astype(bool).mean() < 0.95


def test_bias_of_feedback_begins_when_the_forward_lets_it():
    """From zeros the bias of the recurrent weights acts from the first step on, behind a branch from the second."""
    for function, first in ((from_zeros, True), (by_a_branch, False)):
        model = feedback(function)
        model.fc.weight.data.zero_()
        model.fc.bias.data.zero_()
        model.back.weight.data.zero_()
        model.back.bias.data.fill_(4.0)
        graph = read_model(model, (3,))
        run = simulate(graph, np.zeros((3, 1, 3), bool))
        assert run.output[0].all() == first and run.output[1].all()
        assert np.array_equal(run.output, run_model(model, np.zeros((3, 1, 3))))


def keeps_two(self, x, state):
    z, older, state = state or (None, None, None)
    drive = self.fc(x)
    new, state = self.lif(drive if older is None else drive + self.back(older), state)
    return new, (new, z, state)


def feeds_the_first_back(self, x):
    state, first, out = None, None, []
    for step in x:
        drive = self.fc(step)
        z, state = self.lif(drive if first is None else drive + self.back(first), state)
        first = z if first is None else first
        out.append(z)
    return torch.stack(out)


def feeds_back_at_the_end(self, x):
    state, past, out = None, [], []
    for step in x:
        drive = self.fc(step)
        z, state = self.lif(drive + self.back(past[0]) if len(past) > 2 else drive, state)
        past.append(z)
        out.append(z)
    return torch.stack(out)


def starts_elsewhere(self, x, state):
    z, state = state or (torch.ones(x.shape[0], 4), None)
    z, state = self.lif(self.fc(x) + self.back(z), state)
    return z, (z, state)


def multiplies_the_past(self, x, state):
    z, state = state or (None, None)
    drive = self.fc(x)
    z, state = self.lif(drive if z is None else drive * z, state)
    return z, (z, state)


def returns_the_mean(self, x):
    return by_index(self, x).mean(1)


def returns_every_other(self, x):
    state, out = None, []
    for t in range(len(x)):
        z, state = self.lif(self.fc(x[t]), state)
        if t % 2:
            out.append(z)
    return torch.stack(out)


def runs_backwards(self, x):
    state, out = None, []
    for t in reversed(range(len(x))):
        z, state = self.lif(self.fc(x[t]), state)
        out.append(z)
    return torch.stack(out)


def resets_in_the_third(self, x):
    state, out = None, []
    for t, step in enumerate(x):
        z, state = self.lif(self.fc(step), None if t == 2 else state)
        out.append(z)
    return torch.stack(out)


def alternates(self, x):
    state, out = None, []
    for t, step in enumerate(x):
        z, state = self.lif(self.fc(-step if t > 2 else step), state)
        out.append(z)
    return torch.stack(out)


def loops_on_one_input(self, x):
    state = None
    for _ in range(3):
        z, state = self.lif(self.fc(x), state)
    return z


def takes_two_columns(self, x):
    return torch.stack([self.fc(x[:, 0]), self.back(x[:, 1])], 1)


def skips_a_step(self, x):
    return torch.stack([self.fc(x[t]) for t in (0, 1, 3)])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (feedback(keeps_two), "the model keeps the output of 'lif' one step before for a third step"),
        (feedback(starts_elsewhere), "uses a tensor of .* that the forward makes or keeps, with a value for each sample; put"),
        (feedback(multiplies_the_past), "the model runs in another way in the second step|multiplies"),
        (Stateless(feeds_the_first_back, fc=nn.Linear(3, 4), back=nn.Linear(4, 4), lif=box()),
         "'lif' runs in another way in the third step"),
        (Stateless(feeds_back_at_the_end, fc=nn.Linear(3, 4), back=nn.Linear(4, 4), lif=box()),
         "'back' uses the output of 'lif' 3 steps before, in other steps another"),
        (Stateless(returns_the_mean, fc=nn.Linear(3, 4), lif=box()), "calls 'mean', .*: return the outputs of all steps"),
        (Stateless(returns_every_other, fc=nn.Linear(3, 4), lif=box()), "returns 2 values, expected the outputs of all steps"),
        (Stateless(runs_backwards, fc=nn.Linear(3, 4), lif=box()), "gets a state|takes the input|runs in another way|starts"),
        (Stateless(resets_in_the_third, fc=nn.Linear(3, 4), lif=box()), "module 'lif' starts anew in every step"),
        (Stateless(alternates, fc=nn.Linear(3, 4), lif=box()), "runs in another way in a later step"),
        (Stateless(takes_two_columns, fc=nn.Linear(3, 4), back=nn.Linear(3, 4)), "'back' runs in another way in the second step"),
        (Stateless(skips_a_step, fc=nn.Linear(3, 4)), r"takes the steps \[0, 1, 3\] of x, expected x\[t\] of every step in turn"),
    ],
)  # fmt: skip
def test_a_call_that_steps_do_not_repeat_is_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (3,))


def stacks_steps_on_one_input(self, x):
    state, out = None, []
    for _ in range(5):
        z, state = self.lif(self.fc(x), state)
        out.append(z)
    return torch.stack(out)


def counts_spikes_on_one_input(self, x):
    return stacks_steps_on_one_input(self, x).sum(0)


@pytest.mark.parametrize("forward", [loops_on_one_input, stacks_steps_on_one_input, counts_spikes_on_one_input])
def test_a_loop_that_feeds_one_input_in_every_step_is_read(forward):
    model = dyadic(Stateless(forward, fc=nn.Linear(3, 4), lif=box()))
    graph = read_model(model, (3,))
    assert graph.metadata["assumptions"][0] == (
        "the forward feeds the same input in every step: the network takes it step by step"
    )
    x = 64 * spikes_for((3,))[:1]
    steps = 3 if forward is loops_on_one_input else 5
    ours = simulate(graph, np.repeat(x, steps, axis=0), kind="current").output
    with torch.no_grad():
        theirs = model(torch.from_numpy(x[0])).numpy()
    ours = {loops_on_one_input: ours[-1], counts_spikes_on_one_input: ours.sum(0)}.get(forward, ours)
    np.testing.assert_array_equal(ours, theirs)
    assert theirs.any()
    with pytest.raises(
        UnsupportedError, match="the model feeds one input in all its steps, which have no input of their own; run"
    ):
        run_model(model, x)


def two_steps_inside(self, x, state):
    state = self.lif(self.fc(x), state)[1]
    return self.lif(self.fc(x), state)


def test_two_steps_on_one_input_in_a_step_that_hands_its_state_back_are_refused():
    with pytest.raises(UnsupportedError, match="module 'lif' is called twice in one step; use two modules"):
        read_model(User(two_steps_inside, fc=nn.Linear(3, 4), lif=box()), (3,))


# ----------------------------------------------------------------------------------------------------- side by side


def test_weights_behind_concatenated_branches_are_split():
    def forward(self, x, state):
        a, b = state or (None, None)
        left, a = self.lif1(self.conv1(x), a)
        right, b = self.lif2(self.conv2(x), b)
        both = functional.avg_pool2d(self.bn(torch.cat((left, right, x), 1)), 2)
        return self.fc(self.drop(both).flatten(1)), (a, b)

    model = User(
        forward, conv1=nn.Conv2d(2, 3, 3, padding=1), conv2=nn.Conv2d(2, 4, 1), lif1=box(), lif2=norse.IAFCell(),
        bn=nn.BatchNorm2d(9), drop=nn.Dropout(), fc=nn.Linear(9 * 9, 5),
    )  # fmt: skip
    assert_same(dyadic(model), (2, 6, 6))


def test_dense_blocks():
    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.conv, self.lif = nn.Conv2d(channels, 3, 3, padding=1), box()

        def forward(self, x, state=None):
            z, state = self.lif(self.conv(x), state)
            return torch.cat([x, z], dim=-3), state

    graph = assert_same(dyadic(State(Block(2), Block(5), Block(8), nn.Flatten(), nn.Linear(11 * 16, 4), box())), (2, 4, 4))
    assert not any("cat" in layer.name for layer in graph.layers)
    third = [layer for layer in graph.layers if layer.name.startswith("2.conv.") and isinstance(layer.synapse, Conv2d)]
    assert [layer.synapse.weight.shape[1] for layer in third] == [2, 3, 3]


def test_neurons_and_outputs_of_concatenated_branches_are_joined():
    def forward(self, x, state):
        z, state = self.lif(torch.cat([self.a(x), self.b(x)], 1), state)
        return torch.cat([z, x], 1), state

    graph = assert_same(dyadic(User(forward, a=nn.Linear(3, 4), b=nn.Linear(3, 2), lif=box())), (3,))
    assert graph.shape_of(graph.output) == (9,)


def test_concatenation_over_time_and_before_grouped_convolutions():
    def forward(self, x):
        z = self.lif(self.a(x))[0]
        return self.b(torch.cat([z, x], 2))

    model = Stateless(forward, a=nn.Linear(3, 4), lif=norse.LIF(), b=nn.Linear(7, 2))
    assert_same(dyadic(model), (3,))
    grouped = User(lambda s, x, state: s.lif(s.conv(torch.cat([x, s.one(x)], 1)), state), one=nn.Conv2d(2, 2, 1),
                   conv=nn.Conv2d(4, 4, 3, groups=2), lif=box())  # fmt: skip
    assert_same(dyadic(grouped), (2, 5, 5))


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (lambda x: torch.cat([x, x], 2), "puts 2 x 4 x 4, 2 x 4 x 4 values side by side along axis 2; only channels"),
        (lambda x: torch.cat([x, x], 0), "along axis 0; only channels, axis 1"),
        (lambda x: torch.stack([x, x], 1), "stacks outputs along axis 1"),
        (lambda x: x.new_zeros(2, 2, 4, 4) + x, "than batch x a layer's; start from zeros_like.*, or append the outputs"),
    ],
)
def test_other_concatenations_are_refused(join, message):
    model = User(lambda s, x, state: s.lif(join(s.conv(x)), state), conv=nn.Conv2d(2, 2, 1), lif=box())
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (2, 4, 4))


@pytest.mark.parametrize("make", [lambda width: nn.Linear(width, 2), nn.BatchNorm1d])
@pytest.mark.parametrize("width", [6, 8])
def test_what_follows_signals_side_by_side_takes_all_of_them_and_no_more(make, width):
    model = Stateless(lambda s, x: s.b(torch.cat([s.a(x), x], 1)), a=nn.Linear(3, 4), b=make(width))
    with pytest.raises(GraphError, match=f"module 'b' takes {width} channels, its input has 7; check the shapes"):
        read_model(model.eval(), (3,))


# -------------------------------------------------------------------------------- maxima, pads, transposed convolutions


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=1, padding=1), nn.MaxPool2d((2, 3), stride=(1, 2)), nn.AdaptiveMaxPool2d(3)],
    ids=str,
)
def test_the_maximum_of_spikes_is_a_neuron_of_the_same_step(pool):
    model = State(nn.Conv2d(2, 4, 3, padding=1), box(), pool, nn.Flatten(), nn.LazyLinear(5), norse.LIFCell())
    model.eval()(torch.zeros(1, 2, 6, 6))
    graph = assert_same(dyadic(model), (2, 6, 6))
    assert isinstance(graph["2"].neuron, IF) and isinstance(graph["2"].synapse, SumPool)


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), (2, 5, 7)), (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), (2, 6, 5)),
        (nn.MaxPool2d((2, 3), (3, 2), ceil_mode=True), (2, 7, 6)), (nn.MaxPool2d(2, 3, padding=1, ceil_mode=True), (2, 5, 6)),
        (nn.MaxPool1d(3, 2, ceil_mode=True), (2, 8)), (nn.MaxPool1d(2, 5, ceil_mode=True), (2, 9)),
    ],
)  # fmt: skip
def test_a_maximum_of_windows_that_reach_over_the_border(pool, shape):
    conv = nn.Conv1d(2, 2, 1) if len(shape) == 2 else nn.Conv2d(2, 2, 1)
    torch.manual_seed(0)
    assert_same(State(dyadic(conv), box(), pool), shape, active=False)


def test_maxima_over_time_layers_functions_and_branches():
    model = State(norse.Lift(nn.Conv1d(2, 3, 3)), norse.LIF(), norse.Lift(nn.MaxPool1d(2)), norse.Lift(nn.MaxPool1d(2)))
    assert_same(dyadic(model), (2, 10))

    def forward(self, x, state):
        a, b = state or (None, None)
        left, a = self.lif1(self.conv1(x), a)
        right, b = self.lif2(self.conv2(x), b)
        return functional.max_pool2d(functional.relu(torch.cat([left, right], 1)), 2), (a, b)

    model = User(forward, conv1=nn.Conv2d(2, 2, 1), conv2=nn.Conv2d(2, 2, 1), lif1=box(), lif2=norse.IAFCell())
    assert_same(dyadic(model), (2, 4, 4))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (nn.MaxPool2d(2, dilation=2), "'1' is MaxPool2d with dilation or return_indices"),
        (nn.AdaptiveMaxPool2d(3), "'1' pools 5 x 5 to 3 x 3 by uneven windows"),
    ],
)
def test_other_max_pools_are_refused(pool, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(State(box(), pool), (1, 5, 5))
    with pytest.raises(UnsupportedError, match="module '1' is .*MaxPool2d, .*of the spikes of neurons alone"):
        read_model(State(nn.Conv2d(1, 2, 1), pool, box()), (1, 5, 5))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.ConvTranspose2d(4, 6, 3), (4, 5, 5)),
        (nn.ConvTranspose2d(4, 6, (3, 2), padding=(1, 0), groups=2, dilation=(1, 2), bias=False), (4, 5, 5)),
        (nn.ConvTranspose1d(2, 3, 4, padding=2), (2, 7)),
        (nn.ZeroPad2d((1, 2, 0, 3)), (2, 4, 5)),
        (nn.ZeroPad2d(2), (3, 4, 4)),
        (nn.ConstantPad1d((3, 1), 0.0), (2, 5)),
    ],
    ids=str,
)
def test_transposed_convolutions_of_stride_one_and_pads(module, shape):
    assert_same(dyadic(State(module, box())), shape, active=False)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.ConvTranspose2d(1, 2, 2, stride=2), "'0' is ConvTranspose2d of stride 2 x 2, expected 1; use Conv2d"),
        (nn.ConvTranspose2d(1, 2, 2, padding=2), "'0' cuts off 2 x 2 positions, more than its kernel adds"),
        (nn.ConstantPad2d(1, 0.5), r"'0' pads by \(1, 1, 1, 1\) with 0.5; pad with zeros"),
        (nn.ZeroPad2d((-1, 0, 0, 0)), r"'0' pads by \(-1, 0, 0, 0\) with 0"),
    ],
)
def test_other_pads_and_transposed_convolutions_are_refused(module, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(State(module, box()), (1, 5, 5))


def test_concatenated_states_are_refused():
    model = User(lambda s, x, state: torch.cat([s.lif(x, state), x], 1), lif=box())
    with pytest.raises(UnsupportedError, match=r"the model puts .output, state. beside others"):
        read_model(model, (3,))


def test_zeros_alone_are_refused():
    model = User(lambda s, x, state: s.lif(s.fc(torch.zeros_like(x)), state), fc=nn.Linear(3, 4), lif=box())
    with pytest.raises(UnsupportedError, match="module 'fc' gets zeros in every step"):
        read_model(model, (3,))
    assert isinstance(read_model(State(nn.Linear(3, 4), box()), (3,))["1"].synapse, Dense)


# ------------------------------------------------------------------------------------------------------- some channels


class Apart(nn.Module):
    """A loop that takes channels of its input and of spikes apart; `take` says how."""

    def __init__(self, take):
        super().__init__()
        self.a, self.b, self.c, self.take = nn.Linear(4, 5), nn.Linear(2, 3), nn.Linear(9, 4), take
        self.lif_a, self.lif_b, self.lif_c = box(), box(), box()

    def forward(self, x):
        a = b = c = None
        out = []
        for t in range(len(x)):
            left, right = self.take(x, t)
            za, a = self.lif_a(self.a(left), a)
            zb, b = self.lif_b(self.b(nn.functional.dropout(right, training=self.training)), b)
            z, c = self.lif_c(self.c(torch.cat([za, zb, za[:, 1:2] + za[:, 4:]], 1)), c)
            out.append(z)
        return torch.stack(out)


@pytest.mark.parametrize(
    "take",
    [
        lambda x, t: (x[t][:, :4], x[t][:, 4:]),
        lambda x, t: (x[t, :, :4], x[t, ..., -2:]),
        lambda x, t: torch.split(x[t], [4, 2], dim=1),
        lambda x, t: x[t].split(4, dim=-1),
        lambda x, t: (x[t][:, 0:4], x[t].chunk(3, 1)[2]),
        lambda x, t: (x[t].split(split_size=4, dim=1)[0], torch.chunk(x[t], chunks=3, dim=1)[2]),
    ],
)
def test_channels_that_a_forward_takes_apart_are_weights_of_zero(take):
    torch.manual_seed(0)
    model, x = Apart(take).eval(), torch.rand(12, 2, 6) * 8
    with torch.no_grad():
        for layer in (model.a, model.b, model.c):
            layer.weight.add_(0.3)
        spikes = model(x).numpy()
    graph = read_model(model, (6,))
    assert layers_of(graph)["lif_a"].synapse.weight.shape == (5, 6) and not layers_of(graph)["lif_a"].synapse.weight[:, 4:].any()
    assert 0.1 < spikes.mean() < 0.9
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, spikes)


def test_channels_of_a_map_and_of_another_number_are_checked():
    class Halves(nn.Module):
        def __init__(self, *sizes):
            super().__init__()
            self.first, self.second, self.sizes = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3, groups=1), sizes

        def forward(self, x):
            a, b = torch.split(x, self.sizes, dim=1)
            return self.first(a) - self.second(b)

    torch.manual_seed(0)
    x, model = torch.rand(2, 4, 5, 5), Halves(2, 2)
    ours = simulate(read_model(model, (4, 5, 5)), x.numpy()[None], kind="current").output[0]
    np.testing.assert_allclose(ours, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    for sizes, shape, message in (
        ((2, 2), (5, 5, 5), "the model splits 5 channels into 4; give the input another shape"),
        (
            (3, 1),
            (4, 5, 5),
            "module 'first' takes 2 channels, its input has 3; check the shapes",
        ),
    ):
        with pytest.raises((UnsupportedError, GraphError), match=message):
            read_model(Halves(*sizes), shape)
    with pytest.raises(UnsupportedError, match=r"takes \[:, 4:\] of .*; its shape here is 4; give another input shape"):
        read_model(Apart(lambda x, t: (x[t][:, :4], x[t][:, 4:])), (4,))
    with pytest.raises(UnsupportedError, match="the model splits the output of 'input' along axis 2; only channels"):
        read_model(Stateless(lambda s, x: s.a(x.chunk(2, 2)[0]), a=nn.Conv2d(1, 2, 3)), (1, 6, 6))


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (lambda x: x[:, ::2], r"takes \[:, ::2\] of the output of 'input'; take channels that lie side by side"),
        (lambda x: x.split(0, 1)[0], "calls 'split' by the constant 0; expected whole numbers from 1 on"),
        (lambda x: x.split([4, 0], 1)[0], "calls 'split' by 2 values; expected whole numbers from 1 on"),
        (
            lambda x: x.float(mean=2).split(2, 1, 3, 4),
            "calls 'split' with arguments that have no counterpart here: 2, 1, 3, 4; l",
        ),
    ],
)
def test_channels_that_cannot_be_taken_are_named(take, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(Stateless(lambda s, x: s.a(take(x)), a=nn.Linear(4, 5)), (4,))


def test_weights_behind_some_channels_do_not_go_home():
    model = Apart(lambda x, t: (x[t][:, :4], x[t][:, 4:]))
    with pytest.raises(UnsupportedError, match="module 'a' takes 4 of the 6 channels of its input; a network whose"):
        store_weights(model, read_model(model, (6,)))


def test_a_forward_of_two_inputs_or_with_time_at_the_end_is_refused():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif = nn.Linear(4, 5), nn.Linear(2, 5), box()

        def forward(self, sound, sight):
            state, out = None, []
            for t in range(len(sound)):
                z, state = self.lif(self.a(sound[t]) + self.b(sight[t]), state)
                out.append(z)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match=r"its forward takes 2 inputs \(sound, sight\), a network here has one"):
        read_model(Pair(), (4,))
    late = Stateless(lambda s, x: torch.stack([s.a(x[..., t]) for t in range(x.shape[-1])]), a=nn.Linear(4, 5))
    with pytest.raises(UnsupportedError, match=r"takes \[..., 0\] of the output of 'input'; let time be its first axis"):
        read_model(late, (4,))


class PartOfState(nn.Module):
    """A loop whose output is what `take` takes of the state of its last cell."""

    def __init__(self, last, take):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.out, self.last, self.take = nn.Linear(6, 8), box(), nn.Linear(8, 3), last, take

    def forward(self, x):
        hidden, state, out = None, None, []
        for t in range(x.shape[0]):
            z, hidden = self.lif(self.fc(x[t]), hidden)
            _, state = self.last(self.out(z), state)
            out.append(self.take(state))
        return torch.stack(out)


@pytest.mark.parametrize(
    ("make", "take"),
    [
        (norse.LICell, lambda state: state.v),
        (norse.LICell, lambda state: state[0]),
        (lambda: norse.LIFRecurrentCell(3, 3), lambda state: state.z),
        (lambda: norse.LIFRecurrentCell(3, 3), lambda state: state[0]),
    ],
)
def test_a_part_of_the_state_that_is_sent_is_the_output(make, take):
    torch.manual_seed(1)
    model, x = PartOfState(make(), take), spikes_for((6,), steps=12)
    expected = model(torch.as_tensor(x, dtype=torch.float32)).detach().numpy()
    assert np.allclose(simulate(read_model(model, (6,)), x).output, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "take"),
    [
        (norse.LICell, lambda state: state.i),
        (norse.LICell, lambda state: state[1]),
        (lambda: norse.LIFRecurrentCell(3, 3), lambda state: state.i),
    ],
)
def test_a_current_of_the_state_is_no_output(make, take):
    """It was read as the potential, without a word."""
    with pytest.raises(
        UnsupportedError, match="returns 'i' of the state of module 'last', which is not sent; return its spikes or"
    ):
        read_model(PartOfState(make(), take), (6,))


LEAK = torch.tensor(0.05)
"""A potential other than zero, at which a cell starts."""


def cell_of(kind):
    cells = {
        "box": lambda: norse.LIFBoxCell(
            norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_leak=LEAK, v_th=torch.tensor(0.4))
        ),
        "current": lambda: norse.LIFCell(
            norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_leak=LEAK, v_th=torch.tensor(0.3))
        ),
        "recurrent": lambda: norse.LIFRecurrentCell(8, 8, p=norse.LIFParameters(v_leak=LEAK, v_th=torch.tensor(0.2))),
    }
    return cells[kind]()


class StartsAtInitialState(nn.Module):
    """Asks its cell for the state to start from, with what a layer gives of the first step, or of each."""

    def __init__(self, kind, *, is_loop):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.is_loop = nn.Linear(6, 8), cell_of(kind), is_loop
        nn.init.uniform_(self.fc.weight, -0.4, 1)

    def forward(self, x, state=None):
        if not self.is_loop:
            current = self.fc(x)
            return self.lif(current, self.lif.initial_state(current) if state is None else state)
        state, out = self.lif.initial_state(self.fc(x[0]) if self.is_loop is True else torch.zeros(x.shape[1], 8)), []
        for step in x:
            z, state = self.lif(self.fc(step), state)
            out.append(z)
        return torch.stack(out)


@pytest.mark.parametrize("kind", ["box", "current", "recurrent"])
@pytest.mark.parametrize("is_loop", [True, False, "from zeros"])
def test_a_forward_asks_a_cell_for_its_first_state(kind, is_loop):
    """In a loop it was refused as another step, or as a star that the forward has not."""
    model, x = StartsAtInitialState(kind, is_loop=is_loop), (torch.rand(40, 2, 6) < 0.4).float()
    state, out = None, []
    with torch.no_grad():
        for step in x if not is_loop else ():
            z, state = model(step, state)
            out.append(z)
        expected = (model(x) if is_loop else torch.stack(out)).numpy()
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.numpy(), kind="current").output, expected)
