"""Rewards, estimators, margins and projection against slow or exact answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_deploy.errors import DataError
from spear_deploy.pruning.search.projection import compute_min_widths, project_ratios, scale_ratios
from spear_deploy.pruning.search.rewards import DEFAULT_TAR, TAR
from spear_deploy.pruning.search.synops_estimators import conformal_quantile, fit_lre, fit_per_layer
from spear_deploy.pruning.tune.margins import difference_score, sampling_margin

# ------------------------------------------------------------------------------------------------------------- reward


def test_the_default_reward_is_one_of_the_four():
    assert sorted(TAR) == ["cliff", "hinge", "power", "punish"] and DEFAULT_TAR in TAR


@pytest.mark.parametrize("form", sorted(TAR))
@given(accuracy=st.floats(0, 1), better=st.floats(0, 1), share=st.floats(0.05, 1))
@settings(max_examples=40, deadline=None)
def test_within_the_budget_more_accurate_is_never_worse(form, accuracy, better, share):
    low, high = sorted((accuracy, better))
    assert TAR[form](low, share * 100, 100, 250) <= TAR[form](high, share * 100, 100, 250)


@pytest.mark.parametrize("form", sorted(TAR))
@given(accuracy=st.floats(0.01, 1), first=st.floats(1.01, 2.5), other=st.floats(1.01, 2.5))
@settings(max_examples=40, deadline=None)
def test_beyond_the_budget_more_synops_are_never_better(form, accuracy, first, other):
    less, more = sorted((first, other))
    assert TAR[form](accuracy, more * 100, 100, 250) <= TAR[form](accuracy, less * 100, 100, 250)
    assert TAR[form](accuracy, less * 100, 100, 250) < TAR[form](accuracy, 100, 100, 250)


def test_the_four_rewards_of_one_plan_by_hand():
    values = {form: TAR[form](0.8, 150.0, 100.0, 200.0) for form in TAR}
    assert values == pytest.approx({"hinge": 0.3, "punish": -0.25, "cliff": -3.75, "power": 0.8 / np.sqrt(1.5)})


# ---------------------------------------------------------------------------------------------------------- estimator


@given(w=st.floats(0.2, 3), b=st.floats(0, 50), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_lre_is_exact_on_a_line(w, b, seed):
    before = np.random.default_rng(seed).uniform(10, 200, 6)
    line = fit_lre([(x, w * x + b) for x in before])
    assert line.predict(77.0) == pytest.approx(w * 77 + b, rel=1e-6)
    assert line.residuals == pytest.approx([0.0] * 6, abs=1e-6)
    assert line.upper(77.0) == pytest.approx(line.predict(77.0), rel=1e-5)


def test_lre_is_the_least_squares_line_and_its_residuals_leave_one_out():
    rng = np.random.default_rng(0)
    before = rng.uniform(50, 150, 9)
    after = 0.9 * before + 5 + rng.normal(0, 4, 9)
    line = fit_lre(list(zip(before, after, strict=True)))
    assert (line.w, line.b) == pytest.approx(tuple(np.polyfit(before, after, 1)))
    for i, residual in enumerate(line.residuals):
        w, b = np.polyfit(np.delete(before, i), np.delete(after, i), 1)
        assert residual == pytest.approx(after[i] / (w * before[i] + b) - 1)


def test_the_upper_bound_takes_the_quantile_of_the_residuals():
    rng = np.random.default_rng(1)
    before = rng.uniform(50, 150, 19)
    line = fit_lre([(x, x * (1 + e)) for x, e in zip(before, rng.normal(0, 0.05, 19), strict=True)])
    ordered = sorted(line.residuals)
    assert line.margin(0.5) == pytest.approx(max(0.0, ordered[9]))
    assert line.margin(0.9) == pytest.approx(ordered[17])
    assert line.margin(0.999) == pytest.approx(ordered[-1])
    assert line.upper(100.0, 0.9) == pytest.approx(line.predict(100.0) * (1 + ordered[17]))


def test_most_new_plans_lie_below_the_upper_bound():
    """Coverage of the bound over many repetitions, as the confidence says."""
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        before = rng.uniform(50, 150, 10)
        line = fit_lre([(x, 0.9 * x * (1 + e)) for x, e in zip(before, rng.normal(0, 0.05, 10), strict=True)])
        new = rng.uniform(50, 150)
        covered.append(0.9 * new * (1 + rng.normal(0, 0.05)) <= line.upper(new, 0.8))
    assert 0.74 <= np.mean(covered) <= 0.92


@pytest.mark.parametrize("pairs", [[(100.0, 80.0), (100.0, 84.0)], [(100.0, 90.0), (200.0, 80.0)]])
def test_without_a_rising_line_the_estimator_is_proportional(pairs):
    line = fit_lre(pairs)
    assert line.b == 0.0 and line.w > 0


def test_lre_refuses_fewer_than_two_pairs_and_zero_synops():
    with pytest.raises(DataError, match="1 pairs given, a line takes at least 2"):
        fit_lre([(1.0, 2.0)])
    with pytest.raises(DataError, match="must be finite and above 0"):
        fit_lre([(1.0, 2.0), (0.0, 1.0)])


def test_lre_is_plain_data():
    result = fit_lre([(1.0, 2.0), (2.0, 3.0), (3.0, 4.5)]).to_json()
    assert set(result) == {"w", "b", "pairs", "residuals"} and len(result["residuals"]) == 3


# -------------------------------------------------------------------------------------------------------------- drift

DENSE = {"input": 100.0, "a": 200.0, "b": 300.0}


def drifted(rng, noise=0.0, factors=(0.8, 1.1), slope=0.0):
    """A plan's SynOps by source, and those after fine-tuning by a known law."""
    left = rng.uniform(0.2, 1.0, 3)
    before = {name: float(share * value) for share, (name, value) in zip(left, DENSE.items(), strict=True)}
    after = {"input": before["input"]}
    for name, factor in zip("ab", factors, strict=True):
        after[name] = before[name] * factor * (before[name] / DENSE[name]) ** slope * float(np.exp(rng.normal(0, noise)))
    return before, after


