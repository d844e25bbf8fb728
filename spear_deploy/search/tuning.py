"""How is a pruned network fine-tuned until what counts is at its budget, not above and hardly below?"""

from __future__ import annotations

from typing import Any

from spear_deploy.data import Dataset
from spear_deploy.graph import SNNGraph
from spear_deploy.search import trim
from spear_deploy.search.aims import Aims, Measured
from spear_deploy.search.budgets import ACTIVE, shown, words
from spear_deploy.training import Progress, Recipe, evaluate, fit

SLACK = 0.005
"""The target of learning lies below the aim by what epochs differ from each other."""
ROUNDS = 4
"""Times that learning is taken up again, each for a third of the epochs; from the third on, channels are trimmed first."""
NEAR = (0.95, 1.04)
"""Between these shares of the aim the last exact trim does the rest."""


class Tuning:
    """Fine-tuning of one network.

    Args:
        graph: the pruned network.
        teacher: the network before pruning.
        dataset, aims: learns from the data until the aims are kept.
        seed: of the order of samples.
        progress: is told after each epoch.

    Attributes:
        graph, measured: the network, and what is used of the budgets.
        history: a row an epoch.
        notes: what could not be met.
        interrupted: whether Ctrl-C ended it.
    """

    def __init__(
        self, graph: SNNGraph, teacher: SNNGraph, dataset: Dataset, aims: Aims, seed: int, progress: Progress | None
    ) -> None:
        self.graph, self.teacher, self.dataset, self.aims = graph, teacher, dataset, aims
        self.seed, self.progress = seed, progress
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.interrupted = False
        self.measured: Measured = aims.measure(graph)

    def run(self, epochs: int) -> None:
        """Learn; while an aim is missed by much, move the target or the thresholds, later trim channels, and learn on.

        What is measured may cost some per cent more or less than what learns: the first target allows for that.
        """
        use = self.measured.active
        target = self._synops() / use * (1 - SLACK) if use else None
        dual = self._learn(epochs, target, 0.0, peak=1e-2)
        for turn in range(ROUNDS):
            use = self.measured.active
            if target is None or self.interrupted or NEAR[0] <= use <= NEAR[1]:
                break
            if use > 1:
                target /= use * (1 + SLACK)
                if turn >= ROUNDS // 2:
                    self.graph = trim.by_channels(self.graph, self.dataset, use - 1)
            elif not self._raised(turn):
                break
            dual = self._learn(max(1, -(-epochs // 3)), target, dual, peak=3e-3)
        self._finish()

    def _raised(self, turn: int) -> bool:
        """Lower the thresholds where budget is left over; say whether that helped, the first times."""
        before = self.graph
        self.graph = trim.by_thresholds(before, lambda graph: self.aims.measure(graph).active)
        return turn < ROUNDS // 2 and self.graph is not before

    def _finish(self) -> None:
        """Trim exactly, and tell what could not be met."""

        def value(graph: SNNGraph) -> float:
            return self.aims.pooled(graph).active

        if self.measured.active:
            self.graph = trim.by_thresholds(self.graph, value)
            self.measured = self.aims.pooled(self.graph)
            if self.measured.active > 1:
                counts = evaluate(self.graph, self.dataset.val).counts.sent
                self.graph = trim.by_weights(self.graph, counts, value)
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

    def _synops(self) -> float:
        return evaluate(self.graph, self.dataset.val).synops.total

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
