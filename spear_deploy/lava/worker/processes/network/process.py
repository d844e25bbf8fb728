"""A whole network as one Lava process.

In each of Lava's steps the process advances the network by a block of its steps, all samples together. Lava's runtime starts it,
advances it and ends it; the computation is `spear_deploy.simulator.Simulation`, which needs numpy only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Network(AbstractProcess):  # type: ignore[misc]
    """A spiking network on a batch of inputs.

    Args:
        row: of the program: file of the network, prefix of its results, what to record, steps in a block.
        x: the input, (T, B, *shape).
        folder: where the files are.

    Attributes:
        blocks_done: blocks of steps that have run, one in each of Lava's steps.
    """

    def __init__(self, *, row: dict[str, Any], x: np.ndarray[Any, Any], folder: str) -> None:
        super().__init__(row=row, x=x, folder=folder)
        self.blocks_done = Var(shape=(1,), init=0)


@implements(proc=Network, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyNetwork(PyLoihiProcessModel):  # type: ignore[misc]
    """All layers in one model: no messages, one matrix product a layer for all steps and samples of a block."""

    blocks_done: np.ndarray[Any, Any] = LavaPyType(np.ndarray, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        from spear_deploy.interchange.snn_file import read_snn
        from spear_deploy.simulator import Simulation

        self.row, self.folder = proc_params["row"], Path(proc_params["folder"])
        self.files: dict[int, str] = {}
        """File names by the id of the array that is mapped to them."""
        self.simulation = Simulation(
            read_snn(self.folder / self.row["graph"]),
            proc_params["x"],
            kind=self.row["input_kind"],
            record=self.row["record"],
            max_steps=self.row["max_steps"],
            allocate=self.on_disk,
        )

    def run_spk(self) -> None:
        """Advance by one block; after the last, write the results."""
        self.simulation.advance()
        self.blocks_done += 1
        if self.blocks_done[0] == len(self.simulation):
            self.write_results()

    def on_disk(self, _: str, shape: tuple[int, ...], dtype: type) -> Any:
        """Return an array that is mapped to a file, so that no result is copied at the end."""
        file = self.new_file()
        npy: Any = np.lib.format
        array = npy.open_memmap(self.folder / file, mode="w+", dtype=dtype, shape=shape)
        self.files[id(array)] = file
        return array

    def new_file(self) -> str:
        """Return the name of the next file."""
        return f"{self.row['prefix']}{len(self.files)}.npy"

    def write_results(self) -> None:
        """Write `<prefix>run.json`: which array is in which file, and the counts of overflows."""
        run = self.simulation.result()
        results: list[tuple[str, Any, Any]] = [("output", "", run.output)]
        for what in ("spikes", "v", "u"):
            results += [(what, name, array) for name, array in getattr(run, what).items()]
        results += [("sent", name, array) for name, array in run.counts.sent.items()]
        results += [("delivered", [e.source, e.target, e.delay], array) for e, array in run.counts.delivered.items()]
        arrays = []
        for what, key, array in results:
            if id(array) not in self.files:
                file = self.new_file()
                np.save(self.folder / file, array)
                self.files[id(array)] = file
            elif hasattr(array, "flush"):
                array.flush()
            arrays.append({"what": what, "of": key, "file": self.files[id(array)]})
        text = json.dumps({"arrays": arrays, "overflows": run.overflows})
        (self.folder / f"{self.row['prefix']}run.json").write_text(text, encoding="utf-8")
