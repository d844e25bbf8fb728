"""A model's own run, with what its modules give in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch.utils._pytree import tree_leaves

from spear_deploy.frameworks.importer.context import Framework
from spear_deploy.frameworks.importer.forward_code import copy_model, list_arguments, takes_state
from spear_deploy.network import Array

Calls: TypeAlias = list[list[torch.Tensor]]
"""The tensors that each call of a module gave, such as spikes and states."""
Layout: TypeAlias = Literal["one by one", "time first", "batch first", "merged", "the first"]
"""How a forward gets its steps: in turn; all, with these axes in front, or with both in one; or the first, which it repeats."""
HALF_TYPES = (torch.float16, torch.bfloat16)
RESULT = ""
"""Name of what the model returns."""


def copy_to_run(model: torch.nn.Module, framework: Framework) -> torch.nn.Module:
    """Return a copy of a model that runs in evaluation mode, without the states of an earlier run."""
    copy = copy_model(model).eval()
    framework.finish_copy(copy)
    for _, module in torch.nn.Module.named_modules(copy):
        if isinstance(module, framework.neurons) or framework.has_state(module):
            framework.clear(module)
    return copy


def run_model(model: torch.nn.Module, modules: dict[str, torch.nn.Module], x: Array, layout: Layout) -> dict[str, Calls]:
    """Run a model on an input, and return what some of its modules give, and what it returns.

    Args:
        model: in evaluation mode; states that its modules keep are cleared.
        modules: by name, those whose outputs count.
        x: (T, B, *input).
        layout: how the forward gets its steps.
    """
    like = next((t for t in list_tensors(model) if t.is_floating_point()), torch.zeros(()))
    steps = torch.tensor(x, device=like.device, dtype=like.dtype)  # of its own, which the forward may change
    with _keeping_outputs(modules) as outputs, torch.no_grad(), torch.random.fork_rng(devices=[]):
        if layout == "one by one":
            results = _run_steps(model, steps)
        else:
            given = {
                "time first": lambda: steps,
                "batch first": lambda: steps.transpose(0, 1),
                "merged": lambda: steps.transpose(0, 1).flatten(0, 1),
                "the first": lambda: steps[0],
            }
            results = [_call(model, given[layout]())]
    return {**outputs, RESULT: list(map(_list_values, results))}


def list_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Return parameters and buffers; Rockpool's modules have others under these names."""
    yield from torch.nn.Module.parameters(model)
    yield from torch.nn.Module.buffers(model)


@contextmanager
def _keeping_outputs(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, Calls]]:
    """Keep what modules give while this lasts."""
    outputs: dict[str, Calls] = {path: [] for path in modules}

    def keep(path: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, given: Any, made: Any) -> None:
            outputs[path].append(_list_values(made))

        return hook

    hooks = [module.register_forward_hook(keep(path)) for path, module in modules.items()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _list_values(made: Any) -> list[torch.Tensor]:
    """Return copies of the tensors in what a call gave, which later calls may change."""
    values = (value for value in tree_leaves(made) if isinstance(value, torch.Tensor) and not value.is_complex())
    return [value.detach().to("cpu", torch.float32, copy=True) for value in values]


def _call(model: Any, *arguments: Any) -> Any:
    """Call a model with the defaults of its other arguments, and None for those without."""
    rest = list_arguments(model)[len(arguments) :]
    return model(*arguments, *(None if one.default is one.empty else one.default for one in rest))


def _run_steps(model: torch.nn.Module, steps: torch.Tensor) -> list[Any]:
    """Run a forward of one step, which gets what it has returned beside its output back."""
    results, arguments = [_call(model, steps[0])], list_arguments(model)
    for x in steps[1:]:
        state = _find_state(results[-1], len(arguments))
        if state is None or not takes_state(model):
            results.append(_call(model, x))
        elif len(arguments) > 2 and isinstance(state, tuple) and len(state) == len(arguments) - 1:
            results.append(_call(model, x, *state))
        else:
            results.append(_call(model, x, state))
    return results


def _find_state(result: Any, arguments: int) -> Any:
    """Return what a forward of one step returns beside its output, None where that is alone."""
    if isinstance(result, dict):
        result = tuple(result.values())
    if not isinstance(result, tuple) or len(result) < 2:
        return None
    return result[1:] if len(result) > 2 and len(result) == arguments else result[1]


def find_module(model: torch.nn.Module, path: str) -> torch.nn.Module | None:
    """Return the module at the path of a layer, which leaves wrappers such as Norse's Lift out; None where there is none."""
    module = model
    for name in filter(None, path.split(".")):
        while name not in module._modules and (inner := _unwrap(module)) is not None:
            module = inner
        following = module._modules.get(name)
        if following is None:
            return None
        module = following
    while not module._parameters and (inner := _unwrap(module)) is not None:
        module = inner
    return module


def _unwrap(module: torch.nn.Module) -> torch.nn.Module | None:
    return next((module._modules[name] for name in ("lifted_module", "module") if module._modules.get(name) is not None), None)
