"""Fine-tuning of a pruned network to exactly its budget.

A plan is chosen before fine-tuning, by a prediction. Where fine-tuning shows that it leaves budget unused, the plan grows in its
own proportions, from the network before pruning, and learns again: more channels use the budget, not lower thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from spear_deploy.data import Dataset
from spear_deploy.data.input_sums import INPUT_TWICE
from spear_deploy.data.labels import average_right
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE, format_amount, resource_name
from spear_deploy.pruning.candidates import Evaluator, Widths
from spear_deploy.pruning.chip_costs import max_use
from spear_deploy.pruning.importance import Criterion
from spear_deploy.pruning.search.projection import project_ratios
from spear_deploy.pruning.short_learning import PEAK
from spear_deploy.pruning.tune.last_adjustments import RelativeUse, drop_channels, restore_weights, scale_thresholds, zero_weights
from spear_deploy.pruning.tune.margins import accuracy_error
from spear_deploy.pruning.tune.measure import BudgetMonitor, BudgetUse
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.pruning.tune.thin_weights import WeightRemoval, fill_zero_weights, thin_to_synops
from spear_deploy.quantize.rounding import INTEGERS_COUNT
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import fit
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.training.losses import score_outputs
from spear_deploy.training.recipe import Recipe, schedule_removals
from spear_deploy.util.progress import Progress

SLACK = 0.005
"""Relative distance of the target of learning below the aim, since epochs differ from each other."""
ROUNDS = 4
"""Maximum of times that learning is taken up again for a third of the epochs, above the aim with weights removed first where some
were before, else from the third time on with channels dropped first; below it with a wider plan."""
WIDENINGS = 2
NEAR = (0.95, 1.04)
"""Shares of the aim between which the last exact adjustments do the rest."""
LATER_PEAK = 3e-3
"""Learning rate of later fine-tunings of a plan, where the first has `PEAK`."""
COLLAPSE = 2.0
"""Standard errors of the accuracy on validation by which it has to fall for learning on to be undone."""
CALM_PEAK = 1e-3
"""Learning rate behind it, a tenth of `PEAK`."""


class _Learnt(NamedTuple):
    """What a learning left: network, use of the budgets, the rest of the state, and how right each sample of validation is."""

    graph: SNNGraph
    use: BudgetUse
    unthinned: SNNGraph | None
    dual: float
    target: float | None
    right: Array


class FineTuning:
    """Fine-tuning of one network.

    Args:
        graph: the pruned network.
        monitor: measures the use of the budgets; holds the network before pruning (teacher, and source of wider plans) and the
            dataset, whose `train` is learnt from.
        criterion: importance of the channels of a wider plan.
        unthinned: the same network with its removed weights at their last values, where weights were removed: then weights are
            removed and come back in place of channels.
        removal: of weights, during the first learning.
        hints: scores by class of the network before pruning on the training split, see `training.fit`; computed unless given.
        rate_scale: factor of all learning rates.
        seed: of the order of samples.
        device: of torch.
        completes: whether Ctrl-C keeps the best network so far; else it is raised.
        progress: is called after each epoch.
        store: keeps how far it has learnt, see `training.fit`.

    Attributes:
        graph, use: the network, and its use of the budgets.
        hints: of the network before pruning.
        history: a row an epoch.
        dual: dual variable of the SynOps penalty, as the last learning left it.
        batches: that were learnt from.
        batches_of_removal: those of them until the last removal of weights.
        rounding: of the chip, for a network whose inputs are sent twice because its neurons take spike by spike (ODIN).
        notes: a sentence for each budget that could not be held.
        interrupted: whether Ctrl-C ended it.
        was_undone: whether learning on cost accuracy, and an earlier network was taken.
        explains_unused: whether a note says why a part of an aim is not used.
    """

    def __init__(
        self,
        graph: SNNGraph,
        monitor: BudgetMonitor,
        *,
        criterion: Criterion = "l1",
        unthinned: SNNGraph | None = None,
        removal: WeightRemoval | None = None,
        hints: Array | None = None,
        rate_scale: float = 1.0,
        seed: int = 0,
        device: str = "cpu",
        completes: bool = True,
        progress: Progress | None = None,
        store: LearningStore | None = None,
    ) -> None:
        self.device, self.completes, self.store = device, completes, store
        self.graph, self.monitor = graph, monitor
        self.dense, self.dataset = monitor.dense, monitor.dataset
        self.criterion, self.unthinned, self.seed, self.progress = criterion, unthinned, seed, progress
        self.removal, self.rate_scale = removal, rate_scale
        forms = [form for form in monitor.deployed if isinstance(form, IntegerForm)]
        # floats add up a step, the chip's neurons meet their threshold spike by spike: only the integers are learnt and count
        self.rounding = forms[0].rounding if forms and INPUT_TWICE in graph.metadata else None
        self.hints = score_outputs(self.dense, self.dataset.trained.train) if hints is None else hints
        self.history: list[dict[str, Any]] = []
        self.batches = self.batches_of_removal = 0
        self.notes: list[str] = []
        self.interrupted = self.was_undone = self.explains_unused = False
        self.use: BudgetUse = monitor.measure(graph)
        self.dual = 0.0

    def run(self, epochs: int) -> None:
        """Learn; while an aim is missed by much, move the target, widen the plan or drop channels, and learn on."""
        target = self._choose_target()
        self._learn(epochs, target, PEAK, self.removal)
        if self.removal is not None and self.removal.gives_back:
            self.unthinned = fill_zero_weights(self.graph, self.removal.unthinned or self.graph)
        target = self._learn_on(epochs, target)
        if self.was_undone and not self.interrupted:
            self._learn_calmly(epochs, target)
        if self.use.active_use:
            self._adjust(_third(epochs), target)
        self.use = self.monitor.measure_with_training(self.graph)
        self._note_overruns()

    def _learn_on(self, epochs: int, target: float | None) -> float | None:
        """Learn on while an aim is missed by much, and return the target; back to an earlier network where that cost accuracy."""
        if target is None:
            return None
        networks = [self._remember(target)]
        for turn in range(ROUNDS):
            use = self.use.active_use
            if target is None or self.interrupted or NEAR[0] <= use <= NEAR[1]:
                break
            if use > 1:
                if self.unthinned is not None:
                    self.graph = self._drop(use - 1)
                elif turn >= ROUNDS // 2:  # the price cannot lower spikes of the input
                    self.graph = self._drop(use - 1)
                    self.use, self.dual = self.monitor.measure(self.graph), 0.0
                    target = self._choose_target()  # the target of a network that was too large would leave the aim unused
                else:
                    target /= use * (1 + SLACK)
                self._learn(_third(epochs), target, LATER_PEAK)
                networks.append(self._remember(target))
                continue
            if turn >= WIDENINGS or (self.removal is not None and self.unthinned is None):  # weights are removed for good
                break
            if self.unthinned is not None:
                self.graph = self._thin(1 / use)
                self._learn(_third(epochs), target, LATER_PEAK)
                networks.append(self._remember(target))
                continue
            wide = widen_plan(self.dense, self.graph, 1 / use, self.dataset, monitor=self.monitor, criterion=self.criterion)
            if wide is None:
                break
            self.graph, self.use, self.dual = wide, self.monitor.measure(wide), 0.0
            target = self._choose_target()
            self._learn(epochs, target, PEAK)
            networks.append(self._remember(target))
        return self._return_to_best(networks)

    def _learn_calmly(self, epochs: int, target: float | None) -> None:
        """Learn on at a tenth of the rate, unless that costs accuracy or leaves the aim."""
        before = self._remember(target)
        self._learn(epochs, target, CALM_PEAK)
        after = self._remember(target)
        if after.use.active_use > 1 or after.use.over or average_right(after.right) < average_right(before.right):
            self._restore(before)

    def _remember(self, target: float | None) -> _Learnt:
        right = evaluate(self.graph, self.dataset.val).right
        return _Learnt(self.graph, self.use, self.unthinned, self.dual, target, right)

    def _return_to_best(self, networks: Sequence[_Learnt]) -> float | None:
        """Take the best earlier network within the aim where the accuracy fell by more than chance since; return its target."""
        last = networks[-1]
        within = [network for network in networks if network.use.active_use <= 1 and not network.use.over]
        best = max(within, key=lambda network: average_right(network.right), default=last)
        lost = average_right(best.right) - average_right(last.right)
        if lost <= COLLAPSE * accuracy_error(best.right, self.dataset.val.group):
            return last.target
        self._restore(best)
        self.was_undone = self.explains_unused = True
        self.notes.append(
            f"learning on, to use what was left of the aim, cost {100 * lost:.1f} points of accuracy on validation; it was undone"
        )
        return best.target

    def _restore(self, network: _Learnt) -> None:
        self.graph, self.use, self.unthinned, self.dual = network.graph, network.use, network.unthinned, network.dual

    def note_rounding(self) -> list[str]:
        """Return which accuracy counts, where the network learnt in the chip's integers from the first batch on."""
        return [] if self.rounding is None else [INTEGERS_COUNT]

    def _drop(self, excess: float) -> SNNGraph:
        """Return the network without a relative excess of SynOps: weights are removed where some were before, else channels."""
        return drop_channels(self.graph, self.dataset, excess) if self.unthinned is None else self._thin(1 / (1 + excess))

    def _thin(self, factor: float) -> SNNGraph:
        """Return the network with its removed weights chosen anew, for a factor of its SynOps."""
        assert self.unthinned is not None
        measured = evaluate(self.graph, self.dataset.val)
        self.unthinned = fill_zero_weights(self.graph, self.unthinned)
        return thin_to_synops(self.unthinned, measured.counts, measured.synops.total * factor)

    def _choose_target(self) -> float | None:
        """Return the SynOps to learn at; the deployed form may use some per cent more or less than the network that learns."""
        use = self.use.active_use
        return evaluate(self.graph, self.dataset.val).synops.total / use * (1 - SLACK) if use else None

    def _learn(self, epochs: int, target: float | None, peak: float, removal: WeightRemoval | None = None) -> None:
        """Learn on towards a target in SynOps per inference, with a peak of the learning rate that `rate_scale` multiplies.

        Weights that are zero at the start stay zero, such as those of a convolution written out: each that came back would be a
        synapse more than was counted. Weights that a removal made zero may come back with the next one.
        """
        recipe = Recipe(
            epochs=epochs, learning_rate=self.rate_scale * peak, warm_up=0.1, seed=self.seed, synops_budget=target,
            dual=self.dual, interruptible=self.completes, keeps_zeros=True, device=self.device,
        )  # fmt: skip
        report = self.progress
        progress = None if report is None else (lambda facts: report({**facts, "stage": "fine-tune"}))
        tuned = fit(
            self.graph, self.dataset, recipe, hints=self.hints, rounding=self.rounding, remove=removal, progress=progress,
            store=self.store,
        )  # fmt: skip
        if removal is not None:
            removals = schedule_removals(recipe.count_batches(len(self.dataset.train)))
            self.batches_of_removal = min(max(removals), tuned.batches)
        self.graph, self.use, self.dual = tuned.graph, self.monitor.measure(tuned.graph), tuned.dual
        self.history += [{**row, "target": target} for row in tuned.history]
        self.batches += tuned.batches
        self.interrupted = tuned.interrupted

    def _adjust(self, epochs: int, target: float | None) -> None:
        """Adjust the network to its aim exactly: thresholds, and if that is not enough, weights."""

        def relative_use(graph: SNNGraph) -> float:
            return self.monitor.measure_with_training(graph).active_use

        self._adjust_thresholds(relative_use, epochs, target)
        self.use = self.monitor.measure_with_training(self.graph)
        if self.use.active_use > 1:
            counts = evaluate(self.graph, self.dataset.val).counts
            self.graph = zero_weights(self.graph, counts, relative_use)
        elif self.unthinned is not None:
            self._restore_weights(relative_use)

    def _restore_weights(self, relative_use: RelativeUse) -> None:
        """Give removed weights back up to the aim, unless the accuracy falls by that."""
        assert self.unthinned is not None
        before = evaluate(self.graph, self.dataset.val)
        restored = restore_weights(self.graph, self.unthinned, before.counts, relative_use)
        if self._measure_accuracy(restored) >= before.accuracy:
            self.graph = restored

    def _adjust_thresholds(self, relative_use: RelativeUse, epochs: int, target: float | None) -> None:
        """Move the thresholds to the aim; lower thresholds stay only if the accuracy falls no more than by chance.

        Where it falls more, the network learns on with its lower thresholds, and is taken if that is enough.
        """
        before, use_before = self.graph, self.use
        unused = 1 - relative_use(before)
        self.graph = scale_thresholds(before, relative_use)
        measured = evaluate(before, self.dataset.val)
        accuracy, noise = measured.accuracy, accuracy_error(measured.right, self.dataset.val.group)
        if unused <= 0 or self._measure_accuracy(self.graph) >= accuracy - noise:
            return
        if not self.interrupted:
            self._learn(epochs, target, LATER_PEAK)
        self.graph = scale_thresholds(self.graph, relative_use)
        adjusted = self._measure_accuracy(self.graph)
        if adjusted < accuracy - noise or not 1 - unused < relative_use(self.graph) <= 1:
            self.graph, self.use = before, use_before
            self.explains_unused = True
            self.notes.append(
                f"{unused:.1%} of the aim is left over: lower thresholds would have used it, and cost "
                f"{100 * (accuracy - adjusted):.1f} points of accuracy on validation"
            )

    def _measure_accuracy(self, graph: SNNGraph) -> float:
        return evaluate(graph, self.dataset.val).accuracy

    def _note_overruns(self) -> None:
        """Add a note for each budget that could not be held."""
        for name, aim in self.use.aims.items():
            value = self.use.values[name]
            if value is not None and value > aim:
                where = " on validation" if name in ACTIVE else ""
                self.notes.append(
                    f"the {resource_name(name)} budget could not be held with its margin: {format_amount(name, value)}{where}, "
                    f"aimed at {format_amount(name, aim)}; fine-tune longer or start from a narrower network"
                )
        if self.use.over:
            self.notes.append(f"what will be deployed does not fit the chip: {self.use.over}; ask for a smaller budget")


