"""What layer is one NIR node?

Reads nodes as they lie in files of all versions and frameworks: sizes stored as floats or bytes, scalars, missing
`v_reset`, `input_shape` or bias, paddings by name. Each function names the node it refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError
from spear_deploy.interchange.hdf5_tree import Tree, text_of, whole_numbers
from spear_deploy.interchange.nir_edges import PASSING as EDGE_NODES
from spear_deploy.layers import (
    IF,
    LI,
    LIF,
    Array,
    AvgPool,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    Neuron,
    Reset,
    Scale,
    Shape,
    SumPool,
    Synapse,
)

NEURONS = ("IF", "LI", "LIF", "CubaLI", "CubaLIF")
PASSING = ("Input", "Output", *EDGE_NODES)
PLAIN = ("Sum", "Output", *NEURONS)

REFUSED = {
    "Threshold": "a threshold without a membrane has no counterpart; use an IF or LIF node",
    "I": "an integrator without a threshold grows without limit; use an LI node",
}

PARAMETERS: dict[str, dict[str, tuple[str, float | None]]] = {
    "IF": {"r": ("r", 1.0), "v_threshold": ("v_threshold", None), "v_reset": ("v_reset", 0.0)},
    "LIF": {
        "tau": ("tau_s", None),
        "r": ("r", 1.0),
        "v_leak": ("v_leak", 0.0),
        "v_threshold": ("v_threshold", None),
        "v_reset": ("v_reset", 0.0),
    },
    "LI": {"tau": ("tau_s", None), "r": ("r", 1.0), "v_leak": ("v_leak", 0.0)},
    "CubaLI": {
        "tau_mem": ("tau_mem_s", None),
        "tau_syn": ("tau_syn_s", None),
        "r": ("r", 1.0),
        "v_leak": ("v_leak", 0.0),
        "w_in": ("w_in", 1.0),
    },
}
PARAMETERS["CubaLIF"] = {**PARAMETERS["CubaLI"], "v_threshold": ("v_threshold", None), "v_reset": ("v_reset", 0.0)}
"""By node type: NIR's field → (our field, what an absent one means; None: it must be there)."""

KINDS: dict[str, type] = {"IF": IF, "LI": LI, "LIF": LIF, "CubaLI": CubaLI, "CubaLIF": CubaLIF}


def layer(name: str, node: Tree, followers: Sequence[Tree], notes: list[str]) -> Layer:
    """Return the layer of a node; a neuron's parameters are filled in later, when its shape is known."""
    kind = text_of(node.get("type")) or ""
    if kind in REFUSED:
        raise UnsupportedError(f"node '{name}': {kind}: {REFUSED[kind]}")
    if kind in PLAIN:
        return Layer(name=name)
    makers = {
        "Affine": _dense,
        "Linear": _dense,
        "Scale": _scale,
        "Conv1d": _conv,
        "Conv2d": _conv,
        "SumPool2d": _pool,
        "AvgPool2d": _pool,
    }
    if kind == "Flatten":
        return Layer(name=name, synapse=_flatten(name, node, followers, notes))
    if kind not in makers:
        known = ", ".join(sorted([*makers, "Flatten", *NEURONS]))
        raise UnsupportedError(f"node '{name}': unknown kind '{kind}'; known are {known}")
    try:
        return Layer(name=name, synapse=makers[kind](name, node, notes))
    except GraphError as error:
        raise _named(name, error) from None


def neuron(name: str, node: Tree, shape: Shape, reset: Reset, notes: list[str]) -> Neuron:
    """Return the neuron of a node whose output has the given shape."""
    kind = text_of(node.get("type")) or ""
    values: dict[str, Any] = {}
    for field, (ours, default) in PARAMETERS[kind].items():
        if field in node:
            values[ours] = _spread(_numbers(name, node, field), shape, name, field, notes)
        elif default is None:
            raise GraphError(f"node '{name}': {kind} has no '{field}'; export the network again")
        else:
            values[ours] = default
    if kind not in ("LI", "CubaLI"):
        values["reset"] = reset
    try:
        made: Neuron = KINDS[kind](**values)
    except GraphError as error:
        raise _named(name, error) from None
    return made


