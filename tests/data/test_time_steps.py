"""Fewer time steps: coarser bins, means, equal steps, ranges and what the data cannot give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spear_deploy.data import Split, digits
from spear_deploy.data.dataset import Dataset
from spear_deploy.data.time_steps import (
    StepsRange,
    choose_candidates,
    deployed_steps,
    largest_steps,
    list_steps,
    mark_steps,
    parse_steps,
    take_steps,
)
from spear_deploy.errors import DataError
from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain


def timed(kind="spikes", steps=6):
    """A dataset of random samples with a time axis."""
    rng = np.random.default_rng(0)

    def split(n):
        x = rng.integers(0, 3, (n, steps, 2, 3)).astype(np.uint8 if kind == "spikes" else np.float32)
        return Split(x=x, y=np.arange(n) % 2, kind=kind)

    return Dataset(name="timed", train=split(8), val=split(4), test=split(4), classes=2)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_spikes_of_coarser_bins_are_those_of_their_steps(steps):
    data = timed()
    coarse = take_steps(data, steps)
    width = 6 // steps
    for before, after in ((data.train, coarse.train), (data.test, coarse.test)):
        assert after.x.shape == (len(before), steps, 2, 3) and after.x.dtype.kind == "u" and after.kind == "spikes"
        for sample in range(len(before)):
            for t in range(steps):
                expected = sum(before.x[sample, t * width + k].astype(int) for k in range(width))
                np.testing.assert_array_equal(after.x[sample, t], expected)
        np.testing.assert_array_equal(before.y, after.y)


def test_currents_get_their_mean_and_constant_ones_fewer_equal_steps():
    data = timed("current")
    half = take_steps(data, 3)
    np.testing.assert_allclose(half.val.x[:, 0], data.val.x[:, :2].mean(axis=1))
    assert list_steps(data) == (1, 2, 3, 6)
    constant = digits(steps=7, encoding="direct")
    assert list_steps(constant) == tuple(range(1, 8))
    few = take_steps(constant, 3)
    np.testing.assert_array_equal(few.test.x, constant.test.x[:, :3])
    np.testing.assert_array_equal(take_steps(data, 6).train.x, data.train.x)


def test_numbers_of_steps_that_samples_cannot_be_given_are_refused():
    with pytest.raises(DataError, match=r"data 'timed': samples of 6 time steps cannot be given 4; expected one of 1, 2, 3, 6"):
        take_steps(timed(), 4)
    with pytest.raises(DataError, match=r"steps '4\.\.12': the samples have 6 time steps; name a range up to 6"):
        choose_candidates(StepsRange(low=4, high=12), (1, 2, 3, 6), 6)
    with pytest.raises(DataError, match=r"steps '4\.\.5': samples of 6 time steps can be given 1, 2, 3, 6; name a range"):
        choose_candidates(StepsRange(low=4, high=5), (1, 2, 3, 6), 6)


@pytest.mark.parametrize("text", ["8..2", "0..3"])
def test_empty_ranges_are_refused(text):
    with pytest.raises(DataError, match="is an empty range; expected the fewest steps, at least 1, then the most"):
        parse_steps(text)


@pytest.mark.parametrize("text", ["x", "3..", "..3", "3-8", "-2", "1e3", ""])
def test_texts_that_are_no_steps_are_refused(text):
    with pytest.raises(DataError, match="expected a number, a range such as 3..8, or auto"):
        parse_steps(text)


def test_ranges_and_numbers():
    assert parse_steps(None) is None and parse_steps(5) == parse_steps("5") == 5
    assert str(parse_steps("2..9")) == "2..9" and str(parse_steps("auto")) == "auto"
    assert [largest_steps(text) for text in (None, 4, "3..8", "auto")] == [None, 4, 8, None]
    assert choose_candidates(StepsRange(), range(1, 101), 100) == (100, 75, 50, 25)
    assert choose_candidates(StepsRange(low=3, high=3), range(1, 9), 8) == (3,)


def test_a_network_states_the_steps_that_it_runs_on():
    net = chain([Layer(name="fc", synapse=Dense(weight=np.ones((2, 3))), neuron=IF())], input_shape=(3,))
    assert deployed_steps(net) is None and deployed_steps(replace(net, metadata={"steps": 8})) is None
    marked = mark_steps(net, 3, 8)
    assert deployed_steps(marked) == (3, 8) and marked.metadata == {"steps": 3, "trained_steps": 8}
    for damaged in ("x", -1, True, 2.0, None):
        assert deployed_steps(replace(net, metadata={"steps": damaged, "trained_steps": 8})) is None
