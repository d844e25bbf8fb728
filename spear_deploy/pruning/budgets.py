"""What must hold after pruning, absolute or relative to the network before?

Resources and their units:

    synops         SynOps per inference                             energy_j     J per inference
    memory_words   words of synapse memory, all cores together      latency_s    s of an inference
    parameters     weights, biases and batch norm's numbers         cores        cores in use
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from spear_deploy.errors import BudgetError

RESOURCES = ("synops", "energy_j", "latency_s", "cores", "memory_words", "parameters")
ACTIVE = ("synops", "energy_j", "latency_s")
"""Resources that depend on spikes; the others on sizes alone."""
OF_CHIP = ("energy_j", "latency_s", "cores", "memory_words")
"""Resources that only a chip gives a meaning."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A limit: `value` in the resource's unit, or a share of what the network takes before pruning."""

    value: float
    relative: bool = False

    def of(self, dense: float) -> float:
        """Return the limit in the resource's unit."""
        return self.value * dense if self.relative else self.value


def amount(wanted: str | float, resource: str, *, unit: float = 1.0) -> Amount:
    """Read "50%", "1200" or a number.

    Args:
        wanted: what a person wrote.
        resource: for the message.
        unit: of a plain number, in the resource's own unit: 1e-6 for µJ.

    Raises:
        BudgetError: it is none, or not above 0.

    >>> amount("50%", "synops"), amount("300", "energy", unit=1e-6)
    (Amount(value=0.5, relative=True), Amount(value=0.0003, relative=False))
    """
    text = str(wanted).strip()
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise BudgetError(f"{resource} budget '{wanted}': expected a number or a share such as 50%") from None
    if not (np.isfinite(value) and value > 0):
        raise BudgetError(f"{resource} budget '{wanted}': expected more than 0")
    return Amount(value=round(value / 100, 12), relative=True) if relative else Amount(value=value * unit)


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Limits, several at once; a resource without one is free.

    Attributes:
        fit: whether the chip's own limits (cores, memory, axons, fan-out, ...) must hold too.
    """

    synops: Amount | None = None
    energy_j: Amount | None = None
    latency_s: Amount | None = None
    cores: Amount | None = None
    memory_words: Amount | None = None
    parameters: Amount | None = None
    fit: bool = False

    def __post_init__(self) -> None:
        if not self.given() and not self.fit:
            raise BudgetError("no budget is given; expected at least one, or a chip to fit")

    def given(self) -> dict[str, Amount]:
        """Return the limits by resource."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "fit"}
        return {name: limit for name, limit in found.items() if limit is not None}

    def limits(self, dense: Mapping[str, float | None]) -> dict[str, float]:
        """Return the limits in their units.

        Args:
            dense: what the network takes before pruning; None where it is not known.

        Raises:
            BudgetError: a limit on what is not known.
        """
        found = {}
        for name, limit in self.given().items():
            before = dense.get(name)
            if before is None:
                raise BudgetError(
                    f"{words(name)} budget: what the network takes is not known for this chip; leave this budget out, or state "
                    "the missing numbers of the profile"
                )
            found[name] = limit.of(before)
        return found


def words(resource: str) -> str:
    """Return a resource in words.

    >>> words("synops"), words("energy_j"), words("memory_words")
    ('SynOps', 'energy', 'memory')
    """
    return {"synops": "SynOps", "energy_j": "energy", "latency_s": "latency", "memory_words": "memory"}.get(resource, resource)


def shown(resource: str, value: float, *, up: bool = False) -> str:
    """Return a value with its unit, rounded up on demand.

    >>> shown("synops", 1234.2, up=True), shown("energy_j", 2.5e-6), shown("cores", 3)
    ('1235', '2.5 µJ', '3')
    """
    if resource == "energy_j":
        return f"{value * 1e6:.4g} µJ"
    if resource == "latency_s":
        return f"{value * 1e3:.4g} ms"
    return f"{np.ceil(value) if up else value:.0f}"


# FOLDED from spear_deploy/pruning/budgets.py
# How many SynOps does a person mean?


def budget_from(wanted: str | float, dense: float) -> float:
    """Return SynOps per inference for "50%", "1200" or a number.

    Raises:
        BudgetError: it is none, or not above 0.

    >>> budget_from("50%", 1000.0), budget_from("300", 1000.0)
    (500.0, 300.0)
    """
    text = str(wanted).strip()
    try:
        value = float(text.removesuffix("%")) * (dense / 100 if text.endswith("%") else 1)
    except ValueError:
        raise BudgetError(f"SynOps budget '{wanted}': expected a number of SynOps or a share such as 50%") from None
    if not (np.isfinite(value) and value > 0):
        raise BudgetError(f"SynOps budget '{wanted}': expected more than 0")
    return value
