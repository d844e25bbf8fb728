"""LIF with Loihi's resets and refractory time, which Lava's LIF lacks.

Reset by subtraction, reset to another value than 0, refractory steps in fixed point, and a current that does not decay. This
process adds them to Lava's fixed-point dynamics and changes nothing else; networks that need none of it use Lava's LIF.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import AbstractPyLifModelFixed
from lava.proc.lif.process import LIF


class CompleteLIF(LIF):  # type: ignore[misc]
    """Leaky integrate and fire, with every reset and a refractory time.

    u ← trunc(u · (4096 − (du + 1)) / 4096) + 64 · a_in          Lava's; du may be −1: no decay
    v ← trunc(v · (4096 − dv) / 4096) + u + bias                 Lava's; left out while resting > 0, which falls by 1 a step
    spike where v > 64 · vth, then v ← v_reset, or v − 64 · vth with `subtract`, and resting ← refractory_steps

    Args:
        v_reset: potential after a spike.
        subtract: subtract 64 · vth from v instead.
        refractory_steps: steps for which v rests after a spike.
        reset_interval, reset_offset: set all states to 0 before every so many-th step, as Lava's LIFReset does; None: never.
        lif: parameters of Lava's LIF.
    """

    def __init__(
        self,
        *,
        v_reset: Any,
        subtract: bool,
        refractory_steps: int,
        reset_interval: int | None,
        reset_offset: int,
        **lif: Any,
    ) -> None:
        super().__init__(**lif)
        self.proc_params["subtract"] = subtract
        self.proc_params["refractory_steps"] = refractory_steps
        self.proc_params["reset_interval"] = reset_interval
        self.proc_params["reset_offset"] = reset_offset
        shape = lif["shape"]
        self.v_reset = Var(shape=shape, init=np.broadcast_to(np.asarray(v_reset), shape).copy())
        self.resting = Var(shape=shape, init=np.zeros(shape, np.int32))


@implements(proc=CompleteLIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyCompleteLIF(AbstractPyLifModelFixed):  # type: ignore[misc]
    """Lava's fixed-point dynamics between our refractory time and our reset."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    du: int = LavaPyType(int, np.int32)  # Lava's is unsigned
    vth: int = LavaPyType(int, np.int32, precision=17)
    v_reset: np.ndarray[Any, Any] = LavaPyType(np.ndarray, np.int32, precision=24)
    resting: np.ndarray[Any, Any] = LavaPyType(np.ndarray, np.int32)

    def run_spk(self) -> None:
        """Advance one step."""
        arriving = self.a_in.recv()
        parameters = self.proc_params
        interval = parameters["reset_interval"]
        if interval is not None and self.time_step % interval == parameters["reset_offset"] % interval:
            for state in (self.u, self.v, self.resting):
                state[:] = 0
        self.scale_bias()
        before, still = self.v.copy(), self.resting > 0
        self.subthr_dynamics(activation_in=arriving)
        self.v[still] = before[still]
        self.resting -= still
        threshold = np.broadcast_to(np.left_shift(self.vth, self.vth_shift), self.v.shape)
        spikes = self.v > threshold
        self.v[spikes] = (self.v - threshold if parameters["subtract"] else self.v_reset)[spikes]
        self.resting[spikes] = parameters["refractory_steps"]
        self.s_out.send(spikes)
