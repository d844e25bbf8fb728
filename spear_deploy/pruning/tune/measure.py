"""Is what will be deployed within its budgets, with a margin for chance, and how far off is it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spear_deploy.data import Dataset, Split
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE, OF_CHIP, Budgets
from spear_deploy.pruning.candidates import count_parameters
from spear_deploy.pruning.chip_costs import ChipCosts, excess, on_chip, told
from spear_deploy.training.evaluation import Evaluation, evaluate

Deployed = Callable[[SNNGraph, Split], tuple[SNNGraph, Split]]
"""Returns what will run of a floating-point network, e.g. its integers, and a split in the form that it takes."""


def itself(network: SNNGraph, split: Split) -> tuple[SNNGraph, Split]:
    """Return the network as it is: the form that runs in floating point."""
    return network, split


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is used of the budgets.

    Attributes:
        evaluation: on validation, of what will be deployed.
        values: by resource; None where it is not known.
        aims: by resource the limit less its margin, as validation measures it.
        over: the chip's own rows beyond their limit, in words.
        margin: relative, of what depends on spikes.
    """

    evaluation: Evaluation
    values: dict[str, float | None]
    aims: dict[str, float]
    over: str
    margin: float

    @property
    def active(self) -> float:
        """Largest use of what depends on spikes relative to its aim; 0 without such a budget."""
        return excess(self.values, {name: aim for name, aim in self.aims.items() if name in ACTIVE})

    @property
    def met(self) -> bool:
        """Whether all aims are kept."""
        return excess(self.values, self.aims) <= 1 and not self.over


class Aims:
    """The budgets of one network on one data set.

    Args:
        dense: the network before pruning; shares are relative to it, on the same samples.
        deployed: what will run of a network; of several forms the one that uses most counts. The network itself unless given.
        chip: where it goes.
    """

    def __init__(
        self,
        dense: SNNGraph,
        dataset: Dataset,
        budgets: Budgets,
        deployed: Sequence[Deployed] = (),
        chip: ChipCosts | None = None,
    ) -> None:
        self.dataset, self.budgets, self.chip = dataset, budgets, chip
        self.deployed = tuple(deployed) or (itself,)
        self.before = evaluate(dense, dataset.val)
        self.dense_values = self._values(dense, dense, self.before)
        self.limits = budgets.limits(self.dense_values)
        self.margin_note = ""

    def measure(self, network: SNNGraph) -> Measured:
        """Run what will be deployed of a network on validation, and hold it against the budgets."""
        return self._measure(network)[0]

    def _measure(self, network: SNNGraph) -> tuple[Measured, Deployed]:
        """Return the form of a network that uses most, and which it is."""
        found = [(self._held(network, form), form) for form in self.deployed]
        return max(found, key=lambda one: (bool(one[0].over), one[0].active))

    def _held(self, network: SNNGraph, form: Deployed) -> Measured:
        running, split = form(network, self.dataset.val)
        found = evaluate(running, split)
        values = self._values(network, running, found)
        relative = {name: limit.relative for name, limit in self.budgets.given().items()}
        margins = {name: self._margin(found, share) for name, share in relative.items() if name in ACTIVE}
        aims = {name: limit * (1 - margins.get(name, 0.0)) for name, limit in self.limits.items()}
        over = ""
        if self.budgets.fit and self.chip is not None:
            placed = on_chip(running, self.chip.profile, self.chip.chips)
            over = told(placed.placed(tuple(group.channels for group in placed.groups))[1])
        return Measured(evaluation=found, values=values, aims=aims, over=over, margin=max(margins.values(), default=0.0))

    def pooled(self, network: SNNGraph) -> Measured:
        """Do the same on validation and training samples together where that narrows the margin of an absolute budget.

        Training samples count only where their SynOps agree with those of validation.
        """
        found, form = self._measure(network)
        absolute = [name for name, limit in self.budgets.given().items() if name in ACTIVE and not limit.relative]
        if absolute != ["synops"]:
            return found
        running, split = form(network, self.dataset.train)
        learnt = evaluate(running, split).synops_per_sample
        own = found.evaluation.synops_per_sample
        if not agree(own, learnt):
            self.margin_note = "SynOps of training and validation differ, so validation alone was measured"
            return found
        both, labels = np.concatenate([own, learnt]), np.concatenate([self.dataset.val.y, self.dataset.train.y])
        narrow = margin(both, labels, len(self.dataset.test))
        values = {**found.values, "synops": float(both.mean())}
        aims = {**found.aims, "synops": self.limits["synops"] * (1 - narrow)}
        return Measured(evaluation=found.evaluation, values=values, aims=aims, over=found.over, margin=narrow)

    def _margin(self, found: Evaluation, relative: bool) -> float:
        before = self.before.synops_per_sample if relative else None
        return margin(found.synops_per_sample, self.dataset.val.y, len(self.dataset.test), before=before)

    def _values(self, network: SNNGraph, running: SNNGraph, found: Evaluation) -> dict[str, float | None]:
        values: dict[str, float | None] = {"synops": found.synops.total, "parameters": float(count_parameters(network))}
        if self.chip is None or not any(name in OF_CHIP for name in self.budgets.given()):
            return values
        placed = on_chip(running, self.chip.profile, self.chip.chips)
        widths = tuple(group.channels for group in placed.groups)
        return {**values, **placed.sizes(widths), **placed.activity(running, widths, found.counts)}


