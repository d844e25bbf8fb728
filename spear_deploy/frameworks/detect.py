"""The framework that a torch model belongs to.

A framework is imported if a module of the model is its own, by the package of the module's class or of a class that it derives
from; its file of conventions then bears its name.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import Framework
from spear_deploy.util.extras import require_packages

FRAMEWORKS = {
    "norse": "Norse",
    "snntorch": "snnTorch",
    "spikingjelly": "SpikingJelly",
    "sinabs": "sinabs",
    "rockpool": "Rockpool",
}
"""Frameworks whose modules are read, by the name of their package."""


def find_framework(model: torch.nn.Module) -> Framework:
    """Return the conventions of the framework whose modules a model holds; a model of torch's modules alone is read as Norse's.

    Raises:
        UnsupportedError: modules of two frameworks, or a version of one that lacks what is read.
        MissingPackageError: a model of torch's modules alone, and Norse is not installed.
    """
    owners: dict[str, str] = {}
    for path, module in torch.nn.Module.named_modules(model):
        for kind in type(module).__mro__:
            name = kind.__module__.partition(".")[0]
            if name in FRAMEWORKS:
                owners.setdefault(name, f"'{path}' ({type(module).__name__})")
    if len(owners) > 1:
        places = " and ".join(f"{FRAMEWORKS[name]} in {place}" for name, place in owners.items())
        raise UnsupportedError(f"the model holds modules of {places}; use those of one framework")
    name = next(iter(owners), "norse")
    if not owners:
        require_packages("norse", user="a model of torch's modules alone, read by Norse's conventions,")
    try:
        conventions: Any = importlib.import_module(f"spear_deploy.frameworks.{name}")
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(
            f"the model holds {FRAMEWORKS[name]} in {owners.get(name, 'it')}, whose installed version lacks what is read "
            f"({error}); export it to NIR, or install the version that spear_deploy.frameworks.{name} names"
        ) from error
    framework: Framework = getattr(conventions, name.upper())
    return framework