def _third(epochs: int) -> int:
    return max(1, -(-epochs // 3))


def widen_plan(
    graph: SNNGraph,
    narrow: SNNGraph,
    factor: float,
    dataset: Dataset,
    *,
    monitor: BudgetMonitor | None = None,
    criterion: Criterion = "l1",
) -> SNNGraph | None:
    """Return a plan of `graph` that by estimate takes `factor` times the SynOps of a narrow one, not fine-tuned yet.

    Args:
        graph: the network before pruning.
        narrow: a network pruned from it.
        factor: more than 1.
        dataset: re-estimates batch norm.
        monitor: whose limits of size, and of the chip where they are part of the budgets, hold for the wider plan too.
        criterion: importance of the channels that stay.

    Returns:
        None where one channel more in any group is too much.
    """
    chip = None if monitor is None else monitor.chip
    evaluator = Evaluator(graph, dataset, criterion=criterion, chip=chip)
    before = tuple(len(narrow.metadata["kept_channels"][group.name]) for group in evaluator.groups)
    max_synops = factor * evaluator.estimate(before)
    sizes = {name: limit for name, limit in monitor.limits.items() if name not in ACTIVE} if monitor else {}
    fit = monitor is not None and monitor.budgets.fit

    def fits(widths: Widths) -> bool:
        if evaluator.estimate(widths) > max_synops or (sizes and max_use(evaluator.sizes(widths), sizes) > 1):
            return False
        return not (fit and chip is not None and evaluator.place(widths)[1])

    ratios = [width / channels for width, channels in zip(before, evaluator.channels, strict=True)]
    widths = project_ratios(ratios, evaluator.channels, before, fits)
    return None if widths == before else evaluator.build(widths)
