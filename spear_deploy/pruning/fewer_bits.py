"""Fewer bits of single layers, as limits of memory and cores ask for.

On a chip whose layers may have weights of different widths, fewer bits save words of memory, and no channel. What a layer's width
costs at first is the certainty, on validation, that the network loses by the chip's rounding of that layer alone. With it

    while a limit is exceeded     of all layers and smaller widths take the one with the most words saved for the certainty lost
    then                          give bits back, where the limits still hold, those first that cost most

down to a fewest number of bits, one of `FLOORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from spear_deploy.network.layer_bits import state_layer_bits
from spear_deploy.pruning.candidates import Checkpoint, Evaluator, Widths
from spear_deploy.pruning.chip_costs import ChipCosts, max_use
from spear_deploy.pruning.levers import parse_levers
from spear_deploy.pruning.search.projection import project_ratios
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.quantize.network import list_layer_widths
from spear_deploy.training.evaluation import quick_evaluate

FLOORS = (4, 3, 2)
"""Fewest bits; 3 and 2 only where the limits cannot hold with more. On digits and the memory of Loihi 1, four candidates of 3 and
2 bits looked best after 90 batches, and ended 0.3 to 1.7 points behind channels alone."""
MIN_SHARE = 0.02
"""Share of the words that a layer has to save for its bits to be worth a change."""
LEAST_LOSS = 1e-4
"""Certainty that a smaller width is taken to cost at least: less is noise of the samples."""
SIZES = ("memory_words", "cores")
"""Budgets that depend on bits."""
ROWS = ("synapse_memory", "cores")
"""The chip's own limits that depend on bits."""

Bits: TypeAlias = Mapping[str, int]
"""Bits of a weight by layer; layers that are not named keep theirs."""
Moves: TypeAlias = Mapping[tuple[str, int], float]
"""By layer and smaller width, words or certainty."""


