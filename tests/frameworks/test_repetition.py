"""Forwards that repeat an image over time by themselves: the same spikes, step by step, or a refusal."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.norse_forwards import STEPS, ConvNet  # noqa: E402

NOTE = "the forward feeds the same input in every step: the network takes it step by step"


def cells_behind_merged_axes(s, x):
    x = x.unsqueeze(0).repeat(s.steps, 1, 1, 1, 1)
    x = s.loop(s.lif, s.pool(s.conv(x.flatten(0, 1))).view(s.steps, -1, 4, 4, 4))
    return s.loop(s.lif2, s.fc(x.flatten(0, 1).flatten(1)).view(s.steps, -1, 5))


def cells_behind_a_repeated_current(s, x):
    x = s.pool(s.conv(x)).unsqueeze(0).expand(s.steps, -1, -1, -1, -1)
    first, second, outputs = None, None, []
    for t in range(x.size(0)):
        z, first = s.lif(x[t], first)
        z, second = s.lif2(s.fc(z.flatten(1)), second)
        outputs.append(z)
    return torch.stack(outputs)


def cells_by_sizes(s, x):
    samples = x.shape[0]
    x = x[None].expand(s.steps, samples, 2, 8, 8).reshape(s.steps * samples, *x.shape[1:])
    x = s.loop(s.lif, functional.avg_pool2d(s.conv(x), 2).view(s.steps, samples, 4, 4, 4))
    return s.loop(s.lif2, s.fc(x.flatten(2)))


def cells_in_one_axis(s, x):
    x = s.loop(s.lif, s.pool(s.conv(x.repeat(s.steps, 1, 1, 1))).view(s.steps, -1, 4, 4, 4))
    return s.loop(s.lif2, s.fc(x.flatten(2)))


def cells_behind_the_batch(s, x):
    x, first, second, outputs = x.unsqueeze(1).repeat(1, s.steps, 1, 1, 1), None, None, []
    for t in range(s.steps):
        z, first = s.lif(s.pool(s.conv(x[:, t])), first)
        z, second = s.lif2(s.fc(z.flatten(1)), second)
        outputs.append(z)
    return torch.stack(outputs)


def cells_behind_a_stack(s, x):
    x = s.pool(s.conv(torch.stack([x] * s.steps).flatten(0, 1))).unflatten(0, (s.steps, -1))
    return s.loop(s.lif2, s.fc(s.loop(s.lif, x).flatten(2)))


def merged(s, x):
    x = x.unsqueeze(0).repeat(s.steps, 1, 1, 1, 1)
    steps, samples = x.shape[:2]
    x, _ = s.lif(s.pool(s.conv(x.flatten(0, 1))).unflatten(0, (steps, samples)))
    return s.lif2(s.fc(x.flatten(0, 1).flatten(1)).view(steps, samples, -1))[0]


def by_sizes(s, x):
    samples = x.shape[0]
    x = x.unsqueeze(0).expand(s.steps, -1, -1, -1, -1).reshape(s.steps * samples, *x.shape[1:])
    x, _ = s.lif(s.pool(s.conv(x)).view(s.steps, samples, 4, 4, 4))
    return s.lif2(s.fc(x.flatten(2)))[0]


def in_one_axis(s, x):
    x, _ = s.lif(s.pool(s.conv(x.repeat(s.steps, 1, 1, 1))).view(s.steps, -1, 4, 4, 4))
    return s.lif2(s.fc(x.flatten(2)))[0]


def stacked(s, x):
    x, _ = s.lif(s.pool(s.conv(torch.stack([x] * s.steps).flatten(0, 1))).view(s.steps, -1, 4, 4, 4))
    return s.lif2(s.fc(x.flatten(2)))[0]


def a_repeated_current(s, x):
    x = s.pool(s.conv(x * 0.5) + 0.01).repeat(s.steps, 1, 1, 1, 1)
    return s.lif2(s.fc(s.lif(x)[0].flatten(2)))[0]


CELLS = (
    cells_behind_merged_axes, cells_behind_a_repeated_current, cells_by_sizes, cells_in_one_axis, cells_behind_the_batch,
    cells_behind_a_stack,
)  # fmt: skip
LAYERS = (merged, by_sizes, in_one_axis, stacked, a_repeated_current)


def make(run, over_time):
    torch.manual_seed(1)
    model = ConvNet(run, over_time).eval()
    with torch.no_grad():
        for layer in (model.conv, model.fc):
            layer.weight.mul_(4)
    return model


@pytest.mark.parametrize("run", [*CELLS, *LAYERS])
def test_an_image_repeated_over_time_spikes_the_same(run):
    model, image = make(run, run in LAYERS), (torch.rand(3, 2, 8, 8) < 0.5).float()
    graph = read_model(model, (2, 8, 8))
    assert graph.metadata["assumptions"] == [NOTE]
    with torch.no_grad():
        theirs = model(image).numpy()
    ours = simulate(graph, np.broadcast_to(image.numpy(), (STEPS, *image.shape)), kind="current").output
    assert 10 < theirs.sum() < theirs.size - 10
    np.testing.assert_array_equal(ours, theirs)


def more_steps_than_taken(s, x):
    x, first, outputs = x.unsqueeze(0).repeat(s.steps, 1, 1, 1, 1), None, []
    for t in range(4):
        z, first = s.lif(s.fc(s.pool(s.conv(x[t])).flatten(1)), first)
        outputs.append(z)
    return torch.stack(outputs)


def neurons_in_front(s, x):
    return s.lif2(s.fc(s.pool(s.conv(s.lif(x)[0])).flatten(1)).unsqueeze(0).repeat(s.steps, 1, 1))[0]


def both(s, x):
    y = s.lif(x.repeat(s.steps, 1, 1, 1, 1))[0]
    return s.lif2(s.fc(s.pool(s.conv((y + x).flatten(0, 1))).unflatten(0, (s.steps, -1)).flatten(2)))[0]


def neurons_without_time(s, x):
    y = s.lif(x.repeat(s.steps, 1, 1, 1, 1))[0]
    return s.lif2(x)[0] + y


def samples_too(s, x):
    return s.lif2(s.fc(s.pool(s.conv(x)).flatten(1)).unsqueeze(0).repeat(s.steps, 2, 1))[0]


@pytest.mark.parametrize(
    ("run", "over_time", "message"),
    [
        (more_steps_than_taken, False, "the model makes 9 steps of its values, and the loop takes 4; take the same number"),
        (neurons_in_front, True, "module 'conv' is Conv2d on time x batch"),
        (both, True, "calls 'add' on a tensor without an axis of time and one with it; repeat the first over time"),
        (
            neurons_without_time,
            True,
            "module 'lif2' .* gets a tensor without an axis of time; repeat it first, with",
        ),
        (samples_too, True, "module 'conv' is Conv2d on time x batch"),
    ],
)
def test_other_repetitions_are_refused(run, over_time, message, capfd):
    with pytest.raises(UnsupportedError, match=message):
        read_model(make(run, over_time), (2, 8, 8))
    assert "Traceback" not in "".join(capfd.readouterr())


def test_shapes_that_do_not_run_in_a_trace_print_no_traceback(capfd):
    read_model(make(cells_behind_merged_axes, over_time=False), (2, 8, 8))  # it is also tried as a loop over its input
    assert "".join(capfd.readouterr()) == ""
