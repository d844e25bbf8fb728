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
    for index in np.argsort(-np.array(lacking), kind="stable"):
        more = tuple(width + (i == index) for i, width in enumerate(widths))
        if more[index] <= channels[index] and fits(more):
            widths[index] += 1
    return tuple(widths)


def compute_min_widths(channels: Widths, share: float) -> Widths:
    """Return the fewest channels of each group: a share of them, at min_widths one.

    >>> compute_min_widths((16, 3), 0.2)
    (4, 1)
    """
    return tuple(max(1, int(np.ceil(share * n))) for n in channels)