@dataclass
class BitLimits:
    """The limits of one network that depend on the bits of its weights.

    Attributes:
        evaluator: of the network before pruning, with the chip it is placed on, whose layers may differ in their widths.
        limits: of memory words and cores.
        settings: of pruning, with the chip's own limits where they have to hold, and levers.
        form: the chip's integers.
        synops: that uniform widths leave before bits count; None: all channels.
        start: bits by layer before pruning.
        default: bits of a weight of this chip.
        stated: bits by layer that the network states before pruning.
        within_synops: the widths that leave `synops`.
    """

    evaluator: Evaluator
    limits: Mapping[str, float]
    settings: PruneSettings
    form: IntegerForm
    synops: float | None = None
    start: dict[str, int] = field(init=False)
    default: int = field(init=False)
    stated: dict[str, int] = field(init=False)
    within_synops: Widths = field(init=False)
    _costs: dict[tuple[tuple[str, int], ...], ChipCosts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stored = self.chip.base.weight_bits
        self.start = {layer.name: stored[layer.name] for layer in self.evaluator.graph.layers if layer.name in stored}
        self.default = self.chip.profile.weights.default_bits.value or 0
        self.stated = self.list_stated({})
        self.within_synops = self.project(lambda widths: True)

    @property
    def chip(self) -> ChipCosts:
        """The network placed on the chip, with the bits from before."""
        assert self.evaluator.chip is not None  # it was made with one
        return self.evaluator.chip

    def list_stated(self, bits: Bits) -> dict[str, int]:
        """Return the bits that a network with these states: those of layers that have others than the chip's default."""
        return {name: width for name, width in {**self.start, **bits}.items() if width != self.default}

    def place(self, bits: Bits) -> ChipCosts:
        """Return the costs of the network with bits by layer."""
        key = tuple(bits.items())
        if key not in self._costs:
            self._costs[key] = self.chip.with_bits(bits)
        return self._costs[key]

    def count_words(self, bits: Bits, widths: Widths | None = None) -> float:
        """Return the words of synapse memory at widths, those of `within_synops` unless given; 0 where they are not known."""
        return self.place(bits).sizes(self.within_synops if widths is None else widths)["memory_words"] or 0.0

    def is_over(self, bits: Bits, widths: Widths | None = None) -> bool:
        """Return whether a limit that depends on bits is exceeded at widths, those of `within_synops` unless given."""
        costs, at = self.place(bits), self.within_synops if widths is None else widths
        over = self.settings.fit and any(row.resource in ROWS for row in costs.place(at)[1])
        return over or max_use(costs.sizes(at), self.limits) > 1

    @property
    def asks_for_fewer(self) -> bool:
        """Whether a limit is exceeded that fewer bits can help with."""
        return bool(self.count_words(self.start)) and self.is_over(self.start)

    def list_moves(self) -> dict[tuple[str, int], float]:
        """Return the words that each smaller width of one layer saves, where they are worth a change."""
        before = self.count_words(self.start)
        saved = {
            (name, width): before - self.count_words({**self.start, name: width})
            for name, bits in self.start.items()
            for width in list_layer_widths(self.chip.profile)
            if width < bits
        }
        return {move: words for move, words in saved.items() if words > MIN_SHARE * before}

    def measure_losses(self, saved: Moves, kept: Checkpoint) -> tuple[dict[tuple[str, int], float], tuple[dict[str, Any], ...]]:
        """Return the certainty that each width of one layer costs, and a row for each; fewer bits cost no less.

        Args:
            saved: the words of each.
            kept: where measurements are kept.
        """
        losses: dict[tuple[str, int], float] = {}
        rows: list[dict[str, Any]] = []
        whole = kept.get("bits all", lambda: self.measure({})) if saved else 0.0
        for name, width in sorted(saved, key=lambda move: (list(self.start).index(move[0]), -move[1])):
            wider = [loss for (other, w), loss in losses.items() if other == name and w > width]
            alone = kept.get(f"bits {name} {width}", lambda only={name: width}: self.measure(only))  # type: ignore[misc]
            losses[name, width] = max([whole - alone, 0.0, *wider])
            rows.append({"layer": name, "bits": width, "words": saved[name, width], "certainty": losses[name, width]})
        return losses, tuple(rows)

    def measure(self, bits: Bits) -> float:
        """Return the certainty of the network on the values that its integers with these bits stand for."""
        from spear_deploy.norse.network import to_norse

        rounded = self.form.rounding(state_layer_bits(self.evaluator.graph, {**self.stated, **bits})).graph
        return quick_evaluate(to_norse(rounded).eval(), rounded, self.evaluator.split).certainty

    def reduce(self, saved: Moves, losses: Moves, floor: int | None) -> dict[str, int]:
        """Return the bits of `reduce_bits` down to a floor; None: those from before."""
        allowed = {} if floor is None else {move: words for move, words in saved.items() if move[1] >= floor}
        return reduce_bits(self.start, allowed, losses, self.is_over)

    def project(self, fits: Callable[[Widths], bool]) -> Widths:
        """Return the largest uniform widths that fit and that leave `synops`."""
        channels, ones = self.evaluator.channels, (1,) * len(self.evaluator.channels)
        return project_ratios(
            ones, channels, ones,
            lambda widths: (self.synops is None or self.evaluator.estimate(widths) <= self.synops) and fits(widths),
        )  # fmt: skip


def make_bit_limits(evaluator: Evaluator, limits: Mapping[str, float], settings: PruneSettings, form: IntegerForm) -> BitLimits:
    """Return the limits that depend on bits of a network and all its limits by resource.

    Before bits count, uniform widths leave the SynOps budget; half of it, as an exponent, where weights may go too.
    """
    limit, dense = limits.get("synops"), evaluator.dense.synops.total
    thins = settings.levers is not None and "weights" in parse_levers(settings.levers)
    return BitLimits(
        evaluator=evaluator,
        limits={name: value for name, value in limits.items() if name in SIZES},
        settings=settings,
        form=form,
        synops=None if limit is None else dense * min(1.0, limit / max(dense, 1e-12)) ** (0.5 if thins else 1.0),
    )


def reduce_bits(start: Bits, saved: Moves, losses: Moves, is_over: Callable[[Bits], bool]) -> dict[str, int]:
    """Return bits by layer with which the limits hold, at little loss; all that may be saved where they never do.

    Args:
        start: bits by layer.
        saved: by layer and smaller width the words that it saves against `start`; no other widths are taken.
        losses: by the same what it costs.
        is_over: whether bits exceed a limit; fewer bits never make it worse.

    No layer of a result within the limits can have its next wider width without exceeding them.

    >>> saved = {("a", 4): 40.0, ("a", 2): 60.0, ("b", 4): 10.0}
    >>> losses = {("a", 4): 0.1, ("a", 2): 0.5, ("b", 4): 0.01}
    >>> reduce_bits({"a": 8, "b": 8}, saved, losses, lambda bits: bits["a"] * 10 + bits["b"] * 2 > 60)
    {'a': 4, 'b': 8}
    """
    bits = dict(start)

    def gain(move: tuple[str, int]) -> tuple[float, float]:
        """Return what a move saves for what it costs, from the present bits on."""
        now = (move[0], bits[move[0]])
        words = saved[move] - saved.get(now, 0.0)
        return words / max(losses[move] - losses.get(now, 0.0), LEAST_LOSS), words

    while is_over(bits):
        moves = [move for move in saved if move[1] < bits[move[0]] and saved[move] > saved.get((move[0], bits[move[0]]), 0.0)]
        if not moves:
            return bits
        name, width = max(moves, key=gain)
        bits[name] = width
    while True:
        wider = [
            {**bits, name: min(w for w in (start[name], *(w for n, w in saved if n == name)) if w > width)}
            for name, width in bits.items()
            if width < start[name]
        ]
        within = [other for other in wider if not is_over(other)]
        if not within:
            return bits
        bits = min(within, key=lambda other: sum(losses.get(item, 0.0) for item in other.items()))
