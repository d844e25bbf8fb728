"""Votes of neighbouring neurons: an average pool over the neurons of a layer, which stand on an axis of their own.

    AvgPool1d(10)(x.unsqueeze(1)).squeeze(1)

The pool is linear: a dense layer, whose weights are what the pool makes of the unit vectors. It commutes with a mean, a sum or
the last of all steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
import torch

from spear_deploy.errors import UnsupportedError
from spear_deploy.frameworks.importer.context import TraceContext
from spear_deploy.frameworks.importer.symbols import Decoded, OneStep, Signal, Symbol, map_decoded, name_module

ROW_POOLS = (torch.nn.AvgPool1d, torch.nn.AdaptiveAvgPool1d)
"""Modules that average neighbours along the last axis."""


def is_row(symbol: Symbol) -> TypeGuard[OneStep | Decoded]:
    """Return whether a symbol holds one axis of neurons behind an axis of one value: samples x 1 x neurons."""
    if isinstance(symbol, Decoded):
        outputs = symbol.outputs if isinstance(symbol.outputs, tuple) else (symbol.outputs,)
        return bool(outputs) and all(map(is_row, outputs))
    return (
        isinstance(symbol, OneStep) and symbol.axis == 1 and isinstance(symbol.output, Signal) and len(symbol.output.shape) == 1
    )


def pool_row(context: TraceContext, module: Any, path: str, x: OneStep | Decoded) -> OneStep | Decoded:
    """Add the votes of a row of neurons, as weights.

    Raises:
        UnsupportedError: a window that the row does not hold, or a decoding that is not linear.
    """
    if isinstance(x, Decoded):
        if x.kind == "other":
            what = f"{name_module(path)} is {type(module).__name__}"
            raise UnsupportedError(f"{what} behind the {x.how} of all steps; put it in front of the {x.how}")
        return map_decoded(x, name_module(path), lambda output: pool_row(context, module, path, output))
    (count,) = x.output.shape
    try:
        votes = module(torch.eye(count)[:, None, :])[:, 0].T.numpy()
    except RuntimeError as error:
        raise UnsupportedError(
            f"{name_module(path)} is {type(module).__name__}, which fails on {count} neurons: {error}"
        ) from error
    made = context.unrolled.make_once(
        (path, "module", x.output),
        lambda key: context.builder.add_fixed(path, key[2], np.ascontiguousarray(votes)),
    )
    return replace(x, output=made)
