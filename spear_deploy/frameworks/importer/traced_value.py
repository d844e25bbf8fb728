"""Tensors of a trace whose shape is known, which a forward may count with and take step by step."""

from __future__ import annotations

import dis
import operator
import sys
from collections.abc import Iterator
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import fx

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.in_place import CHANGES
from spear_deploy.frameworks.importer.step_layout import SWAPS, Layout, TracedSize, count_traced_steps
from spear_deploy.frameworks.importer.symbols import MERGED, STEPS, name_module
from spear_deploy.frameworks.importer.traced_model import LOOPS, UnclearForward


class LoopsOverTime(Exception):
    """A forward indexes its input step by step."""


class Value(fx.Proxy):
    """What a call in a forward returns."""

    tracer: Any

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data":
            raise UnsupportedError(
                f"{name_module(self.tracer.path_of_caller())} sets '.data' of a tensor as its forward runs, which changes it "
                "for later steps; set it before the forward, or compute with it, as in functional.linear(x, weight * mask)"
            )
        super().__setattr__(name, value)

    def _note_change(self, result: Any) -> Any:
        """Take down that an operator such as `+=` changes this value, which other names may have too."""
        if isinstance(result, fx.Proxy):
            result.node.meta[CHANGES] = self.node
        return result

    def __iadd__(self, other: Any) -> Any:
        return self._note_change(self + other)

    def __isub__(self, other: Any) -> Any:
        return self._note_change(self - other)

    def __imul__(self, other: Any) -> Any:
        return self._note_change(self * other)

    def __itruediv__(self, other: Any) -> Any:
        return self._note_change(self / other)

    def __iter__(self) -> Iterator[Any]:
        """Return the values that a forward gives names to, as torch's does, which disassembles its code each time."""
        frame: Any = sys._getframe(1)
        count = _list_unpacked(frame.f_code).get(frame.f_lasti) or self._count_results()
        return super().__iter__() if not count else iter([self[n] for n in range(count)])

    def __getitem__(self, index: Any) -> Any:
        """Return a part of what a call returns, counted from the end too, or several."""
        if isinstance(index, slice) and (count := self._count_results()):
            return tuple(self[n] for n in range(count)[index])
        if isinstance(index, int) and index < 0:
            index += self._count_results()
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})

    def __len__(self) -> int:
        return self._count_results() or super().__len__()

    def _count_results(self) -> int:
        """Return the number of values that a module of neurons returns, 0 of any other call."""
        tracer, node = self.tracer, self.node
        return tracer.framework.count_results(tracer.root.get_submodule(str(node.target))) if node.op == "call_module" else 0


@cache
def _list_unpacked(code: CodeType) -> dict[int, int]:
    """Return the number of values by the place of each unpacking in code."""
    return {step.offset: step.argval for step in dis.get_instructions(code) if step.opname == "UNPACK_SEQUENCE"}


class SizedValue(Value):
    """The model's input, or a tensor of all steps, whose shape is known in the trace."""

    @property
    def layout(self) -> Layout | None:
        """Where time and batch are; None for the input of one step."""
        layout: Layout | None = self.node.meta.get("layout")
        return layout

    @property
    def shape(self) -> Any:
        """The whole shape, as a tensor has it."""
        self.tracer.reads_sizes = True
        inner = self.tracer.measure(self.node)
        if inner is None:
            return self.tracer.create_proxy("call_function", getattr, (self, "shape"), {})
        return (*self.list_leading(), *inner)

    def list_leading(self) -> tuple[TracedSize, ...]:
        """Return the sizes of the axes of time and batch."""
        samples, steps, form = self.tracer.counts.samples, self.tracer.steps, self.tracer.form
        if self.layout is None:  # one step, or an image in front of the step that repeats it
            return (TracedSize(samples, 0 if form != "layers" else 1 - self.tracer.framework.time_axis),)
        steps = count_traced_steps(self.node, steps)
        if self.layout.merged:
            return (TracedSize(steps * samples, MERGED),)
        places = (STEPS, 0) if form != "layers" else (self.tracer.framework.time_axis, 1 - self.tracer.framework.time_axis)
        both = (TracedSize(steps, places[0], is_time=True), TracedSize(samples, places[1]))
        return both[::-1] if self.layout.batch_first else both

    ndim = property(lambda self: self.dim())
    device = property(lambda self: torch.device("cpu"))
    dtype = property(lambda self: torch.float32)

    def size(self, axis: int | None = None) -> Any:
        """Return the shape or one of its sizes."""
        return self.shape if axis is None else self.shape[axis]

    def dim(self) -> int:
        """Return the number of axes."""
        return len(self.list_leading()) + len(self.tracer.measure(self.node) or ())


