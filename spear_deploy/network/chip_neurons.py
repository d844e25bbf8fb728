"""Integer neurons of further chip families, with formats and equations.

A neuron names its `FORMAT`, a row of widths and rules that its checks, the simulator and the quantizer read alike. What a maker
has not published is not in the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network.base import Array, Part, Reset, check_range

Drive: TypeAlias = Literal["sum", "signs", "events"]
"""What a neuron takes in a step: the sum of its weights, the sums of positive and of negative weights, or event after event."""


@dataclass(frozen=True, kw_only=True)
class ChipFormat:
    """Widths and rules of the integers of a chip family.

    Attributes:
        chip: what people call it, for messages.
        v: lowest and highest potential; beyond it v is clipped, which is counted.
        thresholds: lowest and highest threshold; the neuron spikes where v reaches it.
        weights: lowest and highest stored weight.
        resets: what a spike does to v.
        drive: see `Drive`.
        sign_bit: whether a stored weight holds its sign; SpiNNaker's has it in the synapse type, ODIN's in the source.
        max_shift: largest left shift that a population's weights have in common.
        unit: stored potentials of 1 in the chip's own unit.
    """

    chip: str
    v: tuple[int, int]
    thresholds: tuple[int, int]
    weights: tuple[int, int]
    resets: tuple[str, ...]
    drive: Drive = "sum"
    sign_bit: bool = True
    max_shift: int = 0
    unit: int = 1


class ChipNeuron(Part):
    """An integer neuron with a format; its array fields are whole numbers."""

    FORMAT: ClassVar[ChipFormat]

    def _check(self, **ranges: tuple[int, int]) -> None:
        """Freeze the arrays, and refuse a reset or values outside the format."""
        self._freeze(integer=True)
        name, known = type(self).__name__, self.FORMAT.resets
        if (reset := getattr(self, "reset", known[0])) not in known:
            raise GraphError(f"{name}.reset: '{reset}' given, expected {' or '.join(map(repr, known))}")
        for field, (low, high) in {"v_threshold": self.FORMAT.thresholds, **ranges}.items():
            if getattr(self, field) is not None:
                check_range(self, field, low, high)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueNorthLIF(ChipNeuron):
    """The integer neuron of TrueNorth in its deterministic modes. Starts at `v_init`. All values are integers.

    v ← clip(v + x + leak)                                       clip: to 20 bits, counted
    spike where v ≥ v_threshold, then v ← v_reset ("value"), v − v_threshold ("subtract") or v ("none")
    else where v < v_min: v ← v_min; with `bounces` 1 −v_reset ("value"), v − v_min ("subtract") or v ("none")

    In the words of Cassidy et al. 2013: leak is λ, v_threshold α, v_min −β, v_reset R, `reset` γ = 0, 1, 2, and κ = 1 −
    `bounces`; ε, c, b and the mask of the threshold are 0. Left out: the leak that follows the sign of v, whose way through 0 is
    described in no open document, and the random modes. x sums weights of which a neuron has four, one for each axon type, and a
    synapse is there or not. A chip that meets its 20 bits while it adds up a step clips earlier than here.
    """

    FORMAT: ClassVar[ChipFormat] = ChipFormat(
        chip="TrueNorth",
        v=(-(2**19), 2**19 - 1),
        thresholds=(1, 2**18 - 1),
        weights=(-255, 255),
        resets=("value", "subtract", "none"),
    )

    v_threshold: Array
    leak: Array = 0  # type: ignore[assignment]
    v_min: Array = -(2**18 - 1)  # type: ignore[assignment]
    v_reset: Array = 0  # type: ignore[assignment]
    v_init: Array = 0  # type: ignore[assignment]
    reset: str = "value"
    bounces: int = 0

    def __post_init__(self) -> None:
        self._check(leak=(-255, 255), v_min=(-(2**18 - 1), 0), v_reset=self.FORMAT.v, v_init=self.FORMAT.v)
        if self.bounces not in (0, 1):
            raise GraphError(f"TrueNorthLIF.bounces: {self.bounces} given, expected 0 (v stops at v_min) or 1")


@dataclass(frozen=True, kw_only=True, eq=False)
class SpinnakerLIF(ChipNeuron):
    """The fixed-point neuron of SpiNNaker 1: sPyNNaker's IF_curr_delta and IF_curr_exp. Starts at u = 0, v = `v_init`.

    exc, inh = min(sum of weights of each sign, 65535) · 2^shift          one shift for each sign; the minimum is counted
    i ← exc − inh                                                         without a current (`keep_u` None: IF_curr_delta)
    u ← u + ⌊(exc, inh) · init_u / 2^32⌋;  i ← u of exc − u of inh        with one (IF_curr_exp), for each sign by itself
    a = i + v_rest;  v ← a − round(keep_v · (a − v) / 2^15)               halves are rounded up
    spike where v ≥ v_threshold, then v ← v_reset
    u ← ⌊u · keep_u / 2^32⌋

    Potentials are s16.15: 2^15 stored units are 1. keep_v is exp_TC, the resistance is 1, v_rest holds the offset current
    too, and there is no refractory time. `v_threshold=None` is a neuron whose threshold is out of reach, read by recording v. The
    chip computes exp_TC and the two factors of u itself from tau_m, tau_syn and the step; here they are the nearest numbers of
    their formats, which its own may miss by the last bit. Beyond 32 bits v is clipped and counted; the chip's additions wrap.
    """

    FORMAT: ClassVar[ChipFormat] = ChipFormat(
        chip="SpiNNaker",
        v=(-(2**31), 2**31 - 1),
        thresholds=(-(2**31), 2**31 - 1),
        weights=(-(2**16 - 1), 2**16 - 1),
        resets=("value",),
        drive="signs",
        sign_bit=False,
        max_shift=15,
        unit=2**15,
    )

    keep_v: Array
    v_threshold: Array | None
    keep_u: Array | None = None
    init_u: Array | None = None
    v_rest: Array = 0  # type: ignore[assignment]
    v_reset: Array = 0  # type: ignore[assignment]
    v_init: Array = 0  # type: ignore[assignment]
    exc_shift: int = 0
    inh_shift: int = 0

    def __post_init__(self) -> None:
        bits, factor = self.FORMAT.v, (0, 2**32 - 1)
        states = dict.fromkeys(("v_rest", "v_reset", "v_init"), bits)
        self._check(keep_v=(0, 2**15), keep_u=factor, init_u=factor, **states)
        if (self.keep_u is None) != (self.init_u is None):
            raise GraphError("SpinnakerLIF.init_u: a neuron has both keep_u and init_u (IF_curr_exp) or neither; give the other")
        for name in ("exc_shift", "inh_shift"):
            if not 0 <= getattr(self, name) <= self.FORMAT.max_shift:
                raise GraphError(f"SpinnakerLIF.{name}: {getattr(self, name)} given, the format holds 0..{self.FORMAT.max_shift}")

    @property
    def reset(self) -> Reset:
        """How it resets: always to a value."""
        return "value"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReckonLIF(ChipNeuron):
    """The integer neuron of ReckOn, a recurrent one or an output, without its stochastic rounding. Starts at 0.

    v ← clip(v + x)                                              clip: to 16 bits, counted
    spike where v ≥ v_threshold
    v ← ⌊v · keep / 2^15⌋, then − v_threshold ("subtract") or 0 ("value") where it spiked

    `v_threshold=None` is one of the 16 output neurons, whose keep is in 1/2^7 and which never spike: the output is v. The
    threshold is tested before the decay and subtracted behind it (`srnn.v`). Keep and threshold are shared by two neurons, 2N and
    2N + 1; so is their keep's highest bit, 0.875..1 here, since above 1 a potential grows. The chip clips after each single
    weight, here after the sum of a step: the same unless a part of the sum leaves the 16 bits.
    """

    FORMAT: ClassVar[ChipFormat] = ChipFormat(
        chip="ReckOn",
        v=(-(2**15), 2**15 - 1),
        thresholds=(1, 2**15 - 1),
        weights=(-128, 127),
        resets=("value", "subtract"),
        max_shift=7,
    )

    keep: Array
    v_threshold: Array | None
    reset: str = "value"

    def __post_init__(self) -> None:
        self._check(keep=(0, 2**7) if self.v_threshold is None else (7 * 2**12, 2**15))


@dataclass(frozen=True, kw_only=True, eq=False)
class OdinLIF(ChipNeuron):
    """The integer neuron of ODIN, event after event. Starts at 0. All values are integers.

    for each spike of a step, by address of its source:
        v ← min(v + w, 255), or max(v − |w|, 0) for a source that inhibits          w: 3 bits
        where v ≥ v_threshold a spike is sent, and v ← 0
    v ← max(v − leak, 0)                                                            the time reference that ends a step

    Not the sum of a step but each weight meets the threshold and the 0, so the order counts, and a neuron may send several
    spikes a step. The order is that of a host that runs the crossbar in open loop (SPI_OPEN_LOOP): layer by layer, sources by
    address, then one time reference event. In closed loop spikes come in the order of the chip's queue.
    """

    FORMAT: ClassVar[ChipFormat] = ChipFormat(
        chip="ODIN",
        v=(0, 255),
        thresholds=(1, 255),
        weights=(-7, 7),
        resets=("value",),
        drive="events",
        sign_bit=False,
    )

    v_threshold: Array
    leak: Array = 0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self._check(leak=(0, 127))

    @property
    def reset(self) -> Reset:
        """How it resets: always to 0."""
        return "value"


@dataclass(frozen=True, kw_only=True, eq=False)
class CatalystLIF(ChipNeuron):
    """The integer neuron of Catalyst N1 without refractory time, dendrites and noise. Starts at 0. All values are integers.

    x ← clip(x)                                                  clip: to 24 bits, counted
    v ← v + x − leak
    spike where v ≥ v_threshold, then v ← 0
    else where v ≤ −resting: v ← 0                               counted, but for resting 0

    v is measured from the resting potential: the chip stores v + resting, and its threshold is v_threshold + resting, in 16 bits
    with a sign (SDK: `simulator.py`, `_update_neurons`, refrac 0; Verilog: `scalable_core_v2.v`). A leak below 0 is a constant
    input. A neuron is at rest after one step with a current of −32768 from the host, which comes before each sample. Spikes
    arrive in the step after: each layer runs one step behind the one before it, and sends the same. The decays and bounds of v
    that the Verilog has besides are not programmed by the SDK; its upper bound (parameter 31) has to be set to 32767.
    """

    FORMAT: ClassVar[ChipFormat] = ChipFormat(
        chip="Catalyst N1",
        v=(-(2**15 - 1), 2**15 - 1),
        thresholds=(1, 2**15 - 1),
        weights=(-(2**15), 2**15 - 1),
        resets=("value",),
    )

    v_threshold: Array
    leak: Array = 0  # type: ignore[assignment]
    resting: Array = 0  # type: ignore[assignment]

    def __post_init__(self) -> None:
        high = self.FORMAT.thresholds[1]
        self._check(leak=(-(2**15), 2**15 - 1), resting=(0, high - 1))
        if (highest := int(np.max(np.asarray(self.v_threshold) + np.asarray(self.resting)))) > high:
            raise GraphError(f"CatalystLIF.resting: {highest} with the threshold, the format holds {high}; lower one of them")

    @property
    def reset(self) -> Reset:
        """How it resets: always to the resting potential."""
        return "value"


CHIP_NEURONS = (TrueNorthLIF, SpinnakerLIF, ReckonLIF, OdinLIF, CatalystLIF)
"""Neurons with a `ChipFormat`."""


def find_drive(neuron: Any) -> Drive:
    """Return what a neuron takes in a step."""
    return neuron.FORMAT.drive if isinstance(neuron, ChipNeuron) else "sum"
