"""Ways to write a forward in Python: each gives the network of the forward that is written out."""

from collections import deque

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model
from spear_deploy.simulator import simulate

torch.set_num_threads(1)
STEPS = 50


class Net(nn.Module):
    """Two layers of neurons, with a forward over time or of one step."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        p = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.4))
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(12, 8), norse.LIFBoxCell(p), nn.Linear(8, 5), norse.LIFBoxCell(p)
        self.log, self._forward = [], forward
        for fc in (self.fc1, self.fc2):
            nn.init.uniform_(fc.weight, -0.6, 1)

    def forward(self, x, state=None):
        return self._forward(self, x, state)


class Loop(Net):
    """The same, without a state."""

    def forward(self, x):
        return self._forward(self, x)


def draw_input():
    return (np.random.default_rng(0).random((STEPS, 3, 12)) < 0.3).astype(np.float32)


def run_steps(net, x):
    """Return the spikes of a net of one step."""
    state, outputs = None, []
    for value in torch.from_numpy(x):
        z, state = net(value, state)
        outputs.append(z)
    return torch.stack(outputs)


def check(net):
    """Compare the spikes of a net and of the network read from it; return the network."""
    x = draw_input()
    graph = read_model(net, (12,))
    with torch.no_grad():
        expected = (net(torch.from_numpy(x)) if isinstance(net, Loop) else run_steps(net, x)).numpy()
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)
    return graph


# ----------------------------------------------------------------------------------------------- values of a module's result


def by_star(self, x):
    (a,), (b,), out = (None,), (None,), []
    for step in x:
        z, *a = self.l1(self.fc1(step), *(a if isinstance(a, list) else (a,)))
        z, *b = self.l2(self.fc2(z), *(b if isinstance(b, list) else (b,)))
        out.append(z)
    return torch.stack(out)


def by_list(self, x):
    a, b, out = None, None, []
    for step in x:
        z, a = list(self.l1(self.fc1(step), a))
        result = tuple(self.l2(self.fc2(z), b))
        b = result[1]
        out.append(result[0])
    return torch.stack(out)


def by_end(self, x):
    a, b, out = None, None, []
    for step in x:
        z = self.l1(self.fc1(step), a)
        a = z[-1]
        y = self.l2(self.fc2(z[-2]), b)
        (b,) = y[1:]
        assert len(y) == 2
        out.append(y[0])
    return torch.stack(out)


@pytest.mark.parametrize("forward", [by_star, by_list, by_end], ids=lambda f: f.__name__)
def test_values_of_a_cell_are_taken_by_a_star_a_list_or_from_the_end(forward):
    check(Loop(forward))


def test_a_star_hands_the_state_of_one_step_on():
    def one_step(self, x, state):
        z, *state = self.l1(self.fc1(x), *(state or ()))
        return z, state

    check(Net(one_step))


# ------------------------------------------------------------------------------------------------------------------- logs


def append(self, z):
    self.log.append(z)


def append_to_a_dictionary(self, z):
    self.record = getattr(self, "record", None) or {"l1": [], "steps": 0}
    self.record["l1"].append(z)
    self.record["steps"] += 1


def append_numbers(self, z):
    self.log.append((z.detach().cpu().numpy(), z.tolist()))


def run_with_log(keep):
    def one_step(self, x, state):
        a, b = state or (None, None)
        z, a = self.l1(self.fc1(x), a)
        keep(self, z)
        z, b = self.l2(self.fc2(z), b)
        return z, (a, b)

    return one_step


@pytest.mark.parametrize("keep", [append, append_to_a_dictionary, append_numbers], ids=lambda f: f.__name__)
def test_a_list_of_spikes_for_a_log_changes_nothing(keep):
    check(Net(run_with_log(keep)))


@pytest.mark.parametrize("delay", [2, 40, 100])
def test_a_list_of_spikes_of_which_a_later_step_takes_some_is_refused(delay):
    def one_step(self, x, state):
        a, b = state or (None, None)
        z, a = self.l1(self.fc1(x), a)
        self.log.append(z)
        z, b = self.l2(self.fc2(self.log[-delay] if len(self.log) > delay else z), b)
        return z, (a, b)

    with pytest.raises(UnsupportedError, match="the model keeps the output of 'l1' one step before for a third step; feed back"):
        read_model(Net(one_step), (12,))


@pytest.mark.parametrize("make", [lambda: deque(maxlen=100), lambda: [torch.zeros(2, 8)]], ids=("deque", "zeros in front"))
def test_spikes_that_wait_for_a_late_step_are_refused(make):
    """A list that is full in a late step alone is no log."""

    def one_step(self, x, state):
        a, b = state or (None, None)
        z, a = self.l1(self.fc1(x), a)
        self.log.append(z)
        z, b = self.l2(self.fc2(z), b)
        return z, (a, b)

    net = Net(one_step)
    net.log = make()
    with pytest.raises(UnsupportedError, match="the model keeps the output of 'l1' one step before for a third step; feed back"):
        read_model(net, (12,))


# ------------------------------------------------------------------------------------------------------- states to start from


def like_a_call(self, x):
    return torch.zeros_like(self.fc1(x[0])), torch.zeros_like(self.fc2(self.fc1(x[0])))


def of_a_shape(self, x):
    hidden = self.fc1(x[0])
    return torch.zeros(hidden.shape), torch.zeros(self.fc2(hidden).size())


def of_calls_of_zeros(self, x):
    hidden = torch.zeros_like(self.fc1(x[0]))
    return hidden, torch.zeros_like(self.fc2(hidden))


@pytest.mark.parametrize("start", [like_a_call, of_a_shape, of_calls_of_zeros], ids=lambda f: f.__name__)
def test_zeros_of_the_shape_of_a_call_are_a_state_to_start_from(start):
    def forward(self, x):
        (a, b), out = (norse.LIFBoxFeedForwardState(v=zeros) for zeros in start(self, x)), []
        for step in x:
            z, a = self.l1(self.fc1(step), a)
            z, b = self.l2(self.fc2(z), b)
            out.append(z)
        return torch.stack(out)

    assert [layer.name for layer in check(Loop(forward)).layers] == ["l1", "l2"]


def test_zeros_of_the_shape_of_a_call_are_spikes_to_feed_back_first():
    def forward(self, x):
        a, b, out = None, None, []
        before = torch.zeros_like(self.fc1(x[0]))
        for step in x:
            before, a = self.l1(self.fc1(step) + 0.5 * before, a)
            z, b = self.l2(self.fc2(before), b)
            out.append(z)
        return torch.stack(out)

    assert any(edge.delay == 1 for edge in check(Loop(forward)).edges)


def test_a_call_of_which_more_than_the_shape_is_used_stays_a_call():
    def forward(self, x):
        first = self.fc1(x[0])
        a, b, out = norse.LIFBoxFeedForwardState(v=torch.zeros_like(first)), None, []
        for step in x:
            z, a = self.l1(self.fc1(step) + first, a)
            z, b = self.l2(self.fc2(z), b)
            out.append(z)
        return torch.stack(out)

    with pytest.raises(UnsupportedError, match="module 'l1' runs in another way in the second step; let every step compute the"):
        read_model(Loop(forward), (12,))


@pytest.mark.parametrize("make", [torch.zeros, torch.empty, torch.ones], ids=lambda f: f.__name__)
def test_a_size_of_what_a_call_gives_is_refused_by_its_cause(make):
    def forward(self, x):
        return self.l1(self.fc1(x[0]) + make(self.fc1(x[0]).size(0), 8))[0]

    with pytest.raises(
        UnsupportedError, match="counts with the size of a tensor whose shape is not known in a trace; take the size"
    ):
        read_model(Loop(forward), (12,))


# ----------------------------------------------------------------------------------------------- outputs put behind each other


def with_a_new_axis(z, dim):
    return z[None] if dim == 0 else z[:, None]


@pytest.mark.parametrize("put", [torch.unsqueeze, with_a_new_axis], ids=("unsqueeze", "index"))
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("grows", [False, True])
def test_outputs_that_cat_puts_behind_each_other_are_those_of_all_steps(put, dim, grows):
    def forward(self, x):
        a, b, out = None, None, []
        for step in x:
            z, a = self.l1(self.fc1(step), a)
            z, b = self.l2(self.fc2(z), b)
            out.append(put(z, dim))
            if grows and len(out) == 2:
                out = [torch.cat(out, dim)]
        out = torch.cat(out, dim) if not grows else out[0]
        return out if dim == 0 else out.transpose(0, 1)

    check(Loop(forward))


def test_outputs_that_cat_puts_in_front_of_each_other_are_refused():
    def forward(self, x):
        state, out = None, None
        for step in x:
            z, state = self.l1(self.fc1(step), state)
            out = z[None] if out is None else torch.cat((z[None], out))
        return out

    with pytest.raises(
        UnsupportedError, match="returns the output of 'l1' for step 0, for the last one the output of 'l1' 3 steps"
    ):
        read_model(Loop(forward), (12,))


class Runs(nn.Module):
    """A layer with its own loop over time."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.cell = norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.4)))
        nn.init.uniform_(self.fc.weight, -0.6, 1)

    def forward(self, x):
        state, out = None, []
        for t in range(x.shape[0]):
            z, state = self.cell(self.fc(x[t]), state)
            out.append(z)
        return torch.stack(out)


