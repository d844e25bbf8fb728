"""Networks of snnTorch's modules: the same spikes in snnTorch and in the network read from them."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
snn = pytest.importorskip("snntorch")

from snntorch import surrogate, utils  # noqa: E402
from torch import nn  # noqa: E402

import spear_deploy as sd  # noqa: E402
from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.pipeline import api  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.framework_runs import NETWORKS, Draw, count_differences, patterns, recorded  # noqa: E402
from tests.support.seeds import few_first  # noqa: E402

KINDS = (snn.Leaky, snn.Lapicque, snn.Synaptic, snn.RLeaky, snn.RSynaptic)
PARTS = {snn.Leaky: 2, snn.Lapicque: 2, snn.Synaptic: 3, snn.RLeaky: 2, snn.RSynaptic: 3}


def neuron(draw, shape, hidden):
    """Return a random neuron module; `hidden` keeps its state inside."""
    kind = draw.pick(*KINDS)
    spread = draw.pick((), shape, (shape[0], *(1 for _ in shape[1:])))
    options = {"threshold": draw.between(0.5, 1.5, *draw.pick((), spread)), "learn_threshold": draw.chance(0.3)}
    if kind is snn.Lapicque:
        options |= {"R": draw.between(2, 6), "C": draw.between(1, 2), "time_step": draw.between(0.5, 1)}
    else:
        options |= {"beta": draw.between(0.3, 1.0, *spread), "learn_beta": draw.chance(0.3)}
    if kind in (snn.Synaptic, snn.RSynaptic):
        options["alpha"] = draw.between(0.2, 0.9, *draw.pick((), spread))
    if kind in (snn.RLeaky, snn.RSynaptic):
        if draw.chance(0.4):
            options |= {"all_to_all": False, "V": draw.between(-0.5, 0.5, *spread)}
        elif len(shape) == 1:
            options["linear_features"] = shape[0]
        else:
            options |= {"conv2d_channels": shape[0], "kernel_size": 3}
    resets = ["subtract", "subtract", "none"] + ["zero"] * (kind is snn.Leaky)
    options["reset_mechanism"] = draw.pick(*resets)
    if kind is snn.Synaptic and draw.chance(0.3):
        options |= {"reset_mechanism": "zero", "reset_delay": False}
    return kind(**options, init_hidden=hidden)


class Loop(nn.Module):
    """A forward with explicit states, over x[t], or of the same x in every step."""

    def __init__(self, parts, steps=None):
        super().__init__()
        self.parts, self.steps = nn.ModuleList(parts), steps

    def forward(self, x):
        states = {n: part.reset_mem() for n, part in enumerate(self.parts) if isinstance(part, KINDS)}
        spikes, membranes = [], []
        for t in range(x.size(0) if self.steps is None else self.steps):
            out = x[t] if self.steps is None else x
            for n, part in enumerate(self.parts):
                if n not in states:
                    out = part(out)
                    continue
                state = states[n] if isinstance(states[n], tuple) else (states[n],)
                result = part(out, *state)
                out, state = result[0], [result[n] for n in range(1, PARTS[type(part)])]
                states[n] = (out, *state) if isinstance(part, (snn.RLeaky, snn.RSynaptic)) else tuple(state)
            spikes.append(out)
            membranes.append(state[-1])
        return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


@pytest.mark.parametrize("seed", few_first(range(NETWORKS), NETWORKS if NETWORKS > 10 else 5))
def test_a_random_network_spikes_as_in_snntorch(seed):
    draw = Draw(seed)
    form = draw.pick("hidden", "loop", "repeat")
    parts, shape = draw.network(lambda d, s: neuron(d, s, form == "hidden"), pools=(nn.AvgPool2d, nn.MaxPool2d))
    x = draw.spikes(shape)
    if form == "repeat":
        x = np.broadcast_to(x[:1], x.shape)
    given = torch.from_numpy(np.ascontiguousarray(x))
    model = (nn.Sequential(*parts) if form == "hidden" else Loop(parts, len(x) if form == "repeat" else None)).eval()

    def run():
        if form == "hidden":
            for step in given:
                model(step)
        else:
            model(given[0] if form == "repeat" else given)

    different, emitted = count_differences(model, shape, x, recorded(model, KINDS, run))
    assert different == 0 and emitted > 0


class Tutorial5(nn.Module):
    """The network of snnTorch's tutorial 5, smaller."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(40, 100), snn.Leaky(beta=0.95)
        self.fc2, self.lif2 = nn.Linear(100, 10), snn.Leaky(beta=0.95)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for _ in range(25):
            cur1 = self.fc1(x.view(3, -1))
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


