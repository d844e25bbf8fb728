"""Margin by which unseen samples may have more SynOps than measured ones.

A budget in per cent is a ratio to the network before pruning *on the same samples*. Samples with many SynOps in one network
have many in the other, so the ratio of the means spreads far less than a mean does (the ratio estimator of survey sampling):

    R = Σ s_i / Σ d_i          s_i, d_i: SynOps of sample i, pruned and before
    e_i = s_i − R · d_i
    margin = sigmas · std(e) / mean(s) · sqrt(1 / measured + 1 / unseen)

An absolute budget has d_i = 1, and the same formula gives the spread of a mean. Splits have their classes in equal shares, so
that differences between classes do not count: std(e) is that within classes.

So a part of the budget stays unused that data decide: with std(e) = 5 % of the mean, 1,440 measured and 360 unseen samples it is
0.8 %, with 280 and 70 it is 1.8 %.

Samples of one group, such as windows of one recording, are alike, so their sums over groups are what is independent (cluster
sampling with clusters of unequal sizes: W. G. Cochran, Sampling Techniques, 3rd edition, 1977, chapter 9A, ratio to size):

    Z_k = Σ_{i in k} e_i             M_k: samples of group k; h_k = M_k / Σ M; Σ_k Z_k = 0
    A = Σ M_k² (1 − 2 h_k + Σ h²)    Σ Z_k² is a · A on average where the samples of a group are equal, of variance a,
    B = Σ M_k (1 − h_k)              and b · B where they are independent, of variance b
    variance of a mean over groups of M'_k samples = Σ Z_k² · max(Σ M'_k² / A, Σ M'_k / B) / (Σ M'_k)²
    margin = t / mean(s) · sqrt(variance of the measured groups + variance of the unseen groups)

A and B count that R follows a large group, whose own Z_k is small by that: without it, of 12 groups of which one has nine tenths
of the samples, the margin is exceeded in four of ten draws. The maximum bounds groups of other sizes. t is the quantile of
Student's distribution, since few groups show their spread badly. Its degrees of freedom are those of Σ Z_k² by Satterthwaite,
from its mean and variance where the samples of a group are equal: g − 1 for g groups of one size, fewer where few groups hold
most samples. Classes are as unequal as the groups that were drawn, so that differences between classes count.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from spear_deploy.network import Array

SIGMAS = 4.0
"""Margin of validation in standard errors. Beyond three lies one unseen split in 700 by chance alone; but networks are also
chosen and trimmed on the samples that are measured, and where validation and test come from two sources, as MNIST's do, they
differ by more than chance: with three, one of 52 networks of the search benchmark took 0.07 % more than its budget on the test
split."""
CHANCE_SIGMAS = 3.0
"""Standard errors of a margin that stand for chance alone: of few groups the quantile of Student's distribution replaces them."""
CONFIDENCE = 0.997
"""Probability with which unseen samples keep a budget that was measured on training and validation samples together. These are
too many for a network to be trimmed to their chance alone, so that a bound by the normal distribution holds."""
POOLED_SIGMAS = NormalDist().inv_cdf(CONFIDENCE)
"""Margin of training and validation samples together in standard errors: 2.75."""
SOURCE_DRIFT = 0.0025
"""Relative standard deviation, beyond chance, of the ratio between splits of two sources. Large splits have hardly any chance
left, but MNIST's test images are of other writers: without it one of 12 networks, with a margin of 0.5 %, took 0.17 % more than
its budget on them."""
MAX_MARGIN = 0.5
FEWEST_WITHIN = 8
"""Samples, beyond one of each class, from which the spread within classes is estimated. With fewer, all samples count as one
class: one sample of each class has no spread within it, so that the budget would have no margin."""


