"""Replacement of one part of a network, with its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from spear_deploy.network.graph import SNNGraph

Kind: TypeAlias = Literal["exact", "bounded", "learnt"]
"""exact: the same spikes in exact arithmetic. bounded: within a stated bound. learnt: other spikes, until it is fine-tuned."""

Topic: TypeAlias = Literal[
    "input", "outputs", "map", "kernel", "pool", "neuron", "time_constant", "constants", "reset", "readout", "bias", "delay",
    "skip", "sign", "palette",
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


def explain_no_replacement(facts: Mapping[str, Any]) -> str:
    """Return why an adaptation replaced nothing, from its facts.

    >>> explain_no_replacement({"missing": [], "verdict": "does_not_fit"})
    'the chip has each part that the network needs, but not the room'
    """
    if facts["missing"]:
        return "what is missing stands below"
    room = ", but not the room" if facts["verdict"] == "does_not_fit" else ""
    return f"the chip has each part that the network needs{room}"


def join_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as one where several layers have the same instead of the same: names side by side, neurons added up.

    >>> same = {"what": "LIF", "by": "IF", "kind": "learnt", "bound": ""}
    >>> join_rows([{**same, "layer": "a", "neurons": 3}, {**same, "layer": "b", "neurons": 0}])[0]["layer"]
    'a, b'
    """
    joined: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("what", "by", "kind", "bound"))
        if key in joined:
            before = joined[key]
            joined[key] = {**before, "layer": f"{before['layer']}, {row['layer']}", "neurons": before["neurons"] + row["neurons"]}
        else:
            joined[key] = dict(row)
    return list(joined.values())
