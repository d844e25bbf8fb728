"""Networks of SpikingJelly's modules: the same spikes in SpikingJelly and in the network read from them."""

import importlib
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import functional, layer, neuron, surrogate  # noqa: E402
from torch import nn  # noqa: E402

from spear_deploy.data import load_data  # noqa: E402
from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.frameworks.write_back import store_weights  # noqa: E402
from spear_deploy.pipeline import api  # noqa: E402
from spear_deploy.pipeline.back_home import weights_into  # noqa: E402
from spear_deploy.pruning.plan import PruningPlan, prune  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from spear_deploy.training import train  # noqa: E402
from tests.support.framework_runs import NETWORKS, Draw, compare_runs, count_differences, patterns, recorded  # noqa: E402

KINDS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.CUBALIFNode)
LAYERS = {
    "conv": layer.Conv2d,
    "linear": layer.Linear,
    "norm": layer.BatchNorm2d,
    "pools": (layer.AvgPool2d, layer.MaxPool2d),
    "flatten": layer.Flatten,
    "dropout": layer.Dropout,
}


def make_neuron(draw, shape):
    kind = draw.pick(*KINDS)
    options = {"v_threshold": draw.between(0.5, 1.5), "v_reset": draw.pick(None, 0.0, -0.25)}
    if kind is neuron.CUBALIFNode:
        options |= {"c_decay": draw.between(0.1, 0.8), "v_decay": draw.between(0.1, 0.9), "v_reset": draw.pick(None, 0.0)}
    elif kind is not neuron.IFNode:
        tau = "tau" if kind is neuron.LIFNode else "init_tau"
        options |= {tau: draw.between(1.2, 6), "decay_input": draw.chance(0.5)}
    return kind(**options)


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_random_network_spikes_as_in_spikingjelly(seed):
    draw = Draw(seed)
    mode = draw.pick("s", "m", "containers")
    parts, shape = draw.network(make_neuron, **({} if mode == "containers" else LAYERS))
    if mode == "containers":
        parts = [part if isinstance(part, KINDS) else layer.SeqToANNContainer(part) for part in parts]
    model, x = nn.Sequential(*parts).eval(), draw.spikes(shape)
    functional.set_step_mode(model, "s" if mode == "s" else "m")
    for container in (part for part in parts if isinstance(part, layer.SeqToANNContainer)):
        functional.set_step_mode(container[0], "s")
    given = torch.from_numpy(x)
    theirs = recorded(model, KINDS, lambda: [model(step) for step in given] if mode == "s" else model(given))
    theirs = {path: outputs if mode == "s" else outputs[0] for path, outputs in theirs.items()}
    different, emitted = count_differences(model, shape, x, theirs)
    assert different == 0 and emitted > 0


class CSNN(nn.Module):
    """SpikingJelly's convolutional network of its tutorial, smaller: it repeats an image and averages its spikes."""

    def __init__(self, kind, steps=6):
        super().__init__()
        self.steps = steps
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1, bias=False),
            layer.BatchNorm2d(4),
            kind(surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(4 * 16, 12, bias=False),
            kind(surrogate_function=surrogate.ATan()),
            layer.Linear(12, 10, bias=False),
            kind(surrogate_function=surrogate.ATan()),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x_seq = self.conv_fc(x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1))
        return x_seq.mean(0)


@pytest.mark.parametrize("kind", [neuron.IFNode, neuron.LIFNode])
def test_the_tutorials_network_is_read_as_it_stands(kind):
    torch.manual_seed(0)
    model, image = CSNN(kind).eval(), torch.rand(3, 1, 8, 8) * 2
    with torch.no_grad():
        for weights in (model.conv_fc[0].weight, model.conv_fc[5].weight, model.conv_fc[7].weight):
            weights.add_(0.1).mul_(3)
        rates = model(image)
    functional.reset_net(model)
    graph = api.load(model, input_shape=(1, 8, 8))
    ours = simulate(graph, np.broadcast_to(image.numpy(), (6, *image.shape)), kind="current").output
    assert rates.sum() > 1
    np.testing.assert_array_equal(ours.mean(0, dtype=np.float32), rates.numpy())
    assert graph.metadata["assumptions"] == [
        "the forward feeds the same input in every step: the network takes it step by step",
        "the forward returns the mean of its outputs over time: the network gives the output of every step",
    ]
    assert graph.metadata["source"] == "spikingjelly" and graph.dt_s == 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", [neuron.IFNode, neuron.LIFNode])
