"""Number of time steps of a pruned network, chosen from a range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from spear_deploy.data import Dataset
from spear_deploy.data.time_steps import StepsRange, choose_candidates
from spear_deploy.errors import DataError
from spear_deploy.pipeline.preflight import CheckedInputs, refuse_samples
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
        DataError: the data can give no number of the range, or none that the chip takes.
        BudgetError: there is no SynOps budget.
    """
    if steps is None:
        return inputs, None
    numbers, left_out = keep_taken(inputs, steps)
    datasets: dict[int, Callable[[], Dataset]] = {number: partial(_read_steps, inputs, number) for number in numbers}
    choice = choose_steps(inputs.network, datasets, settings, checkpoint=checkpoint, progress=progress)
    return inputs.with_steps(choice.steps), replace(choice, left_out=left_out)


def keep_taken(inputs: CheckedInputs, steps: StepsRange) -> tuple[list[int], str]:
    """Return the numbers of steps to choose from, and a sentence on those whose samples the chip cannot take.

    Wider bins hold more events, and a chip takes so many of one channel in a step.

    Raises:
        DataError: the data can give no number of the range, or none that the chip takes.
    """
    numbers = choose_candidates(steps, inputs.list_steps(), inputs.dataset.steps)
    if not inputs.has_integers:
        return list(numbers), ""
    integer = inputs.quantize(inputs.network)
    refused = {number: refuse_samples(integer, _read_steps(inputs, number)) for number in numbers}
    taken = [number for number in numbers if not refused[number]]
    others = [number for number in numbers if refused[number]]
    if not others:
        return taken, ""
    why = refused[others[0]].removeprefix("input: ").partition(";")[0]
    if not taken:
        raise DataError(f"steps '{steps}': with {others[0]} steps samples have {why}; name a range with more steps")
    names = ", ".join(map(str, others))
    return taken, f"steps: {names} of {inputs.trained_steps} are not among those to choose from, since samples then have {why}"


def add_choice(pruned: PrunedResult, choice: StepsChoice | None) -> PrunedResult:
    """Return the result with the batches of the choice and a note on its candidates."""
    if choice is None:
        return pruned
    if not choice.rows:
        return replace(pruned, notes=[*choice.notes, *pruned.notes])
    stages = tuple(replace(stage, batches=choice.batches) if stage.name == "steps" else stage for stage in pruned.stages)
    batches = {"steps": choice.batches, **pruned.batches}
    return replace(pruned, stages=stages, batches=batches, notes=[*choice.notes, *pruned.notes])


def _read_steps(inputs: CheckedInputs, number: int) -> Dataset:
    return inputs.with_steps(number).dataset
