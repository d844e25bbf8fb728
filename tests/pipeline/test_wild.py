"""Random valid networks through every command: 100 by default, 5,000 with `-m slow` (`tests/reliability/wild.py`)."""

import pytest

from spear_deploy.hardware.catalog import list_profiles
from tests.reliability.wild import ALL, BLOCK, FIRST_SEED, LEAST, Outcome, run_wild


def check_outcome(outcome: Outcome) -> None:
    assert not outcome.wrong, "\n".join(outcome.wrong[:20])
    shares = outcome.shares()
    assert all(shares[name] >= least for name, least in LEAST.items()), shares
    assert set(outcome.chips) == set(list_profiles()), "not all chips were met"


def test_100_random_networks_go_through_all_commands(tmp_path):
    check_outcome(run_wild(range(100), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("block", range(50))
def test_5000_random_networks_go_through_all_commands_on_all_chips(tmp_path, block):
    first = FIRST_SEED + BLOCK * block
    check_outcome(run_wild(range(first, first + BLOCK), tmp_path, ALL))
