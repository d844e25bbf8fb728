"""Projection of a proposal onto the largest plan within the budget.

A proposal is a direction: one global scale multiplies all its ratios, no group below its floor or above its channels. The
projection takes the largest scale that fits. So every proposal is feasible, and uses its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spear_deploy.pruning.candidates import Widths

BISECTIONS = 40


def scale_ratios(ratios: Sequence[float], scale: float, channels: Widths, min_widths: Widths) -> Widths:
    """Return `round(scale · ratio · channels)`, within `min_widths` and `channels`.

    >>> scale_ratios((0.5, 1.0), 0.5, (16, 32), (4, 4))
    (4, 16)
    """
    triples = zip(ratios, channels, min_widths, strict=True)
    return tuple(int(min(max(np.rint(scale * ratio * n), low), n)) for ratio, n, low in triples)


def project_ratios(ratios: Sequence[float], channels: Widths, min_widths: Widths, fits: Callable[[Widths], bool]) -> Widths:
    """Return the largest scaled plan that fits, then give each group one channel more where that still fits.

    Args:
        ratios: a positive number for each group; only their proportions matter.
        channels: of each group.
        min_widths: the fewest channels of each group.
        fits: whether a plan is within the budget; fewer channels must never make it worse.

    Returns:
        Widths that fit; `min_widths` if nothing does.

    >>> project_ratios((1.0, 0.5), (16, 32), (2, 2), lambda widths: sum(widths) <= 24)
    (12, 12)
    """
    high = max(1.0 / ratio for ratio in ratios)
    if fits(scale_ratios(ratios, high, channels, min_widths)):
        return scale_ratios(ratios, high, channels, min_widths)
    low = 0.0
    for _ in range(BISECTIONS):
        if scale_ratios(ratios, low, channels, min_widths) == scale_ratios(ratios, high, channels, min_widths):
            break
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scale_ratios(ratios, middle, channels, min_widths)) else (low, middle)
    widths = list(scale_ratios(ratios, low, channels, min_widths))
    lacking = [low * ratio * n - width for ratio, n, width in zip(ratios, channels, widths, strict=True)]
    for index in np.argsort(-np.array(lacking), kind="stable").tolist():
        more = tuple(width + (i == index) for i, width in enumerate(widths))
        if more[index] <= channels[index] and fits(more):
            widths[index] += 1
    return tuple(widths)


def fill_ratios(ratios: Sequence[float], channels: Widths, min_widths: Widths, fits: Callable[[Widths], bool]) -> Widths:
    """Return the largest scaled plan that fits, and let the groups that can still grow do so, in their proportions.

    Progressive filling (max-min fairness, Bertsekas and Gallager, Data Networks, 6.5.2): groups that cannot take one channel more
    stay as they are, the others are scaled on, until none can. A chip's limits concern single layers and go by steps (kernels in
    powers of two, cores, axons), so that one scale for all leaves other layers narrower than they have to be.

    Args:
        ratios, channels, min_widths, fits: those of `project_ratios`.

    >>> def fits(widths):
    ...     return widths[0] <= 4 and sum(widths) <= 24
    >>> project_ratios((1.0, 1.0), (16, 32), (2, 2), fits), fill_ratios((1.0, 1.0), (16, 32), (2, 2), fits)
    ((4, 10), (4, 20))
    """
    widths = project_ratios(ratios, channels, min_widths, fits)
    if not fits(widths):
        return widths
    free = set(range(len(widths)))
    while free:
        more = {i: tuple(width + (i == n) for n, width in enumerate(widths)) for i in free}
        free = {i for i in free if widths[i] < channels[i] and fits(more[i])}
        if free:
            most = tuple(n if i in free else width for i, (n, width) in enumerate(zip(channels, widths, strict=True)))
            widths = project_ratios(ratios, most, widths, fits)
    return widths


def compute_min_widths(channels: Widths, share: float) -> Widths:
    """Return the fewest channels of each group: a share of them, at min_widths one.

    >>> compute_min_widths((16, 3), 0.2)
    (4, 1)
    """
    return tuple(max(1, int(np.ceil(share * n))) for n in channels)