def _named(name: str, error: GraphError) -> GraphError:
    return GraphError(str(error) if f"'{name}'" in str(error) else f"node '{name}': {error}")


def input_shape(node: Tree) -> Shape | None:
    """Return the shape of what a node takes, where the node alone tells it."""
    kind = text_of(node.get("type"))
    if kind in ("Affine", "Linear") and isinstance(node.get("weight"), np.ndarray) and node["weight"].ndim == 2:
        return (node["weight"].shape[1],)
    if kind in NEURONS:
        shape: Shape = node["r"].shape if isinstance(node.get("r"), np.ndarray) else ()
        return shape or None
    if kind in ("Conv1d", "Conv2d") and isinstance(node.get("weight"), np.ndarray) and "input_shape" in node:
        positions = whole_numbers(node["input_shape"])
        groups = whole_numbers(node.get("groups", np.array(1))) or (1,)
        return None if positions is None else (node["weight"].shape[1] * groups[0], *positions)
    return None


def check_input_shape(name: str, node: Tree, shape: Shape) -> None:
    """Compare the input shape that a convolution states with the one it gets."""
    stated = whole_numbers(node["input_shape"])
    if stated is not None and stated and stated != shape[1:]:
        raise GraphError(f"node '{name}': states an input of {stated} positions and gets {shape[1:]}; export the network again")


def sizes(value: Any, what: str, *, least: int = 0) -> tuple[int, ...]:
    """Return stored sizes, or say what is wrong with them."""
    numbers = whole_numbers(value)
    if not numbers or min(numbers) < least:
        raise GraphError(f"{what}: expected whole numbers from {least}; export the network again")
    return numbers


# ---------------------------------------------------------------------------------------------------------- synapses


def _dense(name: str, node: Tree, notes: list[str]) -> Synapse:
    weight = _numbers(name, node, "weight")
    if weight.ndim != 2:
        raise UnsupportedError(f"node '{name}': weight of shape {weight.shape}, two axes are supported; split the node")
    return Dense(weight=weight, bias=_bias(name, node, weight.shape[0]))


def _scale(name: str, node: Tree, notes: list[str]) -> Synapse:
    return Scale(weight=_numbers(name, node, "scale"))


def _conv(name: str, node: Tree, notes: list[str]) -> Synapse:
    weight = _numbers(name, node, "weight")
    dims = 1 if text_of(node.get("type")) == "Conv1d" else 2
    if weight.ndim != dims + 2:
        raise GraphError(f"node '{name}': weight of shape {weight.shape}, expected {dims + 2} axes; export the network again")
    values: dict[str, Any] = {}
    for field, default in (("stride", 1), ("dilation", 1), ("padding", 0)):
        given = node.get(field)
        if given is None:
            notes.append(f"node '{name}' states no {field}: {default} is taken")
            given = np.array(default)
        text = text_of(given)
        if field == "padding" and text is not None:
            values[field] = _named_padding(name, text, weight.shape[2:], values["stride"], values["dilation"])
        else:
            values[field] = _per_axis(sizes(given, f"node '{name}'.{field}", least=min(default, 1)), dims, name, field)
    groups = sizes(node.get("groups", np.array(1)), f"node '{name}'.groups", least=1)[0]
    bias = _bias(name, node, weight.shape[0])
    made: Synapse = (Conv1d if dims == 1 else Conv2d)(weight=weight, bias=bias, groups=groups, **values)
    return made


