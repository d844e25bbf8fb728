"""The framework of a model is told by the packages of its modules' classes."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
import norse.torch as norse  # noqa: E402

from spear_deploy.errors import UnsupportedError  # noqa: E402
from spear_deploy.frameworks.detect import FRAMEWORKS, find_framework  # noqa: E402
from spear_deploy.frameworks.importer.context import run_stepwise  # noqa: E402
from spear_deploy.frameworks.models import read_model  # noqa: E402


def module_of(package):
    """Return a module whose class says that it is of a package."""
    return type("Own", (torch.nn.Module,), {"__module__": f"{package}.neurons"})()


def test_norse_and_plain_models_are_read_by_norses_conventions():
    assert find_framework(norse.SequentialState(norse.LIFBoxCell())).name == "norse"
    assert find_framework(torch.nn.Linear(2, 2)).name == "norse"


def test_a_class_derived_from_a_frameworks_is_its():
    derived = type("Mine", (norse.LIFBoxCell,), {"__module__": "my_script"})()
    assert find_framework(torch.nn.Sequential(derived)).name == "norse"


def test_modules_of_two_frameworks_are_refused():
    model = torch.nn.Sequential(norse.LIFBoxCell(), module_of("snntorch"))
    with pytest.raises(
        UnsupportedError, match=r"modules of Norse in '0' .LIFBoxCell. and snnTorch in '1' .Own.; use those of one"
    ):
        read_model(model, (3,))


@pytest.mark.parametrize("package", [name for name in FRAMEWORKS if name != "norse"])
def test_a_framework_that_does_not_import_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"spear_deploy.frameworks.{package}", raising=False)
    with pytest.raises(
        UnsupportedError, match=f"holds {FRAMEWORKS[package]} in '0' .Own., whose installed version lacks what is read"
    ):
        find_framework(torch.nn.Sequential(module_of(package)))


def test_a_framework_is_imported_only_for_its_own_modules():
    read_model(norse.SequentialState(torch.nn.Linear(3, 2), norse.LIFBoxCell()), (3,))
    others = set(FRAMEWORKS) - {"norse"}
    assert not others & {name.removeprefix("spear_deploy.frameworks.") for name in sys.modules} or others & set(sys.modules)


WITHOUT_NORSE = """
import sys
sys.modules["norse"] = None
import torch
import spear_deploy as sd
from spear_deploy.errors import MissingPackageError
try:
    sd.load(torch.nn.Linear(3, 2), input_shape=(3,))
except MissingPackageError as error:
    print(error)
import snntorch
graph = sd.load(torch.nn.Sequential(torch.nn.Linear(3, 2), snntorch.Leaky(beta=0.5, init_hidden=True)), input_shape=(3,))
print(graph.metadata["source"], [layer.name for layer in graph.layers])
"""


def test_a_model_of_another_framework_is_read_where_norse_is_not_installed():
    pytest.importorskip("snntorch", exc_type=ImportError)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT_NORSE], capture_output=True, text=True, check=False)
    refused, read = done.stdout.splitlines()
    assert "a model of torch's modules alone, read by Norse's conventions, needs the package 'norse', which is not" in refused
    assert read.startswith("snntorch [")


def test_a_function_that_stands_in_a_trace_is_not_called():
    with pytest.raises(NotImplementedError, match="it is traced, not called"):
        run_stepwise(None, "")
