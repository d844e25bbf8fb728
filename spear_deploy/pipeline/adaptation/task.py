"""A network to adapt, and an adapted network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spear_deploy.adaptation.learn import LearnSettings
from spear_deploy.budget.report import BudgetReport
from spear_deploy.data import Dataset
from spear_deploy.errors import UnsupportedError
from spear_deploy.hardware.profile import HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.training.recipe import MAX_EPOCHS
from spear_deploy.util.arguments import require_seed, require_switch, require_whole_number
from spear_deploy.util.progress import Progress
from spear_deploy.util.workers import Workers, read_workers

CHIP, HOST = PLACES = ("chip", "host")
"""Where a readout may be."""


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How a network is adapted.

    Attributes:
        epochs: of fine-tuning.
        narrows: whether layers become narrower where the chip is too small for the adapted network.
        readout: where it is computed, on the "chip", or by the "host", which integrates the spikes that leave the chip.
        seed: of the splits and of the order of samples.
        device: that the network learns on, see `training.device`.
        workers: where alternatives learn at the same time before one is chosen; None: one after the other in this process.

    Raises:
        DataError: epochs or a seed that are none, or a switch that is neither True nor False.
        UnsupportedError: there is no such place for a readout.
    """

    epochs: int = LearnSettings.epochs
    narrows: bool = True
    readout: str = CHIP
    seed: int = 0
    device: str = "cpu"
    workers: Workers | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", read_workers(self.workers))  # a number, too
        require_whole_number("epochs", self.epochs, most=MAX_EPOCHS)
        require_switch("narrows", self.narrows)
        require_seed(self.seed)
        check_readout(self.readout)

    @property
    def learning(self) -> LearnSettings:
        """How it learns."""
        return LearnSettings(epochs=self.epochs, seed=self.seed, device=self.device)


def check_readout(place: Any) -> None:
    """Check where a readout is computed.

    Raises:
        UnsupportedError: there is no such place.
    """
    if place not in PLACES:
        raise UnsupportedError(f"readout '{place}': expected one of {', '.join(PLACES)}")


@dataclass(frozen=True, kw_only=True)
class AdaptTask:
    """A network to adapt.

    Attributes:
        network: a floating-point network.
        profile: the chip.
        chips: how many there are.
        dataset: learns from `train`, chooses by `val`, is measured on `test`; None: nothing is learnt.
        settings: of the adaptation.
        progress: is called while it learns.
        store: keeps how far it has learnt.
    """

    network: SNNGraph
    profile: HardwareProfile
    chips: int = 1
    dataset: Dataset | None = None
    settings: AdaptSettings = AdaptSettings()
    progress: Progress | None = None
    store: LearningStore | None = None


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A network adapted to a chip.

    Attributes:
        graph: the network; the given one where nothing was to replace.
        rows: replacements, a row a layer: layer, what, by, kind, bound, neurons.
        waterfall: accuracy after each step, on the test split: {after, kind, accuracy, layers}; of a replacement also where
            spikes differ first from those before it, {differs: {layer, step, share} or None}; empty without data.
        missing: what is left that the chip lacks, a sentence each.
        report: check of the network.
        widths: channels before and after, by group, where layers became narrower.
        notes: sentences.
    """

    graph: SNNGraph
    rows: tuple[Mapping[str, Any], ...] = ()
    waterfall: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()
    report: BudgetReport
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
