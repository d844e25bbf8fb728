"""Use of the budgets by a network, with a margin for chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from spear_deploy.data import Dataset, Split
from spear_deploy.data.labels import choose_strata
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE, OF_CHIP, Budgets
from spear_deploy.pruning.candidates import count_parameters
from spear_deploy.pruning.chip_costs import ChipCosts, build_chip_costs, build_measured_costs, describe_rows, max_use
from spear_deploy.pruning.tune.margins import (
    POOLED_SIGMAS,
    SOURCE_DRIFT,
    difference_score,
    ratio_residuals,
    sampling_margin,
)
from spear_deploy.training.evaluation import Evaluation, evaluate

DeployedForm: TypeAlias = Callable[[SNNGraph, Split], tuple[SNNGraph, Split]]
"""(floating-point network, split) → (the network that will run, e.g. its integers; the split in the form that it takes)."""
DOUBT = (1.0, 2.0)
"""Standard errors by which validation has more SynOps than training, between which validation alone begins to count."""
AGREEMENT = 4.0
"""Standard errors by which training samples may have more SynOps than validation and still count."""
TRAINING_SAMPLES = 4096
"""Maximum of training samples that narrow the margin; more hardly narrow it, since the unseen samples stay as many."""


def deploy_float(network: SNNGraph, split: Split) -> tuple[SNNGraph, Split]:
    """Return network and split as they are: the form that runs in floating point."""
    return network, split


@dataclass(frozen=True, kw_only=True)
class BudgetUse:
    """Use of the budgets by a network.

    Attributes:
        evaluation: of the deployed form on validation.
        values: use by resource, in its unit; None where it is not known.
        aims: by resource the limit less its margin, as validation measures it.
        over: the chip's own limits that are exceeded, as text.
        margin: relative, of what depends on spikes.
        measured_on: the samples that `values` come from, in words.
    """

    evaluation: Evaluation
    values: dict[str, float | None]
    aims: dict[str, float]
    over: str
    margin: float
    measured_on: str = "validation"

    @property
    def active_use(self) -> float:
        """Largest use of an aim that depends on spikes, value / aim; 0 without such a budget."""
        return max_use(self.values, {name: aim for name, aim in self.aims.items() if name in ACTIVE})

    @property
    def met(self) -> bool:
        """Whether all aims are kept."""
        return max_use(self.values, self.aims) <= 1 and not self.over


class BudgetMonitor:
    """Measures the use of the budgets of one network on one data set.

    Args:
        dense: the network before pruning; shares are relative to its use on the same samples.
        dataset: measured on `val`; of `test` only the number of samples is used. The network before pruning runs on all time
            steps, where it has fewer.
        budgets: the limits.
        deployed: forms of a network that will run; the one that uses most counts. The network itself unless given.
        chip: defines cores, memory, energy and latency.

    Attributes:
        dense_evaluation: of the network before pruning on validation.
        limits: by resource, in its unit.
        margin_note: a sentence where training samples could not narrow the margin.
    """

    def __init__(
        self,
        dense: SNNGraph,
        dataset: Dataset,
        budgets: Budgets,
        deployed: Sequence[DeployedForm] = (),
        chip: ChipCosts | None = None,
    ) -> None:
        self.dense, self.dataset, self.budgets, self.chip = dense, dataset, budgets, chip
        self.deployed = tuple(deployed) or (deploy_float,)
        self.dense_evaluation = evaluate(dense, dataset.trained.val)
        self.limits = budgets.resolve(self._values(dense, dense, self.dense_evaluation))
        self.margin_note = ""

    def measure(self, network: SNNGraph) -> BudgetUse:
        """Run the deployed forms of a network on validation, and return the use of the one that uses most.

        Samples with groups are measured as by `measure_with_training`: the few groups of validation alone have so wide a margin
        that a network would learn for a fraction of its budget.
        """
        return self._measure_forms(network)[0] if self.dataset.val.group is None else self.measure_with_training(network)

    def _measure_forms(self, network: SNNGraph) -> tuple[BudgetUse, DeployedForm]:
        """Return the use of the form that uses most, with the sizes of the largest form, and that form."""
        uses = [(self._measure_form(network, form), form) for form in self.deployed]
        use, form = max(uses, key=lambda pair: (bool(pair[0].over), pair[0].active_use))
        sizes: dict[str, float] = {}
        for name in set(use.values) - set(ACTIVE):
            known = [value for other, _ in uses if (value := other.values[name]) is not None]
            sizes |= {name: max(known)} if known else {}
        return replace(use, values={**use.values, **sizes}), form

    def _measure_form(self, network: SNNGraph, form: DeployedForm) -> BudgetUse:
        running, split = form(network, self.dataset.val)
        evaluation = evaluate(running, split)
        margins = {}
        for name, amount in self.budgets.amounts.items():
            if name in ACTIVE:
                before = self.dense_evaluation.synops_per_sample if amount.relative else None
                margins[name] = sampling_margin(
                    evaluation.synops_per_sample, choose_strata(self.dataset.val.y), len(self.dataset.test), before=before,
                    groups=pair_groups(self.dataset.val.group, self.dataset.test.group),
                )  # fmt: skip
        over = ""
        if self.budgets.fit and self.chip is not None:
            costs = build_chip_costs(running, self.chip.profile, self.chip.chips)
            over = describe_rows(costs.place(tuple(group.channels for group in costs.groups))[1])
        return BudgetUse(
            evaluation=evaluation,
            values=self._values(network, running, evaluation),
            aims={name: limit * (1 - margins.get(name, 0.0)) for name, limit in self.limits.items()},
            over=over,
            margin=max(margins.values(), default=0.0),
        )

    def measure_with_training(self, network: SNNGraph) -> BudgetUse:
        """Measure on validation and training samples together, where that narrows the margin of a SynOps budget.

        A network is trimmed on what is measured, and its training samples may have a little less than unseen ones. So they count
        as far as their SynOps, for a share their ratio to the network before pruning, are no less than those of validation:

            z = (validation − training) / its standard error
            doubt = 0 up to z = 1, rising to 1 at z = 2
            use, margin = (1 − doubt) · those of all samples + doubt · those of validation

        Without jumps, so that the last adjustments reach any use. Training samples of far more SynOps do not count either.
        """
        use, form = self._measure_forms(network)
        active = [name for name in self.budgets.amounts if name in ACTIVE]
        if active != ["synops"]:
            return use
        training = self.dataset.train.head(TRAINING_SAMPLES)
        fresh, seen = use.evaluation.synops_per_sample, evaluate(*form(network, training)).synops_per_sample
        bases: tuple[Array, Array] | None = None
        if self.budgets.amounts["synops"].relative:
            bases = (self.dense_evaluation.synops_per_sample, self._dense_training_synops)
        residuals = (fresh, seen) if bases is None else ratio_residuals((fresh, seen), bases)
        groups = pair_groups(self.dataset.val.group, training.group)
        score = difference_score(*residuals, groups)
        doubt = float(np.clip((score - DOUBT[0]) / (DOUBT[1] - DOUBT[0]), 0.0, 1.0))
        self.margin_note = ""
        if doubt == 1 or score < -AGREEMENT:
            self.margin_note = "SynOps of training and validation differ, so validation alone was measured"
            return use
        pooled, labels = np.concatenate([fresh, seen]), choose_strata(np.concatenate([self.dataset.val.y, training.y]))
        before = np.ones(len(pooled)) if bases is None else np.concatenate(bases)
        margin = sampling_margin(
            pooled, labels, len(self.dataset.test), before=before, sigmas=POOLED_SIGMAS, drift=SOURCE_DRIFT,
            groups=pair_groups(None if groups is None else np.concatenate(groups), self.dataset.test.group),
        )  # fmt: skip
        if margin >= use.margin:
            return use
        mean = float(pooled.sum() / before.sum() * before[: len(fresh)].mean())
        value, margin = (
            (1 - doubt) * all_samples + doubt * alone
            for all_samples, alone in ((mean, float(fresh.mean())), (margin, use.margin))
        )
        values, aims = {**use.values, "synops": value}, {**use.aims, "synops": self.limits["synops"] * (1 - margin)}
        return replace(use, values=values, aims=aims, margin=margin, measured_on="validation and training")

    @cached_property
    def _dense_training_synops(self) -> Array:
        """SynOps of each training sample in the network before pruning."""
        return evaluate(self.dense, self.dataset.trained.train.head(TRAINING_SAMPLES)).synops_per_sample

    def _values(self, network: SNNGraph, running: SNNGraph, evaluation: Evaluation) -> dict[str, float | None]:
        return measure_values(network, running, evaluation, self.budgets, self.chip)


def measure_values(
    network: SNNGraph, running: SNNGraph, evaluation: Evaluation, budgets: Budgets, chip: ChipCosts | None
) -> dict[str, float | None]:
    """Return the use by resource: parameters of a network, the rest of the deployed form that runs."""
    values: dict[str, float | None] = {"synops": evaluation.synops.total, "parameters": float(count_parameters(network))}
    if chip is None or not any(name in OF_CHIP for name in budgets.amounts):
        return values
    costs = build_measured_costs(running, chip.profile, chip.chips)
    widths = tuple(group.channels for group in costs.groups)
    return {**values, **costs.sizes(widths), **costs.activity(running, widths, evaluation.counts)}


def measure_unseen(
    dense: tuple[SNNGraph, Evaluation],
    pruned: SNNGraph,
    forms: Sequence[tuple[SNNGraph, Evaluation]],
    budgets: Budgets,
    chip: ChipCosts,
) -> dict[str, dict[str, Any]]:
    """Return the limit on unseen samples, the largest use of the deployed forms, and whether it is within, as plain data.

    Only resources that depend on spikes; a share is one of the use of the network before pruning on these samples.

    Args:
        dense: the network before pruning, and its evaluation on the samples.
        pruned: the pruned network.
        forms: its deployed forms, each with its evaluation on the samples.
        budgets: the limits.
        chip: defines energy, latency and load of a step.
    """
    limits = budgets.resolve(measure_values(dense[0], *dense, budgets, chip))
    uses = [measure_values(pruned, *form, budgets, chip) for form in forms]
    rows: dict[str, dict[str, Any]] = {}
    for name in (name for name in limits if name in ACTIVE):
        known = [value for use in uses if (value := use[name]) is not None]
        used = max(known) if len(known) == len(uses) else None
        rows[name] = {"budget": limits[name], "used": used, "met": used is not None and used <= limits[name]}
    return rows


def pair_groups(first: Array | None, second: Array | None) -> tuple[Array, Array] | None:
    """Return the groups of two sets of samples, None where the samples have none."""
    return None if first is None or second is None else (first, second)


def list_budget_rows(limits: Mapping[str, float], use: BudgetUse) -> dict[str, dict[str, Any]]:
    """Return budget, aim, use, the samples it was measured on and whether it is met by resource, as plain data."""
    rows: dict[str, dict[str, Any]] = {}
    for name, limit in limits.items():
        value, aim = use.values[name], use.aims[name]
        met = value is not None and value <= aim
        rows[name] = {"budget": limit, "aim": aim, "used": value, "met": met, "measured_on": use.measured_on}
    return rows
