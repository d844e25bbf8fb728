"""Progress of verbs, and its display in a terminal."""

import contextlib
import io
import itertools
import re
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from spear_deploy.cli import inputs, output, progress_bar
from spear_deploy.cli.app import main
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
    assert re.search(r" \d:\d\d:\d\d, \d:\d\d:\d\d left$", line.rstrip()) and len(line.rstrip()) <= width
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


def wait_for(display, ending, times):
    """Wait until so many lines of a display end in a text; return what all lines say behind the time."""
    end = time.monotonic() + 20
    while sum(line.endswith(ending) for line in text(display).splitlines()) < times and time.monotonic() < end:
        time.sleep(0.01)
    return [re.fullmatch(r"\[elapsed +\d+\.\d s\] (.*)", line)[1] for line in text(display).splitlines()]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_silent_stage_outside_a_terminal_has_a_line_each_minute(monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_EVERY_S", 0.1)
    with make_display(terminal=False) as display:
        assert set(wait_for(display, progress_bar.STARTING, 2)) == {progress_bar.STARTING}  # no stage is known
        display({"stage": "learn", "done": 3, "of": 6, "accuracy": 0.875, "synops": 1200.0})
        amounts = "learn, 3 of 6, accuracy 87.5%, SynOps 1,200"
        lines = wait_for(display, amounts, 2)
        assert [line for line in lines if line != progress_bar.STARTING][:3] == ["learn", amounts, amounts]
        display({"stage": "quantise"})
        lines = wait_for(display, "quantise", 3)
        assert lines[-3:] == ["quantise"] * 3 and lines.index("quantise") == len(lines) - lines.count("quantise")


def test_the_line_of_a_minute_is_due_a_minute_after_the_last_line(monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_EVERY_S", 0.5)
    written, line = [], Display._line

    def write_line(display, words):
        written.append((time.monotonic(), threading.current_thread().name))
        line(display, words)

    monkeypatch.setattr(Display, "_line", write_line)
    with make_display(terminal=False) as display:
        for stage in "abc":  # three lines within the first half second, unless the machine is busy
            display({"stage": stage})
            time.sleep(0.2)
        lines = wait_for(display, "c", 2)
    assert list(dict.fromkeys(lines)) == ["a", "b", "c"] and lines[-2:] == ["c", "c"]
    gaps = [now - before for (before, _), (now, thread) in itertools.pairwise(written) if thread == "progress"]
    assert gaps and min(gaps) >= 0.5


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_nothing_is_written_after_the_end(error, monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_EVERY_S", 0.02)
    monkeypatch.setattr(progress_bar, "JOIN_S", 20.0)  # the thread of a busy machine
    with contextlib.suppress(ValueError, KeyboardInterrupt), make_display(terminal=False) as display:
        display({"stage": "learn"})
        wait_for(display, "learn", 2)
        assert threads()
        if error is not None:
            raise error
    written = text(display)
    assert not threads()
    time.sleep(0.1)
    assert text(display) == written


def test_a_bar_that_begins_as_the_block_ends_is_stopped(monkeypatch):
    """On a busy machine rich takes longer to import than the end waits; the bar went on, and took all that was printed later."""
    monkeypatch.setattr(progress_bar, "JOIN_S", 0.01)
    begun, ended, show = threading.Event(), threading.Event(), Display._show
    monkeypatch.setattr(Display, "_show", lambda display: (begun.set(), ended.wait(20), show(display)))
    with make_display(terminal=True, after_s=0.01) as display:
        assert begun.wait(20)
    assert display.bars is None
    ended.set()
    display.thread.join(20)
    assert not display.bars.live.is_started


def test_a_stderr_that_is_closed_ends_the_thread_without_a_word(monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_EVERY_S", 0.02)
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    with make_display(terminal=False) as display:
        display.console.file.close()
        end = time.monotonic() + 20
        while threads() and time.monotonic() < end:
            time.sleep(0.01)
        assert not threads() and not errors


def test_short_commands_a_terminal_and_json_have_no_lines(monkeypatch, capsys):
    with make_display(terminal=True):
        assert not threads()  # the bar is drawn by rich's own
    for as_json, is_quiet in ((True, False), (False, True)):
        monkeypatch.setattr(progress_bar, "LINE_EVERY_S", 0.01)
        with output.display(as_json, is_quiet) as progress:
            progress({"stage": "learn"})
            assert not threads()
    monkeypatch.undo()
    with output.display(False, False, 1e3) as progress:
        progress({"stage": "learn"})
    assert capsys.readouterr() == ("", "") and not threads()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_model_that_takes_minutes_to_read_has_a_line_each_minute(as_json, monkeypatch):
    monkeypatch.setattr(inputs, "LINE_EVERY_S", 0.05)
    monkeypatch.setattr(progress_bar, "LINE_EVERY_S", 0.05)
    graph, written, line = random_graph(1), [], Display._line
    monkeypatch.setattr(Display, "_line", lambda display, words: (line(display, words), written.append(words)))

    def load(*_, **__):
        end = time.monotonic() + (0.2 if as_json else 20)
        while len(written) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        return graph

    monkeypatch.setattr(api, "load", load)
    result = CliRunner().invoke(main, ["check", "digits", "--chip", "loihi2", *["--json"] * as_json])
    assert result.exit_code in (0, 3), result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("[elapsed")]
    assert all(line.endswith("] read the network") for line in lines) and (len(lines) >= 2) is not as_json


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


def test_stages_are_lines_without_a_terminal():
    with make_display(False) as display:
        for done in (1, 2):
            display({"stage": "search", "done": done, "of": 2})
        display({"stage": "fine-tune", "done": 1, "of": 2})
    assert [line.split("] ")[1] for line in text(display).splitlines()] == ["search", "fine-tune"]
