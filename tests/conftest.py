"""Where data made by others lies, and how a test says that it is not there."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import seeds


def pytest_configure(config: pytest.Config) -> None:
    """Set up what the processes that tests start take from this one.

    A job in the background of a shell ignores Ctrl-C, which some tests send; they take it as a terminal's job does. Where the
    environment keeps no bytecode, each of these processes would compile torch and the kernels of numba anew, for 5 to 10 s. The
    width and the colours of the terminal are those that a test states. What is collected lives to the end, so the search for
    garbage waits until it is.
    """
    seeds.slow_too = config.option.markexpr != "not slow"
    gc.disable()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("PYTHONDONTWRITEBYTECODE", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """Search for garbage among what the tests make, less often: with all that is collected this took a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def shared(name: str) -> Path:
    """Return a path below SPEAR_SHARED (default: `shared` beside the repository), or skip the test."""
    root = Path(os.environ.get("SPEAR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    path = root / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set SPEAR_SHARED to the folder that holds {name}")
    return path


class _Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            raise record.exc_info[1]


@pytest.fixture(autouse=True)
def failing_remedies_are_errors() -> Iterator[None]:
    """A remedy that fails never costs the verdict; in a test it is an error all the same."""
    log, handler = logging.getLogger("spear_deploy.budget.remedies"), _Raising()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield
    log.removeHandler(handler)
    log.setLevel(level)


@pytest.fixture(autouse=True)
def faults_of_the_command_line_fail(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The last guard of the command line hides no exception from a test: each one fails it, unless `expects_fault` is set."""
    from spear_deploy.cli import last_guard

    faults, describe = [], last_guard.describe

    def record(error: Exception) -> str:
        sentence = describe(error)
        if sentence.startswith(last_guard.FAULT):
            faults.append(error)
        return sentence

    monkeypatch.setattr(last_guard, "describe", record)
    yield
    if faults and request.node.get_closest_marker("expects_fault") is None:
        raise faults[0]


@pytest.fixture(scope="session")
def kept_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept_results"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def keep(kept_results: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
    """Return what makes a function of a module find each result once for all tests that ask for this."""
    import joblib

    def keep(module: Any, name: str) -> None:
        find = getattr(module, name)

        def look_up(*arguments: Any, **options: Any) -> Any:
            key = joblib.hash((name, arguments, {key: value for key, value in options.items() if key != "progress"}))
            kept = kept_results / key
            if not kept.exists():
                part = kept.with_suffix(f".{os.getpid()}")
                part.write_bytes(pickle.dumps(find(*arguments, **options)))
                part.replace(kept)
            return pickle.loads(kept.read_bytes())

        monkeypatch.setattr(module, name, look_up)

    return keep


@pytest.fixture
def planned_once(keep: Callable[[Any, str], None]) -> None:
    """Rank a network, explain its integers, and plan its adaptation to a chip once for all tests that ask for this.

    Each takes seconds, and is the same at every width and on every page.
    """
    from spear_deploy.adaptation import reach
    from spear_deploy.pipeline import api

    keep(api, "rank")
    keep(api, "explain")
    keep(reach, "_find_plan")
