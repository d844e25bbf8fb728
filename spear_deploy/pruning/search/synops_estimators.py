"""Estimators of the SynOps of a pruned network after fine-tuning.

Both are fitted from short fine-tunes of sampled plans. "Before" is measured on the pruned network with its batch norm
re-estimated. Both give an interval from samples left out one by one (conformal).

`LRE` is SPEAR's straight line for the whole network, `after ≈ W · before + b`.

`PerLayerEstimator` uses that SynOps are a sum over the layers that spike: `S = Σ S_l`, S_l the SynOps that the spikes of layer l
cause. The spikes of the input do not change, so its S_l is known. Those of a layer change by a factor of its own, which is
learnt and drawn to the factor that all layers share, the more the fewer samples there are:

    log(after_l / before_l) ≈ a + u_l + c · log(before_l / dense_l)

    a, c    shared by all layers: mean drift, and its dependence on the share of a layer that is left
    u_l     of each layer, with a ridge on it

A layer weighs by its share of the SynOps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from spear_deploy.errors import DataError
from spear_deploy.network import Array
from spear_deploy.network.graph import INPUT

RIDGE = 2.0
"""Weight of the shared factor, in samples."""
SLOPE_RIDGE = 4.0
MAX_DRIFT = 1.5
"""Factors are limited to e^±1.5."""
TINY = 1e-9

BySource = Mapping[str, float]
"""SynOps per inference by the layer (or the input) whose spikes cause them."""


@dataclass(frozen=True, kw_only=True)
class LRE:
    """SPEAR's straight line for the whole network.

    Attributes:
        kind: its name in JSON.
        w, b: `after ≈ w · before + b`, in SynOps per inference.
        pairs: the samples, (before, after).
        residuals: relative, each pair predicted by the line through the others: `after / predicted − 1`.
    """

    kind: ClassVar[str] = "lre"

    w: float
    b: float
    pairs: tuple[tuple[float, float], ...]
    residuals: tuple[float, ...]

    def predict(self, before: float) -> float:
        """Return the expected SynOps after fine-tuning."""
        return max(0.0, self.w * before + self.b)

    def margin(self, confidence: float = 0.8) -> float:
        """Return the relative distance by which the truth may lie above the line, at least 0."""
        return max(0.0, conformal_quantile(self.residuals, confidence))

    def upper(self, before: float, confidence: float = 0.8) -> float:
        """Return an upper bound of the SynOps after fine-tuning: `predict · (1 + margin)`."""
        return self.predict(before) * (1.0 + self.margin(confidence))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def conformal_quantile(residuals: Sequence[float], confidence: float) -> float:
    """Return the conformal quantile: of n residuals the ⌈(n + 1) · confidence⌉-th smallest, 0 of none.

    A new residual of the same distribution is at most this with probability `confidence`; where n is too small, the largest is
    taken and the probability is n / (n + 1).

    >>> conformal_quantile([0.03, -0.01, 0.02, 0.0], 0.5)
    0.02
    """
    ordered = sorted(residuals)
    if not ordered:
        return 0.0
    rank = int(np.ceil((len(ordered) + 1) * confidence))
    return float(ordered[min(rank, len(ordered)) - 1])


def fit_lre(pairs: Sequence[tuple[float, float]]) -> LRE:
    """Fit a line by least squares.

    With two points the line goes through both, and its error is unknown. Where all "before" are (nearly) equal,
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
    w, b = _fit_line(data)
    residuals = []
    if len(data) > 2:
        for i in range(len(data)):
            without = _fit_line(np.delete(data, i, axis=0))
            residuals.append(float(data[i, 1] / max(without[0] * data[i, 0] + without[1], 1e-9 * data[i, 1]) - 1))
    return LRE(w=w, b=b, pairs=tuple((float(x), float(y)) for x, y in data), residuals=tuple(residuals))