def test_the_trained_convolutional_network_spikes_and_classifies_as_in_spikingjelly(kind):
    torch.manual_seed(0)
    rng, model = np.random.default_rng(0), CSNN(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        image, labels = patterns(rng, 32, (1, 8, 8))
        loss = nn.functional.mse_loss(model(image), nn.functional.one_hot(labels, 10).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(model)
    image, labels = patterns(rng, 200, (1, 8, 8))
    x = np.broadcast_to(image.numpy(), (6, *image.shape))
    theirs = {path: calls[0] for path, calls in recorded(model.eval(), KINDS, lambda: model(image)).items()}
    different, emitted = count_differences(model, (1, 8, 8), x, theirs)
    assert different == 0 and emitted > 10_000
    functional.reset_net(model)
    with torch.no_grad():
        there = model(image).argmax(1)
    ours = simulate(api.load(model, input_shape=(1, 8, 8)), x, kind="current").output.mean(0).argmax(1)
    assert (there == labels).float().mean() > 0.5 and (ours == there.numpy()).all()


def test_a_loop_inside_that_adds_up_its_outputs_is_read():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), neuron.LIFNode(), nn.Linear(8, 3), neuron.IFNode())

        def forward(self, x):
            total = self.net(x)
            for _ in range(1, 5):
                total += self.net(x)
            return total / 5

    torch.manual_seed(0)
    model, x = Counts().eval(), torch.rand(2, 6) * 2
    with torch.no_grad():
        model.net[0].weight.add_(0.3)
        model.net[2].weight.add_(0.3)
        rates = model(x).numpy()
    ours = simulate(read_model(model, (6,)), np.broadcast_to(x.numpy(), (5, 2, 6)), kind="current").output
    assert rates.sum() > 1
    np.testing.assert_allclose(ours.mean(0), rates, rtol=1e-6)


def test_modules_run_step_by_step_in_their_container():
    torch.manual_seed(0)
    inner = layer.MultiStepContainer(nn.Flatten(), nn.Linear(16, 6), neuron.LIFNode())
    model = nn.Sequential(neuron.IFNode(step_mode="m"), inner).eval()
    x = torch.rand(9, 3, 1, 4, 4) * 2
    with torch.no_grad():
        inner[1].weight.add_(0.3)
        spikes = model(x)
    assert spikes.sum() > 5
    np.testing.assert_array_equal(simulate(read_model(model, (1, 4, 4)), x.numpy(), kind="current").output, spikes.numpy() > 0)


def one(module, mode="s", **beside):
    model = nn.Sequential(*beside.values(), nn.Linear(6, 5), module)
    functional.set_step_mode(model, mode)
    return model


class OwnCharge(neuron.SimpleLIFNode):
    def neuronal_charge(self, x):
        self.v = self.v + x * x


class OwnSteps(neuron.LIFNode):
    def multi_step_forward(self, x_seq):
        return super().multi_step_forward(2 * x_seq)