def test_tutorial_5_is_read_as_it_stands():
    torch.manual_seed(0)
    model, image = Tutorial5().eval(), torch.rand(3, 1, 5, 8) * 3
    with torch.no_grad():
        spikes, _ = model(image)
    graph = api.load(model, input_shape=(1, 5, 8))
    x = np.broadcast_to(image.numpy(), (25, *image.shape))
    assert spikes.sum() > 20
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, spikes.numpy() > 0)
    assert [layer.name for layer in graph.layers if layer.neuron] == ["lif1", "lif2"]
    assert graph["lif1"].neuron.reset_delay == 1 and graph.dt_s == 1e-4 and graph.metadata["source"] == "snntorch"
    notes = " ".join(graph.metadata["assumptions"])
    assert (
        "the forward feeds the same input in every step" in notes
        and "takes 3 in view(3, ...) to be the number of samples" in notes
    )
    assert api.check(model, "loihi2", input_shape=(1, 5, 8)).verdict == "fits"


@pytest.mark.slow
def test_tutorial_5_trained_in_full_size_spikes_as_in_snntorch():
    """784-1000-10 over 25 steps: a million spikes, of which those at the threshold within rounding may differ."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(784, 1000), snn.Leaky(beta=0.95)
            self.fc2, self.lif2 = nn.Linear(1000, 10), snn.Leaky(beta=0.95)

        forward = Tutorial5.forward

    torch.manual_seed(0)
    rng, model = np.random.default_rng(0), Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    for _ in range(30):
        image, labels = patterns(rng, 3, (784,))
        _, membranes = model(image)
        loss = sum(nn.functional.cross_entropy(membrane, labels) for membrane in membranes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, _ = patterns(rng, 100, (784,))
    x = np.broadcast_to(image.numpy(), (25, *image.shape))
    batches = image.split(3)[:33]
    theirs = recorded(model.eval(), KINDS, lambda: [model(batch) for batch in batches])
    theirs = {
        path: np.concatenate(np.split(calls, len(batches)), axis=1) for path, calls in theirs.items()
    }  # 25 calls of each batch, one after the other
    different, emitted = count_differences(model, (784,), x[:, :99], theirs)
    assert emitted > 100_000 and different <= 10


def test_a_model_that_ran_before_is_read_the_same():
    model = nn.Sequential(nn.Linear(6, 5), snn.Leaky(beta=0.9, init_hidden=True, output=True))
    before = read_model(model, (6,))
    model(torch.rand(4, 6))  # its membrane is now the result of a computation with a gradient
    after = read_model(model, (6,))
    assert [layer.name for layer in after.layers] == [layer.name for layer in before.layers] == ["1"]


def test_a_step_with_states_as_arguments_is_read():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1, self.fc2, self.lif2 = nn.Linear(6, 5), snn.Leaky(beta=0.9), nn.Linear(5, 3), snn.Leaky(beta=0.8)

        def forward(self, x, mem1, mem2):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            return spk2, mem1, mem2

    assert [layer.name for layer in read_model(Step(), (6,)).layers] == ["lif1", "lif2"]


class Regression(nn.Module):
    """A forward that returns the potentials of its last neurons alone, as those do that learn a curve."""

    def __init__(self, last):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 8), snn.Leaky(beta=0.9, threshold=0.3)
        self.fc2, self.last = nn.Linear(8, 3), last

    def forward(self, x):
        mem1, mem2, potentials = self.lif1.init_leaky(), self.last.reset_mem(), []
        for t in range(x.shape[0]):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            _, mem2 = self.last(self.fc2(spk1), mem2)
            potentials.append(mem2)
        return torch.stack(potentials)


def test_potentials_of_a_synaptic_readout_are_those_of_an_integrator_with_a_current():
    class Readout(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(6, 3), snn.Synaptic(alpha=0.8, beta=0.9, reset_mechanism="none", threshold=1e5)

        def forward(self, x):
            (syn, mem), out = self.last.init_synaptic(), []
            for step in x:
                _, syn, mem = self.last(self.fc(step), syn, mem)
                out.append(mem)
            return torch.stack(out).max(0)[0]

    torch.manual_seed(1)
    model, x = Readout(), torch.rand(12, 4, 6) * 2
    with torch.no_grad():
        potentials = model(x).numpy()
    assert np.ptp(potentials) > 0.3
    ours = simulate(read_model(model), x.numpy(), kind="current").output.max(0)
    np.testing.assert_allclose(ours, potentials, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda: snn.Leaky(beta=0.8, reset_mechanism="none"), lambda: snn.Lapicque(R=4.0, C=1.5, reset_mechanism="none")]
)
def test_potentials_that_never_reset_are_read_as_a_leaky_integrator(make):
    torch.manual_seed(1)
    model, x = Regression(make()), torch.rand(12, 4, 6) * 2
    graph = api.load(model, input_shape=(6,))
    with torch.no_grad():
        potentials = model(x).numpy()
    assert np.ptp(potentials) > 0.3
    assert "module 'last': never resets, and its potential is the output" in " ".join(graph.metadata["assumptions"])
    np.testing.assert_allclose(simulate(graph, x.numpy(), kind="current").output, potentials, rtol=1e-5, atol=1e-6)
    changed = graph.with_layers({"last": replace(graph["last"], neuron=replace(graph["last"].neuron, tau_s=4e-4, r=4.0))})
    home = read_model(sd.weights_into(model, changed), (6,))
    np.testing.assert_allclose([home["last"].neuron.tau_s, home["last"].neuron.r], [4e-4, 4.0], rtol=1e-6)


def test_potentials_of_neurons_that_reset_are_read_as_their_spikes():
    torch.manual_seed(1)
    model = Regression(snn.Leaky(beta=0.8, threshold=0.2))
    graph = api.load(model, input_shape=(6,))
    assert graph["last"].neuron.reset == "subtract"
    assert "module 'last': the forward returns its potential" in " ".join(graph.metadata["assumptions"])


@pytest.mark.parametrize(("decode", "how"), [(lambda mem: mem[-1], "last"), (lambda mem: mem.max(0)[0], "maximum")])
def test_spikes_in_place_of_a_decoded_potential_are_counted(decode, how):
    """A spike in the last step, or in any one, is no potential: nearly all classes would be alike."""

    class Decoded(Regression):
        def forward(self, x):
            return decode(super().forward(x))

    graph = read_model(Decoded(snn.Leaky(beta=0.8, threshold=0.2)), (6,))
    assert "decision" not in graph.metadata and graph.metadata["assumptions"][0] == (
        f"the forward returns the {how} of its outputs over time: the network gives the output of every step, and its class is "
        "the one that spikes most over all of them, since spikes stand for its potential"
    )
    kept = read_model(Decoded(snn.Leaky(beta=0.8, reset_mechanism="none")), (6,))
    assert kept.metadata["decision"] == how


class Graded(nn.Module):
    """Neurons whose spikes carry a number, one that is learnt and one a neuron, behind each other."""

    def __init__(self):
        super().__init__()
        self.fc1, self.one = nn.Linear(6, 5), snn.Leaky(beta=0.8, graded_spikes_factor=0.5)
        self.fc2 = nn.Linear(5, 4)
        self.two = snn.Leaky(beta=0.7, graded_spikes_factor=torch.tensor([2.0, 0.5, 4.0, 1.0]), learn_graded_spikes_factor=True)

    def forward(self, x):
        first, second, out = self.one.init_leaky(), self.two.init_leaky(), []
        for step in x:
            spikes, first = self.one(self.fc1(step), first)
            graded, second = self.two(self.fc2(spikes), second)
            out.append(graded)
        return torch.stack(out)


def test_graded_spikes_are_spikes_and_a_factor():
    torch.manual_seed(0)
    model, x = Graded().eval(), torch.rand(20, 3, 6)
    with torch.no_grad():
        for weight in (model.fc1.weight, model.fc2.weight):
            weight.uniform_(-0.3, 1.5)
        expected = model(x).numpy()
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.numpy(), kind="current").output, expected)


class StartsAnew(nn.Module):
    """A forward of one step that makes its states."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(6, 5), snn.Leaky(beta=0.9)

    def forward(self, x):
        return self.lif(self.fc(x), self.lif.init_leaky())[0]


