"""From a trained spiking network to the proven file of a chip.

The functions are the commands of `spear-deploy`, with the same names. An error that a caller can act on is a
`spear_deploy.errors.SpearError`, one sentence: `FileError`, `DataError`, `UnsupportedError`, `ChipError`, `BudgetError`, ...
Arrays have time first, (T, B, *input); samples of data have it second, (N, T, *input).

>>> import spear_deploy as sd
>>> sorted(sd.__all__)[:3]
['SNNGraph', 'adapt', 'check']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spear_deploy.network.graph import SNNGraph as SNNGraph
    from spear_deploy.pipeline.adapt import adapt as adapt
    from spear_deploy.pipeline.api import check as check
    from spear_deploy.pipeline.api import compare as compare
    from spear_deploy.pipeline.api import count as count
    from spear_deploy.pipeline.api import export as export
    from spear_deploy.pipeline.api import load as load
    from spear_deploy.pipeline.api import rank as rank
    from spear_deploy.pipeline.api import simulate as simulate
    from spear_deploy.pipeline.back_home import weights_into as weights_into
    from spear_deploy.pipeline.demo import demo as demo
    from spear_deploy.pipeline.deploy import deploy as deploy
    from spear_deploy.pipeline.prune import prune as prune
    from spear_deploy.pipeline.verification.verify import verify as verify

_PLACES = {
    "SNNGraph": "network.graph",
    **dict.fromkeys(("check", "compare", "count", "export", "load", "rank", "simulate"), "pipeline.api"),
    "adapt": "pipeline.adapt",
    "demo": "pipeline.demo",
    "deploy": "pipeline.deploy",
    "prune": "pipeline.prune",
    "verify": "pipeline.verification.verify",
    "weights_into": "pipeline.back_home",
}

__all__ = [
    "SNNGraph", "adapt", "check", "compare", "count", "demo", "deploy", "export", "load", "prune", "rank", "simulate", "verify",
    "weights_into",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for: checking a file must not wait for torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'spear_deploy' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"spear_deploy.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
