"""A call of a function or tensor method in a traced forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spear_deploy.frameworks.importer.context import TraceContext
from spear_deploy.frameworks.importer.modules import join
from spear_deploy.frameworks.importer.symbols import Channels, Complement, Concat, Signal, Symbol, name_module


@dataclass(frozen=True)
class FunctionCall:
    """A call of a function: its context, the path of the module that makes it, the function's name."""

    context: TraceContext
    owner: str
    name: str

    @property
    def place(self) -> str:
        """The module, for errors."""
        return name_module(self.owner)

    @property
    def axes_before(self) -> int:
        """Axes in front of a neuron's."""
        return self.context.axes_before

    def note(self, text: str) -> None:
        """Remember an assumption for the user."""
        if text not in self.context.builder.notes:
            self.context.builder.notes.append(text)

    def make_path(self, suffix: str = "") -> str:
        """Name a layer after module and function."""
        return ".".join(part for part in (self.owner, self.name, suffix) if part)

    def add_layer(self, *sources: Signal | Concat, suffix: str = "", **parts: Any) -> Signal:
        """Add a layer named after module and function."""
        path = self.make_path(suffix)
        return self.context.builder.add_layer(path, *(join(self.context, source, path) for source in sources), **parts)

    def replace_zero(self, symbol: Symbol, args: tuple[Symbol, ...]) -> Symbol:
        """Return a signal of zeros, shaped as the first signal of `args`, in place of the number 0."""
        signals = [other for other in args if isinstance(other, (Signal, Concat))]
        is_zero = isinstance(symbol, (int, float)) and symbol == 0
        return self.context.builder.make_zeros(signals[0].shape) if is_zero and signals else symbol

    def join_channels(self, symbol: Symbol) -> Symbol:
        """Return some channels of a signal, or 1 less spikes, as a signal of their own; any other symbol as it is."""
        if isinstance(symbol, Complement) and "mul" in self.name:
            return symbol
        if not isinstance(symbol, (Channels, Complement)):
            return symbol
        key = (self.owner, "channels", symbol)
        return self.context.unrolled.make_once(key, lambda key: join(self.context, key[2], self.owner))
