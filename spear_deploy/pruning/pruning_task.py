"""A network on its way through pruning: task, planned, tuned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.bits_choice import BitsChoice
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.search.search import SearchResult
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.fine_tuning import FineTuning
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse
from spear_deploy.pruning.tune.rounded_learning import IntegerForm, RoundedLearning
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class PruneTask:
    """A network to prune.

    Attributes:
        monitor: of the budgets; holds the network before pruning, the dataset, the chip, and the forms that will run.
        settings: budgets, levers, search, epochs and seed.
        checkpoint: of the search.
        progress: is called after each evaluation and epoch.
        store: keeps how far fine-tuning has learnt.
    """

    monitor: BudgetMonitor
    settings: PruneSettings
    checkpoint: Path | None = None
    progress: Progress | None = None
    store: LearningStore | None = None

    @property
    def graph(self) -> SNNGraph:
        """The network before pruning; it states the bits by layer that were chosen for it."""
        return self.monitor.dense

    @property
    def dataset(self) -> Dataset:
        """The data to learn from and measure on."""
        return self.monitor.dataset

    @property
    def chip(self) -> ChipCosts | None:
        """The chip, if there is one."""
        return self.monitor.chip

    @property
    def form(self) -> IntegerForm | None:
        """The chip's integers, where they are among the forms that will run and are learnt for."""
        return next((form for form in self.monitor.deployed if isinstance(form, IntegerForm)), None)


@dataclass(frozen=True, kw_only=True)
class PlannedPruning:
    """A network with the channels that stay.

    Attributes:
        task: with the bits by layer that were chosen.
        search: the plan.
        bits: the choice of bits by layer; None where it was none.
        is_given: whether the plan comes from an earlier search, so that bits were not chosen here.
    """

    task: PruneTask
    search: SearchResult
    bits: BitsChoice | None = None
    is_given: bool = False


@dataclass(frozen=True, kw_only=True)
class TunedPruning:
    """A pruned network that learnt to keep its budgets.

    Attributes:
        planned: what it began with.
        tuning: fine-tuning, that has run.
        rounded: learning with the chip's rounding; None where it was not tried.
    """

    planned: PlannedPruning
    tuning: FineTuning
    rounded: RoundedLearning | None

    @property
    def graph(self) -> SNNGraph:
        """The network."""
        return self.tuning.graph if self.rounded is None else self.rounded.graph

    @property
    def use(self) -> BudgetUse:
        """Its use of the budgets."""
        return self.tuning.use if self.rounded is None else self.rounded.use

    @property
    def batches(self) -> dict[str, int]:
        """Batches that were learnt from, by part."""
        planned, rounded = self.planned, self.rounded
        return {
            "search": planned.search.batches,
            "fine_tune": self.tuning.batches,
            **({} if rounded is None else {"bits": rounded.batches}),
            **({} if planned.bits is None else {"layer_bits": planned.bits.batches}),
        }

    @property
    def interrupted(self) -> bool:
        """Whether search or learning was cut short."""
        cut_short = self.rounded is not None and self.rounded.interrupted
        return self.planned.search.interrupted or self.tuning.interrupted or cut_short
