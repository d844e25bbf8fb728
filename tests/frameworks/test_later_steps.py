"""Forwards of one step that keep numbers, lists or iterators: what differs in a later step is refused, a log changes nothing."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer import interpreter
from spear_deploy.frameworks.importer.forward_code import LATER_STEPS, MAX_COUNTED
from spear_deploy.frameworks.importer.kept_values import MAX_VALUES
from spear_deploy.frameworks.models import read_model
from spear_deploy.simulator import simulate
from tests.support.step_forwards import Net

torch.set_num_threads(1)
COUNTS, STEPS = [0], iter(range(1000))


class Meter:
    total = 0

    def __init__(self):
        self.count = 0

    def update(self):
        self.count += 1
        Meter.total += 1
        return self.count


def held_number(self, x):
    self.count = getattr(self, "count", 0) + 1
    return self.count


def held_list(self, x):
    self.gains = (*self.gains, 1)
    return len(self.gains) - 66


def held_times(self, x):
    self.times = [*getattr(self, "times", []), time.monotonic()]
    return len(self.times)


def held_meter(self, x):
    self.meter = getattr(self, "meter", None) or Meter()
    return self.meter.update()


def number_of_a_class(self, x):
    type(self.schedule).count = getattr(type(self.schedule), "count", 0) + 1
    return self.schedule.count


def number_of_the_file(self, x):
    COUNTS[0] += 1
    return COUNTS[0]


def iterator_of_the_file(self, x):
    return next(STEPS)


def held_generator(self, x):
    if not hasattr(self, "numbers"):
        self.numbers = itertools.count()
    return next(self.numbers)


def held_in_a_layer(self, x):
    if not hasattr(self, "idle"):
        self.idle = nn.Identity()
    self.idle.count = getattr(self.idle, "count", 0) + 1
    return self.idle.count


def held_array(self, x):
    self.counts = getattr(self, "counts", np.zeros(1)) + 1
    return self.counts[0]


COUNTERS = [
    held_in_a_layer,
    held_array,
    held_number,
    held_list,
    held_times,
    held_meter,
    held_generator,
    number_of_a_class,
    number_of_the_file,
]
COUNTERS += [iterator_of_the_file, held_in_a_layer, held_array]


@pytest.mark.parametrize("count", COUNTERS, ids=lambda f: f.__name__)
def test_a_forward_of_one_step_that_computes_by_what_it_counts_is_refused(count):
    def one_step(self, x, state=None):
        return self.cell(self.fc(x * 2 if count(self, x) > 30 else x), state)

    with pytest.raises(UnsupportedError, match="the model runs in another way in a later step; let every step compute the same"):
        read_model(Net(one_step), (12,))


def run_steps(net, x):
    """Return the spikes of a net of one step, which hands its state or holds it."""
    state, outputs = None, []
    with torch.no_grad():
        for value in torch.from_numpy(x):
            z, state = net(value, state)
            outputs.append(z)
    return torch.stack(outputs).numpy()


@pytest.mark.parametrize("count", [held_times, held_meter, number_of_the_file], ids=lambda f: f.__name__)
def test_what_a_forward_of_one_step_counts_for_a_log_changes_nothing(count):
    def one_step(self, x, state=None):
        if count(self, x) % 7 == 0:
            self.note = f"{count(self, x)} steps"
        return self.cell(self.fc(x), state)

    net = Net(one_step).eval()
    x = (np.random.default_rng(1).random((40, 3, 12)) < 0.5).astype(np.float32)
    graph = read_model(net, (12,))
    expected = run_steps(net, x)
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


def test_a_number_in_a_state_is_compared():
    def one_step(self, x, state=None):
        state, count = (None, 0) if state is None else state
        z, state = self.cell(self.fc(x * 2 if count > self.last else x), state)
        return z, (state, count + 1)

    net = Net(one_step)
    net.last = 100.5  # beyond what is compared
    assert len(read_model(net, (12,)).layers) == 1
    net.last = LATER_STEPS - 0.5
    with pytest.raises(UnsupportedError, match="the model runs in another way in a later step"):
        read_model(net, (12,))


@pytest.mark.parametrize("number", [60, MAX_COUNTED])
def test_steps_of_a_forward_of_one_step_are_compared_beyond_the_numbers_that_it_names(number):
    def one_step(self, x, state=None):
        return self.cell(self.fc(x * 2 if held_number(self, x) > self.number else x), state)

    net = Net(one_step)
    net.number = number
    with pytest.raises(UnsupportedError, match="the model runs in another way in a later step"):
        read_model(net, (12,))


def gain_of_a_list(self, x, state):
    return self.cell(self.fc(x * self.gains[held_number(self, x)]), state)


def bias_of_a_step(self, x, state):
    self.bias = self.fc.bias * 2 if held_number(self, x) > 9 else self.fc.bias
    return self.cell(nn.functional.linear(x, self.fc.weight, self.bias), state)


def input_of_the_step_before(self, x, state):
    value = self.past if held_number(self, x) > 9 else x
    self.past = x
    return self.cell(self.fc(value), state)


def output_of_a_step(self, x, state):
    z, state = self.cell(self.fc(x), state)
    return (z, state) if held_number(self, x) < 20 else (z * 0, state)


def tensor_of_a_list(self, x, state):
    return self.cell(self.fc(x * torch.tensor(self.gains[held_number(self, x)])), state)


DIFFERENT = [gain_of_a_list, bias_of_a_step, input_of_the_step_before, output_of_a_step]
DIFFERENT += [tensor_of_a_list]


@pytest.mark.parametrize("step", DIFFERENT, ids=lambda f: f.__name__)
def test_what_a_later_step_takes_from_elsewhere_is_refused(step):
    def one_step(self, x, state=None):
        return step(self, x, state)

    with pytest.raises(UnsupportedError, match="the model runs in another way in a later step"):
        read_model(Net(one_step), (12,))


def test_a_list_of_equal_numbers_that_ends_is_read():
    def one_step(self, x, state=None):
        return gain_of_a_list(self, x, state)

    assert len(read_model(Net(one_step, gains=(1.5,) * 12), (12,)).layers) == 2


def test_tensors_that_steps_make_anew_or_hold_are_those_of_the_step_before():
    def one_step(self, x, state=None):
        if held_number(self, x) == 1:
            self.zero = torch.zeros_like(x)
        return self.cell(self.fc((x + self.zero) * torch.tensor(1.5)), state)

    assert [layer.name for layer in read_model(Net(one_step), (12,)).layers] == ["mul", "cell"]


@pytest.mark.parametrize("held", [[0.5] * MAX_VALUES, object()], ids=("many values", "a closed object"))
def test_values_that_cannot_be_looked_into_are_taken_to_change(monkeypatch, held):
    def one_step(self, x, state=None):
        return self.cell(self.fc(x), state)

    checked = []
    monkeypatch.setattr(interpreter, "check_later_steps", lambda *given: checked.append(given))
    net = Net(one_step)
    read_model(net, (12,))
    assert not checked
    net.held = held
    read_model(net, (12,))
    assert len(checked) == 1


def test_a_forward_of_one_step_that_holds_its_last_output_is_read_in_two_steps(monkeypatch):
    def one_step(self, x, state=None):
        z, state = self.cell(self.fc(x), state)
        self.runs, self.last = True, z
        return z, state

    monkeypatch.setattr(interpreter, "check_later_steps", None)
    assert len(read_model(Net(one_step), (12,)).layers) == 1


def test_the_page_on_limits_says_how_many_steps_are_compared():
    page = " ".join((Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8").split())
    assert f"is compared over {LATER_STEPS + 2} steps too, and beyond each whole number up to {MAX_COUNTED} that" in page


def test_a_number_around_a_function_is_one_that_it_names():
    last = 60

    def one_step(self, x, state=None):
        return self.cell(self.fc(x * 2 if held_number(self, x) > last else x), state)

    with pytest.raises(UnsupportedError, match="the model runs in another way in a later step"):
        read_model(Net(one_step), (12,))
