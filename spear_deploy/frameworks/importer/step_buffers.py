"""Tensors into which a forward writes the outputs of its steps: a trace reads them as the stack of what was written.

`out[t] = net(x[t])` of every step, with `out.max(0)` at the end, is `torch.stack([net(x[0]), net(x[1]), ...]).max(0)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.symbols import name_module

NO_READING = ("__get__", "size", "dim", "ndimension", "numel", "__len__", "__setitem__")
"""Functions that read no value of a tensor."""


@dataclass
class StepBuffer:
    """A tensor that a forward writes to.

    Attributes:
        tensor: as the forward made it.
        axis: that of the steps.
        path: of the module whose forward writes.
        written: what was written last, by step.
    """

    tensor: torch.Tensor
    axis: int
    path: str
    written: dict[int, fx.Proxy] = field(default_factory=dict)

    def stack(self) -> Any:
        """Return the stack of what was written, in the order of the steps.

        Raises:
            UnsupportedError: the tensor has other values besides, which a maximum or the last of them would take.
        """
        steps, length = sorted(self.written), self.tensor.shape[self.axis]
        if steps != list(range(length)):
            raise UnsupportedError(
                f"{name_module(self.path)} writes the outputs {steps} of a tensor, expected one for each step and no more, but "
                f"it has {length}; make it as long as there are steps, and write the output of step t to [t]"
            )
        written: Any = [self.written[step] for step in steps]
        return torch.stack(written, self.axis)


class StepBuffers(TorchFunctionMode):
    """The tensors that a forward writes to while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self._by_id: dict[int, StepBuffer] = {}

    def write(self, tensor: torch.Tensor, index: Any, value: fx.Proxy, path: str) -> None:
        """Note the output of a step.

        Raises:
            UnsupportedError: an index that is not the one of a step, or a tensor that does not hold fractions.
        """
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UnsupportedError(f"{name_module(path)} writes its outputs to a tensor of {kind}; make it one of float32")
        parts = index if isinstance(index, tuple) else (index,)
        places = [n for n, part in enumerate(parts) if isinstance(part, int)]
        axis = places[0] - len(parts) if places and ... in parts[: places[0]] else places[0] if places else 0
        buffer = self._by_id.setdefault(id(tensor), StepBuffer(tensor, axis, path))
        others = [part for n, part in enumerate(parts) if n not in places]
        is_step = len(places) == 1 and all(part is ... or part == slice(None) for part in others)
        if not is_step or parts[places[0]] < 0 or buffer.axis != axis:
            raise UnsupportedError(f"{name_module(path)} writes to [{index}] of a tensor; write the output of step t to [t]")
        buffer.written[int(parts[places[0]])] = value

    def find(self, value: Any) -> Any:
        """Return the stack of what was written to a tensor; any other value as it is."""
        buffer = self._by_id.get(id(value)) if isinstance(value, torch.Tensor) else None
        return buffer.stack() if buffer is not None and buffer.tensor is value else value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function on the stack in place of the tensor.

        Raises:
            UnsupportedError: it writes numbers to a tensor that has outputs.
        """
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__setitem__" and not isinstance(args[2], fx.Proxy) and (written := self._by_id.get(id(args[0]))) is not None:
            raise UnsupportedError(
                f"{name_module(written.path)} writes numbers to [{args[1]}] of a tensor that it writes outputs to; leave that out"
            )
        if not self._by_id or name in NO_READING:
            return func(*args, **kwargs)
        if name == "__getitem__" and (buffer := self._by_id.get(id(args[0]))) is not None:
            return self._take(buffer, args[1])
        found = tree_map(self.find, (args, kwargs))
        proxies = [value for value in tree_leaves(found) if isinstance(value, fx.Proxy)]
        if len(proxies) == sum(isinstance(value, fx.Proxy) for value in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        return type(proxies[0]).__torch_function__(func, types, *found)

    def _take(self, buffer: StepBuffer, index: Any) -> Any:
        """Return a part of a buffer: the output of one step, or what the forward had put there before."""
        if buffer.axis == 0 and isinstance(index, int) and index >= 0:
            return buffer.written[index] if index in buffer.written else buffer.tensor[index]
        return buffer.stack()[index]
