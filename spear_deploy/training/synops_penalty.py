"""What must a spike cost during learning, so that the network keeps its SynOps budget?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import InputKind
from spear_deploy.simulator.synops import cost_per_spike

if TYPE_CHECKING:
    import torch

DUAL_RATE = 0.02
"""How fast spikes become dearer: at 10 % above the budget the price grows by 0.002 a batch."""
CURVATURE = 10.0
"""What each unit of relative excess adds to the price at once, so that the dual variable need not overshoot."""
RECENT = 10
"""Batches over which SynOps are averaged."""
RATE_FLOOR = 0.01
"""A layer whose neurons spike in less than 1 % of all steps is pushed up: a silent layer has no gradient to come back by."""
RATE_FLOOR_WEIGHT = 1.0


class SpikePrice:
    """The price of SynOps during learning: an augmented Lagrangian on the measured SynOps of the batches.

        excess = mean of S / limit − 1 over the last batches
        price  = dual + curvature · max(0, excess)
        loss  += price · S / limit;     dual ← max(0, dual + rate · excess)

    S is differentiable: spikes (with surrogate gradient) times what each of them costs. The limit comes down from where the
    network starts to the budget over the first part of learning, and the excess is a mean over batches: neither haste nor
    chance shall push the network below the budget, since what is lost does not come back by itself. Layers below the
    rate floor are pushed up.

    Args:
        graph: the network.
        budget: SynOps per inference.
        dual: the price to start with.
        kind: of the input; a current costs no SynOps.
        ramp: batches after which the limit is the budget.
        device: of torch.

    Attributes:
        dual: the price that stays when the excess is gone.
    """

    def __init__(self, graph: SNNGraph, budget: float, dual: float, kind: InputKind, ramp: int, device: str = "cpu") -> None:
        import torch

        self.budget, self.dual = budget, dual
        self._recent: list[float] = []
        self._first, self._ramp, self._batches = budget, ramp, 0
        cost = cost_per_spike(graph)
        self._cost = {name: torch.from_numpy(value.astype(np.float32)).to(device) for name, value in cost.items()}
        if kind == "current":
            del self._cost[INPUT]

    def penalty(self, x: torch.Tensor, spikes: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what a batch (T, B, *input) and its spikes by layer add to the loss, and adapt the price to it."""
        import torch

        emitted = {INPUT: x, **spikes}
        total = torch.zeros((), device=x.device)
        for name, cost in self._cost.items():
            total = total + (emitted[name].sum(0).to(cost.dtype) * cost).sum() / x.shape[1]
        self._recent = [*self._recent[1 - RECENT :], float(total.detach())]
        if not self._batches:
            self._first = max(self.budget, self._recent[0])
        self._batches += 1
        limit = self.budget + (self._first - self.budget) * max(0.0, 1 - self._batches / self._ramp)
        excess = float(np.mean(self._recent)) / limit - 1
        price = self.dual + CURVATURE * max(0.0, excess)
        self.dual = max(0.0, self.dual + DUAL_RATE * excess)
        loss = price * total / limit
        for value in spikes.values():
            loss = loss + RATE_FLOOR_WEIGHT * torch.relu(1 - value.mean() / RATE_FLOOR)
        return loss
