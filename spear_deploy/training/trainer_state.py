"""State of a network that learns, as plain data and arrays, from which it goes on bit by bit.

    network     parameters and buffers            optimiser   moments of AdamW, place in the cycle of the learning rate
    data        generator of the order            zeros       weights that are held at zero
    penalty     dual variable, prices             removal     networks before and after the last removal of weights
    result      best epoch, history, last epoch

Of a fit that is finished the result and the removal are kept alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.host_readout import join_readout, split_readout
from spear_deploy.network.layer import Layer
from spear_deploy.network.sparse_matrix import SparseMatrix, store_compactly
from spear_deploy.training.evaluation import QuickEvaluation
from spear_deploy.training.learning_store import LearningState, LearningStore

if TYPE_CHECKING:
    import torch

    from spear_deploy.training.trainer import Trainer

LEARNT = {"synapse": ("weight", "bias"), "norm": ("weight", "bias", "mean", "var")}
"""Arrays of a layer that learning changes, by part."""
REMOVAL = ("unthinned", "thinned")


@runtime_checkable
class WeightRemover(Protocol):
    """A removal of weights, the `remove` of `fit`, that can be kept with the fit.

    Attributes:
        unthinned, thinned: the network before and after the last removal; None before the first.
    """

    unthinned: SNNGraph | None
    thinned: SNNGraph | None

    def __call__(self, graph: SNNGraph, share: float) -> SNNGraph:
        """Return the network with more weights zero."""

    def describe(self) -> Mapping[str, Any]:
        """Return all else that its choices depend on, in a form that `hash_content` takes."""


@dataclass(frozen=True, kw_only=True)
class FitCheckpoint:
    """Where a fit is kept.

    Attributes:
        store: the files.
        key: of all that the fit depends on.
        remover: of weights, whose state belongs to the fit.
    """

    store: LearningStore
    key: str
    remover: WeightRemover | None = None

    def restore(self, trainer: Trainer) -> bool:
        """Bring a trainer that has not learnt yet to the state that is kept, and return whether there is one."""
        state = self.store.read(self.key)
        if state is not None:
            restore_state(trainer, self.remover, state)
        return state is not None

    def keep(self, trainer: Trainer) -> None:
        """Keep the state behind an epoch, where that is due; at the end also in place of an earlier one."""
        if self.store.is_due() or (trainer.is_finished and self.store.holds(self.key)):
            self.store.write(self.key, collect_state(trainer, self.remover))


def collect_state(trainer: Trainer, remover: WeightRemover | None) -> LearningState:
    """Return the state of a trainer behind an epoch."""
    facts: dict[str, Any] = {
        "finished": trainer.is_finished, "epochs": trainer.epochs_done, "steps": trainer.steps_done,
        "history": trainer.history, "rank": trainer.best.rank, "last": asdict(trainer.last) if trainer.last else None,
    }  # fmt: skip
    arrays = _name_arrays("best", list_learnt(trainer.best.graph))
    for name in REMOVAL if remover is not None else ():
        if (graph := getattr(remover, name)) is not None:
            arrays |= _name_arrays(name, list_learnt(join_readout(graph)))
    if trainer.penalty is not None:
        facts["penalty"], costs = trainer.penalty.save()
        arrays |= _name_arrays("cost", costs)
    if not trainer.is_finished:
        facts["random"] = trainer.rng.bit_generator.state
        facts["cycle"] = _save_cycle(trainer)
        arrays |= _name_arrays("network", {name: _to_array(value) for name, value in trainer.network.state_dict().items()})
        arrays |= _name_arrays("optimiser", _list_moments(trainer))
        arrays |= _name_arrays("zeros", {name: _to_array(zero) for name, (_, zero) in trainer.zeros.items()})
    return LearningState(facts=facts, arrays=arrays)


def restore_state(trainer: Trainer, remover: WeightRemover | None, state: LearningState) -> None:
    """Bring a trainer that has not learnt yet to a state of `collect_state`."""
    facts, template = state.facts, trainer.network.graph
    trainer.epochs_done, trainer.steps_done, trainer.history = facts["epochs"], facts["steps"], list(facts["history"])
    trainer.last = None if facts["last"] is None else QuickEvaluation(**facts["last"])
    trainer.best.graph, trainer.best.rank = set_learnt(template, _take(state, "best")), tuple(facts["rank"])
    for name in REMOVAL if remover is not None else ():
        if arrays := _take(state, name):
            setattr(remover, name, split_readout(set_learnt(template, arrays)))
    if trainer.penalty is not None:
        trainer.penalty.restore(facts["penalty"], _take(state, "cost"))
    if not facts["finished"]:
        trainer.rng.bit_generator.state = facts["random"]
        _restore_network(trainer, state)
        _restore_cycle(trainer, facts["cycle"])


def list_learnt(graph: SNNGraph) -> dict[str, Array]:
    """Return the arrays of a network that learning changes, by layer, part and name."""
    arrays: dict[str, Array] = {}
    for layer in graph.layers:
        for part, names in LEARNT.items():
            for name in names:
                array: Any = getattr(getattr(layer, part), name, None)
                if array is not None:
                    full = array.to_full() if isinstance(array, SparseMatrix) else array
                    arrays[f"{layer.name}/{part}/{name}"] = full
    return arrays


def set_learnt(graph: SNNGraph, arrays: Mapping[str, Array]) -> SNNGraph:
    """Return a network with the arrays that `list_learnt` returned of one of the same layers."""

    def set_layer(layer: Layer) -> Layer:
        parts = {}
        for part, names in LEARNT.items():
            before: Any = getattr(layer, part)
            after = {name: arrays.get(f"{layer.name}/{part}/{name}") for name in names}
            values: dict[str, Any] = {name: array for name, array in after.items() if array is not None}
            if isinstance(getattr(before, "weight", None), SparseMatrix):
                values["weight"] = store_compactly(values["weight"])
            if values:
                parts[part] = replace(before, **values)
        return replace(layer, **parts)

    return graph.with_layers(set_layer)


def _save_cycle(trainer: Trainer) -> dict[str, Any]:
    """Return the place in the cycle of the learning rate, and what the optimiser has of it."""
    groups = [{"lr": group["lr"], "betas": list(group["betas"])} for group in trainer.optimiser.param_groups]
    cycle = trainer.cycle
    return {"groups": groups, "done": cycle.last_epoch, "calls": cycle._step_count, "last": list(cycle.get_last_lr())}


def _restore_cycle(trainer: Trainer, facts: Mapping[str, Any]) -> None:
    for group, values in zip(trainer.optimiser.param_groups, facts["groups"], strict=True):
        group["lr"], group["betas"] = values["lr"], tuple(values["betas"])
    trainer.cycle.load_state_dict({"last_epoch": facts["done"], "_step_count": facts["calls"], "_last_lr": facts["last"]})


def _restore_network(trainer: Trainer, state: LearningState) -> None:
    """Set parameters, buffers, moments of the optimiser and held zeros, each on the device and in the order of memory it has."""
    import torch

    values = {name: torch.from_numpy(np.array(array)) for name, array in _take(state, "network").items()}
    trainer.network.load_state_dict(values)
    moments = _take(state, "optimiser")
    for number, weight in enumerate(_list_parameters(trainer)):
        for name in {key.split("/")[1] for key in moments if key.split("/")[0] == str(number)}:
            value = torch.from_numpy(np.array(moments[f"{number}/{name}"]))
            # the optimiser counts its steps on the CPU
            trainer.optimiser.state[weight][name] = value if name == "step" else torch.empty_like(weight).copy_(value)
    zeros = _take(state, "zeros")
    trainer.zeros = {
        name: (weight, torch.from_numpy(np.array(zeros[name])).to(weight.device))
        for name, weight in trainer.list_weights().items()
        if name in zeros
    }


def _list_moments(trainer: Trainer) -> dict[str, Array]:
    """Return what the optimiser has of each parameter, by its number and name."""
    state = trainer.optimiser.state
    weights = enumerate(_list_parameters(trainer))
    return {f"{number}/{name}": _to_array(value) for number, weight in weights for name, value in state.get(weight, {}).items()}


def _list_parameters(trainer: Trainer) -> list[torch.Tensor]:
    return [weight for group in trainer.optimiser.param_groups for weight in group["params"]]


def _to_array(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()


def _name_arrays(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _take(state: LearningState, prefix: str) -> dict[str, Array]:
    """Return the arrays of a prefix, by the rest of their names."""
    return {name.removeprefix(f"{prefix}/"): array for name, array in state.arrays.items() if name.startswith(f"{prefix}/")}
