"""Target-aware rewards (TAR) of SPEAR, in four published forms.

SPEAR's paper says that TAR "converts hard constraints to soft penalties" and gives no formula; these are the four forms of the
field. `accuracy` is 0..1, `synops` the predicted SynOps after fine-tuning, `budget` the limit, `dense` the SynOps of the
unpruned network. Where every proposal is projected into the budget first, all of them reward accuracy alone; they differ
for searches without projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Reward: TypeAlias = Callable[[float, float, float, float], float]
"""(accuracy, synops, budget, dense) → reward."""


def hinge(accuracy: float, synops: float, budget: float, dense: float, *, weight: float = 1.0) -> float:
    """Subtract the relative excess over the budget: `accuracy − weight · max(0, synops / budget − 1)`. The default.

    It is continuous at the budget and keeps ranking plans beyond it.

    >>> hinge(0.9, 100, 100, 200), round(hinge(0.9, 120, 100, 200), 3)
    (0.9, 0.7)
    """
    return accuracy - weight * max(0.0, synops / budget - 1.0)


def punish(accuracy: float, synops: float, budget: float, dense: float) -> float:
    """Give the accuracy within the budget, else only the (negative) distance to it: `(budget − synops) / dense`.

    >>> punish(0.9, 100, 100, 200), punish(0.9, 120, 100, 200)
    (0.9, -0.1)
    """
    return accuracy if synops <= budget else (budget - synops) / dense


def cliff(accuracy: float, synops: float, budget: float, dense: float, *, tolerance: float = 0.002) -> float:
    """Give `1 + accuracy` up to `(1 + tolerance) · budget`, else `−3 − synops / dense`.

    >>> cliff(0.9, 100, 100, 200), cliff(0.9, 120, 100, 200)
    (1.9, -3.6)
    """
    return 1.0 + accuracy if synops <= (1.0 + tolerance) * budget else -3.0 - synops / dense


def power(accuracy: float, synops: float, budget: float, dense: float, *, exponent: float = -0.5) -> float:
    """Scale the accuracy by `(synops / budget) ** exponent` (MnasNet): fewer SynOps than the budget are better still.

    >>> power(0.9, 100, 100, 200), round(power(0.9, 400, 100, 200), 3)
    (0.9, 0.45)
    """
    return float(accuracy * (max(synops, 1e-9 * budget) / budget) ** exponent)


TAR: dict[str, Reward] = {"hinge": hinge, "punish": punish, "cliff": cliff, "power": power}
DEFAULT_TAR = "hinge"
