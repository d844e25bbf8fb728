"""What a forward sets of its modules: read where it is the same at every call, refused where a later one has another."""

import math

import norse.torch as norse
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model
from spear_deploy.simulator import simulate

torch.set_num_threads(1)
STEPS = 50


class Sets(nn.Module):
    """A loop over time that calls functions in front of it, within it, and behind its calls."""

    def __init__(self, before=None, within=None, behind=None):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(12, 8), norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(0.3)))
        self.raw, self.mask = nn.Parameter(torch.tensor(-1.5)), torch.ones(8, 12).tril()
        self.before, self.within, self.behind = before, within, behind
        nn.init.uniform_(self.fc.weight, -0.6, 1)

    def forward(self, x):
        state, out = None, []
        if self.before is not None:
            self.before(self)
        for t in range(x.shape[0]):
            if self.within is not None:
                self.within(self, t)
            z, state = self.lif(self.fc(x[t]), state)
            if self.behind is not None:
                self.behind(self)
            out.append(z)
        return torch.stack(out)


def set_parameters(s, t=None):
    s.lif.p = norse.LIFBoxParameters(tau_mem_inv=torch.exp(s.raw) * 500, v_th=torch.sigmoid(s.raw))


def replace_parameter(s, t=None):
    s.lif.p = s.lif.p._replace(v_th=torch.sigmoid(s.raw))


@pytest.mark.parametrize("change", [set_parameters, replace_parameter], ids=lambda f: f.__name__)
@pytest.mark.parametrize("place", ["before", "within"])
def test_parameters_of_a_cell_that_the_forward_computes_are_read(change, place):
    options = {place: change}
    x = (np.random.default_rng(0).random((STEPS, 3, 12)) < 0.3).astype(np.float32)
    graph = read_model(Sets(**options), (12,))
    with torch.no_grad():
        expected = Sets(**options)(torch.from_numpy(x)).numpy()
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)
    assert graph != read_model(Sets(), (12,))


def raise_threshold(s, t=None):
    s.lif.p = s.lif.p._replace(v_th=s.lif.p.v_th * 1.1)


def set_late(s, t):
    if t:
        replace_parameter(s)


def set_early(s, t):
    s.lif.p = s.lif.p._replace(v_th=torch.tensor(0.3) if t else torch.sigmoid(s.raw))


@pytest.mark.parametrize("change", [raise_threshold, set_late, set_early], ids=lambda f: f.__name__)
def test_parameters_of_a_cell_that_change_between_steps_are_refused(change):
    """They were read as those of the last step that was traced, without a word."""
    with pytest.raises(UnsupportedError, match=r"module 'lif' has another 'p\.v_th' in a later step, since the forward sets it"):
        read_model(Sets(within=change), (12,))


def set_number(s, t):
    s.fc.note = 2.0


def restore_number(s):
    s.fc.note = 1.0


def set_none(s, t):
    s.fc.note = None


@pytest.mark.parametrize(
    ("first", "within", "behind"), [(1.0, set_number, restore_number), (1.0, set_none, restore_number), (None, set_number, None)]
)  # fmt: skip
def test_what_a_forward_sets_back_behind_a_call_is_refused(first, within, behind):
    """A network is read from what modules hold behind the trace, which was that."""
    net = Sets(within=within, behind=behind)
    net.fc.note = first
    if behind is None:
        read_model(net, (12,))  # the same at every call
        return
    with pytest.raises(UnsupportedError, match="module 'fc' has another 'note' behind its call, since the forward sets it; set"):
        read_model(net, (12,))


def test_none_in_place_of_a_number_is_another_setting():
    def change(s, t):
        s.fc.note = None if t else 1.0

    with pytest.raises(UnsupportedError, match="module 'fc' has another 'note' in a later step, since the forward sets it"):
        read_model(Sets(within=change), (12,))


def mask_weights(s, t=None):
    s.fc.weight.data = s.fc.weight.data * s.mask


def halve_bias(s, t=None):
    s.fc.bias.data *= 0.5


@pytest.mark.parametrize("options", [{"before": mask_weights}, {"within": halve_bias}], ids=("mask", "bias"))
def test_data_of_a_tensor_that_the_forward_sets_is_refused(options):
    """The network had the weights from before."""
    with pytest.raises(UnsupportedError, match=r"the model sets '\.data' of a tensor as its forward runs, which changes it for"):
        read_model(Sets(**options), (12,))


def assign_weights(s, t=None):
    s.fc.weight *= 0.5


