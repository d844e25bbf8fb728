"""Learning with the chip's rounding, for a pruned network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spear_deploy.data import Split
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.levers import parse_levers
from spear_deploy.pruning.tune.last_adjustments import scale_thresholds, zero_weights
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse, DeployedForm
from spear_deploy.quantize.rounding import RoundNetwork
from spear_deploy.training.evaluation import Evaluation, evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.recipe import Recipe
from spear_deploy.util.progress import Progress

TOLERANCE = 0.003
"""Accuracy on validation that integers may lose without learning for it."""
ENOUGH = 0.01
"""Accuracy on validation that integers may still lose after a cycle of learning without another one. Where a chip's neurons do
what the network's cannot, as on Xylo and Speck, one cycle is too little."""
CYCLES = 3
"""Cycles at most."""
PEAK = 3e-3
"""Learning rate: the network is close to where it should be."""


@dataclass(frozen=True, kw_only=True)
class IntegerForm:
    """The integers of a chip: a `DeployedForm` that can also be learnt for.

    Attributes:
        deploy: network and split to the integers, and the split as they take it.
        rounding: the values that the integers can stand for.
    """

    deploy: DeployedForm
    rounding: RoundNetwork

    def __call__(self, network: SNNGraph, split: Split) -> tuple[SNNGraph, Split]:
        """Return the integers of a network, and a split as they take it."""
        return self.deploy(network, split)


@dataclass(frozen=True, kw_only=True)
class RoundedLearning:
    """A network that learnt with rounding.

    Attributes:
        graph, use: the network, and its use of the budgets; those from before where it is not kept.
        kept: whether its integers are more accurate than before, within the budgets.
        batches: that were learnt from, in all cycles.
        lost: accuracy on validation that the integers lost before.
        left: what they lose after it, against the network before; below 0 where they are more accurate.
        exceeded: whether a cycle made them more accurate, and none of these is kept because of the budgets.
        interrupted: whether Ctrl-C ended it.
    """

    graph: SNNGraph
    use: BudgetUse
    batches: int
    lost: float
    left: float
    kept: bool
    exceeded: bool = False
    interrupted: bool = False

    @property
    def note(self) -> str:
        """A sentence on what was gained, or that nothing was."""
        lost, left, gained = (100 * value for value in (self.lost, self.left, self.lost - self.left))
        digits = 1 if abs(gained) >= 0.1 else 2
        learning = f"{self.batches} batches with the chip's rounding"
        if self.kept:
            now = f"they lose {left:.{digits}f}" if left >= 0 else f"they have {-left:.{digits}f} more than the network before"
            return f"the integers lost {lost:.{digits}f} points of accuracy on validation; after {learning} {now}"
        why = f"gained {gained:.{digits}f} but exceed a budget" if self.exceeded else "gained nothing"
        return (
            f"the integers lose {lost:.1f} points of accuracy on validation; {learning} {why}, so the network from before is kept"
        )


