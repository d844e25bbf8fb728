"""Number of time steps of a pruned network, chosen from a range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from spear_deploy.data import Dataset
from spear_deploy.data.time_steps import StepsRange, choose_candidates
from spear_deploy.pipeline.preflight import CheckedInputs
from spear_deploy.pruning.pruned_result import PrunedResult
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.time_steps import StepsChoice, choose_steps
from spear_deploy.util.progress import Progress


def choose_input_steps(
    inputs: CheckedInputs,
    steps: StepsRange | None,
    settings: PruneSettings,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[CheckedInputs, StepsChoice | None]:
    """Return network and data with the chosen number of time steps, and the choice; unchanged without a range.

    Args:
        inputs: with all time steps.
        steps: the range.
        settings: of pruning.
        checkpoint: of the choice.
        progress: is called after each candidate.

    Raises:
        DataError: the data can give no number of the range.
        BudgetError: there is no SynOps budget.
    """
    if steps is None:
        return inputs, None
    numbers = choose_candidates(steps, inputs.list_steps(), inputs.dataset.steps)
    datasets: dict[int, Callable[[], Dataset]] = {number: partial(_read_steps, inputs, number) for number in numbers}
    choice = choose_steps(inputs.network, datasets, settings, checkpoint=checkpoint, progress=progress)
    return inputs.with_steps(choice.steps), choice


def add_choice(pruned: PrunedResult, choice: StepsChoice | None) -> PrunedResult:
    """Return the result with the batches of the choice and a note on its candidates."""
    if choice is None or not choice.rows:
        return pruned
    stages = tuple(replace(stage, batches=choice.batches) if stage.name == "steps" else stage for stage in pruned.stages)
    batches = {"steps": choice.batches, **pruned.batches}
    return replace(pruned, stages=stages, batches=batches, notes=[choice.note, *pruned.notes])


def _read_steps(inputs: CheckedInputs, number: int) -> Dataset:
    return inputs.with_steps(number).dataset
