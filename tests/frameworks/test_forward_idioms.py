"""Ways to write a forward in Python: each gives the network of the forward that is written out."""

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn

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
