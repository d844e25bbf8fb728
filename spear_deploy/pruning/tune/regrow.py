"""Wider plans for a budget that a narrow plan leaves unused.

A plan is chosen before fine-tuning, by a prediction. Where fine-tuning shows that it leaves budget unused, the plan grows
in its own proportions, from the network before pruning, and learns again: more channels use the budget, not lower thresholds.
"""

from __future__ import annotations

from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE
from spear_deploy.pruning.candidates import Evaluator, Widths
from spear_deploy.pruning.chip_costs import max_use
from spear_deploy.pruning.importance import Criterion
from spear_deploy.pruning.search.projection import project_ratios
from spear_deploy.pruning.tune.measure import BudgetMonitor


def widen_plan(
    graph: SNNGraph,
    narrow: SNNGraph,
    factor: float,
    dataset: Dataset,
    *,
    monitor: BudgetMonitor | None = None,
    criterion: Criterion = "l1",
) -> SNNGraph | None:
    """Return a plan of `graph` that by estimate takes `factor` times the SynOps of a narrow one, not fine-tuned yet.

    Args:
        graph: the network before pruning.
        narrow: a network pruned from it.
        factor: more than 1.
        dataset: re-estimates batch norm.
        monitor: whose limits of size, and of the chip where they are part of the budgets, hold for the wider plan too.
        criterion: importance of the channels that stay.

    Returns:
        None where one channel more in any group is too much.
    """
    chip = None if monitor is None else monitor.chip
    evaluator = Evaluator(graph, dataset, criterion=criterion, chip=chip)
    before = tuple(len(narrow.metadata["kept_channels"][group.name]) for group in evaluator.groups)
    max_synops = factor * evaluator.estimate(before)
    sizes = {name: limit for name, limit in monitor.limits.items() if name not in ACTIVE} if monitor else {}
    fit = monitor is not None and monitor.budgets.fit

    def fits(widths: Widths) -> bool:
        if evaluator.estimate(widths) > max_synops or (sizes and max_use(evaluator.sizes(widths), sizes) > 1):
            return False
        return not (fit and chip is not None and chip.place(widths)[1])

    ratios = [width / channels for width, channels in zip(before, evaluator.channels, strict=True)]
    widths = project_ratios(ratios, evaluator.channels, before, fits)
    return None if widths == before else evaluator.build(widths)
