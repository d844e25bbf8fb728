"""Training and fine-tuning by backpropagation through time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.classes import count_classes
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout, join_readout, split_readout
from spear_deploy.network.one_sign import list_one_sign_layers
from spear_deploy.quantize.rounding import Rounding, RoundNetwork
from spear_deploy.training.evaluation import BATCH, LOGIT_SCALE, QuickEvaluation, quick_evaluate
from spear_deploy.training.losses import batch_losses
from spear_deploy.training.memory_need import explain_shortage
from spear_deploy.training.silent_outputs import revive_outputs
from spear_deploy.training.synops_penalty import SynOpsPenalty
from spear_deploy.util.extras import require_packages
from spear_deploy.util.memory import is_out_of_memory
from spear_deploy.util.progress import Progress
from spear_deploy.util.times import timed_stage

if TYPE_CHECKING:
    import torch

    from spear_deploy.norse.network import NorseNetwork

MAX_SINGLE_THREAD_NEURONS = 1_000_000
"""Neurons in a batch below which one thread is used."""
SELECTION_START = 2 / 3
"""Share of the epochs after which an epoch may become the result."""
RemoveWeights: TypeAlias = Callable[[SNNGraph, float], SNNGraph]
"""(network, share of the removals that are done with this one, above 0 and at most 1) → the network with more weights zero."""
REMOVALS = 8
REMOVAL_START, REMOVAL_END = 0.15, 0.45
"""Shares of the batches between which weights are removed: before the first the network has learnt, after the last it recovers
while the learning rate falls."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn: AdamW, one cycle of the learning rate, cross-entropy on the mean of the output over time.

    Attributes:
        epochs: passes over the training split.
        learning_rate: the peak of the cycle.
        warm_up: share of the steps in which the learning rate rises.
        label_smoothing: share of the target spread over all classes; it keeps margins moderate, and moderate margins survive
            coarse weights better.
        logit_scale: factor of the mean output before cross-entropy; smaller for outputs that send several spikes a step.
        batch_size: samples a step.
        weight_decay: of AdamW.
        surrogate: gradient of a spike, one of Norse's.
        steps: batches in all; ends before `epochs` are over, for a short look at what a network can become.
        seed: order of the samples. The same seed gives the same weights on the same machine and number of threads.
        synops_budget: SynOps per inference that the penalty leads to; None: no penalty.
        dual: dual variable of the penalty at the start.
        interruptible: Ctrl-C ends learning and returns the best epoch so far, instead of being passed on.
        revives_outputs: output neurons that never spike are driven first until they do.
        keeps_zeros: weights that are zero at the start stay zero; otherwise they learn as all others do.
        keeps_signs: names of layers of which each source keeps one sign, that of the larger sum of its weights at the start; a
            weight that would get the other sign stays 0 for that batch. Those that the network states (`network.one_sign`) too.
        device: of torch.
        precision: of sums while it learns, "float32" or "bfloat16" (torch's autocast; neurons stay float32); None: bfloat16 on
            CUDA devices that have it. Measurements are always in float32.
    """

    epochs: int
    learning_rate: float = 1e-2
    warm_up: float = 0.3
    label_smoothing: float = 0.1
    logit_scale: float = LOGIT_SCALE
    batch_size: int = BATCH
    weight_decay: float = 1e-2
    surrogate: str = "triangle"
    steps: int | None = None
    seed: int = 0
    synops_budget: float | None = None
    dual: float = 0.0
    interruptible: bool = False
    revives_outputs: bool = True
    keeps_zeros: bool = False
    keeps_signs: tuple[str, ...] = ()
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            raise DataError(
                f"recipe: {self.epochs} epochs, batches of {self.batch_size}, learning rate {self.learning_rate:g} given; "
                "expected at least 1, at least 2 (batch norm needs two samples), and more than 0"
            )
        if self.steps is not None and self.steps < 1:
            raise DataError(f"recipe: {self.steps} steps given, expected at least 1, or None for whole epochs")

    def count_batches(self, samples: int) -> int:
        """Return the number of batches of the whole training, for a split of so many samples."""
        batches = max(1, self.epochs * -(-samples // self.batch_size))
        return batches if self.steps is None else min(batches, self.steps)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The result of learning.

    Attributes:
        graph: the network of the best epoch by validation among the last third, in which the learning rate is low; within
            the budget, if any of them was.
        history: a row an epoch: loss, validation accuracy and SynOps, and the dual variable of the SynOps penalty.
        last: the last epoch on validation; None if learning was stopped before the first epoch was over.
        dual: dual variable of the SynOps penalty at the end.
        batches: that were learnt from.
        interrupted: whether Ctrl-C ended it early; `graph` is then the best epoch so far, or the start.
    """

    graph: SNNGraph
    history: tuple[dict[str, float], ...]
    last: QuickEvaluation | None = None
    dual: float = 0.0
    batches: int = 0
    interrupted: bool = False


def train(
    network: SNNGraph | NorseNetwork,
    dataset: Dataset,
    *,
    epochs: int = 25,
    seed: int = 0,
    recipe: Recipe | None = None,
    rounding: RoundNetwork | None = None,
    progress: Progress | None = None,
) -> SNNGraph:
    """Train a network and return its best epoch on the validation split.

    Args:
        network: the start.
        dataset: learns from `train`, chooses by `val`, does not read `test`.
        epochs: passes over the training split.
        seed: order of the samples.
        recipe: in place of `epochs`, `seed` and the defaults of learning.
        rounding: of a chip, see `fit`.
        progress: is called after each epoch.

    Raises:
        DataError: data and network do not fit.
        UnsupportedError: an integer network.
    """
    if not isinstance(network, SNNGraph):
        from spear_deploy.norse.network import to_graph

        network = to_graph(network)
    return fit(network, dataset, recipe or Recipe(epochs=epochs, seed=seed), rounding=rounding, progress=progress).graph


def fine_tune(
    graph: SNNGraph,
    dataset: Dataset,
    *,
    epochs: int = 20,
    seed: int = 0,
    synops_budget: float | None = None,
    recipe: Recipe | None = None,
    rounding: RoundNetwork | None = None,
    progress: Progress | None = None,
) -> SNNGraph:
    """Train a pruned network on, towards at most `synops_budget` SynOps per inference.

    The result is the best of the last epochs on validation among those within the budget, else the one with the fewest SynOps.
    `pruning.prune_to_budget` repeats this until the budget holds.

    Args:
        graph, dataset, progress: as in `train`.
        epochs, seed, synops_budget: as in `Recipe`.
        recipe: in place of these three and the defaults of fine-tuning.
        rounding: of a chip, see `fit`.
    """
    recipe = recipe or Recipe(epochs=epochs, warm_up=0.1, seed=seed, synops_budget=synops_budget)
    return fit(graph, dataset, recipe, rounding=rounding, progress=progress).graph


def fit(
    graph: SNNGraph,
    dataset: Dataset,
    recipe: Recipe,
    *,
    hints: Array | None = None,
    rounding: RoundNetwork | None = None,
    remove: RemoveWeights | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Learn by a recipe, and return the network with the history of learning.

    Args:
        graph: the start. Output neurons that never spike are driven first, where the recipe says so (`silent_outputs`). A readout
            on the host learns with it.
        dataset: as in `train`.
        recipe: how to learn.
        hints: (N, classes), learnt besides the labels: for each training sample the mean outputs of a teacher, usually the
            network before pruning. `average_outputs` computes them, once for any number of fits.
        rounding: chooses the values that a chip's integers can stand for, once at the start. The network then runs on these
            values while it learns (quantisation-aware training), with the chip's decays and thresholds and without batch norm,
            and so does the result. Its neurons emit what the chip's do, several spikes in a step among them.
        remove: chooses weights to remove, `REMOVALS` times between `REMOVAL_START` and `REMOVAL_END` of the batches; what it sets
            to zero stays zero until the next time.
        progress: is called after each epoch.

    Raises:
        DataError: data and network do not fit, there is not a hint for each training sample and output, or no weight changes the
            output.
        UnsupportedError: an integer network, or a batch norm without eps.
    """
    outputs = count_classes(graph)
    dataset.check(graph.input_shape, outputs)
    if hints is not None and hints.shape != (len(dataset.train), outputs):
        raise DataError(
            f"hints: of shape {hints.shape}, expected {(len(dataset.train), outputs)}, the mean outputs of a teacher for each "
            "training sample; compute them with `average_outputs`"
        )
    if has_host_readout(graph):
        rounding, remove = _join_rounding(rounding), _join_removal(remove)
    graph = join_readout(graph)
    with limit_threads(graph):
        graph = revive_outputs(graph, dataset.train) if recipe.revives_outputs else graph
        result = _Trainer(graph, dataset, recipe, hints, rounding, remove).run(progress)
    return replace(result, graph=split_readout(result.graph))


def _join_rounding(rounding: RoundNetwork | None) -> RoundNetwork | None:
    """Return the rounding of a chip for a network that is joined with its readout on the host, which keeps its numbers."""
    if rounding is None:
        return None
    chosen = rounding

    def round_chip_part(graph: SNNGraph) -> Rounding:
        rounded = chosen(split_readout(graph))
        return replace(rounded, graph=join_readout(rounded.graph), latent=join_readout(rounded.latent))

    return round_chip_part


def _join_removal(remove: RemoveWeights | None) -> RemoveWeights | None:
    """Return a removal of weights that leaves those of the host."""
    if remove is None:
        return None
    chosen = remove
    return lambda graph, share: join_readout(chosen(split_readout(graph), share))


def round_inputs(dataset: Dataset, rounding: Rounding) -> Dataset:
    """Return the data with an analogue input in the levels that the chip takes; spikes stay."""
    scale = rounding.input_scale
    if scale is None:
        return dataset
    splits = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    rounded = {name: replace(split, x=(np.rint(split.x * scale) / scale).astype(np.float32)) for name, split in splits.items()}
    return replace(dataset, **rounded)


@contextmanager
def limit_threads(graph: SNNGraph) -> Iterator[None]:
    """Let torch use one thread within this context, if the network is small.

    On small networks more threads gain little, lose much on a busy machine, and let sums depend on their number.
    """
    require_packages("torch", "norse", user="training")
    import torch

    before = torch.get_num_threads()
    if BATCH * graph.neurons < MAX_SINGLE_THREAD_NEURONS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Trainer:
    """A network while it learns, and its best epoch so far."""

    def __init__(
        self,
        graph: SNNGraph,
        dataset: Dataset,
        recipe: Recipe,
        hints: Array | None,
        rounding: RoundNetwork | None,
        remove: RemoveWeights | None,
    ) -> None:
        import torch

        from spear_deploy.norse.network import check_batchnorm, to_norse

        check_batchnorm(graph)
        self.dataset, self.recipe = dataset, recipe
        device, rate = recipe.device, recipe.learning_rate
        if rounding is None:
            self.network = to_norse(graph, surrogate=recipe.surrogate).to(device)
        else:
            graph, self.network, self.dataset = _round_network(graph, dataset, rounding, recipe)
        self.steps = recipe.count_batches(len(dataset.train))
        if not list(self.network.parameters()):
            raise DataError("training: the network has no weights, so that nothing can be learnt; give one that has some")
        self.optimiser = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=recipe.weight_decay)
        rising = recipe.warm_up * self.steps
        rising += 0.5 * (rising == 1)  # OneCycleLR divides by this less one
        self.cycle = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, self.steps, pct_start=rising / self.steps)
        self.penalty = None
        if recipe.synops_budget is not None:
            self.penalty = SynOpsPenalty(
                graph, recipe.synops_budget, dual=recipe.dual, kind=dataset.kind, ramp=max(1, self.steps // 2), device=device
            )
        self.rng = np.random.default_rng(recipe.seed)
        self.labels = torch.from_numpy(np.array(dataset.train.y)).to(device)
        self.hints = None if hints is None else torch.from_numpy(np.array(hints, np.float32)).to(device)
        self.zeros = _find_zero_weights(self.network) if recipe.keeps_zeros else []
        self.remove = remove
        self.removals = {} if remove is None else schedule_removals(self.steps)
        one_sign = dict.fromkeys((*recipe.keeps_signs, *list_one_sign_layers(graph)))
        self.signs = [_find_signs(self.network, name) for name in one_sign]
        self.reduced = recipe.precision == "bfloat16"
        if recipe.precision is None and device.startswith("cuda"):
            self.reduced = torch.cuda.is_bf16_supported(including_emulation=False)
        self.best = _BestEpoch(graph)
        self.history: list[dict[str, float]] = []
        self.last: QuickEvaluation | None = None
        self.steps_done = 0

    @property
    def dual(self) -> float:
        return self.penalty.dual if self.penalty else 0.0

    def run(self, progress: Progress | None) -> Fit:
        """Learn to the end of the recipe, or until Ctrl-C."""
        interrupted = False
        try:
            for epoch in range(self.recipe.epochs):
                if self.steps_done < self.steps:
                    self._run_epoch(epoch, progress)
        except KeyboardInterrupt:
            if not self.recipe.interruptible:
                raise
            interrupted = True
        history = tuple(self.history)
        return Fit(
            graph=self.best.graph, history=history, last=self.last, dual=self.dual, batches=self.steps_done,
            interrupted=interrupted,
        )  # fmt: skip

    def _run_epoch(self, epoch: int, progress: Progress | None) -> None:
        from spear_deploy.norse.network import to_graph

        loss = self._learn_batches()
        graph = to_graph(self.network.eval())
        self.last = quick_evaluate(self.network, graph, self.dataset.val)
        row = {"epoch": epoch + 1, "loss": loss, "accuracy": self.last.accuracy, "synops": self.last.synops, "dual": self.dual}
        self.history.append(row)
        late = epoch + 1 > SELECTION_START * self.recipe.epochs or self.steps_done >= self.steps
        self.best.offer(graph, self.last, self.recipe.synops_budget, late)
        if progress is not None:
            progress({"stage": "learn", "done": epoch + 1, "of": self.recipe.epochs, **row})

    def _learn_batches(self) -> float:
        """Take a step on each batch of the training split, and return the mean cross-entropy."""
        import torch

        self.network.train()
        entropies = []
        numbered = replace(self.dataset.train, y=np.arange(len(self.dataset.train)))
        for x, number in numbered.batches(self.recipe.batch_size, self.rng):
            if len(number) < 2 or self.steps_done >= self.steps:  # a batch norm needs two
                continue
            entropy = self._learn_batch(x, number)
            self.cycle.step()
            with torch.no_grad():
                for weight, zero in self.zeros:
                    weight.masked_fill_(zero, 0.0)
                for weight, sign in self.signs:
                    weight.masked_fill_(weight * sign < 0, 0.0)
            self.steps_done += 1
            if self.steps_done in self.removals:
                self._remove_weights(self.removals[self.steps_done])
            entropies.append(entropy)
        return float(np.mean(entropies)) if entropies else 0.0

    def _learn_batch(self, x: Array, number: Array) -> float:
        """Take a step on a batch (T, B, *input) of samples by their numbers, and return its cross-entropy.

        Raises:
            DataError: nothing can be learnt, or memory is full.
        """
        try:
            return self._take_step(x, number)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        self.optimiser.zero_grad()  # behind the handler nothing else holds what the batch left in memory
        raise explain_shortage(lambda n: self._find_losses(x[:, :n], number[:n])[0], len(number), len(x))

    def _take_step(self, x: Array, number: Array) -> float:
        total, entropy = self._find_losses(x, number)
        if not total.requires_grad:
            raise DataError(
                f"training: no weight of the network changes its output within {len(x)} steps, and nothing can be learnt; "
                "give more steps, or a network whose weights reach its output"
            )
        self.optimiser.zero_grad()
        with timed_stage("learn, backwards"):
            total.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
        return float(entropy.detach())

    def _find_losses(self, x: Array, number: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch and its cross-entropy alone."""
        import torch
        from torch.nn.utils.parametrize import cached

        y, hint = self.labels[number], None if self.hints is None else self.hints[number]
        batch = torch.from_numpy(x).to(self.recipe.device)
        with timed_stage("learn"), cached(), torch.autocast(batch.device.type, torch.bfloat16, enabled=self.reduced):
            r = self.recipe
            return batch_losses(self.network, batch, y, hint, r.label_smoothing, self.penalty, r.logit_scale)

    def _remove_weights(self, share: float) -> None:
        """Let `remove` choose zeros, hold them, and price the SynOps that are left."""
        import torch

        from spear_deploy.norse.network import to_graph
        from spear_deploy.norse.straight_through import latent_values

        assert self.remove is not None
        thin = self.remove(to_graph(self.network.eval()), share)
        self.network.train()
        with torch.no_grad():
            for layer in thin.layers:
                weight = getattr(layer.synapse, "weight", None)
                if weight is not None:
                    parameter: Any = latent_values(self.network.module_of(layer.name).synapse, "weight")
                    parameter.copy_(torch.from_numpy(np.array(weight)).reshape(parameter.shape))
        self.zeros = _find_zero_weights(self.network)
        if self.penalty is not None:
            self.penalty.price_spikes(thin)


def schedule_removals(steps: int) -> dict[int, float]:
    """Return the batches after which weights are removed, with the share of the removals that are then done.

    >>> schedule_removals(4), list(schedule_removals(1000))[::7]
    ({1: 0.75, 2: 1.0}, [150, 450])
    """
    shares = [(i + 1) / REMOVALS for i in range(REMOVALS)]
    steps_at = np.linspace(REMOVAL_START, REMOVAL_END, REMOVALS) * steps
    return {max(1, round(step)): share for step, share in zip(steps_at, shares, strict=True)}


def _round_network(
    graph: SNNGraph, dataset: Dataset, rounding: RoundNetwork, recipe: Recipe
) -> tuple[SNNGraph, NorseNetwork, Dataset]:
    """Return a network with a chip's rounding, as a graph and to learn with, and the data that it takes."""
    from spear_deploy.norse.chip_cells import use_chip_neurons
    from spear_deploy.norse.network import to_norse
    from spear_deploy.norse.straight_through import round_values

    rounded = rounding(graph)
    network = to_norse(rounded.latent, surrogate=recipe.surrogate).to(recipe.device)
    round_values(network, rounded.grids)
    use_chip_neurons(network, rounded.neurons)
    return rounded.graph, network, round_inputs(dataset, rounded)


def _find_zero_weights(network: NorseNetwork) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the weights of each synapse that has zeros, and where these are: (weight, boolean of its shape)."""
    from spear_deploy.norse.straight_through import latent_values

    modules = (network.module_of(layer.name).synapse for layer in network.graph.layers)
    weights = (latent_values(module, "weight") for module in modules if hasattr(module, "weight"))
    pairs = [(weight, weight.detach() == 0) for weight in weights]
    return [(weight, zero) for weight, zero in pairs if bool(zero.any())]


def _find_signs(network: NorseNetwork, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of a layer, (O, I, *kernel), and the sign of the larger sum of each source, (1, I, *1)."""
    from spear_deploy.norse.straight_through import latent_values

    weight: Any = latent_values(network.module_of(name).synapse, "weight")
    total = weight.detach().sum(dim=(0, *range(2, weight.ndim)), keepdim=True)
    return weight, 1.0 - 2.0 * (total < 0)


@dataclass
class _BestEpoch:
    """The best epoch so far: one of the last third counts more than any before; those count only after Ctrl-C."""

    graph: SNNGraph
    rank: tuple[float, ...] = field(default=(-np.inf,))

    def offer(self, graph: SNNGraph, evaluation: QuickEvaluation, budget: float | None, late: bool) -> None:
        """Take a network that is at least as good: within the budget first, then more accurate, then later."""
        over = 0.0 if budget is None else max(0.0, evaluation.synops - budget)
        rank = (float(late), -over, evaluation.accuracy)
        if rank >= self.rank:
            self.graph, self.rank = graph, rank
