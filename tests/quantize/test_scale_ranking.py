"""Scale ranking: equal to the mean over all values at every scale, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from spear_deploy.network import IF, Dense, Layer
from spear_deploy.network.graph import chain
from spear_deploy.quantize import quantize, scale_ranking
from spear_deploy.quantize.scale_ranking import Grid, find_near_best, rank_scales
from spear_deploy.quantize.scaled_weights import BLOCK, keep_distinct

FACTORS = np.arange(127, 63, -1) / 127


def slow_error(values: np.ndarray, scale: float, step: float) -> float:
    """Return the mean squared rounding error as numpy's own mean over the whole array."""
    scaled = values * (scale / step)
    return float(np.mean((scaled - np.rint(scaled)) ** 2)) * (step / scale) ** 2


def slow_ranking(pairs: list[tuple[np.ndarray, float]], max_scale: float) -> np.ndarray:
    """Return all scales in the order of the error."""
    unique = [(np.setdiff1d(values, 0), step) for values, step in pairs]  # 0 is exact at every scale
    errors = [sum(slow_error(values, max_scale * factor, step) for values, step in unique) for factor in FACTORS]
    return max_scale * FACTORS[np.argsort(errors, kind="stable")]


def random_values(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    if kind == "normal":
        return rng.standard_normal(size)
    if kind == "magnitudes":
        return np.abs(rng.standard_normal(size).astype(np.float32)).astype(np.float64)
    if kind == "multiples":
        return rng.integers(-127, 128, size) * 0.013
    return rng.integers(-40, 41, size) * 0.25 + rng.choice([0.0, 1e-13], size)


@pytest.mark.parametrize("kind", ["normal", "magnitudes", "multiples", "almost multiples"])
@pytest.mark.parametrize("size", [1, 7, 130, 5000, BLOCK, BLOCK + 1, 5 * BLOCK + 77])
@pytest.mark.parametrize("count", [1, 3, None])
def test_ranking_equals_the_mean_over_all_values(kind: str, size: int, count: int | None):
    rng = np.random.default_rng([size, len(kind)])
    values, thresholds = random_values(rng, kind, size), rng.uniform(0.5, 2, 3)
    largest = float(np.abs(values).max()) or 1.0
    grids = [Grid(values=keep_distinct(values.copy()), step=2.0), Grid(values=np.unique(thresholds), step=1.0)]
    expected = slow_ranking([(values, 2.0), (thresholds, 1.0)], 254 / largest)
    ranked = rank_scales(grids, 254 / largest, FACTORS, count=count)
    assert ranked.tobytes() == expected[:count].tobytes()


@pytest.mark.parametrize("size", [1, 9, 1000, BLOCK, 3 * BLOCK + 5, 8 * BLOCK + 1])
def test_an_error_in_blocks_is_numpys_mean(size: int):
    values = np.unique(np.random.default_rng(size).standard_normal(size))
    for scale in (31.7, 60.0, 127 / 3.3):
        error = scale_ranking._rounding_error(Grid(values=values, step=2.0), scale)
        assert error == pytest.approx(slow_error(values, scale, 2.0), rel=1e-14)  # equal bits where numpy sums 8192 at a time


@pytest.mark.parametrize("size", [1, 2, 9, 100, 512, 513])
def test_errors_of_all_scales_at_once_have_the_bits_of_one_by_one(size: int):
    rng = np.random.default_rng(size)
    grid, scales = Grid(values=np.unique(rng.standard_normal(size)), step=2.0), rng.uniform(1, 200, 63)
    one_by_one = np.array([scale_ranking._rounding_error(grid, scale) for scale in scales])
    assert scale_ranking._rounding_errors(grid, scales).tobytes() == one_by_one.tobytes()


def test_most_scales_are_ruled_out_without_a_look_at_all_values(monkeypatch: pytest.MonkeyPatch):
    values = np.unique(np.random.default_rng(0).standard_normal(8 * BLOCK))
    looked_at = []
    exact = scale_ranking._rounding_error
    monkeypatch.setattr(scale_ranking, "_rounding_error", lambda grid, scale: looked_at.append(scale) or exact(grid, scale))
    rank_scales([Grid(values=values, step=1.0)], 127 / float(values[-1]), FACTORS, count=3)
    assert len(looked_at) <= 4


def test_distinct_values_are_those_of_numpys_unique():
    rng = np.random.default_rng(5)
    for size in (1, 10, BLOCK, 2 * BLOCK + 3):
        values = rng.integers(0, 3 * size, size) / 7
        assert keep_distinct(values.copy()).tobytes() == np.unique(values).tobytes()


@pytest.mark.parametrize("kind", ["normal", "magnitudes", "multiples"])
def test_errors_of_segments_are_those_of_all_values_within_their_slack(kind: str):
    values = keep_distinct(random_values(np.random.default_rng(3), kind, 2 * BLOCK + 500))
    grid = Grid(values=values, step=2.0)
    scales = 40 / float(np.abs(values).max()) * FACTORS[:5]
    if kind != "multiples":
        assert scale_ranking._pays(grid, scales / 2)
    errors, slack = scale_ranking._estimate_errors(grid, scales)
    exact = np.array([scale_ranking._rounding_error(grid, scale) for scale in scales])
    assert (np.abs(errors - exact) <= slack).all() and (slack < 1e-6 * exact + 1e-9).all()


def test_segments_pay_where_they_cut_fewer_points_than_a_quarter_of_the_values():
    grid = Grid(values=np.linspace(10, 18, 400), step=1.0)
    assert scale_ranking._pays(grid, np.array([5.0, 6.0])) and not scale_ranking._pays(grid, np.array([6.0, 6.25]))


def test_errors_and_slack_have_the_unit_of_the_values_squared():
    """Values 2^10 times as large at a scale 2^10 times as small are the same integers."""
    values = np.unique(np.random.default_rng(1).standard_normal(20_000))
    scales = 40 / float(np.abs(values).max()) * FACTORS[:5]
    small = scale_ranking._estimate_errors(Grid(values=values, step=2.0), scales)
    large = scale_ranking._estimate_errors(Grid(values=values * 1024, step=2.0), scales / 1024)
    for ours, theirs in zip(large, small, strict=True):
        np.testing.assert_allclose(ours, theirs * 2**20, rtol=1e-12)


def test_the_slack_covers_values_that_are_integers_but_for_rounding():
    """Their error is smaller than what the sum of a segment is off by."""
    rng = np.random.default_rng(2)
    values = np.unique(rng.integers(-40, 41, 5000) * 0.25 + rng.uniform(0, 1e-9, 5000))
    grid, scales = Grid(values=values, step=1.0), np.array([4.0, 2.0])
    assert scale_ranking._pays(grid, scales)
    errors, slack = scale_ranking._estimate_errors(grid, scales)
    exact = np.array([scale_ranking._rounding_error(grid, scale) for scale in scales])
    assert (np.abs(errors - exact) <= slack).all() and exact[0] < 1e-17 and exact[1] > 0.01


@pytest.mark.parametrize("outliers", [(-9.4,), (9.4,), (-11.4, -9.74), (9.74, 11.4), (9.9, 11.4)])
def test_values_apart_from_all_others_are_in_a_segment_of_their_own(outliers: tuple[float, ...]):
    values = np.unique(np.append(np.random.default_rng(4).uniform(-0.2, 0.2, 3000), outliers))
    grid, scales = Grid(values=values, step=1.0), np.array([1.5, 2.0])
    assert scale_ranking._pays(grid, scales)
    errors, slack = scale_ranking._estimate_errors(grid, scales)
    exact = np.array([scale_ranking._rounding_error(grid, scale) for scale in scales])
    assert (np.abs(errors - exact) <= slack).all()


def test_the_candidates_of_equal_scales_are_all_of_them():
    grid = Grid(values=np.arange(1.0, 9.0), step=1.0)
    scales = np.ones(6)
    assert scale_ranking._candidates([grid], scales, 2).tolist() == list(range(6))
    assert rank_scales([grid], 1.0, scales, count=6).tolist() == scales.tolist()


def test_zeros_have_no_say_between_scales():
    """A ring of zeros around a kernel, or pruned weights stored as zeros, changes no scale; one more of few weighs much."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        weights, thresholds = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
        for values in (weights, np.abs(weights), -np.abs(weights)):
            grids = [
                [Grid(values=np.unique(part), step=2.0), Grid(values=np.unique(thresholds), step=1.0)]
                for part in (values, np.append(values, 0.0), np.append(values, -0.0))
            ]
            for count in (1, 5, None):
                first, *others = (rank_scales(pair, 14 / np.abs(weights).max(), FACTORS, count=count) for pair in grids)
                assert all(other.tobytes() == first.tobytes() for other in others)


def test_of_zeros_alone_the_largest_scales_come_first():
    grids = [Grid(values=np.zeros(1), step=1.0), Grid(values=np.zeros(0), step=1.0)]
    assert rank_scales(grids, 8.0, FACTORS, count=2).tolist() == (8.0 * FACTORS[:2]).tolist()


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_an_input_without_weights_changes_no_integer(reset):
    """Speck's integers of few weights, a bias and a threshold."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        weight, neuron = rng.normal(size=(1, 2)), IF(v_threshold=rng.uniform(0.5, 2), reset=reset)
        weights = (weight, np.append(weight, np.zeros((1, 1)), axis=1))
        graphs = [chain([Layer(name="a", synapse=Dense(weight=w), neuron=neuron)], input_shape=w.shape[1:]) for w in weights]
        plain, wide = (quantize(graph, format="speck", weight_bits=4) for graph in graphs)
        assert plain.metadata["quantization"]["scale"] == wide.metadata["quantization"]["scale"]
        assert np.array_equal(wide["a"].synapse.weight[:, :2], plain["a"].synapse.weight)


@pytest.mark.parametrize("kind", ["normal", "magnitudes", "multiples", "almost multiples"])
@pytest.mark.parametrize("size", [1, 7, 500, 3 * BLOCK + 77])
@pytest.mark.parametrize("share", [1e-9, 1e-3])
def test_scales_near_the_best_are_those_of_all_errors(kind: str, size: int, share: float):
    values = random_values(np.random.default_rng([size, len(kind)]), kind, size)
    scales = np.arange(1, 113) / (16 * (float(np.abs(values).max()) or 1.0))
    errors = np.array([((np.rint(scale * values) / scale - values) ** 2).sum() for scale in scales])
    above = share * float((values**2).sum())
    assert find_near_best(np.abs(values), scales, above).tolist() == np.flatnonzero(errors <= errors.min() + above).tolist()


def test_most_scales_near_the_best_are_ruled_out_without_a_look_at_all_values(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(0).standard_normal(8 * BLOCK)
    looked_at = []
    exact = scale_ranking._rounding_errors
    monkeypatch.setattr(scale_ranking, "_rounding_errors", lambda grid, scales: looked_at.extend(scales) or exact(grid, scales))
    find_near_best(np.abs(values), np.arange(1, 113) / (16 * float(np.abs(values).max())), 1e-9 * float((values**2).sum()))
    assert len(looked_at) <= 4
