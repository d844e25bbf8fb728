"""Synapse products equal slow loops, exactly for integers."""

import numpy as np
import pytest

from spear_deploy.network import AvgPool, Conv1d, Conv2d, Dense, Flatten, Scale, SumPool
from spear_deploy.simulator import synapse_math
from spear_deploy.simulator.synapse_math import apply_synapse
from tests.support import reference
from tests.support.seeds import seeds


def random_conv(seed: int) -> tuple[Conv2d, tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    groups, i, o = (int(n) for n in rng.integers(1, 4, 3))
    kernel, stride, dilation = rng.integers(1, 4, (3, 2))
    padding = rng.integers(0, 3, 2)
    size = dilation * (kernel - 1) + 1 + rng.integers(0, 4, 2)
    weight = rng.integers(-3, 4, (o * groups, i, *kernel))
    bias = rng.integers(-3, 4, o * groups) if rng.random() < 0.5 else None
    pair = {name: tuple(int(n) for n in v) for name, v in (("stride", stride), ("padding", padding), ("dilation", dilation))}
    return Conv2d(weight=weight, bias=bias, groups=groups, **pair), (i * groups, int(size[0]), int(size[1]))


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_convolution_equals_the_enumeration_of_its_synapses(seed):
    conv, shape = random_conv(seed)
    x = np.random.default_rng(seed).integers(0, 4, (3, *shape))
    expected = np.stack([reference.conv2d(conv, sample) for sample in x])
    np.testing.assert_array_equal(apply_synapse(conv, x, integer=True), expected)
    np.testing.assert_array_equal(apply_synapse(conv, x.astype(np.float32)), expected)


@pytest.mark.parametrize("seed", seeds(7, 40))
def test_fan_out_equals_the_enumeration_of_existing_synapses(seed):
    conv, shape = random_conv(seed)
    expected = np.zeros(shape, int)
    for source, _, weight in reference.conv2d_synapses(conv, shape):
        expected[source] += weight != 0
    np.testing.assert_array_equal(synapse_math.fan_out(conv, shape), expected)


def test_chunks_do_not_change_the_result(monkeypatch):
    conv, shape = random_conv(1)
    x = np.random.default_rng(0).random((7, *shape)).astype(np.float32)
    whole = apply_synapse(conv, x)
    monkeypatch.setattr(synapse_math, "CHUNK_VALUES", 1)
    np.testing.assert_array_equal(apply_synapse(conv, x), whole)


def test_pools_of_spikes_count_them():
    x = np.array([[[[1, 1, 0], [1, 1, 1]]]], bool)
    assert apply_synapse(SumPool(kernel_size=(2, 2)), x).tolist() == [[[[4]]]]
    assert apply_synapse(SumPool(kernel_size=(2, 2), stride=(1, 1), padding=(1, 0)), x).tolist() == [[[[2, 1], [4, 3], [2, 2]]]]
    assert apply_synapse(AvgPool(kernel_size=(1, 2)), x.astype(np.float32)).tolist() == [[[[1], [1]]]]


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_pools_of_real_values_add_up_in_the_order_of_torch_however_they_lie_in_memory(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    kernel, stride = (tuple(int(n) for n in rng.integers(1, high, 2)) for high in (10, 5))
    padding = tuple(min(int(n), k // 2) for n, k in zip(rng.integers(0, 3, 2), kernel, strict=True))
    shape = tuple(max(int(n), k) for n, k in zip(rng.integers(1, 14, 2), kernel, strict=True))
    x = rng.standard_normal((3, 4, *shape)).astype(np.float32)
    sizes = {"kernel_size": kernel, "stride": stride, "padding": padding}
    theirs = torch.nn.functional.avg_pool2d(torch.from_numpy(x), **sizes, divisor_override=1).numpy()
    mean = torch.nn.functional.avg_pool2d(torch.from_numpy(x), **sizes).numpy()
    for given in (x, np.ascontiguousarray(x.T).T, np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)):
        np.testing.assert_array_equal(apply_synapse(SumPool(**sizes), given), theirs)
        np.testing.assert_array_equal(apply_synapse(AvgPool(**sizes), given), mean)


def test_scale_and_flatten_and_one_axis():
    assert apply_synapse(Scale(weight=np.array([[2.0], [3.0]]), bias=np.array([[1.0], [0.0]])), np.ones((1, 2, 2))).tolist() == [
        [[3, 3], [3, 3]]
    ]
    assert apply_synapse(Flatten(), np.arange(4).reshape(1, 2, 2)).tolist() == [[0, 1, 2, 3]]
    assert apply_synapse(Conv1d(weight=np.array([[[1.0, 10.0]]])), np.array([[[1.0, 2.0, 3.0]]])).tolist() == [[[21, 32]]]
    assert apply_synapse(None, np.ones((1, 2))).tolist() == [[1, 1]]


def test_integer_scale_rounds_value_and_bias_together():
    scale = Scale(weight=np.array(36.0), bias=np.array(34.0))
    assert apply_synapse(scale, np.array([[0.04, 0.0, 1.0]]), integer=True).tolist() == [[35, 34, 70]]


def test_integer_sums_are_exact_where_float32_would_round():
    dense = Dense(weight=np.array([[2**22, 2**22, 2**22, 2**22, 1]]))
    assert apply_synapse(dense, np.ones((1, 5), int), integer=True).tolist() == [[2**24 + 1]]


def test_weight_exponent_shifts_the_sum_but_not_the_bias():
    dense = Dense(weight=np.array([[3, 2]]), bias=np.array([1]), weight_exponent=-1)
    assert apply_synapse(dense, np.array([[1, 1], [-1, -1]]), integer=True).tolist() == [[3], [-2]]
    assert apply_synapse(Dense(weight=np.array([[3]]), weight_exponent=2), np.array([[1]]), integer=True).tolist() == [[12]]


def test_pools_have_no_synapses():
    with pytest.raises(TypeError, match="SumPool has no synapses"):
        synapse_math.fan_out(SumPool(kernel_size=(1, 1)), (1, 1, 1))
