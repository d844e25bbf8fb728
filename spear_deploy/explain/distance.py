"""How far apart are two spike trains? Spikes that differ, and van Rossum's distance, which forgives small shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spear_deploy.layers import Array

TIME_CONSTANT_STEPS = 10.0
"""Time constant of the exponential kernel."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far the spikes of one layer are from those of another run.

    Attributes:
        differ: neuron steps in which the two do not send the same number of spikes, over all samples.
        share: `differ` over all neuron steps.
        spikes: spikes in the two runs.
        van_rossum: see `van_rossum`, summed over neurons and samples: about the number of spikes that one run lacks.
    """

    differ: int
    share: float
    spikes: tuple[int, int]
    van_rossum: float

    def to_json(self) -> dict[str, float | int | list[int]]:
        """Return plain data."""
        return {"differ": self.differ, "share": self.share, "spikes": list(self.spikes), "van_rossum": self.van_rossum}


def distance(a: Array, b: Array) -> Distance:
    """Return the distance of two recordings (T, B, *shape) of one layer."""
    differ = int(np.count_nonzero(a != b))
    return Distance(
        differ=differ,
        share=differ / a.size,
        spikes=(int(a.sum(dtype=np.int64)), int(b.sum(dtype=np.int64))),
        van_rossum=van_rossum(a, b) if differ else 0.0,
    )


def van_rossum(a: Array, b: Array, time_constant_steps: float = TIME_CONSTANT_STEPS) -> float:
    """Return van Rossum's squared distance of two recordings (T, ...), summed over all but time.

    Both are smoothed by a causal exponential, f_t = q · f_{t−1} + a_t − b_t with q = exp(−1 / time constant), and

        D² = (1 − q²) · Σ_t f_t²          over all steps, those after the end included

    so a spike without a counterpart counts 1, and one that moved by k steps 2 · (1 − q^k): 0.19 for one step.

    Source: M. C. W. van Rossum, A novel spike distance, Neural Computation 13 (2001), in discrete time.

    >>> spike, later = np.eye(8)[2], np.eye(8)[3]
    >>> round(van_rossum(spike, 0 * spike), 6), round(van_rossum(spike, later), 3)
    (1.0, 0.19)
    """
    q = float(np.exp(-1 / time_constant_steps))
    steps = len(a)
    changed = (a != b).reshape(steps, -1).any(axis=0)
    difference = np.subtract(a.reshape(steps, -1)[:, changed], b.reshape(steps, -1)[:, changed], dtype=np.float64)
    trace = np.zeros(difference.shape[1])
    total = 0.0
    for row in difference:
        trace = q * trace + row
        total += float(trace @ trace)
    return (1 - q * q) * total + q * q * float(trace @ trace)  # what is left fades after the end: a geometric sum
