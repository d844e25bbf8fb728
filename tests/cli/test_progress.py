"""Progress of verbs, and its display in a terminal."""

import io
import re
import time

import numpy as np
import pytest
from rich.console import Console

from spear_deploy.cli.progress_bar import Display
from spear_deploy.data import from_arrays
from spear_deploy.pipeline import api
from spear_deploy.util.progress import prefix_stage
from tests.support.reference import random_graph, random_spikes


def make_display(terminal, **how):
    display = Display(**how)
    display.console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    return display


def text(display):
    return display.console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_times_of_a_bar_are_whole_in_a_terminal_of_any_width(width):
    display = make_display(terminal=True)
    display.console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with display:
        for done in range(4):
            display(
                {"stage": "a_long_name_of_a_cell_of_a_sweep: fine-tune", "done": done, "of": 5, "accuracy": 0.9, "synops": 1e5}
            )
            time.sleep(0.01)
        screen = Console(file=io.StringIO(), width=width)
        screen.print(display.bars.get_renderable())
    (line,) = screen.file.getvalue().splitlines()
    assert re.search(r"0:00:0\d, 0:00:0\d left$", line.rstrip()) and len(line.rstrip()) <= width
    assert ("━" in line) == (width >= 100)


def test_a_stage_that_begins_again_is_not_shown_as_almost_over():
    """The bar of a second cycle of learning had no time left, since the first one had come to its end."""
    display = make_display(terminal=True)
    with display:
        for done in (1, 2, 3, 4):
            display({"stage": "learn", "done": done, "of": 4})
        (task,) = display.bars.tasks
        assert task.finished
        display({"stage": "learn", "done": 1, "of": 4})
        (task,) = display.bars.tasks
        assert not task.finished and task.completed == 1 and task.time_remaining is None


def test_a_long_stage_outside_a_terminal_has_a_line_each_minute(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    display = make_display(terminal=False)
    with display:
        for done in range(6):
            display({"stage": "learn", "done": done, "of": 6, "accuracy": 0.875, "synops": 1200.0})
            clock[0] += 25.0
        display({"stage": "quantise"})
        clock[0] += 61.0
        display({"stage": "quantise", "done": 3, "of": 0})
    assert text(display).splitlines() == [
        "[elapsed    0.0 s] learn",
        "[elapsed   75.0 s] learn, 3 of 6, accuracy 87.5%, SynOps 1,200",
        "[elapsed  150.0 s] quantise",
        "[elapsed  211.0 s] quantise",
    ]


def test_the_stage_of_a_part_has_the_name_of_the_whole_in_front():
    calls = []
    prefix_stage(calls.append, "first")({"stage": "simulate", "done": 1, "of": 2})
    assert calls == [{"stage": "first: simulate", "done": 1, "of": 2}]
    assert prefix_stage(None, "first") is None


def test_verbs_report_progress_up_to_the_end(tmp_path):
    graph, calls = random_graph(1), []
    x = random_spikes(graph, 1, batch=5)
    api.count(graph, x, batch=2, progress=calls.append)
    assert [(t["done"], t["of"]) for t in calls] == [(2, 5), (4, 5), (5, 5)]
    data = from_arrays({"x": np.moveaxis(random_spikes(graph, 2, batch=40), 1, 0), "y": np.arange(40) % 3}, name="d")
    calls.clear()
    api.count(graph, data, progress=calls.append)
    assert calls[-1]["done"] == calls[-1]["of"] == 40
    for work, stages in (
        (lambda progress: api.simulate(graph, x, progress=progress), ["simulate"]),
        (lambda progress: api.compare(graph, graph, x, progress=progress), ["first: simulate", "second: simulate"]),
        (
            lambda progress: api.export(graph, tmp_path / "n.nir", to="nir", x=x, progress=progress),
            ["write nir", "the network: simulate", "as read back: simulate"],
        ),
    ):
        calls.clear()
        work(calls.append)
        assert list(dict.fromkeys(t["stage"] for t in calls)) == stages
        assert calls[-1]["done"] == calls[-1]["of"] > 0


@pytest.mark.parametrize("terminal", [False, True])
def test_fast_work_shows_nothing_and_slow_work_its_stage(terminal):
    with make_display(terminal, after_s=30.0) as display:
        display({"stage": "simulate", "done": 1, "of": 2})
    assert "simulate" not in text(display)
    with make_display(terminal, after_s=0.05) as display:
        display({"stage": "Lava", "done": 0, "of": 0})  # and then it is silent
        end = time.monotonic() + 20
        while "Lava" not in text(display) and time.monotonic() < end:
            time.sleep(0.05)
    assert "Lava" in text(display)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_note_stays(terminal):
    with make_display(terminal) as display:
        display({"stage": "doubts", "note": "the network is [at] chance", "done": 0, "of": 0})
        display({"stage": "search", "done": 1, "of": 2})
    assert "note: the network is [at] chance" in text(display) and "doubts" not in text(display)


def test_stages_are_lines_without_a_terminal_and_nothing_when_quiet():
    with make_display(False) as display:
        for done in (1, 2):
            display({"stage": "search", "done": done, "of": 2})
        display({"stage": "fine-tune", "done": 1, "of": 2})
    assert [line.split("] ")[1] for line in text(display).splitlines()] == ["search", "fine-tune"]
    with make_display(True, quiet=True) as display:
        display({"stage": "search", "done": 1, "of": 2})
    assert text(display) == ""
