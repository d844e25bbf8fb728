"""Model and pruned network, read for their weights' way back."""

from __future__ import annotations

import os
from typing import Any

from spear_deploy.errors import UnsupportedError
from spear_deploy.network.graph import SNNGraph
from spear_deploy.pipeline.inputs import load
from spear_deploy.util.extras import require_packages


def weights_into(net: Any, pruned: SNNGraph | str | os.PathLike[str]) -> Any:
    """Return a copy of a torch module with the weights of the network that was pruned from it, to go on training.

    Args:
        net: the module of snnTorch, SpikingJelly, sinabs, Rockpool or Norse from which the network was read; it stays as it is.
        pruned: the network in floating point, or its file, such as the `pruned.snn` of `prune`.

    Returns:
        The copy, with narrower linear, convolution and batch norm modules, recurrent weights, and neuron parameters. Its
        parameters are new: make a new optimizer. What it emits equals the network's output up to rounding; that is checked by
        reading it again.

    Raises:
        UnsupportedError: `net` is no module, the network is not its own, or a value has no place in a module, by layer.
    """
    require_packages("torch", user="weights_into")
    from torch import nn

    from spear_deploy.frameworks.write_back import store_weights

    if not isinstance(net, nn.Module):
        raise UnsupportedError(
            f"weights_into: net is {type(net).__name__}, expected the torch module that the network was read from; give that"
        )
    return store_weights(net, load(pruned))
