"""Forwards whose stateless layers run on time and batch in one axis: the same spikes, or a refusal where axes would mix."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import norse.torch as norse  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402

STEPS, SAMPLES = 9, 3
PARAMETERS = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.1))


class Net(nn.Module):
    """Two convolutions and a readout, with cells or with neurons over time; `run` is the forward."""

    def __init__(self, run, over_time=False):
        super().__init__()
        kind = norse.LIF if over_time else norse.LIFCell
        self.run, self.steps = run, STEPS
        self.conv, self.norm, self.pool = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AvgPool2d(2)
        self.conv2, self.fc = nn.Conv2d(4, 3, 3), nn.Linear(12, 5)
        self.lif, self.lif2, self.lif3 = kind(PARAMETERS), kind(PARAMETERS), kind(PARAMETERS)
        with torch.no_grad():
            for layer in (self.conv, self.conv2, self.fc):
                layer.weight.mul_(3)

    def loop(self, cell, x):
        """Return the spikes of a cell that takes step by step what is there of all steps."""
        state, outputs = None, []
        for t in range(x.shape[0]):
            spikes, state = cell(x[t], state)
            outputs.append(spikes)
        return torch.stack(outputs)

    def forward(self, x):
        return self.run(self, x)


def in_three_loops(s, x):
    steps, samples = x.shape[:2]
    x = s.loop(s.lif, s.pool(s.norm(s.conv(x.flatten(0, 1)))).unflatten(0, (steps, samples)))
    x = s.conv2(x.flatten(0, 1))
    x = s.loop(s.lif2, x.view(steps, samples, *x.shape[1:]))
    return s.loop(s.lif3, s.fc(x.flatten(2)))


def in_front_of_one_loop(s, x):
    steps, samples, *shape = x.shape
    x = functional.avg_pool2d(s.conv(x.reshape(steps * samples, *shape)), 2)
    _, c, h, w = x.shape
    x, states, outputs = x.view(steps, samples, c, h, w), [None] * 3, []
    for step in x:
        step, states[0] = s.lif(step, states[0])
        step, states[1] = s.lif2(s.conv2(step), states[1])
        step, states[2] = s.lif3(s.fc(step.flatten(1)), states[2])
        outputs.append(step)
    return torch.stack(outputs)


def by_a_fixed_number_of_steps(s, x):
    x = s.pool(s.conv(x.reshape(-1, 2, 8, 8))).view(s.steps, -1, 4, 4, 4)
    first, second, third, outputs = None, None, None, []
    for t in range(s.steps):
        z, first = s.lif(x[t], first)
        z, second = s.lif2(s.conv2(z), second)
        z, third = s.lif3(s.fc(z.flatten(1)), third)
        outputs.append(z)
    return torch.stack(outputs)


def parted_by_constants(s, x):
    x = s.loop(s.lif, s.pool(s.conv(x.flatten(0, 1))).view(s.steps, -1, 4, 4, 4))
    x = s.loop(s.lif2, s.conv2(x.flatten(0, 1)).unflatten(0, (-1, SAMPLES)))
    return s.loop(s.lif3, s.fc(x.reshape(-1, 12)).reshape(s.steps, SAMPLES, 5))


def stacked_and_merged_by_size(s, x):
    x = torch.stack([s.conv(step) for step in x])
    x = s.loop(s.lif, s.pool(torch.flatten(x, 0, 1) * 0.5).view(x.shape[0], -1, 4, 4, 4))
    x = s.loop(s.lif2, s.conv2(x.view(x.size(0) * x.size(1), 4, 4, 4)).unflatten(0, (len(x), -1)))
    return s.loop(s.lif3, s.fc(x.view(x.shape[0], x.shape[1], -1)))


def over_time(s, x):
    steps, samples = x.shape[:2]
    x, _ = s.lif(s.pool(s.norm(s.conv(x.flatten(0, 1)))).unflatten(0, (steps, samples)))
    x = s.conv2(x.flatten(0, 1))
    x, _ = s.lif2(x.view(steps, samples, *x.shape[1:]))
    return s.lif3(s.fc(x.flatten(0, 1).flatten(1)).view(steps, samples, -1))[0]


def over_time_by_products(s, x):
    steps, samples, c, h, w = x.shape
    x = functional.avg_pool2d(s.conv(x.view(steps * samples, c, h, w)), 2)
    x, _ = s.lif(x.reshape(steps, samples, *x.shape[1:]))
    steps, samples, c, h, w = x.shape
    x, _ = s.lif2(s.conv2(x.reshape(steps * samples, c, h, w)).unflatten(0, (steps, -1)))
    return s.lif3(s.fc(x.view(steps, samples, -1)))[0]


def over_time_side_by_side(s, x):
    steps, samples = x.shape[:2]
    x = s.conv(x.flatten(0, 1))
    x, _ = s.lif(s.conv2(s.pool(x * 0.5 + functional.avg_pool2d(x, 1))).unflatten(0, (steps, samples)))
    x = x.flatten(0, 1)
    x = torch.cat([x[:, :1], x[:, 1:]], 1)
    return s.lif3(s.fc(x.flatten(1)).unflatten(0, (steps, samples)))[0]


LOOPS = (in_three_loops, in_front_of_one_loop, by_a_fixed_number_of_steps, parted_by_constants, stacked_and_merged_by_size)
LAYERS = (over_time, over_time_by_products, over_time_side_by_side)


def draw_input():
    return (torch.rand(STEPS, SAMPLES, 2, 8, 8) < 0.5).float()


@pytest.mark.parametrize("run", [*LOOPS, *LAYERS])
def test_layers_on_time_and_batch_in_one_axis_spike_the_same(run):
    torch.manual_seed(0)
    model, x = Net(run, over_time=run in LAYERS).eval(), draw_input()
    graph = read_model(model, (2, 8, 8))
    with torch.no_grad():
        theirs = model(x).numpy()
    ours = simulate(graph, x.numpy(), kind="current").output
    assert 10 < theirs.sum() < theirs.size
    np.testing.assert_array_equal(ours, theirs)


def batch_first(s, x):
    samples, steps = x.shape[:2]
    x = s.pool(s.conv(x.reshape(-1, *x.shape[2:]))).reshape(samples, steps, 4, 4, 4)
    first, second, third, outputs = None, None, None, []
    for t in range(steps):
        z, first = s.lif(x[:, t], first)
        z, second = s.lif2(s.conv2(z), second)
        z, third = s.lif3(s.fc(z.flatten(1)), third)
        outputs.append(z)
    return torch.stack(outputs, 1)


def batch_first_then_exchanged(s, x):
    samples, steps = x.shape[:2]
    x = s.loop(s.lif, s.pool(s.conv(x.flatten(0, 1))).unflatten(0, (samples, steps)).transpose(0, 1))
    x = s.loop(s.lif2, s.conv2(x.flatten(0, 1)).unflatten(0, (steps, samples)))
    return s.loop(s.lif3, s.fc(x.flatten(2))).permute(1, 0, 2)


@pytest.mark.parametrize("run", [batch_first, batch_first_then_exchanged])
def test_the_batch_in_front_of_time_is_merged_and_parted_in_this_order(run):
    torch.manual_seed(0)
    model, x = Net(run).eval(), draw_input()
    with torch.no_grad():
        theirs = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    ours = simulate(read_model(model, (2, 8, 8)), x.numpy(), kind="current").output
    assert 10 < theirs.sum() < theirs.size
    np.testing.assert_array_equal(ours, theirs)


def test_a_linear_layer_on_all_steps_in_front_of_a_loop_is_one_of_every_step():
    torch.manual_seed(0)
    model, x = Net(lambda s, x: s.loop(s.lif, s.fc(x) * 2)).eval(), (torch.rand(STEPS, SAMPLES, 12) < 0.5).float()
    graph = read_model(model, (12,))
    with torch.no_grad():
        theirs = model(x).numpy()
    assert theirs.sum() > 10
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, theirs)


def in_the_other_order(s, x):
    steps, samples = x.shape[:2]
    x = s.conv(x.flatten(0, 1))
    return s.loop(s.lif, x.view(samples, steps, *x.shape[1:]).transpose(0, 1))


def in_the_other_order_over_time(s, x):
    steps, samples = x.shape[:2]
    return s.lif(s.conv(x.flatten(0, 1)).view(samples, steps, 4, 8, 8))[0]


def never_parted(s, x):
    return s.loop(s.lif, s.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])).flatten(0, 1)


def into_neurons(s, x):
    return s.lif(s.conv(x.flatten(0, 1)))[0].view(*x.shape[:2], 4, 8, 8)


def into_another_number_of_steps(s, x):
    x, state, outputs = s.conv(x.flatten(0, 1)).view(STEPS - 2, -1, 4, 8, 8), None, []
    for t in range(STEPS):
        z, state = s.lif(x[t], state)
        outputs.append(z)
    return torch.stack(outputs)


def into_two_numbers_of_steps(s, x):
    x, _ = s.lif(s.conv(x.flatten(0, 1)).unflatten(0, (STEPS, -1)))
    return s.lif2(s.conv2(x.flatten(0, 1)).view(STEPS - 6, -1, 3, 6, 6))[0]


@pytest.mark.parametrize(
    ("run", "is_over_time", "message"),
    [
        (in_the_other_order, False, r"into \(batch, time\), which holds \(time, batch\) and so mixes samples with"),
        (in_the_other_order_over_time, True, r"into \(batch, time\), which holds \(time, batch\) and so mixes samples with"),
        (never_parted, False, "the model uses time and batch in one axis where each step is needed; part them first, with view"),
        (into_neurons, False, "'lif' gets time and batch in one axis, where a neuron would take samples for steps; part them"),
        (into_neurons, True, "'lif' gets time and batch in one axis, where a neuron would take samples for steps; part them"),
        (into_another_number_of_steps, False, "makes 7 steps of its values, and the loop takes 9; take the same number"),
        (into_two_numbers_of_steps, True, r"parts time and batch into \(3, -1\), the model into \(9, -1\), so .* into the same"),
    ],
)  # fmt: skip
def test_axes_that_mix_or_are_not_parted_are_refused(run, is_over_time, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(Net(run, over_time=is_over_time), (2, 8, 8))


def behind_cat(order):
    """Return a forward whose sizes are those of two images side by side, which a trace holds as symbols."""

    def run(s, x):
        x = torch.cat([x[:, :, :1], x[:, :, 1:]], 2)
        sizes = x.shape[0], x.shape[1]
        x = s.conv(x.flatten(0, 1))
        return s.lif(x.view(*order(sizes), 4, 8, 8) if order else x)[0]

    return run


def test_sizes_of_signals_side_by_side_part_time_and_batch():
    torch.manual_seed(0)
    model, x = Net(behind_cat(lambda sizes: sizes), over_time=True).eval(), draw_input()
    with torch.no_grad():
        theirs = model(x).numpy()
    assert theirs.sum() > 10
    np.testing.assert_array_equal(simulate(read_model(model, (2, 8, 8)), x.numpy(), kind="current").output, theirs)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (lambda sizes: sizes[::-1], "the model parts time and batch in the other order than they have, which mixes samples with"),
        (None, "gets time and batch in one axis; part them first, with view"),
    ],
)
def test_sizes_of_signals_side_by_side_in_the_other_order_are_refused(order, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(Net(behind_cat(order), over_time=True), (2, 8, 8))
