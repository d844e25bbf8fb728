"""Stand-in for samna, whose wheel only fetches the real package from its maker when it is imported.

sinabs and rockpool import samna for the chip's configuration objects. Their mappers do not need it: any name of it is an empty
class here, whose instances take any attribute. Nothing that samna itself decides is asked of it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any, ClassVar


class AnyName(type):
    """Type of classes in which every name is such a class again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = AnyName(name, (Anything,), {})
        setattr(cls, name, value)
        return value


class Anything(metaclass=AnyName):
    """An object that has every attribute and index, takes every value and can be called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        value = Anything()
        object.__setattr__(self, name, value)
        return value

    def __getitem__(self, key: Any) -> Anything:
        return Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Anything:
        return Anything()

    def __iter__(self) -> Any:
        return iter((True, ""))


class StandIn(ModuleType):
    """A module in which every name is a class."""

    __path__: ClassVar[list[str]] = []
    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "validate_configuration":
            return lambda config: (True, "not asked")
        value = AnyName(name, (Anything,), {})
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module called samna, samnagui or below them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in ("samna", "samnagui"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> StandIn:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def install() -> None:
    """Put the stand-in in place."""
    sys.meta_path.insert(0, Finder())
