"""What is told while something runs, and what of it a person sees."""

import io
import time

import numpy as np
import pytest
from rich.console import Console

from spear_deploy.cli.progress_bar import Display
from spear_deploy.data import from_arrays
from spear_deploy.pipeline import api
from spear_deploy.util.progress import prefix_stage
from tests.support.reference import random_graph, random_spikes


def shown(terminal, **how):
    display = Display(**how)
    display.console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    return display


def text(display):
    return display.console.file.getvalue()


def test_a_part_is_told_with_the_whole_in_front():
    told = []
    prefix_stage(told.append, "first")({"stage": "simulate", "done": 1, "of": 2})
    assert told == [{"stage": "first: simulate", "done": 1, "of": 2}]
    assert prefix_stage(None, "first") is None


def test_verbs_tell_how_far_they_are(tmp_path):
    graph, told = random_graph(1), []
    x = random_spikes(graph, 1, batch=5)
    api.count(graph, x, batch=2, progress=told.append)
    assert [(t["done"], t["of"]) for t in told] == [(2, 5), (4, 5), (5, 5)]
    data = from_arrays({"x": np.moveaxis(random_spikes(graph, 2, batch=40), 1, 0), "y": np.arange(40) % 3}, name="d")
    told.clear()
    api.count(graph, data, progress=told.append)
    assert told[-1]["done"] == told[-1]["of"] == 40
    for work, stages in (
        (lambda tell: api.simulate(graph, x, progress=tell), ["simulate"]),
        (lambda tell: api.compare(graph, graph, x, progress=tell), ["first: simulate", "second: simulate"]),
        (
            lambda tell: api.export(graph, tmp_path / "n.nir", to="nir", x=x, progress=tell),
            ["write nir", "the network: simulate", "as read back: simulate"],
        ),
    ):
        told.clear()
        work(told.append)
        assert list(dict.fromkeys(t["stage"] for t in told)) == stages
        assert told[-1]["done"] == told[-1]["of"] > 0


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_soon_done_shows_nothing_and_what_is_not_shows_its_stage(terminal):
    with shown(terminal, after_s=30.0) as display:
        display({"stage": "simulate", "done": 1, "of": 2})
    assert "simulate" not in text(display)
    with shown(terminal, after_s=0.05) as display:
        display({"stage": "Lava", "done": 0, "of": 0})  # and then it is silent
        end = time.monotonic() + 20
        while "Lava" not in text(display) and time.monotonic() < end:
            time.sleep(0.05)
    assert "Lava" in text(display)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_note_stays(terminal):
    with shown(terminal) as display:
        display({"stage": "doubts", "note": "the network is [at] chance", "done": 0, "of": 0})
        display({"stage": "search", "done": 1, "of": 2})
    assert "note: the network is [at] chance" in text(display) and "doubts" not in text(display)


def test_stages_are_lines_where_there_is_no_terminal_and_nothing_when_quiet():
    with shown(False) as display:
        for done in (1, 2):
            display({"stage": "search", "done": done, "of": 2})
        display({"stage": "fine-tune", "done": 1, "of": 2})
    assert [line.split("] ")[1] for line in text(display).splitlines()] == ["search", "fine-tune"]
    with shown(True, quiet=True) as display:
        display({"stage": "search", "done": 1, "of": 2})
    assert text(display) == ""
