"""Which widths come closest to a proposal and stay within the budget?

A proposal is a direction: one global scale stretches or shrinks all its ratios, no group below its floor or above its
channels, until the largest plan that fits is found. So every proposal is feasible, and uses its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spear_deploy.pruning.candidates import Widths

BISECTIONS = 40


def scaled(ratios: Sequence[float], scale: float, channels: Widths, least: Widths) -> Widths:
    """Return `round(scale · ratio · channels)`, within `least` and `channels`.

    >>> scaled((0.5, 1.0), 0.5, (16, 32), (4, 4))
    (4, 16)
    """
    wanted = zip(ratios, channels, least, strict=True)
    return tuple(int(min(max(np.rint(scale * ratio * n), low), n)) for ratio, n, low in wanted)


def project(ratios: Sequence[float], channels: Widths, least: Widths, fits: Callable[[Widths], bool]) -> Widths:
    """Return the largest scaled plan that fits, then give each group one channel more where that still fits.

    Args:
        ratios: a positive number for each group; only their proportions matter.
        channels, least: the most and the fewest channels of each group.
        fits: says whether a plan is within the budget; fewer channels must never make it worse.

    Returns:
        Widths that fit; `least` if nothing does.

    >>> project((1.0, 0.5), (16, 32), (2, 2), lambda widths: sum(widths) <= 24)
    (12, 12)
    """
    high = max(1.0 / ratio for ratio in ratios)
    if fits(scaled(ratios, high, channels, least)):
        return scaled(ratios, high, channels, least)
    low = 0.0
    for _ in range(BISECTIONS):
        if scaled(ratios, low, channels, least) == scaled(ratios, high, channels, least):
            break
        middle = (low + high) / 2
        low, high = (middle, high) if fits(scaled(ratios, middle, channels, least)) else (low, middle)
    widths = list(scaled(ratios, low, channels, least))
    lacking = [low * ratio * n - width for ratio, n, width in zip(ratios, channels, widths, strict=True)]
    for index in np.argsort(-np.array(lacking), kind="stable"):
        more = tuple(width + (i == index) for i, width in enumerate(widths))
        if more[index] <= channels[index] and fits(more):
            widths[index] += 1
    return tuple(widths)


def floors(channels: Widths, share: float) -> Widths:
    """Return the fewest channels of each group: a share of them, at least one.

    >>> floors((16, 3), 0.2)
    (4, 1)
    """
    return tuple(max(1, int(np.ceil(share * n))) for n in channels)