def learn_with_rounding(
    graph: SNNGraph,
    monitor: BudgetMonitor,
    form: IntegerForm,
    *,
    epochs: int,
    hints: Array | None = None,
    dual: float = 0.0,
    seed: int = 0,
    device: str = "cpu",
    completes: bool = True,
    progress: Progress | None = None,
) -> RoundedLearning | None:
    """Learn on with the chip's rounding, and keep the result where its integers are more accurate within the budgets.

    Zeros stay zero, and a SynOps budget is held as in fine-tuning: by a penalty on the SynOps of the integers, then by thresholds
    and, where these are not enough, by removing weights.

    Args:
        graph: fine-tuned, in floating point.
        monitor: of the budgets; its `dataset` is learnt from.
        form: the chip's integers.
        epochs: of a cycle of learning; there are up to `CYCLES`, as long as the integers lose more than `ENOUGH`.
        hints: of the teacher, see `training.fit`.
        dual: dual variable of the penalty at the start, as fine-tuning left it.
        seed: order of the samples.
        device: of torch.
        completes: whether Ctrl-C keeps the best epoch so far; else it is raised.
        progress: is called after each epoch.

    Returns:
        None where the integers lose no more than `TOLERANCE`.
    """
    val = monitor.dataset.val
    before = evaluate(graph, val)

    def measure(network: SNNGraph) -> Evaluation:
        return evaluate(*form(network, val))

    integers = measure(graph)
    lost = before.accuracy - integers.accuracy
    if lost <= TOLERANCE:
        return None
    use = monitor.measure_with_training(graph)
    target = integers.synops.total / use.active_use if use.active_use else None  # what learns emits the spikes of the integers
    recipe = Recipe(
        epochs=epochs, learning_rate=PEAK, warm_up=0.1, seed=seed, synops_budget=target, dual=dual, keeps_zeros=True,
        interruptible=completes, device=device,
    )  # fmt: skip
    start, batches = graph, 0
    best = most_accurate = _Measured(graph=graph, use=use, accuracy=integers.accuracy)
    for cycle in range(CYCLES):
        note = _name_cycle(progress, cycle)
        tuned = fit(start, monitor.dataset, recipe, hints=hints, rounding=form.rounding, progress=note)
        start, recipe, batches = tuned.graph, replace(recipe, dual=tuned.dual), batches + tuned.batches
        learnt = tuned.graph if target is None else _hold_budget(tuned.graph, monitor)
        last = _Measured(graph=learnt, use=monitor.measure_with_training(learnt), accuracy=measure(learnt).accuracy)
        if last.accuracy > most_accurate.accuracy:
            most_accurate = last
        if last.accuracy > best.accuracy and (last.use.met or not use.met):
            best = last
        if tuned.interrupted or before.accuracy - best.accuracy <= ENOUGH:
            break
    kept = best.graph is not graph
    return RoundedLearning(
        graph=best.graph, use=best.use, batches=batches, lost=lost, kept=kept, interrupted=tuned.interrupted,
        left=before.accuracy - (best if kept else most_accurate).accuracy,
        exceeded=not kept and most_accurate.accuracy > best.accuracy,
    )  # fmt: skip


def _name_cycle(progress: Progress | None, cycle: int) -> Progress | None:
    """Return a progress whose stage names the cycle, from the second one on; each counts its own epochs."""
    if progress is None:
        return None
    stage = "learn with rounding" if cycle == 0 else f"learn with rounding, cycle {cycle + 1}"
    return lambda facts: progress({**facts, "stage": stage})


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A network, its use of the budgets, and the accuracy of its integers on validation."""

    graph: SNNGraph
    use: BudgetUse
    accuracy: float


def _hold_budget(graph: SNNGraph, monitor: BudgetMonitor) -> SNNGraph:
    """Return a network whose thresholds, and where these are not enough its smallest weights, hold the budgets of its spikes."""

    def relative_use(network: SNNGraph) -> float:
        return monitor.measure_with_training(network).active_use

    graph = scale_thresholds(graph, relative_use)
    return zero_weights(graph, evaluate(graph, monitor.dataset.val).counts, relative_use)


def note_only_width(levers: str | tuple[str, ...] | None, deployed: Sequence[DeployedForm], chip: ChipCosts | None) -> list[str]:
    """Return that bits save nothing, where their lever is named for a chip with one width of weights that is learnt for."""
    if levers is None or chip is None or "bits" not in parse_levers(levers) or len(chip.profile.weight_bits) != 1:
        return []
    if not any(isinstance(form, IntegerForm) for form in deployed):
        return []
    (bits,) = chip.profile.weight_bits
    return [
        f"bits: chip '{chip.profile.name}' has weights of {bits} bits alone, so this lever saves no memory; it learns for their "
        "rounding, where that costs accuracy"
    ]


def note_unused_bits(levers: str | tuple[str, ...] | None, deployed: Sequence[DeployedForm], chip: ChipCosts | None) -> list[str]:
    """Return why the lever of bits did nothing, where it is named."""
    if levers is None or "bits" not in parse_levers(levers):
        return []
    if any(isinstance(form, IntegerForm) for form in deployed):
        return [f"bits: the integers lose at most {100 * TOLERANCE:.1f} points on validation, so nothing was learnt for them"]
    where = "no chip is given" if chip is None else f"chip '{chip.profile.name}' has no rounding that is learnt with"
    return [f"bits: {where}, so this lever did nothing"]
