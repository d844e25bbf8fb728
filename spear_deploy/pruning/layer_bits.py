"""Bits of weights by layer, chosen by short learning where a limit of memory is exceeded.

Bits that the limits ask for (`fewer_bits`), down to 4, are a second candidate beside the one without fewer bits; channels,
uniformly narrower, do the rest in each. Both learn for the same number of batches, the last of them with the chip's rounding, and
the more certain on validation is taken. What is learnt here is dropped. Bits go down to 3, then to 2, only where neither
candidate is within the limits. Where bits are the only lever, the most bits by layer within the limits are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.layer_bits import state_layer_bits
from spear_deploy.pruning.bits_choice import BitsChoice
from spear_deploy.pruning.budgets import refuse_budget
from spear_deploy.pruning.candidates import Checkpoint, Evaluator, Widths
from spear_deploy.pruning.chip_costs import ChipCosts, describe_rows
from spear_deploy.pruning.fewer_bits import FLOORS, BitLimits, Bits, Moves, make_bit_limits
from spear_deploy.pruning.levers import are_bits_alone
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.short_learning import PEAK, ROUNDED_PEAK, make_short_recipe
from spear_deploy.pruning.tune.measure import BudgetMonitor
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.training.fit import fit
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe
from spear_deploy.training.threads import limit_threads
from spear_deploy.util.digests import hash_value
from spear_deploy.util.progress import Progress

BATCHES, ROUNDED_BATCHES = 60, 30
"""Batches that a candidate learns from in floating point, and then with the chip's rounding."""


