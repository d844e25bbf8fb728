"""Networks as people hold them: wrapped, parametrised, with numbers and checks in their forwards."""

import random

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.models import read_model
from spear_deploy.frameworks.write_back import store_weights
from spear_deploy.simulator import simulate

torch.set_num_threads(1)
GAIN = 2.0


def box(rate=300.0):
    return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(rate), v_th=torch.tensor(0.4)))


class Net(nn.Module):
    """Two layers and a loop over time; `change` gets the current input, `end` the outputs of all steps."""

    def __init__(self, change=lambda s, x, t: x, end=lambda s, outputs, kept: torch.stack(outputs)):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(12, 20), box(), nn.Linear(20, 6), box()
        with torch.no_grad():
            self.fc1.weight.mul_(4)
            self.fc2.weight.mul_(6)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 12))
        self.change, self.end = change, end

    def forward(self, x):
        a = b = None
        outputs, kept = [None] * x.shape[0], []
        for t in range(x.shape[0]):
            z, a = self.l1(self.fc1(self.change(self, x[t], t)), a)
            kept.append(z)
            outputs[t], b = self.l2(self.fc2(z), b)
        return self.end(self, outputs, kept)


def draw_input(shape=(12,)):
    return (np.random.default_rng(1).random((8, 3, *shape)) < 0.5).astype(np.float32)


def check(model, expected=None, shape=(12,)):
    """Compare the spikes of a model with those of the network that is read from it."""
    x = draw_input(shape)
    graph = read_model(model, shape)
    with torch.no_grad():
        expected = (model.eval() if expected is None else expected)(torch.from_numpy(x)).numpy()
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)
    return graph


# --------------------------------------------------------------------------------------------------------------- wrappers


def compile_forward(model):
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def wrap_inner(model):
    model.fc1 = nn.DataParallel(model.fc1)
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
        lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
        wrap_inner,
        compile_forward,
        torch.optim.swa_utils.AveragedModel,
    ],
    ids=("parallel", "compiled parallel", "parallel compiled", "parallel within", "compiled forward", "averaged"),
)
def test_a_wrapped_network_is_the_one_within(wrap):
    graph = check(wrap(Net()), expected=Net().eval())
    assert [layer.name.removeprefix("module.") for layer in graph.layers] == ["l1", "l2"]


def test_a_forward_under_torch_compile_by_decorator_is_the_function_below():
    class Compiled(Net):
        @torch.compile(backend="eager")  # imports the compiler, seconds that other processes of the tests need not spend
        def forward(self, x):
            return super().forward(x)

    check(Compiled(), expected=Net().eval())


def test_weights_go_back_into_the_network_within_a_wrapper():
    net = Net()
    graph = read_model(net, (12,))
    home = store_weights(nn.DataParallel(net), graph)
    x = torch.from_numpy(draw_input())
    with torch.no_grad():
        assert torch.equal(home(x), net(x))


def test_a_wrapper_with_a_hook_is_refused():
    wrapped = nn.DataParallel(Net())
    wrapped.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(UnsupportedError, match="the model has a forward hook, which may change what it computes"):
        read_model(wrapped, (12,))


# --------------------------------------------------------------------------------------------------------------- weights


class Rounded(nn.Module):
    def forward(self, weight):
        step = weight.abs().max() / 7
        return weight + ((weight / step).round() * step - weight).detach()


def by_lora(layer):
    class Low(nn.Linear):
        def forward(self, x):
            return functional.linear(x, self.weight + self.up @ self.down, self.bias)

    low = Low(layer.in_features, layer.out_features)
    low.load_state_dict(layer.state_dict())
    low.up, low.down = nn.Parameter(torch.randn(20, 2) * 0.5), nn.Parameter(torch.randn(2, 12) * 0.5)
    return low


def by_addmm(layer):
    class Product(nn.Module):
        def forward(self, x):
            return torch.addmm(self.layer.bias, x, self.layer.weight.t())

    product = Product()
    product.layer = layer
    return product


def by_standardised_weights(layer):
    class Standard(nn.Linear):
        def forward(self, x):
            w = self.weight - self.weight.mean(1, keepdim=True)
            return functional.linear(x, w / (w.std(1, keepdim=True) + 1e-5), self.bias)

    made = Standard(12, 20)
    made.load_state_dict(layer.state_dict())
    return made


def masked(layer):
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def rounded(layer):
    parametrize.register_parametrization(layer, "weight", Rounded())
    return layer


WEIGHTS = [parametrizations.weight_norm, parametrizations.spectral_norm, masked, rounded, by_lora, by_standardised_weights]


