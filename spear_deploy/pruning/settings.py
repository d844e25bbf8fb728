"""Settings of pruning: budgets, search method, epochs and seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from spear_deploy.errors import BudgetError
from spear_deploy.hardware.fields import quote_value
from spear_deploy.hardware.schema import HardwareProfile
from spear_deploy.pruning.budgets import WRITTEN, Amount, Budgets, parse_amount
from spear_deploy.pruning.levers import check_bits_alone, parse_levers, rewards_zeros
from spear_deploy.pruning.search.settings import (
    DEFAULT_METHOD,
    LEVER_METHODS,
    RECIPE,
    RL,
    SearchSettings,
    check_method,
    default_settings,
)
from spear_deploy.pruning.short_learning import PEAK
from spear_deploy.training.device import choose_device
from spear_deploy.training.recipe import MAX_EPOCHS
from spear_deploy.util.arguments import require_seed, require_switch, require_whole_number
from spear_deploy.util.workers import Workers, read_workers


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """What a pruned network has to keep, and how it is searched and fine-tuned.

    Each limit is a number or a share of the dense network's use ("50%"); None: no limit. All limits hold together.

    Attributes:
        synops: SynOps per inference.
        energy_uj: energy of an inference in µJ.
        latency_ms: time of an inference in ms.
        step_load: work of a step on the busiest core, or by the chip's clock, relative to what it can do: 1.0 fills the step.
        cores: cores in use.
        memory: words of synapse memory, all cores together.
        parameters: weights, biases and batch norm's numbers.
        fit: whether the chip's own limits (cores, memory, axons, fan-out, ...) must hold too.
        method: of the search, one of `search.settings.METHODS`; unless given `recipe` where weights are among the levers, else
            `evolution`; `prune` and `deploy` take `recipe` too where the chip rewards zeros (`settle_method`).
        levers: of `pruning.levers`, "channels,weights,bits"; unless given what the chip rewards. Weights are removed by the
            methods `recipe` and `rl` alone. "bits" alone leaves all channels: for memory and cores.
        episodes: plans that the search tries; those of `search` unless given.
        epochs: of the first fine-tuning; up to four thirds more are added while a budget does not hold.
        learning_rate: the peak of fine-tuning, above 0 and at most 1; `short_learning.PEAK` unless given. All other learning of a
            pruning keeps its ratio to it.
        seed: of everything random; the same seed gives the same network.
        search: details of the search; the defaults of the method unless given.
        device: that candidates run and learn on, see `training.device`; None: that of `search`.
        workers: where candidates are measured and learn at the same time; None: in this process. Results do not depend on their
            number.
        completes: whether Ctrl-C during search or fine-tuning lets the best result so far be completed; else it ends pruning at
            once, and nothing more is learnt.

    Raises:
        BudgetError: a limit is neither a number nor a share above 0; there is no such method or lever, or the method does not
            have the lever; bits alone beside another budget than memory and cores; fewer than one episode or epoch; a learning
            rate out of its range; details of a search that are none.
        DataError: a seed that is none, or a switch that is neither True nor False.
    """

    synops: str | float | None = None
    energy_uj: str | float | None = None
    latency_ms: str | float | None = None
    step_load: str | float | None = None
    cores: str | float | None = None
    memory: str | float | None = None
    parameters: str | float | None = None
    fit: bool = False
    method: str | None = None
    levers: str | tuple[str, ...] | None = None
    episodes: int | None = None
    epochs: int = 40
    learning_rate: float | None = None
    seed: int = 0
    search: SearchSettings | None = None
    device: str | None = None
    workers: Workers | None = None
    completes: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", read_workers(self.workers))  # a number, too
        choose_method(self.method, self.levers)
        check_bits_alone(self.levers, self.limits, self.method)
        for name, text in self.limits.items():
            parse_amount(text, name)
        for name, value in (("episodes", self.episodes), ("epochs", self.epochs)):
            if value is not None:
                require_whole_number(f"pruning settings, {name}", value, most=MAX_EPOCHS, error=BudgetError)
        for name, switch in (("fit", self.fit), ("completes", self.completes)):
            require_switch(name, switch)
        require_seed(self.seed)
        if self.search is not None and not isinstance(self.search, SearchSettings):
            raise BudgetError(f"search: {quote_value(self.search)} given, expected SearchSettings; name a method as `method`")
        check_learning_rate(self.learning_rate)

    @property
    def chosen_method(self) -> str:
        """The method of the search."""
        return choose_method(self.method, self.levers)

    @property
    def peak(self) -> float:
        """The peak of the learning rate of fine-tuning."""
        return PEAK if self.learning_rate is None else float(self.learning_rate)

    @property
    def rate_scale(self) -> float:
        """The learning rates of all learning, relative to the default ones."""
        return self.peak / PEAK

    @property
    def rate_key(self) -> str:
        """What keys of checkpoints add for another learning rate than the default one; measurements depend on it."""
        return "" if self.rate_scale == 1 else f" rate {self.peak!r}"

    @property
    def learns_rounded(self) -> bool:
        """Whether the network may learn with the chip's rounding."""
        return self.levers is None or "bits" in parse_levers(self.levers)

    @property
    def limits(self) -> dict[str, str | float]:
        """The limits that are set, as written."""
        values = {name: getattr(self, name) for name in WRITTEN}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def budgets(self) -> Budgets:
        """The limits in the units of their resources.

        Raises:
            BudgetError: there is no limit at all, and the network need not fit the chip.
        """
        amounts: dict[str, Amount] = {WRITTEN[name][0]: parse_amount(text, name) for name, text in self.limits.items()}
        return Budgets(**amounts, fit=self.fit)

    @property
    def search_settings(self) -> SearchSettings:
        """The details of the search, with `episodes` and `device`.

        Raises:
            DataError: the device is not there.
        """
        settings = self.search or default_settings(self.chosen_method)
        if self.device is not None:
            settings = replace(settings, device=choose_device(self.device))
        return settings if self.episodes is None else replace(settings, episodes=self.episodes)


