"""Networks of sinabs' modules: the same spikes in sinabs and in the network read from them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sl = pytest.importorskip("sinabs.layers")

import sinabs.activation as activation  # noqa: E402
from torch import nn  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.frameworks.write_back import store_weights  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.framework_runs import NETWORKS, SAMPLES, STEPS, Draw, count_differences, recorded  # noqa: E402

KINDS = (sl.IAF, sl.LIF, sl.ExpLeak)


def make_neuron(draw, shape, squeeze):
    """Return a random neuron module; `squeeze` takes time within the batch."""
    spread = draw.pick((), shape)
    options = {
        "spike_threshold": torch.as_tensor(draw.between(0.3, 1.2, *spread)),
        "spike_fn": draw.pick(activation.SingleSpike, activation.MultiSpike, activation.MultiSpike, activation.MaxSpike(3)),
        "reset_fn": draw.pick(activation.MembraneSubtract(), activation.MembraneReset()),
    }  # fmt: skip
    kind = draw.pick("IAF", "LIF", "LIF")
    if kind == "LIF":
        options |= {"tau_mem": draw.between(1.5, 20, *draw.pick((), spread)), "norm_input": draw.chance(0.3)}
        options |= {"train_alphas": draw.chance(0.3)}
        if options["norm_input"]:
            options["spike_threshold"] = options["spike_threshold"] / 4
    if draw.chance(0.3):
        options["tau_syn"] = torch.as_tensor(draw.between(1.0, 5.0))
    elif kind == "IAF" and draw.chance(0.5):
        options["min_v_mem"] = -draw.between(0.0, 1.0)
    if squeeze:
        options["batch_size"] = SAMPLES
    return getattr(sl, f"{kind}Squeeze" if squeeze else kind)(**options)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_random_network_spikes_as_in_sinabs(seed):
    draw = Draw(seed)
    squeeze = draw.chance(0.7)
    while True:
        parts, shape = draw.network(lambda d, s: make_neuron(d, s, squeeze), pools=(nn.AvgPool2d, nn.MaxPool2d, sl.SumPool2d))
        for neuron, pool in pairwise(parts):
            if isinstance(pool, nn.MaxPool2d):  # of numbers of spikes none is read
                neuron.spike_fn = activation.SingleSpike
        if squeeze or len(shape) == 1:  # without Squeeze a convolution does not see time
            break
    if draw.chance(0.3):
        parts.append(sl.ExpLeakSqueeze(batch_size=SAMPLES, tau_mem=5.0) if squeeze else sl.ExpLeak(tau_mem=5.0, norm_input=True))
    model, x = nn.Sequential(*parts).eval(), draw.spikes(shape)
    given = torch.from_numpy(x).transpose(0, 1)
    theirs = recorded(model, KINDS, lambda: model(given.flatten(0, 1) if squeeze else given))
    theirs = {
        path: made.reshape(SAMPLES, STEPS, *made.shape[2 if squeeze else 3 :]).swapaxes(0, 1) for path, made in theirs.items()
    }
    different, emitted = count_differences(model, shape, x, theirs)
    assert different == 0 and emitted > 0


def test_the_number_of_spikes_in_a_step_is_the_spike_functions():
    def most(spike_fn):
        return read_model(nn.Sequential(nn.Linear(6, 5), sl.IAF(spike_fn=spike_fn)), (6,))["1"].neuron.max_spikes

    limited = (activation.MaxSpike(2), activation.MaxSpike(), activation.SingleSpike)
    assert [most(rule) for rule in limited] == [2, None, 1]
    graph = read_model(nn.Sequential(nn.Linear(6, 5), sl.IAF()), (6,))
    assert graph["1"].neuron.max_spikes is None and "assumptions" not in graph.metadata


def test_a_lower_bound_is_that_of_a_neuron_without_leak():
    bounded = read_model(nn.Sequential(sl.IAF(min_v_mem=-1.0, spike_fn=activation.SingleSpike)), (6,))
    assert bounded["0"].neuron.v_min == -1.0 and not bounded.metadata.get("assumptions")
    assert read_model(nn.Sequential(sl.LIF(tau_mem=3.0)), (6,), dt_s=2e-3)["0"].neuron.tau_s > 4e-3


def test_a_converted_network_is_read_through_its_container():
    from sinabs.from_torch import from_model

    torch.manual_seed(0)
    network = from_model(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), batch_size=1, min_v_mem=None, spike_fn=activation.SingleSpike)
    x = torch.rand(20, 1, 6)
    with torch.no_grad():
        network.spiking_model[0].weight.add_(0.3)
        spikes = network.spiking_model(x[:, 0])
    assert spikes.sum() > 10
    np.testing.assert_array_equal(simulate(read_model(network, (6,)), x.numpy(), kind="current").output[:, 0], spikes.numpy() > 0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: sl.IAF(spike_fn=print), "has spike_fn=print, expected MultiSpike, MaxSpike or SingleSpike"),
        (lambda: sl.IAF(reset_fn=activation.MembraneSubtract(0.5)), r"=0.5.*; expected MembraneSubtract\(\) or MembraneR"),
        (lambda: sl.IAF(reset_fn=activation.MembraneReset(0.3)), r"=0.3.*, which sinabs adds to every neuron in every step; exp"),
        (lambda: sl.LIF(tau_mem=3.0, min_v_mem=-0.5), "module '1' has min_v_mem=-0.5, a lower .*; train with min_v_mem=None, or"),
        (lambda: sl.IAF(tau_syn=3.0, min_v_mem=torch.tensor([-1.0] * 4 + [-2.0])), "has min_v_mem=-2, -1, a lower bound of the "),
        (lambda: sl.ExpLeak(tau_mem=3.0, min_v_mem=-0.5), "has min_v_mem=-0.5, a lower bound of the membrane that only spiking"),
        (lambda: sl.ALIF(tau_mem=3.0, tau_adapt=3.0, adapt_scale=1.0), "module '1' is ALIF, .*its threshold adapts; use LIF"),
        (lambda: sl.LIFRecurrent(tau_mem=3.0, rec_connect=nn.ReLU()), "has a rec_connect of another kind than one linear"),
        (lambda: sl.LIFRecurrent(tau_mem=3.0, rec_connect=nn.Linear(5, 4)), "part of module '1' gives 4 values, the layer has"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused(module, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(nn.Sequential(nn.Linear(6, 5), module()), (6,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_recurrent_layers_spike_as_in_sinabs_and_go_home(bias, nested):
    """sinabs adds the bias of recurrent weights from the second step on."""
    torch.manual_seed(3)

    def connect(size):
        weights = nn.Linear(size, size, bias=bias)
        return nn.Sequential(nn.Flatten(), weights, nn.Unflatten(1, (size,))) if nested else weights

    model = nn.Sequential(
        nn.Linear(6, 8),
        sl.LIFRecurrent(tau_mem=torch.rand(8) * 9 + 2, tau_syn=3.0, rec_connect=connect(8), norm_input=False),
        nn.Linear(8, 5),
        sl.IAFRecurrent(rec_connect=connect(5), spike_fn=activation.SingleSpike),
    )
    x = torch.rand(20, 3, 6)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.mul_(3 if name.endswith("weight") else 1)
        spikes = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    assert spikes.sum() > 20
    graph = read_model(model)
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, spikes)
    for module in model[1::2]:
        module.reset_states()
    home = store_weights(model, graph)
    with torch.no_grad():
        np.testing.assert_array_equal(home(x.transpose(0, 1)).transpose(0, 1).numpy(), spikes)


class Skip(nn.Module):
    """Two layers of neurons whose spikes are merged, on time within the batch."""

    def __init__(self, batch):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.one, self.two = sl.IAFSqueeze(batch_size=batch), sl.IAFSqueeze(batch_size=batch, spike_fn=activation.SingleSpike)
        self.merge, self.pool, self.flatten = sl.Merge(), sl.SumPool2d(2), nn.Flatten()
        self.fc, self.out = nn.Linear(12, 4), sl.IAFSqueeze(batch_size=batch)

    def forward(self, x):
        one = self.one(self.conv1(x))
        merged = self.merge(one, self.two(self.conv2(one)))
        return self.out(self.fc(self.flatten(self.pool(merged))))


def test_merged_signals_are_added_and_repeated_modules_run_step_by_step():
    torch.manual_seed(0)
    x, skip = (torch.rand(12, 2, 1, 4, 4) < 0.5).float(), Skip(2)
    repeated = nn.Sequential(sl.Repeat(nn.Conv2d(1, 3, 3)), sl.IAF(), nn.Flatten(2), nn.Linear(12, 4), sl.IAF())
    for model in (skip, repeated):
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.mul_(3 if name.endswith("weight") else 1)
            given = x.transpose(0, 1)
            spikes = model(given.flatten(0, 1)).unflatten(0, (2, 12)) if model is skip else model(given)
        graph = read_model(model, (1, 4, 4))
        np.testing.assert_array_equal(simulate(graph, x.numpy()).output, spikes.transpose(0, 1).numpy())
        assert spikes.any() and store_weights(model, graph) is not model
    assert [layer.name for layer in read_model(repeated, (1, 4, 4)).layers] == ["1", "4"]


class Merged(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.merge, self.out = nn.Linear(6, 5), nn.Linear(6, 4), sl.Merge(), sl.IAF()

    def forward(self, x):
        return self.out(self.merge(self.a(x), self.b(x)))


def test_other_merges_repeats_and_counters_are_refused():
    from sinabs.from_torch import from_model

    with pytest.raises(UnsupportedError, match="module 'merge' merges 5 and 4 values; give it two signals of equal shape"):
        read_model(Merged(), (6,))
    squeezed = nn.Sequential(sl.Repeat(nn.Linear(6, 5)), sl.IAFSqueeze(batch_size=1))
    with pytest.raises(
        UnsupportedError, match="module '0' is Repeat, which runs over time within one step; use its module alone"
    ):
        read_model(squeezed, (6,))
    counted = from_model(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), batch_size=1, synops=True)
    with pytest.raises(UnsupportedError, match="the model counts its SynOps by hooks, which cannot be copied; build it without"):
        read_model(counted, (6,))


def test_convolutions_need_time_within_the_batch():
    with pytest.raises(UnsupportedError, match="Conv2d on time x batch x 1 x 4 x 4; use IAFSqueeze"):
        read_model(nn.Sequential(nn.Conv2d(1, 2, 3), sl.IAF()), (1, 4, 4))


def test_a_max_pool_of_numbers_of_spikes_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), sl.IAFSqueeze(batch_size=1), nn.MaxPool2d(2))
    with pytest.raises(UnsupportedError, match="module '2' is MaxPool2d behind neurons that send several spikes in a step"):
        read_model(network, (1, 6, 6))


@pytest.mark.parametrize("most", [1, 3, None])
def test_a_network_takes_home_how_many_spikes_a_neuron_sends(most):
    rule = activation.MultiSpike if most == 1 else activation.SingleSpike
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), sl.IAFSqueeze(batch_size=2, spike_fn=rule))
    graph = read_model(model, (6,))
    other = graph.with_layers(
        lambda layer: replace(layer, neuron=replace(layer.neuron, max_spikes=most)) if layer.neuron else layer
    )
    home = store_weights(model, other)
    x = 20 * torch.rand(12, 2, 6)
    with torch.no_grad():
        spikes = home(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (2, 12)).transpose(0, 1).numpy()
    np.testing.assert_array_equal(spikes, simulate(other, x.numpy(), kind="current").output)
    assert read_model(home, (6,))["1"].neuron.max_spikes == most
    assert spikes.max() == most if most else spikes.max() > 3


def test_time_merged_into_the_batch_by_modules_spikes_the_same():
    torch.manual_seed(0)
    parts = [sl.FlattenTime(), nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), sl.UnflattenTime(3), sl.IAF(spike_threshold=0.2)]
    parts += [sl.FlattenTime(), nn.Flatten(), nn.Linear(36, 5), sl.UnflattenTime(3), sl.LIF(tau_mem=5.0, spike_threshold=0.1)]
    model, x = nn.Sequential(*parts).eval(), (torch.rand(12, 3, 2, 8, 8) < 0.5).float()
    graph = read_model(model, (2, 8, 8))
    with torch.no_grad():
        theirs = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    assert theirs.sum() > 10
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, theirs)


class OwnSubtract(activation.MembraneSubtract):
    def __call__(self, spikes, state, threshold):
        return {**state, "v_mem": state["v_mem"] - 2 * spikes * threshold}


class OwnReset(activation.MembraneReset):
    def __call__(self, spikes, state, threshold):
        return {**state, "v_mem": state["v_mem"] * (spikes == 0) - 1}


class OwnMaxSpike(activation.MaxSpike):
    def apply(self, v_mem, spike_threshold, surrogate_grad_fn):
        return activation.MultiSpike.apply(v_mem, spike_threshold + 0.1, surrogate_grad_fn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_fn": OwnSubtract()}, r"has reset_fn=OwnSubtract\(subtract_value=None\); expected MembraneSubtract\(\)"),
        ({"reset_fn": OwnReset()}, r"has reset_fn=OwnReset\(reset_value=0.0\); expected MembraneSubtract\(\)"),
        ({"spike_fn": OwnMaxSpike(3)}, "has spike_fn=OwnMaxSpike, expected MultiSpike, MaxSpike or SingleSpike"),
        ({"spike_fn": None, "tau_syn": 3.0}, "has spike_fn=None and a tau_syn, which no readout here has; give it tau_syn=None"),
    ],
)
def test_rules_that_compute_something_else_than_sinabs_are_refused(options, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(nn.Sequential(nn.Linear(6, 5), sl.IAF(**options)), (6,))


@pytest.mark.parametrize("readout", [lambda: sl.LIF(tau_mem=4.0, spike_fn=None), lambda: sl.IAF(spike_fn=None)])
def test_neurons_without_spikes_are_a_readout_of_their_potential(readout):
    torch.manual_seed(0)
    x, neurons = torch.rand(20, 2, 6), sl.LIF(tau_mem=4.0, spike_threshold=torch.tensor(0.1))
    model = nn.Sequential(nn.Linear(6, 8), neurons, nn.Linear(8, 3), readout())
    with torch.no_grad():
        theirs = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    graph = read_model(model, (6,))
    assert not graph["3"].spikes and abs(theirs).max() > 0.1
    np.testing.assert_allclose(simulate(graph, x.numpy(), kind="current").output, theirs, atol=1e-5)


class OwnSqueeze(sl.LIFSqueeze):
    """A class of one's own, which takes fewer arguments than it copies itself with."""

    def __init__(self, batch_size):
        super().__init__(tau_mem=4.0, batch_size=batch_size, norm_input=False)


