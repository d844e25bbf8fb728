"""Sentences on forwards and modules that are refused: what is, what may be, what to do."""

from collections import deque

import norse.torch as norse
import pytest
import torch
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model

torch.set_num_threads(1)


class Loop(nn.Module):
    """A loop over time, whose steps `take` takes from the input and `step` computes."""

    def __init__(self, take, step=None):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 4), norse.LIFBoxCell()
        self.norms, self.scale = nn.ModuleList(nn.BatchNorm1d(4) for _ in range(5)), nn.Parameter(torch.ones(4))
        self.take, self.own_step = take, step

    def forward(self, x):
        state, out = None, []
        for t, step in enumerate(self.take(x)):
            current = self.fc(step) if self.own_step is None else self.own_step(self, step, t)
            spikes, state = self.lif(current, state)
            out.append(spikes)
        return torch.stack(out)


def take_steps(x):
    return [x[t] for t in range(5)]


def drop_bias(model, x, t):
    model.fc.bias = None
    return model.fc(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Loop(lambda x: [x[:, :, t] for t in range(x.shape[2])]),
         "^the model: its forward reads an axis that its input has not; an input is time x batch x 6, or batch x time x 6; let"),
        (Loop(lambda x: x.flip(0)), "^the model turns the steps of its input round, by 'flip'; turn the data round before"),
        (Loop(lambda x: torch.flip(x, [0])), "^the model turns the steps of its input round, by 'flip'"),
        (Loop(lambda x: torch.flip(x, dims=(0, 2))), "^the model turns the steps of its input round, by 'flip'"),
        (Loop(lambda x: [part[0] for part in torch.split(x, 1)]), "^the model takes the steps of its input apart, .* by 'split'"),
        (Loop(lambda x: [part[0] for part in x.split(split_size=1)]), "by 'split'; take x.t., or x.unbind.0."),
        (Loop(lambda x: [part[0] for part in torch.split(x, split_size_or_sections=1)]), "by 'split'; take x.t., or x.unbind.0."),
        (Loop(lambda x: [part[0] for part in x.chunk(5)]), "by 'chunk'; take x.t., or x.unbind.0."),
        (Loop(lambda x: range(torch.sort(x, 0).shape[0])), "counts with the size of a tensor whose shape is not known"),
        (Loop(take_steps, lambda model, x, t: model.norms[t](model.fc(x))),
         "^module 'norms.1' runs in the second step in place of 'norms.0', as modules of their own for each step do, such"),
        (Loop(take_steps, lambda model, x, t: model.fc(x) + torch.ones(2, 4)), "a tensor of 2 x 4 that the forward makes"),
        (Loop(take_steps, lambda model, x, t: model.fc(x).unflatten(0, (1, -1))), "'unflatten' on axis 0 of the output of 'fc'"),
        (Loop(take_steps, lambda model, x, t: model.fc(x) * float(x.mean())), r"by float\(\), which a trace does not know; take"),
        (Loop(take_steps, lambda model, x, t: model.fc(x) * int(x.sum())), r"a number of a tensor by int\(\), which a trace"),
        (Loop(take_steps, lambda model, x, t: torch.einsum("bi,oi->bo", x, model.fc.weight)), "'einsum', .*: multiply by"),
        (Loop(take_steps, drop_bias), "its forward sets the parameter 'fc.bias' to None as it runs; set it where"),
    ],
)  # fmt: skip
def test_a_forward_that_is_refused_says_what_to_write(model, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(model, (6,))


def test_zeros_like_a_state_are_refused_as_what_is_computed_of_it():
    class Resets(Loop):
        def forward(self, x):
            state, out = None, []
            for step in x:
                spikes, state = self.lif(self.fc(step), state)
                state = state._replace(v=torch.zeros_like(state.v))
                out.append(spikes)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match="the model computes with the state of a neuron by 'zeros_like'; hand states on"):
        read_model(Resets(None), (6,))


def test_a_star_over_what_a_layer_gives_is_no_loop_over_steps():
    """It was taken for one that ends behind the first step."""

    class First(Loop):
        def forward(self, x, state=None):
            first, *_ = self.fc(x)
            return self.lif(first, state)

    with pytest.raises(UnsupportedError, match="the model: its forward goes through what a module returns by a star, list"):
        read_model(First(None), (6,))


@pytest.mark.parametrize("take", [lambda self, zeros: self.fc(zeros.popleft()), lambda self, zeros: zeros.popleft()])
def test_zeros_that_a_forward_takes_of_a_queue_are_zeros(take):
    """They were named by a tensor of the trace, or the second step was taken for a second call in the first."""

    class Delays(Loop):
        def __init__(self):
            super().__init__(None)
            size = take.__code__.co_names[0] == "fc"
            self.late, self.queue = norse.LIFBoxCell(), deque(torch.zeros(1, 6 if size else 4) for _ in range(2))

        def forward(self, x, state=None):
            first, second = (None, None) if state is None else state
            spikes, first = self.lif(self.fc(x), first)
            late, second = self.late(take(self, self.queue), second)
            self.queue.append(x if take.__code__.co_names[0] == "fc" else spikes)
            return late, (first, second)

    with pytest.raises(UnsupportedError, match="the model keeps the output of '(lif|input)' one step before for a third step"):
        read_model(Delays(), (6,))


def test_channels_are_still_taken_apart():
    class Halves(Loop):
        def forward(self, x):
            state, out = None, []
            for step in x:
                a, b = torch.split(step, 6, dim=1)
                c, d = step.chunk(2, 1)
                spikes, state = self.lif(self.fc(a + b + c + d), state)
                out.append(spikes)
            return torch.stack(out)

    assert read_model(Halves(None), (12,)).layers[-1].name == "lif"


def test_a_module_with_rounded_weights_is_named_by_its_package():
    from torch.ao.nn import qat
    from torch.ao.quantization import get_default_qat_qconfig

    learns = qat.Linear(6, 4, qconfig=get_default_qat_qconfig())
    with pytest.raises(
        UnsupportedError,
        match="'0' is Linear of torch.ao.nn.qat, which rounds its weights; give the model as it was in floating point, which",
    ):
        read_model(norse.SequentialState(learns, norse.LIFBoxCell()), (6,))


def test_a_model_prepared_for_rounding_is_refused_as_such():
    from torch.ao.quantization import get_default_qconfig, prepare

    model = norse.SequentialState(nn.Linear(6, 4), norse.LIFBoxCell()).eval()
    model.qconfig = get_default_qconfig("fbgemm")
    message = "module '0' was prepared by torch.ao.quantization, .*; give the model as it was in floating point, which is rounded"
    with pytest.warns(DeprecationWarning), pytest.raises(UnsupportedError, match=message):
        read_model(prepare(model), (6,))


def test_slices_of_one_step_are_refused_with_what_to_take():
    class Sliced(Loop):
        def forward(self, x):
            state, out = None, []
            for t in range(x.shape[0]):
                spikes, state = self.lif(self.fc(x[t : t + 1][0]), state)
                out.append(spikes)
            return torch.stack(out)

    with pytest.raises(
        UnsupportedError, match=r"of the output of 'input'; take one step after the other, x\[t\] or x\[:, t\], or"
    ):
        read_model(Sliced(None), (12,))


def test_a_class_that_bears_the_name_of_another_is_named_by_its_module():
    class Linear(nn.Module):
        __module__ = "torch.nn.own"

        def forward(self, x):
            return x

    with pytest.raises(UnsupportedError, match="'0' is Linear of torch.nn.own, which has no spiking counterpart here"):
        read_model(norse.SequentialState(Linear(), norse.LIFBoxCell()), (6,))