def with_own_steps():
    """Return neurons whose steps are set on the object."""
    module = neuron.LIFNode()
    module.single_step_forward = lambda x: neuron.LIFNode.single_step_forward(module, x) * 2
    return module


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (with_own_steps(), "module '1' has a method 'single_step_forward' of its own in place of that of LIFNode; use"),
        (OwnSteps(), "module '1' has a method 'multi_step_forward' of its own in place of that of LIFNode; use LIFNode as it is"),
        (neuron.LIFNode(surrogate_function=surrogate.Sigmoid(spiking=False)), "=Sigmoid, which sends 0.5 where v .* with spik"),
        (neuron.IFNode(surrogate_function=lambda v: (v > -0.5).float()), "=<lambda>, which sends 1 where v − threshold is -9.5"),
    ],
)  # fmt: skip
def test_other_steps_than_spikingjellys_are_refused(module, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(one(module, mode="m"), (6,))


class Starting(nn.Module):
    """A loop over neurons whose potential the forward sets in front of it."""

    def __init__(self, start, **options):
        super().__init__()
        torch.manual_seed(3)
        self.start, self.fc, self.out = start, nn.Linear(6, 5), neuron.LIFNode(v_threshold=0.3, **options)

    def forward(self, x):
        functional.reset_net(self)
        self.out.v = self.start(x) if callable(self.start) else self.start
        return torch.stack([self.out(self.fc(x[t])) for t in range(x.shape[0])])


class Detaching(nn.Module):
    """A loop that cuts the gradient of a potential in each step, and may change it."""

    def __init__(self, change):
        super().__init__()
        torch.manual_seed(3)
        self.change, self.fc, self.out = change, nn.Linear(6, 5), neuron.LIFNode(v_threshold=0.3)

    def forward(self, x):
        functional.reset_net(self)
        made = []
        for t in range(x.shape[0]):
            made.append(self.out(self.fc(x[t])))
            self.change(self.out)
        return torch.stack(made)


def set_potential(change):
    return lambda module: setattr(module, "v", change(module.v))


DETACHED = (lambda v: v.detach(), lambda v: v.data, lambda v: v.clone().detach())


@pytest.mark.parametrize("change", [*map(set_potential, DETACHED), lambda module: module.v.detach_()])
def test_a_loop_that_detaches_the_potential_is_read(change):
    model = Detaching(change).eval()
    x = (np.random.default_rng(0).random((7, 3, 6)) < 0.5).astype(np.float32)
    ours = simulate(read_model(model, (6,)), x).output
    with torch.no_grad():
        np.testing.assert_array_equal(ours, model(torch.from_numpy(x)).numpy())
    assert ours.any()


def test_a_loop_that_changes_the_potential_is_refused():
    with pytest.raises(UnsupportedError, match="resets module 'out' between two of its steps"):
        read_model(Detaching(set_potential(lambda v: v.detach() / 2)), (6,))


def test_a_sequence_of_potentials_that_is_not_stored_is_refused():
    class Stored(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = layer.Linear(6, 5, step_mode="m"), neuron.LIFNode(step_mode="m")

        def forward(self, x):
            self.out(self.fc(x))
            return self.out.v_seq

    with pytest.raises(UnsupportedError, match="v_seq of a LIFNode with store_v_seq=False, .*; make it with store_v_seq=True"):
        read_model(Stored(), (6,))


STARTS = (0.0, torch.zeros(5), lambda x: torch.zeros(x.shape[1], 5, device=x.device), lambda x: x.new_zeros(x.shape[1], 5))


@pytest.mark.parametrize("start", STARTS)
def test_a_potential_set_to_that_of_the_reset_in_front_of_a_loop_is_read(start):
    model = Starting(start).eval()
    x = (np.random.default_rng(0).random((7, 3, 6)) < 0.5).astype(np.float32)
    ours = simulate(read_model(model, (6,)), x).output
    with torch.no_grad():
        np.testing.assert_array_equal(ours, model(torch.from_numpy(x)).numpy())
    assert ours.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: one(neuron.QIFNode()), "module '1' is QIFNode, .*quadratic or exponential; use LIFNode"),
        (lambda: one(neuron.EIFNode()), "module '1' is EIFNode, .*quadratic or exponential; use LIFNode"),
        (lambda: one(neuron.CUBALIFNode(c_decay=1.0)), "CUBALIFNode with c_decay 1, .* expected decays in"),
        (lambda: one(OwnCharge(tau=2.0, decay_input=True)), "has a method 'neuronal_charge' of its own in place of that of S"),
        (lambda: nn.Sequential(neuron.IFNode(step_mode="m"), neuron.IFNode()), "'0' .IFNode. runs over time, .*set_step_mode"),
        (lambda: nn.Sequential(nn.Conv1d(6, 5, 1), neuron.IFNode(step_mode="m")), "Conv1d on time x batch .*step_mode='m'"),
        (lambda: nn.Sequential(neuron.IFNode(), layer.SeqToANNContainer(nn.Linear(6, 5))), "runs over time, .*set_step_mode"),
        (lambda: nn.Sequential(neuron.IFNode(), layer.VotingLayer(4)), "module '1' votes by 4 of 6 neurons; flatten them"),
        (lambda: one(layer.BatchNormThroughTime1d(5, 5)), "is BatchNormThroughTime1d, .*: it has other parameters in every step"),
        (lambda: nn.Sequential(layer.TemporalEffectiveBatchNorm1d(5, 6), neuron.IFNode(step_mode="m")),
         "is TemporalEffectiveBatchNorm1d, .*: it has other parameters in every step"),
        (lambda: nn.Sequential(layer.ThresholdDependentBatchNorm1d(1.0, 1.0, 6), neuron.IFNode()),
         "'0' is ThresholdDependentBatchNorm1d, which runs over time alone, in a model of one step; set functional"),
        (lambda: Potential("vote of maximum", neuron.LIFNode()), "'vote' is VotingLayer behind the maximum of all steps; put it"),
        (lambda: Potential("last", neuron.IFNode(v_threshold=float("inf"))), "'end' never spikes and has no leak, and its pot"),
        (lambda: Potential("set", neuron.LIFNode()), "it resets module 'hidden.1' between two of its steps"),
        (lambda: Starting(0.3), "module 'out' starts from a state that the forward sets, other than that of its reset; let it"),
        (lambda: Starting(torch.full((5,), 0.3)), "module 'out' starts from a state that the forward sets"),
        (lambda: Starting(0.0, v_reset=-0.25), "module 'out' starts from a state that the forward sets"),
        (lambda: Starting(lambda x: x[0, :, :5]), "module 'out' starts from a state that the forward sets"),
        (lambda: Potential("vote of potential", neuron.LIFNode()), "'vote' gets the potential of a neuron, expected the output"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused(make, message):
    with pytest.raises(UnsupportedError, match=message):
        read_model(make(), (6,))


@pytest.mark.parametrize("mode", ["s", "m"])
def test_votes_are_the_means_of_groups_of_neurons(mode):
    torch.manual_seed(0)
    model = nn.Sequential(layer.Linear(6, 12), neuron.IFNode(), layer.VotingLayer(4)).eval()
    functional.set_step_mode(model, mode)
    x = (np.random.default_rng(0).random((7, 3, 6)) < 0.6).astype(np.float32)
    graph = read_model(model, (6,))
    with torch.no_grad():
        theirs = model(torch.from_numpy(x)) if mode == "m" else torch.stack([model(torch.from_numpy(step)) for step in x])
    np.testing.assert_array_equal(simulate(graph, x).output, theirs.numpy())
    assert theirs.sum() > 0
    functional.reset_net(model)
    store_weights(model, graph)
    votes = graph.layers[-1]
    learnt = graph.with_layers(
        lambda one: replace(one, synapse=replace(one.synapse, weight=2 * one.synapse.weight)) if one.name == votes.name else one
    )
    with pytest.raises(UnsupportedError, match="'2'"):
        store_weights(model, learnt)


class Potential(nn.Module):
    """A network that returns the potential of its last neurons, or votes behind a mean over time."""

    def __init__(self, returns, end, mode="s"):
        super().__init__()
        torch.manual_seed(1)
        self.returns = returns
        self.hidden = nn.Sequential(layer.Linear(6, 16), neuron.LIFNode(v_threshold=0.3))
        self.out, self.end, self.vote = layer.Linear(16, 6), end, layer.VotingLayer(3)
        functional.set_step_mode(nn.ModuleList([self.hidden, self.out, self.end]), mode)
        self.eval()

    def step(self, x):
        made = self.end(self.out(self.hidden(x)))
        if self.returns == "set":
            self.hidden[1].v = 0.0
        return made

    def forward(self, x):
        if self.returns in ("step", "last of mode m"):
            self.step(x)
            return self.end.v
        if self.returns == "all of mode m":
            self.step(x)
            return self.end.v_seq
        spikes, potentials = [], []
        for t in range(x.shape[0]):
            spikes.append(self.step(x[t]))
            potentials.append(self.end.v)
        if self.returns == "all":
            return torch.stack(potentials)
        if self.returns == "vote of mean":
            return self.vote(torch.stack(spikes).mean(0))
        if self.returns == "vote of maximum":
            return self.vote(torch.stack(spikes).max(0)[0])
        return self.vote(self.end.v) if self.returns == "vote of potential" else self.end.v


LEAKY = ({}, {"decay_input": False}, {"v_reset": -0.25}, {"tau": 5.0})


@pytest.mark.parametrize("options", LEAKY, ids=str)
@pytest.mark.parametrize("returns", ["step", "last", "all", "last of mode m", "all of mode m"])
def test_the_potential_of_neurons_that_never_spike_is_a_leaky_integrator(returns, options):
    mode = "m" if "mode" in returns else "s"
    end = neuron.LIFNode(v_threshold=float("inf"), store_v_seq=returns == "all of mode m", **options)
    model = Potential(returns, end, mode)
    graph = read_model(model, (6,))
    x = (np.random.default_rng(0).random((7, 3, 6)) < 0.5).astype(np.float32)
    given = torch.from_numpy(x)
    with torch.no_grad():
        theirs = torch.stack([model(step) for step in given]) if returns == "step" else model(given)
    ours = simulate(graph, x).output
    ours = ours[-1] if returns in ("last", "last of mode m") else ours
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-7)
    assert theirs.abs().max() > 0.1 and graph.layers[-1].neuron.__class__.__name__ == "LI"
    assert ("decision" in graph.metadata) == ("last" in returns)
    assert "never spikes, and its potential is the output" in graph.metadata["assumptions"][-1]


def test_spikes_stand_for_a_potential_that_spikes_and_resets():
    graph = read_model(Potential("last", neuron.LIFNode()), (6,))
    assert "the forward returns its potential, which a chip does not send: its spikes" in graph.metadata["assumptions"][-1]
    assert "decision" not in graph.metadata and graph.layers[-1].spikes


def test_votes_behind_the_mean_over_time_are_those_of_every_step():
    model = Potential("vote of mean", neuron.LIFNode(v_threshold=0.1))
    graph = read_model(model, (6,))
    x = (np.random.default_rng(0).random((7, 3, 6)) < 0.5).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(simulate(graph, x).output.mean(0), theirs, rtol=1e-6)
    assert theirs.any() and theirs.shape == (3, 2)


@pytest.mark.parametrize(
    ("parts", "shape"),
    [
        (lambda: (layer.Conv2d(1, 4, 3), layer.ThresholdDependentBatchNorm2d(1.0, 0.5, 4)), (1, 6, 6)),
        (lambda: (layer.Linear(6, 4), layer.ThresholdDependentBatchNorm1d(0.7, 1.0, 4)), (6,)),
    ],
)
def test_a_norm_that_depends_on_the_threshold_is_one_of_its_statistics_in_evaluation(parts, shape):
    torch.manual_seed(0)
    model = nn.Sequential(*parts(), neuron.LIFNode(v_threshold=0.1))
    functional.set_step_mode(model, "m")
    model.train()
    x = (np.random.default_rng(0).random((7, 3, *shape)) < 0.5).astype(np.float32)
    for _ in range(5):
        model(torch.from_numpy(x))
        functional.reset_net(model)
    model.eval()
    graph = read_model(model, shape)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(simulate(graph, x).output, theirs)
    assert theirs.any() and graph.layers[-1].norm is not None
    functional.reset_net(model)
    back = store_weights(model, graph)
    with torch.no_grad():
        np.testing.assert_array_equal(back(torch.from_numpy(x)).numpy(), theirs)


def test_a_network_whose_votes_are_fixed_learns_loses_channels_and_goes_back():
    torch.manual_seed(0)
    model = nn.Sequential(
        layer.Flatten(), layer.Linear(64, 24), neuron.LIFNode(), layer.Linear(24, 50), neuron.LIFNode(), layer.VotingLayer(5)
    ).eval()
    functional.set_step_mode(model, "m")
    with torch.no_grad():
        for part in (model[1], model[3]):
            part.weight.mul_(4).add_(0.1)
    digits = load_data("digits", steps=4)
    graph = train(read_model(model, (1, 8, 8)), digits, epochs=1)
    pruned = prune(graph, PruningPlan(kept={"2": tuple(range(0, 24, 2))}))
    back, x = weights_into(model, pruned), digits.test.x[:8].swapaxes(0, 1)
    with torch.no_grad():
        theirs = back(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()
    assert back[1].out_features == 12 and back[3].out_features == 50 and theirs.any()
    np.testing.assert_array_equal(simulate(pruned, x).output, theirs)


class Boosted(nn.Module):
    """The networks of the paper on ParametricLIFNode: spikes are added up over the steps, then neighbours vote."""

    def __init__(self, steps=4):
        super().__init__()
        self.steps, self.static, self.boost = steps, nn.Linear(6, 8, bias=False), nn.AvgPool1d(4, 4)
        self.fc = nn.Sequential(neuron.ParametricLIFNode(2.0), nn.Linear(8, 12, bias=False), neuron.ParametricLIFNode(2.0))

    def forward(self, x):
        x = self.static(x)
        total = self.fc(x)
        for _ in range(1, self.steps):
            total += self.fc(x)
        return self.boost(total.unsqueeze(1)).squeeze(1)


def test_the_network_of_the_paper_on_parametric_neurons_is_read_as_it_stands_and_goes_back():
    torch.manual_seed(0)
    model, x = Boosted().eval(), torch.rand(5, 6) * 4
    with torch.no_grad():
        for weights in model.parameters():
            weights.uniform_(-0.4, 1)
        theirs = model(x).numpy()
    functional.reset_net(model)
    graph = read_model(model, (6,))
    ours = simulate(graph, np.broadcast_to(x.numpy(), (4, *x.shape)), kind="current").output
    assert graph.output == "boost" and np.ptp(theirs) > 0.2
    np.testing.assert_allclose(ours.sum(0), theirs, rtol=1e-6)
    assert "returns the sum of its outputs over time" in graph.metadata["assumptions"][-1]
    store_weights(model, graph)
    with torch.no_grad():
        np.testing.assert_array_equal(model(x).numpy(), theirs)
    votes = graph["boost"].synapse
    learnt = graph.with_layers({"boost": replace(graph["boost"], synapse=replace(votes, weight=2 * votes.weight))})
    with pytest.raises(UnsupportedError, match="'boost'"):
        store_weights(model, learnt)


@pytest.mark.parametrize(
    ("size", "out"), [((5, 5), (2, 2)), ((4, 7), (3, 3)), ((1, 1), (7, 7)), ((1, 1), (1, 2)), ((6, 5), (3, None))]
)
def test_adaptive_pools_of_even_windows_and_from_one_position_are_exact(size, out):
    torch.manual_seed(0)
    model = nn.Sequential(layer.Conv2d(2, 4, 1), neuron.IFNode(), layer.AdaptiveAvgPool2d(out), layer.Conv2d(4, 3, 1)).eval()
    functional.set_step_mode(model, "m")
    x = (np.random.default_rng(1).random((6, 2, 2, *size)) < 0.6).astype(np.float32)
    graph = read_model(model, (2, *size))
    with torch.no_grad():
        theirs = model(torch.from_numpy(x))
    np.testing.assert_allclose(simulate(graph, x).output, theirs.numpy(), rtol=1e-5, atol=1e-6)
    functional.reset_net(model)
    store_weights(model, graph)


def test_values_that_differ_between_neurons_do_not_go_back():
    model = one(neuron.IFNode())
    graph = read_model(model, (6,))
    spread = np.linspace(0.5, 1.5, 5).astype(np.float32)
    changed = graph.with_layers(lambda layer: replace(layer, neuron=replace(layer.neuron, v_threshold=spread)))
    with pytest.raises(UnsupportedError, match="module '1' is IFNode: v_threshold differs between neurons, it holds one"):
        store_weights(model, changed)


class Functions(nn.Module):
    """A forward over time by SpikingJelly's functions, with its own reset."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.one = (
            layer.Conv2d(1, 4, 3),
            layer.BatchNorm2d(4),
            neuron.LIFNode(v_threshold=0.3, step_mode="m"),
        )
        self.block, self.fc = nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), nn.Linear(16, 5)
        self.two = neuron.IFNode(v_threshold=0.3, v_reset=None, step_mode="m")

    def forward(self, x_seq):
        functional.reset_net(self)
        spikes = self.one(functional.seq_to_ann_forward(x_seq, [self.conv, self.norm]))
        return self.two(functional.seq_to_ann_forward(functional.seq_to_ann_forward(spikes, self.block), self.fc))


class Stepwise(nn.Module):
    """A forward over time of modules of one step."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), neuron.LIFNode(v_threshold=0.2))
        self.fc, self.out = nn.Linear(12, 5), neuron.IFNode(v_threshold=0.3)

    def forward(self, x_seq):
        functional.reset_net(self)
        return functional.multi_step_forward(functional.multi_step_forward(x_seq, self.block), [self.fc, self.out])


class Recurrent(nn.Module):
    """A container that feeds its spikes back."""

    def __init__(self):
        super().__init__()
        recurrent = layer.LinearRecurrentContainer(neuron.LIFNode(v_reset=None, v_threshold=0.3), 12, 12, bias=True)
        self.net = nn.Sequential(
            layer.Flatten(), layer.Linear(36, 12), recurrent, layer.Linear(12, 5), neuron.IFNode(v_threshold=0.3)
        )
        functional.set_step_mode(self, "m")

    def forward(self, x_seq):
        functional.reset_net(self)
        return self.net(x_seq)


@pytest.mark.parametrize("kind", [Functions, Stepwise, Recurrent])
def test_functions_and_containers_over_time(kind):
    torch.manual_seed(0)
    model, x = kind().eval(), Draw(1).spikes((1, 6, 6))
    with torch.no_grad():
        spikes = model(torch.from_numpy(x)).numpy()
    graph = read_model(model, (1, 6, 6))
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, spikes)
    assert spikes.any()
    back = store_weights(model, graph)
    with torch.no_grad():
        np.testing.assert_array_equal(back(torch.from_numpy(x)).numpy(), spikes)


def test_a_delay_is_one_of_the_edges_behind_it():
    torch.manual_seed(0)
    parts = (
        layer.Linear(6, 8),
        neuron.LIFNode(v_threshold=0.3),
        layer.Delay(2),
        layer.Linear(8, 5),
        neuron.IFNode(v_threshold=0.3),
    )
    model, x = nn.Sequential(*parts).eval(), Draw(1).spikes((6,))
    with pytest.raises(UnsupportedError, match="module '2' is Delay in a model of one step; run it over time"):
        read_model(model, (6,))
    functional.set_step_mode(model, "m")
    with torch.no_grad():
        spikes = model(torch.from_numpy(x)).numpy()
    graph = read_model(model, (6,))
    assert sorted(edge.delay for edge in graph.edges) == [0, 2] and spikes.any()
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, spikes)


