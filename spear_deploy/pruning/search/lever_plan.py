"""Plans around a recipe: a width, a density and bits a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from spear_deploy.network import Array
from spear_deploy.pruning.candidates import Evaluator, Widths
from spear_deploy.pruning.tune.thin_weights import MAX_SHARE

WIDTH_SPAN, DENSITY_SPAN, BITS_SPAN = 0.5, 1.0, 1.0
"""Binary logarithms of the largest factors: widths from 0.7 to 1.4 times the recipe's, densities and bits from half to twice."""
Actions: TypeAlias = tuple[tuple[float, ...], ...]
"""Of each layer the numbers of `LeverSpace.levers`, each −1..1."""


@dataclass(frozen=True, kw_only=True)
class LeverPlan:
    """A plan of all levers.

    Attributes:
        widths: channels of each group.
        densities: share of its weights that each layer keeps; layers that are not named keep all.
        bits: of a weight by layer; layers that are not named keep theirs.
    """

    widths: Widths
    densities: Mapping[str, float]
    bits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LeverSpace:
    """The plans around a recipe.

    Attributes:
        evaluator: of the network before pruning.
        recipe: the plan of actions of zero.
        layers: whose factors are chosen, in the order of the network.
        levers: some of "width", "density" and "bits": what the numbers of an action are.
        bits: the widths of a weight that may be taken, by layer.
    """

    evaluator: Evaluator
    recipe: LeverPlan
    layers: tuple[str, ...]
    levers: tuple[str, ...]
    bits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def make_plan(self, actions: Sequence[Sequence[float]]) -> LeverPlan:
        """Return the plan of actions; layers behind the last action are as in the recipe."""
        widths, densities, bits = list(self.recipe.widths), dict(self.recipe.densities), dict(self.recipe.bits)
        places = {group.name: index for index, group in enumerate(self.evaluator.groups)}
        for name, action in zip(self.layers, actions, strict=False):
            factors = dict(zip(self.levers, action, strict=True))
            if name in places and "width" in factors:
                index = places[name]
                wide = widths[index] * 2 ** (WIDTH_SPAN * factors["width"])
                widths[index] = int(min(max(np.rint(wide), 1), self.evaluator.channels[index]))
            if name in densities and "density" in factors:
                dense = densities[name] * 2 ** (DENSITY_SPAN * factors["density"])
                densities[name] = float(min(max(dense, 1 - MAX_SHARE), 1.0))
            if name in self.bits and "bits" in factors:
                bits[name] = choose_nearest(self.bits[name], bits[name] * 2 ** (BITS_SPAN * factors["bits"]))
        return LeverPlan(widths=tuple(widths), densities=densities, bits=bits)

    def estimate(self, plan: LeverPlan) -> float:
        """Return the SynOps of a plan at the firing rates of the unpruned network."""
        by_layer = self.evaluator.estimate_by_layer(plan.widths)
        return sum(synops * plan.densities.get(name, 1.0) for name, synops in by_layer.items())


def choose_nearest(widths: Sequence[int], wanted: float) -> int:
    """Return the width of a weight whose ratio to a wanted one is nearest to 1, of equals the wider one.

    >>> choose_nearest((4, 5, 6, 8), 5.3), choose_nearest((4, 8), 1.0), choose_nearest((2, 8), 4.0)
    (5, 4, 8)
    """
    return min(widths, key=lambda width: (round(abs(np.log2(width / wanted)), 9), -width))


def list_layers(evaluator: Evaluator, densities: Mapping[str, float], bits: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the layers that a group is named after or that have a density or bits, in the order of the network."""
    named = {group.name for group in evaluator.groups} | set(densities) | set(bits)
    return tuple(layer.name for layer in evaluator.graph.layers if layer.name in named)


def remove_trend(values: Array) -> Array:
    """Return values less the line through them, by least squares; less their mean where there are fewer than three.

    >>> remove_trend(np.array([1.0, 2.0, 3.0])).round(9).tolist(), remove_trend(np.array([1.0, 3.0])).tolist()
    ([0.0, 0.0, 0.0], [-1.0, 1.0])
    """
    if len(values) < 3:
        return np.asarray(values - values.mean())
    numbers = np.arange(len(values)) - (len(values) - 1) / 2
    slope = (numbers @ values) / (numbers @ numbers)
    return np.asarray(values - values.mean() - slope * numbers)
