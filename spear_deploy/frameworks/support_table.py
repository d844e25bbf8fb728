"""Support of the public modules of Norse and torch, a row each.

The rows are made from the installed packages: a class that a new release adds has a row, as refused, until it is mapped.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Literal, NamedTuple, TypeAlias

import torch

from spear_deploy.frameworks.importer.synapses import FOLDED, explain_refusal
from spear_deploy.frameworks.norse import NORSE
from spear_deploy.norse.cells import norse

Status: TypeAlias = Literal["mapped", "folded", "refused"]


class Support(NamedTuple):
    """A row: the class with its package, its status, and its counterpart, or why it is refused and what to use instead."""

    module: str
    status: Status
    note: str


_WALKED = "walked through"
_CELL = "states equal to the bit in float32"
_RECURRENT = (
    "input and recurrent weights as layers, the recurrent ones behind an edge of delay 1; sums may round in another order"
)
MAPPED = {
    norse: {
        "IAF": f"IF over time; {_CELL}",
        "IAFCell": f"IF; {_CELL}",
        "LI": f"CubaLI over time; {_CELL}",
        "LIBoxCell": f"LI; {_CELL}",
        "LICell": f"CubaLI; {_CELL}",
        "LILinearCell": "Dense and CubaLI",
        "LIF": f"CubaLIF over time; {_CELL}",
        "LIFBoxCell": f"LIF, also with reset_subtract; {_CELL}",
        "LIFCell": f"CubaLIF; {_CELL}",
        "LIFRecurrent": f"CubaLIF over time; {_RECURRENT}",
        "LIFRecurrentCell": f"CubaLIF; {_RECURRENT}",
        "LConv2d": "Conv2d",
        "Lift": _WALKED,
        "SequentialState": _WALKED,
        "RecurrentSequential": f"{_WALKED}; its output comes back by an edge of delay 1",
        "ConvNet": _WALKED,
        "ConvNet4": _WALKED,
        "VGG": f"{_WALKED}; a max pool must follow neurons",
        "MobileNetV2": _WALKED,
    },
    torch.nn: {
        "Linear": "Dense, on one axis",
        "Conv1d": "Conv1d, every padding number, 'same' and 'valid'",
        "Conv2d": "Conv2d, every padding number, 'same' and 'valid'",
        "ConvTranspose1d": "Conv1d, where its stride is 1",
        "ConvTranspose2d": "Conv2d, where its stride is 1",
        "BatchNorm1d": "BatchNorm, folded into the weights before it when the network is quantised",
        "BatchNorm2d": "BatchNorm, folded into the weights before it when the network is quantised",
        "SyncBatchNorm": "BatchNorm, of the statistics that it has; it is BatchNorm1d or BatchNorm2d in evaluation",
        "DataParallel": "the module that it spreads over devices is",
        "AvgPool1d": "AvgPool, or SumPool with divisor_override=1; no windows over the border",
        "AvgPool2d": "AvgPool, or SumPool with divisor_override=1; no windows over the border",
        "AdaptiveAvgPool1d": "AvgPool, where its windows are even; Conv1d of ones, from one position to several",
        "AdaptiveAvgPool2d": "AvgPool, where its windows are even; Conv2d of ones, from one position to several",
        "LPPool1d": "SumPool, where its norm is 1",
        "LPPool2d": "SumPool, where its norm is 1",
        "MaxPool1d": "of the spikes of neurons: SumPool and an IF that spikes in the same step",
        "MaxPool2d": "of the spikes of neurons: SumPool and an IF that spikes in the same step",
        "AdaptiveMaxPool1d": "as MaxPool1d, where its windows are even",
        "AdaptiveMaxPool2d": "as MaxPool2d, where its windows are even",
        "ConstantPad1d": "Conv1d of ones, where the constant is 0",
        "ConstantPad2d": "Conv2d of ones, where the constant is 0",
        "ZeroPad1d": "Conv1d of ones",
        "ZeroPad2d": "Conv2d of ones",
        "Flatten": "Flatten, of all axes of a layer",
        "Module": f"{_WALKED}: forward(x, state=None) -> (output, state), or a loop over x[t]",
        "Sequential": _WALKED,
        "ModuleList": "its modules are, where the forward calls them",
        "ModuleDict": "its modules are, where the forward calls them",
        "ParameterList": "what a module makes of it is",
        "ParameterDict": "what a module makes of it is",
        "Container": _WALKED,
    },
}
_FOLDED = {
    norse: {"RegularizationCell": "passes spikes on"},
    torch.nn: {**{kind.__name__: "does nothing in evaluation" for kind in FOLDED}, "ReLU": "on spikes; refused on other values"},
}


def norse_support() -> list[Support]:
    """Return a row for every public module class of `norse.torch` and `torch.nn`, sorted by package and name."""
    rows = []
    for package in (norse, torch.nn):
        kinds = vars(package).items()
        for name in sorted(name for name, kind in kinds if inspect.isclass(kind) and issubclass(kind, torch.nn.Module)):
            rows.append(Support(f"{package.__name__}.{name}", *_find_status(package, name)))
    return rows


def _find_status(package: ModuleType, name: str) -> tuple[Status, str]:
    if name in MAPPED[package]:
        return "mapped", MAPPED[package][name]
    if name in _FOLDED[package]:
        return "folded", _FOLDED[package][name]
    return "refused", explain_refusal(name, NORSE)
