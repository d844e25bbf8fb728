"""Plans around a recipe: a width and a density a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from spear_deploy.network import Array
from spear_deploy.pruning.candidates import Evaluator, Widths
from spear_deploy.pruning.tune.thin_weights import MAX_SHARE

WIDTH_SPAN, DENSITY_SPAN = 0.5, 1.0
"""Binary logarithms of the largest factors: widths from 0.7 to 1.4 times the recipe's, densities from half to twice."""
Actions: TypeAlias = tuple[tuple[float, ...], ...]
"""Of each layer: width and density, or the only one of both that the search has; each −1..1."""


@dataclass(frozen=True, kw_only=True)
class LeverPlan:
    """A plan of all levers.

    Attributes:
        widths: channels of each group.
        densities: share of its weights that each layer keeps; layers that are not named keep all.
    """

    widths: Widths
    densities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LeverSpace:
    """The plans around a recipe.

    Attributes:
        evaluator: of the network before pruning.
        recipe: the plan of actions of zero.
        layers: whose factors are chosen, in the order of the network.
        levers: "width", "density" or both: what the numbers of an action are.
    """

    evaluator: Evaluator
    recipe: LeverPlan
    layers: tuple[str, ...]
    levers: tuple[str, ...]

    def make_plan(self, actions: Sequence[Sequence[float]]) -> LeverPlan:
        """Return the plan of actions; layers behind the last action are as in the recipe."""
        widths, densities = list(self.recipe.widths), dict(self.recipe.densities)
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
        return LeverPlan(widths=tuple(widths), densities=densities)

    def estimate(self, plan: LeverPlan) -> float:
        """Return the SynOps of a plan at the firing rates of the unpruned network."""
        by_layer = self.evaluator.estimate_by_layer(plan.widths)
        return sum(synops * plan.densities.get(name, 1.0) for name, synops in by_layer.items())


def list_layers(evaluator: Evaluator, densities: Mapping[str, float]) -> tuple[str, ...]:
    """Return the layers that a group is named after or that have a density, in the order of the network."""
    named = {group.name for group in evaluator.groups} | set(densities)
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
