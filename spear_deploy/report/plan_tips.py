"""What does hovering a core of the floor plan tell?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spear_deploy.report.text import number, percent

TOLD = (
    ("synapse_memory", "synapse memory"), ("neurons", "neurons"), ("neuron_memory", "neuron memory"), ("axons_in", "input axons"),
    ("axons_out", "output axons"),
)  # fmt: skip
AXES = {1: ("neurons",), 2: ("channels", "positions"), 3: ("channels", "rows", "columns")}


def layers_on(core: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the layers that lie on a core, as indices."""
    return tuple(dict.fromkeys(layer for layer, _ in core["parts"]))


def tip_of(cores: Mapping[str, Any], core: Mapping[str, Any]) -> str:
    """Return it for one core."""
    kind = cores["kinds"][core["kind"]]
    place = "a core that there is not" if core["place"] is None else f"core {core['place']}"
    lines = [f"{place} ({kind['name']})" if kind["name"] else place]
    lines += [f"{cores['layers'][layer]}: {_box(box)}" for layer, box in core["parts"][:6]]
    lines += [f"and {len(core['parts']) - 6} parts more"] if len(core["parts"]) > 6 else []
    for key, name in TOLD:
        used, limit = core["amounts"][cores["resources"].index(key)], kind["limits"][key]
        if used is None:
            lines.append(f"{name}: format not public")
        elif isinstance(limit, int):
            lines.append(f"{name}: {number(used)} of {number(limit)} ({percent(used / limit)})")
        elif used:
            lines.append(f"{name}: {number(used)}, {'no limit' if limit else 'limit not published'}")
    return "\n".join(lines)


def tip_of_many(cores: Mapping[str, Any], core: Mapping[str, Any], shares: Sequence[float | None]) -> str:
    """Return it for cores that hold the same layers and are alike full."""
    names = ", ".join(cores["layers"][layer] for layer in layers_on(core)[:4])
    known = [share for share in shares if share is not None]
    how = f"{percent(min(known))} to {percent(max(known))} full" if known else "how full is not known"
    return f"{names}: {number(len(shares))} cores, {how}"


def _box(box: Sequence[Sequence[int]]) -> str:
    names = AXES.get(len(box), tuple(f"axis {n}" for n in range(len(box))))
    return ", ".join(f"{name} {a}–{b - 1}" if b - a > 1 else f"{name} {a}" for name, (a, b) in zip(names, box, strict=True))
