"""Copies of a model, and what the code of its forward says before it runs."""

from __future__ import annotations

import copy
import dis
import inspect
import types
from itertools import pairwise
from typing import Any

import torch

LOOP_STEPS = 4
"""Steps on which a loop is traced that asks for their number: any difference between steps shows within the first few."""
SPREADERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
"""Modules that spread a model over devices and change nothing that it computes."""
MAX_COMPARED = 62
"""Steps beyond these are not traced, though a forward names them."""


def copy_model(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model; results of a computation, such as pruned weights, and sparse tensors keep their values."""
    model = unwrap(model)
    attributes: list[Any] = []
    for _, module in torch.nn.Module.named_modules(model):
        for value in vars(module).values():
            attributes += value.values() if isinstance(value, dict) else [value]
    tensors = [value for value in attributes if isinstance(value, torch.Tensor)]
    known: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    sparse = [tensor for tensor in tensors if tensor.is_leaf and tensor.layout != torch.strided]  # torch copies no sparse ones
    known |= {id(tensor): torch.nn.Parameter(tensor.detach().clone(), tensor.requires_grad) for tensor in sparse}
    try:
        return _unwrap_inner(copy.deepcopy(model, dict(known)))
    except (AttributeError, TypeError):  # a class that copies itself, and fails, as sinabs' recurrent layers do
        for _, module in torch.nn.Module.named_modules(model):
            kind: Any = type(module)
            if hasattr(kind, "__deepcopy__"):
                known[id(module)] = kind.__new__(kind)
        for _, module in torch.nn.Module.named_modules(model):
            if id(module) in known:
                vars(known[id(module)]).update(copy.deepcopy(vars(module), known))
        return copy.deepcopy(model, known)


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model that torch.compile, DataParallel or DistributedDataParallel stands for; any other as it is."""
    while True:
        if type(model).__name__ == "OptimizedModule":
            inner = getattr(model, "_orig_mod", model)
        elif type(model) in SPREADERS and not (model._forward_hooks or model._forward_pre_hooks):
            inner = model.module
        else:
            return model
        model = inner


def _unwrap_inner(model: torch.nn.Module) -> torch.nn.Module:
    """Put the modules that wrappers stand for in their places, and the forwards that torch.compile stands for."""
    for _, module in list(torch.nn.Module.named_modules(model)):
        for name, inner in list(module._modules.items()):
            if inner is not None:
                module._modules[name] = unwrap(inner)
        _unwrap_forward(module)
    return model


def _unwrap_forward(module: Any) -> None:
    """Give a module the forward that torch.compile stands for, `m.forward = torch.compile(m.forward)` or by decorator."""
    original = getattr(module.forward, "_torchdynamo_orig_callable", None)
    if original is None:
        return
    function = getattr(original, "__func__", original)
    vars(module).pop("forward", None)
    if getattr(type(module).forward, "__func__", type(module).forward) is not function:
        vars(module)["forward"] = types.MethodType(function, module)


def takes_state(model: torch.nn.Module) -> bool:
    """Return whether a model's forward takes another argument beside its input."""
    return len(list_arguments(model)) > 1


def list_arguments(model: torch.nn.Module) -> list[inspect.Parameter]:
    """Return the arguments that a model's forward takes by position."""
    parameters = inspect.signature(model.forward).parameters.values()
    return [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def list_unused_arguments(model: torch.nn.Module) -> list[str]:
    """Return the arguments without default beside the input that a model's forward never reads."""
    code = getattr(inspect.unwrap(getattr(model.forward, "__func__", model.forward)), "__code__", None)
    if code is None:
        return []
    read: set[Any] = set()
    for step in dis.get_instructions(code):
        if step.opname.startswith(("LOAD_", "STORE_FAST_LOAD")):
            read |= set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
    read |= {name for inner in code.co_consts if inspect.iscode(inner) for name in inner.co_freevars}
    arguments = list_arguments(model)[1:]
    return [argument.name for argument in arguments if argument.default is argument.empty and argument.name not in read]


def count_steps(model: torch.nn.Module) -> int:
    """Return the number of steps to trace a loop on: more than any number that a forward compares the number of a step with."""
    numbers = [LOOP_STEPS - 2]
    for _, module in torch.nn.Module.named_modules(model):
        code = getattr(getattr(type(module), "forward", None), "__code__", None)
        if code is None or not _compares_steps(code):
            continue
        named = (vars(module).get(name) for name in code.co_names)
        numbers += [n for n in (*code.co_consts, *named) if type(n) is int and n <= MAX_COMPARED]
    return max(numbers) + 2


def _compares_steps(code: Any) -> bool:
    """Return whether code compares the variable of a loop, or calculates with it, beside taking it for an index."""
    steps = list(dis.get_instructions(code))
    stores = [after.argval for step, after in pairwise(steps) if step.opname == "FOR_ITER" and after.opname.startswith("STORE")]
    stores += [
        step.argval
        for n, step in enumerate(steps)
        if step.opname.startswith("STORE") and any(before.opname == "UNPACK_SEQUENCE" for before in steps[max(n - 2, 0) : n])
    ]
    names = {name for stored in stores for name in (stored if isinstance(stored, tuple) else (stored,))}
    for n, step in enumerate(steps):
        loaded = set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
        if step.opname.startswith("LOAD") and loaded & names:
            if any(after.opname in ("COMPARE_OP", "BINARY_MODULO") or after.argrepr == "%" for after in steps[n + 1 : n + 5]):
                return True
    return False
