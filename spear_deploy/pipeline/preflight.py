"""Checks of network, chip and data before any training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.adaptation.several_spikes import match_spikes
from spear_deploy.budget.check import check
from spear_deploy.data import Dataset, Split
from spear_deploy.data.input_sums import INPUT_TWICE
from spear_deploy.data.time_steps import StepsRange, choose_candidates, deployed_steps, mark_steps, parse_steps
from spear_deploy.errors import ChipError, DataError, UnsupportedError
from spear_deploy.network.chip_format import find_chip_format
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pipeline.backends import list_lava_packages
from spear_deploy.pipeline.inputs import data_with_steps, list_data_steps, load_for, require_integers
from spear_deploy.pruning.tune.measure import DeployedForm, deploy_float
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.quantize import FORMATS, quantize_input
from spear_deploy.quantize.rounding import ROUNDED, Rounding, read_rounding
from spear_deploy.util.extras import require_packages
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.hardware.profile import HardwareProfile

PRUNING = ("torch", "norse", "gymnasium")
"""Packages of the search and of fine-tuning."""
LAVA_FAMILY = "loihi"
"""Lava's fixed-point models compute the integers of these chips; those of others run on our simulator alone."""
CALIBRATION_SAMPLES = 256
"""Training samples that the scales of the integers are chosen on."""


@dataclass(frozen=True, kw_only=True)
class CheckedInputs:
    """A floating-point network, a chip and data that go together.

    Attributes:
        network: before pruning.
        profile: the chip.
        chips: how many there are.
        dataset: all splits.
        source: of the data; `dataset` itself unless given.
        coding: options of `api.data` that the data were read with, but for the steps.
    """

    network: SNNGraph
    profile: HardwareProfile
    chips: int
    dataset: Dataset
    source: str | os.PathLike[str] | Dataset | None = None
    coding: Mapping[str, Any] = field(default_factory=dict)

    def list_steps(self) -> Sequence[int]:
        """Return the numbers of time steps that the data can give, from few to many."""
        return list_data_steps(self.source or self.dataset, self.network, self.dataset, **self.coding)

    def with_steps(self, steps: int) -> CheckedInputs:
        """Return network and data with another number of time steps, which the network states from then on."""
        dataset = self.dataset
        if steps != dataset.steps:
            dataset = data_with_steps(self.source or dataset, self.network, dataset, steps, **self.coding)
        return replace(self, network=mark_steps(self.network, steps, self.trained_steps), dataset=dataset)

    def with_steps_of(self, network: SNNGraph) -> CheckedInputs:
        """Return the inputs with the number of time steps that a pruned network states; unchanged where it states none."""
        chosen = deployed_steps(network)
        return self if chosen is None or chosen[1] != self.trained_steps else self.with_steps(chosen[0])

    @property
    def trained_steps(self) -> int:
        """The number of time steps that the network was trained on."""
        chosen = deployed_steps(self.network)
        return self.dataset.steps if chosen is None else chosen[1]

    def quantize(self, network: SNNGraph) -> SNNGraph:
        """Return the chip's integers of a network, with scales at which no state overflows on training samples."""
        x = np.moveaxis(self.dataset.train.x[:CALIBRATION_SAMPLES], 0, 1)
        return api.quantize_for_chip(network, self.profile, calibration=x, kind=self.dataset.kind)

    def deploy_integers(self, network: SNNGraph, split: Split) -> tuple[SNNGraph, Split]:
        """Return the chip's integers of a network, and a split in the form that they take."""
        integer = self.quantize(network)
        return integer, grade_split(integer, split)

    @property
    def has_integers(self) -> bool:
        """Whether the number formats of the chip are known; if not, the network is pruned and measured in floating point."""
        return self.profile.meta.family in FORMATS

    @property
    def forms(self) -> tuple[DeployedForm, ...]:
        """The forms of a network that have to keep the budgets: floating point, and the chip's integers where there are some."""
        return (deploy_float, self.integer_form) if self.has_integers else (deploy_float,)

    @property
    def integer_form(self) -> DeployedForm:
        """The chip's integers, which are learnt for where their values are known (`quantize.rounding`)."""
        if self.profile.meta.family not in ROUNDED:
            return self.deploy_integers
        return IntegerForm(deploy=self.deploy_integers, rounding=self.round_network)

    @property
    def floating_point_counts(self) -> bool:
        """Whether accuracy in floating point is one of the chip; else its neurons meet their threshold spike by spike (ODIN)."""
        return INPUT_TWICE not in self.network.metadata or self.profile.meta.family not in ROUNDED

    def round_network(self, network: SNNGraph) -> Rounding:
        """Return a network with the values of the chip's integers, and as many spikes a step as the chip sends."""
        integer = self.quantize(network)
        matched = match_spikes(network, integer, self.dataset)
        return read_rounding(matched, integer if matched is network else self.quantize(matched))


