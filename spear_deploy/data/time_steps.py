"""Fewer time steps of the samples of a dataset.

Samples without a time axis are encoded again, event recordings are binned again, where their source is read with another number
of steps. Of samples that have their steps:

    constant in time    fewer of the equal steps
    spikes              coarser bins: the spikes of n steps of n · m become those of one
    currents            their mean over these steps

A network that was trained on some steps and runs on fewer has both numbers in its metadata, and data are read for it so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spear_deploy.data.dataset import Dataset, Split
from spear_deploy.data.labels import labels_each_step
from spear_deploy.errors import DataError
from spear_deploy.network.graph import SNNGraph

STEPS, TRAINED_STEPS = "steps", "trained_steps"
"""Keys of the metadata: steps that a network runs on, and those that it was trained on."""
AUTO = "auto"
AUTO_SHARE = 0.25
"""Fewest steps of "auto", as a share of those of the data."""
MAX_CANDIDATES = 4


@dataclass(frozen=True, kw_only=True)
class StepsRange:
    """Numbers of steps that a network may run on.

    Attributes:
        low: the fewest; None: `AUTO_SHARE` of those of the data.
        high: the most, with which data without a time axis are read; None: as they are read otherwise.
    """

    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        return AUTO if self.high is None else f"{self.low}..{self.high}"


def parse_steps(text: str | int | StepsRange | None) -> int | StepsRange | None:
    """Read a number of steps, "auto" or a range "3..8".

    Raises:
        DataError: it is none of these, or an empty range.

    >>> parse_steps("8"), parse_steps("3..8"), parse_steps("auto")
    (8, StepsRange(low=3, high=8), StepsRange(low=None, high=None))
    """
    if text is None or (isinstance(text, (int, StepsRange)) and not isinstance(text, bool)):
        return text
    if text == AUTO:
        return StepsRange()
    bounds = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", str(text))
    if bounds is None:
        raise DataError(f"steps '{text}': expected a number, a range such as 3..8, or {AUTO}")
    low = int(bounds[1])
    if bounds[2] is None:
        return low
    if not 1 <= low <= int(bounds[2]):
        raise DataError(f"steps '{text}': is an empty range; expected the fewest steps, at least 1, then the most")
    return StepsRange(low=low, high=int(bounds[2]))


def largest_steps(steps: str | int | StepsRange | None) -> int | None:
    """Return the number of steps that data without a time axis are read with; None: as they are read otherwise."""
    parsed = parse_steps(steps)
    return parsed.high if isinstance(parsed, StepsRange) else parsed


def list_steps(dataset: Dataset) -> tuple[int, ...]:
    """Return the numbers of steps that `take_steps` can give, from few to many.

    >>> from spear_deploy.data import digits
    >>> list_steps(digits(steps=6)), list_steps(digits(steps=5, encoding="direct"))
    ((1, 2, 3, 6), (1, 2, 3, 4, 5))
    """
    if labels_each_step(dataset.train.y):  # fewer steps would have other labels
        return (dataset.steps,)
    numbers = range(1, dataset.steps + 1)
    constant = all(_is_constant(getattr(dataset, name)) for name in ("train", "val", "test"))
    return tuple(n for n in numbers if constant or dataset.steps % n == 0)


def take_steps(dataset: Dataset, steps: int) -> Dataset:
    """Return a dataset with fewer time steps, of the samples as they are.

    Raises:
        DataError: the samples cannot be given so many steps.
    """
    possible = list_steps(dataset)
    if steps not in possible:
        raise DataError(
            f"data '{dataset.name}': samples of {dataset.steps} time steps cannot be given {steps}; "
            f"expected one of {', '.join(map(str, possible))}"
        )
    train, val, test = (take_split_steps(split, steps) for split in (dataset.train, dataset.val, dataset.test))
    return replace(dataset, train=train, val=val, test=test)


def take_split_steps(split: Split, steps: int) -> Split:
    """Return a split with fewer time steps; its own number is a multiple, or it is constant in time."""
    before = split.x.shape[1]
    if steps == before:
        return split
    if _is_constant(split):
        return replace(split, x=split.x[:, :steps])
    parts = split.x.reshape(len(split.x), steps, before // steps, *split.x.shape[2:])
    return replace(split, x=parts.mean(axis=2, dtype=np.float32) if split.kind == "current" else parts.sum(axis=2))


def choose_candidates(steps: StepsRange, possible: Sequence[int], of: int) -> tuple[int, ...]:
    """Return at most `MAX_CANDIDATES` numbers of steps within a range, from many to few; the most that there are come first.

    Args:
        steps: the range.
        possible: numbers of steps that the data can give.
        of: steps of the data as they are read.

    Raises:
        DataError: the range reaches above what the data have, or the data can give none of its numbers.

    >>> choose_candidates(StepsRange(), range(1, 9), 8), choose_candidates(StepsRange(low=2, high=8), (1, 2, 4, 8), 8)
    ((8, 6, 4, 2), (8, 4, 2))
    """
    if steps.high is not None and steps.high > of:
        raise DataError(f"steps '{steps}': the samples have {of} time steps; name a range up to {of}")
    low = max(1, int(np.ceil(AUTO_SHARE * of))) if steps.low is None else steps.low
    within = sorted((n for n in possible if low <= n <= (steps.high or of)), reverse=True)
    if not within:
        raise DataError(
            f"steps '{steps}': samples of {of} time steps can be given {', '.join(map(str, possible))}; name a range with one of "
            "these"
        )
    chosen = np.unique(np.rint(np.linspace(0, len(within) - 1, min(MAX_CANDIDATES, len(within)))).astype(int))
    return tuple(within[index] for index in chosen)


def mark_steps(graph: SNNGraph, steps: int, trained: int) -> SNNGraph:
    """Return the network with the number of steps that it runs on, and the number that it was trained on."""
    return graph.with_layers({}, metadata={**graph.metadata, STEPS: steps, TRAINED_STEPS: trained})


def deployed_steps(graph: SNNGraph) -> tuple[int, int] | None:
    """Return (steps that a network runs on, steps that it was trained on) where the first were chosen; else None."""
    steps, trained = graph.metadata.get(STEPS), graph.metadata.get(TRAINED_STEPS)
    known = all(type(value) is int and value > 0 for value in (steps, trained))
    return (int(steps), int(trained)) if known and steps is not None and trained is not None else None


def _is_constant(split: Split) -> bool:
    """Return whether all steps of each sample are the same; spikes have to be re-encoded."""
    if split.kind != "current":
        return False
    return split.x.strides[1] == 0 or bool((split.x == split.x[:, :1]).all())
