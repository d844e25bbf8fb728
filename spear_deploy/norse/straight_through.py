"""Learning of weights and biases that run rounded, by straight-through gradients.

forwards    rounded(latent)             what the network runs with
backwards   d loss / d rounded          taken as the gradient of the latent values (Bengio et al., arXiv 1308.3432)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize

from spear_deploy.network.value_grid import ValueGrid
from spear_deploy.norse.network import NorseNetwork


def round_values(network: NorseNetwork, grids: Mapping[tuple[str, str], ValueGrid]) -> None:
    """Let the weights and biases of a network run on their grids, in place.

    Args:
        network: its parameters become the latent values.
        grids: by layer and "weight" or "bias".
    """
    for (layer, name), grid in grids.items():
        module: Any = network.module_of(layer).synapse
        parametrize.register_parametrization(module, name, _Rounded(grid, getattr(module, name)))


def latent_values(module: Any, name: str) -> Any:
    """Return the parameter that is learnt of a synapse module: the latent one where it runs rounded."""
    return module.parametrizations[name].original if parametrize.is_parametrized(module, name) else getattr(module, name)


class _Rounded(torch.nn.Module):
    """Values on a grid."""

    unit: torch.Tensor
    palette: torch.Tensor | None

    def __init__(self, grid: ValueGrid, like: torch.Tensor) -> None:
        super().__init__()
        self.step, self.low, self.high = grid.step, grid.low, grid.high
        self.register_buffer("unit", torch.from_numpy(np.array(grid.unit, np.float32)).to(like.device))
        palette = None if grid.palette is None else torch.from_numpy(np.array(grid.palette, np.float32)).to(like.device)
        self.register_buffer("palette", palette)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the nearest values of the grid."""
        with torch.no_grad():
            if self.palette is not None:
                rows = (latent / self.unit).flatten(1)
                nearest = (rows[..., None] - self.palette[:, None]).abs().argmin(2)
                numbers = torch.gather(self.palette, 1, nearest).reshape(latent.shape)
            else:
                numbers = self.step * torch.round(latent / (self.unit * self.step))
            used = self.unit * numbers.clamp(self.low, self.high)
        passed: torch.Tensor = _PassGradient.apply(latent, used)
        return passed


class _PassGradient(torch.autograd.Function):
    """The used values forwards, their gradient to the latent ones backwards."""

    @staticmethod
    def forward(ctx: Any, latent: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Return `used`."""
        return used

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of `used` as that of `latent`."""
        return gradients[0], None