class BranchesOnData(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif = snn.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        return self.lif(x) if x.sum() > 3 else x


class OwnLeaky(snn.Leaky):
    """A class that changes nothing."""


class OwnFire(snn.Leaky):
    def fire(self, mem):
        return (mem > 0.2).float()


def reset_afterwards(**options):
    model = lif(**options)
    model[1].reset_mechanism = "zero"
    return model


def loaded_from_another_reset():
    model = lif(reset_delay=False, reset_mechanism="zero")
    model.load_state_dict(lif(reset_mechanism="none").state_dict())
    return model


def lif(kind=snn.Leaky, **options):
    return nn.Sequential(nn.Linear(6, 5), kind(**{"beta": 0.9, "init_hidden": True, **options}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lif(snn.Synaptic, alpha=0.5, reset_mechanism="zero"), "Synaptic .*'zero' one step late.*set reset_delay=False"),
        (lambda: lif(snn.Lapicque, reset_mechanism="zero"), "Lapicque .*'zero' one step late.*use Leaky"),
        (lambda: lif(inhibition=True), "module '1' has inhibition=True"),
        (lambda: lif(state_quant=lambda v: v), "module '1' has state_quant"),
        (lambda: lif(snn.RSynaptic, alpha=0.5, linear_features=5, reset_mechanism="zero"), "after a spike; use 'subtract'$"),
        (lambda: lif(snn.RSynaptic, alpha=0.5, linear_features=5, reset_delay=False), "RSynaptic with reset_delay=False"),
        (lambda: lif(reset_delay=False), "'1' has reset_delay=False with .*'subtract', .* above twice the threshold; leave r"),
        (lambda: lif(threshold=-0.5), "'1' has .*'subtract' and a threshold of -0.5, below 0, .* before any spike; keep thresh"),
        (lambda: lif(reset_delay=False, reset_mechanism="zero", threshold=-0.5), "threshold of -0.5, below 0, .* at 0 or above"),
        (lambda: lif(snn.Alpha, alpha=0.95), "module '1' is Alpha, .*difference of two currents; use Synaptic"),
        (reset_afterwards, "has the reset_mechanism 'zero', set after .* the step of subtract; make it with reset_mechanism='z"),
        (loaded_from_another_reset, "has the reset_mechanism 'none', set after it was made: snnTorch goes on with the step of z"),
        (lambda: lif(OwnFire), "module '1' has a method 'fire' of its own in place of that of Leaky; use Leaky as it is, and c"),
        (lambda: lif(spike_grad=lambda v: (v > -0.5).float()), "has spike_grad=<lambda>, which sends 1 where v − threshold is 0"),
        (lambda: lif(spike_grad=lambda v: v + torch.ones(3)), r"has spike_grad=<lambda>, which fails on numbers \(.*; train"),
        (lambda: nn.Sequential(snn.Leaky(beta=0.5), nn.Linear(6, 2)), "module '1' gets .output, state. .*init_hidden=True"),
        (StartsAnew, "module 'lif' starts anew in every step; hand its state back"),
        (BranchesOnData, r"cannot be traced .*, or export it: snntorch.export_nir.export_to_nir\(net, sample\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Inhibition is an unstable")
def test_what_has_no_counterpart_is_refused(make, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(make(), (6,))


def test_a_class_derived_from_a_neuron_is_read():
    torch.manual_seed(0)
    model, x = lif(OwnLeaky, threshold=0.2), torch.rand(20, 3, 6)
    spikes = torch.stack([model(step) for step in x]).detach().numpy()
    assert spikes.any()
    np.testing.assert_array_equal(simulate(read_model(model, (6,)), x.numpy(), kind="current").output, spikes)


@pytest.mark.parametrize("make", [surrogate.fast_sigmoid, surrogate.SSO, surrogate.triangular, lambda: None])
def test_surrogate_gradients_change_no_spike(make):
    assert read_model(lif(spike_grad=make()), (6,))["1"].neuron.v_threshold == 1
    assert read_model(lif(surrogate_disable=True, spike_grad=make()), (6,))["1"].neuron.v_threshold == 1


class ScaledByCounts(nn.Module):
    """A loop whose current is changed by a number from a size of the input."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.lif, self.change = nn.Linear(6, 5), snn.Leaky(beta=0.9), change

    def forward(self, x):
        mem, outputs = self.lif.reset_mem(), []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.change(self.fc(x[t]), x), mem)
            outputs.append(spk)
        return torch.stack(outputs)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, x: h / len(x), lambda h, x: h * (1.0 / x.shape[0]), lambda h, x: h * x.shape[0] ** -0.5,
        lambda h, x: h + float(x.size(0)), lambda h, x: h / (x.shape[0] - 1), lambda h, x: h * (2 * x.shape[1]),
        lambda h, x: h * math.exp(-x.shape[1]),
    ],
)  # fmt: skip
def test_a_number_from_the_count_of_steps_or_samples_is_refused(change):
    with pytest.raises(UnsupportedError, match="with the number of steps or samples of its input, which differs"):
        read_model(ScaledByCounts(change), (6,))


def test_a_count_of_steps_behind_the_loop_is_decoding():
    class Averaged(ScaledByCounts):
        def forward(self, x):
            return super().forward(x).sum(0) / len(x)

    graph = read_model(Averaged(lambda h, x: h), (6,))
    assert [layer.synapse is not None and layer.synapse.weight.shape for layer in graph.layers] == [(5, 6)]


class InLoop(nn.Module):
    """Two layers in a loop over x[t]; `feed` gives the second its input, `end` what is returned."""

    def __init__(self, feed=lambda spikes: spikes[-1], end=torch.stack):
        super().__init__()
        self.fc, self.lif = nn.Linear(12, 6), snn.Leaky(beta=0.9, threshold=0.2)
        self.fc2, self.lif2, self.feed, self.end = nn.Linear(6, 5), snn.Leaky(beta=0.8, threshold=0.1), feed, end

    def forward(self, x):
        mem, mem2, spikes, outputs = self.lif.reset_mem(), self.lif2.reset_mem(), [], []
        for t in range(x.shape[0]):
            spk, mem = self.lif(self.fc(x[t]), mem)
            spikes.append(spk)
            spk, mem2 = self.lif2(self.fc2(self.feed(spikes)), mem2)
            outputs.append(spk)
        return self.end(outputs)


@pytest.mark.parametrize("delay", [1, 2, 3, 4, 9, 20])
def test_a_delay_by_hand_of_any_number_of_steps_is_an_edge_of_that_delay(delay):
    torch.manual_seed(0)

    def feed(spikes):
        return spikes[-1 - delay] if len(spikes) > delay else torch.zeros_like(spikes[-1])

    model, x = InLoop(feed).eval(), (torch.rand(30, 3, 12) < 0.5).float()
    graph = read_model(model, (12,))
    assert max(edge.delay for edge in graph.edges) == delay
    with torch.no_grad():
        theirs = model(x).numpy()
    assert theirs.sum() > 10
    np.testing.assert_array_equal(simulate(graph, x.numpy(), kind="current").output, theirs)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda o: torch.stack(o, -1), None), (lambda o: torch.stack(o, dim=2), None),
        (lambda o: torch.stack(o, dim=-1).mean(-1), "mean"), (lambda o: torch.stack(o, 2).sum(dim=2), "sum"),
        (lambda o: torch.stack(o, -1)[..., -1], "last"), (lambda o: torch.stack(o, -1)[:, :, -1], "last"),
    ],
)  # fmt: skip
def test_outputs_stacked_behind_their_channels_are_those_of_all_steps(end, how):
    torch.manual_seed(0)
    model, x = InLoop(end=end).eval(), (torch.rand(11, 3, 12) < 0.5).float()
    ours = simulate(read_model(model, (12,)), x.numpy(), kind="current").output
    with torch.no_grad():
        theirs = model(x).numpy()
    assert theirs.sum() > 0
    decoded = {None: np.moveaxis(ours, 0, -1), "mean": ours.mean(0), "sum": ours.sum(0), "last": ours[-1]}[how]
    np.testing.assert_allclose(decoded, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda o: torch.stack(o, -2), "stacks outputs along axis -2; stack all steps of a loop along axis 0 or 1, or behind"),
        (lambda o: torch.stack(o, -1).transpose(0, 1), "only time and batch of all steps can be exchanged"),
    ],
)  # fmt: skip
def test_other_axes_of_outputs_are_refused(end, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(InLoop(end=end), (12,))


def test_two_outputs_without_a_common_last_layer_are_refused_with_what_to_do():
    class Plain(InLoop):
        def forward(self, x):
            return self.fc2(x[:, :6]), self.fc(x)

    with pytest.raises(
        UnsupportedError, match="beside its output; return one output, such as both side by side by torch.cat, or"
    ):
        read_model(Plain(), (12,))


def test_a_module_that_torch_export_made_is_refused():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(4, 3), snn.Leaky(beta=0.9)

        def forward(self, x, mem):
            return self.lif(self.fc(x), mem)

    program = torch.export.export(Step().eval(), (torch.rand(2, 4), torch.zeros(2, 3)))
    for model in (program, program.module()):
        with pytest.raises(UnsupportedError, match="what torch.export made, operations in place of modules; give the module its"):
            read_model(model, (4,))


class Sets(nn.Module):
    """A loop in front of, or in, which `set_up` changes the neurons."""

    def __init__(self, before=lambda s: None, within=lambda s, t: None, hidden=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif = nn.Linear(12, 8), snn.Leaky(beta=0.8, threshold=0.3, init_hidden=hidden)
        self.raw, self.hidden = nn.Parameter(torch.linspace(-2, 2, 8)), hidden
        self.betas = nn.Parameter(torch.rand(40))
        self.before, self.within = before, within

    def forward(self, x):
        mem, spikes = None if self.hidden else self.lif.init_leaky(), []
        self.before(self)
        for t in range(x.shape[0]):
            self.within(self, t)
            if self.hidden:
                spikes.append(self.lif(self.fc(x[t])))
            else:
                spk, mem = self.lif(self.fc(x[t]), mem)
                spikes.append(spk)
        return torch.stack(spikes)


def set_beta(s, t=None):
    s.lif.beta = torch.sigmoid(s.raw)


def set_threshold(s, t=None):
    s.lif.threshold = torch.tensor(0.4)


@pytest.mark.parametrize(
    "options", [{"before": set_beta}, {"within": set_beta}, {"before": set_threshold}, {"within": set_threshold}]
)
def test_a_decay_or_threshold_that_the_forward_sets_is_that_of_the_neurons(options):
    x = (np.random.default_rng(0).random((10, 3, 12)) < 0.5).astype(np.float32)
    graph = read_model(Sets(**options), (12,))
    with torch.no_grad():
        expected = Sets(**options)(torch.from_numpy(x)).numpy()
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


@pytest.mark.parametrize(
    ("within", "message"),
    [
        (lambda s, t: setattr(s.lif, "threshold", torch.tensor(0.3 + t)), "module 'lif' has another 'threshold' in a later step"),
        (lambda s, t: setattr(s.lif, "beta", torch.sigmoid(s.betas[t])), "module 'lif' has another 'beta' in a later step"),
    ],
)
def test_a_decay_or_threshold_that_changes_between_steps_is_refused(within, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(Sets(within=within), (12,))


def test_a_reset_within_a_loop_is_refused_and_in_front_of_it_read():
    def reset(s, t=None):
        utils.reset(s)

    with pytest.raises(UnsupportedError, match="it resets module 'lif' between two of its steps, which no layer here does;"):
        read_model(Sets(within=reset, hidden=True), (12,))
    read_model(Sets(before=reset, hidden=True), (12,))
    read_model(Sets(within=reset), (12,))  # states that the forward hands on are not reset


@pytest.mark.parametrize("reset", ["none", "subtract"])
def test_the_current_of_synapses_is_no_output(reset):
    """It was read as the potential, without a word."""

    class Current(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.last = nn.Linear(6, 3), snn.Synaptic(alpha=0.8, beta=0.9, reset_mechanism=reset)

        def forward(self, x):
            (syn, mem), out = self.last.init_synaptic(), []
            for t in range(x.shape[0]):
                _, syn, mem = self.last(self.fc(x[t]), syn, mem)
                out.append(syn)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match="returns 'syn' of the state of module 'last', which is not sent; return its"):
        read_model(Current(), (6,))


def hand_on(lif, x, syn, mem):
    return lif(x, syn, mem)


def hand_on_by_name(lif, x, syn, mem):
    return lif(x, mem=mem, syn=syn)


def exchange(lif, x, syn, mem):
    return lif(x, mem, syn)


def exchange_by_name(lif, x, syn, mem):
    return lif(x, mem=syn, syn=mem)


@pytest.mark.parametrize("call", [hand_on, hand_on_by_name, exchange, exchange_by_name])
def test_parts_of_a_state_that_are_exchanged_are_refused(call):
    """They were read as if they were handed on in order, without a word."""

    class Exchanged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 3), snn.Synaptic(alpha=0.8, beta=0.9)

        def forward(self, x):
            (syn, mem), out = self.lif.init_synaptic(), []
            for t in range(x.shape[0]):
                spikes, syn, mem = call(self.lif, self.fc(x[t]), syn, mem)
                out.append(spikes)
            return torch.stack(out)

    if call in (hand_on, hand_on_by_name):
        assert read_model(Exchanged(), (6,)).layers[-1].name == "lif"
        return
    with pytest.raises(UnsupportedError, match="module 'lif' gets '(syn|mem)' of its state as '(syn|mem)'; hand states on as"):
        read_model(Exchanged(), (6,))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_loop_in_half_precision_is_read_with_its_weights_in_float32_and_a_note(name):
    class Looped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = torch.nn.Linear(4, 3), snn.Leaky(beta=0.9)

        def forward(self, x):
            mem, out = self.lif.init_leaky(), []
            for t in range(x.shape[0]):
                spikes, mem = self.lif(self.fc(x[t]), mem)
                out.append(spikes)
            return torch.stack(out)

    assert "assumptions" not in read_model(Looped().double(), (4,)).metadata
    model = Looped().to(getattr(torch, name))
    graph = read_model(model, (4,))
    (note,) = graph.metadata["assumptions"]
    assert note.startswith(f"the model computes in {name}, the network in float32: spikes differ where {name} rounds")
    assert note.endswith("compare with the model after .float()")
    weight = graph["lif"].synapse.weight
    assert weight.dtype == np.float32 and (weight == model.fc.weight.detach().float().numpy()).all()


def test_a_state_of_an_earlier_run_has_a_note():
    model = nn.Sequential(nn.Linear(6, 5), snn.Leaky(beta=0.9, init_hidden=True))
    model(torch.ones(3, 6))
    note = "module '1': holds a state of an earlier run: the network starts without, as after snntorch.utils.reset(net)"
    assert read_model(model, (6,)).metadata["assumptions"] == [note]
    utils.reset(model)
    assert "assumptions" not in read_model(model, (6,)).metadata


class TwiceThenOnce(nn.Module):
    """Neurons that keep their state, called twice, in front of others that are called once."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif, self.out = nn.Linear(5, 5), snn.Leaky(0.9, init_hidden=True), snn.Leaky(0.9, init_hidden=True)

    def forward(self, x):
        return self.out(self.fc(self.lif(self.fc(self.lif(self.fc(x))))))


def test_neurons_that_are_called_more_often_than_others_are_refused():
    with pytest.raises(UnsupportedError, match="module 'lif' is called 2 times, other neurons 1; use a module for each call"):
        read_model(TwiceThenOnce(), (5,))


class HandsOn(nn.Module):
    """A loop that hands a recurrent or synaptic module its state by a function."""

    def __init__(self, lif, call):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.call = nn.Linear(12, 8), lif, call
        nn.init.uniform_(self.fc.weight, -0.6, 1)

    def forward(self, x):
        state, out = list(self.lif.reset_mem()), []
        for step in x:
            spikes, *state = self.call(self.lif, self.fc(step), *state)
            out.append(spikes)
        return torch.stack(out)


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        (snn.RLeaky, lambda lif, x, *state: lif(x, state[-1]), "'mem' of its state as 'spk'"),
        (snn.RLeaky, lambda lif, x, *state: lif(x, state[-1], None), "'mem' of its state as 'spk'"),
        (snn.RSynaptic, lambda lif, x, *state: lif(x, *state[-2:]), "'syn' of its state as 'spk'"),
        (snn.Synaptic, lambda lif, x, *state: lif(x, state[-1]), "'mem' of its state as 'syn'"),
    ],
)
def test_a_part_of_a_state_in_the_place_of_another_is_refused(kind, call, message):
    """RLeaky(x, mem) takes the membrane for its spikes: the network was that of RLeaky(x, mem=mem), without a word."""
    options = {} if kind is snn.RLeaky else {"alpha": 0.8}
    options |= {} if kind is snn.Synaptic else {"linear_features": 8}
    with pytest.raises(UnsupportedError, match=f"module 'lif' gets {message}; hand states on as they are, by name where"):
        read_model(HandsOn(kind(beta=0.9, **options), call), (12,))


@pytest.mark.parametrize("kind", [snn.Synaptic, snn.RLeaky], ids=lambda kind: kind.__name__)
def test_a_star_takes_and_hands_on_all_parts_of_a_state(kind):
    lif = kind(alpha=0.8, beta=0.7) if kind is snn.Synaptic else kind(beta=0.7, linear_features=8)
    net = HandsOn(lif, lambda lif, x, *state: lif(x, *state) if kind is snn.Synaptic else lif(x, mem=state[-1]))
    x = (np.random.default_rng(0).random((50, 3, 12)) < 0.3).astype(np.float32)
    graph = read_model(net, (12,))
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)