class TracedValue(SizedValue):
    """The same, which a forward may take step by step."""

    def __len__(self) -> int:
        self.tracer.reads_sizes = True
        return self.list_leading()[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([self[t] for t in range(self.list_leading()[0])])

    def unbind(self, dim: int = 0) -> tuple[Any, ...]:
        """Return the tensor of every step."""
        is_batch_first = self.layout is not None and self.layout.batch_first
        if dim != int(is_batch_first) or (self.layout is not None and self.layout.merged):
            raise UnclearForward(f"it takes its input apart along axis {dim}, expected time in front")
        return tuple(self[:, t] if is_batch_first else self[t] for t in range(self.list_leading()[dim]))

    def new_empty(self, *size: Any, **options: Any) -> Any:
        """Return a tensor that a loop writes the outputs of its steps to."""
        return self._make("new_empty", *size, **options)

    def new_zeros(self, *size: Any, **options: Any) -> Any:
        """Return zeros to start from, or to write the outputs of steps to."""
        return self._make("new_zeros", *size, **options)

    def _make(self, name: str, *size: Any, **options: Any) -> Any:
        """Return a tensor of a shape of which all sizes are known, in a loop; else its symbol."""
        sizes = options.get("size", size)
        sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        if self.tracer.form in LOOPS and sizes and all(isinstance(number, int) for number in sizes):
            return torch.zeros(*map(int, sizes))
        return self.tracer.create_proxy("call_method", name, (self, *size), options)

    def split(self, split_size: Any = None, dim: int = 0, *, split_size_or_sections: Any = None) -> Any:
        """Take channels apart; steps are taken by their number."""
        self._refuse_steps("split", [dim])
        size = split_size_or_sections if split_size is None else split_size
        return self.tracer.create_proxy("call_method", "split", (self, size, dim), {})

    def chunk(self, chunks: int, dim: int = 0) -> Any:
        """Take channels apart; steps are taken by their number."""
        self._refuse_steps("chunk", [dim])
        return self.tracer.create_proxy("call_method", "chunk", (self, chunks, dim), {})

    def flip(self, *axes: Any, dims: Any = None) -> Any:
        """Turn positions round; time runs forwards."""
        axes = (dims,) if dims is not None else axes
        self._refuse_steps("flip", axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes)
        return self.tracer.create_proxy("call_method", "flip", (self, *axes), {})

    def _refuse_steps(self, name: str, dims: Any) -> None:
        """Refuse a call along time, or along the first axis of an input that may be time.

        Raises:
            UnsupportedError: it is one.
        """
        axis = int(self.layout is not None and self.layout.batch_first)
        if axis in dims and not self._is_merged():
            does, instead = {
                "flip": ("turns the steps of its input round", "turn the data round before the network"),
            }.get(name, ("takes the steps of its input apart, each with an axis of time", self._name_steps()))
            raise UnsupportedError(f"{name_module(self.tracer.path_of_caller())} {does}, by '{name}'; {instead}")

    def _name_steps(self) -> str:
        """Return how a forward takes steps apart, if its modules run one step."""
        if self.tracer.form == "layers":
            return "give modules that run over time all steps at once"
        return "take x[t], or x.unbind(0)"

    def permute(self, *axes: Any) -> Any:
        """Exchange time and batch; other orders have no counterpart."""
        order = tuple(axes[0]) if len(axes) == 1 else axes
        if order[:2] == (1, 0) and order[2:] == tuple(range(2, len(order))) and not self._is_merged():
            return self._swap("permute", *axes)
        return self.tracer.create_proxy("call_method", "permute", (self, *axes), {})

    def transpose(self, dim0: int, dim1: int) -> Any:
        """Exchange time and batch; other axes have no counterpart."""
        if {dim0, dim1} == {0, 1} and not self._is_merged():
            return self._swap("transpose", dim0, dim1)
        return self.tracer.create_proxy("call_method", "transpose", (self, dim0, dim1), {})

    swapaxes = swapdims = transpose

    def _is_merged(self) -> bool:
        return self.layout is not None and self.layout.merged

    def _swap(self, name: str, *axes: Any) -> Any:
        """Return the tensor with time and batch exchanged."""
        form = self.tracer.form
        if form == "step":
            raise LoopsOverTime
        if form == "layers" and self.node.op == "placeholder":
            return self  # such a model may have its input in either order
        return self.tracer.create_proxy("call_method", name, (self, *axes), {})

    @classmethod
    def __torch_function__(cls, orig_method: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Exchange axes as the method does; all else is traced."""
        name = getattr(orig_method, "__name__", "")
        if name in (*SWAPS, "unbind", "split", "chunk", "flip") and args and isinstance(args[0], cls):
            return getattr(args[0], name)(*args[1:], **(kwargs or {}))
        return super().__torch_function__(orig_method, types, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        layout, form = self.layout, self.tracer.form
        is_column = len(parts) > 1 and isinstance(parts[0], slice) and parts[0] == slice(None) and isinstance(parts[1], int)
        if form == "step" and isinstance(parts[0], int):
            raise LoopsOverTime
        is_step = layout is not None and (is_column if layout.batch_first else isinstance(parts[0], int))
        if form != "layers" and layout is not None and is_step and not layout.merged:
            step, *rest = parts[1:] if layout.batch_first else parts
            is_input = self.node.op == "placeholder"
            if step >= 0 and all(part is ... or isinstance(part, slice) for part in rest):
                if layout.of_input:
                    self.tracer.taken.add(int(step))
                taken: Any = self.tracer.create_proxy("call_function", operator.getitem, (self, int(step)), {})
                picks = any(part not in (..., slice(None)) for part in rest)
                return taken[(slice(None), *rest) if layout.batch_first else tuple(rest)] if picks else taken
            if is_input:
                raise UnclearForward(f"it takes x[{index}], expected x[t] of every step in turn")
        self.tracer.takes_columns |= is_column
        return self.tracer.create_proxy("call_function", operator.getitem, (self, index), {})
