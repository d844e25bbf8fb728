"""Ranking of chips for a network, the best first.

Order: chips it fits, those with the smallest share used first; then chips of which too little is published to say; then
chips it does not fit, those with the fewest obstacles and the smallest excess first. By energy, a chip comes behind those whose
interval lies wholly below its own; chips whose intervals overlap are tied and keep that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from spear_deploy.budget.check import check
from spear_deploy.budget.core_rows import CHIP, TOGETHER, BudgetRow
from spear_deploy.budget.intervals import rank_by_overlap
from spear_deploy.budget.report import BudgetReport, Verdict
from spear_deploy.budget.unsupported import Unsupported
from spear_deploy.errors import DataError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import name_kind, name_layers
from spear_deploy.simulator import SpikeCounts
from spear_deploy.util.number_format import quantity
from spear_deploy.util.workers import Workers, map_jobs

NO_AMOUNTS = ("weight_bits", "bias_bits", "weight_palette", "delay", "refractory")
MAX_NAMES = 2
"""Layers whose names are bare numbers that stand in a row."""
RankKey: TypeAlias = Literal["fit", "energy"]
ORDER: dict[Verdict, int] = {"fits": 0, "unchecked": 1, "does_not_fit": 2}


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A chip with the report of a network on it.

    Attributes:
        profile: name of its profile, which several files may have.
        target: its number among the chips that were to be ranked, from 0.
        chip: as the caller named it: a profile, a file, or a board.
        share: used part of the scarcest resource, or None where no limit is published.
        scarcest: name and place of that resource.
        missing: obstacles, or what is not published, in words; the largest excess first.
        report: of the check.
        energy_rank: 1 + the number of chips that surely take less energy; None where nothing is known of it.
        reach: what an adaptation would replace, in words; "" where none helps or none is needed.
        adaptation: the same as plain data.
    """

    profile: str
    title: str
    share: float | None
    scarcest: str
    missing: tuple[str, ...]
    report: BudgetReport
    energy_rank: int | None = None
    target: int = 0
    chip: str = ""
    reach: str = ""
    adaptation: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """Return one line without the report, for notebooks and lists."""
        return f"Ranked({self.report.headline})"

    @property
    def verdict(self) -> Verdict:
        """Of the check."""
        return self.report.verdict

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, without the rows of `check`."""
        report = self.report
        return {
            "chip": self.chip or self.profile,
            "profile": self.profile,
            "title": self.title,
            "verdict": report.verdict,
            "headline": report.headline,
            "cores_used": report.cores_used,
            "cores_limit": report.cores_limit,
            "share": self.share,
            "scarcest": self.scarcest,
            "missing": list(self.missing),
            "synops": report.synops,
            "neuron_ops": report.neuron_ops,
            "energy": report.energy.to_json(),
            "energy_rank": self.energy_rank,
            "adaptation": self.adaptation,
            "latency_s": report.latency_s,
            "latency_interval_s": None if report.latency.interval is None else report.latency.interval.ends(),
            "latency_evidence": None if report.latency.interval is None else report.latency.interval.evidence,
        }


def rank(
    graph: SNNGraph,
    targets: Sequence[tuple[HardwareProfile, int]],
    *,
    activity: SpikeCounts | float | None = None,
    sort: RankKey = "fit",
    workers: Workers | None = None,
) -> list[Ranked]:
    """Check a network against each target and sort the reports.

    Args:
        graph: the network.
        targets: profiles, and how many chips of each.
        activity: as `budget.check` takes it.
        sort: "fit", or "energy": the energy of an inference before the share that is used.
        workers: where chips are checked at the same time; None: one after the other in this process.

    Raises:
        DataError: `sort` is neither, or energy is to be sorted without activity.
    """
    if sort not in get_args(RankKey):
        raise DataError(f"sort: '{sort}' given, expected one of {', '.join(get_args(RankKey))}")
    if sort == "energy" and activity is None:
        raise DataError("sort: 'energy' given without activity, which energy depends on; give a rate or spike counts")
    names = [f"check {profile.name}" for profile, _ in targets]
    checked: list[Ranked] = map_jobs(_check_one, targets, shared=(graph, activity), names=names, workers=workers)
    ranks = rank_by_overlap([entry.report.energy.interval for entry in checked])
    ranked = [replace(entry, target=n, energy_rank=ranks[n]) for n, entry in enumerate(checked)]

    def key(entry: Ranked) -> tuple[int, float, int, float, str]:
        share = float("inf") if entry.share is None else entry.share
        energy = 0.0 if sort == "fit" else float("inf") if entry.energy_rank is None else float(entry.energy_rank)
        return (ORDER[entry.verdict], energy, len(entry.report.unsupported), share, entry.profile)

    return sorted(ranked, key=key)


def _check_one(shared: tuple[SNNGraph, SpikeCounts | float | None], target: tuple[HardwareProfile, int]) -> Ranked:
    graph, activity = shared
    profile, chips = target
    return _rank_one(graph, check(graph, profile, chips=chips, activity=activity), profile)


def _rank_one(graph: SNNGraph, report: BudgetReport, profile: HardwareProfile) -> Ranked:
    scarcest = max(_amounts(report, profile), key=lambda row: row.share or 0.0, default=None)
    if report.verdict == "does_not_fit":
        over = sorted(report.over, key=lambda row: -(row.share or 0.0))
        missing = [f"{name_layers([finding.layer])}: {_name_obstacle(graph, finding)}" for finding in report.unsupported]
        missing += [
            f"{_place(row)}{'' if row.where == CHIP else ':'} {quantity(row.used, row.unit)} of {quantity(row.limit, row.unit)}"
            for row in over
        ]
    else:
        missing = [f"{row.resource.replace('_', ' ')} not published" for row in report.rows if row.status == "unchecked"]
    return Ranked(
        profile=profile.name,
        title=profile.meta.title,
        share=None if scarcest is None else scarcest.share,
        scarcest="" if scarcest is None else _place(scarcest),
        missing=tuple(dict.fromkeys(missing)),
        report=report,
    )


def _name_obstacle(graph: SNNGraph, finding: Unsupported) -> str:
    """Return what a chip lacks; a max pool of spikes, which is a SumPool here, by its name in frameworks."""
    kinds = (name_kind(layer) for layer in graph.layers if layer.name == finding.layer and finding.what == "SumPool")
    return next(kinds, finding.what)


def _amounts(report: BudgetReport, profile: HardwareProfile) -> list[BudgetRow]:
    """Return the rows that say how much of the chip is used.

    Where layers are cut until they fit, cores are full by design and their number tells; where a layer lies whole on a core, or
    layers share one, the fullest core does. Widths of weights, delays and the like are no amounts.
    """
    cut = profile.packing.rule.value != "whole" and not profile.packing.share_cores.value
    rows = [row for row in report.rows if row.share is not None and row.resource not in NO_AMOUNTS]
    return [row for row in rows if row.resource == "cores" or not cut]


def _place(row: BudgetRow) -> str:
    what = row.resource.replace("_", " ")
    return what if row.where == CHIP else f"{what} of {name_layers(row.layers, joint=TOGETHER, most=MAX_NAMES)}"
