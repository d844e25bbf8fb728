"""Replacement of one part of a network, with its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from spear_deploy.network.graph import SNNGraph

Kind: TypeAlias = Literal["exact", "bounded", "learnt"]
"""exact: the same spikes in exact arithmetic. bounded: within a stated bound. learnt: other spikes, until it is fine-tuned."""

Topic: TypeAlias = Literal[
    "input", "map", "kernel", "pool", "neuron", "time_constant", "reset", "readout", "bias", "sign", "palette"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What some layers of a network have, what stands in for it on the chip, and the rewrite.

    Attributes:
        layers: that change.
        what: they have, as `check` names it.
        by: what they have afterwards.
        kind: see `Kind`.
        topic: what it is about; replacements of one topic and the same layers are alternatives.
        option: the alternative's name within its topic.
        bound: of a bounded replacement, in words; "" for others.
        rewrite: returns the changed network; the given one stays.
    """

    layers: tuple[str, ...]
    what: str
    by: str
    kind: Kind
    topic: Topic
    rewrite: Callable[[SNNGraph], SNNGraph]
    option: str = ""
    bound: str = ""

    def to_rows(self, neurons: int = 0) -> list[dict[str, Any]]:
        """Return a row a layer as plain data; `neurons` that the replacement adds stand in the first row."""
        facts = {"what": self.what, "by": self.by, "kind": self.kind, "bound": self.bound}
        return [{"layer": name, **facts, "neurons": 0 if i else neurons} for i, name in enumerate(self.layers)]
