"""Conventions of the frameworks' NIR importers.

An importer reads the fields of NIR in its own way and fills in what NIR does not state. `dialect_neurons` writes the values with
which its neurons step as the network's; what no file can state is a line of Python to run after the import.

Read in snnTorch 1.0.0, SpikingJelly 2.0.0, sinabs 3.1.3, Rockpool 3.1.0 and Norse 1.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spear_deploy.errors import UnsupportedError, did_you_mean
from spear_deploy.interchange.nir import dialect_neurons
from spear_deploy.interchange.nir.dialect_neurons import LONG_DT_S, SHORT_DT_S, WriteNeuron
from spear_deploy.interchange.nir.frameworks import FRAMEWORKS, Conventions
from spear_deploy.interchange.nir.neurons import Fields

DIALECT_KEY = "written_for"
"""Metadata of a graph: the framework whose importer reads it."""
KIND_KEY = "neuron"
"""Metadata of a node: the neuron that it stands for, where the importer has another for it."""
LAYER_KEY = "layer"
"""Metadata of a node in a nested graph: the name of its layer."""


@dataclass(frozen=True, kw_only=True)
class ImportAdvice:
    """What a user has to know of an import.

    Attributes:
        differences: what differs in the framework, a sentence each.
        statements: lines of Python to run after the import, with the imported network as `net`.
    """

    differences: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a framework's NIR importer reads.

    Attributes:
        title: as the framework writes itself.
        dt_s: the time step that the importer takes; None where it reads it from the neurons.
        write_neuron: writes a neuron.
        synapses: types of nodes for weights, pools and reshaping.
        recurrence: how recurrent weights of a neuron layer are written: as a "cycle", as a cycle through a Flatten that changes
            nothing ("flatten", which keeps the importer from rewriting it), "nested" in a graph of their own; None where the
            importer has no place for them.
        on_one_axis: types of neurons whose parameters the importer takes on one axis alone.
        ordered: whether nodes run in the order of a depth-first walk, so that inputs that add up must come before.
        states_reset: whether nodes have a v_reset, which nir has from 1.0.5 on: sinabs and Rockpool ask for 1.0.4.
        module: attribute of the imported node that holds the neuron's module, or "".
        imports: line of Python that the settings need.
        call: the function that imports a graph.
        conventions: as which a file for the importer is read here.
    """

    title: str
    dt_s: float | None
    write_neuron: WriteNeuron
    synapses: frozenset[str]
    recurrence: str | None
    ordered: bool
    on_one_axis: tuple[str, ...] = ()
    states_reset: bool = True
    module: str = ""
    imports: str = ""
    call: str
    conventions: Conventions


def _convert_for_sinabs(kind: str, f: Fields, dt_s: float, notes: list[str]) -> Fields:
    """Decay exp(−1 / tau) with tau in steps; the input counts in full."""
    if kind == "IF":
        return f
    tau = dt_s / -np.expm1(-1 / f["tau"])
    return {**f, "tau": tau, "r": tau / dt_s}


# --------------------------------------------------------------------------------------------------------------- table

DIALECTS: dict[str, Dialect] = {
    "snntorch": Dialect(
        title="snnTorch",
        dt_s=SHORT_DT_S,
        write_neuron=dialect_neurons.write_snntorch,
        synapses=frozenset({"Dense", "Conv2d", "AvgPool", "SumPool", "Flatten"}),
        recurrence="flatten",
        ordered=False,
        call="snntorch.import_nir.import_from_nir",
        conventions=Conventions(),
    ),
    "spikingjelly": Dialect(
        title="SpikingJelly",
        dt_s=SHORT_DT_S,
        write_neuron=dialect_neurons.write_spikingjelly,
        synapses=frozenset({"Dense", "Conv1d", "Conv2d", "AvgPool", "SumPool", "Flatten"}),
        recurrence="cycle",
        ordered=False,
        module=".module",
        call="spikingjelly.activation_based.nir_exchange.import_from_nir",
        conventions=Conventions(convert=FRAMEWORKS["spikingjelly"].convert, fires_at_threshold=True),
    ),
    "sinabs": Dialect(
        title="sinabs",
        dt_s=None,
        write_neuron=dialect_neurons.write_sinabs,
        synapses=frozenset({"Dense", "Conv2d", "SumPool", "Flatten"}),
        recurrence=None,
        ordered=True,
        states_reset=False,
        on_one_axis=("LIF", "LI"),
        imports="from sinabs.activation import MaxSpike, MembraneReset, SingleSpike",
        call="sinabs.nir.from_nir",
        conventions=Conventions(convert=_convert_for_sinabs, fires_at_threshold=True),
    ),
    "rockpool": Dialect(
        title="Rockpool",
        dt_s=None,
        write_neuron=dialect_neurons.write_rockpool,
        synapses=frozenset({"Dense"}),
        recurrence="nested",
        ordered=True,
        states_reset=False,
        call="rockpool.nn.modules.torch.nir.from_nir",
        conventions=Conventions(convert=FRAMEWORKS["rockpool"].convert, fires_at_threshold=True),
    ),
    "norse": Dialect(
        title="Norse",
        dt_s=LONG_DT_S,
        write_neuron=dialect_neurons.write_norse,
        synapses=frozenset({"Dense", "Conv2d", "SumPool", "Flatten"}),
        recurrence="cycle",
        ordered=True,
        imports="from norse.torch.functional.reset import reset_subtract",
        call="norse.torch.from_nir",
        conventions=Conventions(),
    ),
}
"""The frameworks for whose importers a file can be written, by the name that the option `for` takes."""


def get_dialect(name: str) -> Dialect:
    """Return what a framework's importer reads.

    Raises:
        UnsupportedError: an unknown framework.
    """
    if name not in DIALECTS:
        raise UnsupportedError(f"for '{name}': expected one of {', '.join(DIALECTS)}{did_you_mean(name, DIALECTS)}")
    return DIALECTS[name]
