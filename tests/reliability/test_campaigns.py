"""Campaigns of faults in small: each reader on a few damaged files, faults that are found, and mutants that are put in place."""

import os
import re
import signal

import pytest

from spear_deploy.errors import FileError
from tests.reliability import fuzz
from tests.reliability.explained import REASONS, explain_mutant
from tests.reliability.mutation import PACKAGE, TARGETS, find_code, list_mutants
from tests.support.seeds import few_first

QUICK = (
    "snn", "pynn", "input", "activity", "data", "speck", "checkpoint", "stages", "project", "sweep", "idx", "cifar", "nmnist",
    "aedat", "profile", "shd",
)  # fmt: skip


@pytest.mark.parametrize("reader", QUICK)
def test_damaged_files_are_read_or_refused(reader):
    result = fuzz.run_block(f"{reader} 0", 40)
    assert result["wrong"] == [] and result["cases"] == 40 == result["read"] + result["refused"]
    assert result["read"] < 40 or reader == "stages"


def test_the_shares_of_the_readers_are_thousandths():
    assert sum(fuzz.SHARES.values()) == 1000 and set(QUICK) <= fuzz.SHARES.keys()


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process ends with -9"),
        (lambda: bytearray(700 << 20), " MB"),
    ],
)
def test_a_fault_of_a_reader_is_found_and_the_block_goes_on(fault, found, monkeypatch):
    """The reader fails on its second damaged file, and refuses all others."""
    calls = []

    def read(path):
        calls.append(path)
        if len(calls) == 3:
            fault()
        if len(calls) > 1:
            raise FileError("no")

    target = fuzz.Target(files=[b"0123456789"], name="a.x", read=read)
    monkeypatch.setattr(fuzz, "prepare", lambda *_: target)
    result = fuzz.run_block("snn 0", 9)
    assert result["cases"] == 9 and result["wrong"] and all(found in line for line in result["wrong"])


@pytest.mark.parametrize("module", few_first(TARGETS, 6))
def test_mutants_are_named_once_and_found_in_their_functions(module):
    mutants = list_mutants(module)
    assert len({mutant.name for mutant in mutants}) == len(mutants) > 20
    for mutant in mutants[:1]:
        code = compile(mutant.tree, str(PACKAGE / module), "exec")
        assert mutant.function is None or find_code(code, *mutant.function) is not None


@pytest.mark.slow
def test_each_reason_is_about_mutants_that_there_are():
    keys = [mutant.key for module in TARGETS for mutant in list_mutants(module)]
    stale = [
        pattern for patterns in REASONS.values() for pattern in patterns if not any(re.fullmatch(pattern, key) for key in keys)
    ]
    assert stale == []
    assert len(keys) > 2000 and sum(explain_mutant(key) is not None for key in keys) < 0.05 * len(keys)