@pytest.mark.parametrize("make", [*WEIGHTS, by_addmm], ids=lambda make: make.__name__)
def test_weights_are_those_that_the_forward_makes(make):
    net = Net()
    net.fc1 = make(net.fc1)
    graph = check(net)
    if make is masked:
        assert np.count_nonzero(graph["l1"].synapse.weight) == 120


# ----------------------------------------------------------------------------------------------------------------- norms


class Frozen(nn.Module):
    """A norm whose factors are computed from buffers in its forward."""

    def __init__(self, norm):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().reshape(1, -1, 1, 1))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale + (self.bias - self.running_mean * scale)


class Scaled(nn.BatchNorm2d):
    """A norm that calls the one that it derives from, which asks for the number of axes."""

    def forward(self, x):
        return super().forward(x) * 0.9


class ByFunction(nn.BatchNorm2d):
    def forward(self, x):
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)


class Convolution(Net):
    def __init__(self, make):
        super().__init__()
        self.conv, self.fc2 = nn.Conv2d(2, 4, 3), nn.Linear(256, 6)
        norm = nn.BatchNorm2d(4)
        with torch.no_grad():
            norm.weight.uniform_(0.7, 1.5)
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.05, 0.2)
            self.fc2.weight.mul_(4)
        self.norm = make(norm)

    def forward(self, x):
        a = b = None
        outputs = []
        for step in x:
            z, a = self.l1(self.norm(self.conv(functional.pad(step, (1, 1, 1, 1)))), a)
            z, b = self.l2(self.fc2(z.flatten(1)), b)
            outputs.append(z)
        return torch.stack(outputs)


def derive(kind):
    def make(norm):
        made = kind(4)
        made.load_state_dict(norm.state_dict())
        return made

    return make


@pytest.mark.parametrize("kind", [Frozen, derive(Scaled), derive(ByFunction), derive(nn.SyncBatchNorm)])
def test_norms_of_own_code_and_of_several_devices_are_read(kind):
    model = Convolution(kind).eval()
    x = draw_input((2, 8, 8))
    ours = simulate(read_model(model, (2, 8, 8)), x, kind="current").output
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert 0.02 < expected.mean() < 0.98
    assert (ours != expected).mean() < 0.01  # sums of another order decide where v meets its threshold


def test_norms_by_function_of_each_batch_are_refused():
    model = Convolution(derive(ByFunction))
    model.norm.running_mean = model.norm.running_var = None
    with pytest.raises(UnsupportedError, match="module 'norm' normalises by each batch; set track_running_stats=True"):
        read_model(model, (2, 8, 8))


@pytest.mark.parametrize("options", [{"mode": "reflect"}, {"value": 1.0}])
def test_padding_by_other_values_than_zeros_is_refused(options):
    net = Net(lambda s, x, t: functional.pad(x, (1, 1), **options))
    with pytest.raises(
        UnsupportedError, match=r"calls 'pad' by \(1, 1\) with .*; pad positions with zeros, over one or two axes"
    ):
        read_model(net, (12,))


def test_a_product_with_factors_is_refused():
    net = Net()
    net.fc1 = by_addmm(net.fc1)
    type(net.fc1).forward = lambda s, x: torch.addmm(s.layer.bias, x, s.layer.weight.t(), alpha=2)
    with pytest.raises(UnsupportedError, match="module 'fc1' calls 'addmm' with factors or .*; use linear with weights"):
        read_model(net, (12,))


# -------------------------------------------------------------------------------------------------- checks and random numbers


def scale_tensors(s, x, t):
    return x * GAIN if isinstance(x, torch.Tensor) else x


def scale_one_of_several_types(s, x, t):
    return x * GAIN if isinstance(x, (float, torch.Tensor)) and torch.is_tensor(x) else x


def check_type(s, x, t):
    if not isinstance(x, torch.Tensor):
        raise TypeError("expected a tensor")
    return x if isinstance(x, list | tuple) else x * GAIN


def ask_for_the_type(s, x, t):
    return x * GAIN if type(x) is torch.Tensor and isinstance(type(s), type) and issubclass(type(s), Net) else x


def make_helper(text):
    """Return a function of another file."""
    space = {"torch": torch, "__name__": "helpers"}
    exec(text, space)
    return space["scale"]


HELPER = make_helper("def scale(x): return x * 2 if isinstance(x, torch.Tensor) else x")


def ask_in_another_file(s, x, t):
    return HELPER(x)


def ask_where_it_is_enclosed(helper):
    return lambda s, x, t: helper(x)


ASKED = [scale_tensors, scale_one_of_several_types, check_type, ask_for_the_type, ask_in_another_file]