class HalfSqueeze(sl.LIFSqueeze):
    def squeeze_forward(self, input_data, forward_method):
        return super().squeeze_forward(input_data, forward_method) / 2


def test_a_squeeze_form_that_changes_its_output_is_refused():
    with pytest.raises(UnsupportedError, match="module '1' is HalfSqueeze, which has no spiking counterpart here"):
        read_model(nn.Sequential(nn.Linear(6, 5), HalfSqueeze(tau_mem=4.0, batch_size=3)), (6,))


class Filled(nn.Module):
    """A forward over (B, T, ...) that puts time into the batch for its neurons, and parts both as `part` says."""

    def __init__(self, fill, part):
        super().__init__()
        self.fill, self.part = fill, part
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3), sl.IAFSqueeze(batch_size=3), sl.SumPool2d(2))
        self.fc, self.out = nn.Linear(36, 4), OwnSqueeze(3)

    def forward(self, x):
        batch, steps = x.shape[:2]
        return self.part(self.out(self.fc(self.features(self.fill(x, batch * steps)).flatten(1))), batch, steps)


FILLS = (lambda x, n: x.flatten(0, 1), lambda x, n: x.reshape(n, *x.shape[2:]), lambda x, n: x.reshape(-1, 2, 8, 8))
PARTS = (lambda x, b, t: x.unflatten(0, (b, t)), lambda x, b, t: x.reshape(b, t, -1), lambda x, b, t: x)


