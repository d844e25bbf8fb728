"""Bits of weights in the plans of a search of all levers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spear_deploy.network import CONVS, Dense
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import state_layer_bits
from spear_deploy.pruning.bits_choice import BitsChoice, can_choose_bits
from spear_deploy.pruning.candidates import Widths
from spear_deploy.pruning.fewer_bits import FLOORS, BitLimits, Bits, make_bit_limits
from spear_deploy.pruning.layer_bits import describe_choice
from spear_deploy.pruning.search.recipe_builder import RecipeBuilder
from spear_deploy.pruning.tune.rounded_learning import IntegerForm


@dataclass(frozen=True, kw_only=True)
class PlanBits:
    """Bits that the plans of one search may have.

    Attributes:
        limits: of memory and cores.
        recipe: by layer the bits that the limits ask for, at the least certainty lost by rounding.
        options: by layer the widths of a weight that may be taken.
        measured: rows of `BitsChoice`.
    """

    limits: BitLimits
    recipe: dict[str, int]
    options: dict[str, tuple[int, ...]]
    measured: tuple[dict[str, Any], ...]

    def keep_reachable(self, bits: Bits) -> dict[str, int]:
        """Return bits of a plan; no more than the recipe's, where not even one channel in each group is within the limits."""
        narrowest: Widths = (1,) * len(self.limits.evaluator.channels)
        if not self.limits.is_over(bits, narrowest):
            return dict(bits)
        return {name: min(width, self.recipe[name]) for name, width in bits.items()}

    def state(self, graph: SNNGraph, bits: Bits) -> SNNGraph:
        """Return a network that states the bits of a plan."""
        return state_layer_bits(graph, self.limits.list_stated(bits))

    def describe(self, bits: Mapping[str, int], episodes: int) -> BitsChoice:
        """Return the choice of bits after so many episodes."""
        return describe_choice(self.limits, bits, self.measured, episodes=episodes)


def choose_plan_bits(builder: RecipeBuilder, form: IntegerForm | None) -> PlanBits | None:
    """Return the bits of the recipe and those that plans may have.

    The fewest are 4, or 3 or 2 where no widths are within the limits with more.

    Args:
        builder: of the network before pruning.
        form: the chip's integers, where they can be learnt for.

    Returns:
        None where bits are no lever: it is not named, layers of the chip are alike, no limit of memory or cores is exceeded, or
        fewer bits save nothing.
    """
    evaluator, settings = builder.evaluator, builder.settings
    if form is None or evaluator.chip is None or not can_choose_bits(settings, evaluator.chip.profile):
        return None
    limits = make_bit_limits(evaluator, builder.limits, settings, form)
    if not limits.asks_for_fewer:
        return None
    graph, narrowest = evaluator.graph, (1,) * len(evaluator.channels)
    saved = {move: words for move, words in limits.list_moves().items() if isinstance(graph[move[0]].synapse, (Dense, *CONVS))}
    losses, measured = limits.measure_losses(saved, evaluator.checkpoint)
    for floor in FLOORS:
        bits = limits.reduce(saved, losses, floor)
        if not limits.is_over(bits, narrowest):
            break
    names = [name for name in limits.start if any(n == name and width >= floor for n, width in saved)]
    if not names:
        return None
    options = {name: (*sorted(width for n, width in saved if n == name and width >= floor), limits.start[name]) for name in names}
    return PlanBits(limits=limits, recipe={name: bits[name] for name in names}, options=options, measured=measured)
