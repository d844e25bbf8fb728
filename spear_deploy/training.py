"""What accuracy is left, and how is it won back?

`evaluate` runs a network as it is stored and counts: accuracy by the one decision rule (`decide`), SynOps exactly.
`train` and `fine_tune` learn by backpropagation through time on the Norse network of a graph, and return a new graph.
With a SynOps budget, fine-tuning closes the loop: a dual variable on the *measured* SynOps of each batch makes spikes as
dear as they must be (`spike_price`).

torch is imported only where something is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.data import Dataset, Split
from spear_deploy.errors import DataError
from spear_deploy.graph import INPUT, SNNGraph, chain
from spear_deploy.layers import LI, LIF, Array, AvgPool, BatchNorm, Conv2d, Dense, Layer
from spear_deploy.simulator import SpikeCounts, simulate
from spear_deploy.spike_price import SpikePrice
from spear_deploy.synops import SynOps, cost_per_spike, synops

if TYPE_CHECKING:
    import torch

    from spear_deploy.interchange.norse_network import NorseNetwork

Progress = Callable[[Mapping[str, Any]], None]
"""Is called with JSON-able facts: at least `stage`, `done` and `of`."""

BATCH = 64
"""Samples at a time; larger batches leave the cache and are slower."""
SMALL = 1_000_000
"""Neurons in a batch below which one thread is used."""
LOGIT_SCALE = 10.0
"""Cross-entropy sees 10 times the mean of the readout: membrane potentials are too small to be sure with."""
LAST_PART = 2 / 3
"""After this share of the epochs a network may be chosen."""


HINT_WEIGHT = 0.5
"""Share of the loss that a teacher's outputs get; the labels get the rest."""
HINT_TEMPERATURE = 2.0


