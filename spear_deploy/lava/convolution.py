"""Convolutions in the format of Lava's Conv, and its limits.

Lava's images are (W, H, C), its kernels (O, kW, kH, I / groups) and flipped: a true convolution, where torch correlates. Its
weights are not clipped, so that an exponent goes into them; its sums wrap at 24 bits; and its sizes are int8, beyond which it
fails or, from 128 groups on, sends zeros without a warning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from spear_deploy.errors import UnsupportedError
from spear_deploy.lava.formats import split_into_planes
from spear_deploy.lava.linear_maps import Convolution
from spear_deploy.network import Array, Shape

INT8 = 127
MAX_SUM = (1 << 23) - 1
SECONDS_PER_KERNEL = 15e-6
SECONDS_PER_PRODUCT = 2e-9


def check_conv(conv: Convolution) -> None:
    """Refuse what Lava's Conv does not hold.

    Raises:
        UnsupportedError: layer, value and range.
    """
    synapse = conv.synapse
    sizes = {"groups": (synapse.groups,), "kernel": synapse.weight.shape[2:]}
    sizes |= {name: getattr(synapse, name) for name in ("stride", "padding", "dilation")}
    for name, values in sizes.items():
        if max(values) > INT8:
            raise UnsupportedError(
                f"layer '{conv.layer}': {name} {max(values)} given, Lava's Conv holds it in 8 bits, up to {INT8}; "
                "use the fast model (lava-fast) or the simulator"
            )
    try:  # a chip holds the exponent beside the weights, and its range is smaller than that of Conv's weights
        split_into_planes(csr_matrix(_full_weights(conv).reshape(1, -1)))
    except UnsupportedError as error:
        raise UnsupportedError(f"layer '{conv.layer}': {error}; prune or rescale") from None


def check_conv_sum(conv: Convolution, target: str, max_sum: float) -> None:
    """Refuse sums that would wrap in Conv.

    Raises:
        UnsupportedError: names the layer.
    """
    if max_sum > MAX_SUM:
        raise UnsupportedError(
            f"layer '{target}': up to {max_sum:.0f} may arrive through the convolution of '{conv.layer}' in one step, "
            f"Lava's Conv holds 24 bits ({MAX_SUM}); scale weights or input down"
        )


def max_conv_gain(conv: Convolution) -> Array:
    """Return the largest sum that one unit of the source gives each neuron, borders ignored: (neurons,), int64."""
    weights = np.abs(_full_weights(conv))
    per_channel = weights.reshape(len(weights), -1).sum(axis=1)
    return np.repeat(per_channel, int(np.prod(conv.synapse.output_shape(conv.input_shape)[1:])))


def count_conv_synapses(conv: Convolution) -> int:
    """Return about how many synapses the unrolled convolution has."""
    return int(np.count_nonzero(conv.synapse.weight)) * int(np.prod(conv.synapse.output_shape(conv.input_shape)[1:]))


def describe_conv(conv: Convolution) -> tuple[dict[str, Any], Array]:
    """Return the entries of the worker's row for a Conv, and its weights; a Conv1d becomes a Conv2d of height 1."""
    synapse = conv.synapse
    single = len(conv.input_shape) == 2
    shape = conv.input_shape if not single else (conv.input_shape[0], 1, conv.input_shape[1])
    output = synapse.output_shape(conv.input_shape)
    weights = _full_weights(conv)
    weights = weights[:, :, None] if single else weights

    def pair(values: Shape, filler: int) -> list[int]:
        return [*values, filler] if single else list(values[::-1])

    positions = int(np.prod(output[1:]))
    kernels = synapse.weight.shape[0] * synapse.weight.shape[1]
    products = positions * int(np.prod(synapse.weight.shape[2:])) * int(np.prod(synapse.stride))
    row = {
        "input_shape": list(shape),
        "stride": pair(synapse.stride, 1),
        "padding": pair(synapse.padding, 0),
        "dilation": pair(synapse.dilation, 1),
        "groups": synapse.groups,
        "seconds_per_step": kernels * (SECONDS_PER_KERNEL + SECONDS_PER_PRODUCT * products),
    }
    return row, np.ascontiguousarray(weights[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)).astype(np.int32)


def _full_weights(conv: Convolution) -> Array:
    """Return the weights with their exponent in them: int64."""
    weights: Array = conv.synapse.weight.astype(np.int64) << conv.synapse.weight_exponent
    return weights
