"""Convolutions without padding on a chip that pads: random networks, 20 each by default and 300 behind `-m slow`."""

import numpy as np
import pytest

from spear_deploy.adaptation.padding import find_paddings
from spear_deploy.adaptation.plan import make_plans
from spear_deploy.budget.check import check
from spear_deploy.hardware.profile import load_profile, override_facts
from spear_deploy.network import IF, LI, AvgPool, Conv1d, Conv2d, Dense, Flatten, Layer, Scale, SumPool
from spear_deploy.network.graph import chain
from tests.adaptation.random_networks import DT_S, count_differing_spikes, eighths, random_neuron, random_norm
from tests.support.seeds import seeds

SEEDS = seeds(8, 300)
PADS = override_facts(load_profile("generic45nm"), {"layers.conv_padding_same": True})
OLD = (Conv1d, Conv2d)


def random_valid_network(seed: int, axes: int):
    """Return two or three convolutions without padding, pools, and a readout; thresholds are alike at all positions."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 3)), *(int(rng.integers(14, 18)) for _ in range(axes)))
    layers, start = [], shape
    for number in range(int(rng.integers(2, 4))):
        kernel = tuple(int(rng.integers(2, 5 if number else 4)) for _ in range(axes))
        if any(size < k for size, k in zip(shape[1:], kernel, strict=True)):
            break
        groups = shape[0] if rng.integers(4) == 0 else 1
        outputs = groups * int(rng.integers(1, 3))
        conv = OLD[axes - 1](
            weight=eighths(rng, (outputs, shape[0] // groups, *kernel)), bias=eighths(rng, outputs) if rng.integers(2) else None,
            stride=tuple(int(rng.integers(1, 3)) if number == 1 else 1 for _ in range(axes)), groups=groups,
        )  # fmt: skip
        shape = conv.output_shape(shape)
        neuron = random_neuron(rng, (outputs, *(1,) * axes))
        layers.append(Layer(name=f"conv{number}", synapse=conv, norm=random_norm(rng, outputs), neuron=neuron))
        if not number and rng.integers(2):
            pool = (SumPool, AvgPool)[rng.integers(2)](kernel_size=(2,) * axes)
            shape = pool.output_shape(shape)
            layers.append(Layer(name="pool", synapse=pool))
    if rng.integers(2):
        layers.append(Layer(name="flat", synapse=Flatten()))
    layers.append(Layer(name="out", synapse=Dense(weight=eighths(rng, (3, int(np.prod(shape))))), neuron=LI(tau_s=2 * DT_S)))
    return chain(layers, input_shape=start, dt_s=DT_S)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_outputs_are_those_of_the_network_without_padding(seed, axes):
    graph = random_valid_network(seed, axes)
    (offer,) = find_paddings(graph, PADS)
    adapted = offer.rewrite(graph)
    assert offer.kind == "exact" and not list(find_paddings(adapted, PADS)) and adapted.neurons > graph.neurons
    assert not check(adapted, PADS, remedies=False).unsupported
    assert count_differing_spikes(graph, adapted, seed) == 0


def conv(k: int, padding: int = 0, **parts):
    return Layer(name="conv", synapse=Conv2d(weight=np.ones((1, 1, k, k)), padding=(padding, padding)), **parts)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([conv(3, neuron=IF())], "the output would be larger"),
        (
            [conv(3, neuron=IF(v_threshold=np.ones((1, 6, 6)))), Layer(name="out", synapse=Dense(weight=np.ones((2, 36))))],
            "positions",
        ),
        ([conv(3, neuron=IF()), Layer(name="s", synapse=Scale(weight=np.ones((1, 6, 6))))], "a weight per position"),
        (
            [conv(3, neuron=IF()), Layer(name="p", synapse=SumPool(kernel_size=(2, 2), padding=(1, 1)), neuron=IF())],
            "a padded pool",
        ),
    ],
)
def test_none_where_what_is_behind_reads_all_positions(layers, why):
    assert not list(find_paddings(chain(layers, input_shape=(1, 8, 8)), PADS)), why


def test_a_padded_convolution_behind_a_smaller_map_reads_zeros_at_its_border():
    layers = [conv(3, neuron=IF()), Layer(name="b", synapse=Conv2d(weight=np.ones((1, 1, 3, 3)), padding=(1, 1)), neuron=IF())]
    layers.append(Layer(name="out", synapse=Dense(weight=np.ones((2, 36)))))
    assert not list(find_paddings(chain(layers, input_shape=(1, 8, 8)), PADS))


def test_chips_without_such_a_rule_keep_their_convolutions():
    assert not list(find_paddings(random_valid_network(0, 2), load_profile("speck2f")))


def test_a_network_without_padding_on_akida():
    rng = np.random.default_rng(0)
    layers = [
        Layer(name="a", synapse=Conv2d(weight=rng.normal(size=(4, 1, 3, 3)).astype(np.float32)), neuron=IF()),
        Layer(name="b", synapse=Conv2d(weight=rng.normal(size=(8, 4, 3, 3)).astype(np.float32)), neuron=IF()),
        Layer(name="pool", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="out", synapse=Dense(weight=rng.normal(size=(10, 8 * 6 * 6)).astype(np.float32)), neuron=IF()),
    ]
    best = make_plans(chain(layers, input_shape=(1, 16, 16)), load_profile("akd1000"))[0]
    assert best.lacking == [] and "one with maps as large as its input" in str([step.replacement.by for step in best.steps])
