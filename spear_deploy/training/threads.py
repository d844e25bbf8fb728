"""One thread for small networks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from spear_deploy.network.graph import SNNGraph
from spear_deploy.util.extras import require_packages
from spear_deploy.util.torch_threads import SMALL_NEURONS, one_torch_thread


@contextmanager
def limit_threads(graph: SNNGraph, *, learns: bool = False) -> Iterator[None]:
    """Let torch and numpy's products use one thread within this context, if the network is small.

    On small networks more threads gain little, lose much on a busy machine, and let sums depend on their number.

    Args:
        graph: the network.
        learns: whether torch runs within. It is then loaded first: loaded later it would have all threads. Otherwise its threads
            are limited only where it is loaded already.

    Raises:
        MissingPackageError: torch or Norse is not installed, and `learns`.
    """
    if learns:
        require_packages("torch", "norse", user="training")
        import torch  # noqa: F401
    with ExitStack() as stack:
        if graph.neurons < SMALL_NEURONS:
            if (blas := _find_blas()) is not None:
                stack.enter_context(blas.limit(limits=1, user_api="blas"))
            if "torch" in sys.modules:
                stack.enter_context(one_torch_thread())
        yield


@cache
def _find_blas() -> Any:
    """Return the control of numpy's linear algebra; None where threadpoolctl, which comes with training, is not installed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
