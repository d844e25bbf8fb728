"""Learning with the chip's rounding, for a pruned network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spear_deploy.data import Split
from spear_deploy.data.labels import average_right
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning import short_learning
from spear_deploy.pruning.chip_costs import ChipCosts
from spear_deploy.pruning.levers import parse_levers
from spear_deploy.pruning.tune.last_adjustments import scale_thresholds, zero_weights
from spear_deploy.pruning.tune.margins import accuracy_error
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse, DeployedForm
from spear_deploy.quantize.rounding import RoundNetwork
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.learning_store import LearningStore
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
MUCH = 0.02
"""Accuracy on validation that integers lose before a cycle which is much: few bits, or a chip's neurons that do what the
network's cannot, leave it far from where it should be."""
FASTER = short_learning.PEAK / PEAK
"""Factor of the learning rate of a cycle then: it is that of fine-tuning (`tests.benchmarks.qat`)."""


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
        batches_to_best: those of them until the network that `left` is of.
        lost: accuracy on validation that the integers lost before.
        left: what they lose after it, against the network before; below 0 where they are more accurate.
        exceeded: whether a cycle made them more accurate, and none of these is kept because of the budgets.
        interrupted: whether Ctrl-C ended it.
    """

    graph: SNNGraph
    use: BudgetUse
    batches: int
    batches_to_best: int
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
        later = self.batches - self.batches_to_best
        if self.kept:
            now = f"they lose {left:.{digits}f}" if left >= 0 else f"they have {-left:.{digits}f} more than the network before"
            more = f"; {later} batches after them gained no more within the budgets" if later else ""
            learning = f"after {self.batches_to_best} batches with the chip's rounding {now}{more}"
            return f"the integers lost {lost:.{digits}f} points of accuracy on validation; {learning}"
        learning = f"{self.batches} batches with the chip's rounding gained nothing"
        if self.exceeded:
            more = f", and {later} batches after them gained no more" if later else ""
            gain = f"gained {gained:.{digits}f} but exceed a budget{more}"
            learning = f"{self.batches_to_best} batches with the chip's rounding {gain}"
        return f"the integers lose {lost:.1f} points of accuracy on validation; {learning}, so the network from before is kept"


def learn_with_rounding(
    graph: SNNGraph,
    monitor: BudgetMonitor,
    form: IntegerForm,
    *,
    epochs: int,
    hints: Array | None = None,
    dual: float = 0.0,
    rate_scale: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    completes: bool = True,
    progress: Progress | None = None,
    store: LearningStore | None = None,
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
        rate_scale: factor of the learning rate.
        seed: order of the samples.
        device: of torch.
        completes: whether Ctrl-C keeps the best epoch so far; else it is raised.
        progress: is called after each epoch.
        store: keeps how far it has learnt, see `training.fit`.

    Returns:
        None where the integers lose no more than `TOLERANCE`.
    """
    val = monitor.dataset.val
    before = evaluate(graph, val)
    integers = evaluate(*form(graph, val))
    lost = before.accuracy - integers.accuracy
    if lost <= TOLERANCE:
        return None
    use = monitor.measure_with_training(graph)
    target = integers.synops.total / use.active_use if use.active_use else None  # what learns emits the spikes of the integers
    recipe = Recipe(
        epochs=epochs, learning_rate=rate_scale * PEAK, warm_up=0.1, seed=seed, synops_budget=target, dual=dual, keeps_zeros=True,
        interruptible=completes, device=device,
    )  # fmt: skip
    start = _Measured(graph=graph, use=use, right=integers.right, batches=0)
    networks, interrupted = _learn_cycles(start, monitor, form, recipe, hints, before.accuracy, progress, store)
    best = _choose_best(networks)
    kept = best is not start
    named = best if kept else max(networks, key=lambda network: network.accuracy)
    return RoundedLearning(
        graph=best.graph, use=best.use, batches=networks[-1].batches, batches_to_best=named.batches, lost=lost,
        left=before.accuracy - named.accuracy, kept=kept, exceeded=named is not best, interrupted=interrupted,
    )  # fmt: skip


