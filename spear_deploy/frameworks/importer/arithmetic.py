"""Sums, differences, products and quotients in a forward, and calculations with its parameters.

Signals add up, and are scaled or moved by numbers and parameters. The product of two signals of spikes is a spike where both are:
neurons that keep nothing, with a threshold between one spike and two.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.function_call import FunctionCall
from spear_deploy.frameworks.importer.modules import add_stateless, all_spikes
from spear_deploy.frameworks.importer.symbols import MERGED, AxisSize, Complement, Concat, Signal, Symbol, TensorValue, describe
from spear_deploy.frameworks.importer.synapses import to_array
from spear_deploy.network import LIF, Array, Scale
from spear_deploy.util.number_format import format_shape

SCALINGS = ("mul", "imul", "truediv", "itruediv", "div")
"""Names of functions that multiply or divide."""
BOTH_THRESHOLD, ONLY_THRESHOLD = 1.5, 0.5
"""Thresholds of the sum of two spikes, and of one less the other."""
DRAWS = ("rand", "bernoulli", "normal", "poisson", "multinomial", "dropout", "exponential", "uniform")
"""Beginnings of the names of functions that draw random numbers."""


def add(call: FunctionCall, a: Symbol, b: Symbol) -> Signal:
    """Add two signals, or a signal and a number or parameter."""
    value, other = (a, b) if isinstance(a, (Signal, Concat)) else (b, a)
    if isinstance(value, (Signal, Concat)) and isinstance(other, (int, float, TensorValue)):
        return _scale(call, value, 1.0, bias=other)
    if not (isinstance(a, (Signal, Concat)) and isinstance(b, (Signal, Concat))):
        raise UnsupportedError(f"{call.place} adds {describe(a)} and {describe(b)}; expected the outputs of two modules")
    if a.shape != b.shape:
        raise UnsupportedError(
            f"{call.place} adds {format_shape(a.shape)} and {format_shape(b.shape)} values; expected equal shapes"
        )
    return _scale(call, a, 2.0) if a == b else call.add_layer(a, b)


def subtract(call: FunctionCall, a: Symbol, b: Symbol) -> Signal | Complement:
    """Subtract a signal, a number or a parameter."""
    if isinstance(b, (Signal, Concat)):
        if isinstance(a, (int, float)) and a == 1 and isinstance(b, Signal) and all_spikes(call.context, b):
            return Complement(b)
        return add(call, a, _scale(call, b, -1.0, suffix="minus"))
    return add(
        call, a, -b if isinstance(b, (int, float)) else TensorValue(-b.tensor, b.path) if isinstance(b, TensorValue) else b
    )


def multiply(call: FunctionCall, a: Symbol, b: Symbol) -> Signal:
    """Multiply a signal by a number or parameter, or two signals of spikes."""
    value, factor = (a, b) if isinstance(a, (Signal, Concat)) else (b, a)
    if isinstance(value, Signal) and isinstance(factor, (Signal, Complement)) and value.shape == factor.shape:
        other = factor.signal if isinstance(factor, Complement) else factor
        parts = (value, other)
        sends_one = not any(call.context.builder.sends_several(part) for part in parts)
        if all_spikes(call.context, parts) and sends_one and not any(part.is_zero for part in parts) and value != other:
            return _add_gate(call, value, factor)
    return _scale(call, value, factor)


def _add_gate(call: FunctionCall, value: Signal, factor: Signal | Complement) -> Signal:
    """Add neurons that spike where both signals do, or where the first does and the other does not, and that keep nothing."""
    is_both, builder = isinstance(factor, Signal), call.context.builder
    other = factor if isinstance(factor, Signal) else _scale(call, factor.signal, -1.0, suffix="minus")
    threshold = np.asarray(BOTH_THRESHOLD if is_both else ONLY_THRESHOLD, np.float32)
    output = call.add_layer(value, other, neuron=LIF(tau_s=np.asarray(builder.default_dt_s), v_threshold=threshold))
    builder.gates.add(output.name)  # their time constant is the time step, which is known at the end
    return output


def divide(call: FunctionCall, a: Symbol, b: Symbol) -> Signal:
    """Divide a signal by a number or parameter."""
    if isinstance(b, TensorValue) and bool((b.tensor != 0).all()):
        return _scale(call, a, TensorValue(1 / b.tensor, b.path))
    if not isinstance(b, (int, float)) or b == 0:
        raise UnsupportedError(f"{call.place} divides {describe(a)} by {describe(b)}; expected a number that is not 0")
    return _scale(call, a, 1 / b)


def negate(call: FunctionCall, value: Signal | Concat) -> Signal:
    """Return the negative of a signal."""
    return _scale(call, value, -1.0)


def _scale(call: FunctionCall, value: Symbol, factor: Symbol, *, bias: Symbol = None, suffix: str = "") -> Signal:
    if not isinstance(value, (Signal, Concat)) or not isinstance(factor, (int, float, TensorValue)):
        raise UnsupportedError(f"{call.place} multiplies {describe(value)} by {describe(factor)}; expected a number")
    moved = None if bias is None else _spread(call, bias, value)
    return call.add_layer(value, suffix=suffix, synapse=Scale(weight=_spread(call, factor, value), bias=moved))


def _spread(call: FunctionCall, number: Symbol, value: Signal | Concat) -> Array:
    """Return a number or parameter as an array that spreads over a signal, without axes of the batch or time.

    Raises:
        UnsupportedError: a parameter with a value for each sample or step.
    """
    if not isinstance(number, TensorValue):
        return np.array(number, np.float32)
    array = to_array(number.tensor)
    before = array.ndim - len(value.shape)
    if before > 0 and set(array.shape[:before]) != {1}:
        raise UnsupportedError(
            f"{call.place} calculates with {describe(number)} of {format_shape(array.shape)} values on a signal of "
            f"{format_shape(value.shape)}; give it no axis for samples or steps"
        )
    return array.reshape(array.shape[max(before, 0) :])


def compute_size(call: FunctionCall, a: Symbol, b: Symbol) -> AxisSize:
    """Return a number computed from the size of an axis."""
    if isinstance(a, AxisSize) and isinstance(b, AxisSize) and "mul" in call.name and a.axis != b.axis:
        return AxisSize(MERGED, power=1 if a.power == b.power == 1 else 0)
    size: AxisSize = a if isinstance(a, AxisSize) else b
    return replace(size, power=-size.power if size is b and a == 1 and "div" in call.name else 0)


# --------------------------------------------------------------------------------------------------------- parameters


def compute_tensor(call: FunctionCall, target: Any, args: tuple[Symbol, ...], kwargs: dict[str, Symbol]) -> Symbol:
    """Return the result of a function of parameters alone.

    Raises:
        UnsupportedError: it fails, changes a parameter, or draws random numbers.
    """
    first = next(arg for arg in (*args, *kwargs.values()) if isinstance(arg, TensorValue))
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    changes = name.endswith("_") and not name.startswith("__")
    if changes or name in ("iadd", "isub", "imul", "itruediv", "__setitem__") or name.startswith(DRAWS):
        raise UnsupportedError(
            f"{call.place} calls '{name}' on {describe(first)}, which changes it or draws numbers; compute it before the forward"
        )

    def read(symbol: Symbol) -> Any:
        return symbol.tensor if isinstance(symbol, TensorValue) else symbol

    values = [read(arg) for arg in args]
    named = {key: read(value) for key, value in kwargs.items()}
    try:
        with torch.no_grad():
            result = getattr(values[0], target)(*values[1:], **named) if isinstance(target, str) else target(*values, **named)
    except Exception as error:
        raise UnsupportedError(f"{call.place} calls '{name}' on {describe(first)}, which fails: {error}") from error
    return TensorValue(result, first.path) if isinstance(result, torch.Tensor) else result


def is_constant(symbol: Symbol) -> bool:
    """Return whether a symbol is a parameter or a plain value."""
    if isinstance(symbol, (tuple, list)):
        return all(is_constant(part) for part in symbol)
    return symbol is None or isinstance(symbol, (TensorValue, int, float, str, slice, type(...), torch.dtype, torch.device))


def linear(call: FunctionCall, input: Symbol, weight: Symbol, bias: Symbol = None) -> Signal | Concat:
    """Add the weights of functional.linear."""
    tensor = _require_tensor(call, weight)
    module = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=bias is not None)
    return _add_weights(call, module, input, tensor, bias)


def multiply_matrix(call: FunctionCall, input: Symbol, other: Symbol) -> Signal | Concat:
    """Add the weights of a product of a signal and a matrix."""
    if not isinstance(input, (Signal, Concat)) or not isinstance(other, TensorValue) or other.tensor.ndim != 2:
        raise UnsupportedError(
            f"{call.place} multiplies {describe(input)} and {describe(other)}; expected a signal and a matrix of weights"
        )
    return linear(call, input, TensorValue(other.tensor.t(), other.path))


def add_matrix_product(
    call: FunctionCall, input: Symbol, mat1: Symbol, mat2: Symbol, *, beta: float = 1, alpha: float = 1
) -> Signal | Concat:
    """Add the weights and the bias of torch.addmm."""
    if beta != 1 or alpha != 1 or not isinstance(mat2, TensorValue):
        raise UnsupportedError(f"{call.place} calls 'addmm' with factors or {describe(mat2)}; use linear with weights and a bias")
    return linear(call, mat1, TensorValue(mat2.tensor.t(), mat2.path), input)


def convolve(kind: Any) -> Callable[..., Signal | Concat]:
    """Return the function that adds the weights of functional.conv1d or conv2d."""

    def function(
        call: FunctionCall,
        input: Symbol,
        weight: Symbol,
        bias: Symbol = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Signal | Concat:
        tensor = _require_tensor(call, weight)
        kernel = tuple(tensor.shape[2:])
        module = kind(
            tensor.shape[1] * groups,
            tensor.shape[0],
            kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias is not None,
        )
        return _add_weights(call, module, input, tensor, bias)

    return function


def _add_weights(call: FunctionCall, module: Any, input: Symbol, weight: Any, bias: Symbol) -> Signal | Concat:
    module.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        module.bias = torch.nn.Parameter(_require_tensor(call, bias), requires_grad=False)
    return add_stateless(call.context, module, call.make_path(), input)


def _require_tensor(call: FunctionCall, symbol: Symbol) -> Any:
    if not isinstance(symbol, TensorValue):
        raise UnsupportedError(f"{call.place} calls '{call.name}' with {describe(symbol)} as weights; expected a parameter")
    return symbol.tensor


MAKERS: dict[Any, Callable[..., Symbol]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div", "div_"), divide),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), negate),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.mm, "matmul", "mm"), multiply_matrix),
    torch.addmm: add_matrix_product,
    functional.linear: linear,
    functional.conv1d: convolve(torch.nn.Conv1d),
    functional.conv2d: convolve(torch.nn.Conv2d),
}
"""Functions of arithmetic, by function object or name of the method."""