@pytest.mark.parametrize(("fill", "part"), [*((fill, PARTS[0]) for fill in FILLS), *((FILLS[0], part) for part in PARTS[1:])])
def test_a_forward_that_puts_time_into_the_batch_spikes_as_in_sinabs_and_goes_home(fill, part):
    torch.manual_seed(0)
    model, x = Filled(fill, part).eval(), (torch.rand(12, 3, 2, 8, 8) < 0.5).float()
    with torch.no_grad():
        model.fc.weight.add_(0.05)

    def run(network):
        with torch.no_grad():
            made = network(x.transpose(0, 1))
        return made.reshape(3, 12, -1).transpose(0, 1).numpy()

    theirs, graph = run(model), read_model(model, (2, 8, 8))
    assert theirs.sum() > 10 and [layer.name for layer in graph.layers if layer.spikes] == ["features.1", "out"]
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, theirs)
    np.testing.assert_array_equal(run(store_weights(model, graph)), theirs)


def test_a_mean_over_the_steps_behind_time_in_the_batch_has_a_note():
    graph = read_model(Filled(FILLS[0], lambda x, b, t: x.unflatten(0, (b, t)).mean(1)), (2, 8, 8))
    (note,) = graph.metadata["assumptions"]
    assert "the forward returns the mean of its outputs over time" in note