def test_the_per_layer_estimator_learns_a_factor_for_each_layer_and_none_for_the_input():
    rng = np.random.default_rng(0)
    model = fit_per_layer([drifted(rng) for _ in range(80)], DENSE)
    before, after = drifted(rng)
    result = model.predict_by_source(before)
    assert result["input"] == before["input"]
    assert result == pytest.approx(after, rel=0.03)
    assert model.predict(before) == pytest.approx(sum(after.values()), rel=0.02)


def test_with_few_samples_the_factor_of_a_layer_is_drawn_to_the_shared_factor():
    before, after = {"input": 0.0, "a": 100.0, "b": 100.0}, {"input": 0.0, "a": 70.0, "b": 130.0}
    model = fit_per_layer([(before, after)], {"input": 0.0, "a": 100.0, "b": 100.0})
    result = model.predict_by_source(before)
    assert 70 < result["a"] < result["b"] < 130 and model.residuals == ()


def test_where_layers_differ_the_per_layer_estimator_halves_the_error_of_lre_and_its_interval_covers():
    rng = np.random.default_rng(1)
    errors, covered = {"lre": [], "drift": []}, []
    for _ in range(60):
        samples = [drifted(rng, noise=0.03) for _ in range(10)]
        model = fit_per_layer(samples, DENSE)
        line = fit_lre([(sum(b.values()), sum(a.values())) for b, a in samples])
        before, after = drifted(rng, noise=0.03)
        truth = sum(after.values())
        errors["lre"].append(abs(line.predict(sum(before.values())) / truth - 1))
        errors["drift"].append(abs(model.predict(before) / truth - 1))
        low, high = model.interval(before, 0.8)
        covered.append(low <= truth <= high)
        assert model.upper(before, 0.5) <= model.upper(before, 0.9)
    assert np.mean(errors["drift"]) < 0.6 * np.mean(errors["lre"])
    assert 0.7 <= np.mean(covered) <= 0.95


def test_the_per_layer_estimator_refuses_no_samples_and_zero_synops_and_takes_silent_layers():
    with pytest.raises(DataError, match="0 samples given, the drift by layer takes at least 1"):
        fit_per_layer([], DENSE)
    with pytest.raises(DataError, match="must be finite and above 0"):
        fit_per_layer([({"a": 0.0}, {"a": 1.0})], DENSE)
    silent = {"input": 50.0, "a": 0.0, "b": 0.0}
    assert fit_per_layer([(silent, silent)], DENSE).predict(silent) == 50.0
    result = fit_per_layer([drifted(np.random.default_rng(0)) for _ in range(3)], DENSE).to_json()
    assert len(result["pairs"]) == 3 == len(result["residuals"])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_the_conformal_quantile_has_its_share_of_residuals_below(residuals, confidence):
    bound = conformal_quantile(residuals, confidence)
    assert bound in residuals
    below = sum(r <= bound for r in residuals)
    assert below >= min(len(residuals), np.ceil((len(residuals) + 1) * confidence))


