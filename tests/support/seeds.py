"""Seeds of random networks: a few in each run, many in the slow one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

slow_too = True
"""Whether slow cases are wanted: a run without them does not make thousands of cases to leave them out."""


def seeds(few: int, many: int) -> list[Any]:
    """Return the seeds 0 to many − 1 as parameters; those from `few` on are slow."""
    return few_first(range(many), few)


def few_first(cases: Iterable[Any], few: int) -> list[Any]:
    """Return cases as parameters of one argument; those behind the first few are slow, and left out where none is wanted."""
    made = list(cases)[: None if slow_too else few]
    return [case if i < few else pytest.param(case, marks=pytest.mark.slow) for i, case in enumerate(made)]