@pytest.mark.parametrize("part", [nn.Unflatten(0, (3, 6)), nn.Unflatten(0, (-1, 6))])
def test_modules_of_torch_that_put_time_into_the_batch_and_out_of_it_are_read(part):
    torch.manual_seed(0)
    parts = [nn.Flatten(0, 1), nn.Conv2d(2, 4, 3), part, sl.IAF()]
    parts += [nn.Flatten(0, 1), nn.Flatten(), nn.Linear(64, 5), part, sl.IAF()]
    model, x = nn.Sequential(*parts).eval(), (torch.rand(6, 3, 2, 6, 6) < 0.5).float() * 3
    graph = read_model(model, (2, 6, 6))
    with torch.no_grad():
        expected = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, expected)
    assert expected.any()


def test_other_numbers_of_steps_in_one_network_are_refused():
    parts = [nn.Conv2d(2, 4, 3), sl.IAFSqueeze(num_timesteps=4), nn.Flatten(), nn.Linear(64, 5), sl.IAFSqueeze(num_timesteps=8)]
    with pytest.raises(UnsupportedError, match="module '4' has num_timesteps=8, module '1' 4, so that .* of steps of your data"):
        read_model(nn.Sequential(*parts), (2, 6, 6))
    parts[1] = sl.IAFSqueeze(batch_size=3)
    notes = read_model(nn.Sequential(*parts), (2, 6, 6)).metadata["assumptions"]
    assert "module '4': num_timesteps=8: sinabs starts anew every 8 steps, the network at each sample" in notes
    assert len(read_model(nn.Sequential(*parts), (2, 6, 6)).layers) == 2
    parts[4] = sl.IAFSqueeze(batch_size=1)
    with pytest.raises(UnsupportedError, match="module '4' has batch_size=1, module '1' 3, so that .* of samples of a batch"):
        read_model(nn.Sequential(*parts), (2, 6, 6))
    parts = [nn.Flatten(0, 1), nn.Conv2d(2, 4, 3), nn.Unflatten(0, (-1, 6)), sl.IAF()]
    parts += [nn.Flatten(0, 1), nn.Flatten(), nn.Linear(64, 5), nn.Unflatten(0, (-1, 3)), sl.IAF()]
    with pytest.raises(UnsupportedError, match=r"'7' parts time and batch into \(-1, 3\), module '2' into \(-1, 6\), so that"):
        read_model(nn.Sequential(*parts), (2, 6, 6))