def _named_padding(name: str, text: str, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[int, ...]:
    if text == "valid":
        return (0,) * len(kernel)
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if text != "same" or any(s != 1 for s in stride) or any(s % 2 for s in spans):
        raise UnsupportedError(
            f"node '{name}': padding '{text}' with kernel {kernel} and stride {stride} is not even on both sides; pad by number"
        )
    return tuple(s // 2 for s in spans)


def _pool(name: str, node: Tree, notes: list[str]) -> Synapse:
    kernel = _per_axis(sizes(node.get("kernel_size"), f"node '{name}'.kernel_size", least=1), 2, name, "kernel_size")
    stride = kernel
    if node.get("stride") is not None:
        stride = _per_axis(sizes(node["stride"], f"node '{name}'.stride", least=1), 2, name, "stride")
    padding = _per_axis(sizes(node.get("padding", np.array(0)), f"node '{name}'.padding"), 2, name, "padding")
    if text_of(node.get("type")) == "SumPool2d":
        return SumPool(kernel_size=kernel, stride=stride, padding=padding)
    if any(padding):
        notes.append(f"node '{name}': padded zeros count in its mean")
    return AvgPool(kernel_size=kernel, stride=stride, padding=padding)


def _flatten(name: str, node: Tree, followers: Sequence[Tree], notes: list[str]) -> Synapse:
    start = (whole_numbers(node.get("start_dim", np.array(1))) or (1,))[0]
    end = (whole_numbers(node.get("end_dim", np.array(-1))) or (-1,))[0]
    axes = whole_numbers(node["input_type"]) if isinstance(node.get("input_type"), np.ndarray) else None
    last = end == -1 or (axes is not None and end == len(axes) - 1)
    if last and (start == 0 or (axes is not None and len(axes) == 1)):
        return Flatten()
    if last and start == 1 and followers and all(text_of(f.get("type")) in ("Affine", "Linear", "Output") for f in followers):
        notes.append(f"node '{name}' flattens from axis 1: axis 0 is taken to be the batch, as in torch")
        return Flatten()
    what = f"node '{name}': flattens axes {start} to {end} of {axes or 'an unstated shape'}"
    raise UnsupportedError(f"{what}; only all axes together are supported")


# ------------------------------------------------------------------------------------------------------------ values


def _numbers(name: str, node: Tree, field: str) -> Array:
    value = node.get(field)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.size == 0:
        raise GraphError(f"node '{name}': '{field}' is missing or holds no numbers; export the network again")
    if not np.isfinite(value).all():
        raise GraphError(f"node '{name}': '{field}' holds NaN or infinite values; retrain or repair the network")
    return value.astype(np.float32) if value.dtype.kind in "biu" or value.dtype.itemsize < 4 else value


def _bias(name: str, node: Tree, outputs: int) -> Array | None:
    """Return the bias, which may be absent, `False` for none, or one number for all."""
    given = node.get("bias")
    if given is None or (isinstance(given, np.ndarray) and given.dtype.kind == "b" and not given.any()):
        return None
    bias = _numbers(name, node, "bias")
    if bias.size not in (1, outputs):
        raise GraphError(f"node '{name}': bias of shape {bias.shape} for {outputs} outputs; export the network again")
    return np.broadcast_to(bias.reshape(-1), (outputs,))


def _per_axis(values: tuple[int, ...], dims: int, name: str, field: str) -> tuple[int, ...]:
    if len(values) not in (1, dims):
        raise GraphError(f"node '{name}'.{field}: {values} given, expected one number or {dims}")
    return values if len(values) == dims else values * dims


def _spread(value: Array, shape: Shape, name: str, field: str, notes: list[str]) -> Array:
    """Return a parameter in its smallest form: one number, one per channel `(C, 1, 1)`, or one per neuron."""
    if (value == value.reshape(-1)[:1]).all():
        return value.reshape(-1)[0]
    if value.shape != shape:
        if value.size != shape[0]:
            raise GraphError(f"node '{name}': {field} of shape {value.shape} for neurons of shape {shape}; export it again")
        notes.append(f"node '{name}': {field} of shape {value.shape} is taken per channel of {shape}")
        return value.reshape(-1, *(1 for _ in shape[1:]))
    corner = (slice(None), *(slice(0, 1) for _ in shape[1:]))
    first = value[corner]
    return first if (value == first).all() else value
