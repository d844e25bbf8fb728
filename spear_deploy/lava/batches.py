"""Which passes through Lava does an input take, sample by sample?

Samples follow each other through one network, or lie side by side in copies of it (`Plan.side_by_side`). With K copies and m
samples each, sample k · m + j runs in copy k during Lava's steps j · T + offset ... (j + 1) · T + offset − 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.builder import Builder, Recording
from spear_deploy.lava.convolution import check_sum
from spear_deploy.lava.formats import MAX_INPUT, MAX_SUM
from spear_deploy.lava.plan import Plan
from spear_deploy.lava.program import Pass, Program, connected
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT
from spear_deploy.simulator.stepper import value_of, whole
from spear_deploy.util import memory

COPIED_SYNAPSES = 4_000_000
COPIED_NEURONS = 50_000
PASS_BYTES = 1 << 27
COPIES_IN_MEMORY = 4
"""How often what a pass plays and records is held at a time: here, in the file, in Lava's process and in the one it forked."""


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A program, and where it leaves what was recorded."""

    program: Program
    recordings: tuple[Recording, ...]


def lower(plan: Plan, x: Array, record: set[str], prefix: str = "") -> Lowered:
    """Turn a network and its input (T, B, *shape) into a program.

    Args:
        prefix: starts the names of arrays and files, so that programs can be joined.

    Raises:
        UnsupportedError: the input drives Lava beyond its 32-bit numbers.
        DataError: analogue values reach weights that take whole numbers.
    """
    sources = source_values(plan, x)
    _check_inputs(plan, sources)
    passes: list[Pass] = []
    recordings: list[Recording] = []
    arrays: dict[str, Array] = {}
    for number, samples in enumerate(_chunks(plan, sources, record)):
        builder = Builder(plan, {name: v[:, samples] for name, v in sources.items()}, samples, f"{prefix}{number}")
        passes += connected(builder.build(record))
        recordings += builder.recordings
        arrays |= builder.arrays
    return Lowered(program=Program(passes=tuple(passes), arrays=arrays), recordings=tuple(recordings))


def source_values(plan: Plan, x: Array) -> dict[str, Array]:
    """Return what the host feeds: the input as whole numbers, and what lies behind each `Scale` that it drives; (T, B, n)."""
    wanted = {feed.source: target for target, feeds in plan.feeds.items() for feed in feeds if feed.hosted}
    values = {}
    if np.abs(x).max(initial=0) >= 1 << 31:
        raise UnsupportedError(f"the input holds values up to {np.abs(x).max():.3g}, Lava's messages hold 32 bits; scale it down")
    for name, target in wanted.items():
        if name == INPUT:
            values[name] = whole(x, target).astype(np.int64)
        else:
            values[name] = value_of(plan.graph, name.removesuffix("/drive"), {INPUT: x})
    return {name: value.reshape(*value.shape[:2], -1) for name, value in values.items()}


def _check_inputs(plan: Plan, sources: Mapping[str, Array]) -> None:
    largest = {name: int(np.abs(value).max(initial=0)) for name, value in sources.items()}
    for target, feeds in plan.feeds.items():
        bound = sum((np.abs(constant.value) for constant in plan.constants[target]), np.zeros(plan.size(target)))
        for feed in feeds:
            most = feed.reach * float(largest.get(feed.source, 1))
            if feed.conv is not None:
                check_sum(feed.conv, target, most.max())
            bound = bound + np.where(most < MAX_SUM, most / 2**feed.shift, most)
        if bound.max(initial=0) >= MAX_INPUT:
            raise UnsupportedError(
                f"layer '{target}': up to {bound.max():.0f} may arrive in one step, Lava's 32-bit numbers hold {MAX_INPUT}; "
                "scale weights or input down"
            )


def _chunks(plan: Plan, sources: Mapping[str, Array], record: set[str]) -> Iterator[slice]:
    """Split the samples so that what a pass plays and records fits into memory."""
    steps, batch = next(iter(sources.values())).shape[:2]
    neurons = sum(plan.size(name) for name in plan.feeds)
    played = sum(value.shape[2] for value in sources.values())
    per_sample = steps * (4 * played + neurons * (1 + 4 * len(record & {"v", "u"})))
    if COPIES_IN_MEMORY * per_sample > (free := memory.free_bytes()):
        raise UnsupportedError(
            f"{steps} steps: playing and recording one sample takes {memory.in_words(COPIES_IN_MEMORY * per_sample)}, "
            f"{memory.in_words(free)} are free; run fewer steps, or record less"
        )
    most = max(1, PASS_BYTES // per_sample)
    if plan.side_by_side:
        synapses = sum(feed.synapses for feeds in plan.feeds.values() for feed in feeds)
        most = max(1, min(most, COPIED_SYNAPSES // max(synapses, 1), COPIED_NEURONS // neurons))
    parts = -(-batch // most)
    bounds = np.linspace(0, batch, parts + 1).round().astype(int)
    return (slice(int(a), int(b)) for a, b in itertools.pairwise(bounds))