# ------------------------------------------------------------------------------------------------------------ margins


def test_few_samples_of_many_classes_have_a_margin_all_the_same():
    few, classes = np.array([9.0, 10.0, 12.0, 8.0, 11.0, 10.0, 13.0]), np.arange(7)
    assert sampling_margin(few, classes, 12) > 0.1
    assert sampling_margin(few, classes, 12) == sampling_margin(few, np.zeros(7), 12)
    assert sampling_margin(few[:1], classes[:1], 12) == sampling_margin(few[:0], classes[:0], 12) == 0.5


@pytest.mark.parametrize("relative", [True, False])
def test_the_sampling_margin_covers_99_per_cent_of_pairs_of_splits(relative):
    rng = np.random.default_rng(0)
    held, sizes = [], []
    labels = np.arange(200) % 10
    for _ in range(600):
        dense = [2000 + 100 * labels + rng.normal(0, 300, 200) for _ in range(2)]
        pruned = [0.5 * d + rng.normal(0, 20, 200) for d in dense]
        wide = sampling_margin(pruned[0], labels, 200, before=dense[0] if relative else None)
        sizes.append(wide)
        measured, unseen = (p.mean() / (d.mean() if relative else 1) for p, d in zip(pruned, dense, strict=True))
        held.append(unseen <= measured * (1 + wide))
    assert np.mean(held) >= 0.99
    assert np.mean(sizes) < 0.01 if relative else 0.03 < np.mean(sizes) < 0.06


def test_samples_of_equal_mean_differ_by_about_a_standard_error():
    rng = np.random.default_rng(3)
    same = [difference_score(*rng.normal(100, 10, (2, 80))) for _ in range(300)]
    far = [difference_score(rng.normal(100, 10, 80), rng.normal(110, 10, 80)) for _ in range(50)]
    assert 0.9 <= np.mean(np.abs(same) <= 2) <= 0.99 and max(far) < -2


# --------------------------------------------------------------------------------------------------------- projection


@st.composite
def problems(draw):
    groups = draw(st.integers(1, 3))
    channels = tuple(draw(st.lists(st.integers(1, 12), min_size=groups, max_size=groups)))
    ratios = tuple(draw(st.lists(st.floats(0.05, 1), min_size=groups, max_size=groups)))
    price = tuple(draw(st.lists(st.floats(0.1, 10), min_size=groups, max_size=groups)))
    return channels, ratios, price, draw(st.floats(0, 1))


@given(problems())
@settings(max_examples=150, deadline=None)
def test_projection_is_never_above_the_budget_and_is_the_best_scale(problem):
    channels, ratios, price, share = problem
    smallest = compute_min_widths(channels, 0.2)

    def cost(widths):  # as SynOps: products of neighbouring widths, and each on its own
        pairs = sum(a * b for a, b in itertools.pairwise(widths))
        return pairs + sum(p * w for p, w in zip(price, widths, strict=True))

    budget = cost(smallest) + share * (cost(channels) - cost(smallest))
    result = project_ratios(ratios, channels, smallest, lambda widths: cost(widths) <= budget)
    assert cost(result) <= budget
    assert all(low <= w <= high for low, w, high in zip(smallest, result, channels, strict=True))
    # no scale of a fine grid gives a plan that fits and costs more
    for scale in np.linspace(0, 1 / min(ratios), 400):
        other = scale_ratios(ratios, scale, channels, smallest)
        assert cost(other) > budget or cost(other) <= cost(result) + 1e-9


def test_where_nothing_fits_the_projection_is_the_smallest_plan():
    assert project_ratios((0.5, 0.5), (8, 8), (2, 3), lambda widths: False) == (2, 3)
    assert project_ratios((0.1, 0.2), (8, 8), (2, 3), lambda widths: True) == (8, 8)


def test_projection_keeps_the_proportions():
    result = project_ratios((1.0, 0.25), (100, 100), (1, 1), lambda widths: sum(widths) <= 100)
    assert result == (80, 20)
