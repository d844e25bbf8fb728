"""Arguments of commands: what is refused, and what numpy's numbers are."""

import numpy as np
import pytest

from spear_deploy.errors import BudgetError, DataError
from spear_deploy.util.arguments import MAX_SEED, require_seconds, require_seed, require_switch, require_whole_number


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", True, None, float("nan")])
def test_what_is_no_whole_number_of_at_least_1(value):
    with pytest.raises(DataError, match=r"samples: .* given, expected a whole number of at least 1$"):
        require_whole_number("samples", value)


def test_a_number_of_numpy_is_one_and_the_largest_is_allowed():
    require_whole_number("samples", np.int64(3), most=3)
    with pytest.raises(BudgetError, match=r"samples: 4 given, expected a whole number of 1 to 3$"):
        require_whole_number("samples", 4, most=3, error=BudgetError)


def test_a_long_number_is_cut_in_the_message():
    with pytest.raises(DataError, match=r"samples: 10{56}\.\.\. given"):
        require_whole_number("samples", 10**400, most=3)


@pytest.mark.parametrize("value", [-1, 1.5, "a", True, MAX_SEED + 1])
def test_what_is_no_seed(value):
    with pytest.raises(DataError, match=r"seed: .* given, expected a whole number of 0 to 4294967295$"):
        require_seed(value)


def test_every_searcher_takes_the_largest_seed():
    np.random.RandomState(MAX_SEED)
    with pytest.raises(ValueError, match="Seed must be between 0 and"):
        np.random.RandomState(MAX_SEED + 1)


@pytest.mark.parametrize("value", ["no", 2, None])
def test_what_is_neither_true_nor_false(value):
    with pytest.raises(DataError, match=r"fresh: .* given, expected True or False$"):
        require_switch("fresh", value)


@pytest.mark.parametrize("value", ["5", 0, -1.0, True, float("inf")])
def test_what_is_no_time_limit(value):
    with pytest.raises(DataError, match=r"timeout_s: .* given, expected a number of seconds above 0$"):
        require_seconds("timeout_s", value)


def test_no_time_limit_and_one_are_allowed():
    require_seconds("timeout_s", None)
    require_seconds("timeout_s", np.float32(0.5))