def test_a_state_of_an_earlier_run_has_a_note():
    model = nn.Sequential(nn.Linear(6, 5), sl.IAF())
    model(torch.ones(2, 3, 6))
    expected = "module '1': holds a state of an earlier run: the network starts without, as after sinabs.reset_states(net)"
    assert read_model(model, (6,)).metadata["assumptions"] == [expected]
    model[1].reset_states()
    assert "assumptions" not in read_model(model, (6,)).metadata


class Moves(nn.Module):
    """A batch norm, or another module, on channels in front of time."""

    def __init__(self, inner, there, back):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.inner, self.lif = nn.Linear(12, 8), inner, sl.LIF(tau_mem=5.0, norm_input=False)
        self.there, self.back = there, back
        nn.init.uniform_(self.fc.weight, -0.6, 1)

    def forward(self, x):
        return self.lif(self.back(self.inner(self.there(self.fc(x)))))


def draw_norm():
    norm = nn.BatchNorm1d(8)
    for values, bounds in ((norm.weight, (0.6, 1.4)), (norm.running_mean, (-0.5, 0.5)), (norm.running_var, (0.5, 2))):
        nn.init.uniform_(values, *bounds)
    return norm


ORDERS = {
    "transpose": (lambda x: x.transpose(1, 2), lambda x: x.transpose(-1, 1)),
    "permute": (lambda x: x.permute(0, 2, 1), lambda x: torch.permute(x, (0, 2, 1))),
    "time in front": (lambda x: x.permute(1, 2, 0), lambda x: x.permute(2, 0, 1)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_norm_on_channels_in_front_of_time_is_one_of_every_step(order):
    model = Moves(nn.Sequential(draw_norm(), nn.Dropout(0.2)), *ORDERS[order]).eval()
    x = (np.random.default_rng(0).random((50, 3, 12)) < 0.3).astype(np.float32)
    graph = read_model(model, (12,))
    with torch.no_grad():
        expected = model(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
    assert 0.05 < expected.mean() < 2
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)
    assert [(layer.name, layer.norm is not None) for layer in graph.layers] == [("lif", True)]


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_convolution_of_one_step_on_channels_in_front_of_time_is_a_dense_layer(has_bias):
    torch.manual_seed(0)
    model = Moves(nn.Conv1d(8, 8, 1, bias=has_bias), *ORDERS["transpose"])
    nn.init.uniform_(model.inner.weight, -0.3, 0.6)
    x = (np.random.default_rng(0).random((50, 3, 12)) < 0.3).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
    graph = read_model(model, (12,))
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)
    assert expected.any() and [type(layer.synapse).__name__ for layer in graph.layers] == ["Dense", "Dense"]
    half = replace(graph["lif"].synapse, weight=graph["lif"].synapse.weight / 2)
    stored = store_weights(model, replace(graph, layers=(graph["fc"], replace(graph["lif"], synapse=half))))
    np.testing.assert_array_equal(stored.inner.weight[:, :, 0].detach().numpy(), half.weight)


class Mixed(nn.Module):
    """Neurons that take time within the batch behind others that take it beside the batch, or the other way round."""

    def __init__(self, is_merged_first):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.back, self.is_merged_first = nn.Linear(12, 8), nn.Linear(8, 8), is_merged_first
        self.merged, self.lif = sl.IAFSqueeze(batch_size=3, spike_threshold=0.7), sl.LIF(tau_mem=5.0, spike_threshold=0.7)
        for layer in (self.fc, self.back):
            nn.init.uniform_(layer.weight, -0.3, 0.5)

    def forward(self, x):
        samples, steps = x.shape[:2]
        if self.is_merged_first:
            spikes = self.merged(self.fc(x).flatten(0, 1)).unflatten(0, (samples, steps))
            return self.lif(self.back(spikes))
        return self.merged(self.back(self.lif(self.fc(x))).flatten(0, 1)).unflatten(0, (samples, steps))


@pytest.mark.parametrize("is_merged_first", [True, False])
def test_neurons_with_time_beside_and_within_the_batch_are_read_in_one_network(is_merged_first):
    x = (np.random.default_rng(0).random((50, 3, 12)) < 0.3).astype(np.float32)
    model = Mixed(is_merged_first)
    with torch.no_grad():
        expected = model(torch.from_numpy(x).transpose(0, 1)).transpose(0, 1).numpy()
    np.testing.assert_array_equal(simulate(read_model(model, (12,)), x, kind="current").output, expected)
    assert expected.any()


def test_time_beside_the_batch_where_neurons_take_it_within_is_refused():
    model = Mixed(False)
    net = nn.Sequential(model.fc, model.lif, model.back, model.merged)
    with pytest.raises(UnsupportedError, match="module '3' is IAFSqueeze, which .* in a model over time; use its Squeeze module"):
        read_model(net, (12,))


@pytest.mark.parametrize(
    ("there", "inner", "message"),
    [
        (ORDERS["transpose"][0], nn.Conv1d(8, 8, 1, groups=2), "a Conv1d of kernel_size=1 and groups=1 alone takes them so"),
        (ORDERS["transpose"][0], nn.Conv1d(8, 8, 1, padding=1), "a Conv1d of kernel_size=1 and groups=1 alone takes them so"),
        (
            ORDERS["transpose"][0],
            nn.Conv1d(8, 8, 3, padding=1),
            "'inner' is Conv1d on the output of 'fc' in front of time or batch",
        ),
        (lambda x: x.transpose(1, 2).abs(), nn.Identity(), "the model calls 'abs', which has no counterpart"),
        (
            lambda x: x.transpose(1, 2) * 2,
            nn.Identity(),
            "calls 'mul' on the output of 'fc' in front of time or batch; put time and",
        ),
        (lambda x: x.transpose(1, 2).transpose(0, 1), nn.Identity(), "calls 'transpose', which has no counterpart here"),
        (lambda x: x[:, 0].unsqueeze(1), nn.Identity(), "takes .:, 0. of the output of 'fc'; return all steps"),
    ],
)
def test_other_calls_on_channels_in_front_of_time_are_refused(there, inner, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(Moves(inner, there, ORDERS["transpose"][1]), (12,))


def test_neurons_on_channels_in_front_of_time_are_refused():
    model = Moves(nn.Identity(), ORDERS["transpose"][0], lambda x: x)
    with pytest.raises(
        UnsupportedError, match="module 'lif' is LIF on the output of 'fc' in front of time or batch, where it would"
    ):
        read_model(model, (12,))


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (lambda x: [x[:, t].unsqueeze(1) for t in range(x.shape[1])], "its modules run over time: give them all steps at once"),
        (lambda x: [x[:, t : t + 1] for t in range(x.shape[1])], r"all steps at once, in place of a loop over x\[:, t:t\+1\]"),
        (lambda x: x.split(1, 1), "by 'split'; give modules that run over time all steps at once"),
        (lambda x: torch.chunk(x, x.shape[1], 1), "by 'chunk'; give modules that run over time all steps at once"),
    ],
)
def test_a_loop_around_modules_over_time_is_refused_by_its_cause(take, message):
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(12, 8), sl.LIF(tau_mem=5.0)

        def forward(self, x):
            return torch.cat([self.lif(self.fc(step)) for step in take(x)], 1)

    with pytest.raises(UnsupportedError, match=message):
        read_model(Looped(), (12,))