def test_a_recurrent_container_beside_modules_of_another_step_mode_is_refused():
    container = layer.LinearRecurrentContainer(neuron.LIFNode(), 6, 6)
    with pytest.raises(
        UnsupportedError, match=r"'0' \(IFNode\) runs over time, module '1' \(LinearRecurrentContainer\) one step; set one"
    ):
        read_model(nn.Sequential(neuron.IFNode(step_mode="m"), container), (6,))
    by_function = layer.ElementWiseRecurrentContainer(neuron.IFNode(), torch.add)
    with pytest.raises(UnsupportedError, match="is ElementWiseRecurrentContainer, .*by a function; use LinearRecurrentContainer"):
        read_model(nn.Sequential(by_function), (6,))


def merged_by_functions(s, x):
    steps, samples = x.shape[:2]
    x = s.lif(functional.seq_to_ann_forward(x, [s.conv, s.norm, s.pool]))
    x = s.conv2(x.flatten(0, 1))
    x = s.lif2(x.view(steps, samples, *x.shape[1:]).contiguous())
    return s.fc(x.flatten(2))


def merged_with_a_number(s, x):
    x = s.pool(s.norm(s.conv(x.reshape(-1, 2, 8, 8)))).reshape(s.steps, -1, 4, 4, 4)
    x = s.lif2(s.conv2(s.lif(x).flatten(0, 1)).unflatten(0, (s.steps, -1)))
    return s.fc(x.view(x.shape[0] * x.shape[1], -1)).view(x.shape[0], x.shape[1], -1)


