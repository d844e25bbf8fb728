"""Functions and layers of einops in a forward: the same spikes as its own, and refusals; einops itself is optional."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import fx, nn  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.importer.einops_pattern import apply_pattern  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402
from spear_deploy.simulator import simulate  # noqa: E402
from tests.support.norse_forwards import STEPS, ConvNet  # noqa: E402

SAMPLES = 3

PATTERNS = [
    ("t b c h w -> (t b) c h w", {}, (4, 3, 2, 5, 6)),
    ("(t b) c h w -> t b c h w", {"t": 4}, (12, 2, 5, 6)),
    ("(t b) c h w -> b t (c h w)", {"b": 3}, (12, 2, 5, 6)),
    ("b c h w -> b (h w c)", {}, (3, 2, 5, 6)),
    ("t b c h w -> b t c h w", {}, (4, 3, 2, 5, 6)),
    ("b c 1 -> b c", {}, (3, 2, 1)),
    ("b c -> b c 1 ()", {}, (3, 2)),
    ("b (c two) -> two b c", {"two": 2}, (3, 8)),
]
REDUCED = [("t b c -> b c", "mean"), ("t b c -> c", "sum"), ("b c h -> b c", "max"), ("b c h -> b c 1", "mean")]
REPEATED = [("b c -> t b c", {"t": 4}), ("b c -> (t b) c", {"t": 4}), ("b c -> b t c", {"t": 2})]


def applied(pattern, lengths, x, reduction=None):
    """Return what the methods give on numbers that a pattern stands for in a trace."""
    tracer = fx.Tracer()
    graph = tracer.graph = fx.Graph(tracer_cls=fx.Tracer)
    tracer.root = nn.Module()
    tracer.submodule_paths = None
    result = apply_pattern(
        tracer.create_proxy("placeholder", "x", (), {}), pattern, lengths, place="the model", reduction=reduction
    )
    graph.output(result.node)
    return fx.GraphModule(nn.Module(), graph)(x)


@pytest.mark.parametrize(("pattern", "lengths", "shape"), PATTERNS)
def test_a_pattern_orders_values_as_einops_does(pattern, lengths, shape):
    einops = pytest.importorskip("einops")
    x = torch.rand(shape)
    assert torch.equal(applied(pattern, lengths, x), einops.rearrange(x, pattern, **lengths))


@pytest.mark.parametrize(("pattern", "reduction"), REDUCED)
def test_a_reduction_gives_what_einops_does(pattern, reduction):
    einops = pytest.importorskip("einops")
    x = torch.rand(4, 3, 2)
    torch.testing.assert_close(applied(pattern, {}, x, reduction), einops.reduce(x, pattern, reduction))


@pytest.mark.parametrize(("pattern", "lengths"), REPEATED)
def test_a_repetition_gives_what_einops_does(pattern, lengths):
    einops = pytest.importorskip("einops")
    x = torch.rand(3, 2)
    assert torch.equal(applied(pattern, lengths, x), einops.repeat(x, pattern, **lengths))


@pytest.mark.parametrize(
    ("pattern", "reduction", "message"),
    [
        (
            "t b c -> b c",
            "prod",
            "the model has the pattern 't b c -> b c', which reduces by 'prod'; expected 'mean', 'sum' or 'max'",
        ),
        ("b ... -> b (...)", None, r"the pattern 'b \.\.\. -> b \(\.\.\.\)', whose '...' a trace cannot count; name every axis"),
    ],
)
def test_patterns_that_nothing_stands_for_are_refused(pattern, reduction, message):
    with pytest.raises(UnsupportedError, match=message):
        applied(pattern, {}, torch.rand(4, 3, 2), reduction)


def test_a_list_of_tensors_is_refused():
    with pytest.raises(UnsupportedError, match="the model calls einops on a list of tensors; stack them first"):
        apply_pattern([1, 2], "t b -> b t", {}, place="the model")


class Net(ConvNet):
    """Layers of einops beside those of the network."""

    def __init__(self, run, over_time=False):
        super().__init__(run, over_time)
        from einops.layers.torch import Rearrange, Reduce

        self.merge, self.flat = Rearrange("t b ... -> (t b) ..."), Rearrange("b c h w -> b (h w c)")
        self.last, self.mean = Rearrange("b c h w -> b (c h w)"), Reduce("t b n -> b n", "mean")


def by_functions(s, x):
    import einops

    samples = x.shape[1]
    x = s.pool(s.conv(einops.rearrange(x, "t b c h w -> (t b) c h w")))
    x = s.loop(s.lif, einops.rearrange(x, "(t b) c h w -> t b c h w", b=samples))
    x = s.fc(einops.rearrange(x, "t b c h w -> (t b) (c h w)"))
    return s.loop(s.lif2, einops.rearrange(x, "(t b) n -> t b n", b=samples))


def by_layers_in_a_loop(s, x):
    first, second, outputs = None, None, []
    for t in range(len(x)):
        z, first = s.lif(s.pool(s.conv(x[t])), first)
        z, second = s.lif2(s.fc(s.flat(z)), second)
        outputs.append(z)
    return torch.stack(outputs)


def over_time(s, x):
    from einops import rearrange

    steps = x.shape[0]
    x, _ = s.lif(rearrange(s.pool(s.conv(s.merge(x))), "(t b) c h w -> t b c h w", t=steps))
    return s.lif2(s.fc(rearrange(x, "t b c h w -> t b (c h w)")))[0]


def images(s, x):
    from einops import repeat

    x = s.pool(s.conv(repeat(x, "b c h w -> (t b) c h w", t=STEPS)))
    x = s.loop(s.lif, x.view(STEPS, -1, 4, 4, 4))
    return s.loop(s.lif2, s.fc(x.flatten(2)))


@pytest.mark.parametrize("run", [by_functions, by_layers_in_a_loop, over_time, images])
def test_forwards_with_einops_spike_the_same(run):
    pytest.importorskip("einops")
    torch.manual_seed(1)
    model = Net(run, run is over_time).eval()
    with torch.no_grad():
        for layer in (model.conv, model.fc):
            layer.weight.mul_(4)
    shape = (SAMPLES, 2, 8, 8) if run is images else (STEPS, SAMPLES, 2, 8, 8)
    x = (torch.rand(shape) < 0.5).float()
    graph = read_model(model, (2, 8, 8))
    with torch.no_grad():
        theirs = model(x).numpy()
    assert 10 < theirs.sum() < theirs.size - 10
    x = np.broadcast_to(x.numpy(), (STEPS, SAMPLES, 2, 8, 8))
    np.testing.assert_array_equal(simulate(graph, x, kind="current").output, theirs)


def test_a_mean_by_a_layer_is_decoding():
    pytest.importorskip("einops")
    graph = read_model(Net(lambda s, x: s.mean(by_layers_in_a_loop(s, x))).eval(), (2, 8, 8))
    assert "the forward returns the mean of its outputs over time" in graph.metadata["assumptions"][0]
