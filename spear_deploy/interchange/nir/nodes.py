"""Layers from NIR nodes.

Nodes of all versions and frameworks are read: sizes stored as floats or bytes, scalars, missing
`input_shape` or bias, paddings by name. Each function names the node it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spear_deploy.errors import GraphError, UnsupportedError, did_you_mean
from spear_deploy.interchange.nir.edges import PASS_THROUGH, Arrow
from spear_deploy.interchange.nir.layout import read_kind, read_metadata
from spear_deploy.interchange.nir.metadata import POOL_KEY
from spear_deploy.interchange.nir.neurons import NEURONS, read_numbers
from spear_deploy.network import (
    Array,
    AvgPool,
    Conv1d,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    Scale,
    Shape,
    SumPool,
    Synapse,
    store_compactly,
)
from spear_deploy.util.hdf5.tree import Tree, decode_integers, decode_text

SYNAPSES = ("Affine", "AvgPool2d", "Conv1d", "Conv2d", "Flatten", "Linear", "Scale", "SumPool2d")
NODE_TYPES = tuple(sorted((*SYNAPSES, *NEURONS, "Delay", "I", "Input", "NIRGraph", "Output")))
"""Every type of node that is read."""


def make_layer(name: str, node: Tree, followers: Sequence[str], notes: list[str]) -> Layer:
    """Return the layer of a node; a neuron's parameters are filled in later, when its shape is known.

    Args:
        name: of the node.
        node: its fields.
        followers: the types of the nodes behind it (see `list_flatten_followers`).
        notes: collects what is assumed.
    """
    kind = read_kind(node)
    if kind in ("Sum", "Output", *NEURONS):
        return Layer(name=name)
    if kind not in SYNAPSES:
        hint = did_you_mean(kind, NODE_TYPES)
        raise UnsupportedError(f"node '{name}': unknown kind '{kind}'; known are {', '.join(NODE_TYPES)}{hint}")
    try:
        if kind == "Flatten":
            return Layer(name=name, synapse=_read_flatten(name, node, followers, notes))
        if kind == "Scale":
            return Layer(name=name, synapse=Scale(weight=read_numbers(name, node, "scale")))
        make = _read_dense if kind in ("Affine", "Linear") else _read_conv if kind in ("Conv1d", "Conv2d") else _read_pool
        return Layer(name=name, synapse=make(name, node, notes))
    except GraphError as error:
        raise GraphError(str(error) if f"'{name}'" in str(error) else f"node '{name}': {error}") from None


def check_input_shape(name: str, node: Tree, shape: Shape) -> None:
    """Compare the input shape that a convolution states with the one it gets."""
    stated = decode_integers(node["input_shape"])
    if stated is not None and stated and stated != shape[1:]:
        raise GraphError(f"node '{name}': states an input of {stated} positions and gets {shape[1:]}; export the network again")


def read_sizes(value: Any, field: str, *, minimum: int = 0) -> tuple[int, ...]:
    """Return stored sizes.

    Raises:
        GraphError: no whole numbers from `minimum` to 2^31; it begins with `field`.
    """
    sizes = decode_integers(value)
    if not sizes or min(sizes) < minimum:
        raise GraphError(f"{field}: expected whole numbers from {minimum} to {2**31}; export the network again")
    return sizes


def _read_dense(name: str, node: Tree, notes: list[str]) -> Synapse:
    weight = read_numbers(name, node, "weight")
    if weight.ndim != 2:
        raise UnsupportedError(f"node '{name}': weight of shape {weight.shape}, two axes are supported; split the node")
    return Dense(weight=store_compactly(weight), bias=_read_bias(name, node, weight.shape[0]))


def _read_conv(name: str, node: Tree, notes: list[str]) -> Synapse:
    weight = read_numbers(name, node, "weight")
    dims = 1 if read_kind(node) == "Conv1d" else 2
    if weight.ndim != dims + 2:
        raise GraphError(f"node '{name}': weight of shape {weight.shape}, expected {dims + 2} axes; export the network again")
    values: dict[str, Any] = {}
    for field, default in (("stride", 1), ("dilation", 1), ("padding", 0)):
        stored = node.get(field)
        if stored is None:
            notes.append(f"node '{name}' states no {field}: {default} is taken")
            stored = np.array(default)
        text = decode_text(stored)
        if field == "padding" and text is not None:
            weight, values[field] = _convert_named_padding(name, text, weight, values["stride"], values["dilation"])
        else:
            values[field] = _per_axis(read_sizes(stored, f"node '{name}'.{field}", minimum=min(default, 1)), dims, name, field)
    groups = read_sizes(node.get("groups", np.array(1)), f"node '{name}'.groups", minimum=1)[0]
    bias = _read_bias(name, node, weight.shape[0])
    if dims == 1 and (pool := _read_pool_of_one_axis(node, weight, bias, groups, values)) is not None:
        return pool
    conv: Synapse = (Conv1d if dims == 1 else Conv2d)(weight=weight, bias=bias, groups=groups, **values)
    return conv


def _read_pool_of_one_axis(
    node: Tree, weight: Array, bias: Array | None, groups: int, values: Mapping[str, Shape]
) -> SumPool | AvgPool | None:
    """Return the pool that a convolution of spear-deploy names, where its numbers are those of that pool, else None."""
    stated = decode_text(read_metadata(node).get(POOL_KEY))
    if (
        stated not in ("SumPool", "AvgPool")
        or weight.shape[:2] != (groups, 1)
        or values["dilation"] != (1,)
        or (bias is not None and bias.any())
    ):
        return None
    size = weight.shape[2]
    if (weight != np.float32(1 if stated == "SumPool" else 1 / size)).any():
        return None
    kind = SumPool if stated == "SumPool" else AvgPool
    return kind(kernel_size=(size,), stride=values["stride"], padding=values["padding"])


def _convert_named_padding(name: str, text: str, weight: Array, stride: Shape, dilation: Shape) -> tuple[Array, tuple[int, ...]]:
    """Return the kernel and the padding number of a padding by name.

    'same' pads one more behind than in front where the kernel is even; a row of zeros in front of the kernel makes that even.
    """
    kernel = weight.shape[2:]
    if text == "valid":
        return weight, (0,) * len(kernel)
    odd = [d * (k - 1) % 2 for k, d in zip(kernel, dilation, strict=True)]
    if text != "same" or any(s != 1 for s in stride) or any(o and d != 1 for o, d in zip(odd, dilation, strict=True)):
        raise UnsupportedError(
            f"node '{name}': padding '{text}' with kernel {kernel} and stride {stride} is not even on both sides; pad by number"
        )
    weight = np.pad(weight, [(0, 0), (0, 0), *((o, 0) for o in odd)])
    return weight, tuple(d * (k - 1) // 2 for k, d in zip(weight.shape[2:], dilation, strict=True))


def _read_pool(name: str, node: Tree, notes: list[str]) -> Synapse:
    kernel = _per_axis(read_sizes(node.get("kernel_size"), f"node '{name}'.kernel_size", minimum=1), 2, name, "kernel_size")
    stride = kernel
    if node.get("stride") is not None:
        stride = _per_axis(read_sizes(node["stride"], f"node '{name}'.stride", minimum=1), 2, name, "stride")
    padding = _per_axis(read_sizes(node.get("padding", np.array(0)), f"node '{name}'.padding"), 2, name, "padding")
    if read_kind(node) == "SumPool2d":
        return SumPool(kernel_size=kernel, stride=stride, padding=padding)
    if any(padding):
        notes.append(f"node '{name}': padded zeros count in its mean")
    return AvgPool(kernel_size=kernel, stride=stride, padding=padding)


def _read_bias(name: str, node: Tree, outputs: int) -> Array | None:
    """Return the bias, which may be absent, `False` for none, or one number for all."""
    stored = node.get("bias")
    if stored is None or (isinstance(stored, np.ndarray) and stored.dtype.kind == "b" and not stored.any()):
        return None
    bias = read_numbers(name, node, "bias")
    if bias.size not in (1, outputs):
        raise GraphError(f"node '{name}': bias of shape {bias.shape} for {outputs} outputs; export the network again")
    return np.broadcast_to(bias.reshape(-1), (outputs,))


def _per_axis(values: tuple[int, ...], dims: int, name: str, field: str) -> tuple[int, ...]:
    if len(values) not in (1, dims):
        raise GraphError(f"node '{name}'.{field}: {values} given, expected one number or {dims}")
    return values if len(values) == dims else values * dims


# ----------------------------------------------------------------------------------------------------------- flatten


def list_flatten_followers(name: str, nodes: Mapping[str, Tree], arrows: Sequence[Arrow]) -> list[str]:
    """Return the types of the nodes behind a node; neurons and sums, which act on each number alone, are skipped."""
    followers, waiting, seen = [], [name], {name}
    while waiting:
        here = waiting.pop()
        for target in (arrow.target for arrow in arrows if arrow.source == here):
            if read_kind(nodes[target]) not in (*NEURONS, *PASS_THROUGH, "Sum"):
                followers.append(read_kind(nodes[target]))
            elif target not in seen:
                seen.add(target)
                waiting.append(target)
    return followers


def _read_flatten(name: str, node: Tree, followers: Sequence[str], notes: list[str]) -> Synapse | None:
    """Return a flatten of all axes; also for a flatten of some axes, where the next nodes take all axes in their order anyway.

    Frameworks that count a batch axis write `start_dim` 1 for all axes, so that case is the same.
    """
    start = (decode_integers(node.get("start_dim", np.array(1))) or (1,))[0]
    end = (decode_integers(node.get("end_dim", np.array(-1))) or (-1,))[0]
    axes = decode_integers(node["input_type"]) if isinstance(node.get("input_type"), np.ndarray) else None
    count = None if axes is None else len(axes)
    first = start + count if start < 0 and count is not None else start
    last = end == -1 or (count is not None and end in (count - 1, count))
    if last and (first == 0 or count == 1):
        return Flatten()
    if followers and all(kind in ("Affine", "Linear", "Flatten", "Output") for kind in followers):
        if last and start == 1:
            notes.append(f"node '{name}' flattens from axis 1: axis 0 is taken to be the batch, as in torch")
            return Flatten()
        notes.append(f"node '{name}' flattens axes {start} to {end}: all are flattened, which keeps the order of what follows")
        return Flatten()
    behind = ", ".join(sorted(set(followers))) or "nothing"
    what = f"node '{name}': flattens axes {start} to {end} of {axes or 'an unstated shape'} in front of {behind}"
    raise UnsupportedError(f"{what}; only in front of an Affine, Linear, Flatten or Output node is that supported")
