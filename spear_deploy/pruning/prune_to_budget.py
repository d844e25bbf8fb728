"""How do the budgets hold after fine-tuning, on data that nobody has seen?

    search ─► fine-tune with a price on SynOps ─► measure ─► above the aim? lower the target, trim channels ─┐
                     ▲                               ▲───────────────────── learn on, shorter ◄──────────────┤
                     └── a wider plan ◄───────────────────────────────────────────────── far below the aim? ─┘
                                                  close ─► last exact trim

The aim is the budget less what validation and test may differ by chance. What is measured may be another network than
the one that learns, e.g. its integer form: `deployed` says what counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.network.channel_groups import coupled_groups
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE, Amount, Budgets, amount, words
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.importance import Criterion
from spear_deploy.pruning.plan import PruningPlan
from spear_deploy.pruning.search.search import SearchResult, search
from spear_deploy.pruning.search.settings import DEFAULT_METHOD, SearchSettings, settings_for
from spear_deploy.pruning.tune.fine_tuning import Tuning
from spear_deploy.pruning.tune.measure import Aims, Deployed, Measured, facts
from spear_deploy.pruning.tune.regrow import wider
from spear_deploy.training.evaluation import Evaluation
from spear_deploy.util.progress import Progress

REACH = 0.1
"""A plan may be predicted 10 % above the budget: fine-tuning takes that down, and unused budget is lost accuracy."""
EPOCHS = 40
PROMISE = 0.02
"""Share of a SynOps budget that should at most stay unused; where it may be more, a note says so."""


@dataclass(frozen=True, kw_only=True)
class PrunedResult:
    """A network that is pruned and fine-tuned to budgets.

    Attributes:
        graph: the network.
        plan: channels that stay, in the numbering of the given network.
        widths: {group: [channels before, after]}.
        budgets: by resource its budget, aim (the budget less its margin; what validation was held to), use on validation, and
            whether it is met.
        synops: measured on validation.
        accuracy: on validation, 0..1.
        margin: relative, of what depends on spikes.
        met: whether all budgets hold with their margin, and the chip's own limits where those were asked for.
        search: how the plan was found; None where the network was within the budgets as it was.
        history: a row an epoch of fine-tuning.
        notes: sentences on what was assumed or could not be met.
        seconds: wall time by part.
        interrupted: whether search or fine-tuning was cut short.
    """

    graph: SNNGraph
    plan: PruningPlan
    widths: dict[str, list[int]]
    budgets: dict[str, dict[str, Any]]
    synops: float
    accuracy: float
    margin: float
    met: bool
    search: SearchResult | None
    history: tuple[dict[str, Any], ...] = ()
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def budget(self) -> float | None:
        """SynOps per inference, as validation measures it."""
        return self.budgets["synops"]["budget"] if "synops" in self.budgets else None

    @property
    def aim(self) -> float | None:
        """The SynOps that validation was held to."""
        return self.budgets["synops"]["aim"] if "synops" in self.budgets else None

    @property
    def unused(self) -> float | None:
        """Share of the SynOps budget that is not used."""
        return None if self.budget is None else 1 - self.synops / self.budget

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as plain data."""
        found = self.search
        estimator = found.estimator if found else None
        return {
            "budget": self.budget,
            "aim": self.aim,
            "synops": self.synops,
            "unused": self.unused,
            "met": self.met,
            "margin": self.margin,
            "budgets": self.budgets,
            "accuracy": self.accuracy,
            "widths": self.widths,
            "plan": self.plan.to_json(),
            "method": found.method if found else None,
            "evaluations": found.evaluations if found else 0,
            "interrupted": self.interrupted,
            "lre": None if estimator is None else {"kind": type(estimator).__name__.lower(), **estimator.to_json()},
            "search": list(found.history) if found else [],
            "rungs": list(found.rungs) if found else [],
            "fine_tune": list(self.history),
            "notes": self.notes,
            "seconds": self.seconds,
        }


