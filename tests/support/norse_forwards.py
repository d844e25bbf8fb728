"""A small Norse network whose forward is handed in."""

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import torch
from torch import nn

STEPS = 9
PARAMETERS = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.1))


class ConvNet(nn.Module):
    """A convolution and a readout, with cells or with neurons over time; `run` is the forward."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor], over_time: bool = False) -> None:
        super().__init__()
        kind = norse.LIF if over_time else norse.LIFCell
        self.run, self.steps = run, STEPS
        self.conv, self.pool, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.AvgPool2d(2), nn.Linear(64, 5)
        self.lif, self.lif2 = kind(PARAMETERS), kind(PARAMETERS)

    def loop(self, cell: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return the spikes of a cell in all steps."""
        state, outputs = None, []
        for step in x:
            spikes, state = cell(step, state)
            outputs.append(spikes)
        return torch.stack(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)
