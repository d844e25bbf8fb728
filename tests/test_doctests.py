"""Examples in docstrings print the stated results."""

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
def test_examples_in_docstrings_pass(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_more_than_20_modules_have_examples():
    assert len(MODULES) > 20
