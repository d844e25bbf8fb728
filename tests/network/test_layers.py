"""Layers: frozen arrays, shapes and refused contradictions."""

import numpy as np
import pytest

from spear_deploy.errors import GraphError
from spear_deploy.network import (
    IF,
    LIF,
    AvgPool,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Dense,
    Flatten,
    Layer,
    LoihiLIF,
    Scale,
    SumPool,
)


def test_arrays_are_frozen_copies():
    weight = np.ones((2, 3))
    dense = Dense(weight=weight)
    weight[0, 0] = 7
    assert dense.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        dense.weight[0, 0] = 2


def test_equality_is_by_value_and_type():
    assert LIF(tau_s=0.1) == LIF(tau_s=0.1)
    assert LIF(tau_s=0.1) != LIF(tau_s=0.2)
    assert LIF(tau_s=0.1) != IF()
    assert Dense(weight=np.ones((1, 1), np.float32)) != Dense(weight=np.ones((1, 1)))


@pytest.mark.parametrize(
    ("synapse", "given", "expected"),
    [
        (Dense(weight=np.ones((4, 6))), (1, 2, 3), (4,)),
        (Conv2d(weight=np.ones((4, 3, 3, 5)), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (3, 9, 12), (4, 5, 4)),
        (Conv1d(weight=np.ones((4, 1, 3)), groups=2), (2, 8), (4, 6)),
        (Scale(weight=np.ones((3, 1, 1))), (3, 4, 5), (3, 4, 5)),
        (SumPool(kernel_size=2), (3, 5, 4), (3, 2, 2)),
        (AvgPool(kernel_size=(3,), stride=(2,), padding=(1,)), (3, 5), (3, 3)),
        (Flatten(), (3, 5, 4), (60,)),
    ],
)
def test_output_shapes(synapse, given, expected):
    assert Layer(name="a", synapse=synapse).output_shape(given) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(weight=np.array([["a"]])), "Dense.weight: expected numbers"),
        (lambda: Dense(weight=np.array([[np.nan]])), "Dense.weight: holds NaN or infinite values"),
        (lambda: Dense(weight=np.ones(3)), r"Dense.weight: shape \(3,\) given, expected 2 axes"),
        (lambda: Dense(weight=np.ones((0, 3))), "expected 2 axes, none of them empty"),
        (lambda: Dense(weight=np.ones((2, 3)), bias=np.ones(3)), r"Dense.bias: shape \(3,\) given, expected \(2,\)"),
        (lambda: Conv2d(weight=np.ones((3, 1, 1, 1)), groups=2), "3 output channels in 2 groups do not divide"),
        (
            lambda: Conv2d(weight=np.ones((1, 1, 1, 1)), stride=(0, 1)),
            r"Conv2d.stride: \(0, 1\) given, expected 2 whole numbers of at least 1",
        ),
        (lambda: SumPool(kernel_size=(2, 2), stride=(1,)), r"SumPool.stride: \(1,\) given, expected 2 whole numbers"),
        (lambda: LIF(tau_s=0.0), "LIF.tau_s: holds 0 s, a time constant is above 0 s"),
        (lambda: CubaLIF(tau_mem_s=0.1, tau_syn_s=0.0), r"CubaLIF.tau_syn_s: holds 0 s"),
        (lambda: IF(reset="soft"), "IF.reset: 'soft' given, expected 'value' or 'subtract'"),
        (
            lambda: LoihiLIF(decay_u=4097, decay_v=0, v_threshold=1),
            r"LoihiLIF.decay_u: 4097..4097 given, the format holds 0..4096",
        ),
        (lambda: LoihiLIF(decay_u=0, decay_v=0, v_threshold=2**17), r"LoihiLIF.v_threshold: .* the format holds 0..131071"),
        (
            lambda: LoihiLIF(decay_u=0.5, decay_v=0, v_threshold=1),
            "LoihiLIF.decay_u: expected whole numbers; quantise the network first",
        ),
        (lambda: LoihiLIF(decay_u=0, decay_v=0, v_threshold=1, refractory_steps=-1), "refractory_steps: -1 given"),
        (lambda: LoihiLIF(decay_u=0, decay_v=0, v_threshold=1, v_reset=2**23), "v_reset: 8388608..8388608 given, a 24-bit state"),
        (lambda: BatchNorm(weight=np.ones(2), bias=np.ones(1), mean=np.ones(2), var=np.ones(2)), r"expected one \(C,\) for all"),
        (
            lambda: BatchNorm(weight=np.ones(1), bias=np.ones(1), mean=np.ones(1), var=-np.ones(1)),
            "BatchNorm.var: holds negative values",
        ),
        (lambda: Layer(name="input"), "layer 'input': a name is not empty, not 'input' and has no '/'"),
    ],
)
def test_contradictions_are_named(make, message):
    with pytest.raises(GraphError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "given", "message"),
    [
        (Layer(name="a", synapse=Dense(weight=np.ones((1, 5)))), (2, 3), "layer 'a': Dense takes 5 inputs, got 2 x 3"),
        (
            Layer(name="a", synapse=Conv2d(weight=np.ones((1, 2, 1, 1)))),
            (3, 4, 4),
            "layer 'a': Conv2d takes 2 channels and 2 axes",
        ),
        (
            Layer(name="a", synapse=Conv2d(weight=np.ones((1, 3, 5, 5)))),
            (3, 4, 4),
            "layer 'a': Conv2d: kernel 5 x 5 does not fit",
        ),
        (Layer(name="a", synapse=SumPool(kernel_size=(2, 2))), (4,), "layer 'a': SumPool takes channels and 2 axes, got 4"),
        (Layer(name="a", synapse=SumPool(kernel_size=(2, 2))), (1, 1, 4), "layer 'a': SumPool: window 2 x 2 does not fit"),
        (
            Layer(name="a", synapse=Scale(weight=np.ones(3))),
            (4,),
            r"layer 'a': Scale.weight has shape \(3,\), which does not broadcast to 4",
        ),
        (Layer(name="a", neuron=LIF(tau_s=np.ones(3))), (4,), r"layer 'a': LIF.tau_s has shape \(3,\)"),
        (
            Layer(name="a", norm=BatchNorm(weight=np.ones(2), bias=np.ones(2), mean=np.ones(2), var=np.ones(2))),
            (4,),
            "layer 'a': BatchNorm has 2 channels, its input 4",
        ),
    ],
)
def test_shapes_that_do_not_meet_are_named(layer, given, message):
    with pytest.raises(GraphError, match=message):
        layer.output_shape(given)


def test_bias_of_the_integer_neuron_is_mantissa_times_power_of_two():
    assert LoihiLIF(decay_u=0, decay_v=0, v_threshold=1, bias_mantissa=-3, bias_exponent=6).bias == -192
    assert LoihiLIF(decay_u=0, decay_v=0, v_threshold=1, bias_mantissa=-3, bias_exponent=-1).bias == -2


@pytest.mark.parametrize("name", ["a\x1b[2J", "\x07", "a\nb", "\x00", "a\u202eb", "a\u2066", "\udc80", "\x9b1m", "a\u2028"])
def test_names_with_control_bidi_or_surrogate_characters_are_refused(name):
    with pytest.raises(GraphError, match=r"^layer .[ -~]*.: a name has no control, bidi or surrogate characters; rename"):
        Layer(name=name, synapse=Dense(weight=np.ones((2, 2))))
    assert Layer(name="größe 層 ×", synapse=Dense(weight=np.ones((2, 2)))).name == "größe 層 ×"