class Branches(Loop):
    """Layers one after the other, each over all steps."""

    def __init__(self, forward):
        super().__init__(forward)
        del self.fc1, self.fc2, self.l1, self.l2
        torch.manual_seed(0)
        self.a, self.b, self.c = Runs(12, 8), Runs(8, 6), Runs(14, 5)


@pytest.mark.parametrize(
    "join",
    [
        lambda x, a, b: torch.cat([a, b], -1),
        lambda x, a, b: torch.cat((b, a), dim=2),
        lambda x, a, b: torch.cat([a[..., 2:], b, a[:, :, :2]], -1),
        lambda x, a, b: torch.concat([x[:, :, :6], a], axis=2),
    ],
    ids=("last axis", "third axis", "slices", "input"),
)
def test_outputs_of_all_steps_are_put_side_by_side(join):
    def forward(self, x):
        a = self.a(x)
        return self.c(join(x, a, self.b(a)))

    check(Branches(forward))


@pytest.mark.parametrize("dim", [0, 1])
def test_outputs_of_all_steps_behind_each_other_are_refused(dim):
    def forward(self, x):
        a = self.a(x)
        return self.b(torch.cat([a, a], dim))

    with pytest.raises(
        UnsupportedError, match="counts with the size of a tensor whose shape is not known in a trace; take the size"
    ):
        read_model(Branches(forward), (12,))


