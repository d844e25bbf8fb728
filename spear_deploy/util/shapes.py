"""Shapes that hold the same values in the same order."""

from __future__ import annotations

import math
from collections.abc import Sequence


def can_reshape(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Return whether shapes differ only by axes of length 1, or one is the other flattened: 28 × 28, 1 × 28 × 28 and 784.

    Channels last and channels first differ by more: their values stand in another order.

    >>> can_reshape((28, 28), (784,)), can_reshape((1, 28, 28), (28, 28, 1)), can_reshape((3, 8, 8), (8, 8, 3))
    (True, True, False)
    """
    left, right = ([n for n in axes if n != 1] for axes in (shape, target))
    return left == right or (min(len(left), len(right)) <= 1 and math.prod(left) == math.prod(right))