def facts(limits: Mapping[str, float], measured: Measured) -> dict[str, dict[str, float | bool | None]]:
    """Return by resource budget, aim, use and whether it is met, as plain data."""
    rows: dict[str, dict[str, float | bool | None]] = {}
    for name, limit in limits.items():
        value, aim = measured.values[name], measured.aims[name]
        rows[name] = {"budget": limit, "aim": aim, "used": value, "met": value is not None and value <= aim}
    return rows


# FOLDED from spear_deploy/pruning/tune/measure.py
# How far may the SynOps of unseen samples lie above those measured, by chance?
#
# A budget in per cent is a ratio to the network before pruning *on the same samples*. Samples that are dear for one network are
# dear for the other, so the ratio of the means spreads far less than a mean does (the ratio estimator of survey sampling):
#
#     R = Σ s_i / Σ d_i          s_i, d_i: SynOps of sample i, pruned and before
#     e_i = s_i − R · d_i
#     margin = SIGMAS · std(e) / mean(s) · sqrt(1 / measured + 1 / unseen)
#
# An absolute budget has d_i = 1, and the same formula gives the spread of a mean. Splits have their classes in equal shares, so
# that differences between classes do not count: std(e) is that within classes.

SIGMAS = 4.0
"""Margin in standard errors. Beyond three lies one unseen split in 700 by chance alone; but networks are also chosen and trimmed
on the samples that are measured, and where validation and test come from two sources, as MNIST's do, they differ by more than
chance: with three, one of 52 networks of the search benchmark took 0.07 % more than its budget on the test split."""
MOST = 0.5


def margin(pruned: Array, labels: Array, unseen: int, *, before: Array | None = None) -> float:
    """Return how much, relatively, the mean SynOps of `unseen` samples (or their ratio) may exceed those measured.

    Args:
        pruned: SynOps of each measured sample, (N,).
        labels: (N,) classes of the samples.
        unseen: how many samples the budget will be held against.
        before: SynOps of the same samples in the network before pruning, for a relative budget.
    """
    base = np.ones(len(pruned)) if before is None else before
    mean = max(float(pruned.mean()), 1e-12)
    residual = pruned - float(pruned.sum() / max(base.sum(), 1e-12)) * base
    classes = np.unique(labels)
    within = sum(float(np.sum((residual[labels == c] - residual[labels == c].mean()) ** 2)) for c in classes)
    spread = np.sqrt(within / max(len(labels) - len(classes), 1))
    return float(min(MOST, SIGMAS * spread / mean * np.sqrt(1 / len(labels) + 1 / unseen)))


def agree(one: Array, other: Array, *, sigmas: float = 2.0) -> bool:
    """Say whether two sets of samples may have the same mean, within so many standard errors.

    >>> agree(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5, 2.0])), agree(np.array([1.0, 1.1]), np.array([9.0, 9.1]))
    (True, False)
    """
    error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    return bool(abs(one.mean() - other.mean()) <= sigmas * error)