def assign_row(s, t=None):
    s.fc.weight[0] = 0.0


@pytest.mark.parametrize("before", [assign_weights, assign_row], ids=lambda f: f.__name__)
def test_a_parameter_that_the_forward_assigns_is_refused_by_its_cause(before):
    with pytest.raises(UnsupportedError, match="the model: its forward sets a parameter, or a part of a tensor that it computes"):
        read_model(Sets(before=before), (12,))


class Hidden(nn.Module):
    """Neurons that keep their state, in a loop over time or for one step, with functions around their calls."""

    def __init__(self, before=None, behind=None, *, after=None, is_loop=True):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.is_loop = nn.Linear(12, 8), snn.Leaky(beta=0.8, threshold=0.4, init_hidden=True), is_loop
        self.before, self.behind, self.after = (change or (lambda s: None) for change in (before, behind, after))
        nn.init.uniform_(self.fc.weight, -0.6, 1)

    def forward(self, x):
        self.before(self)
        if not self.is_loop:
            return self._run_step(x)
        outputs = torch.stack([self._run_step(step) for step in x])
        self.after(self)
        return outputs

    def _run_step(self, x):
        spikes = self.lif(self.fc(x))
        self.behind(self)
        return spikes


def detach_state(s):
    s.lif.mem = s.lif.mem.detach()


def halve_state(s):
    s.lif.mem = s.lif.mem * 0.5


def clip_state(s):
    s.lif.mem.clamp_(max=0.5)


def reset_state(s):
    s.lif.reset_mem()


def reset_all(s):
    utils.reset(s)


def make_zeros(s):
    s.lif.mem = torch.zeros(3, 8)


def make_others(s):
    s.lif.mem = torch.full((3, 8), 0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"before": reset_all, "behind": detach_state},
        {"before": make_zeros, "after": reset_state},
        {"behind": detach_state, "is_loop": False},
    ],
)
def test_states_that_neurons_keep_are_read_where_they_go_on(options):
    x = (np.random.default_rng(0).random((STEPS, 3, 12)) < 0.3).astype(np.float32)
    graph, net = read_model(Hidden(**options), (12,)), Hidden(**options)
    with torch.no_grad():
        steps = torch.from_numpy(x)
        expected = (net(steps) if net.is_loop else torch.stack([net(step) for step in steps])).numpy()
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


@pytest.mark.parametrize("is_loop", [True, False])
@pytest.mark.parametrize("behind", [halve_state, clip_state, reset_state], ids=lambda f: f.__name__)
def test_a_state_that_the_forward_sets_between_steps_is_refused(behind, is_loop):
    with pytest.raises(UnsupportedError, match="module 'lif' has another state in a later step, since the forward sets it; let"):
        read_model(Hidden(behind=behind, is_loop=is_loop), (12,))


@pytest.mark.parametrize("options", [{"before": reset_all}, {"behind": reset_all}])
def test_a_forward_of_one_step_that_resets_is_no_loop_over_the_same_input(options):
    with pytest.raises(UnsupportedError, match="it resets module 'lif' between two of its steps, which no layer here does; let"):
        read_model(Hidden(**options, is_loop=False), (12,))


def test_a_state_to_start_from_that_neurons_keep_is_refused():
    with pytest.raises(UnsupportedError, match="module 'lif' starts from a state that the forward sets, other than that of its"):
        read_model(Hidden(make_others), (12,))


def test_a_forward_that_computes_with_a_state_that_neurons_keep_is_refused():
    class Takes(Hidden):
        def _run_step(self, x):
            return self.lif(self.fc(x) + self.lif.mem)

    with pytest.raises(UnsupportedError, match="the forward computes with 'mem' of module 'lif', which keeps it; let the module"):
        read_model(Takes(make_zeros), (12,))


@pytest.mark.parametrize(
    "make", [lambda v: v.mean(0), lambda v: 0.5 * v.mean(0), lambda v: v.data.mean(0)], ids=["mean", "half", "data"]
)
def test_what_a_forward_makes_of_a_state_of_an_earlier_run_is_refused(make):
    """It would be a constant of the network, whatever the state is in a step."""

    class Takes(Hidden):
        def _run_step(self, x):
            return self.lif(self.fc(x) + make(self.lif.mem))

    net = Takes()
    net(torch.rand(4, 3, 12))
    with pytest.raises(UnsupportedError, match="the forward computes with 'mem' of module 'lif', which keeps it; let the module"):
        read_model(net, (12,))


