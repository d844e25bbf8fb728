"""Bits of weights by layer, chosen by short learning where a limit of memory is exceeded.

On a chip whose layers may have weights of different widths, fewer bits save words of memory, and no channel. What a layer's width
costs at first is the certainty, on validation, that the network loses by the chip's rounding of that layer alone. With it

    while a limit is exceeded     of all layers and smaller widths take the one with the most words saved for the certainty lost
    then                          give bits back, where the limits still hold, those first that cost most

down to 4 bits. That is a second candidate beside the one without fewer bits; channels, uniformly narrower, do the rest in each.
Both learn for the same number of batches, the last of them with the chip's rounding, and the more certain on validation is taken.
What is learnt here is dropped. Bits go down to 3, then to 2, only where neither candidate is within the limits (`FLOORS`).
Where bits are the only lever, the most bits by layer within the limits are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from spear_deploy.data.dataset import hash_dataset
from spear_deploy.errors import BudgetError
from spear_deploy.hardware.profile import hash_profile
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.interchange.snn_file import hash_network
from spear_deploy.network import Array
from spear_deploy.network.graph import SNNGraph
from spear_deploy.network.labels import name_layers
from spear_deploy.network.layer_bits import state_layer_bits
from spear_deploy.pruning.budgets import format_amount, resource_name
from spear_deploy.pruning.candidates import Checkpoint, Evaluator, Widths
from spear_deploy.pruning.chip_costs import ChipCosts, describe_rows, max_use
from spear_deploy.pruning.levers import are_bits_alone, parse_levers
from spear_deploy.pruning.search.projection import project_ratios
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.measure import BudgetMonitor
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.quantize.network import list_layer_widths
from spear_deploy.training.evaluation import quick_evaluate
from spear_deploy.training.fit import Recipe, fit, limit_threads
from spear_deploy.training.losses import average_outputs
from spear_deploy.util.digests import hash_value
from spear_deploy.util.progress import Progress

FLOORS = (4, 3, 2)
"""Fewest bits of the candidates; 3 and 2 only where no candidate before is within the limits. On digits and the memory of
Loihi 1, four candidates of 3 and 2 bits looked best after 90 batches, and ended 0.3 to 1.7 points behind channels alone."""
MIN_SHARE = 0.02
"""Share of the words that a layer has to save for its bits to be worth a change."""
LEAST_LOSS = 1e-4
"""Certainty that a smaller width is taken to cost at least: less is noise of the samples."""
SIZES = ("memory_words", "cores")
"""Budgets that depend on bits."""
ROWS = ("synapse_memory", "cores")
"""The chip's own limits that depend on bits."""
BATCHES, ROUNDED_BATCHES = 60, 30
"""Batches that a candidate learns from in floating point, and then with the chip's rounding."""
PEAK, ROUNDED_PEAK = 1e-2, 3e-3

Moves: TypeAlias = Mapping[tuple[str, int], float]
"""By layer and smaller width, words or certainty."""


