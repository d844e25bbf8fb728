"""Penalty on SynOps during training, by an augmented Lagrangian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT, SNNGraph
from spear_deploy.simulator import InputKind
from spear_deploy.simulator.synops import synops_per_spike

if TYPE_CHECKING:
    import torch

DUAL_RATE = 0.02
"""Step of the dual variable: at 10 % above the limit it grows by 0.002 a batch."""
CURVATURE = 10.0
"""Price added at once for each unit of relative excess, so that the dual variable need not overshoot."""
RECENT = 10
"""Batches over which SynOps are averaged."""
RATE_FLOOR = 0.01
"""Spikes per neuron and step below which a layer is pushed up: a silent layer has no gradient that would bring it back."""
RATE_FLOOR_WEIGHT = 1.0


class SynOpsPenalty:
    """An augmented Lagrangian on the measured SynOps of the batches.

        excess = mean of S / limit − 1 over the last batches
        price  = dual + curvature · max(0, excess)
        loss  += price · S / limit;     dual ← max(0, dual + rate · excess)

    S, the SynOps of a batch per inference, is differentiable: spikes (with surrogate gradient) times the SynOps of each spike.
    The limit falls from the SynOps at the start to the budget during the first `ramp` batches, and the excess is a mean over
    batches. Both keep the network from falling below the budget, since lost spikes do not come back. Layers below `RATE_FLOOR`
    are pushed up.

    Args:
        graph: the network.
        budget: SynOps per inference.
        dual: the dual variable at the start.
        kind: of the input; a current costs no SynOps.
        ramp: batches after which the limit is the budget.
        device: of torch.

    Attributes:
        batches: that were learnt from.
        start_limit: the limit of the first batch, in SynOps per inference.
        dual: the dual variable now: the price that stays when the excess is gone.
    """

    def __init__(
        self, graph: SNNGraph, budget: float, *, dual: float = 0.0, kind: InputKind = "spikes", ramp: int = 1, device: str = "cpu"
    ) -> None:
        self.budget, self.dual = budget, dual
        self._recent: list[float] = []
        self.start_limit, self.ramp, self.batches = budget, ramp, 0
        self._kind, self._device = kind, device
        self.price_spikes(graph)

    def price_spikes(self, graph: SNNGraph) -> None:
        """Take the SynOps of each spike from a network, e.g. after some of its weights were removed."""
        import torch

        cost = synops_per_spike(graph)
        self._cost = {name: torch.from_numpy(value.astype(np.float32)).to(self._device) for name, value in cost.items()}
        if self._kind == "current":
            del self._cost[INPUT]

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the state as plain data, and the SynOps of each spike by layer."""
        facts = {"dual": self.dual, "recent": self._recent, "start_limit": self.start_limit, "batches": self.batches}
        return facts, {name: cost.cpu().numpy() for name, cost in self._cost.items()}

    def restore(self, facts: Mapping[str, Any], costs: Mapping[str, Array]) -> None:
        """Take a state that `save` returned."""
        import torch

        self.dual, self._recent = facts["dual"], list(facts["recent"])
        self.start_limit, self.batches = facts["start_limit"], facts["batches"]
        self._cost = {name: torch.from_numpy(np.array(cost)).to(self._device) for name, cost in costs.items()}

    def loss(self, x: torch.Tensor, spikes: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the term that a batch adds to the loss, and adapt the dual variable.

        Args:
            x: (T, B, *input).
            spikes: (T, B, *shape) by layer.
        """
        import torch

        emitted = {INPUT: x, **spikes}
        total = torch.zeros((), device=x.device)
        for name, cost in self._cost.items():
            total = total + (emitted[name].sum(0).to(cost.dtype) * cost).sum() / x.shape[1]
        self._recent = [*self._recent[1 - RECENT :], float(total.detach())]
        if not self.batches:
            self.start_limit = max(self.budget, self._recent[0])
        self.batches += 1
        limit = self.budget + (self.start_limit - self.budget) * max(0.0, 1 - self.batches / self.ramp)
        excess = float(np.mean(self._recent)) / limit - 1
        price = self.dual + CURVATURE * max(0.0, excess)
        self.dual = max(0.0, self.dual + DUAL_RATE * excess)
        loss = price * total / limit
        for value in spikes.values():
            loss = loss + RATE_FLOOR_WEIGHT * torch.relu(1 - value.mean() / RATE_FLOOR)
        return loss
