"""What does lava-nc 0.10.0 need on Pythons newer than itself?

One thing, on Python 3.11 and later: `lava/magma/compiler/var_model.py` has dataclass fields whose default is an instance of
the dataclass `ByteEncoder`. Since 3.11 `dataclasses` takes an unhashable default for a mutable one and refuses it. Lava is
archived, so we give that one class a hash while that one module is imported, and change nothing else.

numpy 2.4 and later would need more (`np.reshape(newshape=...)` is gone); the package bounds numpy instead.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from typing import Any

MODULE = "lava.magma.compiler.var_model"


def prepare() -> None:
    """Make lava importable. Call it before the first import of lava; calling it again does nothing."""
    if sys.version_info < (3, 11) or MODULE in sys.modules:
        return
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        if cls.__module__ == MODULE and cls.__name__ == "ByteEncoder":
            options["unsafe_hash"] = True
        return original(cls, **options)

    dataclasses.dataclass = dataclass
    try:
        importlib.import_module(MODULE)
    finally:
        dataclasses.dataclass = original