def _fit_line(data: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    x, y = data.T
    spread = x - x.mean()
    variance = float(spread @ spread)
    if variance > (1e-6 * x.mean()) ** 2 * len(x):
        w = float(spread @ (y - y.mean())) / variance
        if w > 0:
            return w, float(y.mean() - w * x.mean())
    return float(x @ y) / float(x @ x), 0.0


@dataclass(frozen=True, kw_only=True)
class PerLayerEstimator:
    """A factor for each layer, drawn to a shared one.

    Attributes:
        kind: its name in JSON.
        shared, slope: a and c.
        layers: u_l by layer.
        dense: SynOps before pruning by layer.
        residuals: relative, of the total, each sample predicted from the others: `after / predicted − 1`.
        pairs: the samples, SynOps of the whole network, (before, after).
    """

    kind: ClassVar[str] = "drift"

    shared: float
    slope: float
    layers: dict[str, float]
    dense: dict[str, float]
    residuals: tuple[float, ...]
    pairs: tuple[tuple[float, float], ...]

    def predict_by_source(self, before: BySource) -> dict[str, float]:
        """Return the expected SynOps after fine-tuning by layer."""
        return {name: value if name == INPUT else value * self._predict_factor(name, value) for name, value in before.items()}

    def predict(self, before: BySource) -> float:
        """Return the expected SynOps after fine-tuning."""
        return sum(self.predict_by_source(before).values())

    def interval(self, before: BySource, confidence: float = 0.8) -> tuple[float, float]:
        """Return bounds between which the SynOps after fine-tuning lie with this probability."""
        center = self.predict(before)
        width = max(0.0, conformal_quantile([abs(r) for r in self.residuals], confidence))
        return center * (1 - width), center * (1 + width)

    def upper(self, before: BySource, confidence: float = 0.8) -> float:
        """Return a bound that the SynOps after fine-tuning stay below with this probability."""
        return self.predict(before) * (1.0 + max(0.0, conformal_quantile(self.residuals, confidence)))

    def _predict_factor(self, name: str, value: float) -> float:
        share = np.log(max(value, TINY) / max(self.dense.get(name, value), TINY))
        return float(np.exp(np.clip(self.shared + self.layers.get(name, 0.0) + self.slope * share, -MAX_DRIFT, MAX_DRIFT)))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "shared": self.shared, "slope": self.slope, "layers": self.layers, "residuals": list(self.residuals),
            "pairs": [list(pair) for pair in self.pairs],
        }  # fmt: skip


def fit_per_layer(samples: Sequence[tuple[BySource, BySource]], dense: BySource) -> PerLayerEstimator:
    """Fit the model from (before, after) of fine-tuned plans.

    Args:
        samples: SynOps by source before and after fine-tuning.
        dense: those of the network before pruning.

    Raises:
        DataError: no sample, or one whose SynOps are not finite and positive in sum.
    """
    if not samples:
        raise DataError("SynOps estimator: 0 samples given, the drift by layer takes at least 1; fine-tune a plan first")
    for pair in samples:
        if not all(np.isfinite(sum(side.values())) and sum(side.values()) > 0 for side in pair):
            raise DataError("SynOps estimator: samples must be finite and above 0; a network without spikes cannot be fine-tuned")
    names = [name for name in dense if name != INPUT]
    residuals = []
    for i, (before, after) in enumerate(samples):
        if len(samples) > 1:
            others = _solve([pair for j, pair in enumerate(samples) if j != i], dense, names)
            residuals.append(sum(after.values()) / max(others.predict(before), TINY) - 1)
    return replace(_solve(samples, dense, names), residuals=tuple(residuals))


def _solve(samples: Sequence[tuple[BySource, BySource]], dense: BySource, names: Sequence[str]) -> PerLayerEstimator:
    """Solve the weighted ridge regression: unknowns a, c, u_1 ... u_L."""
    rows, targets, weights = [], [], []
    pairs = tuple((float(sum(before.values())), float(sum(after.values()))) for before, after in samples)
    for before, after in samples:
        total = sum(before.values())
        for index, name in enumerate(names):
            was, left = before.get(name, 0.0), dense[name]
            if was <= TINY or left <= TINY:
                continue
            row = np.zeros(2 + len(names))
            row[[0, 1, 2 + index]] = 1.0, np.log(was / left), 1.0
            rows.append(row)
            targets.append(np.clip(np.log(max(after.get(name, 0.0), TINY) / was), -MAX_DRIFT, MAX_DRIFT))
            weights.append(was / total)
    if not rows:
        return PerLayerEstimator(shared=0.0, slope=0.0, layers={}, dense=dict(dense), residuals=(), pairs=pairs)
    x, y, w = np.array(rows), np.array(targets), np.array(weights)
    mean = float(w.mean())
    ridge = np.array([0.0, SLOPE_RIDGE, *[RIDGE] * len(names)]) * mean
    solution: Array = np.linalg.solve(x.T @ (w[:, None] * x) + np.diag(ridge) + 1e-12 * np.eye(len(ridge)), x.T @ (w * y))
    layers = {name: float(u) for name, u in zip(names, solution[2:], strict=True)}
    shared, slope = float(solution[0]), float(solution[1])
    return PerLayerEstimator(shared=shared, slope=slope, layers=layers, dense=dict(dense), residuals=(), pairs=pairs)