@pytest.mark.parametrize("change", [*ASKED, ask_where_it_is_enclosed(HELPER)], ids=lambda f: f.__name__)
def test_a_forward_that_asks_for_a_tensor_gets_one(change):
    check(Net(change))


def test_a_hook_that_asks_for_a_tensor_gets_one():
    net = Net()
    whole = nn.Sequential(net)
    whole.register_forward_pre_hook(lambda module, inputs: tuple(x * 2 if isinstance(x, torch.Tensor) else x for x in inputs))
    check(whole)
    assert not {"isinstance", "type"} & set(globals())
    assert not {"isinstance", "type"} & set(HELPER.__globals__)


DRAWS = {
    "torch": lambda s, x, t: x * (1 + torch.rand(())),
    "row": lambda s, x, t: x + torch.randn(12),
    "python": lambda s, x, t: x * random.random(),
    "numpy": lambda s, x, t: x * float(np.random.rand()),
    "once": lambda s, x, t: x * s.__dict__.setdefault("drawn", torch.rand(()).item()),
}


@pytest.mark.parametrize("change", DRAWS.values(), ids=DRAWS)
def test_a_forward_that_draws_random_numbers_is_refused(change):
    with pytest.raises(UnsupportedError, match="its forward draws random numbers, which are others in each run; encode the data"):
        read_model(Net(change), (12,))


# --------------------------------------------------------------------------------------------------- what a forward returns


ENDS = {
    "one in a dictionary": (lambda s, out, kept: {"spikes": torch.stack(out)}, lambda r: r["spikes"]),
    "a list of two": (lambda s, out, kept: [torch.stack(out), torch.stack(kept)], lambda r: r[0]),
    "a rate beside": (lambda s, out, kept: (torch.stack(out), torch.stack(kept).mean()), lambda r: r[0]),
    "a penalty beside": (lambda s, out, kept: (torch.stack(out), 0.1 * sum(z.mean() for z in kept) + 1), lambda r: r[0]),
    "a rate kept": (lambda s, out, kept: s.__dict__.update(rate=kept[0].sum()) or torch.stack(out), lambda r: r),
}


@pytest.mark.parametrize(("end", "pick"), ENDS.values(), ids=ENDS)
def test_what_is_returned_or_kept_beside_the_output_is_left_out(end, pick):
    net = Net(end=end)
    check(net, expected=lambda x: pick(Net(end=end).eval()(x)))


def test_a_number_taken_over_samples_goes_into_no_layer():
    with pytest.raises(UnsupportedError, match="calls 'sub' with a number taken over samples, which differs between batches;"):
        read_model(Net(lambda s, x, t: x - x.mean()), (12,))
    with pytest.raises(UnsupportedError, match="its forward returns a number taken over samples, expected"):
        read_model(Net(end=lambda s, out, kept: torch.stack(out).mean()), (12,))


class Stops(Net):
    """A loop that ends in step 5, however long the input is."""

    def forward(self, x):
        a = b = None
        outputs = []
        for t in range(x.shape[0]):
            if t >= 5:
                break
            z, a = self.l1(self.fc1(x[t]), a)
            z, b = self.l2(self.fc2(z), b)
            outputs.append(z)
        return torch.stack(outputs)


def test_a_loop_that_ends_before_its_input_is_noted():
    model, x = Stops().eval(), draw_input()
    graph = read_model(model, (12,))
    assert "the forward leaves out the last steps of its input: the network takes all of them" in graph.metadata["assumptions"]
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output[:5], expected)


# ------------------------------------------------------------------------------------------------ settings of the neurons


def test_a_number_that_is_none_stays_the_same():
    net = Net()
    net.l1.note = float("nan")
    check(net)


def test_a_threshold_that_changes_between_steps_is_refused():
    def change(s, x, t):
        s.fc1.eps = 0.3 if t else 0.4
        return x

    with pytest.raises(UnsupportedError, match="module 'fc1' has another 'eps' in a later step, since the forward sets it; let"):
        read_model(Net(change), (12,))


def test_weights_that_change_between_steps_are_refused():
    def change(s, x, t):
        s.fc1.factors = torch.ones(3) * t
        return x

    with pytest.raises(UnsupportedError, match="module 'fc1' has another 'factors' in a later step"):
        read_model(Net(change), (12,))


def test_weights_that_the_input_makes_are_refused():
    def change(s, x, t):
        vars(s.fc1)["weight"] = x
        return x

    net = Net(change)
    del net.fc1.weight
    with pytest.raises(UnsupportedError, match="a parameter of the model is computed from its input; compute it from parameters"):
        read_model(net, (12,))
