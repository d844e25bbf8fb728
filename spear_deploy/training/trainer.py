"""A network while it learns: batches, epochs, removals, the best epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spear_deploy.data import Dataset
from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.one_sign import list_one_sign_layers
from spear_deploy.quantize.rounding import Rounding, RoundNetwork
from spear_deploy.training.evaluation import QuickEvaluation, quick_evaluate
from spear_deploy.training.losses import batch_losses
from spear_deploy.training.memory_need import explain_shortage
from spear_deploy.training.optimizers import without_compiler
from spear_deploy.training.recipe import Fit, Recipe, schedule_removals
from spear_deploy.training.synops_penalty import SynOpsPenalty
from spear_deploy.util.memory import is_out_of_memory
from spear_deploy.util.progress import Progress
from spear_deploy.util.times import timed_stage

if TYPE_CHECKING:
    import torch

    from spear_deploy.norse.network import NorseNetwork
    from spear_deploy.training.trainer_state import FitCheckpoint

SELECTION_START = 2 / 3
"""Share of the epochs after which an epoch may become the result."""
RemoveWeights: TypeAlias = Callable[[SNNGraph, float], SNNGraph]
"""(network, share of the removals that are done with this one, above 0 and at most 1) → the network with more weights zero."""


class Trainer:
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
        self.rounding: Rounding | None = None
        if rounding is None:
            self.network = to_norse(graph, surrogate=recipe.surrogate).to(device)
        else:
            self.rounding = rounding(graph)
            graph, self.network, self.dataset = _round_network(dataset, self.rounding, recipe)
        self.steps = recipe.count_batches(len(dataset.train))
        if not list(self.network.parameters()):
            raise DataError("training: the network has no weights, so that nothing can be learnt; give one that has some")
        adam = without_compiler(torch.optim.AdamW)
        self.optimiser = adam(self.network.parameters(), rate, weight_decay=recipe.weight_decay)
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
        self.zeros = _find_zero_weights(self.list_weights()) if recipe.keeps_zeros else {}
        self.remove = remove
        self.removals = {} if remove is None else schedule_removals(self.steps)
        one_sign = dict.fromkeys((*recipe.keeps_signs, *list_one_sign_layers(graph)))
        self.signs = [_find_signs(self.network, name) for name in one_sign]
        self.reduced = recipe.precision == "bfloat16"
        if recipe.precision is None and device.startswith("cuda"):
            self.reduced = torch.cuda.is_bf16_supported(including_emulation=False)
        self.best = BestEpoch(graph)
        self.history: list[dict[str, float]] = []
        self.last: QuickEvaluation | None = None
        self.epochs_done = self.steps_done = 0
        self.checkpoint: FitCheckpoint | None = None

    @property
    def dual(self) -> float:
        """Dual variable of the penalty on SynOps; 0 without one."""
        return self.penalty.dual if self.penalty else 0.0

    @property
    def is_finished(self) -> bool:
        """Whether the recipe is at its end."""
        return self.epochs_done >= self.recipe.epochs or self.steps_done >= self.steps

    def list_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights that are learnt, by layer."""
        from spear_deploy.norse.straight_through import latent_values

        modules = {layer.name: self.network.module_of(layer.name).synapse for layer in self.network.graph.layers}
        return {name: latent_values(module, "weight") for name, module in modules.items() if hasattr(module, "weight")}

    def run(self, progress: Progress | None) -> Fit:
        """Learn to the end of the recipe, or until Ctrl-C; from where the checkpoint is, if there is one."""
        interrupted = False
        try:
            if self.checkpoint is not None and self.checkpoint.restore(self) and progress is not None and self.history:
                progress({"stage": "learn", "done": self.epochs_done, "of": self.recipe.epochs, **self.history[-1]})
            while not self.is_finished:
                self._run_epoch(self.epochs_done, progress)
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
        self.epochs_done = epoch + 1
        if self.checkpoint is not None:
            self.checkpoint.keep(self)
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
                for weight, zero in self.zeros.values():
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
        self.zeros = _find_zero_weights(self.list_weights())
        if self.penalty is not None:
            self.penalty.price_spikes(thin)


def _round_network(dataset: Dataset, rounded: Rounding, recipe: Recipe) -> tuple[SNNGraph, NorseNetwork, Dataset]:
    """Return a network with a chip's rounding, as a graph and to learn with, and the data that it takes."""
    from spear_deploy.norse.chip_cells import use_chip_neurons
    from spear_deploy.norse.network import to_norse
    from spear_deploy.norse.straight_through import round_values

    network = to_norse(rounded.latent, surrogate=recipe.surrogate).to(recipe.device)
    round_values(network, rounded.grids)
    use_chip_neurons(network, rounded.neurons)
    return rounded.graph, network, round_inputs(dataset, rounded)


def round_inputs(dataset: Dataset, rounding: Rounding) -> Dataset:
    """Return the data with an analogue input in the levels that the chip takes; spikes stay."""
    scale = rounding.input_scale
    if scale is None:
        return dataset
    splits = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    rounded = {name: replace(split, x=(np.rint(split.x * scale) / scale).astype(np.float32)) for name, split in splits.items()}
    return replace(dataset, **rounded)


def _find_zero_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return by layer the weights that have zeros, and where these are: (weight, boolean of its shape)."""
    pairs = {name: (weight, weight.detach() == 0) for name, weight in weights.items()}
    return {name: (weight, zero) for name, (weight, zero) in pairs.items() if bool(zero.any())}


def _find_signs(network: NorseNetwork, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of a layer, (O, I, *kernel), and the sign of the larger sum of each source, (1, I, *1)."""
    from spear_deploy.norse.straight_through import latent_values

    weight: Any = latent_values(network.module_of(name).synapse, "weight")
    total = weight.detach().sum(dim=(0, *range(2, weight.ndim)), keepdim=True)
    return weight, 1.0 - 2.0 * (total < 0)


@dataclass
class BestEpoch:
    """The best epoch so far: one of the last third counts more than any before; those count only after Ctrl-C."""

    graph: SNNGraph
    rank: tuple[float, ...] = field(default=(-np.inf,))

    def offer(self, graph: SNNGraph, evaluation: QuickEvaluation, budget: float | None, late: bool) -> None:
        """Take a network that is at least as good: within the budget first, then more accurate, then later."""
        over = 0.0 if budget is None else max(0.0, evaluation.synops - budget)
        rank = (float(late), -over, evaluation.accuracy)
        if rank >= self.rank:
            self.graph, self.rank = graph, rank