def settle_method(settings: PruneSettings, profile: HardwareProfile) -> PruneSettings:
    """Return the settings with the method `recipe`, where a chip rewards zeros and nothing about the search is named.

    At equal learning half widths and half weights are more accurate than widths alone (docs/benchmarks/levers.md), whose
    methods differ by tenths of a point.
    """
    free = settings.method is None and settings.levers is None and settings.search is None and settings.episodes is None
    if not free or settings.synops is None or not rewards_zeros(profile):
        return settings
    return replace(settings, method=RECIPE)


def choose_method(method: str | None, levers: str | tuple[str, ...] | None) -> str:
    """Return a method that has the levers, as written.

    Raises:
        BudgetError: there is no such method or lever, or the method does not remove weights.

    >>> choose_method(None, "channels,weights"), choose_method(None, None)
    ('recipe', 'evolution')
    """
    weights = levers is not None and "weights" in parse_levers(levers)
    if method is None:
        return RECIPE if weights else DEFAULT_METHOD
    check_method(method)
    if weights and method not in LEVER_METHODS:
        raise BudgetError(
            f"levers: method '{method}' removes channels alone; choose method '{RECIPE}' or '{RL}' for other levers, or "
            "'channels'"
        )
    return method


def check_learning_rate(rate: Any) -> None:
    """Check the peak of a learning rate; None is the default one.

    Raises:
        BudgetError: it is no number above 0 and at most 1.
    """
    if rate is not None and not (isinstance(rate, Real) and not isinstance(rate, bool) and 0 < float(rate) <= 1):
        raise BudgetError(
            f"pruning settings: learning rate {quote_value(rate)} given; expected a number above 0 and at most 1, "
            f"such as {PEAK:g}, the default"
        )