def prune_to_budget(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    synops_budget: str | float | None = None,
    budgets: Budgets | None = None,
    method: str = DEFAULT_METHOD,
    episodes: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    settings: SearchSettings | None = None,
    deployed: Sequence[Deployed] = (),
    chip: ChipCosts | None = None,
    checkpoint: Path | None = None,
    found: SearchResult | None = None,
    progress: Progress | None = None,
) -> PrunedResult:
    """Prune a trained network and fine-tune it so that it keeps its budgets on unseen data.

    Args:
        graph: a trained floating-point network.
        dataset: learns from `train`, chooses and measures by `val`; of `test` only the number of samples is used.
        synops_budget: SynOps per inference that the mean over the test split must not exceed, or a share ("50%") of what the
            given network needs on the same samples; short for `budgets`.
        budgets: several limits at once.
        method, episodes, settings, chip, checkpoint: of the search; `settings.reach` is set to what the closed loop takes
            down.
        epochs: of the first fine-tuning, 40 unless given; up to four thirds more are added while a budget does not hold.
        seed: of everything random.
        deployed: each returns what will run of a network; of several forms the one that uses most is held to the budgets. The
            network itself unless given.
        found: of `search_front`, to tune what was found already.
        progress: is told after each evaluation and epoch; and, as `note`, at once what makes this pruning doubtful.

    Ctrl-C during the search ends it, fine-tuning goes on with the best plan so far; Ctrl-C during fine-tuning ends that, and
    the best network so far is trimmed to the budget.

    Raises:
        BudgetError: a budget is below what the narrowest network needs.
    """
    budgets = budgets or Budgets(synops=_synops(synops_budget))
    begin = time.perf_counter()
    aims = Aims(graph, dataset, budgets, deployed, chip)
    notes = doubts(graph, aims.before, dataset.classes)
    if progress is not None:
        for note in notes:
            progress({"stage": "doubts", "note": note, "done": 0, "of": 0})
    sizes = {group.name: group.channels for group in coupled_groups(graph)}
    before = aims.measure(graph)
    if before.met:
        whole = PruningPlan(kept={name: tuple(range(n)) for name, n in sizes.items()})
        notes.append("the network is within the budget as it is: nothing was changed")
        return _result(graph, whole, sizes, aims, before, None, notes=notes)
    if found is None:
        found = search(
            graph, dataset, budgets=budgets, method=method, episodes=episodes, seed=seed, settings=for_tuning(method, settings),
            chip=chip, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
    begun = time.perf_counter()
    criterion = (settings or settings_for(method)).criterion
    widen = partial(_widened, graph, dataset, aims, criterion)
    tuning = Tuning(found.graph, graph, dataset, aims, widen, seed, progress)
    tuning.run(epochs or EPOCHS)
    notes += [*_told_interrupted(found, tuning), *tuning.notes, *_told_margin(aims, tuning.measured)]
    seconds = {**found.seconds, "fine_tune": time.perf_counter() - begun, "prune": time.perf_counter() - begin}
    plan = PruningPlan(kept=_kept_of(graph, tuning.graph, found.plan))
    return _result(
        tuning.graph, plan, sizes, aims, tuning.measured, found, history=tuning.history, notes=notes, seconds=seconds,
        interrupted=found.interrupted or tuning.interrupted,
    )  # fmt: skip


def _widened(
    graph: SNNGraph, dataset: Dataset, aims: Aims, criterion: Criterion, narrow: SNNGraph, factor: float
) -> SNNGraph | None:
    how: dict[str, Any] = {"chip": aims.chip, "fit": aims.budgets.fit, "criterion": criterion}
    return wider(graph, narrow, factor, dataset, limits=aims.limits, **how)


def for_tuning(method: str, settings: SearchSettings | None = None) -> SearchSettings:
    """Return the settings of a search whose plans the closed loop takes down to the budget."""
    return replace(settings or settings_for(method), confidence=0.0, reach=REACH)


def _synops(wanted: str | float | None) -> Amount | None:
    return None if wanted is None else amount(wanted, "synops")


def _told_interrupted(found: SearchResult, tuning: Tuning) -> list[str]:
    notes = []
    if found.interrupted:
        notes.append(f"the search was interrupted after {len(found.history)} plans; the best of them was taken")
    if tuning.interrupted:
        notes.append(f"fine-tuning was interrupted after {len(tuning.history)} epochs; the best network so far was taken")
    return notes


def _told_margin(aims: Aims, measured: Measured) -> list[str]:
    """State the margin where it may leave more of the budget unused than is promised: unseen samples may be cheap as well."""
    notes = [aims.margin_note] if aims.margin_note else []
    if 2 * measured.margin > PROMISE:
        active = {name: limit for name, limit in aims.budgets.given().items() if name in ACTIVE}
        relative = all(limit.relative for limit in active.values())
        names, narrower = ", ".join(map(words, active)), "" if relative else ", or a budget in per cent,"
        notes.append(
            f"the {names} budget is kept with a margin of {measured.margin:.1%}, by which unseen samples may differ by chance, "
            f"so up to {2 * measured.margin:.1%} of it may stay unused; more validation samples{narrower} would narrow that"
        )
    return notes


def _kept_of(graph: SNNGraph, pruned: SNNGraph, plan: PruningPlan) -> dict[str, tuple[int, ...]]:
    """Return what is left of each group, in the numbering of `graph`, which may be pruned itself."""
    first = graph.metadata.get("kept_channels", {})
    kept = {}
    for name in plan.kept:
        left: Sequence[int] = pruned.metadata["kept_channels"][name]
        number = {channel: index for index, channel in enumerate(first.get(name, range(max(left) + 1)))}
        kept[name] = tuple(number[channel] for channel in left)
    return kept


def _result(
    graph: SNNGraph,
    plan: PruningPlan,
    sizes: dict[str, int],
    aims: Aims,
    measured: Measured,
    found: SearchResult | None,
    *,
    history: Sequence[dict[str, Any]] = (),
    notes: list[str],
    seconds: dict[str, float] | None = None,
    interrupted: bool = False,
) -> PrunedResult:
    return PrunedResult(
        graph=graph,
        plan=plan,
        widths={name: [sizes[name], len(channels)] for name, channels in plan.kept.items()},
        budgets=facts(aims.limits, measured),
        synops=float(measured.values["synops"] or 0.0),
        accuracy=measured.evaluation.accuracy,
        margin=measured.margin,
        met=measured.met,
        search=found,
        history=tuple(history),
        notes=notes,
        seconds=seconds or {},
        interrupted=interrupted,
    )


# FOLDED from spear_deploy/pruning/prune_to_budget.py
# What makes pruning this network on this data doubtful? Said before, not found out after hours.

SILENT_RATE = 1e-4
"""Spikes per neuron and step below which a layer hardly tells anything."""


def doubts(graph: SNNGraph, found: Evaluation, classes: int) -> list[str]:
    """Return a sentence for each: a silent layer, accuracy at chance; with the rates of all layers.

    Args:
        graph: the network before pruning.
        found: what it made of validation.
        classes: of the data.
    """
    rates = found.counts.rates()
    told = ", ".join(f"{name} {rate:.4f}" for name, rate in rates.items())
    notes = []
    silent = [name for name, rate in rates.items() if rate < SILENT_RATE]
    if silent:
        names = ", ".join(f"'{name}'" for name in silent)
        notes.append(
            f"warning: of the given network {names} hardly spike{'s' * (len(silent) == 1)} (spikes per neuron and step: "
            f"{told}); check the scale of the input and the thresholds"
        )
    samples = len(found.labels)
    chance = 1 / classes
    if found.accuracy <= chance + 2 * np.sqrt(chance * (1 - chance) / samples):
        notes.append(
            f"warning: the given network is at chance, {found.accuracy:.1%} of {samples} validation samples with {classes} "
            f"classes (spikes per neuron and step: {told}); train it first, or check that data and network belong together"
        )
    return notes
