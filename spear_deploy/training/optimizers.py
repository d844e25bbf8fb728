"""Optimizers of torch that leave its compiler alone."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

EXCLUDED = ("add_param_group", "zero_grad")
"""Methods that torch excludes from its compiler: their decorator imports it, as that of `step` does."""


def without_compiler(kind: type[torch.optim.Optimizer]) -> Any:
    """Return a class of optimizers that takes equal steps, and does not import `torch._dynamo`, which takes seconds.

    Its methods are those below the decorators of torch; `step` keeps no gradients. A release of torch without the decorators has
    them as they are.
    """
    import torch

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in EXCLUDED}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})
