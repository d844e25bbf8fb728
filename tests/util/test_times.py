"""Times by stage and layer: they add up to the whole, and nothing is measured outside."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from spear_deploy.cli import main
from spear_deploy.util import times as times_module
from spear_deploy.util.times import REST, current_times, record_times, timed_layer, timed_stage


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to."""
    now = [0.0]
    monkeypatch.setattr(times_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_each_stage_has_the_time_that_no_stage_inside_it_took(clock):
    with record_times() as times:
        clock(1)
        with timed_stage("search"):
            clock(2)
            with timed_stage("simulate"):
                clock(4)
                for _ in range(2):
                    with timed_layer("conv"):
                        clock(8)
            clock(16)
        facts = times.to_json()
    rows = {row["stage"]: row for row in facts["stages"]}
    assert facts["seconds"] == 39 and sum(row["seconds"] for row in facts["stages"]) == 39
    assert (rows["search"]["seconds"], rows["simulate"]["seconds"], rows[REST]["seconds"]) == (18, 20, 1)
    assert rows["simulate"]["layers"] == {"conv": 16} and rows["simulate"]["calls"] == 1
    assert [row["stage"] for row in facts["stages"]] == ["simulate", "search", REST]


def test_a_stage_that_fails_is_closed_and_outside_nothing_is_measured(clock):
    with timed_stage("alone"), timed_layer("layer"):
        assert current_times() is None
    with record_times() as times:
        with pytest.raises(ValueError, match="stop"), timed_stage("fails"):
            clock(3)
            raise ValueError("stop")
        with timed_layer("after"):
            clock(1)
    assert times.rows == {("fails", ""): [3, 1], (REST, "after"): [1, 1]}
    assert current_times() is None


def test_the_option_adds_a_key_and_a_table():
    runner = CliRunner()
    arguments = ["check", "digits", "--chip", "loihi2", "--times"]
    result = runner.invoke(main, [*arguments, "--json"])
    facts = json.loads(result.stdout)["times"]
    stages = {row["stage"] for row in facts["stages"]}
    assert {"read the network", "place", REST} <= stages
    assert sum(row["seconds"] for row in facts["stages"]) == pytest.approx(facts["seconds"])
    assert "s in all" in runner.invoke(main, arguments).stderr
    before = runner.invoke(main, [*arguments[:-1], "--profile", "--json"])  # the name before
    assert "times" in json.loads(before.stdout) and "--profile" not in runner.invoke(main, ["check", "--help"]).stdout
    assert "times" not in json.loads(runner.invoke(main, [*arguments[:-1], "--json"]).stdout)


def test_layers_of_a_run_are_named(tmp_path):
    import numpy as np

    np.savez(tmp_path / "in.npz", spikes=np.ones((4, 2, 1, 8, 8), bool))
    result = CliRunner().invoke(main, ["count", "digits", "--input", str(tmp_path / "in.npz"), "--times", "--json"])
    rows = {row["stage"]: row for row in json.loads(result.stdout)["times"]["stages"]}
    assert {"conv1", "conv2", "readout"} <= set(rows["simulate"]["layers"])
