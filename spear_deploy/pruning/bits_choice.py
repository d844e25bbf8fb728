"""The choice of bits by layer, in words and plain data, and where it is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spear_deploy.errors import BudgetError
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.network.labels import name_layers
from spear_deploy.pruning.chip_costs import ChipCosts, describe_rows, max_use
from spear_deploy.pruning.fewer_bits import FLOORS, ROWS, SIZES
from spear_deploy.pruning.levers import parse_levers
from spear_deploy.pruning.settings import PruneSettings
from spear_deploy.pruning.tune.measure import BudgetMonitor
from spear_deploy.pruning.tune.rounded_learning import IntegerForm
from spear_deploy.quantize.network import list_layer_widths


@dataclass(frozen=True, kw_only=True)
class BitsChoice:
    """Widths that are smaller than the chip's default.

    Attributes:
        bits: by layer; layers that keep the default are left out, all of them where channels alone are better.
        default: bits of the others.
        words: of synapse memory before and with these bits, both with all channels.
        measured: a row for each layer and width: words saved, certainty lost by its rounding alone.
        candidates: a row for each: bits, channels, accuracy and certainty on validation after its batches; none where bits are
            the only lever, and where the search chose them.
        episodes: of the search that chose them; 0: they were chosen before it.
        stated: bits by layer that the network stated before.
    """

    bits: dict[str, int]
    default: int
    words: tuple[float, float]
    measured: tuple[dict[str, Any], ...]
    candidates: tuple[dict[str, Any], ...] = ()
    episodes: int = 0
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
        if self.episodes:
            after = f"chosen with the widths, in {self.episodes} episodes that learnt with rounding"
        if not self.changed:
            kept = "their bits" if self.stated else self.default
            return f"bits: all layers keep {kept}, fewer channels cost less than fewer bits: {after}"
        chosen = ", ".join(f"{name_layers([name])} {bits}" for name, bits in self.bits.items())
        before, now = self.words
        return (
            f"bits of a weight in place of {self.default}: {chosen}, which takes memory from {before:,.0f} to {now:,.0f} words "
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
            "candidates": list(self.candidates), "episodes": self.episodes, "stated": self.stated,
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


def note_kept_bits(settings: PruneSettings, monitor: BudgetMonitor) -> list[str]:
    """Return why all layers keep their bits, where the lever is named beside channels and has nothing to choose.

    Args:
        settings: with the levers.
        monitor: of the network before pruning.
    """
    chip = monitor.chip
    if chip is None or not can_choose_bits(settings, chip.profile):
        return []
    widths = tuple(group.channels for group in chip.groups)
    rows = chip.place(widths)[1] if monitor.budgets.fit else ()
    limits = {name: limit for name, limit in monitor.limits.items() if name in SIZES}
    if any(row.resource in ROWS for row in rows) or max_use(chip.sizes(widths), limits) > 1:
        if any(FLOORS[0] <= bits < (chip.profile.weights.default_bits.value or 0) for bits in list_layer_widths(chip.profile)):
            return ["bits: all layers keep theirs, since fewer of them leave no more channels within the limits"]
        return [f"bits: all layers keep theirs; fewer than {FLOORS[0]} are taken only where fewer channels are not enough"]
    return ["bits: all layers keep theirs, since no limit of memory or cores is exceeded"]


def note_plan_without_bits(settings: PruneSettings, chip: ChipCosts | None) -> list[str]:
    """Return that bits by layer are not chosen for a plan of several budgets, where a limit of memory or cores is among them."""
    sizes = settings.memory is not None or settings.cores is not None or settings.fit
    if not sizes or chip is None or not can_choose_bits(settings, chip.profile):
        return []
    return ["bits: their number by layer is chosen for one budget at a time; give one budget, so that fewer of them save memory"]