def choose_layer_bits(
    graph: SNNGraph,
    monitor: BudgetMonitor,
    form: IntegerForm,
    chip: ChipCosts,
    settings: PruneSettings,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> BitsChoice | None:
    """Choose fewer bits for some layers where a budget of memory or cores, or the chip's own limit of these, is exceeded.

    Args:
        graph: the network before pruning, floating point.
        monitor: holds the limits and the dataset.
        form: the chip's integers.
        chip: the network placed on the chip, whose layers may differ in their widths.
        settings: levers, seed and device.
        checkpoint: a file in which measurements are kept.
        progress: is called after each candidate.

    Returns:
        None where no limit of memory or cores is exceeded, fewer bits save nothing, or no candidate is within the limits.

    Raises:
        BudgetError: bits are the only lever, and the fewest are not within the limits.
    """
    with limit_threads(graph, learns=True):
        evaluator = Evaluator(graph, monitor.dataset, chip=chip, device=settings.search_settings.device)
        limits = make_bit_limits(evaluator, monitor.limits, settings, form)
        if not limits.asks_for_fewer:
            return None
        saved = limits.list_moves()
        digest = [hash_network(graph), hash_dataset(monitor.dataset), hash_profile(chip.profile)]
        kept = Checkpoint(checkpoint, "" if checkpoint is None else hash_value(digest))
        kept.begin()
        losses, measured = limits.measure_losses(saved, kept)
        if are_bits_alone(settings.levers):
            return describe_choice(limits, take_least_bits(limits, saved, losses), measured)
        plans = list_candidates(limits, saved, losses)
        trial = _Trial(limits, monitor.limits.get("synops"))
        rows = []
        for done, (bits, widths) in enumerate(plans, 1):
            fewer = limits.list_stated(bits)
            parts = f"{sorted(fewer.items())} widths {list(widths)} batches {BATCHES} {ROUNDED_BATCHES} seed {settings.seed}"
            key = f"bits {parts}{settings.rate_key}"
            row = kept.get(key, lambda fewer=fewer, widths=widths: trial.learn(fewer, widths))  # type: ignore[misc]
            rows.append({"bits": fewer, "widths": list(widths), **row})
            if progress is not None:
                best = max(row["accuracy"] for row in rows)
                progress({"stage": "bits", "done": done, "of": len(plans), "accuracy": best})
        if all(row["bits"] == limits.stated for row in rows):
            return None
        return describe_choice(limits, max(rows, key=lambda row: row["certainty"])["bits"], measured, tuple(rows))


def describe_choice(
    limits: BitLimits, bits: Bits, measured: tuple[dict[str, Any], ...], candidates: tuple[dict[str, Any], ...] = (),
    episodes: int = 0,
) -> BitsChoice:  # fmt: skip
    """Return the choice of bits, with the words that they save with all channels."""
    words = [limits.count_words(each, limits.evaluator.channels) for each in (limits.start, bits)]
    return BitsChoice(
        bits=limits.list_stated(bits), default=limits.default, words=(words[0], words[1]), measured=measured,
        candidates=candidates, episodes=episodes, stated=limits.stated,
    )  # fmt: skip


def list_candidates(limits: BitLimits, saved: Moves, losses: Moves) -> list[tuple[dict[str, int], Widths]]:
    """Return bits by layer and widths of each candidate within the limits; fewer bits have to leave more channels."""
    found: list[tuple[dict[str, int], Widths]] = []
    for floor in (None, *FLOORS):
        if floor in FLOORS[1:] and found:
            break
        bits = limits.reduce(saved, losses, floor)
        widths = limits.project(lambda widths, bits=bits: not limits.is_over(bits, widths))  # type: ignore[misc]
        if not limits.is_over(bits, widths) and all(sum(widths) > sum(others) for _, others in found):
            found.append((bits, widths))
    return found


def take_least_bits(limits: BitLimits, saved: Moves, losses: Moves) -> dict[str, int]:
    """Return bits with which all channels are within the limits, of the highest floor that has some.

    Raises:
        BudgetError: there are none; names what the fewest bits leave.
    """
    bits: Bits = limits.start
    for floor in FLOORS:
        bits = limits.reduce(saved, losses, floor)
        if not limits.is_over(bits):
            return limits.list_stated(bits)
    channels = limits.evaluator.channels
    sizes = limits.place(bits).sizes(channels)
    for name, limit in limits.limits.items():
        least = sizes[name]
        if least is not None and least > limit:
            others = ", or let channels go too (`--levers channels,bits`)"
            raise refuse_budget(name, limit, least, "the fewest bits of this chip leave with all channels", others)
    raise BudgetError(
        f"chip '{limits.chip.profile.name}': the network does not fit with the fewest bits and all channels "
        f"({describe_rows(limits.place(bits).place(channels)[1])}); let channels go too (`--levers channels,bits`)"
    )


@dataclass
class _Trial:
    """Short learning of the candidates of one choice.

    Attributes:
        limits: of the network before pruning.
        synops: the budget per inference; None without one.
    """

    limits: BitLimits
    synops: float | None

    def learn(self, bits: Mapping[str, int], widths: Widths) -> dict[str, Any]:
        """Let a candidate learn, at last with the chip's rounding, and return what it measures on validation."""
        settings, evaluator = self.limits.settings, self.limits.evaluator
        dataset = evaluator.dataset

        def make_recipe(batches: int, peak: float) -> Recipe:
            return make_short_recipe(
                batches, len(dataset.train), peak=settings.rate_scale * peak, seed=settings.seed, synops_budget=self.synops,
                keeps_zeros=True, device=settings.search_settings.device,
            )  # fmt: skip

        start = evaluator.build(widths, state_layer_bits(evaluator.graph, bits))
        first = fit(start, dataset, make_recipe(BATCHES, PEAK), hints=self._hints)
        rounding = self.limits.form.rounding
        second = fit(first.graph, dataset, make_recipe(ROUNDED_BATCHES, ROUNDED_PEAK), hints=self._hints, rounding=rounding)
        assert second.last is not None  # it was not interrupted
        batches = first.batches + second.batches
        return {"accuracy": second.last.accuracy, "certainty": second.last.certainty, "batches": batches}

    @cached_property
    def _hints(self) -> Array:
        return score_outputs(self.limits.evaluator.graph, self.limits.evaluator.dataset.trained.train)
