"""Weights of a changed network, stored in the module that it was read from, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
norse = pytest.importorskip("norse.torch")

from torch import nn  # noqa: E402
from torch.nn.utils.prune import l1_unstructured  # noqa: E402

import spear_deploy as sd  # noqa: E402
from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.importer.storage import store_layer  # noqa: E402
from spear_deploy.frameworks.models import read_model, run_model  # noqa: E402
from spear_deploy.network import LIF, Dense, Scale  # noqa: E402
from spear_deploy.pruning.plan import PruningPlan, prune  # noqa: E402
from spear_deploy.quantize import fold_batchnorm, quantize  # noqa: E402
from spear_deploy.quantize.fuse_weights import fuse_weights  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.homecoming import prune_at_random  # noqa: E402

RNG = np.random.default_rng(0)


def lively(model):
    """Return the model with weights with which its neurons spike."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_((torch.randn_like(parameter) + 0.5) * 1.5 / parameter[0].numel() ** 0.5)
    return model.eval()


def box(v_th=0.1, **parameters):
    return norse.LIFBoxCell(norse.LIFBoxParameters(v_th=torch.tensor(v_th), **parameters))


class SideBySide(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.lif = nn.Linear(6, 5), nn.Linear(6, 4), box()
        self.lif2, self.out, self.lif3 = box(), nn.Linear(9, 3), box()

    def forward(self, x, state=None):
        s = (None, None, None) if state is None else state
        a, sa = self.lif(self.a(x), s[0])
        b, sb = self.lif2(self.b(x), s[1])
        out, so = self.lif3(self.out(torch.cat([a, b], 1)), s[2])
        return out, (sa, sb, so)


MODELS = {
    "dense": lambda: (norse.SequentialState(nn.Linear(6, 9), box(), nn.Linear(9, 3), box()), (6,)),
    "image": lambda: (
        norse.SequentialState(
            nn.Conv2d(1, 4, 4, padding="same"), nn.BatchNorm2d(4), box(), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 3, 3, padding=1),
            box(), nn.Flatten(), nn.Linear(48, 5), box(),
        ),
        (1, 8, 8),
    ),
    "transposed, of one position": lambda: (
        norse.SequentialState(nn.ConvTranspose2d(1, 4, 1), box(), nn.ConvTranspose2d(4, 3, (1, 2)), box()),
        (1, 3, 4),
    ),
    "recurrent": lambda: (
        norse.SequentialState(norse.LIFRecurrentCell(6, 8, norse.LIFParameters(v_th=torch.tensor(0.3))), nn.Linear(8, 3), box()),
        (6,),
    ),
    "depthwise": lambda: (
        norse.SequentialState(
            nn.Conv2d(1, 4, 3), box(), nn.Conv2d(4, 4, 3, groups=4), box(), nn.Flatten(), nn.Linear(16 * 4, 3), norse.LICell()
        ),
        (1, 8, 8),
    ),
    "over time": lambda: (
        norse.SequentialState(
            norse.Lift(nn.Conv2d(1, 4, 3)), norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.3))), norse.Lift(nn.Flatten()),
            nn.Linear(4 * 36, 3), norse.LIF(),
        ),
        (1, 8, 8),
    ),
    "a threshold for each neuron": lambda: (
        norse.SequentialState(nn.Linear(6, 9), box(torch.linspace(0.05, 0.2, 9).tolist()), nn.Linear(9, 3), box()),
        (6,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_pruned_and_learnt_network_goes_back_into_its_module(name):
    model, shape = MODELS[name]()
    pruned = prune_at_random(read_model(lively(model), shape), np.random.default_rng(3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    back = sd.weights_into(model, pruned)
    x = (RNG.random((20, 3, *shape)) < 0.5).astype(np.float32)
    ours = simulate(pruned, x, kind="current", record=("spikes", "v")).output
    theirs = run_model(back, x)
    if ours.dtype == bool:
        np.testing.assert_array_equal(ours, theirs > 0)
        assert ours.sum() > 5
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    count = [sum(p.numel() for p in part.parameters()) for part in (model, back)]
    assert count[1] < count[0]
    assert all((before[key] == value).all() for key, value in model.state_dict().items())


def with_norms(*, bias, affine=True, eps=1e-5):
    """Return a model with a norm behind a convolution and one behind linear weights, both with statistics of their own."""
    norms = nn.BatchNorm2d(4, eps=eps, affine=affine), nn.BatchNorm1d(12, eps=eps, affine=affine)
    model = norse.SequentialState(
        nn.Conv2d(1, 4, 3, bias=bias), norms[0], box(0.5), nn.Flatten(), nn.Linear(4 * 36, 12, bias=bias), norms[1], box(0.5),
        nn.Linear(12, 5, bias=False), box(),
    )  # fmt: skip
    lively(model)
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)
            for parameter, low in ((norm.weight, 0.5), (norm.bias, -0.5)):
                if affine:
                    parameter.uniform_(low, low + 1)
    return model


@pytest.mark.parametrize(
    "options",
    [{"bias": True}, {"bias": False}, {"bias": False, "affine": False}, {"bias": True, "eps": 1e-3}, {"bias": False, "eps": 1.5}],
    ids=str,
)
def test_a_norm_that_the_network_has_folded_adds_at_most_the_bias(options):
    model = with_norms(**options)
    folded = fold_batchnorm(prune_at_random(read_model(model, (1, 8, 8)), np.random.default_rng(3)))
    assert all(layer.norm is None for layer in folded.layers)
    back = sd.weights_into(model, folded)
    x = (RNG.random((20, 8, 1, 8, 8)) < 0.5).astype(np.float32)
    ours = simulate(folded, x, kind="current", record=("spikes",)).output
    assert ours.any() and not ours.all()
    np.testing.assert_array_equal(ours, run_model(back, x) > 0)
    for weights, norm in ((back[0], back[1]), (back[4], back[5])):
        assert (weights.bias is None) != options["bias"] and norm.num_features == len(weights.weight)
        values = torch.randn(16, norm.num_features, *(5, 5)[: weights.weight.ndim - 2])
        shift = norm(torch.zeros_like(values))
        torch.testing.assert_close(norm(values), values + shift, rtol=1e-6, atol=2e-6)
        assert (shift.abs().max() > 1e-3) != options["bias"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_that_the_network_has_folded_trains_as_the_models_does(bias):
    """On a batch whose statistics the model's norm holds, both give the same in training, and change the same in a step."""
    model = with_norms(bias=bias)
    x = torch.from_numpy((RNG.random((400, 1, 8, 8)) < 0.5).astype(np.float32))
    with torch.no_grad():
        sums = model[0](x)
        model[1].running_mean, model[1].running_var = sums.mean((0, 2, 3)), sums.var((0, 2, 3))
        model[1].weight[2] = -0.7  # folded into a gain below 0
    folded = fold_batchnorm(prune(read_model(model, (1, 8, 8)), PruningPlan(kept={"2": (0, 2, 3)})))
    back = sd.weights_into(model, folded)
    with torch.no_grad():
        before, after = (net[1].train()(net[0](x)) for net in (model, back))
    torch.testing.assert_close(after, before[:, [0, 2, 3]], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(back[1].running_mean, before.new_tensor(folded_mean(model, bias))[[0, 2, 3]], rtol=1e-3, atol=1e-4)


def folded_mean(model, bias):
    """Return the mean of the sums of the first convolution with the gain of its norm in its weights."""
    norm = model[1]
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (norm.bias if bias else gain * norm.running_mean).tolist()


def test_training_goes_on_after_it():
    model, shape = MODELS["dense"]()
    pruned = prune_at_random(read_model(lively(model), shape), np.random.default_rng(3))
    back = sd.weights_into(model, pruned).train()
    optimizer = torch.optim.SGD(back.parameters(), lr=0.1)
    out, _ = back(torch.ones(4, 6))
    back_sum = out.sum() + back[0].weight.sum() * 1e-3
    back_sum.backward()
    optimizer.step()
    assert not torch.equal(back[0].weight.detach(), torch.from_numpy(pruned["1"].synapse.weight.copy()))
    assert back[0].out_features == pruned["1"].synapse.weight.shape[0] < 9


def test_a_file_of_a_pruned_network_is_taken(tmp_path):
    from spear_deploy.interchange.snn_file import write_snn

    model, shape = MODELS["dense"]()
    graph = prune_at_random(read_model(lively(model), shape), np.random.default_rng(3))
    write_snn(graph, tmp_path / "pruned.snn")
    back = sd.weights_into(model, tmp_path / "pruned.snn")
    np.testing.assert_array_equal(back[0].weight.detach().numpy(), graph["1"].synapse.weight)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.a, self.b = nn.Linear(5, 5), box(), box()

    def forward(self, x, state=None):
        s = (None, None) if state is None else state
        a, sa = self.a(self.fc(x), s[0])
        b, sb = self.b(self.fc(a), s[1])
        return b, (sa, sb)


class FixedView(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.a, self.fc, self.b = nn.Conv2d(1, 4, 3), box(), nn.Linear(4 * 36, 3), box()

    def forward(self, x, state=None):
        s = (None, None) if state is None else state
        a, sa = self.a(self.conv(x), s[0])
        b, sb = self.b(self.fc(a.view(-1, 144)), s[1])
        return b, (sa, sb)


def changed(graph, name, **parts):
    return graph.with_layers({name: replace(graph[name], **parts)})


def refused(make, change):
    model, shape = make()
    graph = read_model(lively(model), shape)
    return lambda: sd.weights_into(model, change(graph))


def hooked():
    model, shape = MODELS["dense"]()
    l1_unstructured(model[0], "weight", 0.3)
    return model, shape


def half(graph):
    return prune_at_random(graph, np.random.default_rng(3))


REFUSED = [
    (MODELS["dense"], lambda g: quantize(g), "the network holds integers of a chip"),
    (lambda: (norse.SequentialState(nn.Linear(6, 9), box(), nn.Linear(9, 9), box(), nn.Linear(9, 3), box()), (6,)),
     lambda g: read_model(lively(MODELS["dense"]()[0]), (6,)), "the network's layers are not the model's: '5' in one alone"),
    (MODELS["recurrent"], lambda g: replace(g, edges=tuple(replace(e, delay=2 * e.delay) for e in g.edges)),
     "is in one of network and model alone"),
    (lambda: (norse.SequentialState(nn.BatchNorm1d(6), nn.Linear(6, 3), box()), (6,)),
     lambda g: changed(g, "0", norm=None, synapse=Scale(weight=np.ones(6))),
     "layer '0': the model has BatchNorm, the network none; give the network as it was pruned, before neurons are exchanged"),
    (MODELS["dense"], lambda g: changed(g, "1", neuron=replace(g["1"].neuron, reset="subtract")),
     "module '1': the network's neurons have another reset than the module"),
    (MODELS["dense"], lambda g: changed(g, "1", neuron=LIF(tau_s=g["1"].neuron.tau_s, r=np.asarray(2.0))),
     "layer '1': r of the network has no place in the model"),
    (lambda: (Twice(), (5,)), lambda g: changed(g, "a", synapse=replace(g["a"].synapse, weight=np.ones((5, 5), np.float32))),
     "module 'fc' is called 2 times, the network has other weights each time"),
    (lambda: (FixedView(), (1, 8, 8)), half, "the model's forward does not take the network's sizes"),
    (hooked, half, "module '0' computes its weights by a hook; make that permanent first"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "change", "message"), REFUSED)
def test_what_does_not_match_is_refused(make, change, message):
    call = refused(make, change)
    with pytest.raises(UnsupportedError, match=message):
        call()


def test_a_name_in_place_of_the_module_is_refused():
    with pytest.raises(UnsupportedError, match="weights_into: net is str, expected the torch module that the network was read"):
        sd.weights_into("digits", "digits")


def test_a_module_of_another_kind_is_refused():
    with pytest.raises(UnsupportedError, match="module 'a' is ReLU, which holds no Dense; give the module that was read"):
        store_layer(nn.ReLU(), Dense(weight=np.ones((2, 2))), "module 'a'")


def test_another_threshold_of_a_max_pool_is_the_same_pool():
    model, shape = MODELS["image"]()
    graph = read_model(lively(model), shape)
    lower = changed(graph, "3", neuron=replace(graph["3"].neuron, v_threshold=np.asarray(0.3, np.float32)))
    assert isinstance(sd.weights_into(model, lower), nn.Module)
    with pytest.raises(UnsupportedError, match="layer '3': v_threshold of the network has no place in the model"):
        sd.weights_into(model, changed(graph, "3", neuron=replace(graph["3"].neuron, v_threshold=np.asarray(1.5))))


class Multiplies(nn.Module):
    """As `ConvNet` of Norse, which multiplies what a convolution gives."""

    def __init__(self):
        super().__init__()
        self.conv1, self.lif1, self.conv2, self.lif2 = nn.Conv2d(1, 4, 3), box(), nn.Conv2d(4, 3, 3), box()
        self.fc, self.lif3 = nn.Linear(12, 4), box()

    def forward(self, x):
        s1 = s2 = s3 = None
        out = []
        for step in x:
            z, s1 = self.lif1(self.conv1(step), s1)
            z, s2 = self.lif2(10 * self.conv2(z), s2)
            z, s3 = self.lif3(self.fc(z.flatten(1)), s3)
            out.append(z)
        return torch.stack(out)


def test_a_factor_that_learning_with_rounding_multiplied_into_weights_is_a_factor_again():
    model = lively(Multiplies())
    graph = read_model(model, (1, 6, 6))
    assert [layer.name for layer in graph.layers] == ["lif1", "conv2", "lif2", "lif3"]
    pruned = fuse_weights(prune_at_random(graph, np.random.default_rng(3)))
    assert [layer.name for layer in pruned.layers] == ["lif1", "lif2", "lif3"]
    assert pruned["lif2"].synapse.weight.shape != graph["conv2"].synapse.weight.shape
    home = sd.weights_into(model, pruned)
    x = RNG.integers(0, 2, (9, 4, 1, 6, 6)).astype(np.float32)
    ours = simulate(pruned, x).output
    assert 0.05 < ours.mean() < 0.95
    np.testing.assert_array_equal(run_model(home, x), ours)
    np.testing.assert_allclose(10 * home.conv2.weight.detach().numpy(), pruned["lif2"].synapse.weight, rtol=1e-6)
