"""Recorders of spikes and states that write one file each.

Lava passes a recording to Python value by value, some 15 µs each: a million spikes take 15 s. These recorders take the place of
Lava's `io.sink.RingBuffer` and `Monitor`, read the same values in the same step, and write one `.npy` file at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyRefPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, RefPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class PortRecorder(AbstractProcess):  # type: ignore[misc]
    """Record the input of `a_in` in every step: spikes, or the sum of several synapses.

    Args:
        shape: of the port.
        steps: of the run.
        dtype: of the file; bool for spikes.
        file: `.npy` file to write, (steps, *shape).
    """

    def __init__(self, *, shape: tuple[int, ...], steps: int, dtype: str, file: str) -> None:
        super().__init__(shape=shape, steps=steps, dtype=dtype, file=file)
        self.a_in = InPort(shape=shape)


class StateRecorder(AbstractProcess):  # type: ignore[misc]
    """Record a variable of another process at the end of every step, after its reset. Arguments as in `PortRecorder`."""

    def __init__(self, *, shape: tuple[int, ...], steps: int, dtype: str, file: str) -> None:
        super().__init__(shape=shape, steps=steps, dtype=dtype, file=file)
        self.state = RefPort(shape=shape)


class _RecorderModel(PyLoihiProcessModel):  # type: ignore[misc]
    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.recorded = np.zeros((proc_params["steps"], *proc_params["shape"]), proc_params["dtype"])

    def store(self, value: np.ndarray[Any, Any]) -> None:
        self.recorded[self.time_step - 1] = value
        if self.time_step == len(self.recorded):
            np.save(self.proc_params["file"], self.recorded)


@implements(proc=PortRecorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyPortRecorder(_RecorderModel):
    """Record the input in the spiking phase."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def run_spk(self) -> None:
        """Record the value of this step."""
        self.store(self.a_in.recv())


@implements(proc=StateRecorder, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyStateRecorder(_RecorderModel):
    """Read the variable in the phase after the spiking phase, as Lava's Monitor does."""

    state: PyRefPort = LavaPyType(PyRefPort.VEC_DENSE, np.int32)

    def post_guard(self) -> bool:
        """Request the phase after the spiking phase in every step."""
        return True

    def run_post_mgmt(self) -> None:
        """Record the value of this step."""
        self.store(self.state.read())