def sampling_margin(
    pruned: Array,
    labels: Array,
    unseen: int,
    *,
    before: Array | None = None,
    sigmas: float = SIGMAS,
    drift: float = 0.0,
    groups: tuple[Array, Array] | None = None,
) -> float:
    """Return the relative amount by which the mean SynOps of `unseen` samples (or their ratio) may exceed those measured.

    Args:
        pruned: SynOps of each measured sample, (N,).
        labels: (N,) classes of the samples.
        unseen: number of samples that the budget has to hold on.
        before: SynOps of the same samples in the network before pruning, for a relative budget.
        sigmas: the margin in standard errors.
        drift: relative standard deviation of the unseen mean beyond chance; variances add up.
        groups: (N,) of the measured and (unseen,) of the unseen samples, where samples of a group are not independent.

    Returns:
        At most `MAX_MARGIN`, which is also the margin of a single sample or group: nothing shows how much others differ.
    """
    if len(pruned) < 2:
        return MAX_MARGIN
    base = np.ones(len(pruned)) if before is None else before
    mean = max(float(pruned.mean()), 1e-12)
    residual = pruned - float(pruned.sum() / max(base.sum(), 1e-12)) * base
    if groups is not None:
        sizes, unseen_sizes = map(count_groups, groups)
        if len(sizes) < 2:
            return MAX_MARGIN
        squares = sum_squares(residual, groups[0])
        error = np.sqrt(sum(mean_variance(squares, [sizes], others) for others in (sizes, unseen_sizes))) / mean
        return float(min(MAX_MARGIN, student_sigmas(sigmas, count_freedom(sizes)) * np.hypot(error, drift)))
    classes = np.unique(labels)
    if len(labels) - len(classes) < FEWEST_WITHIN:
        classes, labels = np.zeros(1, int), np.zeros(len(pruned), int)
    within = sum(float(np.sum((residual[labels == c] - residual[labels == c].mean()) ** 2)) for c in classes)
    spread = np.sqrt(within / (len(labels) - len(classes)))
    error = spread / mean * np.sqrt(1 / len(labels) + 1 / unseen)
    return float(min(MAX_MARGIN, sigmas * np.hypot(error, drift)))


def count_groups(group: Array) -> Array:
    """Return the number of samples of each group."""
    return np.unique(group, return_counts=True)[1].astype(np.float64)


def sum_squares(residual: Array, group: Array) -> float:
    """Return the sum of squares of the sums over groups.

    >>> sum_squares(np.array([1.0, 2.0, -1.0, -2.0]), np.array([0, 0, 1, 1]))
    18.0
    """
    return float((np.bincount(np.unique(group, return_inverse=True)[1], residual) ** 2).sum())


def expect_squares(sizes: Array) -> tuple[float, float]:
    """Return the expected `sum_squares` of residuals whose sum is 0, of groups whose samples are equal, and independent: A, B.

    >>> expect_squares(np.array([2.0, 2.0])), expect_squares(np.array([1.0, 1.0, 1.0]))
    ((4.0, 2.0), (2.0, 2.0))
    """
    share = sizes / sizes.sum()
    return float((sizes**2 * (1 - 2 * share + (share**2).sum())).sum()), float((sizes * (1 - share)).sum())


def count_freedom(sizes: Array) -> float:
    """Return the degrees of freedom of `sum_squares` where the samples of a group are equal.

    With G_ij = M_i M_j (δ_ij − h_i − h_j + Σ h²), the covariance of the sums, these are (Σ_i G_ii)² / Σ_ij G_ij².

    >>> round(count_freedom(np.full(20, 7.0)), 9), round(count_freedom(np.array([1000.0, *[10.0] * 11])), 2)
    (19.0, 1.18)
    """
    share, square = sizes / sizes.sum(), sizes**2
    squares, total, first, second = (share**2).sum(), square.sum(), (square * share).sum(), (square * share**2).sum()
    all_pairs = squares**2 * total**2 - 4 * squares * total * first + 2 * total * second + 2 * first**2
    variance = (square**2 * (1 + 2 * squares - 4 * share)).sum() + all_pairs
    return float(expect_squares(sizes)[0] ** 2 / variance)


