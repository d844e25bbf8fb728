"""Copies of a model, and what the code of its forward says before it runs."""

from __future__ import annotations

import copy
import dis
import inspect
import types
from contextlib import suppress
from itertools import pairwise, takewhile
from typing import Any

import torch

LOOP_STEPS = 4
"""Steps on which a loop is traced that asks for their number: any difference between steps shows within the first few."""
SPREADERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
"""Modules that spread a model over devices and change nothing that it computes."""
MAX_COMPARED = 62
"""Steps beyond these are not traced, though a forward names them."""
LATER_STEPS = 32
"""Steps of a forward of one step that are traced beyond its first two."""
MAX_COUNTED = 128
"""Calls beyond these are not traced, though a forward of one step names them."""
LIBRARIES = ("torch", "numpy", "einops")
"""Packages whose functions compute the same in every step, and ask for types of their own."""


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
    """Return the number of steps to trace a loop on: more than any number that a forward compares the number of a step with.

    Functions that the forward calls may compare their arguments.
    """
    codes = [function.__code__ for function in list_functions(model) if _compares_steps(function.__code__)]
    return max([LOOP_STEPS - 2, *(number for number in list_numbers(model, codes) if number <= MAX_COMPARED)]) + 2


def count_later_steps(model: torch.nn.Module) -> int:
    """Return the number of later steps to trace a forward of one step on: beyond any number in code that compares."""
    codes = [function.__code__ for function in list_functions(model) if _compares(function.__code__)]
    return max([LATER_STEPS, *(number for number in list_numbers(model, codes) if number <= MAX_COUNTED)])


def _compares(code: types.CodeType) -> bool:
    """Return whether code compares values or takes a remainder."""
    return any(
        step.opname in ("COMPARE_OP", "BINARY_MODULO") or step.argrepr in ("%", "%=") for step in dis.get_instructions(code)
    )


def list_numbers(model: torch.nn.Module, codes: list[types.CodeType] | None = None) -> set[int]:
    """Return the whole numbers in code, by default that of all functions that a model runs, and in what it names."""
    functions = [function for function in list_functions(model) if codes is None or function.__code__ in codes]
    names = {name for function in functions for name in list_names(function.__code__)}
    holders = [*map(vars, torch.nn.Module.modules(model)), *(function.__globals__ for function in functions)]
    values = [holder[name] for holder in holders for name in names if name in holder]
    values += [value for function in functions for value in (*_list_constants(function.__code__), *(function.__defaults__ or ()))]
    values += [held for function in functions for held in _list_enclosed(function)]
    return {value for value in values if type(value) is int}


def list_functions(model: torch.nn.Module) -> list[types.FunctionType]:
    """Return the functions that forwards and hooks of the user run, helpers in other files too, each once."""
    modules = [module for _, module in torch.nn.Module.named_modules(model)]
    classes = {kind: None for module in modules for kind in type(module).__mro__}
    queue: list[Any] = [vars(kind).get("forward") for kind in classes]
    for module in modules:
        queue += [vars(module).get("forward"), *module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    members = [vars(holder) for holder in (*classes, *modules)]
    found: dict[int, types.FunctionType] = {}
    while queue:
        function: Any = queue.pop()
        function = inspect.unwrap(getattr(function, "__func__", function)) if callable(function) else None
        space = getattr(function, "__globals__", None)
        if not isinstance(function, types.FunctionType) or space is None or id(function) in found:
            continue
        if str(space.get("__name__", "")).split(".")[0] in LIBRARIES:
            continue
        found[id(function)] = function
        queue += _list_called(function, list_names(function.__code__), members)
    return list(found.values())


def _list_called(function: types.FunctionType, names: set[str], members: list[Any]) -> list[Any]:
    """Return the functions that one may call: those of its file, of a module or class by name, and those that it encloses."""
    holders = [function.__globals__, *members]
    holders += [vars(held) for name in names if isinstance(held := function.__globals__.get(name), types.ModuleType)]
    called = [holder.get(name) for holder in holders for name in names]
    called += _list_enclosed(function)
    return [held for held in called if isinstance(held, (types.FunctionType, types.MethodType))]


def _list_enclosed(function: types.FunctionType) -> list[Any]:
    """Return what the variables hold that a function takes from those around it."""
    held: list[Any] = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is empty yet
            held.append(cell.cell_contents)
    return held


def list_names(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes in code, and in functions within it."""
    return set(code.co_names).union(*(list_names(inner) for inner in code.co_consts if isinstance(inner, types.CodeType)))


def _list_constants(code: types.CodeType) -> list[Any]:
    """Return the constants of code, those in tuples and in functions within it too."""
    found: list[Any] = []
    for value in code.co_consts:
        found += _list_constants(value) if isinstance(value, types.CodeType) else value if isinstance(value, tuple) else [value]
    return found


def _compares_steps(code: Any) -> bool:
    """Return whether code compares the variable of a loop or an argument, or takes a remainder of it."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PRECALL", "RESUME")]
    stores = [after.argval for step, after in pairwise(steps) if step.opname == "FOR_ITER" and after.opname.startswith("STORE")]
    stores += [
        step.argval
        for n, step in enumerate(steps)
        if step.opname.startswith("STORE") and any(before.opname == "UNPACK_SEQUENCE" for before in steps[max(n - 2, 0) : n])
    ]
    names = {name for stored in stores for name in (stored if isinstance(stored, tuple) else (stored,))}
    names |= set(code.co_varnames[: code.co_argcount])
    for n, step in enumerate(steps):
        loaded = set(step.argval) if isinstance(step.argval, tuple) else {step.argval}
        if step.opname.startswith("LOAD") and loaded & names:
            rest = list(takewhile(lambda after: not after.opname.startswith(("CALL", "STORE", "POP")), steps[n + 1 : n + 5]))
            if any(after.opname in ("COMPARE_OP", "BINARY_MODULO") or after.argrepr == "%" for after in rest):
                return True
    return False
