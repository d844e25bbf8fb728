"""How is searched? The searchers by name, and what can be set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from spear_deploy.errors import BudgetError, did_you_mean
from spear_deploy.pruning.importance import Criterion
from spear_deploy.pruning.search.environment import DEFAULT_TAR, TAR

Searcher: TypeAlias = Callable[..., None]
"""(env, groups=, episodes=, seed=): plays episodes of the environment."""
Estimator: TypeAlias = Literal["lre", "drift"]
Objective: TypeAlias = Literal["accuracy", "certainty"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

AGENTS = ("spear", "ddpg", "td3", "sac")
METHODS = (*AGENTS, "evolution", "gp", "cma-es", "tpe", "threshold", "random", "uniform")
DEFAULT_METHOD = "evolution"
"""The best at equal SynOps for less than half of SPEAR's time, over four tasks (docs/search.md)."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to search. `settings_for` gives those of a method.

    Attributes:
        episodes: proposals.
        floor: least ratio of a group; without one, budgets make bottlenecks that no fine-tuning widens.
        criterion: which channels of a group go first.
        projects: whether each proposal is scaled into the budget first; otherwise TAR punishes what is above it.
        objective: what a plan is worth on validation, "accuracy" or "certainty" (see `training.QuickEvaluation`), which
            mostly tells as well or better which plan will be the best (docs/search.md).
        tar: form of the reward, one of `reward.TAR`.
        estimator: of the SynOps after fine-tuning, "lre" or "drift".
        samples: plans that are fine-tuned to fit the estimator; 0 takes what was measured as the prediction.
        sample_epochs: epochs of each of these fine-tunes.
        confidence: of the upper bound that has to be within the budget; 0 takes the prediction itself.
        reach: relative excess over the budget that a plan may be predicted to have, since what follows will take it down.
        ladder: batches that the best plans are fine-tuned for before one is chosen, rung by rung; of `climbers` plans a third
            goes on from each rung.
        climbers: plans on the first rung.
        device: of torch.
    """

    episodes: int = 60
    floor: float = 0.2
    criterion: Criterion = "l1"
    projects: bool = True
    objective: Objective = "certainty"
    tar: str = DEFAULT_TAR
    estimator: Estimator = "drift"
    samples: int = 2
    sample_epochs: int = 1
    confidence: float = 0.8
    reach: float = 0.0
    ladder: tuple[int, ...] = ()
    climbers: int = 6
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.episodes < 1 or not 0 < self.floor <= 1 or self.samples < 0 or self.tar not in TAR:
            raise BudgetError(
                f"search settings: {self.episodes} episodes, floor {self.floor}, {self.samples} samples, reward '{self.tar}' "
                f"given; expected at least 1, above 0 and at most 1, at least 0, and one of {', '.join(TAR)}"
            )
        if self.objective not in OBJECTIVES:
            raise BudgetError(f"search settings: objective '{self.objective}' given; expected one of {', '.join(OBJECTIVES)}")
        if self.estimator == "lre" and self.samples == 1:
            raise BudgetError("search settings: LRE is a line through 1 sample; expected 0, or at least 2")


def settings_for(method: str) -> SearchSettings:
    """Return the settings of a method: SPEAR's as published where that is known, see `agents` for the rest.

    SPEAR fits its line from 500 samples; how long each of them learns is not known. Here it is fitted from 6 of two epochs.
    Its proposals are not scaled into the budget: SPEAR holds that SynOps cannot constrain the action, so the reward has to.
    """
    known_method(method)
    if method == "spear":
        return SearchSettings(projects=False, objective="accuracy", estimator="lre", samples=6, sample_epochs=2)
    if method in AGENTS:
        return SearchSettings(objective="accuracy", estimator="lre", samples=6, sample_epochs=2)
    if method == "evolution":
        return SearchSettings(episodes=24, samples=1, ladder=(40,), climbers=3)
    return SearchSettings()


def known_method(method: str) -> str:
    """Return the method's name.

    Raises:
        BudgetError: there is none of this name.
    """
    if method not in METHODS:
        raise BudgetError(f"method '{method}': expected one of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")
    return method


def searcher(method: str) -> Searcher:
    """Return the function that plays the episodes; what it needs is imported when it plays."""
    known_method(method)
    if method in AGENTS:

        def learn(env: object, **how: int) -> None:
            from spear_deploy.pruning.search import rl_agents

            rl_agents.learn(env, agent="ddpg" if method == "spear" else method, **how)  # type: ignore[arg-type]

        return learn
    from spear_deploy.pruning.search import baselines, optuna_samplers

    found: dict[str, Searcher] = {
        "evolution": baselines.evolution,
        "gp": optuna_samplers.gp,
        "cma-es": optuna_samplers.cma_es,
        "tpe": optuna_samplers.tpe,
        "threshold": baselines.threshold,
        "random": baselines.at_random,
        "uniform": baselines.uniform,
    }
    return found[method]