def mean_variance(squares: float, measured: Sequence[Array], others: Array) -> float:
    """Return the variance of the mean over groups of `others` samples, at most.

    Args:
        squares: sum of `sum_squares` over the measured sets of groups, the residuals of each with the sum 0.
        measured: samples of each group of each measured set.
        others: samples of each group of the mean.

    >>> mean_variance(18.0, [np.array([2.0, 2.0])], np.array([2.0, 2.0, 2.0]))  # 18 / 3 groups, for each of 2² samples
    1.5
    """
    equal, independent = np.sum([expect_squares(sizes) for sizes in measured], axis=0)
    return float(squares * max((others**2).sum() / equal, others.sum() / independent) / others.sum() ** 2)


def student_sigmas(sigmas: float, freedom: float) -> float:
    """Return standard errors with a spread of few degrees of freedom that are as rarely exceeded as `sigmas` with a known one.

    What `sigmas` has beyond `CHANCE_SIGMAS` is no matter of chance, and stays.

    >>> [round(student_sigmas(3.0, freedom), 2) for freedom in (2, 9, 1_000_000)], round(student_sigmas(4.0, 9), 2)
    ([19.21, 4.09, 3.0], 5.09)
    """
    from scipy.special import stdtrit

    chance = min(sigmas, CHANCE_SIGMAS)
    return float(stdtrit(freedom, NormalDist().cdf(chance))) + sigmas - chance


def accuracy_error(right: Array, group: Array | None = None) -> float:
    """Return the standard error of an accuracy.

    Args:
        right: whether each sample was decided rightly, or by how much, (N,), with the accuracy as the mean.
        group: (N,) groups, where samples of one are not independent. A single group counts as independent samples.

    >>> right = np.arange(200) % 10 > 0
    >>> round(accuracy_error(right), 4), round(accuracy_error(right, np.arange(200) // 2), 4)
    (0.0212, 0.0201)
    """
    residual = right - right.mean()
    if group is not None and len(sizes := count_groups(group)) > 1:
        return float(np.sqrt(mean_variance(sum_squares(residual, group), [sizes], sizes)))
    return float(np.sqrt((residual**2).mean() / len(right)))


def ratio_residuals(pruned: tuple[Array, Array], before: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return s − R · d of each sample of two sets, R = Σ s / Σ d over both: two ratios are equal where their means are.

    Args:
        pruned: SynOps of the samples of both sets, s.
        before: of the same samples in the network before pruning, d.

    >>> first, second = ratio_residuals((np.array([1.0, 2.0]), np.array([6.0])), (np.array([2.0, 4.0]), np.array([12.0])))
    >>> first.tolist(), second.tolist()
    ([0.0, 0.0], [0.0])
    """
    ratio = sum(float(part.sum()) for part in pruned) / max(sum(float(part.sum()) for part in before), 1e-12)
    first, second = (part - ratio * base for part, base in zip(pruned, before, strict=True))
    return first, second


def difference_score(first: Array, second: Array, groups: tuple[Array, Array] | None = None) -> float:
    """Return how many standard errors the mean of one set of samples lies above that of another.

    0 where nothing shows how much samples differ: where a set is a single sample, or each set a single group.
    With groups the standard error is that of `sampling_margin`, from both sets together.

    >>> round(difference_score(np.array([3.0, 5.0]), np.array([1.0, 3.0])), 3)
    1.414
    """
    if groups is not None:
        sizes = [count_groups(group) for group in groups]
        if sum(map(len, sizes)) < 3:
            return 0.0
        squares = sum(sum_squares(values - values.mean(), group) for values, group in zip((first, second), groups, strict=True))
        error = np.sqrt(sum(mean_variance(squares, sizes, size) for size in sizes))
        return float((first.mean() - second.mean()) / max(error, 1e-12))
    if min(len(first), len(second)) < 2:
        return 0.0
    error = np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return float((first.mean() - second.mean()) / max(error, 1e-12))
