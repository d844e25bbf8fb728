"""Seeds of random networks: a few in each run, many in the slow one."""

from __future__ import annotations

from typing import Any

import pytest


def seeds(few: int, many: int) -> list[Any]:
    """Return the seeds 0 to many − 1 as parameters; those from `few` on are slow."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, many))]
