"""Sums of positive and of negative weights in one number: their limits, and what passes several weights."""

import numpy as np
import pytest

from spear_deploy.errors import DataError
from spear_deploy.network import Conv1d, Dense, Flatten, SumPool
from spear_deploy.simulator.sign_sums import MAX_SIGN_SUM, SIGN_BITS, check_sums, make_weigher, pack_signs, split_signs
from tests.support.seeds import seeds

BEYOND = f"{MAX_SIGN_SUM + 1}, sums by sign hold {MAX_SIGN_SUM}; scale them down"


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_and_a_bias_add_up_to_all_bits_and_no_further(sign):
    def synapse(bias):
        return Dense(weight=[[sign * (MAX_SIGN_SUM - 5)], [0]], bias=[sign * bias, 0])

    packed = pack_signs(synapse(5))
    totals = split_signs(packed.weight[:, 0] + packed.bias)
    assert totals[0 if sign > 0 else 1].tolist() == [MAX_SIGN_SUM, 0] and not totals[1 if sign > 0 else 0].any()
    with pytest.raises(DataError, match=f"weights of a neuron add up to {BEYOND}"):
        pack_signs(synapse(6))


def test_several_spikes_add_up_to_all_bits_and_no_further():
    weigh = make_weigher(Dense(weight=[[-(2**24)]], bias=[-(2**25) + 1]))
    assert split_signs(weigh(np.array([[2]])).astype(np.int64))[1].item() == MAX_SIGN_SUM
    with pytest.raises(DataError, match=f"weights of a step add up to as many as {2**24 + MAX_SIGN_SUM}, sums by sign hold"):
        weigh(np.array([[3]]))
    weigh = make_weigher(Dense(weight=[[1]], bias=[1]))
    with pytest.raises(DataError, match=f"weights of a step add up to as many as {BEYOND}"):
        weigh(np.array([[MAX_SIGN_SUM]]))


@pytest.mark.parametrize(("synapse", "taps"), [(Flatten(), 1), (None, 1), (SumPool(kernel_size=(2,)), 2)])
def test_what_passes_a_window_adds_up_to_all_bits_and_no_further(synapse, taps):
    weigh, most = make_weigher(synapse), MAX_SIGN_SUM // taps
    x = np.full((1, 1, 2), most << SIGN_BITS)
    assert split_signs(weigh(x))[1].max() == most * taps
    with pytest.raises(DataError, match=f"as many as {(most + 1) * taps}, sums by sign"):
        weigh(x + (1 << SIGN_BITS))


def test_spikes_beside_sums_count_as_one_each():
    spikes, sums = np.ones((1, 1), bool), np.array([[MAX_SIGN_SUM - 1]])
    check_sums([spikes, sums])
    check_sums([sums, np.zeros((0, 1), np.int64)])
    with pytest.raises(DataError, match=f"as many as {BEYOND}"):
        check_sums([spikes, sums + 1])


@pytest.mark.parametrize("seed", seeds(6, 20))
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_sums_of_both_signs_pass_weights_of_both_signs(kind, seed):
    """Each product counts by its own sign."""
    rng = np.random.default_rng(seed)
    shape = (4, 6) if kind == "dense" else (4, 3, 2)
    weight, bias = rng.integers(-3000, 3001, shape), rng.integers(-3000, 3001, 4)
    synapse = Dense(weight=weight, bias=bias) if kind == "dense" else Conv1d(weight=weight, bias=bias)
    x = rng.integers(0, 3, (2, 5, 6) if kind == "dense" else (2, 5, 3, 2)) * rng.integers(0, 900)
    positive, negative = split_signs(make_weigher(synapse)(x[0] + (x[1] << SIGN_BITS)).astype(np.int64))
    rows, (there, back) = weight.reshape(4, -1), x.reshape(2, 5, -1)
    products = np.concatenate([there[:, None] * rows, -back[:, None] * rows, np.broadcast_to(bias[:, None], (5, 4, 1))], axis=2)
    np.testing.assert_array_equal(positive.reshape(5, 4), np.maximum(products, 0).sum(axis=2))
    np.testing.assert_array_equal(negative.reshape(5, 4), np.maximum(-products, 0).sum(axis=2))