def test_channels_of_the_last_layer_are_an_output():
    def of_a_loop(self, x):
        state, out = None, []
        for step in x:
            z, state = self.l1(self.fc1(step), state)
            out.append(z[:, 2:6])
        return torch.stack(out)

    def of_one_step(self, x, state):
        z, state = self.l1(self.fc1(x), state)
        return z[:, 2:6], state

    graphs = check(Loop(of_a_loop)), check(Net(of_one_step))
    assert [[layer.name for layer in graph.layers] for graph in graphs] == [["l1", "model.channels"]] * 2


def test_channels_that_differ_between_steps_are_no_output():
    def in_a_loop(self, x):
        state, out = None, []
        for step in x:
            z, state = self.l1(self.fc1(step), state)
            out.append(z[:, :4] if len(out) < 20 else z[:, 4:])
        return torch.stack(out)

    def in_a_step(self, x, state):
        z, inner = self.l1(self.fc1(x), state)
        return z[:, :4] if state is None else z[:, 4:], inner

    with pytest.raises(
        UnsupportedError, match="the model: its forward returns channels of the output of 'l1' 33 steps before for"
    ):
        read_model(Loop(in_a_loop), (12,))
    with pytest.raises(
        UnsupportedError, match="returns channels of the output of 'l1', in the second step channels of the output"
    ):
        read_model(Net(in_a_step), (12,))


# ------------------------------------------------------------------------------------------- tensors for outputs, and votes

BUFFERS = {
    "empty": lambda x: x.new_empty(len(x), x.shape[1], 5),
    "tuple": lambda x: x.new_empty((len(x), x.shape[1], 5), dtype=torch.float32),
    "zeros": lambda x: x.new_zeros(x.size(0), x.size(1), 5),
}


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_outputs_are_written_to_a_tensor_that_the_input_makes(make):
    def forward(self, x):
        out, a, b = make(x), None, None
        for t in range(len(x)):
            z, a = self.l1(self.fc1(x[t]), a)
            out[t], b = self.l2(self.fc2(z), b)
        return out

    check(Loop(forward))


def test_zeros_without_a_batch_are_fed_back_first():
    def forward(self, x):
        z, a, b, out = torch.zeros(5), None, None, []
        for step in x:
            h, a = self.l1(self.fc1(step), a)
            z, b = self.l2(self.fc2(h) + 0.3 * z, b)
            out.append(z)
        return torch.stack(out)

    check(Loop(forward))


def test_a_product_of_all_steps_with_weights_is_taken_step_by_step():
    def forward(self, x):
        currents, a, out = torch.matmul(x @ self.fc1.weight.T, self.fc2.weight.T), None, []
        for t in range(len(x)):
            z, a = self.l1(currents[t], a)
            out.append(z)
        return torch.stack(out)

    check(Loop(forward))


VOTES = {
    "sum": lambda z, axes: z.view(*axes, 4, 2).sum(-1),
    "mean": lambda z, axes: z.reshape(*axes, 2, 4).mean(len(axes)),
    "last": lambda z, axes: z.view(*axes, 2, -1).mean(dim=-1),
}


@pytest.mark.parametrize("is_batch_first", [False, True])
@pytest.mark.parametrize("vote", VOTES.values(), ids=VOTES)
def test_groups_of_the_outputs_of_all_steps_are_added_up(vote, is_batch_first):
    def forward(self, x):
        a, out = None, []
        for step in x:
            z, a = self.l1(self.fc1(step), a)
            out.append(z)
        out = torch.stack(out, int(is_batch_first))
        out = vote(out, out.shape[:2])
        return out.transpose(0, 1) if is_batch_first else out

    check(Loop(forward))


def test_groups_of_one_step_are_made_by_unflatten():
    def forward(self, x, state):
        z, state = self.l1(self.fc1(x), state)
        return torch.unflatten(z, 1, (4, -1)).mean(-1), state

    check(Net(forward))


def test_groups_of_a_sum_over_time_are_refused():
    def forward(self, x):
        a, out = None, []
        for step in x:
            z, a = self.l1(self.fc1(step), a)
            out.append(z)
        return torch.stack(out).sum(0).view(-1, 4, 2).sum(-1)

    with pytest.raises(UnsupportedError, match="calls 'view', which has no counterpart here: return the outputs of all steps"):
        read_model(Loop(forward), (12,))
