"""What is used of what there is? One row for each resource and place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Status: TypeAlias = Literal["ok", "tight", "over", "unchecked"]
CHIP = "chip"
TIGHT = 0.9
"""A capacity that is used beyond this share is tight."""
TOGETHER = " + "
"""Between the names of layers that share a core."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One resource at one place: of a layer (or of layers that share cores), its fullest core.

    Attributes:
        used, limit: numbers; of what is there or not (a neuron model), how many things the chip does not have, and 0.
        detail: what exactly, in words, where a number does not say it.
    """

    resource: str
    where: str
    used: float | None
    limit: float | None
    unit: str
    status: Status
    remedy: str = ""
    detail: str = ""

    @property
    def share(self) -> float | None:
        """Used part of the limit."""
        return None if self.used is None or not self.limit else self.used / self.limit

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers it is about."""
        return tuple(self.where.split(TOGETHER))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        data = {**asdict(self), "remedy": self.remedy or None}
        if not self.detail:
            del data["detail"]
        return data


def status_of(used: float | None, limit: float | None, *, capacity: bool = True) -> Status:
    """Say how an amount stands to its limit; a number that nobody published is never a pass."""
    if used is None or limit is None:
        return "unchecked"
    if used > limit:
        return "over"
    return "tight" if capacity and used > TIGHT * limit else "ok"


def row_of(resource: str, where: str, used: float | None, leaf: Any, *, capacity: bool = True, **more: Any) -> list[Row]:
    """Return the row of a limit of a profile, or none where the chip has no such limit."""
    if leaf.value == "unlimited":
        return []
    status = status_of(used, leaf.value, capacity=capacity)
    return [Row(resource=resource, where=where, used=used, limit=leaf.value, unit=leaf.unit, status=status, **more)]
