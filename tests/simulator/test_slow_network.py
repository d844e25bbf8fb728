"""Networks of every neuron and odd geometry against a run synapse by synapse."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.errors import DataError
from spear_deploy.network import AvgPool, Conv1d, Conv2d, OdinLIF, SumPool
from spear_deploy.simulator import simulate
from spear_deploy.simulator.synops import count_synops
from tests.support.rich_graphs import _Integers, _Rich
from tests.support.seeds import few_first
from tests.support.slow_network import SlowNetwork
from tests.support.wild_graphs import _Wild

KINDS = ("loihi", "speck", "xylo", "chips", "rich", "float")
MAX_VALUES = 400
"""Values of a network above which its seed is passed over: the slow run takes too long."""


class _Odd:
    """Strides beyond kernels, any groups, wide padding, and weights that are equal, few, or at the ends of their range."""

    def grid(self, *shape):
        values = super().grid(*shape)
        kind = self.pick("as drawn", "as drawn", "as drawn", "zero", "equal", "few", "ends")
        if kind == "equal":
            return values * 0 + values.flat[0]
        if kind == "ends" and self.integer:
            return self.rng.choice([-(2**15) + 1, 0, 2**15 - 1], shape)
        share = {"zero": 0.0, "few": 0.3}.get(kind, 1.0)
        return values * (self.rng.random(shape) < share)

    def conv(self, shape):
        dims = len(shape) - 1
        groups = int(self.pick(*(n for n in range(1, shape[0] + 1) if shape[0] % n == 0)))
        out = groups * int(self.rng.integers(1, 4))
        kernel, dilation, stride, padding = (self.rng.integers(*ends, dims) for ends in ((1, 6), (1, 4), (1, 6), (0, 4)))
        padding = np.maximum(padding, (dilation * (kernel - 1) + 2 - np.array(shape[1:])) // 2)
        sizes = {"stride": stride, "padding": padding, "dilation": dilation}
        return (Conv1d if dims == 1 else Conv2d)(
            weight=self.grid(out, shape[0] // groups, *kernel),
            bias=self.grid(out) if self.chance(0.5) else None,
            groups=groups,
            weight_exponent=self.exponent(),
            **{name: tuple(map(int, each)) for name, each in sizes.items()},
        )

    def pool(self, shape):
        kind = SumPool if self.integer else self.pick(SumPool, AvgPool)
        kernel = [int(self.pick(1, 2, 4) if kind is AvgPool else self.pick(1, 2, 3, 4, 5)) for _ in shape[1:]]
        padding = [max(int(self.rng.integers(0, 4)), (k - n + 1) // 2) for k, n in zip(kernel, shape[1:], strict=True)]
        stride = self.pick(None, tuple(int(self.rng.integers(1, 6)) for _ in kernel))
        return kind(kernel_size=tuple(kernel), stride=stride, padding=tuple(padding))


class _OddWild(_Odd, _Wild):
    pass


class _OddRich(_Odd, _Rich):
    pass


class _OddIntegers(_Odd, _Integers):
    pass


def odd_network(seed):
    kind = KINDS[seed % len(KINDS)]
    makers = {"chips": lambda: _OddIntegers(seed), "rich": lambda: _OddRich(seed, "float")}
    return makers.get(kind, lambda: _OddWild(seed, kind))().graph()


def compare(seeds):
    """Compare networks of these seeds; return how many were run, and the spikes of all."""
    found = spikes = 0
    for seed in seeds:
        graph, rng = odd_network(seed), np.random.default_rng(seed)
        sizes = [int(np.prod(graph.shape_of(layer.name))) for layer in graph.layers]
        if sum(sizes) > MAX_VALUES or any(isinstance(layer.neuron, OdinLIF) for layer in graph.layers):
            continue  # ODIN takes dense layers alone, see test_chip_neurons
        x = (rng.random((int(rng.choice([1, 2, 6])), 2, *graph.input_shape)) < rng.choice([0.1, 0.4, 1])) * rng.integers(1, 4)
        try:
            run = simulate(graph, x, record=("spikes", "v"), dtype=np.float64)
        except DataError as refusal:
            assert any(text in str(refusal) for text in ("exact", "adds up weights by sign")), refusal
            continue
        slow = SlowNetwork(graph)
        emitted, potentials = slow.run(x)
        for name, sent in run.spikes.items():
            np.testing.assert_array_equal(sent, emitted[name], err_msg=f"seed {seed}, {name}")
        for name in potentials:
            np.testing.assert_array_equal(run.v[name], potentials[name], err_msg=f"seed {seed}, v of {name}")
        assert count_synops(graph, run.counts).per_layer == slow.count_synops(emitted), seed
        found, spikes = found + 1, spikes + sum(int(np.count_nonzero(sent)) for sent in run.spikes.values())
    return found, spikes


@pytest.mark.parametrize("count", few_first([150, 600], 1))
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_spikes_potentials_and_synops_are_those_of_single_synapses(kind, count):
    found, spikes = compare(range(kind, count, len(KINDS)))
    assert found > count / 15 and spikes > 2.5 * count


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_those_of_thousands_of_networks_are_too():
    found, spikes = compare(range(600, 8000))
    assert found > 4000 and spikes > 100_000
