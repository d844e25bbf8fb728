"""Neurons from NIR nodes.

NIR's equations, stepped by forward Euler. Where a framework steps them in another way, `frameworks.convert_parameters` changes
the parameters before the neuron is made.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.errors import GraphError
from spear_deploy.network import IF, LI, LIF, Array, CubaLI, CubaLIF, Neuron, Reset, Shape
from spear_deploy.util.hdf5.tree import Tree, decode_text

REQUIRED = None
PARAMETERS: dict[str, dict[str, float | None]] = {
    "IF": {"r": 1.0, "v_threshold": REQUIRED, "v_reset": 0.0},
    "LIF": {"tau": REQUIRED, "r": 1.0, "v_leak": 0.0, "v_threshold": REQUIRED, "v_reset": 0.0},
    "LI": {"tau": REQUIRED, "r": 1.0, "v_leak": 0.0},
    "CubaLI": {"tau_mem": REQUIRED, "tau_syn": REQUIRED, "r": 1.0, "v_leak": 0.0, "w_in": 1.0},
    "Threshold": {"threshold": REQUIRED},
}
PARAMETERS["CubaLIF"] = {**PARAMETERS["CubaLI"], "v_threshold": REQUIRED, "v_reset": 0.0}
"""By node type: NIR's fields and their defaults."""

NEURONS = tuple(PARAMETERS)
SPIKING = ("IF", "LIF", "CubaLIF", "Threshold")
NEURON_TYPES: dict[str, type] = {"IF": IF, "LI": LI, "LIF": LIF, "CubaLI": CubaLI, "CubaLIF": CubaLIF}
NEURON_FIELDS = {"tau": "tau_s", "tau_mem": "tau_mem_s", "tau_syn": "tau_syn_s"}
FORMER_NAMES = {"v_threshold": ("theta", "v_th"), "v_leak": ("v_rest",), "r": ("R",)}
"""Names of a field in the first versions of NIR and in hand-written files."""

Fields = dict[str, Array]


def read_parameters(name: str, node: Tree, notes: list[str]) -> Fields:
    """Return the parameters of a neuron's node under NIR's present names, in float64, the absent ones filled in.

    Raises:
        GraphError: one is missing that has no default, or holds no finite numbers.
    """
    kind = decode_text(node.get("type")) or ""
    fields: Fields = {}
    for field, default in PARAMETERS[kind].items():
        key = next((key for key in (field, *FORMER_NAMES.get(field, ())) if key in node), None)
        if key is None:
            if default is REQUIRED:
                raise GraphError(f"node '{name}': {kind} has no '{field}'; export the network again")
            fields[field] = np.asarray(default, np.float64)
            continue
        if key != field:
            notes.append(f"node '{name}': '{key}' is taken to be '{field}'")
        fields[field] = read_numbers(name, node, key)
    return fields


def shrink_parameters(name: str, fields: Fields, shape: Shape, notes: list[str]) -> Fields:
    """Return the parameters in the smallest form that broadcasts to neurons of this shape.

    Raises:
        GraphError: a parameter that does not fit the shape.
    """
    return {field: _shrink(value, shape, name, field, notes) for field, value in fields.items()}


def make_neuron(name: str, kind: str, fields: Fields, *, reset: Reset, dt_s: float, max_spikes: int | None = 1) -> Neuron:
    """Return the neuron with these parameters (`shrink_parameters`).

    A `Threshold` has no memory: it is a LIF neuron that takes over its input within one step, and is 0 after a spike.

    Raises:
        GraphError: values that a neuron cannot have.
    """
    values = {NEURON_FIELDS.get(field, field): value for field, value in fields.items()}
    try:
        if kind == "Threshold":
            return LIF(tau_s=np.asarray(dt_s), v_threshold=values["threshold"])
        spiking = {"reset": reset, "max_spikes": max_spikes} if kind in SPIKING else {}
        neuron: Neuron = NEURON_TYPES[kind](**values, **spiking)
    except GraphError as error:
        raise GraphError(str(error) if f"'{name}'" in str(error) else f"node '{name}': {error}") from None
    return neuron


def read_numbers(name: str, node: Tree, field: str) -> Array:
    """Return the finite numbers of a field, as floating point of at least 32 bits."""
    value = node.get(field)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.size == 0:
        raise GraphError(f"node '{name}': '{field}' is missing or holds no numbers; export the network again")
    if not np.isfinite(value).all():
        raise GraphError(f"node '{name}': '{field}' holds NaN or infinite values; retrain or repair the network")
    if value.dtype.itemsize > 8:
        return value.astype(np.float64)
    return value.astype(np.float32) if value.dtype.kind in "biu" or value.dtype.itemsize < 4 else value


def _shrink(value: Array, shape: Shape, name: str, field: str, notes: list[str]) -> Array:
    """Return a parameter in its smallest form: one number, one per channel `(C, 1, 1)`, or one per neuron."""
    if (value == value.reshape(-1)[:1]).all():
        return np.asarray(value.reshape(-1)[0])
    if value.shape != shape:
        if value.size == int(np.prod(shape)):
            value = value.reshape(shape)
        elif value.size == shape[0]:
            notes.append(f"node '{name}': {field} of shape {value.shape} is taken per channel of {shape}")
            return value.reshape(-1, *(1 for _ in shape[1:]))
        else:
            raise GraphError(f"node '{name}': {field} of shape {value.shape} for neurons of shape {shape}; export it again")
    corner = (slice(None), *(slice(0, 1) for _ in shape[1:]))
    first = value[corner]
    return first if (value == first).all() else value