def _learn_cycles(
    start: _Measured,
    monitor: BudgetMonitor,
    form: IntegerForm,
    recipe: Recipe,
    hints: Array | None,
    accuracy: float,
    progress: Progress | None,
    store: LearningStore | None,
) -> tuple[list[_Measured], bool]:
    """Learn until the integers lose no more than `ENOUGH` of an accuracy.

    Returns:
        The first network and that of each cycle, and whether Ctrl-C ended the last cycle.
    """
    hold = _measure if recipe.synops_budget is None else _hold_budget
    networks, latest, batches = [start], start.graph, 0
    for cycle in range(CYCLES):
        note = _name_cycle(progress, cycle)
        speed = choose_speed(accuracy - networks[-1].accuracy)
        faster = replace(recipe, learning_rate=speed * recipe.learning_rate)
        tuned = fit(latest, monitor.dataset, faster, hints=hints, rounding=form.rounding, progress=note, store=store)
        latest, recipe, batches = tuned.graph, replace(recipe, dual=tuned.dual), batches + tuned.batches
        networks.append(hold(latest, monitor, form, batches))
        if tuned.interrupted or accuracy - _choose_best(networks).accuracy <= ENOUGH:
            break
    return networks, tuned.interrupted


def choose_speed(lost: float) -> float:
    """Return the factor of a cycle's learning rate by the accuracy on validation that integers lose before it.

    >>> choose_speed(0.01), round(choose_speed(0.2), 2)
    (1.0, 3.33)
    """
    return FASTER if lost > MUCH else 1.0


def _name_cycle(progress: Progress | None, cycle: int) -> Progress | None:
    """Return a progress whose stage names the cycle, from the second one on; each counts its own epochs."""
    if progress is None:
        return None
    stage = "learn with rounding" if cycle == 0 else f"learn with rounding, cycle {cycle + 1}"
    return lambda facts: progress({**facts, "stage": stage})


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A network, its use of the budgets, how right its integers decide each validation sample, and the batches it learnt from."""

    graph: SNNGraph
    use: BudgetUse
    right: Array
    batches: int

    @property
    def accuracy(self) -> float:
        """Accuracy of the integers on validation."""
        return average_right(self.right)


def _measure(graph: SNNGraph, monitor: BudgetMonitor, form: IntegerForm, batches: int) -> _Measured:
    right = evaluate(*form(graph, monitor.dataset.val)).right
    return _Measured(graph=graph, use=monitor.measure_with_training(graph), right=right, batches=batches)


def _hold_budget(graph: SNNGraph, monitor: BudgetMonitor, form: IntegerForm, batches: int) -> _Measured:
    """Return a network whose thresholds, and where these are not enough its smallest weights, hold the budgets of its spikes.

    Where a budget is left over, lower thresholds use it, unless the accuracy of the integers falls by more than chance.
    """

    def relative_use(network: SNNGraph) -> float:
        return monitor.measure_with_training(network).active_use

    learnt = _measure(graph, monitor, form, batches)
    scaled = scale_thresholds(graph, relative_use)
    if learnt.use.active_use > 1:
        scaled = zero_weights(scaled, evaluate(scaled, monitor.dataset.val).counts, relative_use)
        return _measure(scaled, monitor, form, batches)
    held, noise = _measure(scaled, monitor, form, batches), accuracy_error(learnt.right, monitor.dataset.val.group)
    return held if held.accuracy >= learnt.accuracy - noise else learnt


def _choose_best(networks: Sequence[_Measured]) -> _Measured:
    """Return the first network unless another one is more accurate, and holds the budgets where the first does.

    Of several, one that holds the budgets comes first, then accuracy, then less learning.
    """
    first, *others = networks
    better = [other for other in others if other.accuracy > first.accuracy and (other.use.met or not first.use.met)]
    return max(better, key=lambda network: (network.use.met, network.accuracy), default=first)


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
