"""Forwards that change tensors in place: read where nothing takes them again, else refused."""

import pytest
import snntorch as snn
import torch
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model
from tests.frameworks.test_forward_idioms import Loop, Net, check


class Between(Loop):
    """Two layers, with a function of the spikes of the first and of its input in front of the second."""

    def __init__(self, between, behind=None):
        super().__init__(forward=None)
        self.between, self.behind = between, behind
        self.register_buffer("mask", torch.tensor([1.0, 0, 1, 1, 0, 1, 0, 1]))

    def forward(self, x):
        first, second, out = None, None, []
        for step in x:
            z, first = self.l1(self.fc1(step), first)
            z = self.between(self, z, step)
            y, second = self.l2(self.fc2(z), second)
            out.append(y)
            if self.behind is not None:
                self.behind(self, y)
        return torch.stack(out)


def mask_in_place(s, z, x):
    return z.mul_(s.mask)


def add_in_place(s, z, x):
    z += x[:, :8]
    z *= 0.7
    return z


def change_a_copy(s, z, x):
    other = z.clone()
    other += x[:, :8]
    return other - z


def change_another_part(s, z, x):
    part = x[:, :8].clone()
    part += z
    return part + x[:, 4:]


def clip_spikes(s, z, x):
    nn.functional.relu(z, inplace=True)
    z.detach_()
    return z


@pytest.mark.parametrize(
    "between", [mask_in_place, add_in_place, change_a_copy, change_another_part, clip_spikes], ids=lambda f: f.__name__
)
def test_what_nothing_takes_again_is_read(between):
    check(Between(between))


def mask_without_a_name(s, z, x):
    z.mul_(s.mask)
    return z


def keep_another_name(s, z, x):
    kept = z
    z += x[:, :8]
    return z + kept


def keep_a_view(s, z, x):
    kept = z.detach().view(-1, 8)
    z -= x[:, :8]
    return z + kept


def scale_what_is_scaled(s, z, x):
    kept = z
    z *= 0.5
    return z + kept


def divide_a_view(s, z, x):
    part = x[:, :8]
    part /= 2
    return z + x[:, 4:]


@pytest.mark.parametrize(
    ("between", "name"),
    [
        (mask_without_a_name, "mul_"),
        (keep_another_name, r"\+="),
        (keep_a_view, "-="),
        (scale_what_is_scaled, r"\*="),
        (divide_a_view, "/="),
    ],
)
def test_what_is_taken_again_behind_a_change_is_refused(between, name):
    with pytest.raises(UnsupportedError, match=f"the model changes by '{name}' a tensor in place that is taken again behind it"):
        read_model(Between(between), (12,))


def test_outputs_that_change_behind_their_append_are_refused():
    def behind(s, y):
        y += 1

    with pytest.raises(UnsupportedError, match=r"the model changes by '\+=' a tensor in place that is taken again"):
        read_model(Between(lambda s, z, x: z, behind), (12,))


def test_a_forward_of_one_step_that_changes_its_spikes_is_refused():
    def forward(self, x, state):
        z, state = self.l1(self.fc1(x), state)
        z.mul_(0.5)
        return z, state

    with pytest.raises(UnsupportedError, match="changes by 'mul_' a tensor in place"):
        read_model(Net(forward), (12,))


def test_steps_of_the_input_change_apart():
    def scale(self, x):
        x, state, out = x.clone(), None, []
        for t in range(x.shape[0]):
            step = x[t]
            step *= 0.7
            z, state = self.l1(self.fc1(step), state)
            out.append(z)
        return torch.stack(out)

    def take_again(self, x):
        state, out = None, []
        for t in range(x.shape[0]):
            step = x[t]
            step *= 0.7
            z, state = self.l1(self.fc1(x[t]), state)
            out.append(z)
        return torch.stack(out)

    check(Loop(scale))
    with pytest.raises(UnsupportedError, match=r"changes by '\*=' a tensor in place"):
        read_model(Loop(take_again), (12,))


class Recurrent(nn.Module):
    """Neurons that take their own spikes, which the forward masks in place or anew."""

    def __init__(self, is_in_place):
        super().__init__()
        self.fc, self.lif, self.is_in_place = nn.Linear(12, 8), snn.RLeaky(beta=0.8, linear_features=8), is_in_place

    def forward(self, x):
        (spikes, mem), out = self.lif.reset_mem(), []
        for step in x:
            spikes, mem = self.lif(self.fc(step), spikes, mem)
            out.append(spikes.mul_(0.5) if self.is_in_place else spikes * 0.5)
        return torch.stack(out)


def test_spikes_that_their_neurons_take_again_are_not_changed_in_place():
    read_model(Recurrent(is_in_place=False), (12,))
    with pytest.raises(UnsupportedError, match="changes by 'mul_' a tensor in place"):
        read_model(Recurrent(is_in_place=True), (12,))


@pytest.mark.parametrize("name", ["fc1", "l1"])
def test_a_forward_that_is_set_on_a_module_is_refused(name):
    net = Between(lambda s, z, x: z)
    module = getattr(net, name)
    own = module.forward
    module.forward = lambda x, *state: own(x * 0.5, *state)
    with pytest.raises(UnsupportedError, match=f"module '{name}' has a forward that was set on the object, in place of that"):
        read_model(net, (12,))
    del module.forward
    read_model(net, (12,))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_tensor_that_a_forward_starts_from_and_sets_is_refused(value):
    def forward(self, x):
        out = []
        for step in x:
            z, self.kept = self.l1(self.fc1(step), self.kept)
            out.append(z)
        return torch.stack(out)

    net = Loop(forward)
    net.kept = torch.full((8,), value)
    with pytest.raises(UnsupportedError, match="its forward sets the tensor 'kept' that it starts from, so that its next run"):
        read_model(net, (12,))
