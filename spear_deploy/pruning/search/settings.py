"""Methods of the search and their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, get_args

from spear_deploy.errors import BudgetError, did_you_mean
from spear_deploy.pruning.importance import Criterion
from spear_deploy.pruning.search.rewards import DEFAULT_TAR, TAR
from spear_deploy.util.extras import require_packages

Searcher: TypeAlias = Callable[..., None]
"""(env, groups=, episodes=, seed=) → None: plays episodes of the environment."""
Estimator: TypeAlias = Literal["lre", "drift"]
Objective: TypeAlias = Literal["accuracy", "certainty"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

AGENTS = ("spear", "ddpg", "td3", "sac")
SAMPLERS = ("gp", "cma-es", "tpe")
RECIPE, RL = "recipe", "rl"
LEVER_METHODS = (RECIPE, RL)
"""Methods that remove weights too; what they learn while they search is taken off fine-tuning."""
METHODS = (*AGENTS, "evolution", *SAMPLERS, "threshold", "random", "uniform", *LEVER_METHODS)
DEFAULT_METHOD = "evolution"
"""The best at equal SynOps for less than half of SPEAR's time, over four tasks (docs/search.md)."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Details of a search; `default_settings` gives those of a method.

    Attributes:
        episodes: number of proposals; of the method `recipe` the number of recipes.
        floor: lowest ratio of a group; without one, budgets make bottlenecks that no fine-tuning can widen.
        criterion: importance by which the channels of a group are removed.
        projects: whether each proposal is scaled into the budget first; otherwise the reward punishes the excess.
        fills: whether with limits of size groups grow on where others are at their limit (`projection.fill_ratios`).
        objective: the value of a plan on validation, "accuracy" or "certainty" (see `training.QuickEvaluation`). Certainty mostly
            predicts the best plan as well or better (docs/search.md).
        tar: form of the reward, one of `rewards.TAR`.
        estimator: of the SynOps after fine-tuning: "lre" (one line, `LRE`) or "drift" (by layer, `PerLayerEstimator`).
        samples: plans that are fine-tuned to fit the estimator; 0: the prediction is the measured value.
        sample_epochs: epochs of each of these fine-tunes.
        confidence: of the upper bound that has to be within the budget; 0: the prediction has to be.
        overshoot: relative excess over the budget that a plan may be predicted to have, since later fine-tuning removes it.
        rounds: batches that the best plans are fine-tuned for in each round of successive halving; empty: no halving. Of the
            method `recipe` those of its recipes; empty: a share of the learning, `recipe_builder.SEARCH_SHARE`.
        finalists: plans in the first of these rounds; a third of them goes on from each round.
        device: of torch.
    """

    episodes: int = 60
    floor: float = 0.2
    criterion: Criterion = "l1"
    projects: bool = True
    fills: bool = True
    objective: Objective = "certainty"
    tar: str = DEFAULT_TAR
    estimator: Estimator = "drift"
    samples: int = 2
    sample_epochs: int = 1
    confidence: float = 0.8
    overshoot: float = 0.0
    rounds: tuple[int, ...] = ()
    finalists: int = 6
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


def default_settings(method: str) -> SearchSettings:
    """Return the settings of a method: SPEAR's as published as far as they are known, see `rl_agents` for the rest.

    SPEAR fits its line from 500 samples; the length of their fine-tuning is not published. Here 6 samples of two epochs are used.
    SPEAR's proposals are not scaled into the budget: it holds that SynOps cannot constrain the action, so the reward has to.

    Raises:
        BudgetError: there is no such method.
    """
    check_method(method)
    if method == "spear":
        return SearchSettings(projects=False, objective="accuracy", estimator="lre", samples=6, sample_epochs=2)
    if method in AGENTS:
        return SearchSettings(objective="accuracy", estimator="lre", samples=6, sample_epochs=2)
    if method == "evolution":
        return SearchSettings(episodes=24, samples=1, rounds=(40,), finalists=3)
    if method == RECIPE:
        return SearchSettings(episodes=1, samples=0, confidence=0.0)
    if method == RL:
        return SearchSettings(episodes=8, samples=0, confidence=0.0)
    return SearchSettings(fills=method != "uniform")


def check_method(method: str) -> None:
    """Check the name of a method.

    Raises:
        BudgetError: there is no such method.
    """
    if method not in METHODS:
        raise BudgetError(f"method '{method}': expected one of {', '.join(METHODS)}{did_you_mean(method, METHODS)}")


def get_searcher(method: str) -> Searcher:
    """Return the function that plays the episodes; torch and gymnasium are imported when this is called.

    Raises:
        BudgetError: there is no such method, or it plays no episodes.
        MissingPackageError: its packages are not installed.
    """
    check_method(method)
    if method in LEVER_METHODS:
        call = "`search_recipes`" if method == RECIPE else "`search_levers`"
        raise BudgetError(f"method '{method}': shares the budget between levers and plays no episodes of widths; call {call}")
    if method in AGENTS or method in SAMPLERS:
        packages = ("stable_baselines3",) if method in AGENTS else ("optuna", "cmaes")
        require_packages(*packages, user=f"method '{method}'")
    if method in AGENTS:
        from spear_deploy.pruning.search.rl_agents import train_agent

        return partial(train_agent, agent="ddpg" if method == "spear" else method)  # type: ignore[arg-type]
    from spear_deploy.pruning.search import baselines, optuna_samplers

    searchers: dict[str, Searcher] = {
        "evolution": baselines.regularized_evolution,
        "gp": optuna_samplers.gaussian_process,
        "cma-es": optuna_samplers.cma_es,
        "tpe": optuna_samplers.tree_parzen_estimator,
        "threshold": baselines.threshold_search,
        "random": baselines.random_search,
        "uniform": baselines.uniform_search,
    }
    return searchers[method]
