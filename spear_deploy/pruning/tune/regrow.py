"""Which wider plan uses what a narrow one leaves over?

A plan is chosen before fine-tuning, by a prediction. Where fine-tuning shows that it leaves budget over, the plan grows in
its own proportions, from the network before pruning, and learns anew: more channels, not lower thresholds, make use of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning import chip_costs
from spear_deploy.pruning.budgets import ACTIVE
from spear_deploy.pruning.candidates import Scorer, Widths
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.importance import Criterion
from spear_deploy.pruning.search.projection import project


def wider(
    graph: SNNGraph,
    narrow: SNNGraph,
    factor: float,
    dataset: Dataset,
    *,
    limits: Mapping[str, float],
    criterion: Criterion = "l1",
    chip: ChipCosts | None = None,
    fit: bool = False,
) -> SNNGraph | None:
    """Return a plan of `graph` that by estimate takes `factor` times the SynOps of a narrow one, not fine-tuned yet.

    Args:
        graph: the network before pruning.
        narrow: a network pruned from it.
        factor: more than 1.
        dataset: re-estimates batch norm.
        limits: by resource; those of size hold for the wider plan too.
        criterion: of the channels that stay.
        chip: what gives cores and memory a meaning.
        fit: whether the chip's own limits hold too.

    Returns:
        None where one channel more in any group is too much.
    """
    scorer = Scorer(graph, dataset, criterion=criterion, chip=chip)
    now = tuple(len(narrow.metadata["kept_channels"][group.name]) for group in scorer.groups)
    most = factor * scorer.estimate(now)
    sizes = {name: limit for name, limit in limits.items() if name not in ACTIVE}

    def fits(widths: Widths) -> bool:
        if scorer.estimate(widths) > most or (sizes and chip_costs.excess(scorer.sizes(widths), sizes) > 1):
            return False
        return not (fit and chip is not None and chip.placed(widths)[1])

    ratios = [width / channels for width, channels in zip(now, scorer.channels, strict=True)]
    widths = project(ratios, scorer.channels, now, fits)
    return None if widths == now else scorer.candidate(widths)