NUMBERS = {
    "float": lambda v: float(v.mean()),
    "item": lambda v: 0.5 * v.mean().item() + 1,
    "list": lambda v: torch.tensor(v.tolist()).mean(),
    "array": lambda v: torch.from_numpy(v.detach().numpy()),
    "function": lambda v: math.exp(-v.mean().item()),
}


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("make", NUMBERS.values(), ids=NUMBERS)
def test_a_number_that_a_forward_makes_of_a_state_and_computes_with_is_refused(make, is_kept):
    """It was a constant of the network, that of the state in front of the first step."""

    class Takes(Hidden):
        def _run_step(self, x):
            return self.lif(self.fc(x) + make(self.lif.mem))

    net = Takes(make_zeros)
    net.lif.mem = torch.rand(3, 8) if is_kept else net.lif.mem
    with pytest.raises(UnsupportedError, match="the forward computes with 'mem' of module 'lif', which keeps it; let the module"):
        read_model(net, (12,))


def test_a_number_of_a_state_that_a_later_step_computes_with_is_refused():
    class Keeps(Hidden):
        level = 0.0

        def _run_step(self, x):
            spikes = self.lif(self.fc(x) + self.level)
            self.level = self.lif.mem.mean().item() * torch.ones(1)
            return spikes

    with pytest.raises(UnsupportedError, match="the forward computes with 'mem' of module 'lif', which keeps it; let the module"):
        read_model(Keeps(reset_all), (12,))


@pytest.mark.parametrize(
    "decide",
    [
        lambda v: v.mean() > 0.2,
        lambda v: v.mean().item() > 0.2,
        lambda v: v.mean().item() == 0,
        lambda v: v.mean().item() // 0.1 > 2,
        lambda v: v.mean().tolist() > 0.2,
        lambda v: v.tolist()[0][0] != 0,
        lambda v: int(v.sum()),
        lambda v: torch.equal(v, 2 * v),
    ],
    ids=["tensor", "number", "same", "divided", "tolist", "in a list", "whole", "equal"],
)
def test_a_branch_by_a_state_is_refused(decide):
    """The network had the branch of the first step."""

    class Branches(Hidden):
        def _run_step(self, x):
            return self.lif(self.fc(x) * (2 if decide(self.lif.mem) else 1))

    with pytest.raises(UnsupportedError, match="the forward takes a branch, or a whole number, by 'mem' of module 'lif', which"):
        read_model(Branches(make_zeros), (12,))


@pytest.mark.parametrize(
    "log",
    [
        lambda v: float(v.mean()),
        lambda v: abs(v.max().item() - 1) // 0.1,
        lambda v: v.detach().numpy(),
        lambda v: {"mem": v.tolist(), "text": f"{v.mean().item():.3f}"},
    ],
)
def test_a_state_that_a_forward_logs_is_left_out(log):
    class Logs(Hidden):
        def _run_step(self, x):
            spikes = self.lif(self.fc(x))
            self.level = log(self.lif.mem)
            return spikes

    net, x = Logs(make_zeros), (np.random.default_rng(0).random((STEPS, 3, 12)) < 0.3).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(simulate(read_model(net, (12,)), x, kind="current").output, expected)


@pytest.mark.parametrize("name", ["syn", "spk"])
def test_further_states_that_a_forward_sets_are_refused(name):
    def change(s):
        setattr(s.lif, name, 0.5 * getattr(s.lif, name))

    def fill(s):
        setattr(s.lif, name, torch.full((3, 8), 0.2))

    def make(**options):
        net = Hidden(**options)
        net.lif = snn.RSynaptic(alpha=0.7, beta=0.8, linear_features=8, init_hidden=True)
        return net

    with pytest.raises(UnsupportedError, match="module 'lif' has another state in a later step, since the forward sets it; let"):
        read_model(make(behind=change), (12,))
    with pytest.raises(UnsupportedError, match="module 'lif' starts from a state that the forward sets, other than that of its"):
        read_model(make(before=fill), (12,))


@pytest.mark.parametrize("part", ["drop", None])
def test_a_forward_that_puts_modules_into_training_is_refused(part):
    class Drops(Hidden):
        def __init__(self):
            super().__init__(lambda s: (getattr(s, part) if part else s).train())
            self.drop = nn.Dropout(0.5)

        def _run_step(self, x):
            return super()._run_step(self.drop(x))

    with pytest.raises(UnsupportedError, match="module 'drop' is in training mode, which the forward sets; leave `train"):
        read_model(Drops(), (12,))
