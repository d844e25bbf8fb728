"""Random valid networks through every command: 20 by default, 5,000 with `-m slow` (`tests/reliability/wild.py`)."""

from collections import Counter

import pytest

from spear_deploy.hardware.catalog import list_profiles
from tests.reliability.adapting import FIRST, run_adapting
from tests.reliability.wild import ALL, BLOCK, FIRST_RICH_SEED, FIRST_SEED, LEAST, OWN, Outcome, run_wild
from tests.support.seeds import few_first


def check_outcome(outcome: Outcome) -> None:
    assert not outcome.wrong, "\n".join(outcome.wrong[:20])
    shares = outcome.shares()
    assert all(shares[name] >= least for name, least in LEAST.items()), shares
    assert set(outcome.chips) == set(list_profiles()), "not all chips were met"


@pytest.mark.parametrize("count", few_first([20, 50], 1))
def test_random_networks_go_through_all_commands(tmp_path, count):
    check_outcome(run_wild(range(count), tmp_path))


@pytest.mark.parametrize("count", few_first([15, 30], 1))
def test_networks_of_recurrent_weights_several_spikes_and_all_chips_integers_go_through_all_commands(tmp_path, count):
    outcome = run_wild(range(FIRST_RICH_SEED + 90 - count, FIRST_RICH_SEED + 90), tmp_path)
    assert not outcome.wrong, "\n".join(outcome.wrong[:20])
    shares = outcome.shares()
    assert shares["check"] == shares["rank"] == 1 and min(shares["count"], shares["simulate"]) > 0.9
    if count == 30:
        assert shares["simulate --chip"] > 0 and shares[OWN] == 1 and shares["export onnx"] > 0.6 and shares["export nir"] > 0.25


def test_adapted_networks_agree_with_check_and_keep_their_spikes(tmp_path):
    """Networks of three families, each on one chip; on all chips and with learning: `tests/reliability/adapting.py`."""
    outcomes = [run_adapting(range(first, first + 10), tmp_path, chips=1, learnt=0) for first in FIRST.values()]
    wrong = [line for outcome in outcomes for line in outcome.wrong]
    assert not wrong, "\n".join(wrong[:20])
    counts = sum((outcome.counts for outcome in outcomes), Counter())
    assert counts["complete"] and counts["incomplete"] and counts["exact"]


@pytest.mark.slow
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("block", range(50))
def test_5000_random_networks_go_through_all_commands_on_all_chips(tmp_path, block):
    first = FIRST_SEED + BLOCK * block
    check_outcome(run_wild(range(first, first + BLOCK), tmp_path, ALL))
