"""Products of weights and factors in blocks: equal to the products of whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from spear_deploy.network import Conv2d, Dense, Scale
from spear_deploy.network.sparse_matrix import SparseMatrix, make_sparse
from spear_deploy.quantize.scaled_weights import BLOCK, ScaledSynapse, sort_values

SHAPES = [(1, 1), (3, 5), (2, BLOCK + 9), (300, 257), (BLOCK + 1, 2), (16, 8, 3, 3), (4, 40, 31, 33)]


def random_synapse(shape: tuple[int, ...], *, per_channel: bool, dtype: str) -> ScaledSynapse:
    rng = np.random.default_rng(shape)
    weight = rng.standard_normal(shape).astype(dtype)
    gain = rng.uniform(0.5, 2, (shape[0], *(1 for _ in shape[1:]))) if per_channel else np.array(0.37)
    synapse = Dense(weight=weight) if len(shape) == 2 else Conv2d(weight=weight)
    return ScaledSynapse(synapse=synapse, factors=(np.array(0.25), gain, np.array(256.0)), bias=None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_equal_the_products_of_whole_arrays(shape: tuple[int, ...], per_channel: bool, dtype: str):
    scaled = random_synapse(shape, per_channel=per_channel, dtype=dtype)
    whole = scaled.weight
    assert sum(place.stop - place.start for place, _ in scaled.blocks()) == whole.size
    for place, part in scaled.blocks():
        assert part.tobytes() == whole.ravel()[place].tobytes()
    assert scaled.extremes() == (whole.min(), whole.max())
    assert sort_values([scaled, scaled]).tobytes() == np.unique(whole).tobytes()
    assert sort_values([scaled], magnitudes=True).tobytes() == np.unique(np.abs(whole)).tobytes()
    expected = (2 * np.clip(np.rint(whole * 1.7 / 2), -100, 99)).astype(np.int32)
    rounded = scaled.round(1.7, step=2, low=-100, high=99)
    assert rounded.dtype == np.int32 and not rounded.flags.writeable and np.array_equal(rounded, expected)


def test_a_weight_per_value_takes_factors_with_more_axes():
    scaled = ScaledSynapse(
        synapse=Scale(weight=np.array([[[2.0]], [[3.0]]])), factors=(np.arange(8.0).reshape(2, 2, 2),), bias=None
    )
    assert scaled.round(1, low=-128, high=127).tolist() == [[[0, 2], [4, 6]], [[12, 15], [18, 21]]]
    assert sort_values([scaled]).tolist() == [0, 2, 4, 6, 12, 15, 18, 21]


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize(("share", "sign"), [(0.4, 0), (0.4, 1), (0.4, -1), (1.0, 1), (1.0, -1)])
def test_sparse_weights_take_factors_as_full_ones(per_row: bool, share: float, sign: int):
    """The zeros beside the stored weights are among the extremes and the values in order."""
    rng = np.random.default_rng(0)
    full = rng.standard_normal((300, 300)) if sign == 0 else sign * rng.uniform(0.5, 1, (300, 300))
    full *= rng.random(full.shape) < share
    gain = rng.uniform(0.5, 2, (300, 1)) if per_row else np.array(0.37)
    sparse = make_sparse(csr_array(full))
    scaled, other = (
        ScaledSynapse(synapse=Dense(weight=weight), factors=(np.array(0.25), gain), bias=None) for weight in (full, sparse)
    )
    assert len(sparse.data) > BLOCK and [place.stop for place, _ in other.blocks()][-1] == len(sparse.data)
    assert np.array_equal(np.concatenate([part for _, part in other.blocks()]), scaled.weight[full != 0])
    assert other.extremes() == scaled.extremes()
    for magnitudes in (False, True):
        assert np.array_equal(sort_values([other, other], magnitudes=magnitudes), sort_values([scaled], magnitudes=magnitudes))
    rounded = other.round(40, step=2, low=-10, high=9)
    assert isinstance(rounded, SparseMatrix) and np.array_equal(rounded.to_full(), scaled.round(40, step=2, low=-10, high=9))
