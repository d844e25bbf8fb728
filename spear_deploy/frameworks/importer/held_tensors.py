"""Tensors that a forward takes beside its input: parameters, and zeros to start from."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import TraceContext
from spear_deploy.frameworks.importer.symbols import State, Symbol, TensorValue, describe, name_module
from spear_deploy.frameworks.importer.traced_model import TracedModel

WEIGHING = ("linear", "conv1d", "conv2d", "matmul", "mm", "addmm")
"""Functions that take a tensor for weights."""


def read_tensor(traced: TracedModel, context: TraceContext, node: fx.Node, *, path: str, owner: str, samples: int) -> Symbol:
    """Return the symbol of a tensor in the forward, such as zeros to start from.

    Args:
        traced: the model, which holds the tensor.
        context: of the call.
        node: the node that reads it.
        path: the model's place in the whole model.
        owner: path of the module whose forward takes it.
        samples: number of samples in the trace.

    Raises:
        UnsupportedError: a tensor that the forward sets, or with a value for each sample.
    """
    name = str(node.target)
    tensor: Any = operator.attrgetter(name)(traced)
    if tensor is None:
        raise UnsupportedError(
            f"{name_module(owner)}: its forward sets the parameter '{join_paths(path, name)}' to None as it runs; set it where "
            "the model is made"
        )
    if isinstance(tensor, fx.Proxy):
        raise UnsupportedError(
            f"{name_module(path)}: its forward sets the tensor '{name.removeprefix('model.')}' that it starts from, so that its "
            "next run goes on from there; let it start from None, or from zeros that the forward makes"
        )
    is_zero, is_own = not tensor.detach().cpu().float().numpy().any(), name.startswith("_tensor_constant")
    if is_zero and _is_state(traced, node):
        return State() if traced.framework.keeps_state else context.builder.make_zeros(tuple(tensor.shape))
    before, has_batch = context.axes_before, tensor.ndim > 0 and tensor.shape[0] in (1, samples)
    if is_own and is_zero and has_batch and tensor.ndim > before:
        return context.builder.make_zeros(tuple(tensor.shape[before:]))
    if is_own and is_zero and not has_batch and tensor.ndim == before == 1:
        return context.builder.make_zeros(tuple(tensor.shape))
    value = TensorValue(tensor, join_paths(path, name))
    if is_own and _has_samples(node, tensor, before, samples):
        raise UnsupportedError(
            f"{name_module(owner)} uses {describe(value)}, with a value for each sample; put it into a module, or start from "
            "zeros of batch x the layer's shape"
        )
    return value


def join_paths(path: str, target: str) -> str:
    """Return the path in the whole model of a path in the trace of the model at `path`."""
    inner = target.removeprefix("model").removeprefix(".")
    return ".".join(part for part in (path, inner) if part)


def _has_samples(node: fx.Node, tensor: torch.Tensor, axes_before: int, samples: int) -> bool:
    """Return whether a tensor that the forward makes has a value for each sample, unless all take it for weights."""
    names = {getattr(user.target, "__name__", str(user.target)) for user in node.users}
    return tensor.ndim > axes_before and tensor.shape[0] == samples and not names <= {*WEIGHING}


def _is_state(traced: TracedModel, node: fx.Node) -> bool:
    """Return whether a tensor only goes into modules with a state, as a state to start from or a part of one."""
    groups = [user for user in node.users if isinstance(user.target, type) and issubclass(user.target, tuple)]
    return all(
        _is_state(traced, user) if user in groups else traced.has_state(user) and node not in user.args[:1] for user in node.users
    )
