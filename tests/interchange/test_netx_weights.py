"""netx weights after loading by lava-dl, against Lava's functions."""

import numpy as np
import pytest

from spear_deploy.errors import GraphError
from spear_deploy.interchange.netx.weights import count_kept_bits, distinct_values, round_weights, simulate_loading

KNOWN = [
    ([0], None),  # OverflowError in the loader
    ([5, 300], [0, 0]),
    ([-3, 0, 127], [-3, 0, 127]),
    ([-3, 0, 201], [-3, 0, 201]),
    ([-129, 2], [-129, 2]),
    ([-128, 127], [-128, 127]),
    ([-128, 0], [-64, 0]),
    ([-200, 0], [-200, 0]),
    ([-201, 0], [0, 0]),
    ([-1], [0]),
    ([-3, 0], [-3, 0]),
    ([-255, -1], [-255, -1]),
    ([-400, 100], [-256, 100]),
    ([1, 255], [1, 255]),
]


@pytest.mark.parametrize(("own", "expected"), KNOWN)
def test_known_weights_load_as_recorded(own, expected):
    """Measured with lava-dl 0.6.0 and lava-nc 0.10.0."""
    result = simulate_loading(np.array(own))
    assert result is None if expected is None else (result == expected).all()


def test_two_matrices_are_shifted_together():
    assert simulate_loading(np.array([5]), np.array([-3, 5])).tolist() == [5]
    assert simulate_loading(np.array([-201]), np.array([-201, 7, 100])).tolist() == [0]  # inhibitory by itself, mixed together


@pytest.mark.parametrize(
    ("weights", "bits"), [([-128, 127], 8), ([-3, 201], 9), ([-4, 202], 8), ([255, 1], 8), ([128], 1), ([0], 0)]
)
def test_a_chip_holds_eight_bits(weights, bits):
    assert count_kept_bits(np.array(weights)) == bits


def test_the_synapse_equals_lavas():
    """The part that Lava does, for all that lava-dl hands it: signs, clipping, bits."""
    utils = pytest.importorskip("lava.utils.weightutils")
    from spear_deploy.interchange.netx.weights import _store_in_synapse

    rng = np.random.default_rng(0)
    for _ in range(2000):
        low, high = sorted(int(n) for n in rng.integers(-600, 600, 2))
        weight = rng.integers(low, high + 1, 6)
        kept = int(rng.integers(0, 9))
        sign = utils.determine_sign_mode(weight)
        truth = utils.truncate_weights(utils.clip_weights(weight, sign, 8), sign, kept)
        assert np.array_equal(_store_in_synapse(weight, kept), truth), (weight, kept)


def test_distinct_values_are_those_of_numpy():
    rng = np.random.default_rng(0)
    weight = rng.integers(-300, 300, (300, 700)).astype(np.int32)
    assert np.array_equal(distinct_values(weight), np.unique(weight))
    assert distinct_values(np.array([-(2**30), 5, 2**30])).tolist() == [-(2**30), 2**30]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int64, bool])
def test_whole_weights_come_as_int32(dtype):
    given = (np.arange(200_000) % 120).reshape(2, -1).astype(dtype)
    result = round_weights(given, "weight")
    assert result.dtype == np.int32 and np.array_equal(result, given) and not result.flags.writeable


def test_almost_whole_weights_are_rounded_and_others_refused():
    assert round_weights(np.array([1.00001, -2.99999]), "weight").tolist() == [1, -3]
    for bad, match in ((np.nan, "holds NaN"), (0.5, "holds 0.5, expected whole"), (1e12, "whole numbers of 32 bits")):
        given = np.zeros(100_000)
        given[-1] = bad
        with pytest.raises(GraphError, match=f"'weight' {match}|'weight' holds 1e.12, expected {match}"):
            round_weights(given, "weight")