def decide(output: Array) -> Array:
    """Return the predicted labels: the output with the largest mean over time. Every part of the toolkit decides by this.

    Args:
        output: (T, B, *output shape): spikes, or the values of a readout, floating point or integer.

    Returns:
        (B,) int64; the first of equal outputs.

    >>> decide(np.array([[[1, 0, 0]], [[0, 1, 1]], [[0, 0, 1]]])).tolist()
    [2]
    """
    flat = output.reshape(*output.shape[:2], -1)
    total = flat.sum(axis=0, dtype=np.int64 if flat.dtype.kind in "biu" else np.float64)
    return np.asarray(total.argmax(axis=1), np.int64)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network made of a split.

    Attributes:
        accuracy: share of right decisions, 0..1.
        synops: exact, mean per inference.
        counts: spikes of every layer, summed over the split.
        synops_per_sample: (N,) float64.
        labels: (N,) decisions.
    """

    accuracy: float
    synops: SynOps
    counts: SpikeCounts
    synops_per_sample: Array
    labels: Array


def evaluate(graph: SNNGraph, split: Split) -> Evaluation:
    """Run a network, floating point or integer, on a split.

    Raises:
        DataError: the samples do not fit the network, or labels are out of range.
    """
    outputs = int(np.prod(graph.shape_of(graph.output)))
    if split.y.max(initial=0) >= outputs:
        raise DataError(f"labels go up to {split.y.max()}, the network has outputs 0..{outputs - 1}; check the labels")
    cost = cost_per_spike(graph)
    if split.kind == "current":
        cost[INPUT] = np.zeros(graph.input_shape)
    labels, per_sample, counts = [], [], None
    for x, _ in split.batches(BATCH):
        run = simulate(graph, x, kind=split.kind, record=["spikes"])
        labels.append(decide(run.output))
        spikes = {INPUT: x, **run.spikes}
        per_sample.append(sum(_per_sample(spikes[name], cost[name]) for name in cost))
        counts = run.counts if counts is None else counts + run.counts
    if counts is None:
        raise DataError("the split is empty; give it at least one sample")
    decided = np.concatenate(labels)
    return Evaluation(
        accuracy=float(np.mean(decided == split.y)),
        synops=synops(graph, counts),
        counts=counts,
        synops_per_sample=np.concatenate(per_sample),
        labels=decided,
    )


def _per_sample(spikes: Array, cost: Array) -> Array:
    """Price the spikes (T, B, *shape) of one layer: (B,)."""
    return spikes.sum(axis=0, dtype=np.float64).reshape(spikes.shape[1], -1) @ cost.ravel()


# ---------------------------------------------------------------------------------------------------------- learning


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
    """

    epochs: int
    learning_rate: float = 1e-2
    warm_up: float = 0.3
    label_smoothing: float = 0.1
    batch_size: int = BATCH
    weight_decay: float = 1e-2
    surrogate: str = "triangle"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise DataError(
                f"recipe: {self.epochs} epochs, batches of {self.batch_size}, learning rate {self.learning_rate:g} given; "
                "expected at least 1, at least 2 (batch norm needs two samples), and more than 0"
            )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What learning gave.

    Attributes:
        graph: the network of the best epoch by validation among the last third, in which the learning rate is low; within
            the budget, if any of them was.
        history: a row an epoch: loss, validation accuracy and SynOps, the price of SynOps (`dual`).
        dual: the price at the end.
    """

    graph: SNNGraph
    history: tuple[dict[str, float], ...]
    dual: float = 0.0


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
    progress: Progress | None = None,
) -> Fit:
    """Learn by a recipe and tell how it went.

    Args:
        graph, dataset, recipe, seed: what learns what, how, and in which order.
        synops_budget: SynOps per inference that learning is priced towards.
        dual: the price of SynOps to start with.
        teacher: a network, usually the one before pruning, whose outputs are learnt besides the labels.
        progress: is told after each epoch.
    """
    dataset.check(graph.input_shape, int(np.prod(graph.shape_of(graph.output))))
    with threads_for(graph):
        return _fit(graph, dataset, recipe, seed, synops_budget, dual, teacher, progress)


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


def _fit(
    graph: SNNGraph,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    synops_budget: float | None,
    dual: float,
    teacher: SNNGraph | None,
    progress: Progress | None,
) -> Fit:
    import torch

    from spear_deploy.interchange.norse_network import to_graph, to_norse

    network = to_norse(graph, surrogate=recipe.surrogate)
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = max(1, recipe.epochs * -(-len(dataset.train) // recipe.batch_size))
    price = None if synops_budget is None else SpikePrice(graph, synops_budget, dual, dataset.kind, max(1, steps // 2))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, steps, pct_start=recipe.warm_up)
    rng = np.random.default_rng(seed)
    best, history = _Best(graph), []
    labels = torch.from_numpy(np.array(dataset.train.y))
    hints = None if teacher is None else torch.from_numpy(_mean_outputs(teacher, dataset.train))
    numbered = replace(dataset.train, y=np.arange(len(dataset.train)))
    for epoch in range(recipe.epochs):
        network.train()
        losses = []
        for x, number in numbered.batches(recipe.batch_size, rng):
            if len(number) > 1:  # a batch norm needs two
                y, hint = labels[number], None if hints is None else hints[number]
                losses.append(_learn(network, torch.from_numpy(x), y, hint, optimiser, recipe.label_smoothing, price))
                cycle.step()
        learnt = to_graph(network.eval())
        found = quick_evaluate(network, learnt, dataset.val)
        history.append({"epoch": epoch + 1, "loss": float(np.mean(losses)), **found, "dual": price.dual if price else 0.0})
        if epoch + 1 > LAST_PART * recipe.epochs:
            best.offer(learnt, found, synops_budget)
        if progress is not None:
            progress({"stage": "learn", "done": epoch + 1, "of": recipe.epochs, **history[-1]})
    return Fit(graph=best.graph, history=tuple(history), dual=price.dual if price else 0.0)


def _learn(
    network: NorseNetwork,
    x: torch.Tensor,
    y: torch.Tensor,
    hint: torch.Tensor | None,
    optimiser: Any,
    smoothing: float,
    price: SpikePrice | None,
) -> float:
    """Take one step on a batch (T, B, *input), and return its cross-entropy."""
    import torch

    output, spikes = network(x, record=True)
    mean = output.flatten(2).mean(0)
    loss = torch.nn.functional.cross_entropy(LOGIT_SCALE * mean, y, label_smoothing=smoothing)
    total = loss if hint is None else (1 - HINT_WEIGHT) * loss + HINT_WEIGHT * _distance(mean, hint)
    total = total if price is None else total + price.penalty(x, spikes)
    optimiser.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _distance(mean: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
    """Return the distillation loss of Hinton, Vinyals and Dean (arXiv 1503.02531): T² · KL of the softened outputs."""
    import torch

    soft = LOGIT_SCALE / HINT_TEMPERATURE
    student = torch.nn.functional.log_softmax(soft * mean, dim=1)
    teacher = torch.nn.functional.log_softmax(soft * hint, dim=1)
    return torch.nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * HINT_TEMPERATURE**2


def _mean_outputs(graph: SNNGraph, split: Split) -> Array:
    """Return what a network puts out, mean over time: (N, outputs) float32."""
    means = []
    for x, _ in split.batches(BATCH):
        output = simulate(graph, x, kind=split.kind).output
        means.append(output.reshape(*output.shape[:2], -1).mean(axis=0, dtype=np.float32))
    return np.concatenate(means)


def quick_evaluate(network: NorseNetwork, graph: SNNGraph, split: Split) -> dict[str, float]:
    """Return accuracy and SynOps on a split by the Norse network in evaluation mode, where candidates are many.

    Two to three times faster than `evaluate`; a sum that rounds otherwise in torch may move a spike.

    Args:
        network: in evaluation mode.
        graph: the graph that it computes now.
        split: the samples.
    """
    import torch

    cost = cost_per_spike(graph)
    right, total = 0, 0.0
    with torch.no_grad():
        for x, y in split.batches(256):
            output, spikes = network(x, record=True)
            right += int((decide(output.numpy()) == y).sum())
            emitted = {INPUT: x, **{name: value.numpy() for name, value in spikes.items()}}
            names = [name for name in cost if name != INPUT or split.kind == "spikes"]
            total += sum(float(np.vdot(emitted[name].sum(axis=(0, 1), dtype=np.float64), cost[name])) for name in names)
    return {"accuracy": right / len(split), "synops": total / len(split)}


@dataclass
class _Best:
    """The best epoch so far."""

    graph: SNNGraph
    rank: tuple[float, ...] = field(default=(-np.inf,))

    def offer(self, graph: SNNGraph, found: Mapping[str, float], budget: float | None) -> None:
        """Take a network that is at least as good: within the budget first, then more accurate, then later."""
        over = 0.0 if budget is None else max(0.0, found["synops"] - budget)
        rank = (-over, found["accuracy"])
        if rank >= self.rank:
            self.graph, self.rank = graph, rank


def _as_graph(network: SNNGraph | NorseNetwork) -> SNNGraph:
    if isinstance(network, SNNGraph):
        return network
    from spear_deploy.interchange.norse_network import to_graph

    return to_graph(network)


# ----------------------------------------------------------------------------------------------- the demo's own network


def digits_network(seed: int = 0) -> SNNGraph:
    """Return the untrained network of the demo: 8x8 digits → conv 16 → pool → conv 32 → pool → dense 10 → readout.

    Membranes halve in every step (dt 1 ms, tau 2 ms), each convolution has a batch norm: without it, and with slower
    membranes, a network of this size stays silent.
    """
    rng = np.random.default_rng(seed)

    def uniform(*shape: int) -> Array:
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    def norm(channels: int) -> BatchNorm:
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        return BatchNorm(weight=one, bias=zero, mean=zero, var=one)

    def neuron() -> LIF:
        return LIF(tau_s=2e-3)  # type: ignore[arg-type]

    layers = (
        Layer(name="conv1", synapse=Conv2d(weight=uniform(16, 1, 3, 3), padding=(1, 1)), norm=norm(16), neuron=neuron()),
        Layer(name="pool1", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(name="conv2", synapse=Conv2d(weight=uniform(32, 16, 3, 3), padding=(1, 1)), norm=norm(32), neuron=neuron()),
        Layer(name="pool2", synapse=AvgPool(kernel_size=(2, 2))),
        Layer(
            name="readout",
            synapse=Dense(weight=uniform(10, 128), bias=np.zeros(10, np.float32)),
            neuron=LI(tau_s=2e-3),  # type: ignore[arg-type]
        ),
    )
    return chain(layers, input_shape=(1, 8, 8), dt_s=1e-3)
