"""Samples of an input as passes through Lava.

Samples follow each other through one network, or run in copies of it (`LavaPlan.needs_copies`). With K copies and m
samples each, sample k · m + j runs in copy k during Lava's steps j · T + offset ... (j + 1) · T + offset − 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.builder import PassBuilder, Recording
from spear_deploy.lava.convolution import check_conv_sum
from spear_deploy.lava.formats import MAX_INPUT, MAX_SUM
from spear_deploy.lava.plan import LavaPlan
from spear_deploy.lava.program import Pass, Program, split_into_components
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT
from spear_deploy.simulator.stepper import synaptic_input, to_integers
from spear_deploy.util import memory
from spear_deploy.util.number_format import byte_size

COPIED_SYNAPSES = 4_000_000
COPIED_NEURONS = 50_000
PASS_BYTES = 1 << 27
COPIES_IN_MEMORY = 4
"""Copies in memory of what a pass sends and records: here, in the file, in Lava's process and in the one that it forks."""


@dataclass(frozen=True, kw_only=True)
class RecordedProgram:
    """A program, and the files with its recordings."""

    program: Program
    recordings: tuple[Recording, ...]


def lower_in_passes(plan: LavaPlan, x: Array, record: set[str], prefix: str = "") -> RecordedProgram:
    """Return the program of a network on an input (T, B, *shape).

    Args:
        plan, x: the network and its input.
        record: of "v" and "u", the states to record.
        prefix: of the names of arrays and files, so that programs can be joined.

    Raises:
        UnsupportedError: the input drives Lava beyond its 32-bit numbers.
        DataError: analogue values reach weights that take whole numbers.
    """
    sources = host_values(plan, x)
    _check_input_range(plan, sources)
    passes: list[Pass] = []
    recordings: list[Recording] = []
    arrays: dict[str, Array] = {}
    for number, samples in enumerate(_split_samples(plan, sources, record)):
        builder = PassBuilder(plan, {name: v[:, samples] for name, v in sources.items()}, samples, f"{prefix}{number}")
        passes += split_into_components(builder.build(record))
        recordings += builder.recordings
        arrays |= builder.arrays
    return RecordedProgram(program=Program(passes=tuple(passes), arrays=arrays), recordings=tuple(recordings))


def host_values(plan: LavaPlan, x: Array) -> dict[str, Array]:
    """Return the values that the host sends: the input as integers, and the output of each `Scale` behind it; (T, B, n)."""
    targets = {incoming.source: target for target, inputs in plan.inputs.items() for incoming in inputs if incoming.from_host}
    values = {}
    if np.abs(x).max(initial=0) >= 1 << 31:
        raise UnsupportedError(f"the input holds values up to {np.abs(x).max():.3g}, Lava's messages hold 32 bits; scale it down")
    for name, target in targets.items():
        if name == INPUT:
            values[name] = to_integers(x, target).astype(np.int64)
        else:
            values[name] = synaptic_input(plan.graph, name.removesuffix("/drive"), {INPUT: x})
    return {name: value.reshape(*value.shape[:2], -1) for name, value in values.items()}


def _check_input_range(plan: LavaPlan, sources: Mapping[str, Array]) -> None:
    largest = {name: int(np.abs(value).max(initial=0)) for name, value in sources.items()}
    for target, inputs in plan.inputs.items():
        bound = sum((np.abs(constant.value) for constant in plan.constants[target]), np.zeros(plan.size(target)))
        for incoming in inputs:
            max_sum = incoming.max_gain * float(largest.get(incoming.source, 1))
            if incoming.conv is not None:
                check_conv_sum(incoming.conv, target, max_sum.max())
            bound = bound + np.where(max_sum < MAX_SUM, max_sum / 2**incoming.shift, max_sum)
        if bound.max(initial=0) >= MAX_INPUT:
            raise UnsupportedError(
                f"layer '{target}': up to {bound.max():.0f} may arrive in one step, Lava's 32-bit numbers hold {MAX_INPUT}; "
                "scale weights or input down"
            )


def _split_samples(plan: LavaPlan, sources: Mapping[str, Array], record: set[str]) -> Iterator[slice]:
    """Split the samples so that what a pass sends and records fits into memory."""
    steps, batch = next(iter(sources.values())).shape[:2]
    neurons = sum(plan.size(name) for name in plan.inputs)
    sent = sum(value.shape[2] for value in sources.values())
    per_sample = steps * (4 * sent + neurons * (1 + 4 * len(record & {"v", "u"})))
    if COPIES_IN_MEMORY * per_sample > (free := memory.free_bytes()):
        raise UnsupportedError(
            f"{steps} steps: playing and recording one sample takes {byte_size(COPIES_IN_MEMORY * per_sample)}, "
            f"{byte_size(free)} are free; run fewer steps, or record less"
        )
    max_samples = max(1, PASS_BYTES // per_sample)
    if plan.needs_copies:
        synapses = sum(incoming.synapses for inputs in plan.inputs.values() for incoming in inputs)
        max_samples = max(1, min(max_samples, COPIED_SYNAPSES // max(synapses, 1), COPIED_NEURONS // neurons))
    parts = -(-batch // max_samples)
    bounds = np.linspace(0, batch, parts + 1).round().astype(int)
    return (slice(int(a), int(b)) for a, b in itertools.pairwise(bounds))
