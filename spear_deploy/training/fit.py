"""Training and fine-tuning by backpropagation through time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spear_deploy.data import Dataset
from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.classes import count_classes, read_decision
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import has_host_readout, join_readout, split_readout
from spear_deploy.quantize.rounding import Rounding, RoundNetwork
from spear_deploy.training.learning_store import LearningStore
from spear_deploy.training.recipe import Fit, Recipe
from spear_deploy.training.silent_outputs import revive_outputs
from spear_deploy.training.threads import limit_threads
from spear_deploy.training.trainer import RemoveWeights, Trainer
from spear_deploy.training.trainer_state import FitCheckpoint, WeightRemover
from spear_deploy.util.memory import keep_freed_memory
from spear_deploy.util.progress import Progress

if TYPE_CHECKING:
    from spear_deploy.norse.network import NorseNetwork


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
    store: LearningStore | None = None,
) -> Fit:
    """Learn by a recipe, and return the network with the history of learning.

    Args:
        graph: the start. Output neurons that never spike are driven first, where the recipe says so (`silent_outputs`). A readout
            on the host learns with it.
        dataset: as in `train`.
        recipe: how to learn.
        hints: (N, classes), or (N, T, classes) where each step has a label, learnt besides the labels: for each training sample
            the scores by class of a teacher, usually the network before pruning. `score_outputs` computes them, once for any
            number of fits.
        rounding: chooses the values that a chip's integers can stand for, once at the start. The network then runs on these
            values while it learns (quantisation-aware training), with the chip's decays and thresholds and without batch norm,
            and so does the result. Its neurons emit what the chip's do, several spikes in a step among them.
        remove: chooses weights to remove, `REMOVALS` times between `REMOVAL_START` and `REMOVAL_END` of the batches; what it sets
            to zero stays zero until the next time.
        progress: is called after each epoch.
        store: keeps how far it has learnt. The same fit goes on from there, on the same machine to the same bits; it is the same
            where all of the above is equal, the code and the versions of its libraries. Not where `remove` is no `WeightRemover`.

    Raises:
        DataError: data and network do not fit, there is not a hint for each training sample and output, or no weight changes the
            output.
        UnsupportedError: an integer network, or a batch norm without eps.
    """
    outputs = count_classes(graph)
    dataset.check(graph.input_shape, outputs, read_decision(graph))
    expected = (*dataset.train.y.shape, outputs)
    if hints is not None and hints.shape != expected:
        raise DataError(
            f"hints: of shape {hints.shape}, expected {expected}, the scores by class of a teacher for each "
            "training sample; compute them with `score_outputs`"
        )
    remover = remove
    if has_host_readout(graph):
        rounding, remove = _join_rounding(rounding), _join_removal(remove)
    graph = join_readout(graph)
    with limit_threads(graph, learns=True), keep_freed_memory():
        graph = revive_outputs(graph, dataset.train) if recipe.revives_outputs else graph
        trainer = Trainer(graph, dataset, recipe, hints, rounding, remove)
        if store is not None and (remover is None or isinstance(remover, WeightRemover)):
            content = {
                "graph": graph, "recipe": recipe, "hints": hints, "rounding": trainer.rounding,
                "removal": remover and remover.describe(),
            }  # fmt: skip
            trainer.checkpoint = FitCheckpoint(store=store, key=store.make_key(dataset, content), remover=remover)
        result = trainer.run(progress)
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
