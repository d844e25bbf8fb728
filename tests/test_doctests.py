"""Every example in a docstring gives what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

import spear_deploy

ROOT = Path(spear_deploy.__file__).parent
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if "worker" not in path.parts and ">>> " in path.read_text()]


def dotted(path):
    return ".".join(["spear_deploy", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


@pytest.mark.parametrize("name", [dotted(path) for path in MODULES])
def test_docstrings_say_what_happens(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0 and found.failed == 0


def test_there_are_examples_to_run():
    assert len(MODULES) > 20
