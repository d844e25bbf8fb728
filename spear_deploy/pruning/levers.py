"""Levers of pruning: which parts of a network are removed.

channels    whole channels: SynOps, neurons, memory and cores on every chip
weights     single weights become zero: SynOps, and memory where a chip stores lists of synapses
steps       fewer time steps of the input, where a range of them is given: SynOps and time on every chip
bits        the network learns with the chip's rounding, where its integers are less accurate than it is; beside channels or
            alone also fewer bits for single layers, where memory is exceeded and layers may differ
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from spear_deploy.data import Split
from spear_deploy.data.time_steps import AUTO, StepsRange, parse_steps
from spear_deploy.errors import BudgetError, did_you_mean
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.graph import SNNGraph
from spear_deploy.training.evaluation import evaluate

Lever: TypeAlias = Literal["channels", "weights", "steps", "bits"]
LEVERS: tuple[Lever, ...] = get_args(Lever)


@dataclass(frozen=True, kw_only=True)
class LeverStage:
    """A network on the way from trained to pruned.

    Attributes:
        name: the lever that made it, "trained" or "rates".
        graph: the network.
        synops: per inference, on validation.
        accuracy: on validation, 0..1.
        batches: that this stage learnt from.
    """

    name: str
    graph: SNNGraph
    synops: float
    accuracy: float
    batches: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as plain data."""
        return {"lever": self.name, "synops": self.synops, "accuracy": self.accuracy, "batches": self.batches}


def measure_stage(name: str, graph: SNNGraph, split: Split, batches: int = 0) -> LeverStage:
    """Run a network on a split and return it as a stage."""
    result = evaluate(graph, split)
    return LeverStage(name=name, graph=graph, synops=result.synops.total, accuracy=result.accuracy, batches=batches)


def parse_levers(text: str | tuple[str, ...]) -> tuple[Lever, ...]:
    """Read "channels,weights" or names of levers, and return them in the order of `LEVERS`.

    Raises:
        BudgetError: there is no such lever, or none is named.

    >>> parse_levers("weights, channels"), parse_levers(("weights",))
    (('channels', 'weights'), ('weights',))
    """
    if not isinstance(text, (str, tuple, list)):
        raise BudgetError(f"levers: {text!r} given, expected one or several of {', '.join(LEVERS)}")
    names = [part.strip() for part in text.split(",")] if isinstance(text, str) else list(text)
    for name in names:
        if name not in LEVERS:
            raise BudgetError(f"lever '{name}': expected one or several of {', '.join(LEVERS)}{did_you_mean(name, LEVERS)}")
    if not names:
        raise BudgetError(f"levers: none named, expected one or several of {', '.join(LEVERS)}")
    if not {"channels", "weights"} & set(names) and set(names) != {"bits"}:
        raise BudgetError(f"levers: {', '.join(names)} alone reaches no budget; name channels or weights too")
    return tuple(lever for lever in LEVERS if lever in names)


def are_bits_alone(levers: str | tuple[str, ...] | None) -> bool:
    """Return whether bits by layer are the only lever, so that all channels stay.

    >>> are_bits_alone("bits"), are_bits_alone("channels,bits"), are_bits_alone(None)
    (True, False, False)
    """
    return levers is not None and parse_levers(levers) == ("bits",)


def check_bits_alone(levers: str | tuple[str, ...] | None, limits: Iterable[str], method: str | None) -> None:
    """Refuse bits as the only lever beside a budget that they do not change, or a method, which would change channels.

    Args:
        levers: as written.
        limits: names of the budgets that are set; none where the network has to fit the chip.
        method: of the search, where one is named.

    Raises:
        BudgetError: names what does not go with them.
    """
    if not are_bits_alone(levers):
        return
    others = [name for name in limits if name not in ("memory", "cores")]
    if others:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise BudgetError(
            f"levers: bits alone reaches budgets of memory and cores, not of {names}; name channels or weights too, or "
            "give --memory or --cores"
        )
    if method is not None:
        raise BudgetError(f"levers: bits alone leaves all channels, so that method '{method}' has nothing to do; leave it out")


def check_steps(levers: str | tuple[str, ...] | None, steps: int | str | None) -> bool:
    """Return whether the number of time steps may be chosen: a range of them is given.

    Raises:
        BudgetError: a range, but `steps` is not among the levers, or the lever without a range.
        DataError: it is neither a number of steps nor a range.
    """
    is_range = isinstance(parse_steps(steps), StepsRange)
    names = None if levers is None else parse_levers(levers)
    if names is not None and is_range and "steps" not in names:
        raise BudgetError(
            f"steps '{steps}': is a range, but steps are not among the levers ({', '.join(names)}); add `steps` to them, or name "
            "one number"
        )
    if names is not None and "steps" in names and not is_range:
        raise BudgetError(
            f"levers: steps are named, but no range of them is given; give --steps {AUTO} or a range such as --steps 3..8"
        )
    return is_range


def choose_levers(profile: HardwareProfile | None) -> tuple[Lever, ...]:
    """Return the levers that a chip rewards; without a chip all, since a zero weight is no SynOp by the rule of counting."""
    return LEVERS if profile is None or rewards_zeros(profile) else ("channels", "steps", "bits")


def rewards_zeros(profile: HardwareProfile) -> bool:
    """Return whether a chip's profile says that a weight of zero saves SynOps or memory; False where that is not published."""
    return profile.weights.zero_synops.value is False or profile.weights.zero_memory.value is False


def note_reward_of_zeros(levers: tuple[Lever, ...], profile: HardwareProfile | None) -> list[str]:
    """Return a note where weights are removed for a chip whose profile does not say that a zero weight saves anything."""
    if profile is None or "weights" not in levers or rewards_zeros(profile):
        return []
    costs = {True: "costs", None: "costs or saves is not published"}
    synops, memory = (costs[fact.value] for fact in (profile.weights.zero_synops, profile.weights.zero_memory))
    return [
        f"chip '{profile.name}' is not known to reward the removal of weights (a zero weight: SynOps, {synops}; "
        f"memory, {memory}); the counted SynOps leave zero weights out, the chip may not; `--levers channels` removes only what "
        "it rewards"
    ]