class Merging(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run, self.steps = run, 20
        self.conv, self.norm, self.pool = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.AvgPool2d(2)
        self.lif, self.conv2, self.lif2 = neuron.LIFNode(v_threshold=0.2), nn.Conv2d(4, 3, 3), neuron.IFNode(v_threshold=0.3)
        self.fc, self.conv5 = nn.Linear(12, 5), layer.Conv2d(2, 4, 3)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize("run", [merged_by_functions, merged_with_a_number])
def test_layers_on_time_and_batch_in_one_axis_spike_the_same(run):
    draw = Draw(0)
    model, x = Merging(run).eval(), draw.spikes((2, 8, 8))
    theirs = recorded(model, KINDS, lambda: model(torch.from_numpy(x)))
    different, emitted = count_differences(model, (2, 8, 8), x, {path: outputs[0] for path, outputs in theirs.items()})
    assert different == 0 and emitted > 100


def test_a_layer_of_both_axes_behind_merged_ones_is_refused():
    model = Merging(lambda s, x: s.conv5(x.flatten(0, 1)).view(*x.shape[:2], 4, 6, 6))
    with pytest.raises(UnsupportedError, match="'conv5' is Conv2d, which gets time and batch in one axis; part them first, with"):
        read_model(model, (2, 8, 8))


@pytest.fixture
def model_zoo(monkeypatch):
    """SpikingJelly's models; they ask torchvision for a function that fetches trained weights, which is not needed here."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.utils"):
        module = ModuleType(name)
        module.__spec__, module.load_state_dict_from_url = ModuleSpec(name, None), None
        monkeypatch.setitem(sys.modules, name, module)
    return importlib.import_module("spikingjelly.activation_based.model")


def sew_resnet(zoo, rule):
    module = importlib.import_module(f"{zoo.__name__}.sew_resnet")
    return module.sew_resnet18(pretrained=False, num_classes=10, cnf=rule, spiking_neuron=neuron.LIFNode)


def parametric(zoo, name, channels):
    module = importlib.import_module(f"{zoo.__name__}.parametric_lif_net")
    return getattr(module, name)(channels=channels, spiking_neuron=neuron.ParametricLIFNode)


@pytest.mark.parametrize(
    ("build", "shape", "layers"),
    [
        (lambda zoo: sew_resnet(zoo, "ADD"), (3, 32, 32), 30), (lambda zoo: sew_resnet(zoo, "AND"), (3, 32, 32), 31),
        (lambda zoo: sew_resnet(zoo, "IAND"), (3, 32, 32), 39), (lambda zoo: parametric(zoo, "CIFAR10Net", 16), (3, 32, 32), 11),
        (lambda zoo: parametric(zoo, "MNISTNet", 8), (1, 28, 28), 7),
        (lambda zoo: parametric(zoo, "DVSGestureNet", 8), (2, 128, 128), 13),
    ],
)  # fmt: skip
def test_a_network_of_the_model_zoo_spikes_as_in_spikingjelly(build, shape, layers, model_zoo):
    torch.manual_seed(0)
    model = build(model_zoo).eval()
    functional.set_step_mode(model, "m")
    for norm in (part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)):
        with torch.no_grad():
            norm.running_mean.normal_(0, 0.05)
            norm.running_var.uniform_(0.02, 0.2)
            norm.bias.uniform_(0, 0.4)
    x = (torch.rand(4, 1, *shape) < 0.5).float()
    theirs = {path: outputs[0] for path, outputs in recorded(model, KINDS, lambda: model(x)).items()}
    graph = read_model(model, shape)
    counts, _ = compare_runs(graph, theirs, x.numpy())
    assert len(graph.layers) == layers
    assert sum(row["differ"] for row in counts.values()) == 0
    assert sum(row["ties"] + row["behind"] for row in counts.values()) == 0
    assert sum(row["spikes"] for row in counts.values()) > 1000


class Resets(nn.Module):
    """A loop that resets its neurons in front, within or behind."""

    def __init__(self, where):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.lif, self.where = nn.Linear(12, 8), neuron.LIFNode(v_threshold=0.3), where

    def forward(self, x):
        out = []
        if self.where == "front":
            functional.reset_net(self)
        for t in range(x.shape[0]):
            if self.where == "within":
                self.lif.reset()
            out.append(self.lif(self.fc(x[t])))
        if self.where == "behind":
            functional.reset_net(self)
        return torch.stack(out)


@pytest.mark.parametrize("where", ["front", "behind"])
def test_a_reset_around_a_loop_changes_nothing(where):
    x = (np.random.default_rng(0).random((10, 3, 12)) < 0.5).astype(np.float32)
    graph, model = read_model(Resets(where), (12,)), Resets(where)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


def test_a_reset_within_a_loop_is_refused():
    with pytest.raises(UnsupportedError, match="it resets module 'lif' between two of its steps, which no layer here does; let"):
        read_model(Resets("within"), (12,))


def test_a_state_of_an_earlier_run_has_a_note():
    model = nn.Sequential(layer.Linear(6, 5), neuron.LIFNode())
    model(torch.ones(3, 6))
    note = "module '1': holds a state of an earlier run: the network starts without, as after functional.reset_net(net)"
    assert read_model(model, (6,)).metadata["assumptions"] == [note]
    functional.reset_net(model)
    assert "assumptions" not in read_model(model, (6,)).metadata


@pytest.mark.parametrize("kind", [neuron.OTTTLIFNode, neuron.SLTTLIFNode], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("v_reset", [None, 0.0])
def test_neurons_of_online_learning_are_those_of_their_evaluation(kind, v_reset):
    """They return a trace beside their spikes while they learn, and nothing else in evaluation."""
    torch.manual_seed(0)
    parts = [
        layer.Linear(12, 8), kind(tau=3.0, decay_input=False, v_reset=v_reset), layer.Linear(8, 5), kind(decay_input=True)
    ]  # fmt: skip
    for fc in parts[::2]:
        nn.init.uniform_(fc.weight, -0.8, 1.6)
    model, x = layer.OTTTSequential(*parts).eval(), (np.random.default_rng(0).random((50, 3, 12)) < 0.4).astype(np.float32)
    graph = read_model(model.train(), (12,))
    with torch.no_grad():
        expected = torch.stack([model.eval()(step) for step in torch.from_numpy(x)]).numpy()
    functional.reset_net(model)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, expected)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: neuron.DSRIFNode(),
            "DSRIFNode, .*: it spikes at a part of its threshold, alpha, and takes the whole off; use IFNode",
        ),
        (
            lambda: neuron.DSRLIFNode(),
            "DSRLIFNode, .*: it spikes at a part of its threshold, alpha, and takes the whole off; use",
        ),
        (lambda: neuron.HalfThresholdIFNode(), "HalfThresholdIFNode, .*: it starts at half its threshold; use IFNode"),
        (lambda: neuron.ActivationAwareIFNode(), "ActivationAwareIFNode, .*: it has thresholds and offsets of the channels"),
        (lambda: neuron.ComplementaryLIFNode(), "ComplementaryLIFNode, .*: a second state of its own lowers its membrane; use"),
        (lambda: neuron.LIAFNode(torch.relu, False), "LIAFNode, .*: it sends a function of its membrane, no spikes; use LIFNode"),
        (lambda: neuron.TernaryIFNode(), "TernaryIFNode, .*: it sends spikes of -1 too; use IFNode or LIFNode"),
        (lambda: neuron.RAFNode(), "RAFNode, .*: its membrane oscillates; use LIFNode"),
    ],
)
def test_neurons_without_a_counterpart_are_refused_by_their_reason(make, reason):
    with pytest.raises(UnsupportedError, match=f"module '1' is {reason}"):
        read_model(nn.Sequential(nn.Linear(6, 5), make()), (6,))
