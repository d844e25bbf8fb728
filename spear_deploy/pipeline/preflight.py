"""What can be wrong with network, chip and data, and is found before hours are spent?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.data import Dataset, Split, load_data
from spear_deploy.errors import UnsupportedError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline import api
from spear_deploy.pruning.budgets import budget_from
from spear_deploy.quantize import graded

if TYPE_CHECKING:
    from spear_deploy.hardware.profile import HardwareProfile


def checked_start(
    net: api.Net,
    chip: api.Chip,
    data: str | os.PathLike[str] | Dataset,
    synops: str | float,
    seed: int,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[HardwareProfile, int, SNNGraph, Dataset]:
    """Return profile, number of chips, network and data, all of which go together.

    Raises:
        SpearError: the first thing that does not.
    """
    budget_from(synops, 1.0)
    (target, chips), dense = api.target(chip, overrides), api.load(net)
    if dense.is_integer:
        raise UnsupportedError(
            "an integer network can be neither searched nor fine-tuned; give the floating-point network it was made of"
        )
    dataset = load_data(data, seed=seed, input_shape=dense.input_shape)
    dataset.check(dense.input_shape, int(np.prod(dense.shape_of(dense.output))))
    api.for_chip(dense, target, kind=dataset.kind)
    return target, chips, dense, dataset


LAVA_FAMILY = "loihi"
"""Lava's fixed-point models hold the integers of these chips; those of others run on our simulator alone."""


def check_on_lava(graph: SNNGraph, target: HardwareProfile) -> None:
    """Refuse a network for one of Lava's chips that Lava cannot run.

    Raises:
        UnsupportedError: what it cannot, by layer.
    """
    from spear_deploy.lava.plan import plan

    if target.meta.family == LAVA_FAMILY:
        plan(api.for_chip(graph, target))


def integers(graph: SNNGraph, target: api.Chip, dataset: Dataset) -> SNNGraph:
    """Return the integer network; the training split says which scales overflow no state."""
    x = np.moveaxis(dataset.train.x[:256], 0, 1)
    return api.for_chip(graph, target, calibration=x, kind=dataset.kind)


def graded_split(integer: SNNGraph, split: Split) -> Split:
    """Return a split in the form that the integer network takes."""
    return Split(x=graded(integer, split.x, split.kind), y=split.y, kind=split.kind)
