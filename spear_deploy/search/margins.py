"""How far may the SynOps of unseen samples lie above those measured, by chance?

A budget in per cent is a ratio to the network before pruning *on the same samples*. Samples that are dear for one network are
dear for the other, so the ratio of the means spreads far less than a mean does (the ratio estimator of survey sampling):

    R = Σ s_i / Σ d_i          s_i, d_i: SynOps of sample i, pruned and before
    e_i = s_i − R · d_i
    margin = SIGMAS · std(e) / mean(s) · sqrt(1 / measured + 1 / unseen)

An absolute budget has d_i = 1, and the same formula gives the spread of a mean. Splits have their classes in equal shares, so
that differences between classes do not count: std(e) is that within classes.
"""

from __future__ import annotations

import numpy as np

from spear_deploy.layers import Array

SIGMAS = 4.0
"""Margin in standard errors. Beyond three lies one unseen split in 700 by chance alone; but networks are also chosen and trimmed
on the samples that are measured, and where validation and test come from two sources, as MNIST's do, they differ by more than
chance: with three, one of 52 networks of the search benchmark took 0.07 % more than its budget on the test split."""
MOST = 0.5


def margin(pruned: Array, labels: Array, unseen: int, *, before: Array | None = None) -> float:
    """Return how much, relatively, the mean SynOps of `unseen` samples (or their ratio) may exceed those measured.

    Args:
        pruned: SynOps of each measured sample, (N,).
        labels: (N,) classes of the samples.
        unseen: how many samples the budget will be held against.
        before: SynOps of the same samples in the network before pruning, for a relative budget.
    """
    base = np.ones(len(pruned)) if before is None else before
    mean = max(float(pruned.mean()), 1e-12)
    residual = pruned - float(pruned.sum() / max(base.sum(), 1e-12)) * base
    classes = np.unique(labels)
    within = sum(float(np.sum((residual[labels == c] - residual[labels == c].mean()) ** 2)) for c in classes)
    spread = np.sqrt(within / max(len(labels) - len(classes), 1))
    return float(min(MOST, SIGMAS * spread / mean * np.sqrt(1 / len(labels) + 1 / unseen)))


def agree(one: Array, other: Array, *, sigmas: float = 2.0) -> bool:
    """Say whether two sets of samples may have the same mean, within so many standard errors.

    >>> agree(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.5, 2.0])), agree(np.array([1.0, 1.1]), np.array([9.0, 9.1]))
    (True, False)
    """
    error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
    return bool(abs(one.mean() - other.mean()) <= sigmas * error)
