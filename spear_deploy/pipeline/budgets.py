"""How many SynOps does a person mean?"""

from __future__ import annotations

import numpy as np

from spear_deploy.errors import BudgetError


def budget_from(wanted: str | float, dense: float) -> float:
    """Return SynOps per inference for "50%", "1200" or a number.

    Raises:
        BudgetError: it is none, or not above 0.

    >>> budget_from("50%", 1000.0), budget_from("300", 1000.0)
    (500.0, 300.0)
    """
    text = str(wanted).strip()
    try:
        value = float(text.removesuffix("%")) * (dense / 100 if text.endswith("%") else 1)
    except ValueError:
        raise BudgetError(f"SynOps budget '{wanted}': expected a number of SynOps or a share such as 50%") from None
    if not (np.isfinite(value) and value > 0):
        raise BudgetError(f"SynOps budget '{wanted}': expected more than 0")
    return value