class WithSteps(nn.Module):
    """The same on samples x time, which its forward puts into one axis and parts again."""

    def __init__(self):
        super().__init__()
        self.net = Skip(2)

    def forward(self, x):
        samples, steps = x.shape[:2]
        return self.net(x.reshape(samples * steps, *x.shape[2:])).reshape(samples, steps, -1)


def test_signals_with_time_in_the_batch_are_merged_too():
    torch.manual_seed(0)
    model, x = WithSteps(), (torch.rand(50, 2, 1, 4, 4) < 0.5).float()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.mul_(3 if name.endswith("weight") else 1)
        spikes = model(x.transpose(0, 1)).transpose(0, 1).numpy()
    graph = read_model(model, (1, 4, 4))
    np.testing.assert_array_equal(simulate(graph, x.numpy()).output, spikes)
    assert spikes.any() and graph == read_model(model, (1, 4, 4))


class TakesPotential(nn.Module):
    """Computes with the potential that a layer keeps, or sets it first."""

    def __init__(self, kind):
        super().__init__()
        self.fc, self.spike, self.out, self.kind = nn.Linear(6, 5), sl.LIF(tau_mem=10.0), nn.Linear(5, 3), kind

    def forward(self, x):
        if self.kind == "sets":
            self.spike.v_mem = torch.full((len(x), 5), 0.7)
        if self.kind == "resets":
            self.spike.reset_states()
        spikes = self.spike(self.fc(x))
        if self.kind == "takes":
            spikes = spikes + 0.5 * self.spike.v_mem[:, None]
        return self.out(spikes)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sets", "module 'spike' starts from a state that the forward sets, other than that of its reset; let it start from"),
        ("takes", "the forward computes with 'v_mem' of module 'spike', which keeps it; sinabs' modules return"),
    ],
)
def test_a_potential_that_a_forward_sets_or_takes_is_refused(kind, message):
    net = TakesPotential(kind)
    net(torch.rand(2, 4, 6))
    with pytest.raises(UnsupportedError, match=message):
        read_model(net, (6,))


def test_a_forward_that_resets_its_layers_first_is_read():
    net, x = TakesPotential("resets"), torch.rand(2, 40, 6)
    with torch.no_grad():
        expected = net(x).numpy().swapaxes(0, 1)
    run = simulate(read_model(net, (6,)), x.numpy().swapaxes(0, 1), kind="current")
    np.testing.assert_allclose(run.output, expected, atol=1e-5)


class HasSizes(nn.Module):
    """Has anything under the names by which sinabs' modules state their sizes."""

    def __init__(self):
        super().__init__()
        self.batch_size, self.num_timesteps = None, "all"
        self.fc, self.spike = nn.Linear(6, 5), sl.IAFSqueeze(batch_size=1)

    def forward(self, x):
        return self.spike(self.fc(x))


def test_sizes_under_the_same_names_in_a_module_of_the_users_are_no_statement():
    assert "assumptions" not in read_model(HasSizes(), (6,)).metadata
