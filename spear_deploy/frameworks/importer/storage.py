"""Weights of a layer stored in torch modules, the reverse of `synapses`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.synapses import CONVS, TRANSPOSED
from spear_deploy.network import CONVS as CONV_PARTS
from spear_deploy.network import Array, BatchNorm, Dense, write_out

nn = torch.nn


def store_tensor(module: Any, name: str, value: Any) -> None:
    """Store numbers in a parameter, buffer or attribute, with the type, device and `requires_grad` of what was there.

    An axis of length 1 in front, for the batch, is kept; one number takes the shape of one number that was there.
    """
    old, array = getattr(module, name), write_out(value)
    if not isinstance(old, torch.Tensor):
        made: Any = torch.as_tensor(array, dtype=torch.float32) if array.ndim or old is None else float(array)
    else:
        if array.size == 1 and old.numel() == 1:
            array = array.reshape(tuple(old.shape))
        elif old.ndim == array.ndim + 1 and len(old) == 1:
            array = array[None]
        made = torch.tensor(array, dtype=old.dtype, device=old.device)
    if isinstance(old, nn.Parameter) or (old is None and name in module._parameters):
        made = nn.Parameter(made, requires_grad=old is None or old.requires_grad)
    if name in module._parameters:
        module._parameters[name] = made
    elif name in module._buffers:
        module._buffers[name] = made
    else:
        setattr(module, name, made)


def store_layer(module: Any, part: Any, place: str) -> None:
    """Store a synapse or a norm in the torch module that it came from, with its sizes.

    Raises:
        UnsupportedError: the module computes its weights, or is of another kind.
    """
    if module._forward_pre_hooks or hasattr(module, "parametrizations"):
        raise UnsupportedError(f"{place} computes its weights by a hook; make that permanent first, as torch's prune.remove does")
    if isinstance(part, BatchNorm) and isinstance(module, nn.modules.batchnorm._BatchNorm):
        names = {"weight": part.weight, "bias": part.bias, "running_mean": part.mean, "running_var": part.var}
        for name, value in names.items():
            if getattr(module, name) is not None:
                store_tensor(module, name, value)
        module.num_features, module.eps = len(part.mean), part.eps
        return
    if isinstance(part, (Dense, *CONV_PARTS)) and isinstance(module, nn.Linear):
        weight = write_out(part.weight)
        weight = weight.reshape(weight.shape[:2])  # on channels behind positions it is a convolution of one position
        _check_inputs(weight.shape[1], module.in_features, place)
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Conv1d) and isinstance(part, Dense):  # of one step, on channels between time and batch
        weight = write_out(part.weight)[:, :, None]
        _check_inputs(weight.shape[1], module.in_channels, place)
        module.out_channels, module.in_channels = weight.shape[:2]
    elif isinstance(module, CONVS):
        weight = _crop_kernel(part.weight, module.kernel_size)
        _check_inputs(weight.shape[1] * part.groups, module.in_channels, place)
        _set_channels(module, part)
    elif isinstance(module, TRANSPOSED):
        weight = _turn_kernel(part)
        _set_channels(module, part)
    else:
        kinds = type(module).__name__, type(part).__name__
        raise UnsupportedError(f"{place} is {kinds[0]}, which holds no {kinds[1]}; give the module that was read")
    store_tensor(module, "weight", weight)
    if module.bias is not None or part.bias is not None:
        store_tensor(module, "bias", np.zeros(weight.shape[0], np.float32) if part.bias is None else part.bias)


def _check_inputs(found: int, count: int, place: str) -> None:
    """Refuse weights of more inputs than the module has: they stand behind some channels of a layer."""
    if found > count:
        raise UnsupportedError(
            f"{place} takes {count} of the {found} channels of its input; a network whose forward takes channels apart does not "
            "go back into its modules, export it to NIR"
        )


def _set_channels(module: Any, conv: Any) -> None:
    module.out_channels, module.groups = conv.weight.shape[0], conv.groups
    module.in_channels = conv.weight.shape[1] * conv.groups


def _crop_kernel(weight: Array, kernel_size: tuple[int, ...]) -> Array:
    """Return a kernel without the zeros in front of it that a padding by name adds, and without an axis that the module lacks."""
    if weight.ndim == len(kernel_size) + 3:
        weight = weight.squeeze(axis=max(axis for axis in (2, 3) if weight.shape[axis] == 1))
    for axis, size in enumerate(kernel_size, start=2):
        weight = weight.take(range(weight.shape[axis] - size, weight.shape[axis]), axis=axis)
    return weight


def _turn_kernel(conv: Any) -> Array:
    """Return the weights (I, O / groups, *kernel) of a transposed convolution of stride 1."""
    outputs, inputs, *kernel = conv.weight.shape
    grouped = conv.weight.reshape(conv.groups, outputs // conv.groups, inputs, *kernel)
    turned = np.swapaxes(grouped, 1, 2).reshape(conv.groups * inputs, outputs // conv.groups, *kernel)
    return np.flip(turned, tuple(range(2, turned.ndim))).copy()  # torch takes no axis of one position that runs backwards
