"""Budgets of a pruned network, absolute or relative to the dense network.

Resources and their units:

    synops         SynOps per inference                             energy_j     J per inference
    memory_words   words of synapse memory, all cores together      latency_s    s of an inference
    parameters     weights, biases and batch norm's numbers         cores        cores in use
    step_load      work of the busiest core (or of the chip's clock) in a step, as a part of what it can do

Users write energy in µJ (`energy_uj`), latency in ms (`latency_ms`) and memory words as `memory`, see `WRITTEN`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from spear_deploy.errors import BudgetError
from spear_deploy.util.number_format import number

RESOURCES = ("synops", "energy_j", "latency_s", "step_load", "cores", "memory_words", "parameters")
ACTIVE = ("synops", "energy_j", "latency_s", "step_load")
"""Resources that depend on spikes; the others on sizes alone."""
TIMED = ("energy_j", "latency_s", "step_load")
"""Of these, those that are measured on a chip."""
OF_CHIP = ("energy_j", "latency_s", "step_load", "cores", "memory_words")
"""Resources that are defined only on a chip."""
LEVERS_LEAVE = "; SynOps that the levers leave at the least, before learning: "
WRITTEN = {
    "synops": ("synops", 1.0, "SynOps"),
    "energy_uj": ("energy_j", 1e-6, "µJ"),
    "latency_ms": ("latency_s", 1e-3, "ms"),
    "step_load": ("step_load", 1.0, "parts of a step"),
    "cores": ("cores", 1.0, "cores"),
    "memory": ("memory_words", 1.0, "words"),
    "parameters": ("parameters", 1.0, "parameters"),
}
"""Names of budgets as users write them: (resource, unit of a plain number in the resource's own unit, name of that unit)."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A limit: `value` in the resource's unit, or a share of the dense network's use."""

    value: float
    relative: bool = False

    def resolve(self, dense: float) -> float:
        """Return the limit in the resource's unit, from the use of the dense network."""
        return self.value * dense if self.relative else self.value


def parse_amount(text: str | float, name: str) -> Amount:
    """Read "50%", "1200" or a number.

    Args:
        text: as a user writes it.
        name: of the budget, one of `WRITTEN`.

    Raises:
        BudgetError: it is neither a number nor a share, not above 0, or part of a core.

    >>> parse_amount("50%", "synops"), parse_amount("300", "energy_uj")
    (Amount(value=0.5, relative=True), Amount(value=0.0003, relative=False))
    """
    resource, unit, noun = WRITTEN[name]
    written = str(text).strip()
    try:
        value = float(written.removesuffix("%"))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise BudgetError(
            f"{resource_name(resource)} budget '{text}': expected a number of {noun} or a share such as 50%; give one of them"
        )
    if value <= 0:
        raise BudgetError(f"{resource_name(resource)} budget '{text}': expected more than 0; raise it")
    if resource == "cores" and not (written.endswith("%") or value.is_integer()):
        whole = " or ".join(f"{n:.0f}" for n in (np.floor(value), np.ceil(value)) if n)
        raise BudgetError(f"cores budget '{text}': expected a whole number of cores or a share such as 50%; give {whole}")
    return Amount(value=round(value / 100, 12), relative=True) if written.endswith("%") else Amount(value=value * unit)


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Limits, several at once; a resource without a limit is free.

    Attributes:
        fit: whether the chip's own limits (cores, memory, axons, fan-out, ...) must hold too.
    """

    synops: Amount | None = None
    energy_j: Amount | None = None
    latency_s: Amount | None = None
    step_load: Amount | None = None
    cores: Amount | None = None
    memory_words: Amount | None = None
    parameters: Amount | None = None
    fit: bool = False

    def __post_init__(self) -> None:
        if not self.amounts and not self.fit:
            raise BudgetError("no budget is given; expected at least one, or a chip to fit")

    @property
    def amounts(self) -> dict[str, Amount]:
        """The limits by resource."""
        limits = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "fit"}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def resolve(self, dense: Mapping[str, float | None]) -> dict[str, float]:
        """Return the limits in their units, by resource.

        Args:
            dense: use of the dense network by resource; None where it is not known.

        Raises:
            BudgetError: a limit on a resource whose use is not known, or a share of nothing.
        """
        limits = {}
        for name, amount in self.amounts.items():
            before = dense.get(name)
            if before is None and name == "step_load":
                raise BudgetError(
                    "step load budget: this chip has no limit of the work in a step; give a latency where its steps end "
                    "together, or leave this budget out"
                )
            if before is None:
                raise BudgetError(
                    f"{resource_name(name)} budget: what the network takes is not known for this chip; leave this budget out, or "
                    "state the numbers of the profile that `check` with `--activity` names as missing"
                )
            if amount.relative and not before > 0:
                raise BudgetError(
                    f"{resource_name(name)} budget {amount.value:.4g} of what the network takes: it takes none on these data; "
                    "give data on which it spikes, or an amount"
                )
            limits[name] = amount.resolve(before)
        return limits


def resource_name(resource: str) -> str:
    """Return the name of a resource for a sentence.

    >>> resource_name("synops"), resource_name("energy_j"), resource_name("memory_words")
    ('SynOps', 'energy', 'memory')
    """
    names = {
        "synops": "SynOps", "energy_j": "energy", "latency_s": "latency", "memory_words": "memory", "step_load": "step load"
    }  # fmt: skip
    return names.get(resource, resource)


FRACTIONAL = {"energy_j": (1e6, 4, " µJ"), "latency_s": (1e3, 4, " ms"), "step_load": (1.0, 3, " of a step")}
"""By resource that is no count: factor to the written unit, significant digits, and the unit."""


def format_amount(resource: str, value: float) -> str:
    """Return a value with its unit.

    >>> format_amount("synops", 1234.2), format_amount("energy_j", 2.5e-6), format_amount("cores", 3)
    ('1,234', '2.5 µJ', '3')
    >>> format_amount("synops", 0.00157), format_amount("synops", 1569.6)
    ('0.00157', '1,570')
    """
    if resource in FRACTIONAL:
        factor, digits, unit = FRACTIONAL[resource]
        return f"{value * factor:.{digits}g}{unit}"
    return number(value)


def refuse_budget(resource: str, limit: float, least: float, what: str, more: str = "") -> BudgetError:
    """Return the error of a budget that cannot be reached.

    The least is rounded up, so that it is a budget that holds; the limit is rounded down, so that it never looks like the least.

    Args:
        resource: that is limited.
        limit: the budget.
        least: what can be reached.
        what: costs or leaves the least, the end of "what ...".
        more: the end of the sentence.

    >>> print(refuse_budget("synops", 478.2, 478.9, "this network costs"))
    SynOps budget 478 is below 479, what this network costs; raise it to that or more
    >>> str(refuse_budget("energy_j", 1e-6, 2.50001e-6, "this network costs")).partition(",")[0]
    'energy budget 1 µJ is below 2.501 µJ'
    """
    factor, digits, unit = FRACTIONAL.get(resource, (1.0, 0, ""))
    least_written = f"{_round(least * factor, digits, np.ceil):.12g}"
    limit_written = f"{_round(limit * factor, digits or (3 if limit < 1000 else 0), np.floor):,.12g}"
    budget = f"{resource_name(resource)} budget {limit_written}{unit}"
    return BudgetError(
        f"{budget} is below {least_written}{unit}, what {what}; raise it to that or more{more}",
        min_value=least,
    )


def _round(value: float, digits: int, turn: Callable[[float], float]) -> float:
    """Return a positive value turned up or down to a number of significant digits, or for 0 digits to a whole number.

    >>> _round(0.0012341, 3, np.ceil), _round(3.0, 0, np.ceil), round(_round(0.00123, 3, np.floor), 9)
    (0.00124, 3.0, 0.00123)
    """
    step = 10.0 ** (np.floor(np.log10(value)) + 1 - digits) if digits and value > 0 else 1.0
    whole = np.rint(value / step)  # of a value that is a multiple but for rounding
    return float(step * (whole if np.isclose(whole * step, value, rtol=1e-12, atol=0) else turn(value / step)))
