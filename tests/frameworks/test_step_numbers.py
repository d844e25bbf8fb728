"""Forwards that use the number of a step: what differs in a later step is refused, what does not is read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.forward_code import LOOP_STEPS, MAX_COMPARED
from spear_deploy.frameworks.importer.import_model import LONGER
from spear_deploy.frameworks.models import read_model
from spear_deploy.simulator import simulate
from tests.support.step_forwards import Net

torch.set_num_threads(1)
PRESENT = 6


def scale(x, t):
    return x[t] * 2 if t >= 6 else x[t]


def by_global(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(x[t] * 2 if t >= PRESENT else x[t]), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_list(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(x[t] * self.gains[t]), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_tuple(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(x[t] * 2 if t in (5, 6) else x[t]), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_number_of_another_type(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(x[t] * 2 if t >= int(self.present) else x[t]), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_method(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(self.change(x, t)), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_function(self, x):
    state, outputs = None, []
    for step in range(x.size(0)):
        z, state = self.cell(self.fc(scale(x, step)), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_least(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(x[min(t, 5)]), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_two_loops(self, x):
    state, outputs = None, []
    for t in range(5):
        z, state = self.cell(self.fc(x[t]), state)
        outputs.append(z)
    for t in range(5, x.shape[0]):
        z, state = self.cell(self.fc(x[t] * 2), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_while(self, x):
    state, outputs, t = None, [], 0
    while t < x.shape[0]:
        z, state = self.cell(self.fc(x[t] * 2 if t >= 6 else x[t]), state)
        outputs.append(z)
        t += 1
    return torch.stack(outputs)


def by_counter(self, x):
    state, outputs, self.count = None, [], 0
    for value in x:
        z, state = self.cell(self.fc(value * 2 if self.count >= 6 else value), state)
        outputs.append(z)
        self.count += 1
    return torch.stack(outputs)


def in_method(self, x):
    return torch.stack(self.loop(x))


def in_generator(self, x):
    return torch.stack(list(self.yield_steps(x)))


def run_loop(net, x):
    return torch.stack(net.loop(x))


def in_function(self, x):
    return run_loop(self, x)


def in_comprehension(self, x):
    self.state = None
    return torch.stack([self.run_step(x, t) for t in range(x.shape[0])])


def in_inner_function(self, x):
    state = None

    def step(t):
        nonlocal state
        z, state = self.cell(self.fc(x[t] * 2 if t >= 6 else x[t]), state)
        return z

    return torch.stack([step(t) for t in range(x.shape[0])])


def by_length(self, x):
    state, outputs = None, []
    for value in x:
        z, state = self.cell(self.fc(value * 2 if len(outputs) >= 6 else value), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_sum(self, x):
    state, outputs, count = None, [], 0
    for value in x:
        z, state = self.cell(self.fc(value * 2 if count >= 6 else value), state)
        count = count + 1
        outputs.append(z)
    return torch.stack(outputs)


def by_iterator(self, x):
    state, outputs, steps = None, [], iter(range(1000))
    for value in x:
        z, state = self.cell(self.fc(value * 2 if next(steps) >= 6 else value), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_pairs(self, x):
    state, outputs = None, []
    for value, gain in zip(x, self.gains, strict=False):
        z, state = self.cell(self.fc(value * gain), state)
        outputs.append(z)
    return torch.stack(outputs)


def by_product(self, x):
    state, outputs, rest = None, [], 1.0
    for value in x:
        z, state = self.cell(self.fc(value * 2 if rest < 0.4 else value), state)
        outputs.append(z)
        rest *= 0.85
    return torch.stack(outputs)


def by_emptied_list(self, x):
    state, outputs, rest = None, [], [0] * 6
    for value in x:
        z, state = self.cell(self.fc(value if rest else value * 2), state)
        outputs.append(z)
        del rest[:1]
    return torch.stack(outputs)


def by_countdown(self, x):
    state, outputs, left = None, [], 6
    for value in x:
        z, state = self.cell(self.fc(value if left else value * 2), state)
        outputs.append(z)
        left -= left > 0
    return torch.stack(outputs)


ITERATED = [by_iterator, by_pairs, by_product, by_emptied_list, by_countdown]
HIDDEN = [in_method, in_generator, in_function, in_comprehension, in_inner_function, by_length, by_sum]
LATE = [by_global, by_list, by_tuple, by_number_of_another_type, by_method, by_function, by_least, by_two_loops, by_while]


@pytest.mark.parametrize("forward", [*LATE, by_counter, *HIDDEN, *ITERATED], ids=lambda f: f.__name__)
def test_what_a_forward_computes_from_its_seventh_step_on_is_refused(forward):
    with pytest.raises(UnsupportedError, match="runs in another way in a later step; let every step compute the same"):
        read_model(Net(forward), (12,))


@pytest.mark.parametrize("count", [66, 24, 9], ids=("of 66", "of 24", "of 9"))
def test_a_list_of_equal_numbers_is_read(count):
    net = Net(by_list, gains=(1.5,) * count)
    x = (np.random.default_rng(1).random((8, 3, 12)) < 0.5).astype(np.float32)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(x)).numpy()
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(simulate(read_model(net, (12,)), x, kind="current").output, expected)


def plain(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(self.fc(x[t]), state)
        outputs.append(z)
    return torch.stack(outputs)


def transposed(self, x):
    x = x.transpose(0, 1)
    outputs = torch.zeros(x.shape[1], x.shape[0], 20)
    state = None
    for t in range(x.size(1)):
        outputs[t], state = self.cell(self.fc(x[:, t]), state)
    return outputs


def over_layers(self, x):
    state, outputs = None, []
    for value in x:
        for n, layer in enumerate(self.layers):
            value = self.layers[n](value) if layer is self.fc else value
        z, state = self.cell(value, state)
        outputs.append(z)
    return torch.stack(outputs)


def plain_in_method(self, x):
    return torch.stack([*self.take_all(x)])


def in_comprehension_over_values(self, x):
    self.state = None
    return torch.stack([self.take(value) for value in x])


PLAIN = [plain, transposed, over_layers, plain_in_method, in_comprehension_over_values]


@pytest.mark.parametrize("forward", PLAIN, ids=lambda f: f.__name__)
def test_a_loop_that_only_takes_its_steps_is_read(forward):
    assert [layer.name for layer in read_model(Net(forward), (12,)).layers] == ["cell"]


def far_behind(self, x):
    state, outputs = None, []
    for value in x:
        z, state = self.cell(self.fc(value * 2 if len(outputs) >= 40 else value), state)
        outputs.append(z)
    return torch.stack(outputs)


def far_behind_in_tuple(self, x):
    state, outputs = None, []
    for value in x:
        z, state = self.cell(self.fc(value * 2 if len(outputs) in (40, 41) else value), state)
        outputs.append(z)
    return torch.stack(outputs)


@pytest.mark.parametrize("forward", [far_behind, far_behind_in_tuple], ids=lambda f: f.__name__)
def test_steps_are_compared_beyond_the_numbers_that_the_forward_names(forward):
    with pytest.raises(UnsupportedError, match="runs in another way in a later step; let every step compute the same"):
        read_model(Net(forward), (12,))


def feed_back(current, outputs, t):
    return current + outputs[t - 10] if t >= 10 else current


def by_ten_steps(self, x):
    state, outputs = None, []
    for t in range(x.shape[0]):
        z, state = self.cell(feed_back(self.fc(x[t]), outputs, t), state)
        outputs.append(z)
    return torch.stack(outputs)


def test_numbers_that_a_function_compares_its_argument_with_are_traced_beyond():
    net = Net(by_ten_steps)
    x = (np.random.default_rng(1).random((25, 3, 12)) < 0.5).astype(np.float32)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(x)).numpy()
    graph = read_model(net, (12,))
    assert [edge.delay for edge in graph.edges if edge.delay] == [10]
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


def fed_back(self, x):
    state, z, outputs = None, None, []
    for t in range(x.shape[0]):
        current = self.fc(x[t])
        z, state = self.cell(current + z if t else current, state)
        outputs.append(self.drop(z).view(z.size(0), -1))
    return torch.stack(outputs)


def test_shapes_of_many_steps_are_computed_once(monkeypatch):
    """A cell takes its spikes and its state of the step before: 2^34 ways lead back to the first step."""
    forward, calls = nn.Linear.forward, []

    def counted(layer, x):
        calls.append(layer)
        assert len(calls) < 1000
        return forward(layer, x)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    net = Net(fed_back)
    net.drop = nn.Dropout()
    assert len(read_model(net, (12,)).layers) > 1
    assert 0 < len(calls) < 300


COMPARED = LOOP_STEPS + max(LONGER)


def test_the_page_on_limits_says_how_many_steps_are_compared():
    page = " ".join((Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8").split())
    assert f"is compared over its first {COMPARED} steps, and beyond each whole number up to {MAX_COMPARED} that" in page


def test_what_begins_in_the_last_step_that_is_compared_is_refused():
    net = Net(by_number_of_another_type)
    net.present = float(COMPARED - 1)
    with pytest.raises(UnsupportedError, match="runs in another way in a later step"):
        read_model(net, (12,))
