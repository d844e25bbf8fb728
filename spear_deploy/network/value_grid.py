"""Values that the numbers of a chip stand for, in floating point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spear_deploy.network.base import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class ValueGrid:
    """Values of the form unit · n, n a whole number that the format holds.

    Attributes:
        unit: the value of 1; broadcasts to the values.
        step: n is a multiple of it.
        low, high: the smallest and the largest n; infinite where the format is wide enough for anything.
        palette: (O, K) n that each output may have; None: all of low..high.
    """

    unit: Array
    step: int = 1
    low: float = -np.inf
    high: float = np.inf
    palette: Array | None = None

    def snap(self, values: Array) -> Array:
        """Return the nearest values of the grid, float64.

        >>> ValueGrid(unit=np.array(0.5), step=2, low=-4, high=4).snap(np.array([0.4, 0.6, -9.0]))
        array([ 0.,  1., -2.])
        """
        numbers = values.astype(np.float64) / self.unit
        if self.palette is not None:
            rows = numbers.reshape(len(numbers), -1, 1)
            nearest = np.abs(rows - self.palette[:, None]).argmin(2)
            chosen: Array = self.unit * np.take_along_axis(self.palette, nearest, 1).reshape(numbers.shape)
            return chosen
        snapped: Array = self.unit * np.clip(self.step * np.rint(numbers / self.step), self.low, self.high)
        return snapped
