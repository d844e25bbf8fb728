"""How does a network learn, and when is it at its best?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import DataError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training.evaluation import BATCH, QuickEvaluation, quick_evaluate
from spear_deploy.training.losses import losses, mean_outputs
from spear_deploy.training.synops_penalty import SpikePrice
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.norse.network import NorseNetwork


SMALL = 1_000_000
"""Neurons in a batch below which one thread is used."""
LAST_PART = 2 / 3
"""After this share of the epochs a network may be chosen."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What learning gave.

    Attributes:
        graph: the network of the best epoch by validation among the last third, in which the learning rate is low; within
            the budget, if any of them was.
        history: a row an epoch: loss, validation accuracy and SynOps, the price of SynOps (`dual`).
        last: what the network of the last epoch made of validation; None if it was stopped before the first epoch was over.
        dual: the price at the end.
        interrupted: whether Ctrl-C ended it early; `graph` is then the best epoch so far, or the start.
    """

    graph: SNNGraph
    history: tuple[dict[str, float], ...]
    last: QuickEvaluation | None = None
    dual: float = 0.0
    interrupted: bool = False


def train(
    network: SNNGraph | NorseNetwork,
    dataset: Dataset,
    *,
    epochs: int = 25,
    seed: int = 0,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> SNNGraph:
    """Train a network and return it as of its best epoch on the validation split.

    Args:
        network: the start.
        dataset: learns from `train`, chooses by `val`, does not look at `test`.
        epochs: passes over the training split.
        seed: order of the samples. The same seed gives the same weights on the same machine and number of threads.
        recipe: overrides `epochs` and the defaults of learning.
        progress: is told after each epoch.

    Raises:
        DataError: data and network do not fit.
        UnsupportedError: an integer network.
    """
    return fit(_as_graph(network), dataset, recipe or Recipe(epochs=epochs), seed=seed, progress=progress).graph


def fine_tune(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    epochs: int = 20,
    seed: int = 0,
    synops_budget: float | None = None,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> SNNGraph:
    """Train a pruned network on, towards at most `synops_budget` SynOps per inference if given.

    The result is the best of the last epochs on validation among those within the budget, else the one that is cheapest.
    `search.prune_to_budget` goes on until the budget holds.
    """
    recipe = recipe or Recipe(epochs=epochs, warm_up=0.1)
    return fit(graph, dataset, recipe, seed=seed, synops_budget=synops_budget, progress=progress).graph


def fit(
    graph: SNNGraph,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    synops_budget: float | None = None,
    dual: float = 0.0,
    teacher: SNNGraph | None = None,
    interruptible: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Fit:
    """Learn by a recipe and tell how it went.

    Args:
        graph, dataset, recipe, seed: what learns what, how, and in which order.
        synops_budget: SynOps per inference that learning is priced towards.
        dual: the price of SynOps to start with.
        teacher: a network, usually the one before pruning, whose outputs are learnt besides the labels.
        interruptible: Ctrl-C ends learning and returns the best so far, instead of being passed on.
        device: of torch.
        progress: is told after each epoch.
    """
    dataset.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))
    with threads_for(graph):
        return _Learning(graph, dataset, recipe, seed, synops_budget, dual, teacher, device).run(interruptible, progress)


@contextmanager
def threads_for(graph: SNNGraph) -> Iterator[None]:
    """Let torch use one thread for a small network, for a while.

    Threads that wait for each other gain little there, lose much on a busy machine, and let sums depend on their number.
    """
    import torch

    before = torch.get_num_threads()
    if BATCH * graph.neurons < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Learning:
    """A network while it learns, and the best that it was."""

    def __init__(
        self,
        graph: SNNGraph,
        dataset: Dataset,
        recipe: Recipe,
        seed: int,
        budget: float | None,
        dual: float,
        teacher: SNNGraph | None,
        device: str,
    ) -> None:
        import torch

        from spear_deploy.norse.network import to_norse

        self.dataset, self.recipe, self.budget, self.device = dataset, recipe, budget, device
        self.network = to_norse(graph, surrogate=recipe.surrogate).to(device)
        self.steps = recipe.batches(len(dataset.train))
        rate = recipe.learning_rate
        self.optimiser = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=recipe.weight_decay)
        rising = recipe.warm_up * self.steps
        rising += 0.5 * (rising == 1)  # OneCycleLR divides by this less one
        self.cycle = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, self.steps, pct_start=rising / self.steps)
        ramp = max(1, self.steps // 2)
        self.price = None if budget is None else SpikePrice(graph, budget, dual, dataset.kind, ramp, device=device)
        self.rng = np.random.default_rng(seed)
        self.labels = torch.from_numpy(np.array(dataset.train.y)).to(device)
        self.hints = None if teacher is None else torch.from_numpy(mean_outputs(teacher, dataset.train)).to(device)
        self.best = _Best(graph)
        self.history: list[dict[str, float]] = []
        self.last: QuickEvaluation | None = None
        self.taken = 0

    def run(self, interruptible: bool, progress: Progress | None) -> Fit:
        """Learn to the end of the recipe, or until Ctrl-C."""
        interrupted = False
        try:
            for epoch in range(self.recipe.epochs):
                if self.taken < self.steps:
                    self._epoch(epoch, progress)
        except KeyboardInterrupt:
            if not interruptible:
                raise
            interrupted = True
        dual = self.price.dual if self.price else 0.0
        return Fit(graph=self.best.graph, history=tuple(self.history), last=self.last, dual=dual, interrupted=interrupted)

    def _epoch(self, epoch: int, progress: Progress | None) -> None:
        from spear_deploy.norse.network import to_graph

        loss = self._pass()
        graph = to_graph(self.network.eval())
        self.last = quick_evaluate(self.network, graph, self.dataset.val)
        found = {"accuracy": self.last.accuracy, "synops": self.last.synops}
        self.history.append({"epoch": epoch + 1, "loss": loss, **found, "dual": self.price.dual if self.price else 0.0})
        late = epoch + 1 > LAST_PART * self.recipe.epochs or self.taken >= self.steps
        self.best.offer(graph, self.last, self.budget, late)
        if progress is not None:
            progress({"stage": "learn", "done": epoch + 1, "of": self.recipe.epochs, **self.history[-1]})

    def _pass(self) -> float:
        """Take a step on each batch of the training split, and return the mean cross-entropy."""
        import torch

        self.network.train()
        entropies = []
        numbered = replace(self.dataset.train, y=np.arange(len(self.dataset.train)))
        for x, number in numbered.batches(self.recipe.batch_size, self.rng):
            if len(number) < 2 or self.taken >= self.steps:  # a batch norm needs two
                continue
            y, hint = self.labels[number], None if self.hints is None else self.hints[number]
            batch = torch.from_numpy(x).to(self.device)
            total, entropy = losses(self.network, batch, y, hint, self.recipe.label_smoothing, self.price)
            self.optimiser.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            self.cycle.step()
            self.taken += 1
            entropies.append(float(entropy.detach()))
        return float(np.mean(entropies)) if entropies else 0.0


@dataclass
class _Best:
    """The best epoch so far: one of the last third counts more than any before, which stand in for it after Ctrl-C."""

    graph: SNNGraph
    rank: tuple[float, ...] = field(default=(-np.inf,))

    def offer(self, graph: SNNGraph, found: QuickEvaluation, budget: float | None, late: bool) -> None:
        """Take a network that is at least as good: within the budget first, then more accurate, then later."""
        over = 0.0 if budget is None else max(0.0, found.synops - budget)
        rank = (float(late), -over, found.accuracy)
        if rank >= self.rank:
            self.graph, self.rank = graph, rank


def _as_graph(network: SNNGraph | NorseNetwork) -> SNNGraph:
    if isinstance(network, SNNGraph):
        return network
    from spear_deploy.norse.network import to_graph

    return to_graph(network)


# FOLDED from spear_deploy/training/fit.py
# How is learnt: which optimiser, how long, and from whom?


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn: AdamW, one cycle of the learning rate, cross-entropy on the mean of the output over time.

    Attributes:
        epochs: passes over the training split.
        learning_rate: the peak of the cycle.
        warm_up: share of the steps in which the learning rate rises.
        label_smoothing: share of the target spread over all classes; it keeps margins moderate, which also survives
            coarse weights better.
        batch_size, weight_decay: as usual.
        surrogate: gradient of a spike, one of Norse's.
        steps: batches in all; ends before `epochs` are over, for a short look at what a network can become.
    """

    epochs: int
    learning_rate: float = 1e-2
    warm_up: float = 0.3
    label_smoothing: float = 0.1
    batch_size: int = BATCH
    weight_decay: float = 1e-2
    surrogate: str = "triangle"
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise DataError(
                f"recipe: {self.epochs} epochs, batches of {self.batch_size}, learning rate {self.learning_rate:g} given; "
                "expected at least 1, at least 2 (batch norm needs two samples), and more than 0"
            )
        if self.steps is not None and self.steps < 1:
            raise DataError(f"recipe: {self.steps} steps given, expected at least 1, or None for whole epochs")

    def batches(self, samples: int) -> int:
        """Return how many batches are learnt from in all."""
        whole = max(1, self.epochs * -(-samples // self.batch_size))
        return whole if self.steps is None else min(whole, self.steps)