def check_inputs(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    *,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    steps: int | str | None = None,
    encoding: str | None = None,
    progress: Progress | None = None,
) -> CheckedInputs:
    """Load network, chip and data, and check that they go together.

    Args:
        net, chip: see `pipeline.inputs`.
        data: a built-in name, a file, or a `Dataset`.
        seed: of the splits.
        overrides: facts of the profile to replace, by dotted key.
        steps, encoding: of data without a time axis (`load_data`); of a range of steps the most.
        progress: called before data are loaded, and before the chip is asked for its integers.

    Raises:
        SpearError: the first thing that does not fit.
    """
    progress = progress or (lambda facts: None)
    require_packages(*PRUNING, user="pruning")
    (profile, chips), network = api.resolve_chip(chip, overrides), load_for(net, data)
    if find_chip_format(network):
        raise UnsupportedError(
            "a quantised network can be neither searched nor fine-tuned; give the floating-point network it was made of"
        )
    progress({"stage": "load data", "done": 0, "of": 0})
    dataset = api.data(data, network, seed=seed, steps=steps, encoding=encoding)
    dataset.check(network.input_shape, count_classes(network), read_decision(network))
    coding = {"seed": seed, "encoding": encoding} if not isinstance(data, Dataset) else {}
    require_steps(steps, data, network, dataset, **coding)
    progress({"stage": "check the network against the chip", "done": 0, "of": 0})
    require_runnable(network, profile, chips, dataset)
    return CheckedInputs(network=network, profile=profile, chips=chips, dataset=dataset, source=data, coding=coding)


def require_steps(
    steps: int | str | None, source: str | os.PathLike[str] | Dataset, network: SNNGraph, dataset: Dataset, **coding: Any
) -> None:
    """Check that data can give a number of a range of time steps.

    Args:
        steps: the range; a number has been read already.
        source, network, dataset: the data, for a network, and as they are read.
        coding: `CheckedInputs.coding`.

    Raises:
        DataError: they can give none, or have fewer than the most of the range.
    """
    wanted = parse_steps(steps)
    if isinstance(wanted, StepsRange):
        choose_candidates(wanted, list_data_steps(source, network, dataset, **coding), dataset.steps)


def require_runnable(network: SNNGraph, profile: HardwareProfile, chips: int, dataset: Dataset) -> None:
    """Check that the chip has all parts of a network, at any size.

    Raises:
        ChipError: names the layer and what the chip lacks.
    """
    if profile.meta.family in FORMATS:
        api.quantize_for_chip(network, profile, kind=dataset.kind)
    else:
        require_supported(network, profile, chips)


def require_supported(network: SNNGraph, profile: HardwareProfile, chips: int) -> None:
    """Check that a profile has all parts of a network.

    Raises:
        ChipError: names the first layers and what the chip lacks.
    """
    unsupported = check(network, profile, chips=chips).unsupported
    if unsupported:
        lacking = "; ".join(f"layer '{row.layer}': {row.what}, {row.why}" for row in unsupported[:3])
        raise ChipError(
            f"chip '{profile.name}' lacks what this network needs, and pruning does not help: {lacking}"
        )  # fmt: skip


def require_deployment(profile: HardwareProfile, *more: str) -> None:
    """Check that a deployment to a chip can come to its end: its integers are known, and all packages are installed.

    Args:
        profile: the chip; those of Loihi are proven on Lava.
        more: further packages, e.g. of the data.

    Raises:
        ChipError: no integers of this chip are known, so that there is nothing to prove and to export.
        MissingPackageError: names all that are missing.
    """
    require_integers(profile)
    lava = list_lava_packages() if profile.meta.family == LAVA_FAMILY else ()
    require_packages(*more, *PRUNING, "onnx", "onnxruntime", *lava, user=f"a deployment to {profile.name}")


def check_proofs(network: SNNGraph, profile: HardwareProfile) -> None:
    """Refuse on one of Lava's chips what Lava cannot run.

    Raises:
        UnsupportedError: names the layer and what Lava lacks.
    """
    if profile.meta.family != LAVA_FAMILY:
        return
    from spear_deploy.lava.plan import plan_network

    plan_network(api.quantize_for_chip(network, profile))


def grade_split(integer: SNNGraph, split: Split) -> Split:
    """Return a split in the form that the integer network takes."""
    return replace(split, x=quantize_input(integer, split.x, split.kind))


def refuse_samples(integer: SNNGraph, dataset: Dataset) -> str:
    """Return why an integer network cannot take the samples of a dataset, in words; empty where it can."""
    try:
        for split in (dataset.train, dataset.val, dataset.test):
            grade_split(integer, split)
    except DataError as error:
        return str(error)
    return ""
