"""How is a pruned network fine-tuned until what counts is at its budget, not above and hardly below?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spear_deploy.data import Dataset
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pruning.budgets import ACTIVE, shown, words
from spear_deploy.pruning.tune import last_adjustments
from spear_deploy.pruning.tune.measure import Aims, Measured
from spear_deploy.training.evaluation import evaluate
from spear_deploy.training.fit import Recipe, fit
from spear_deploy.util.progress import Progress

SLACK = 0.005
"""The target of learning lies below the aim by what epochs differ from each other."""
ROUNDS = 4
"""Times that learning is taken up again; above the aim for a third of the epochs, from the third time on with channels trimmed
first; below it with a wider plan."""
WIDENINGS = 2
NEAR = (0.95, 1.04)
"""Between these shares of the aim the last exact trim does the rest."""


class Tuning:
    """Fine-tuning of one network.

    Args:
        graph: the pruned network.
        teacher: the network before pruning.
        dataset, aims: learns from the data until the aims are kept.
        widen: returns the plan that takes a factor more SynOps than a network, see `widening.wider`.
        seed: of the order of samples.
        progress: is told after each epoch.

    Attributes:
        graph, measured: the network, and what is used of the budgets.
        history: a row an epoch.
        notes: what could not be met.
        interrupted: whether Ctrl-C ended it.
    """

    def __init__(
        self,
        graph: SNNGraph,
        teacher: SNNGraph,
        dataset: Dataset,
        aims: Aims,
        widen: Callable[[SNNGraph, float], SNNGraph | None],
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.graph, self.teacher, self.dataset, self.aims, self.widen = graph, teacher, dataset, aims, widen
        self.seed, self.progress = seed, progress
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.interrupted = False
        self.measured: Measured = aims.measure(graph)

    def run(self, epochs: int) -> None:
        """Learn; while an aim is missed by much, move the target, widen the plan or trim its channels, and learn on."""
        target = self._target()
        dual = self._learn(epochs, target, 0.0, peak=1e-2)
        for turn in range(ROUNDS):
            use = self.measured.active
            if target is None or self.interrupted or NEAR[0] <= use <= NEAR[1]:
                break
            if use > 1:
                target /= use * (1 + SLACK)
                if turn >= ROUNDS // 2:
                    self.graph = last_adjustments.by_channels(self.graph, self.dataset, use - 1)
                dual = self._learn(max(1, -(-epochs // 3)), target, dual, peak=3e-3)
                continue
            wider = self.widen(self.graph, 1 / use) if turn < WIDENINGS else None
            if wider is None:
                break
            self.graph, self.measured = wider, self.aims.measure(wider)
            target = self._target()
            dual = self._learn(epochs, target, 0.0, peak=1e-2)
        self._finish(lambda: None if self.interrupted else self._learn(max(1, -(-epochs // 3)), target, dual, peak=3e-3))

    def _target(self) -> float | None:
        """Return the SynOps to learn at: what is measured may cost some per cent more or less than what learns."""
        use = self.measured.active
        return evaluate(self.graph, self.dataset.val).synops.total / use * (1 - SLACK) if use else None

    def _finish(self, more: Callable[[], object]) -> None:
        """Trim exactly, and tell what could not be met; `more` learns on for a while."""

        def value(graph: SNNGraph) -> float:
            return self.aims.pooled(graph).active

        if self.measured.active:
            self._trim_thresholds(value, more)
            self.measured = self.aims.pooled(self.graph)
            if self.measured.active > 1:
                counts = evaluate(self.graph, self.dataset.val).counts.sent
                self.graph = last_adjustments.by_weights(self.graph, counts, value)
        self.measured = self.aims.pooled(self.graph)
        for name, aim in self.measured.aims.items():
            used = self.measured.values[name]
            if used is not None and used > aim:
                where = " on validation" if name in ACTIVE else ""
                self.notes.append(
                    f"the {words(name)} budget could not be held with its margin: {shown(name, used)}{where}, aimed at "
                    f"{shown(name, aim)}; fine-tune longer or start from a narrower network"
                )
        if self.measured.over:
            self.notes.append(f"what will be deployed does not fit the chip: {self.measured.over}; ask for a smaller budget")

    def _trim_thresholds(self, value: last_adjustments.Value, more: Callable[[], object]) -> None:
        """Move the thresholds to the aim; where budget is left over, only if that costs no more accuracy than chance may.

        Where it would, the network learns on with its lower thresholds first (`more`), and is taken if that was enough.
        """
        before, measured = self.graph, self.measured
        left = 1 - value(before)
        self.graph = last_adjustments.by_thresholds(before, value)
        accuracy = self._accuracy(before)
        if left <= 0 or self._accuracy(self.graph) >= (least := accuracy - self._noise(accuracy)):
            return
        more()
        self.graph = last_adjustments.by_thresholds(self.graph, value)
        found = self._accuracy(self.graph)
        if found < least or not 1 - left < value(self.graph) <= 1:
            self.graph, self.measured = before, measured
            self.notes.append(
                f"{left:.1%} of the budget is left over: lower thresholds would have used it, and cost "
                f"{100 * (accuracy - found):.1f} points of accuracy"
            )

    def _accuracy(self, graph: SNNGraph) -> float:
        return evaluate(graph, self.dataset.val).accuracy

    def _noise(self, accuracy: float) -> float:
        """Return the standard error of an accuracy on validation."""
        return float((accuracy * (1 - accuracy) / len(self.dataset.val)) ** 0.5)

    def _learn(self, epochs: int, target: float | None, dual: float, peak: float) -> float:
        recipe = Recipe(epochs=epochs, learning_rate=peak, warm_up=0.1)
        tell = self.progress
        told = None if tell is None else (lambda facts: tell({**facts, "stage": "fine-tune"}))
        tuned = fit(
            self.graph, self.dataset, recipe, seed=self.seed, teacher=self.teacher, synops_budget=target, dual=dual,
            interruptible=True, progress=told,
        )  # fmt: skip
        self.graph, self.measured = tuned.graph, self.aims.measure(tuned.graph)
        self.history += [{**row, "target": target} for row in tuned.history]
        self.interrupted = tuned.interrupted
        return tuned.dual