@dataclass(frozen=True, kw_only=True)
class BitsChoice:
    """Widths that are smaller than the chip's default.

    Attributes:
        bits: by layer; layers that keep the default are left out, all of them where channels alone are better.
        default: bits of the others.
        words: of synapse memory before and with these bits, both with all channels.
        measured: a row for each layer and width: words saved, certainty lost by its rounding alone.
        candidates: a row for each: bits, channels, accuracy and certainty on validation after its batches; none where bits are
            the only lever.
        stated: bits by layer that the network stated before.
    """

    bits: dict[str, int]
    default: int
    words: tuple[float, float]
    measured: tuple[dict[str, Any], ...]
    candidates: tuple[dict[str, Any], ...] = ()
    stated: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether a layer has fewer bits than before."""
        return self.bits != self.stated

    @property
    def batches(self) -> int:
        """Batches that all candidates learnt from."""
        return sum(row["batches"] for row in self.candidates)

    @property
    def note(self) -> str:
        """A sentence on the choice and its candidates."""
        after = f"after {self.candidates[0]['batches']} batches each, on validation with rounding, " if self.candidates else ""
        after += ", ".join(f"{self._name_bits(row['bits'])} bits {row['accuracy']:.1%}" for row in self.candidates)
        if not self.changed:
            kept = "their bits" if self.stated else self.default
            return f"bits: all layers keep {kept}, fewer channels cost less than fewer bits: {after}"
        chosen = ", ".join(f"{name_layers([name])} {bits}" for name, bits in self.bits.items())
        before, now = self.words
        return (
            f"bits of a weight in place of {self.default}: {chosen}, which takes memory from {before:.0f} to {now:.0f} words "
            f"{f'before channels go; {after}' if after else 'with all channels'}"
        )

    def _name_bits(self, bits: Mapping[str, int]) -> str:
        """Return the bits of a candidate in words."""
        if bits == self.stated:
            return "the network's" if bits else f"all {self.default}"
        return f"down to {min(bits.values())}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "bits": self.bits, "default": self.default, "words": list(self.words), "measured": list(self.measured),
            "candidates": list(self.candidates), "stated": self.stated,
        }  # fmt: skip


def can_choose_bits(settings: PruneSettings, profile: HardwareProfile) -> bool:
    """Return whether bits by layer are a lever of this pruning: it is named alone or beside channels, and there are several."""
    levers = () if settings.levers is None else parse_levers(settings.levers)
    return "bits" in levers and (levers == ("bits",) or "channels" in levers) and len(list_layer_widths(profile)) > 1


def require_bits(monitor: BudgetMonitor, settings: PruneSettings, form: IntegerForm | None) -> None:
    """Refuse bits as the only lever where they cannot help.

    Raises:
        BudgetError: layers of the chip are alike, or the chip is exceeded in something that bits do not change.
    """
    chip = monitor.chip
    if chip is None or form is None or not can_choose_bits(settings, chip.profile):
        where = "no chip is given" if chip is None else f"layers of chip '{chip.profile.name}' have weights of one width"
        raise BudgetError(f"levers: bits alone does nothing here, {where}; name channels too (`--levers channels,bits`)")
    rows = chip.place(tuple(group.channels for group in chip.groups))[1]
    others = tuple(row for row in rows if row.resource not in ROWS)
    if monitor.budgets.fit and others:
        raise BudgetError(
            f"levers: bits alone changes memory and cores, and chip '{chip.profile.name}' is exceeded elsewhere "
            f"({describe_rows(others)}); name channels too (`--levers channels,bits`)"
        )


def choose_layer_bits(
    graph: SNNGraph,
    monitor: BudgetMonitor,
    form: IntegerForm,
    chip: ChipCosts,
    settings: PruneSettings,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> BitsChoice | None:
    """Choose fewer bits for some layers where a budget of memory or cores, or the chip's own limit of these, is exceeded.

    Args:
        graph: the network before pruning, floating point.
        monitor: holds the limits and the dataset.
        form: the chip's integers.
        chip: the network placed on the chip, whose layers may differ in their widths.
        settings: levers, seed and device.
        checkpoint: a file in which measurements are kept.
        progress: is called after each candidate.

    Returns:
        None where no limit of memory or cores is exceeded, fewer bits save nothing, or no candidate is within the limits.

    Raises:
        BudgetError: bits are the only lever, and the fewest are not within the limits.
    """
    with limit_threads(graph):
        trial = _Trial(graph, monitor, form, chip, settings)
        start = trial.start
        before = trial.count_words(start)
        if not before or not trial.is_over(start):
            return None
        saved = {
            (name, width): before - trial.count_words({**start, name: width})
            for name, bits in start.items()
            for width in list_layer_widths(chip.profile)
            if width < bits
        }
        saved = {move: words for move, words in saved.items() if words > MIN_SHARE * before}
        digest = [hash_network(graph), hash_dataset(monitor.dataset), hash_profile(chip.profile)]
        kept = Checkpoint(checkpoint, "" if checkpoint is None else hash_value(digest))
        kept.begin()
        losses, measured = trial.measure_losses(saved, kept)
        if are_bits_alone(settings.levers):
            return trial.describe(trial.take_least(saved, losses), measured)
        plans = trial.list_candidates(saved, losses)
        rows = []
        for done, (bits, widths) in enumerate(plans, 1):
            fewer = trial.leave_out_default(bits)
            key = f"bits {sorted(fewer.items())} widths {list(widths)} batches {BATCHES} {ROUNDED_BATCHES} seed {settings.seed}"
            row = kept.get(key, lambda fewer=fewer, widths=widths: trial.learn(fewer, widths))  # type: ignore[misc]
            rows.append({"bits": fewer, "widths": list(widths), **row})
            if progress is not None:
                best = max(row["accuracy"] for row in rows)
                progress({"stage": "bits", "done": done, "of": len(plans), "accuracy": best})
        if all(row["bits"] == trial.stated for row in rows):
            return None
        return trial.describe(max(rows, key=lambda row: row["certainty"])["bits"], measured, tuple(rows))


def reduce_bits(
    start: Mapping[str, int], saved: Moves, losses: Moves, is_over: Callable[[Mapping[str, int]], bool]
) -> dict[str, int]:
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


@dataclass
class _Trial:
    """Candidates of one choice.

    Attributes:
        graph, monitor, form, chip, settings: those of `choose_layer_bits`.
    """

    graph: SNNGraph
    monitor: BudgetMonitor
    form: IntegerForm
    chip: ChipCosts
    settings: PruneSettings
    _costs: dict[tuple[tuple[str, int], ...], ChipCosts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(
            self.graph, self.monitor.dataset, chip=self.chip, device=self.settings.search_settings.device
        )  # fmt: skip
        self.limits = {name: limit for name, limit in self.monitor.limits.items() if name in SIZES}
        stored = self.chip.base.weight_bits
        self.start = {layer.name: stored[layer.name] for layer in self.graph.layers if layer.name in stored}
        self.default = self.chip.profile.weights.default_bits.value or 0
        self.stated = self.leave_out_default(self.start)
        self.within_synops = self._project(lambda widths: True)

    def leave_out_default(self, bits: Mapping[str, int]) -> dict[str, int]:
        """Return the bits of the layers that have others than the chip's default."""
        return {name: width for name, width in bits.items() if width != self.default}

    def describe(
        self, bits: dict[str, int], measured: tuple[dict[str, Any], ...], candidates: tuple[dict[str, Any], ...] = ()
    ) -> BitsChoice:
        """Return the choice of bits, with the words that they save."""
        words = [self.place(each).sizes(self.evaluator.channels)["memory_words"] or 0.0 for each in (self.start, bits)]
        return BitsChoice(
            bits=bits, default=self.default, words=(words[0], words[1]), measured=measured, candidates=candidates,
            stated=self.stated,
        )  # fmt: skip

    def take_least(self, saved: Moves, losses: Moves) -> dict[str, int]:
        """Return bits with which all channels are within the limits, of the highest floor that has some.

        Raises:
            BudgetError: there are none; names what the fewest bits leave.
        """
        bits: Mapping[str, int] = self.start
        for floor in FLOORS:
            bits = reduce_bits(self.start, {move: n for move, n in saved.items() if move[1] >= floor}, losses, self.is_over)
            if not self.is_over(bits):
                return self.leave_out_default(bits)
        sizes = self.place(bits).sizes(self.evaluator.channels)
        for name, limit in self.limits.items():
            least = sizes[name]
            if least is not None and least > limit:
                raise BudgetError(
                    f"{resource_name(name)} budget {format_amount(name, limit)} is below {format_amount(name, least)}, what the "
                    f"fewest bits of this chip leave with all channels; raise the budget to at least "
                    f"{format_amount(name, least, up=True)}, or let channels go too (`--levers channels,bits`)",
                    min_value=least,
                )
        raise BudgetError(
            f"chip '{self.chip.profile.name}': the network does not fit with the fewest bits and all channels "
            f"({describe_rows(self.place(bits).place(self.evaluator.channels)[1])}); let channels go too "
            "(`--levers channels,bits`)"
        )

    def place(self, bits: Mapping[str, int]) -> ChipCosts:
        """Return the costs of the network with bits by layer."""
        key = tuple(bits.items())
        if key not in self._costs:
            self._costs[key] = self.chip.with_bits(bits)
        return self._costs[key]

    def count_words(self, bits: Mapping[str, int]) -> float:
        """Return the words of synapse memory at the widths that the SynOps budget leaves; 0 where they are not known."""
        return self.place(bits).sizes(self.within_synops)["memory_words"] or 0.0

    def is_over(self, bits: Mapping[str, int], widths: Widths | None = None) -> bool:
        """Return whether a limit that depends on bits is exceeded at these widths, or those that the SynOps budget leaves."""
        costs, at = self.place(bits), self.within_synops if widths is None else widths
        over = self.monitor.budgets.fit and any(row.resource in ROWS for row in costs.place(at)[1])
        return over or max_use(costs.sizes(at), self.limits) > 1

    def list_candidates(self, saved: Moves, losses: Moves) -> list[tuple[dict[str, int], Widths]]:
        """Return bits by layer and widths of each candidate within the limits; fewer bits have to leave more channels."""
        found: list[tuple[dict[str, int], Widths]] = []
        for floor in (None, *FLOORS):
            if floor in FLOORS[1:] and found:
                break
            allowed = {} if floor is None else {move: words for move, words in saved.items() if move[1] >= floor}
            bits = reduce_bits(self.start, allowed, losses, self.is_over)
            widths = self._project(lambda widths, bits=bits: not self.is_over(bits, widths))  # type: ignore[misc]
            if not self.is_over(bits, widths) and all(sum(widths) > sum(others) for _, others in found):
                found.append((bits, widths))
        return found

    def measure_losses(self, saved: Moves, kept: Checkpoint) -> tuple[dict[tuple[str, int], float], tuple[dict[str, Any], ...]]:
        """Return the certainty that each width of one layer costs, and a row for each; fewer bits cost no less."""
        losses: dict[tuple[str, int], float] = {}
        rows: list[dict[str, Any]] = []
        whole = kept.get("bits all", lambda: self._measure({})) if saved else 0.0
        for name, width in sorted(saved, key=lambda move: (list(self.start).index(move[0]), -move[1])):
            wider = [loss for (other, w), loss in losses.items() if other == name and w > width]
            alone = kept.get(f"bits {name} {width}", lambda only={name: width}: self._measure(only))  # type: ignore[misc]
            losses[name, width] = max([whole - alone, 0.0, *wider])
            rows.append({"layer": name, "bits": width, "words": saved[name, width], "certainty": losses[name, width]})
        return losses, tuple(rows)

    def learn(self, bits: Mapping[str, int], widths: Widths) -> dict[str, Any]:
        """Let a candidate learn, at last with the chip's rounding, and return what it measures on validation."""
        device, dataset = self.settings.search_settings.device, self.monitor.dataset
        limit = self.monitor.limits.get("synops")

        def make_recipe(steps: int, peak: float) -> Recipe:
            epochs = -(-steps // max(1, len(dataset.train) // 64))
            return Recipe(
                epochs=epochs, steps=steps, learning_rate=peak, warm_up=0.1, seed=self.settings.seed, synops_budget=limit,
                device=device,
            )  # fmt: skip

        start = self.evaluator.build(widths, state_layer_bits(self.graph, bits))
        first = fit(start, dataset, make_recipe(BATCHES, PEAK), hints=self._hints)
        second = fit(
            first.graph, dataset, make_recipe(ROUNDED_BATCHES, ROUNDED_PEAK), hints=self._hints, rounding=self.form.rounding
        )  # fmt: skip
        assert second.last is not None  # it was not interrupted
        batches = first.batches + second.batches
        return {"accuracy": second.last.accuracy, "certainty": second.last.certainty, "batches": batches}

    @cached_property
    def _hints(self) -> Array:
        return average_outputs(self.graph, self.monitor.dataset.trained.train)

    def _measure(self, bits: Mapping[str, int]) -> float:
        """Return the certainty of the network on the values that its integers with these bits stand for."""
        from spear_deploy.norse.network import to_norse

        rounded = self.form.rounding(state_layer_bits(self.graph, {**self.stated, **bits})).graph
        return quick_evaluate(to_norse(rounded).eval(), rounded, self.evaluator.split).certainty

    def _project(self, fits: Callable[[Widths], bool]) -> Widths:
        """Return the largest uniform widths that fit and that the SynOps budget leaves; half of it where weights may go too."""
        evaluator, limit = self.evaluator, self.monitor.limits.get("synops")
        dense, ones = evaluator.dense.synops.total, (1,) * len(evaluator.channels)
        thins = self.settings.levers is not None and "weights" in parse_levers(self.settings.levers)
        target = None if limit is None else dense * min(1.0, limit / max(dense, 1e-12)) ** (0.5 if thins else 1.0)
        return project_ratios(
            ones, evaluator.channels, ones,
            lambda widths: (target is None or evaluator.estimate(widths) <= target) and fits(widths),
        )  # fmt: skip


def fix_limits(settings: PruneSettings, limits: Mapping[str, float]) -> PruneSettings:
    """Return the settings with their budgets of memory and cores as amounts, which bits do not change.

    A share is one of the network with the chip's default bits.
    """
    changes: dict[str, float] = {}
    if settings.memory is not None:
        changes["memory"] = limits["memory_words"]
    if settings.cores is not None:
        changes["cores"] = max(1, int(limits["cores"]))
    return replace(settings, **changes)  # type: ignore[arg-type]


def note_possible_bits(settings: PruneSettings, chip: ChipCosts | None) -> list[str]:
    """Return that fewer bits may save memory, where a budget of memory is set and the lever is not named."""
    if settings.memory is None or chip is None or settings.levers is not None or len(list_layer_widths(chip.profile)) < 2:
        return []
    widths = ", ".join(map(str, list_layer_widths(chip.profile)))
    return [
        f"layers of chip '{chip.profile.name}' may have weights of {widths} bits; `--levers channels,bits` tries whether fewer "
        "bits save memory at less cost than fewer channels"
    ]


def note_plan_without_bits(settings: PruneSettings, chip: ChipCosts | None) -> list[str]:
    """Return that bits by layer are not chosen for a plan of several budgets, where a limit of memory or cores is among them."""
    sizes = settings.memory is not None or settings.cores is not None or settings.fit
    if not sizes or chip is None or not can_choose_bits(settings, chip.profile):
        return []
    return ["bits: their number by layer is chosen for one budget at a time; give one budget, so that fewer of them save memory"]
