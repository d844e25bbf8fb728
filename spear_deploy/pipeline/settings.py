"""Settings of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spear_deploy.pruning.budgets import parse_amount
from spear_deploy.pruning.search.settings import DEFAULT_METHOD, check_method


@dataclass(frozen=True, kw_only=True)
class DeploySettings:
    """How a network is deployed.

    Attributes:
        synops: SynOps budget per inference, or a share ("50%") of the dense network's SynOps on the test split.
        method: of the search, one of `pruning.search.settings.METHODS`.
        seed: of everything random; the same seed gives the same result.
        lava_samples: number of test samples that run on Lava; all unless given.
        overrides: facts of the profile to replace, by dotted key.
        fresh: run all stages again, even where the folder holds their results.
        command: the command line that made the call; it is shown in the report and in the advice after an error.

    Raises:
        BudgetError: the budget is neither a number nor a share above 0, or there is no such method.
    """

    synops: str | float = "50%"
    method: str = DEFAULT_METHOD
    seed: int = 0
    lava_samples: int | None = None
    overrides: Mapping[str, Any] | None = None
    fresh: bool = False
    command: str | None = None

    def __post_init__(self) -> None:
        parse_amount(self.synops, "synops")
        check_method(self.method)
