"""Forwards with positions in front of channels: the same spikes, weights that go back, and refusals where axes have no place."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import norse.torch as norse  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import spear_deploy as sd  # noqa: E402
from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model, run_model  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.homecoming import prune_at_random  # noqa: E402

PARAMETERS = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.1))
SHAPE = (2, 6, 8)


class Net(nn.Module):
    """A convolution and a readout, with cells or with neurons over time; `turn` is what lies between."""

    def __init__(self, turn, over_time=False):
        super().__init__()
        kind = norse.LIF if over_time else norse.LIFCell
        self.turn, self.over_time = turn, over_time
        self.conv, self.mix, self.fc = nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Linear(4, 5), nn.Linear(4 * 3 * 4, 7)
        self.wide, self.drop, self.flat, self.norm = nn.Linear(5 * 3 * 4, 7), nn.Dropout(), nn.Flatten(), nn.BatchNorm1d(48)
        self.lif, self.lif2 = kind(PARAMETERS), kind(PARAMETERS)

    def forward(self, x, state=None):
        if self.over_time:
            steps, samples = x.shape[:2]
            x, _ = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, (steps, samples)))
            return self.lif2(self.turn(self, x))[0]
        first, second = (None, None) if state is None else state
        z, first = self.lif(self.conv(x), first)
        z, second = self.lif2(self.turn(self, z), second)
        return z, (first, second)


TURNS = {
    "permute": lambda s, z: s.fc(z.permute(0, 2, 3, 1).flatten(1)),
    "permute, a list, a view": lambda s, z: s.fc(z.permute([0, 2, 3, 1]).contiguous().view(z.shape[0], -1)),
    "positions exchanged": lambda s, z: s.fc(z.transpose(2, 3).reshape(-1, 48)),
    "by a function": lambda s, z: s.fc(torch.flatten(torch.permute(z, (0, -1, 1, 2)), 1)),
    "movedim": lambda s, z: s.fc(s.flat(z.movedim(1, -1))),
    "there and back": lambda s, z: s.fc(z.permute(0, 2, 3, 1).permute(0, 3, 1, 2).flatten(1)),
    "in two steps": lambda s, z: s.fc(s.drop(z.transpose(1, 2).transpose(2, 3)).flatten(1)),
    "some channels": lambda s, z: functional.linear(z[:, 1:3].permute(0, 2, 3, 1).flatten(1), s.fc.weight[:, :24], s.fc.bias),
    "a norm": lambda s, z: s.fc(s.norm(z.permute(0, 2, 3, 1).flatten(1))),
    "a norm of exchanged positions": lambda s, z: s.fc(s.norm(z.transpose(2, 3).flatten(1))),
    "linear on channels": lambda s, z: s.wide(s.mix(z.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).flatten(1)),
    "linear on channels, flat": lambda s, z: s.wide(s.mix(z.permute(0, 2, 3, 1)).flatten(1)),
}  # fmt: skip
OVER_TIME = {
    "permute": lambda s, x: s.fc(x.permute(0, 1, 3, 4, 2).flatten(2)),
    "time and batch in one axis": lambda s, x: s.fc(x.flatten(0, 1).permute(0, 2, 3, 1).flatten(1)).unflatten(0, x.shape[:2]),
    "positions exchanged": lambda s, x: s.fc(x.transpose(3, 4).flatten(2)),
}


def make(turn, over_time=False):
    torch.manual_seed(0)
    model = Net(turn, over_time).eval()
    with torch.no_grad():
        for layer in (model.conv, model.mix, model.fc, model.wide):
            layer.weight.mul_(3)
        for values in (model.norm.weight, model.norm.bias, model.norm.running_mean):
            values.normal_()
        model.norm.running_var.uniform_(0.5, 2)
    return model


def make_spikes():
    return (np.random.default_rng(0).random((12, 3, *SHAPE)) < 0.5).astype(np.float32)


@pytest.mark.parametrize(
    ("turn", "over_time"),
    [*((turn, False) for turn in TURNS.values()), *((turn, True) for turn in OVER_TIME.values())],
    ids=[*TURNS, *(f"over time: {name}" for name in OVER_TIME)],
)
def test_axes_in_another_order_spike_the_same(turn, over_time):
    model, x = make(turn, over_time), make_spikes()
    graph = read_model(model, SHAPE)
    theirs = run_model(model, x)
    ours = simulate(graph, x, kind="current").output
    assert 10 < theirs.sum() < theirs.size - 10
    np.testing.assert_array_equal(ours, theirs > 0)
    assert not any(layer.synapse is None for layer in graph.layers), "no layer does nothing but order values"


def test_axes_of_all_steps_are_put_into_another_order_in_front_of_a_loop():
    class Loop(Net):
        def forward(self, x):
            first, second, outputs = None, None, []
            x = x.permute(0, 1, 3, 2, 4).transpose(2, 3)
            for step in x:
                z, first = self.lif(self.conv(step), first)
                z, second = self.lif2(self.turn(self, z), second)
                outputs.append(z)
            return torch.stack(outputs)

    torch.manual_seed(0)
    model, x = Loop(TURNS["permute"]).eval(), make_spikes()
    with torch.no_grad():
        for layer in (model.conv, model.fc):
            layer.weight.mul_(3)
        theirs = model(torch.from_numpy(x)).numpy()
    assert 10 < theirs.sum() < theirs.size - 10
    np.testing.assert_array_equal(simulate(read_model(model, SHAPE), x, kind="current").output, theirs)


@pytest.mark.parametrize(
    "name",
    [
        "permute",
        "positions exchanged",
        "a norm",
        "a norm of exchanged positions",
        "linear on channels, flat",
        "linear on channels",
    ],
)
def test_pruned_weights_go_back_in_the_order_of_the_forward(name):
    model, x = make({**TURNS, "positions exchanged": lambda s, z: s.fc(z.transpose(2, 3).flatten(1))}[name]), make_spikes()
    pruned = prune_at_random(read_model(model, SHAPE), np.random.default_rng(1))
    back = sd.weights_into(model, pruned)
    assert back.conv.out_channels < 4
    ours = simulate(pruned, x, kind="current").output
    assert 5 < ours.sum() < ours.size - 5
    np.testing.assert_array_equal(ours, run_model(back, x) > 0)


REFUSED = {
    "lif": (lambda s, z: s.lif2(z.permute(0, 2, 3, 1))[0], "module 'lif2' gets the output of 'lif' with its axes in another"),
    "convolution": (lambda s, z: s.conv(z[:, :2].transpose(2, 3)), "module 'conv' gets .* keep channels in front of positions"),
    "norm": (lambda s, z: s.norm(z.permute(0, 2, 3, 1)), "module 'norm' gets .* flatten, a batch norm behind it and"),
    "pool": (lambda s, z: functional.avg_pool2d(z.transpose(2, 3), 2), "the model gets the output of 'lif' with its axes in"),
    "sum": (lambda s, z: s.fc((z.permute(0, 2, 3, 1) + 1).flatten(1)), "the model gets the output of 'lif' with its axes in"),
    "squeeze": (lambda s, z: z.permute(0, 2, 3, 1).squeeze(1), "the model gets the output of 'lif' with its axes in"),
    "mean": (lambda s, z: z.permute(0, 2, 3, 1).mean(1), "calls 'mean', which has no counterpart here"),
    "linear on a position": (lambda s, z: s.mix(z), "'mix' is Linear on the last axis of 4 x 3 x 4 inputs; put a"),
    "batch": (lambda s, z: s.fc(z.transpose(0, 1).flatten(1)), r"calls 'transpose\(0, 1\)', which moves the batch or time; only"),
    "no order": (lambda s, z: s.fc(z.movedim((1, 2), (2, 3)).flatten(1)), r"'movedim\(.*, which moves the batch or time"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_uses_of_axes_in_another_order_are_refused(name):
    turn, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        read_model(make(turn), SHAPE)
