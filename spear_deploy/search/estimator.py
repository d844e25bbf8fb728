"""How many SynOps will a pruned network need once it is fine-tuned, by SPEAR's LRE?

A straight line for the whole network, `after ≈ W · before + b`, from pairs (before, after) of short fine-tunes of sampled
plans. "Before" is measured on the pruned network with its batch norm re-estimated. Here the line also says how far it may
be off. `drift` is the model by layer that it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spear_deploy.errors import DataError


@dataclass(frozen=True, kw_only=True)
class LRE:
    """A fitted line.

    Attributes:
        w, b: `after ≈ w · before + b`, in SynOps per inference.
        pairs: what it was fitted from, (before, after).
        residuals: relative, each pair predicted by the line through the others: `after / predicted − 1`.
    """

    w: float
    b: float
    pairs: tuple[tuple[float, float], ...]
    residuals: tuple[float, ...]

    def predict(self, before: float) -> float:
        """Return the expected SynOps after fine-tuning."""
        return max(0.0, self.w * before + self.b)

    def margin(self, confidence: float = 0.8) -> float:
        """Return how much, relatively, the truth may lie above the line, at least 0."""
        return max(0.0, quantile(self.residuals, confidence))

    def upper(self, before: float, confidence: float = 0.8) -> float:
        """Return an upper bound of the SynOps after fine-tuning: `predict · (1 + margin)`."""
        return self.predict(before) * (1.0 + self.margin(confidence))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def quantile(residuals: Sequence[float], confidence: float) -> float:
    """Return the conformal quantile: of n residuals the ⌈(n + 1) · confidence⌉-th smallest, 0 of none.

    A new one of the same kind is at most that with probability `confidence`; where n is too small for that, the largest is
    taken and the probability is n / (n + 1).

    >>> quantile([0.03, -0.01, 0.02, 0.0], 0.5)
    0.02
    """
    ordered = sorted(residuals)
    if not ordered:
        return 0.0
    rank = int(np.ceil((len(ordered) + 1) * confidence))
    return float(ordered[min(rank, len(ordered)) - 1])


def fit_lre(pairs: Sequence[tuple[float, float]]) -> LRE:
    """Fit a line by least squares.

    With two points the line goes through both and says nothing about its error. Where all "before" are (nearly) equal,
    or the best line falls, the line through the origin is taken: fewer SynOps before never mean more after.

    Raises:
        DataError: fewer than two pairs, or values that are not finite and positive.

    >>> line = fit_lre([(100.0, 90.0), (200.0, 170.0), (300.0, 250.0)])
    >>> round(line.w, 6), round(line.b, 6), round(line.predict(150.0), 6)
    (0.8, 10.0, 130.0)
    """
    data = np.asarray(pairs, np.float64).reshape(-1, 2)
    if len(data) < 2:
        raise DataError(f"SynOps estimator: {len(data)} pairs given, a line takes at least 2; sample more plans")
    if not np.isfinite(data).all() or (data <= 0).any():
        raise DataError("SynOps estimator: pairs must be finite and above 0; a network without spikes cannot be fine-tuned")
    w, b = _line(data)
    residuals = []
    if len(data) > 2:
        for i in range(len(data)):
            without = _line(np.delete(data, i, axis=0))
            residuals.append(float(data[i, 1] / max(without[0] * data[i, 0] + without[1], 1e-9 * data[i, 1]) - 1))
    return LRE(w=w, b=b, pairs=tuple((float(x), float(y)) for x, y in data), residuals=tuple(residuals))


def _line(data: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    x, y = data.T
    spread = x - x.mean()
    variance = float(spread @ spread)
    if variance > (1e-6 * x.mean()) ** 2 * len(x):
        w = float(spread @ (y - y.mean())) / variance
        if w > 0:
            return w, float(y.mean() - w * x.mean())
    return float(x @ y) / float(x @ x), 0.0
